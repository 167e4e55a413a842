//! The one unsafe step of the crate: the bytes of a stored file, or of sealed memory, as a slice.
//!
//! Knows nothing of digests: whoever maps has verified the file before.
#![expect(unsafe_code, reason = "a file can be mapped only by promising that nobody changes it")]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

/// A whole file, mapped for reading.
#[derive(Debug)]
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps a file of the store, of exactly `bytes` bytes. An empty file works.
    pub(crate) fn of_stored(file: &File, bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: the slice is sound as long as nobody changes or truncates the file. The store never does: a file gets
        // its bytes before it gets its name in `objects/`, has mode 0400 in a folder of mode 0700, is never opened for
        // writing again, and leaves `objects/` only by rename, which keeps the inode and so the mapping alive.
        // `bytes` was taken from this very descriptor after its bytes were hashed, so the mapping ends with the file.
        // What remains is a process of the same user (or root) that changes the mode and writes: a change shows
        // through in the slice, and behind a truncated end an access ends this process with SIGBUS. No check of ours
        // can exclude that; such a process could as well write to our memory. The same SIGBUS answers a device that
        // cannot read a page again after it was evicted.
        let map = unsafe { MmapOptions::new().len(length).map(file) }?;
        Ok(Self(map))
    }

    /// Maps memory that is sealed against writing, shrinking and growing, of exactly `bytes` bytes.
    pub(crate) fn of_sealed(file: &File, bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: the slice is sound as long as nobody changes or truncates the memory. The caller has seen all three
        // seals on this descriptor; the kernel sets the seal against writing only while nobody has a writable mapping,
        // refuses every write and truncation from then on, and never takes a seal away. `bytes` was taken after that.
        let map = unsafe { MmapOptions::new().len(length).map(file) }?;
        Ok(Self(map))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
