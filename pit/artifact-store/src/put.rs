//! Storing an artifact: whole or not at all, durable when acknowledged.
//!
//! ```text
//!   bytes -> temporary file, hashed -> sync -> link into objects/ab/ -> sync objects/ab -> acknowledged
//!                                        \-> already there: verify, sync it -/
//! ```
//!
//! Knows nothing of names. Two writers of the same artifact need no lock: one links, the other finds it linked, and
//! each syncs before it acknowledges. A link is never undone, not even when the sync after it fails: somebody
//! else may have acknowledged the same artifact meanwhile, and what is linked is whole.

use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::{Digest, Hasher};
use crate::disk::Folder;
use crate::error::{Fault, PutError};
use crate::look::{PIECE_BYTES, Sight, Sound, Trust, place};
use crate::root::open_outside;
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

/// An acknowledged artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its address.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// The store held it already.
    pub was_present: bool,
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
    expected_bytes: Option<u64>,
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
        let digest = self.hasher.digest();
        self.store.publish(&self.temporary, digest)
    }
}

impl Store {
    /// Stores these bytes. When this returns, the artifact is durable and every process that uses the store sees it.
    /// An artifact that is there already is verified and not written again, which works on a full disk too.
    ///
    /// # Errors
    /// [`PutError::Full`] without room: make some, put again. [`PutError::Poisoned`] after a failed sync: open the
    /// store again. Others as described there. Nothing half-written is ever visible.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Stored, PutError> {
        let digest = Digest::of(bytes);
        self.root.check_sound()?;
        if let Sight::Sound(sound) = self.look(&digest, Trust::Memory)? {
            return self.acknowledge_present(digest, &sound);
        }
        let mut temporary = Temporary::create(&self.root)?;
        temporary.append(bytes, Some(bytes.len() as u64))?;
        self.publish(&temporary, digest)
    }

    /// Stores what a reader yields until its end, in one pass and with a buffer of 256 KiB.
    ///
    /// # Errors
    /// [`PutError::Input`] if the reader fails, else as for [`put_bytes`](Self::put_bytes).
    pub fn put_reader(&self, mut reader: impl Read) -> Result<Stored, PutError> {
        let writer = self.writer()?;
        copy(writer, &mut reader)
    }

    /// Stores a copy of a file. The file is read once; if it changes meanwhile, what was read is what is stored.
    ///
    /// # Errors
    /// [`PutError::Input`] if it cannot be read or is no ordinary file, else as for [`put_bytes`](Self::put_bytes).
    pub fn put_file(&self, path: &Path) -> Result<Stored, PutError> {
        let input = |source| PutError::Input { source };
        let mut file = open_outside(path).map_err(input)?;
        let metadata = file.metadata().map_err(input)?;
        if !metadata.is_file() {
            let text = format!("{} is not an ordinary file", path.display());
            return Err(input(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let mut writer = self.writer()?;
        writer.expected_bytes = Some(metadata.len());
        copy(writer, &mut file)
    }

    /// Begins an artifact that comes in pieces.
    ///
    /// # Errors
    /// As for [`put_bytes`](Self::put_bytes).
    pub fn writer(&self) -> Result<ArtifactWriter, PutError> {
        let temporary = Temporary::create(&self.root)?;
        Ok(ArtifactWriter { store: self.clone(), temporary, hasher: Hasher::default(), expected_bytes: None })
    }

    fn publish(&self, temporary: &Temporary, digest: Digest) -> Result<Stored, PutError> {
        temporary.sync()?;
        // What was begun before a sync failed ends here.
        self.root.check_sound()?;
        let (shard, name) = place(&digest);
        let path = self.path_of(&digest);
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for _ in 0..LINK_ATTEMPTS_MAX {
            let folder = self.shard_folder(&digest, &shard)?;
            match temporary.link(&folder, &name) {
                Ok(()) => {
                    self.make_durable(&folder, &digest)?;
                    return Ok(Stored { digest, bytes: temporary.bytes(), was_present: false });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match self.look(&digest, Trust::Memory)? {
                        Sight::Sound(sound) => return self.acknowledge_present(digest, &sound),
                        Sight::Damaged { kept_at, is_moved: false } => {
                            return Err(PutError::Obstructed { digest, path: kept_at });
                        }
                        // The place is free now: our copy replaces the damaged one.
                        Sight::Damaged { is_moved: true, .. } | Sight::Absent => failure = error,
                    }
                }
                // Somebody removed the folder by hand: it is made again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => failure = error,
                Err(error) => {
                    let bytes = temporary.bytes();
                    return Err(Fault::of_growth("link", &path, &self.root.folder, bytes, error).into());
                }
            }
        }
        Err(Fault::io("link", &path, failure).into())
    }

    /// Acknowledges an artifact that was there before. Its first writer may not have synced yet, and may never.
    fn acknowledge_present(&self, digest: Digest, sound: &Sound) -> Result<Stored, PutError> {
        let (shard, _) = place(&digest);
        let folder = self
            .root
            .objects
            .open_inside(&shard)
            .map_err(|error| Fault::io("open", &self.path_of(&digest), error))?;
        self.root.disk.sync_file(&sound.file).map_err(|error| self.root.poison(sound.path.clone(), error))?;
        self.make_durable(&folder, &digest)?;
        Ok(Stored { digest, bytes: sound.bytes, was_present: true })
    }

    /// Makes the name of an artifact durable, and the name of its folder.
    fn make_durable(&self, folder: &Folder, digest: &Digest) -> Result<(), Fault> {
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

    fn shard_folder(&self, digest: &Digest, shard: &str) -> Result<Folder, Fault> {
        let objects = &self.root.objects;
        let fault =
            |error| Fault::of_growth("make", &objects.path().join(shard), &self.root.folder, 0, error);
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

fn copy(mut writer: ArtifactWriter, reader: &mut impl Read) -> Result<Stored, PutError> {
    let mut buffer = vec![0_u8; PIECE_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return writer.commit(),
            Ok(count) => writer.append(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(PutError::Input { source }),
        }
    }
}
