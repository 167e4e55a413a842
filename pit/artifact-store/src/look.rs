//! Looking at a stored artifact: is it there, and does it hold the bytes of its digest?
//!
//! ```text
//!   no file of its own --in a pack?--> `packs`
//!   there --untouched since verified--> sound
//!     \-----hash equals--------------> sound (remembered)
//!      \----hash differs--> damaged --rename--> quarantine/DIGEST     never delivered
//! ```
//!
//! The bytes are read with `pread`, not through a mapping: a device that cannot read is then an error, not a SIGBUS.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FileType};

use crate::digest::{DIGEST_BYTES, Digest, Hasher};
use crate::error::DiskError;
use crate::packs::Place;
use crate::pin::{Locked, Pin};
use crate::remembered::Identity;
use crate::root::LOCK_WAIT_MS_MAX;
use crate::store::Store;

/// Bytes hashed at once: enough for the widest vector code, few enough to stay in the core's own cache.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// LIMIT: how often a look is repeated because another process moved the file meanwhile.
pub(crate) const LOOKS_MAX: u32 = 8;

/// Between two attempts to pin what a collector holds at the moment.
const PIN_PAUSE: Duration = Duration::from_micros(200);

/// What a look has found.
#[derive(Debug)]
pub(crate) enum Sight {
    Absent,
    Sound(Sound),
    Damaged { kept_at: PathBuf, is_moved: bool },
}

/// Something that holds the bytes of its digest.
#[derive(Debug)]
pub(crate) enum Sound {
    /// A file of its own.
    File { file: File, identity: Identity },
    /// A place in a pack, and the bytes that were read there.
    Packed { file: File, place: Place, bytes: Vec<u8> },
}

impl Sound {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::File { identity, .. } => identity.bytes(),
            Self::Packed { bytes, .. } => bytes.len() as u64,
        }
    }
}

/// What a look believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// What was verified since the machine was started.
    Memory,
    /// Nothing: the bytes are hashed again, from the device if the page cache lets them go.
    Nothing,
}

/// What became of an attempt to move a damaged file.
enum Move {
    Done(PathBuf),
    /// Another process was faster; there may be a sound successor.
    Gone,
    Failed,
}

/// Where an artifact has its file below `objects/`: `ab/cdef...`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot([u8; DIGEST_BYTES * 2 + 1]);

impl Spot {
    pub(crate) fn of(digest: &Digest) -> Self {
        let hex = digest.hex();
        let mut text = [b'/'; DIGEST_BYTES * 2 + 1];
        text[..2].copy_from_slice(&hex[..2]);
        text[3..].copy_from_slice(&hex[2..]);
        Self(text)
    }

    /// Folder and file.
    pub(crate) fn relative(&self) -> &str {
        std::str::from_utf8(&self.0).expect("INVARIANT: hexadecimal digits are ASCII")
    }

    /// The folder.
    pub(crate) fn shard(&self) -> &str {
        &self.relative()[..2]
    }

    /// The file in it.
    pub(crate) fn name(&self) -> &str {
        &self.relative()[3..]
    }
}

impl Store {
    /// Looks for an artifact; moves what is damaged to quarantine.
    pub(crate) fn look(&self, digest: &Digest, trust: Trust) -> Result<Sight, DiskError> {
        match self.look_file(digest, trust)? {
            Sight::Absent => self.look_packed(digest, trust),
            sight => Ok(sight),
        }
    }

    /// Looks, and pins what is found.
    pub(crate) fn look_pinned(&self, digest: &Digest) -> Result<(Sight, Option<Pin>), DiskError> {
        let deadline = Instant::now() + Duration::from_millis(LOCK_WAIT_MS_MAX);
        loop {
            let sight = self.look(digest, Trust::Memory)?;
            let Sight::Sound(sound) = &sight else { return Ok((sight, None)) };
            if let Some(pin) = self.pin_sound(digest, sound)? {
                return Ok((sight, Some(pin)));
            }
            // A collector is deciding about this very file, which takes it one check and one removal.
            if Instant::now() >= deadline {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                return Err(DiskError::io("pin", &self.path_of(digest), error));
            }
            std::thread::sleep(PIN_PAUSE);
        }
    }

