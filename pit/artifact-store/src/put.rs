//! Storing an artifact: whole or not at all, durable when acknowledged.
//!
//! ```text
//!   bytes -> temporary file, hashed -> sync -> link into objects/ab/ -> sync objects/ab -> acknowledged, pinned
//!                                        \-> already there: verify, sync it -/
//! ```
//!
//! Knows nothing of names. Two writers of the same artifact need no lock: one links, the other finds it linked, and
//! each syncs before it acknowledges. A link is never undone, not even when the sync after it fails: somebody
//! else may have acknowledged the same artifact meanwhile, and what is linked is whole.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::{Digest, Hasher};
use crate::disk::Folder;
use crate::error::{DiskError, PutError};
use crate::look::{PIECE_BYTES, Sight, Sound, Spot};
use crate::pin::{Locked, Pin};
use crate::remembered::Identity;
use crate::source::LARGE_BYTES_MIN;
use crate::store::Store;
use crate::temporary::Temporary;

/// LIMIT: attempts to link; more than one is needed only when a damaged copy or the removal of a folder interferes.
const LINK_ATTEMPTS_MAX: u32 = 8;

/// The folders below `objects/` of which this process knows that they are durable.
#[derive(Debug)]
pub(crate) struct DurableShards([AtomicBool; 256]);

impl Default for DurableShards {
    fn default() -> Self {
        Self([const { AtomicBool::new(false) }; 256])
    }
}

/// An acknowledged artifact. As long as this lives it holds a descriptor, by which the artifact is pinned; those of one
/// pack share theirs.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its address.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// The store held it already.
    pub was_present: bool,
    /// Keeps it from being collected until the caller has named it, or lets this go.
    pub pin: Pin,
}

/// An artifact that is put piece by piece; nobody sees it before [`commit`](Self::commit), and dropping it leaves
/// nothing behind.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// use artifact_store::{Digest, Store, StoreOptions};
///
/// let store = Store::open(folder.path(), StoreOptions::default())?;
/// let mut writer = store.writer()?;
/// writer.append(b"hel")?;
/// writer.append(b"lo")?;
/// let stored = writer.commit()?;
/// assert_eq!(stored.digest, Digest::of(b"hello"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ArtifactWriter {
    store: Store,
    temporary: Temporary,
    hasher: Hasher,
    /// All bytes that are to come, if the caller knows, for the error when they do not fit.
    pub(crate) expected_bytes: Option<u64>,
    flushed_to: u64,
}

impl ArtifactWriter {
    /// Appends a piece: hashes and writes it. Pieces of 64 KiB and more are hashed at full speed.
    ///
    /// # Errors
    /// As for [`Store::put_bytes`]. The writer is of no more use then: a part of the piece may have been taken.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), PutError> {
        for part in piece.chunks(PIECE_BYTES) {
            self.hasher.add(part);
            self.temporary.append(part, self.expected_bytes)?;
        }
        self.temporary.begin_flush(&mut self.flushed_to);
        Ok(())
    }

    /// Bytes appended so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.temporary.bytes()
    }

    /// Makes the artifact durable and visible.
    ///
    /// # Errors
    /// As for [`Store::put_bytes`].
    pub fn commit(self) -> Result<Stored, PutError> {
        self.temporary.sync()?;
        let digest = self.hasher.digest();
        self.store.publish(self.temporary.locked(), self.temporary.bytes(), digest)
    }
}

