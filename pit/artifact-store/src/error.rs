//! How each family of operations fails, and what the caller can do about it.
//!
//! Inside the crate a failed disk operation is one [`Fault`]; at the edge it becomes the error of the operation that
//! was asked for. The texts name folders and limits, never the source's words: the chain is printed by the caller.

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
        let remedy = match limit {
            RoomLimit::Memory => {
                return write!(
                    f,
                    "no room for {needed_bytes} bytes in the memory for ephemeral artifacts of {} ({free_bytes} \
                     bytes are free): drop some or raise ephemeral_bytes_max, then do it again; nothing was changed",
                    folder.display()
                );
            }
            RoomLimit::Disk => "the disk is full: free some space there",
            RoomLimit::Quota => "the quota is used up: free some space there or raise the quota",
            RoomLimit::FileSize => "a limit on the size of files was met: raise it (ulimit -f)",
        };
        write!(
            f,
            "no room for {needed_bytes} bytes in {} ({free_bytes} bytes and {free_files} files are free): {remedy}, \
             then do it again; nothing was changed",
            folder.display()
        )
    }
}

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder holds something else. Name an empty or a new folder.
    #[error("{path} is not an artifact store (it holds {found:?}): name an empty or a new folder")]
    NotAStore {
        /// The folder that was named.
        path: PathBuf,
        /// The entry that does not belong to a store.
        found: String,
    },
    /// A newer release wrote this store. Use that release, or another folder.
    #[error("{path} has format {found} and this release knows formats up to {known}: use the newer release")]
    NewerFormat {
        /// The folder of the store.
        path: PathBuf,
        /// The format that was found.
        found: u64,
        /// The newest format that this release knows.
        known: u64,
    },
    /// There is no room to create the layout. Make room and open again; an existing store opens on a full disk.
    #[error("{shortage}")]
    Full {
        /// How much is missing where.
        shortage: Shortage,
        /// The refusal of the system.
        source: io::Error,
    },
    /// The layout could not be made durable. Check the disk before the store is used.
    #[error("syncing {path} failed: check the disk, then open the store again")]
    Sync {
        /// What was synced.
        path: PathBuf,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// Any other error of the system: a path that is no folder, a missing right, a bad device.
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

/// An artifact could not be stored. Unless said otherwise nothing is visible of it and the store serves on.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// No room. Make room and put again: the same store goes on.
    #[error("{shortage}")]
    Full {
        /// How much is missing where.
        shortage: Shortage,
        /// The refusal of the system.
        source: io::Error,
    },
    /// The bytes to store could not be read: an error of the caller's reader or file.
    #[error("cannot read the bytes to be stored")]
    Input {
        /// The error of the reader.
        source: io::Error,
    },
    /// A sync failed, now or earlier: this store acknowledges nothing more, because the system forgets which bytes were
    /// lost. Check the disk and open the store again, which verifies it. The artifact may be there, then whole.
    #[error(
        "syncing {path} failed, so this store takes nothing more: check the disk, then open the store again"
    )]
    Poisoned {
        /// What was synced.
        path: PathBuf,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// A damaged copy of the same artifact is in the way and could not be moved aside. Remove it by hand.
    #[error("a damaged copy of {digest} at {path} could not be moved to quarantine: remove it by hand")]
    Obstructed {
        /// The artifact.
        digest: Digest,
        /// The damaged copy.
        path: PathBuf,
    },
    /// Any other error of the system.
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

/// An artifact could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// There is no such artifact. It was never put here, or it was quarantined.
    #[error("there is no artifact {digest} in {store}")]
    Absent {
        /// The artifact.
        digest: Digest,
        /// The folder of the store.
        store: PathBuf,
    },
    /// The stored bytes are not those of the digest. They are kept aside; produce the artifact again and put it.
    #[error("artifact {digest} is damaged and was not delivered; the damaged bytes are kept at {kept_at}")]
    Corrupt {
        /// The artifact.
        digest: Digest,
        /// In `quarantine/`, or in the old place if they could not be moved.
        kept_at: PathBuf,
    },
    /// Any other error of the system, a device that cannot read included.
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

/// A name could not be read or set. Unless said otherwise it points to what it pointed to.
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
    #[error("name {name:?} cannot point to {digest}, which is not in the store: put it first")]
    NoArtifact {
        /// The name.
        name: String,
        /// The artifact that is not there.
        digest: Digest,
    },
    /// The record of the name is damaged. Remove the file and set the name again.
    #[error("the record of name {name:?} at {path} is damaged: remove that file and set the name again")]
    Corrupt {
        /// The name.
        name: String,
        /// The damaged record.
        path: PathBuf,
    },
    /// Another process holds the lock of the names for too long. Find out why it hangs, then set again.
    #[error("the lock {path} was not free within {waited_ms} ms: another process that uses this store hangs")]
    Busy {
        /// The file that is locked.
        path: PathBuf,
        /// How long was waited.
        waited_ms: u64,
    },
    /// No room. Make room and set again: the same store goes on.
    #[error("{shortage}")]
    Full {
        /// How much is missing where.
        shortage: Shortage,
        /// The refusal of the system.
        source: io::Error,
    },
    /// A sync failed, now or earlier: as for [`PutError::Poisoned`]. The name may point to the old artifact or to the
    /// new one.
    #[error(
        "syncing {path} failed, so this store takes nothing more: check the disk, then open the store again"
    )]
    Poisoned {
        /// What was synced.
        path: PathBuf,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// Any other error of the system.
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
    /// Another process holds the lock for too long. Find out why it hangs.
    #[error("the lock {path} was not free within {waited_ms} ms: another process that uses this store hangs")]
    Busy {
        /// The file that is locked.
        path: PathBuf,
        /// How long was waited.
        waited_ms: u64,
    },
    /// A pack in which little is left could not be rewritten for want of room. The rest was collected.
    #[error("{shortage}")]
    Full {
        /// How much is missing where.
        shortage: Shortage,
        /// The refusal of the system.
        source: io::Error,
    },
    /// A sync failed, now or earlier: as for [`PutError::Poisoned`].
    #[error(
        "syncing {path} failed, so this store takes nothing more: check the disk, then open the store again"
    )]
    Poisoned {
        /// What was synced.
        path: PathBuf,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// Any other error of the system.
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

/// A failed operation on the disk, before it is known on whose behalf.
#[derive(Debug)]
pub(crate) enum Fault {
    Full { shortage: Shortage, source: io::Error },
    Poisoned { path: PathBuf, source: Arc<io::Error> },
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl Fault {
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

impl From<Fault> for PutError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full { shortage, source } => Self::Full { shortage, source },
            Fault::Poisoned { path, source } => Self::Poisoned { path, source },
            Fault::Io { operation, path, source } => Self::Io { operation, path, source },
        }
    }
}

