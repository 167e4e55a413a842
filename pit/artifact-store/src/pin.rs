//! Pins: what a living process still refers to is not collected, by whichever process.
//!
//! ```text
//!   a pin        shared lock (flock) on the stored file, held by an open descriptor
//!   a collector  exclusive lock on the file, tried once; who holds a pin is passed over
//! ```
//!
//! The kernel releases the lock of a process that dies, so there is nothing to expire and nothing to sweep. A fresh file
//! is locked before it gets its name: between being visible and being pinned there is no moment. Whoever pins a file that
//! he found looks at its name again afterwards, since a collector may have been faster.
//!
//! Knows nothing of digests, names or packs.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// A file with a lock that ends with this value.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// Takes the shared lock. A file system without locks grants it unseen: collectors cannot lock there either, and so
    /// leave everything alone. Fails with the file itself while a collector or a sweeper holds it.
    pub(crate) fn shared(file: File) -> Result<Self, File> {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => Err(file),
            _ => Ok(Self(file)),
        }
    }

    /// Takes the exclusive lock; `None` if anybody holds one, or if there is no such thing here.
    pub(crate) fn exclusive(file: File) -> Option<Self> {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(Self(file))
    }
}

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing does not suffice: a process that another thread is just starting shares the lock until it executes
        // its program.
        let _is_unlocked = rustix::fs::flock(&self.0, FlockOperation::Unlock).is_ok();
    }
}

/// Keeps an artifact from being collected, by any process, as long as this value or a clone of it lives. Ends with the
/// process too; what must outlive it needs a [name](crate::Store::set_name).
///
/// # Concurrency
/// Costs one descriptor, which all artifacts of one pack share.
#[derive(Clone, Debug)]
pub struct Pin(#[expect(dead_code, reason = "held, never read")] Arc<Locked>);

impl Pin {
    pub(crate) fn of(locked: Arc<Locked>) -> Self {
        Self(locked)
    }
}
