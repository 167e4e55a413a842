//! A writable mapping, as another process has it of memory that it fills; knows nothing of stores.
#![expect(unsafe_code, reason = "a mapping that is written to can be had in no other way")]

use std::fs::File;

use memmap2::MmapMut;

/// Memory of another file that can be written to until this is dropped.
pub(crate) struct Writable(MmapMut);

impl Writable {
    pub(crate) fn of(file: &File) -> std::io::Result<Self> {
        // SAFETY: the file is a memfd of the test's own whose length is sealed. While others read the memory, this is only
        // written to as plain bytes, and whoever reads meanwhile does so by `pread`, in the kernel.
        Ok(Self(unsafe { MmapMut::map_mut(file) }?))
    }

    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.0.copy_from_slice(bytes);
    }
}