impl From<Fault> for NameError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full { shortage, source } => Self::Full { shortage, source },
            Fault::Poisoned { path, source } => Self::Poisoned { path, source },
            Fault::Io { operation, path, source } => Self::Io { operation, path, source },
        }
    }
}

impl From<Fault> for CollectError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full { shortage, source } => Self::Full { shortage, source },
            Fault::Poisoned { path, source } => Self::Poisoned { path, source },
            Fault::Io { operation, path, source } => Self::Io { operation, path, source },
        }
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full { shortage, source } => Self::Full { shortage, source },
            Fault::Poisoned { path, source } => Self::Sync { path, source },
            Fault::Io { operation, path, source } => Self::Io { operation, path, source },
        }
    }
}

/// A failed read of the disk; only [`Fault::Io`] has a counterpart for readers.
#[derive(Debug)]
pub(crate) struct ReadFault {
    pub(crate) operation: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl ReadFault {
    pub(crate) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }
}

impl From<ReadFault> for Fault {
    fn from(ReadFault { operation, path, source }: ReadFault) -> Self {
        Self::Io { operation, path, source }
    }
}

impl From<ReadFault> for GetError {
    fn from(ReadFault { operation, path, source }: ReadFault) -> Self {
        Self::Io { operation, path, source }
    }
}

impl From<ReadFault> for PutError {
    fn from(fault: ReadFault) -> Self {
        Fault::from(fault).into()
    }
}

impl From<ReadFault> for CollectError {
    fn from(fault: ReadFault) -> Self {
        Fault::from(fault).into()
    }
}

impl From<ReadFault> for NameError {
    fn from(fault: ReadFault) -> Self {
        Fault::from(fault).into()
    }
}
