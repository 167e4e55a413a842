//! A file that nobody sees yet: it gets its bytes here, and a name only when they are whole and durable.
//!
//! ```text
//!   created --append*--> filled --sync--> durable --link / replace--> visible
//!      \___________________\________________\____ dropped: nothing remains
//! ```
//!
//! Where the file system has nameless files (O_TMPFILE) even a crash leaves nothing. Elsewhere, and for names, which
//! are replaced by renaming, the file has a name in `tmp/` and is locked as long as its writer lives; what is found
//! there unlocked is a dead writer's and is swept by the next opener. A process id in the name would not do: two
//! containers that share the folder do not see each other's processes.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::disk::Folder;
use crate::error::Fault;
use crate::root::Root;

/// LIMIT: attempts at a fresh name in `tmp/`; more than one is needed only when an opener sweeps at that moment.
const FRESH_NAME_ATTEMPTS_MAX: u32 = 16;

#[derive(Debug)]
pub(crate) struct Temporary {
    root: Arc<Root>,
    file: File,
    /// In `tmp/`; `None` for a nameless file, and once the name has been moved away.
    name: Option<String>,
    bytes: u64,
}

impl Temporary {
    /// A nameless file where there is such a thing, else a named one.
    pub(crate) fn create(root: &Arc<Root>) -> Result<Self, Fault> {
        root.check_sound()?;
        match root.disk.create_nameless(&root.temporary) {
            Ok(file) => Ok(Self { root: Arc::clone(root), file, name: None, bytes: 0 }),
            Err(error) if is_unsupported(&error) => Self::create_named(root),
            Err(error) => {
                Err(Fault::of_growth("create a file in", root.temporary.path(), &root.folder, 0, error))
            }
        }
    }

    /// A file with a name in `tmp/`, which can replace another.
    pub(crate) fn create_named(root: &Arc<Root>) -> Result<Self, Fault> {
        root.check_sound()?;
        let fault =
            |error| Fault::of_growth("create a file in", root.temporary.path(), &root.folder, 0, error);
        for _ in 0..FRESH_NAME_ATTEMPTS_MAX {
            let name = fresh_name();
            let file = match root.disk.create_named(&root.temporary, &name) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(fault(error)),
            };
            let created = Self { root: Arc::clone(root), file, name: Some(name), bytes: 0 };
            if created.is_ours() {
                return Ok(created);
            }
        }
        Err(fault(io::Error::from(io::ErrorKind::AlreadyExists)))
    }

    /// Locks the fresh file. Between its creation and now an opener may have taken it for a dead writer's.
    fn is_ours(&self) -> bool {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => false,
            Ok(()) => rustix::fs::fstat(&self.file).is_ok_and(|stat| stat.st_nlink > 0),
            // A file system without locks: openers cannot lock there either, and so leave the file alone.
            Err(_) => true,
        }
    }

    /// Appends all of these bytes. `needed_bytes` is for the error: how many have to fit in all, if known.
    pub(crate) fn append(&mut self, mut piece: &[u8], needed_bytes: Option<u64>) -> Result<(), Fault> {
        let needed = needed_bytes.unwrap_or_else(|| self.bytes.saturating_add(piece.len() as u64));
        while !piece.is_empty() {
            match self.root.disk.write(&self.file, piece) {
                Ok(0) => return Err(self.fault("write to", needed, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    piece = &piece[count..];
                    self.bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fault("write to", needed, error)),
            }
        }
        Ok(())
    }

    /// Bytes appended so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the bytes durable.
    ///
    /// Some file systems find out only here that there is no room. That does not poison the store: what is lost are
    /// bytes of a file that nobody has seen and that is dropped with the error.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        let Err(error) = self.root.disk.sync_file(&self.file) else { return Ok(()) };
        match self.fault("sync", self.bytes, error) {
            Fault::Io { path, source, .. } => Err(self.root.poison(path, source)),
            full => Err(full),
        }
    }

    /// Makes the durable file visible under a name that must be free.
    pub(crate) fn link(&self, folder: &Folder, name: &str) -> io::Result<()> {
        self.root.disk.link(&self.file, folder, name)
    }

    /// Makes the durable file visible in the place of another one. Only for a file made by
    /// [`create_named`](Self::create_named).
    pub(crate) fn replace(mut self, folder: &Folder, name: &str) -> Result<(), Fault> {
        let own = self.name.take().expect("INVARIANT: only named temporary files replace others");
        let done = self.root.disk.rename(&self.root.temporary, &own, folder, name);
        if let Err(error) = done {
            self.name = Some(own);
            let path = folder.path().join(name);
            return Err(Fault::of_growth("replace", &path, &self.root.folder, self.bytes, error));
        }
        Ok(())
    }

    fn fault(&self, operation: &'static str, needed_bytes: u64, error: io::Error) -> Fault {
        Fault::of_growth(operation, &self.path(), &self.root.folder, needed_bytes, error)
    }

    fn path(&self) -> PathBuf {
        self.root.temporary.path().join(self.name.as_deref().unwrap_or("(nameless file)"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // What cannot be removed now is swept by the next opener.
            drop(self.root.disk.remove(&self.root.temporary, name));
            // Closing does not suffice: a process that another thread is just starting shares the lock until it
            // executes its program.
            let _is_unlocked = rustix::fs::flock(&self.file, FlockOperation::Unlock).is_ok();
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    // Old kernels do not know the flag and answer as if the folder itself were to be written.
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS))
}

fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // ORDERING(fresh-name): Relaxed suffices, only the uniqueness of the number matters, nothing is published by it.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // The wall clock only makes a collision with a dead process of the same id unlikely; a collision is harmless.
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{nanoseconds}-{number}", std::process::id())
}

/// Removes what dead writers left in `tmp/`, and says how many files. What cannot be judged or removed stays.
pub(crate) fn sweep(root: &Root) -> u64 {
    let Ok(entries) = root.temporary.entries() else { return 0 };
    let mut swept = 0;
    for name in entries.flatten() {
        let Some(name) = name.to_str() else { continue };
        let Ok(file) = root.disk.open(&root.temporary, name) else { continue };
        let is_left_behind = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_left_behind && root.disk.remove(&root.temporary, name).is_ok() {
            swept += 1;
        }
    }
    swept
}
