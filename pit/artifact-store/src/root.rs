//! The folders of an open store, what it may still acknowledge, and the lock between processes.
//!
//! ```text
//!   sound --(a sync fails)--> poisoned        final for this handle; the file `suspect` tells the next opener
//! ```
//!
//! Knows nothing of digests or names.
//!
//! What is locked, and why: puts and gets take no lock, neither between threads nor between processes, because a link
//! either makes an artifact appear whole or finds it there. The file `lock` is held (flock) by whoever sets or removes a
//! name, since compare-and-swap is a read and a write; by whoever moves a damaged file to quarantine, lest a second one
//! move its freshly put successor; and by a collector from reading all names to removing what none of them points to,
//! lest a name be set in between. All hold it for one short operation, a collector for one slice.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use crate::disk::{Disk, Folder};
use crate::error::DiskError;

/// The file between processes: held while a name is set or a damaged file is moved.
pub(crate) const LOCK_FILE: &str = "lock";
/// Its presence says that a sync failed, and that the next opener has to verify everything.
pub(crate) const SUSPECT_FILE: &str = "suspect";
/// The highest version of a name that was removed.
pub(crate) const FLOOR_FILE: &str = "floor";
/// What was verified since the machine was started; only a hint, and worth nothing after a crash of the machine.
pub(crate) const VERIFIED_FILE: &str = "verified";

/// LIMIT: how long the lock is waited for. A holder needs it for two syncs; a stopped holder must not hang us.
pub(crate) const LOCK_WAIT_MS_MAX: u64 = 10_000;
/// LIMIT: the longest pause between two attempts at the lock, which bounds how late we notice that it is free.
const LOCK_PAUSE_MS_MAX: u64 = 8;

#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: Folder,
    pub(crate) objects: Folder,
    pub(crate) temporary: Folder,
    pub(crate) names: Folder,
    pub(crate) quarantine: Folder,
    pub(crate) packs: Folder,
    poison: OnceLock<Poison>,
    /// Threads of this process queue here, so that only one of them polls the lock of the processes.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Poison {
    path: PathBuf,
    source: Arc<io::Error>,
}

/// The lock between processes, held until dropped. The kernel releases it if the process dies.
#[derive(Debug)]
pub(crate) struct HeldLock<'a> {
    file: OwnedFd,
    _turn: MutexGuard<'a, ()>,
}

impl Drop for HeldLock<'_> {
    fn drop(&mut self) {
        // Closing does not suffice: a process that another thread is just starting shares the lock until it executes
        // its program.
        let _is_unlocked = rustix::fs::flock(&self.file, FlockOperation::Unlock).is_ok();
    }
}

impl Root {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        folder: Folder,
        [objects, temporary, names, quarantine, packs]: [Folder; 5],
    ) -> Self {
        let (poison, turn) = (OnceLock::new(), Mutex::new(()));
        Self { disk, folder, objects, temporary, names, quarantine, packs, poison, turn }
    }

    /// Refuses if a sync has failed since the store was opened.
    pub(crate) fn check_sound(&self) -> Result<(), DiskError> {
        match self.poison.get() {
            None => Ok(()),
            Some(Poison { path, source }) => {
                Err(DiskError::Poisoned { path: path.clone(), source: Arc::clone(source) })
            }
        }
    }

    /// Ends the life of this handle as a writer, and leaves word for the next opener as well as a bad disk allows.
    pub(crate) fn poison(&self, path: PathBuf, source: io::Error) -> DiskError {
        let source = Arc::new(source);
        let is_first = self.poison.set(Poison { path: path.clone(), source: Arc::clone(&source) }).is_ok();
        // What was verified before says nothing about a disk that loses bytes.
        let _is_removed =
            is_first && rustix::fs::unlinkat(self.folder.file(), VERIFIED_FILE, AtFlags::empty()).is_ok();
        if is_first && self.disk.create_named(&self.folder, SUSPECT_FILE).is_ok() {
            // The disk has just failed a sync: that this one fails too is expected, and there is nobody to tell.
            drop(self.disk.sync_folder(&self.folder));
        }
        DiskError::Poisoned { path, source }
    }

    /// Makes the names in a folder durable.
    pub(crate) fn sync_folder(&self, folder: &Folder) -> Result<(), DiskError> {
        self.disk.sync_folder(folder).map_err(|error| self.poison(folder.path().to_owned(), error))
    }

    /// Waits for the lock between processes.
    pub(crate) fn lock(&self) -> Result<HeldLock<'_>, DiskError> {
        let path = self.folder.path().join(LOCK_FILE);
        let start = Instant::now();
        let limit = Duration::from_millis(LOCK_WAIT_MS_MAX);
        let busy = || DiskError::Busy { path: path.clone(), waited_ms: LOCK_WAIT_MS_MAX };
        let turn = self.turn.try_lock_for(limit).ok_or_else(busy)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(self.folder.file(), LOCK_FILE, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| DiskError::io("open", &path, error.into()))?;
        let mut pause = Duration::from_micros(100);
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(HeldLock { file, _turn: turn }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(DiskError::io("lock", &path, error.into())),
            }
            if start.elapsed() >= limit {
                return Err(busy());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(LOCK_PAUSE_MS_MAX));
        }
    }
}
