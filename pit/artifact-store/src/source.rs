//! Where the bytes of a put come from, other than from pieces: a large slice, a reader, a file, a memfd.
//!
//! ```text
//!   large slice   written and synced by this thread, hashed by another meanwhile
//!   reader        read, hashed, written in one pass; the disk begins while more comes
//!   file          shared with the source (reflink) and hashed; copied in one pass where that cannot be
//!   file, moved   hashed and linked: no byte is written; copied where that cannot be
//!   memfd         sealed: as a slice; else copied and hashed in one pass, never sealed
//! ```
//!
//! Knows nothing of how a file becomes visible (`put`).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::disk::Folder;
use crate::ephemeral::Memory;
use crate::error::{DiskError, PutError};
use crate::look::{PIECE_BYTES, Sight, Trust};
use crate::pin::Locked;
use crate::put::{ArtifactWriter, Stored};
use crate::remembered::{Identity, size_of_stat};
use crate::store::Store;
use crate::temporary::Temporary;

/// From here on a second thread hashes: below, starting it costs more than it saves.
pub(crate) const LARGE_BYTES_MIN: usize = 4 << 20;
/// Bytes of a large slice that are written at once: what is found to be there already is noticed in between.
const WRITE_BYTES: usize = 1 << 20;

impl Store {
    /// Stores a large slice: hashing costs no time of its own. One that is there already is found out when it is
    /// hashed; what was written by then has not been seen by anybody and goes.
    pub(crate) fn put_large(&self, bytes: &[u8]) -> Result<Stored, PutError> {
        let is_present = AtomicBool::new(false);
        thread::scope(|scope| {
            let hash = || {
                let digest = Digest::of(bytes);
                let found = self.look_pinned(&digest);
                let is_sound = matches!(&found, Ok((Sight::Sound(_), _)));
                // ORDERING(put-present): Relaxed suffices, the flag only spares writing; what was found comes by join.
                is_present.store(is_sound, Ordering::Relaxed);
                (digest, found)
            };
            let hashing = thread::Builder::new().name("artifact-hash".to_owned()).spawn_scoped(scope, hash);
            let hashing =
                hashing.map_err(|error| DiskError::io("start a thread for", self.folder(), error))?;
            let written = self.write_large(bytes, &is_present);
            let (digest, found) = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            if let (Sight::Sound(sound), Some(pin)) = found? {
                return self.acknowledge_present(digest, &sound, pin);
            }
            let temporary = written?;
            self.publish(temporary.locked(), temporary.bytes(), digest)
        })
    }

    /// A durable file of these bytes, or an unfinished one if they are found to be there.
    fn write_large(&self, bytes: &[u8], is_present: &AtomicBool) -> Result<Temporary, PutError> {
        let mut temporary = Temporary::create(&self.root)?;
        let mut flushed_to = 0;
        for part in bytes.chunks(WRITE_BYTES) {
            // ORDERING(put-present): Relaxed, as above.
            if is_present.load(Ordering::Relaxed) {
                return Ok(temporary);
            }
            temporary.append(part, Some(bytes.len() as u64))?;
            temporary.begin_flush(&mut flushed_to);
        }
        temporary.sync()?;
        Ok(temporary)
    }

    /// Stores what a reader yields until its end, in one pass and with a buffer of 256 KiB, as a file of its own.
    ///
    /// # Errors
    /// [`PutError::Input`] if the reader fails, else as for [`put_bytes`](Self::put_bytes).
    pub fn put_reader(&self, mut reader: impl Read) -> Result<Stored, PutError> {
        copy(self.writer()?, &mut reader)
    }

    /// Stores the bytes of a file, which stays what it is. Where the file system can share bytes between files, none is
    /// written; elsewhere they are copied in one pass. If the file changes meanwhile, what was read is what is stored.
    ///
    /// # Errors
    /// [`PutError::Input`] if it cannot be read or is no ordinary file, else as for [`put_bytes`](Self::put_bytes).
    pub fn put_file(&self, path: &Path) -> Result<Stored, PutError> {
        let (mut file, stat) = open_source(path)?;
        let mut shared = Temporary::create(&self.root)?;
        // Any refusal means that the bytes are copied, and if the disk is at fault, that says so.
        if shared.clone_from(&file, size_of_stat(&stat)).is_ok() {
            let (digest, bytes) = self.hash(shared.locked().file(), path, Trust::Memory)?;
            shared.sync()?;
            return self.publish(shared.locked(), bytes, digest);
        }
        let mut writer = self.writer_to(shared);
        writer.expected_bytes = Some(size_of_stat(&stat));
        copy(writer, &mut file)
    }

