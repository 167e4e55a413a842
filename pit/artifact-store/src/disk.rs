//! The seam to the file system: each operation by which the store reads or changes a disk, one method each.
//!
//! Everything above goes through [`Disk`], so that a test can fail the n-th operation, shorten a write or stop in
//! between, and can record what was done in which order. It knows no format, no digest and no rule about order:
//! those are above. What is not here (listing folders, asking for sizes and free room, locks) neither changes stored
//! bytes nor reads them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};

/// An open folder and its path. Operations are relative to the descriptor, so that a renamed parent misleads none.
#[derive(Debug)]
pub struct Folder {
    file: File,
    path: Arc<Path>,
}

impl Folder {
    /// Opens a folder that exists.
    ///
    /// # Errors
    /// That of the system: it does not exist, is no folder, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { file: File::from(fd), path: path.into() })
    }

    /// Opens a folder inside this one; a symbolic link is not followed.
    ///
    /// # Errors
    /// That of the system: it does not exist, is no folder, or may not be read.
    pub fn open_inside(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.file, name, flags, Mode::empty())?;
        Ok(Self { file: File::from(fd), path: self.path.join(name).into() })
    }

    /// Where the folder was when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn shared_path(&self) -> Arc<Path> {
        Arc::clone(&self.path)
    }

    /// The descriptor of the folder.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The names inside, in the folder's own order, without `.` and `..`.
    pub(crate) fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<OsString>> + use<>> {
        let names = Dir::read_from(&self.file)?.map(|entry| {
            let entry = entry.map_err(io::Error::from)?;
            Ok(OsString::from_vec(entry.file_name().to_bytes().to_vec()))
        });
        Ok(names.filter(|name| !matches!(name, Ok(name) if is_dots(name))))
    }

    /// The bytes and the inode under a name, without following a link.
    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<rustix::fs::Stat> {
        Ok(rustix::fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn is_dots(name: &OsStr) -> bool {
    matches!(name.as_bytes(), b"." | b"..")
}

/// What the store asks of a file system. [`RealDisk`] is the one that serves; another is for tests of what happens
/// when an operation fails or is the last.
///
/// Each method is one operation and keeps no state, so that the order of calls is the order on the disk. Errors are
/// those of the system, unchanged: the store decides what they mean.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder that only its owner may enter.
    ///
    /// # Errors
    /// `AlreadyExists` where something has that name already.
    fn make_folder(&self, parent: &Folder, name: &str) -> io::Result<()>;

    /// Creates a file without a name: it vanishes with its last descriptor unless it is linked.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EISDIR` or `EINVAL` where the file system has no such thing; the store then uses
    /// [`create_named`](Self::create_named).
    fn create_nameless(&self, folder: &Folder) -> io::Result<File>;

    /// Creates a new file under a name.
    ///
    /// # Errors
    /// `AlreadyExists` where something has that name already.
    fn create_named(&self, folder: &Folder, name: &str) -> io::Result<File>;

    /// Appends bytes, perhaps fewer than given, and says how many.
    ///
    /// # Errors
    /// No room, no quota, a file size limit, or a device error.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize>;

    /// Makes the bytes of a file durable.
    ///
    /// # Errors
    /// Bytes may be lost: the system forgets which, and a second attempt would lie.
    fn sync_file(&self, file: &File) -> io::Result<()>;

    /// Gives an empty file the bytes of another one, which both share from then on (reflink).
    ///
    /// # Errors
    /// On another file system, or on one that cannot share bytes; the store then copies.
    fn clone_bytes(&self, source: &File, file: &File) -> io::Result<()>;

    /// Gives a file a (further) name.
    ///
    /// # Errors
    /// `AlreadyExists` where something has that name already; it is never replaced.
    fn link(&self, file: &File, folder: &Folder, name: &str) -> io::Result<()>;

    /// Moves a name, and replaces what had the new one.
    ///
    /// # Errors
    /// `NotFound` where there is no such name.
    fn rename(&self, from: &Folder, name: &str, to: &Folder, new_name: &str) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// `NotFound` where there is no such name.
    fn remove(&self, folder: &Folder, name: &str) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// Names may be lost: as for [`sync_file`](Self::sync_file).
    fn sync_folder(&self, folder: &Folder) -> io::Result<()>;

    /// Opens a file for reading, perhaps one folder further down; where the last part is a symbolic link it is not
    /// followed.
    ///
    /// # Errors
    /// `NotFound` where there is no such name.
    fn open(&self, folder: &Folder, name: &str) -> io::Result<File>;

    /// Reads at an offset, perhaps fewer bytes than there is room for; 0 at the end.
    ///
    /// # Errors
    /// A device error.
    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// Nobody needs to write an artifact again, its owner included.
const FILE_MODE: Mode = Mode::RUSR;
const FOLDER_MODE: Mode = Mode::RWXU;

impl Disk for RealDisk {
    fn make_folder(&self, parent: &Folder, name: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(parent.file(), name, FOLDER_MODE)?)
    }

    fn create_nameless(&self, folder: &Folder) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(folder.file(), ".", flags, FILE_MODE)?))
    }

    fn create_named(&self, folder: &Folder, name: &str) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(folder.file(), name, flags, FILE_MODE)?))
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(file, bytes)?)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fsync(file)?)
    }

    fn clone_bytes(&self, source: &File, file: &File) -> io::Result<()> {
        Ok(rustix::fs::ioctl_ficlone(file, source)?)
    }

    fn link(&self, file: &File, folder: &Folder, name: &str) -> io::Result<()> {
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::linkat(CWD, own, folder.file(), name, AtFlags::SYMLINK_FOLLOW) {
            // Where /proc is not mounted the descriptor itself can be linked, but older kernels ask a privilege for it.
            Err(rustix::io::Errno::NOENT) => {
                Ok(rustix::fs::linkat(file.as_fd(), "", folder.file(), name, AtFlags::EMPTY_PATH)?)
            }
            done => Ok(done?),
        }
    }

    fn rename(&self, from: &Folder, name: &str, to: &Folder, new_name: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(from.file(), name, to.file(), new_name)?)
    }

    fn remove(&self, folder: &Folder, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(folder.file(), name, AtFlags::empty())?)
    }

    fn sync_folder(&self, folder: &Folder) -> io::Result<()> {
        Ok(rustix::fs::fsync(folder.file())?)
    }

    fn open(&self, folder: &Folder, name: &str) -> io::Result<File> {
        // NONBLOCK, so that a pipe under that name cannot hold the caller; for ordinary files it means nothing.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::openat(folder.file(), name, flags, Mode::empty())?))
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(file, buffer, offset)?)
    }
}
