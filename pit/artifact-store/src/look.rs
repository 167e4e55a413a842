//! Looking at a stored file: is it there, and does it hold the bytes of its digest?
//!
//! ```text
//!   absent
//!   there --hash equals--> sound (remembered)
//!     \-----hash differs--> damaged --rename--> quarantine/DIGEST     never delivered
//! ```
//!
//! The bytes are read with `pread`, not through a mapping: a device that cannot read is then an error, not a SIGBUS.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::fs::{Advice, FileType};

use crate::digest::{Digest, Hasher};
use crate::disk::Folder;
use crate::error::ReadFault;
use crate::remembered::Identity;
use crate::store::Store;

/// Bytes hashed at once: enough for the widest vector code, few enough to stay in the core's own cache.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// LIMIT: how often a look is repeated because another process moved the file meanwhile.
const LOOKS_MAX: u32 = 8;

/// What a look has found.
#[derive(Debug)]
pub(crate) enum Sight {
    Absent,
    Sound(Sound),
    Damaged { kept_at: PathBuf, is_moved: bool },
}

/// A file that holds the bytes of its digest.
#[derive(Debug)]
pub(crate) struct Sound {
    pub(crate) file: File,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
}

/// What a look believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// What this process has verified before.
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

/// Names of the folder below `objects/` and of the file in it.
pub(crate) fn place(digest: &Digest) -> (String, String) {
    let mut shard = digest.to_string();
    let rest = shard.split_off(2);
    (shard, rest)
}

impl Store {
    /// Looks at the file under a digest; moves it to quarantine if it is damaged.
    pub(crate) fn look(&self, digest: &Digest, trust: Trust) -> Result<Sight, ReadFault> {
        let (shard, name) = place(digest);
        let path = self.path_of(digest);
        let mut sight = Sight::Absent;
        for _ in 0..LOOKS_MAX {
            let folder = match self.root.objects.open_inside(&shard) {
                Ok(folder) => folder,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sight::Absent),
                Err(error) => return Err(ReadFault::new("open", &path, error)),
            };
            let file = match self.root.disk.open(&folder, &name) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sight::Absent),
                Err(error) => return Err(ReadFault::new("open", &path, error)),
            };
            let stat =
                rustix::fs::fstat(&file).map_err(|error| ReadFault::new("stat", &path, error.into()))?;
            let identity = Identity::of(&stat);
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if is_file && trust == Trust::Memory && self.remembered.is_verified(digest, &identity) {
                return Ok(Sight::Sound(Sound { file, bytes: identity.bytes(), path }));
            }
            if is_file && self.hash(&file, &path, trust)? == (*digest, identity.bytes()) {
                self.remembered.remember(*digest, identity);
                return Ok(Sight::Sound(Sound { file, bytes: identity.bytes(), path }));
            }
            self.remembered.forget(digest);
            match self.quarantine(digest, &folder, &name, &identity) {
                Move::Done(kept_at) => return Ok(Sight::Damaged { kept_at, is_moved: true }),
                Move::Failed => return Ok(Sight::Damaged { kept_at: path, is_moved: false }),
                Move::Gone => sight = Sight::Damaged { kept_at: path.clone(), is_moved: true },
            }
        }
        Ok(sight)
    }

    /// Digest and length of what the device holds.
    fn hash(&self, file: &File, path: &std::path::Path, trust: Trust) -> Result<(Digest, u64), ReadFault> {
        if trust == Trust::Nothing {
            // Pages that are clean and not mapped are read from the device again. Advice may be refused: then the page
            // cache is what gets verified.
            let _is_dropped = rustix::fs::fadvise(file, 0, None, Advice::DontNeed).is_ok();
        }
        let mut hasher = Hasher::default();
        let mut buffer = vec![0_u8; PIECE_BYTES];
        let mut bytes = 0_u64;
        loop {
            match self.root.disk.read_at(file, &mut buffer, bytes) {
                Ok(0) => return Ok((hasher.digest(), bytes)),
                Ok(count) => {
                    hasher.add(&buffer[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadFault::new("read", path, error)),
            }
        }
    }

    /// Moves a damaged file aside, under the lock: between our look and the move another process may have moved it
    /// already and put a sound one in its place, which must stay.
    fn quarantine(&self, digest: &Digest, folder: &Folder, name: &str, damaged: &Identity) -> Move {
        let Ok(_lock) = self.root.lock() else { return Move::Failed };
        match folder.stat(name.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Move::Gone,
            Err(_) => return Move::Failed,
            Ok(now) if !Identity::of(&now).is_same_file(damaged) => return Move::Gone,
            Ok(_) => {}
        }
        // LIMIT: one damaged copy per digest is kept, the latest.
        let kept = digest.to_string();
        if self.root.disk.rename(folder, name, &self.root.quarantine, &kept).is_err() {
            return Move::Failed;
        }
        // Whether the move is durable changes nothing for the caller: after a crash the file would be found damaged
        // again. A failed sync has poisoned the store, and its next write says so.
        let synced =
            self.root.sync_folder(&self.root.quarantine).and_then(|()| self.root.sync_folder(folder));
        drop(synced);
        Move::Done(self.root.quarantine.path().join(kept))
    }
}
