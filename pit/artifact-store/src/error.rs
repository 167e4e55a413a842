//! How each family of operations fails, and what the caller can do about it.
//!
//! Whatever the disk refuses is one family, [`DiskError`], which the errors of all operations carry as it is. The texts
//! name folders and limits, never the source's words: the chain is printed by the caller.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::disk::Folder;
use crate::names::{Expected, NameRule};

/// What was not there when a write was refused for want of room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Which limit was met.
    pub limit: RoomLimit,
    /// The folder of the store.
    pub folder: PathBuf,
    /// At least so many bytes had to fit (all of a known size; of a stream, what had come so far).
    pub needed_bytes: u64,
    /// Bytes free on that file system for this user right after the refusal.
    pub free_bytes: u64,
    /// Files that can still be created there; some file systems do not count them and say 0.
    pub free_files: u64,
}

/// The limit that a refused write has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomLimit {
    /// The file system has no blocks or no inodes left.
    Disk,
    /// The user's quota is used up.
    Quota,
    /// The file would be larger than the process (`ulimit -f`) or the file system allows.
    FileSize,
    /// The budget of memory for ephemeral artifacts is used up.
    Memory,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, folder, needed_bytes, free_bytes, free_files } = self;
        let limit = match limit {
            RoomLimit::Memory => {
                return write!(
                    f,
                    "the memory for ephemeral artifacts of {} has no room for {needed_bytes} bytes, with \
                     {free_bytes} free of ephemeral_bytes_max",
                    folder.display()
                );
            }
            RoomLimit::Disk => "the disk is full",
            RoomLimit::Quota => "the quota is used up",
            RoomLimit::FileSize => "a limit on the size of files (ulimit -f) was met",
        };
        write!(
            f,
            "there is no room for {needed_bytes} bytes in {}, with {free_bytes} bytes and {free_files} files free: \
             {limit}",
            folder.display()
        )
    }
}

/// What the disk has refused, or whoever else uses the store. Unless said otherwise nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No room. Make room and do it again: the same store goes on.
    #[error("{shortage}")]
    Full {
        /// How much is missing where.
        shortage: Shortage,
        /// The refusal of the system.
        source: io::Error,
    },
    /// A sync failed, now or earlier: this store acknowledges nothing more, because the system forgets which bytes were
    /// lost. Check the disk and open the store again, which verifies it. What was being put or named may be there or
    /// not; what is there is whole.
    #[error("a sync of {path} has failed, so this store takes nothing more")]
    Poisoned {
        /// What was synced.
        path: PathBuf,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// Another process holds the lock for too long. Find out why it hangs, then do it again.
    #[error("the lock {path} was not free within {waited_ms} ms")]
    Busy {
        /// The file that is locked.
        path: PathBuf,
        /// How long was waited.
        waited_ms: u64,
    },
    /// Any other error of the system: a missing right, a device that cannot read.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl DiskError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    /// Of an operation that may fail for want of room.
    pub(crate) fn of_growth(
        operation: &'static str,
        path: &Path,
        store: &Folder,
        needed_bytes: u64,
        source: io::Error,
    ) -> Self {
        let Some(limit) = room_limit(&source) else { return Self::io(operation, path, source) };
        let (free_bytes, free_files) = rustix::fs::fstatvfs(store.file())
            .map_or((0, 0), |free| (free.f_bavail.saturating_mul(free.f_frsize), free.f_favail));
        let folder = store.path().to_owned();
        Self::Full { shortage: Shortage { limit, folder, needed_bytes, free_bytes, free_files }, source }
    }
}

