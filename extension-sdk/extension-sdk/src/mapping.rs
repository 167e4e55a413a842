//! The bytes behind a descriptor that the host granted, as a slice. Must not know what they are.
#![expect(unsafe_code, reason = "memory of another process can be mapped only by its promise about it")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use rustix::fs::{FileType, OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fstat};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A whole file or memory, mapped. Keeps no descriptor.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

/// Mapped for reading.
#[derive(Debug)]
pub(crate) struct ReadOnly(Mapping);

/// Mapped for writing; what is written the host sees.
#[derive(Debug)]
pub(crate) struct Writable(Mapping);

// SAFETY: the mapping belongs to the value alone and lives until it is dropped; it is not bound to a thread.
unsafe impl Send for Mapping {}
// SAFETY: `&self` gives nothing but the address.
unsafe impl Sync for Mapping {}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Whether it is a file of this length; for how long is another question.
fn check_length(descriptor: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    let stat = fstat(descriptor)?;
    let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
    if is_file && u64::try_from(stat.st_size) == Ok(bytes) {
        return Ok(());
    }
    Err(wrong(format!("a file of {bytes} bytes was granted, and one of {} came", stat.st_size)))
}

impl Mapping {
    fn new(descriptor: BorrowedFd<'_>, bytes: u64, access: ProtFlags) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if length == 0 {
            return Ok(Self { start: NonNull::dangling(), length });
        }
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory of this program.
        let start = unsafe { mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, descriptor, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the mapping is the value's own and was made with this length; slices of it borrow `self`. It cannot
            // fail for a mapping that exists.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        }
    }
}

impl ReadOnly {
    /// Maps sealed memory, or a file that nobody can write to through this descriptor.
    pub(crate) fn new(descriptor: impl AsFd, bytes: u64) -> io::Result<Self> {
        let descriptor = descriptor.as_fd();
        check_length(descriptor, bytes)?;
        let is_sealed = fcntl_get_seals(descriptor)
            .is_ok_and(|seals| seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE));
        let is_read_only = fcntl_getfl(descriptor)? & OFlags::RWMODE == OFlags::RDONLY;
        if !is_sealed && !is_read_only {
            return Err(wrong(
                "an artifact was granted, and something came that can be written to".to_owned(),
            ));
        }
        Mapping::new(descriptor, bytes, ProtFlags::READ).map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: the mapping has as many bytes, or there are none and the address is not looked at; it lives as long as
        // `self`. They do not change: memory has the seals that were looked for; a file is one of the host's artifacts,
        // which nobody writes to after it has its name (the host's own mapping of it rests on the same).
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.length) }
    }
}

impl Writable {
    /// Maps memory that can neither shrink nor grow.
    pub(crate) fn new(descriptor: impl AsFd, bytes: u64) -> io::Result<Self> {
        let descriptor = descriptor.as_fd();
        check_length(descriptor, bytes)?;
        let seals = fcntl_get_seals(descriptor)?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(wrong(format!(
                "memory was granted that may change its length: its seals are {seals:?}"
            )));
        }
        Mapping::new(descriptor, bytes, ProtFlags::READ | ProtFlags::WRITE).map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: as in `as_bytes_mut`.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.length) }
    }

    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has as many bytes, or there are none and the address is not looked at; it lives as long as
        // `self`, which is borrowed alone, and can be written. The memory was made by the host for this mapping: nobody
        // else of this process has it, and the host looks at it only after the commit, before which it is unmapped here.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.length) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

    use super::*;

    fn memory(bytes: &[u8], seals: SealFlags) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("test", flags).unwrap());
        file.write_all(bytes).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    const SIZE: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

    #[test]
    fn sealed_memory_and_files_for_reading_can_be_read() {
        for bytes in [&b"hello"[..], b""] {
            let sealed = memory(bytes, SIZE | SealFlags::WRITE);
            assert_eq!(ReadOnly::new(&sealed, bytes.len() as u64).unwrap().as_bytes(), bytes);
        }
        let this = File::open("Cargo.toml").unwrap();
        let length = this.metadata().unwrap().len();
        assert!(!ReadOnly::new(&this, length).unwrap().as_bytes().is_empty());
    }

    #[test]
    fn what_was_not_granted_is_not_mapped() {
        let open = memory(b"hello", SIZE);
        assert!(ReadOnly::new(&open, 5).is_err(), "it can be written to");
        let sealed = memory(b"hello", SIZE | SealFlags::WRITE);
        assert!(ReadOnly::new(&sealed, 6).is_err(), "it is shorter");
        assert!(Writable::new(&sealed, 5).is_err(), "it cannot be written to");
        let growing = memory(b"hello", SealFlags::SHRINK);
        assert!(Writable::new(&growing, 5).is_err(), "it may change its length");
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(ReadOnly::new(&socket, 0).is_err(), "it is no file");
        assert!(Writable::new(&socket, 0).is_err(), "it is no file");
    }

    #[test]
    fn what_is_written_is_seen_by_whoever_granted_it() {
        let open = memory(b"hello", SIZE);
        let mut mapped = Writable::new(&open, 5).unwrap();
        mapped.as_bytes_mut().copy_from_slice(b"HELLO");
        assert_eq!(mapped.as_bytes(), b"HELLO");
        assert!(fcntl_add_seals(&open, SealFlags::WRITE).is_err(), "it is mapped");
        drop(mapped);
        fcntl_add_seals(&open, SealFlags::WRITE).unwrap();
        assert_eq!(ReadOnly::new(&open, 5).unwrap().as_bytes(), b"HELLO");
    }
}