    /// Moves a file into the store: when this returns the artifact is acknowledged and the path is gone. A file of this
    /// user on the file system of the store is hashed and linked, and no byte is written; any other is stored as by
    /// [`put_file`](Self::put_file) and then removed.
    ///
    /// The caller vouches that nobody has the file open for writing. Whoever still does, and writes, damages the
    /// artifact: the next opening of it finds that out by its change time and refuses it, but readers who have it mapped
    /// see the bytes change. Files that an extension can write are put, not moved.
    ///
    /// # Errors
    /// As for [`put_file`](Self::put_file); the file is still there then. [`PutError::Input`] too if the stored file could
    /// not be removed from its old place.
    pub fn adopt_file(&self, path: &Path) -> Result<Stored, PutError> {
        let (file, stat) = open_source(path)?;
        let stored = match self.link_source(path, file, &stat)? {
            Some(stored) => stored,
            None => self.put_file(path)?,
        };
        remove_source(path, &stat).map_err(|source| PutError::Input { source })?;
        Ok(stored)
    }

    /// Stores the bytes of a memfd, which stays what it is and is not sealed: copied and hashed in one pass, so that what
    /// was hashed is what is stored, however other processes write meanwhile; at most as many as there were when they
    /// were counted. If its writer has sealed it, it is put like a slice.
    ///
    /// # Errors
    /// [`PutError::Input`] if the descriptor is none of a memfd, else as for [`put_bytes`](Self::put_bytes).
    pub fn put_memfd(&self, fd: OwnedFd) -> Result<Stored, PutError> {
        let mut memory = Memory::of(fd)?;
        if memory.is_sealed()? {
            return self.put_bytes(memory.mapping()?.as_bytes());
        }
        let mut writer = self.writer()?;
        writer.expected_bytes = Some(memory.bytes());
        memory.copy(|piece| writer.append(piece))?;
        writer.commit()
    }

    /// Hashes a file where it is and links it; nothing if it has to be copied.
    fn link_source(&self, path: &Path, file: File, stat: &Stat) -> Result<Option<Stored>, PutError> {
        let store = rustix::fs::fstat(self.root.objects.file())
            .map_err(|error| DiskError::io("stat", self.folder(), error.into()))?;
        let is_ours = stat.st_uid == rustix::process::geteuid().as_raw();
        if !is_ours || stat.st_dev != store.st_dev || stat.st_nlink != 1 {
            return Ok(None);
        }
        self.root.check_sound()?;
        // From here on nobody opens it for writing by accident.
        if rustix::fs::fchmod(&file, Mode::RUSR).is_err() {
            return Ok(None);
        }
        let moved = self.link_guarded(path, file);
        if !matches!(moved, Ok(Some(_))) {
            // It stays the caller's file, with the rights that it had.
            let _is_restored = rustix::fs::chmod(path, Mode::from_raw_mode(stat.st_mode)).is_ok();
        }
        moved
    }

    fn link_guarded(&self, path: &Path, file: File) -> Result<Option<Stored>, PutError> {
        let stat = || {
            let stat = rustix::fs::fstat(&file).map_err(|error| DiskError::io("stat", path, error.into()))?;
            Ok::<_, PutError>(Identity::of(&stat))
        };
        let before = stat()?;
        let (digest, bytes) = self.hash(&file, path, Trust::Memory)?;
        // A sync moves no time; what was written meanwhile does.
        self.root.disk.sync_file(&file).map_err(|error| self.root.poison(path.to_owned(), error))?;
        if stat()? != before || bytes != before.bytes() {
            return Ok(None);
        }
        let Ok(locked) = Locked::shared(file) else { return Ok(None) };
        match self.publish(&Arc::new(locked), bytes, digest) {
            // Some file systems, and some rules of the kernel, do not let this file be linked: it is copied.
            Err(PutError::Disk(DiskError::Io { operation: "link", .. })) => Ok(None),
            published => published.map(Some),
        }
    }
}

fn open_source(path: &Path) -> Result<(File, Stat), PutError> {
    let input = |source| PutError::Input { source };
    // Without waiting for a pipe's other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| input(error.into()))?;
    let stat = rustix::fs::fstat(&fd).map_err(|error| input(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let text = format!("{} is not an ordinary file", path.display());
        return Err(input(io::Error::new(io::ErrorKind::InvalidInput, text)));
    }
    Ok((File::from(fd), stat))
}

/// Removes the old name of a file that was moved, unless somebody has put another file there.
fn remove_source(path: &Path, source: &Stat) -> io::Result<()> {
    match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Ok(now) if !Identity::of(&now).is_same_file(&Identity::of(source)) => return Ok(()),
        _ => rustix::fs::unlink(path)?,
    }
    if let Some(folder) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // A crash may bring the old name back, which then names the stored file once more: nothing is lost by it.
        let _is_synced = Folder::open(folder).is_ok_and(|folder| rustix::fs::fsync(folder.file()).is_ok());
    }
    Ok(())
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