fn room_limit(error: &io::Error) -> Option<RoomLimit> {
    match Errno::from_io_error(error)? {
        Errno::NOSPC => Some(RoomLimit::Disk),
        Errno::DQUOT => Some(RoomLimit::Quota),
        Errno::FBIG => Some(RoomLimit::FileSize),
        _ => None,
    }
}

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder holds something else. Name an empty or a new folder.
    #[error("{path} is not an artifact store, since it holds {found:?}")]
    NotAStore {
        /// The folder that was named.
        path: PathBuf,
        /// The entry that does not belong to a store.
        found: String,
    },
    /// A newer release wrote this store. Use that release, or another folder.
    #[error("{path} has format {found} and this release knows formats up to {known}")]
    NewerFormat {
        /// The folder of the store.
        path: PathBuf,
        /// The format that was found.
        found: u64,
        /// The newest format that this release knows.
        known: u64,
    },
    /// The layout could not be made or made durable, or is not to be entered. An existing store opens on a full disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// An artifact could not be stored. Nothing is visible of it, and the store serves on.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The bytes to store could not be read: an error of the caller's reader or file.
    #[error("cannot read the bytes to be stored")]
    Input {
        /// The error of the reader.
        source: io::Error,
    },
    /// A damaged copy of the same artifact is in the way and could not be moved aside. Remove it by hand.
    #[error("a damaged copy of {digest} at {path} could not be moved to quarantine")]
    Obstructed {
        /// The artifact.
        digest: Digest,
        /// The damaged copy.
        path: PathBuf,
    },
    /// The disk took it not, or a sync failed and nobody knows.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// An artifact could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// There is no such artifact. It was never put here, it was collected, or it was quarantined.
    #[error("there is no artifact {digest} in {store}")]
    Absent {
        /// The artifact.
        digest: Digest,
        /// The folder of the store.
        store: PathBuf,
    },
    /// The stored bytes are not those of the digest. What is left of them is kept aside; produce the artifact again and
    /// put it, or remove that file to accept the loss.
    #[error(
        "artifact {digest} is damaged and was not delivered, and its damaged bytes are kept at {kept_at}"
    )]
    Corrupt {
        /// The artifact.
        digest: Digest,
        /// In `quarantine/`, or in the old place if they could not be moved.
        kept_at: PathBuf,
    },
    /// A damaged pack held artifacts of which not even the digests are left. Whatever was whole in it was salvaged. A name
    /// that pointed to a lost one points to nothing now. Remove that file to accept the loss.
    #[error("a damaged pack has lost artifacts that nobody can name, and is kept at {kept_at}")]
    LostInPack {
        /// In `quarantine/`, or in the old place if it could not be moved.
        kept_at: PathBuf,
    },
    /// It could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Something that is wrong with the store, as [`verify_all`](crate::Store::verify_all) has found it.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An artifact is damaged, lost, or cannot be read.
    #[error(transparent)]
    Artifact(#[from] GetError),
    /// A name cannot be read, so that nobody knows what it points to.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name points to nothing. Produce the artifact again and put it, or remove the name.
    #[error("name {name:?} points to {digest}, which is not in the store")]
    Dangling {
        /// The name.
        name: String,
        /// The artifact that is not there.
        digest: Digest,
    },
}

/// A name could not be read or set. It points to what it pointed to, unless a sync failed: then it may point to either.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The text is no name. Choose another.
    #[error("{name:?} is not a name for an artifact: {rule}")]
    Invalid {
        /// The text that was given.
        name: String,
        /// The rule that it breaks.
        rule: NameRule,
    },
    /// Somebody else has set the name. Read it again, decide again, set it again.
    #[error("name {name:?} is at version {found} and was expected {expected}")]
    Conflict {
        /// The name.
        name: String,
        /// What the caller expected.
        expected: Expected,
        /// The version found; 0 if the name is not set.
        found: u64,
    },
    /// There is no such artifact to be named. Put it first.
    #[error("name {name:?} cannot point to {digest}, which is not in the store")]
    NoArtifact {
        /// The name.
        name: String,
        /// The artifact that is not there.
        digest: Digest,
    },
    /// The record of the name is damaged. Remove the file and set the name again.
    #[error("the record of name {name:?} at {path} is damaged")]
    Corrupt {
        /// The name.
        name: String,
        /// The damaged record.
        path: PathBuf,
    },
    /// The record could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What nothing refers to could not be collected, or not all of it. Nothing that is referred to was touched, and what
/// was removed stays removed: collect again.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A name could not be read, so that nobody knows what it refers to. Repair the name or remove its file.
    #[error("what is referred to is not known")]
    Names {
        /// What is wrong with the name.
        #[source]
        source: Box<NameError>,
    },
    /// Something could not be read, removed, or rewritten for want of room. The rest may have been collected.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn an_error_is_one_clause_and_leaves_the_words_of_its_source_to_the_source() {
        const SOURCE: &str = "the words of the system";
        let source = || io::Error::other(SOURCE);
        let path = || PathBuf::from("/s");
        let full = |limit| {
            let folder = path();
            DiskError::Full {
                shortage: Shortage { limit, folder, needed_bytes: 1, free_bytes: 2, free_files: 3 },
                source: source(),
            }
        };
        let poisoned = || DiskError::Poisoned { path: path(), source: Arc::new(source()) };
        let names = NameError::from(DiskError::io("read", &path(), source()));
        let errors: [Box<dyn Error>; 10] = [
            Box::new(full(RoomLimit::Disk)),
            Box::new(full(RoomLimit::Memory)),
            Box::new(poisoned()),
            Box::new(DiskError::io("read", &path(), source())),
            Box::new(OpenError::from(poisoned())),
            Box::new(PutError::Input { source: source() }),
            Box::new(PutError::from(full(RoomLimit::Quota))),
            Box::new(GetError::from(DiskError::io("open", &path(), source()))),
            Box::new(NameError::from(full(RoomLimit::FileSize))),
            Box::new(CollectError::Names { source: Box::new(names) }),
        ];
        for error in &errors {
            let text = error.to_string();
            assert!(text.starts_with(|first: char| first.is_lowercase()), "{text}");
            assert!(!text.contains(['\n', ';']) && !text.ends_with('.') && !text.contains(SOURCE), "{text}");
            let mut last: &dyn Error = error.as_ref();
            while let Some(source) = last.source() {
                last = source;
            }
            assert_eq!(last.to_string(), SOURCE, "{text}");
        }
        // The family of the disk is carried, not told twice.
        assert_eq!(PutError::from(poisoned()).to_string(), poisoned().to_string());
    }
}