impl Store {
    /// Stores these bytes. When this returns, the artifact is durable and every process that uses the store sees it.
    /// An artifact that is there already is verified and not written again, which works on a full disk too.
    ///
    /// # Errors
    /// [`DiskError::Full`] without room: make some, put again. [`DiskError::Poisoned`] after a failed sync: open the
    /// store again. Others as described there. Nothing half-written is ever visible.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Stored, PutError> {
        if bytes.len() >= LARGE_BYTES_MIN {
            self.root.check_sound()?;
            return self.put_large(bytes);
        }
        let digest = Digest::of(bytes);
        self.root.check_sound()?;
        if let Some(stored) = self.acknowledge(&digest)? {
            return Ok(stored);
        }
        let mut temporary = Temporary::create(&self.root)?;
        temporary.append(bytes, Some(bytes.len() as u64))?;
        temporary.sync()?;
        self.publish(temporary.locked(), temporary.bytes(), digest)
    }

    /// Begins an artifact that comes in pieces.
    ///
    /// # Errors
    /// As for [`put_bytes`](Self::put_bytes).
    pub fn writer(&self) -> Result<ArtifactWriter, PutError> {
        let temporary = Temporary::create(&self.root)?;
        Ok(self.writer_to(temporary))
    }

    /// A writer to a file that is empty so far.
    pub(crate) fn writer_to(&self, temporary: Temporary) -> ArtifactWriter {
        let (store, hasher) = (self.clone(), Hasher::default());
        ArtifactWriter { store, temporary, hasher, expected_bytes: None, flushed_to: 0 }
    }

    /// Gives a whole and durable file its name. The lock on it becomes the pin.
    pub(crate) fn publish(&self, file: &Arc<Locked>, bytes: u64, digest: Digest) -> Result<Stored, PutError> {
        // What was begun before a sync failed ends here.
        self.root.check_sound()?;
        let spot = Spot::of(&digest);
        let path = self.path_of(&digest);
        let written = rustix::fs::fstat(file).map_err(|error| DiskError::io("stat", &path, error.into()))?;
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for _ in 0..LINK_ATTEMPTS_MAX {
            let folder = self.shard_folder(&digest, spot.shard())?;
            match self.root.disk.link(file.file(), &folder, spot.name()) {
                Ok(()) => {
                    self.make_durable(&folder, &digest)?;
                    self.remember_written(digest, file, &written);
                    return Ok(Stored { digest, bytes, was_present: false, pin: Pin::of(Arc::clone(file)) });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match self.look_pinned(&digest)? {
                        (Sight::Sound(sound @ Sound::File { .. }), Some(pin)) => {
                            return self.acknowledge_present(digest, &sound, pin);
                        }
                        (Sight::Damaged { kept_at, is_moved: false }, _) => {
                            return Err(PutError::Obstructed { digest, path: kept_at });
                        }
                        // The place is free now: our copy replaces what was there.
                        _ => failure = error,
                    }
                }
                // Somebody removed the folder by hand: it is made again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => failure = error,
                Err(error) => {
                    return Err(DiskError::of_growth("link", &path, &self.root.folder, bytes, error).into());
                }
            }
        }
        Err(DiskError::io("link", &path, failure).into())
    }

    /// What was hashed while it was written need not be hashed to be read, unless somebody wrote to it since.
    fn remember_written(&self, digest: Digest, file: &Locked, written: &rustix::fs::Stat) {
        let Ok(now) = rustix::fs::fstat(file) else { return };
        // Linking has moved the change time, so this is told by the time of the last write.
        let last_write = |stat: &rustix::fs::Stat| (stat.st_mtime, stat.st_mtime_nsec, stat.st_size);
        if last_write(&now) == last_write(written) {
            self.remembered.remember(digest, Identity::of(&now));
        }
    }

    /// Acknowledges an artifact if it is there.
    pub(crate) fn acknowledge(&self, digest: &Digest) -> Result<Option<Stored>, PutError> {
        match self.look_pinned(digest)? {
            (Sight::Sound(sound), Some(pin)) => self.acknowledge_present(*digest, &sound, pin).map(Some),
            _ => Ok(None),
        }
    }

    /// Acknowledges an artifact that was there before. Its first writer may not have synced yet, and may never.
    pub(crate) fn acknowledge_present(
        &self,
        digest: Digest,
        sound: &Sound,
        pin: Pin,
    ) -> Result<Stored, PutError> {
        match sound {
            Sound::File { file, .. } => {
                let path = self.path_of(&digest);
                let spot = Spot::of(&digest);
                let folder = self
                    .root
                    .objects
                    .open_inside(spot.shard())
                    .map_err(|error| DiskError::io("open", &path, error))?;
                self.root.disk.sync_file(file).map_err(|error| self.root.poison(path, error))?;
                self.make_durable(&folder, &digest)?;
            }
            Sound::Packed { file, place, .. } => {
                let path = self.root.packs.path().join(&*place.pack);
                self.root.disk.sync_file(file).map_err(|error| self.root.poison(path, error))?;
                self.root.sync_folder(&self.root.packs)?;
                self.root.check_sound()?;
            }
        }
        Ok(Stored { digest, bytes: sound.bytes(), was_present: true, pin })
    }

    /// Makes the name of an artifact durable, and the name of its folder.
    fn make_durable(&self, folder: &Folder, digest: &Digest) -> Result<(), DiskError> {
        self.root.sync_folder(folder)?;
        let is_durable = &self.durable_shards.0[usize::from(digest.shard())];
        // ORDERING(durable-shard): Relaxed suffices, the flag says that a system call has returned, and whoever
        // misses it only repeats the call.
        if !is_durable.load(Ordering::Relaxed) {
            self.root.sync_folder(&self.root.objects)?;
            // ORDERING(durable-shard): Relaxed, as above.
            is_durable.store(true, Ordering::Relaxed);
        }
        // Another thread's sync may have failed on the same folder and taken the system's only report of it.
        self.root.check_sound()
    }

    fn shard_folder(&self, digest: &Digest, shard: &str) -> Result<Folder, DiskError> {
        let objects = &self.root.objects;
        let fault =
            |error| DiskError::of_growth("make", &objects.path().join(shard), &self.root.folder, 0, error);
        match objects.open_inside(shard) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map_err(fault),
        }
        match self.root.disk.make_folder(objects, shard) {
            // ORDERING(durable-shard): Relaxed, as in `make_durable`; a folder that was removed by hand is new again.
            Ok(()) => self.durable_shards.0[usize::from(digest.shard())].store(false, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fault(error)),
        }
        objects.open_inside(shard).map_err(fault)
    }
}