    /// Pins what was found; nothing if a collector holds it or was faster.
    fn pin_sound(&self, digest: &Digest, sound: &Sound) -> Result<Option<Pin>, DiskError> {
        let path = self.path_of(digest);
        let fault = |operation, error| DiskError::io(operation, &path, error);
        let (Sound::File { file, .. } | Sound::Packed { file, .. }) = sound;
        // A duplicate shares the lock of the first, so that it holds as long as the pin does.
        let own = file.try_clone().map_err(|error| fault("duplicate", error))?;
        let Ok(locked) = Locked::shared(own) else { return Ok(None) };
        let own = rustix::fs::fstat(&locked).map_err(|error| fault("stat", error.into()))?;
        let now = match sound {
            Sound::File { .. } => self.root.objects.stat(Spot::of(digest).relative().as_ref()),
            Sound::Packed { place, .. } => self.root.packs.stat(place.pack.as_ref().as_ref()),
        };
        match now {
            Ok(now) if Identity::of(&now).is_same_file(&Identity::of(&own)) => {
                Ok(Some(Pin::of(Arc::new(locked))))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("stat", error)),
            _ => Ok(None),
        }
    }

    pub(crate) fn look_file(&self, digest: &Digest, trust: Trust) -> Result<Sight, DiskError> {
        let spot = Spot::of(digest);
        let fault = |operation, error| DiskError::io(operation, &self.path_of(digest), error);
        let mut sight = Sight::Absent;
        for _ in 0..LOOKS_MAX {
            let file = match self.root.disk.open(&self.root.objects, spot.relative()) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sight::Absent),
                Err(error) => return Err(fault("open", error)),
            };
            let stat = rustix::fs::fstat(&file).map_err(|error| fault("stat", error.into()))?;
            let identity = Identity::of(&stat);
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if is_file && trust == Trust::Memory && self.remembered.is_verified(digest, &identity) {
                return Ok(Sight::Sound(Sound::File { file, identity }));
            }
            let path = self.path_of(digest);
            if is_file && self.hash(&file, &path, trust)? == (*digest, identity.bytes()) {
                self.remembered.remember(*digest, identity);
                return Ok(Sight::Sound(Sound::File { file, identity }));
            }
            self.remembered.forget(digest);
            match self.quarantine(digest, &spot, &identity) {
                Move::Done(kept_at) => return Ok(Sight::Damaged { kept_at, is_moved: true }),
                Move::Failed => return Ok(Sight::Damaged { kept_at: path, is_moved: false }),
                Move::Gone => sight = Sight::Damaged { kept_at: path, is_moved: true },
            }
        }
        Ok(sight)
    }

    /// Digest and length of what the device holds.
    pub(crate) fn hash(
        &self,
        file: &File,
        path: &std::path::Path,
        trust: Trust,
    ) -> Result<(Digest, u64), DiskError> {
        if trust == Trust::Nothing {
            // Pages that are clean and not mapped are read from the device again. Advice may be refused: then the page
            // cache is what gets verified.
            let _is_dropped = rustix::fs::fadvise(file, 0, None, Advice::DontNeed).is_ok();
        }
        let mut hasher = Hasher::default();
        // No larger than the file: clearing a whole piece costs five times what opening and reading a small file does.
        let length = file.metadata().map_or(PIECE_BYTES as u64, |metadata| metadata.len());
        let mut buffer = vec![0_u8; usize::try_from(length).unwrap_or(PIECE_BYTES).clamp(1, PIECE_BYTES)];
        let mut bytes = 0_u64;
        loop {
            match self.root.disk.read_at(file, &mut buffer, bytes) {
                Ok(0) => return Ok((hasher.digest(), bytes)),
                Ok(count) => {
                    hasher.add(&buffer[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DiskError::io("read", path, error)),
            }
        }
    }

    /// Moves a damaged file aside, under the lock: between our look and the move another process may have moved it
    /// already and put a sound one in its place, which must stay.
    fn quarantine(&self, digest: &Digest, spot: &Spot, damaged: &Identity) -> Move {
        let Ok(_lock) = self.root.lock() else { return Move::Failed };
        let Ok(folder) = self.root.objects.open_inside(spot.shard()) else { return Move::Failed };
        match folder.stat(spot.name().as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Move::Gone,
            Err(_) => return Move::Failed,
            Ok(now) if !Identity::of(&now).is_same_file(damaged) => return Move::Gone,
            Ok(_) => {}
        }
        // LIMIT: one damaged copy per digest is kept, the latest.
        let kept = digest.to_string();
        if self.root.disk.rename(&folder, spot.name(), &self.root.quarantine, &kept).is_err() {
            return Move::Failed;
        }
        // Whether the move is durable changes nothing for the caller: after a crash the file would be found damaged
        // again. A failed sync has poisoned the store, and its next write says so.
        let synced =
            self.root.sync_folder(&self.root.quarantine).and_then(|()| self.root.sync_folder(&folder));
        drop(synced);
        Move::Done(self.root.quarantine.path().join(kept))
    }
}
