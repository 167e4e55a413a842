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
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Advice;
use rustix::io::Errno;

use crate::disk::Folder;
use crate::error::DiskError;
use crate::pin::Locked;
use crate::root::Root;

/// LIMIT: attempts at a fresh name in `tmp/`; more than one is needed only when an opener sweeps at that moment.
const FRESH_NAME_ATTEMPTS_MAX: u32 = 16;

/// Bytes after which the disk is set to work while more come.
const FLUSH_BYTES: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Temporary {
    root: Arc<Root>,
    /// Locked as a pin is: for a named file that says that its writer lives, and once linked it keeps the artifact.
    file: Arc<Locked>,
    /// In `tmp/`; `None` for a nameless file, and once the name has been moved away.
    name: Option<String>,
    bytes: u64,
}

impl Temporary {
    /// A nameless file where there is such a thing, else a named one.
    pub(crate) fn create(root: &Arc<Root>) -> Result<Self, DiskError> {
        root.check_sound()?;
        match root.disk.create_nameless(&root.temporary) {
            Ok(file) => match Locked::shared(file) {
                Ok(file) => Ok(Self { root: Arc::clone(root), file: Arc::new(file), name: None, bytes: 0 }),
                Err(_) => Self::create_named(root),
            },
            Err(error) if is_unsupported(&error) => Self::create_named(root),
            Err(error) => {
                Err(DiskError::of_growth("create a file in", root.temporary.path(), &root.folder, 0, error))
            }
        }
    }

    /// A file with a name in `tmp/`, which can replace another.
    pub(crate) fn create_named(root: &Arc<Root>) -> Result<Self, DiskError> {
        root.check_sound()?;
        let fault =
            |error| DiskError::of_growth("create a file in", root.temporary.path(), &root.folder, 0, error);
        for _ in 0..FRESH_NAME_ATTEMPTS_MAX {
            let name = fresh_name();
            let file = match root.disk.create_named(&root.temporary, &name) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(fault(error)),
            };
            // Between its creation and now an opener may have taken it for a dead writer's.
            let Ok(file) = Locked::shared(file) else { continue };
            let created = Self { root: Arc::clone(root), file: Arc::new(file), name: Some(name), bytes: 0 };
            if rustix::fs::fstat(&created.file).is_ok_and(|stat| stat.st_nlink > 0) {
                return Ok(created);
            }
        }
        Err(fault(io::Error::from(io::ErrorKind::AlreadyExists)))
    }

    /// Appends all of these bytes. `needed_bytes` is for the error: how many have to fit in all, if known.
    pub(crate) fn append(&mut self, mut piece: &[u8], needed_bytes: Option<u64>) -> Result<(), DiskError> {
        let needed = needed_bytes.unwrap_or_else(|| self.bytes.saturating_add(piece.len() as u64));
        while !piece.is_empty() {
            match self.root.disk.write(self.file.file(), piece) {
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

    /// Lets the disk begin with what was appended since `flushed_to`, so that hashing and copying go on beside it and
    /// the sync finds little left. The sync vouches for the bytes; this may do nothing at all.
    pub(crate) fn begin_flush(&self, flushed_to: &mut u64) {
        let Some(length) =
            NonZeroU64::new(self.bytes - *flushed_to).filter(|bytes| bytes.get() >= FLUSH_BYTES)
        else {
            return;
        };
        // What is dirty is not dropped by this advice but written, and what is being written stays.
        let _is_begun = rustix::fs::fadvise(&self.file, *flushed_to, Some(length), Advice::DontNeed).is_ok();
        *flushed_to = self.bytes;
    }

    /// The file itself, with its lock.
    pub(crate) fn locked(&self) -> &Arc<Locked> {
        &self.file
    }

    /// Takes the bytes of another file without copying them, where the file system can share them.
    pub(crate) fn clone_from(&mut self, source: &File, bytes: u64) -> io::Result<()> {
        self.root.disk.clone_bytes(source, self.file.file())?;
        self.bytes = bytes;
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
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        let Err(error) = self.root.disk.sync_file(self.file.file()) else { return Ok(()) };
        match self.fault("sync", self.bytes, error) {
            DiskError::Io { path, source, .. } => Err(self.root.poison(path, source)),
            full => Err(full),
        }
    }

    /// Makes the durable file visible under a name that must be free.
    pub(crate) fn link(&self, folder: &Folder, name: &str) -> io::Result<()> {
        self.root.disk.link(self.file.file(), folder, name)
    }

    /// Makes the durable file visible in the place of another one. Only for a file made by
    /// [`create_named`](Self::create_named).
    pub(crate) fn replace(mut self, folder: &Folder, name: &str) -> Result<(), DiskError> {
        let own = self.name.take().expect("INVARIANT: only named temporary files replace others");
        let done = self.root.disk.rename(&self.root.temporary, &own, folder, name);
        if let Err(error) = done {
            self.name = Some(own);
            let path = folder.path().join(name);
            return Err(DiskError::of_growth("replace", &path, &self.root.folder, self.bytes, error));
        }
        Ok(())
    }

    fn fault(&self, operation: &'static str, needed_bytes: u64, error: io::Error) -> DiskError {
        DiskError::of_growth(operation, &self.path(), &self.root.folder, needed_bytes, error)
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
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    // Old kernels do not know the flag and answer as if the folder itself were to be written.
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS))
}

pub(crate) fn fresh_name() -> String {
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
        let left_behind = Locked::exclusive(file);
        if left_behind.is_some() && root.disk.remove(&root.temporary, name).is_ok() {
            swept += 1;
        }
    }
    swept
}
