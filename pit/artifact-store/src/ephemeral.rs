//! Artifacts that never touch a disk: sealed memory (memfd), found by digest as long as somebody holds them.
//!
//! ```text
//!   bytes -------------------------------> own memfd --sealed, hashed--> delivered
//!   a memfd --sealed, or sealable now----------------------\-hashed------> delivered, not copied
//!     \------a writable mapping is left---> copied into an own one
//! ```
//!
//! They count against one budget per store, which they leave with their last holder. Nothing of them survives the
//! process; what shall be kept is put. Knows nothing of the folder of the store but its path, for errors.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::artifact::{Artifact, Content, Held};
use crate::digest::{Digest, DigestHash};
use crate::error::{DiskError, PutError, RoomLimit, Shortage};
use crate::look::PIECE_BYTES;
use crate::mapping::Mapping;
use crate::remembered::size_of_stat;
use crate::store::Store;

/// LIMIT: bytes of all ephemeral artifacts of a store by default.
pub const EPHEMERAL_BYTES_MAX: u64 = 256 << 20;

/// After these nobody can change the memory.
const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);
/// Without these somebody could.
const SEALS_NEEDED: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

/// The ephemeral artifacts of a store.
#[derive(Debug)]
pub(crate) struct Ephemeral {
    bytes_max: u64,
    held: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    bytes: u64,
    artifacts: HashMap<Digest, Weak<Held>, DigestHash>,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// A part of the budget, given back when dropped.
pub(crate) struct Charge {
    ephemeral: Arc<Ephemeral>,
    digest: Option<Digest>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut held = self.ephemeral.held.lock();
        held.bytes -= self.bytes;
        if let Some(digest) = &self.digest
            && held.artifacts.get(digest).is_some_and(|held| held.strong_count() == 0)
        {
            held.artifacts.remove(digest);
        }
    }
}

impl Ephemeral {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, held: Mutex::default() }
    }

    pub(crate) fn find(&self, digest: &Digest) -> Option<Artifact> {
        self.held.lock().artifacts.get(digest).and_then(Artifact::upgrade)
    }

    /// Artifacts, their bytes, and the budget.
    pub(crate) fn usage(&self) -> (usize, u64, u64) {
        let held = self.held.lock();
        (held.artifacts.len(), held.bytes, self.bytes_max)
    }

    fn charge(self: &Arc<Self>, folder: &Path, bytes: u64) -> Result<Charge, DiskError> {
        let mut held = self.held.lock();
        let free_bytes = self.bytes_max - held.bytes;
        if bytes > free_bytes {
            let shortage = Shortage {
                limit: RoomLimit::Memory,
                folder: folder.to_owned(),
                needed_bytes: bytes,
                free_bytes,
                free_files: 0,
            };
            return Err(DiskError::Full { shortage, source: Errno::NOMEM.into() });
        }
        held.bytes += bytes;
        Ok(Charge { ephemeral: Arc::clone(self), digest: None, bytes })
    }

    /// The artifact, or the one of the same digest that is there already.
    fn register(&self, digest: Digest, mapping: Mapping, file: File, mut charge: Charge) -> Artifact {
        let mut held = self.held.lock();
        if let Some(present) = held.artifacts.get(&digest).and_then(Artifact::upgrade) {
            // The charge takes the lock when it goes.
            drop(held);
            return present;
        }
        charge.digest = Some(digest);
        let artifact = Artifact::new(digest, Content::Ephemeral { mapping, file, _charge: charge });
        held.artifacts.insert(digest, artifact.downgrade());
        artifact
    }
}

/// Memory that is sealed with these bytes in it.
pub(crate) fn sealed_copy(bytes: &[u8]) -> io::Result<File> {
    let file = memory()?;
    write_all(&file, bytes)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

fn memory() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create("artifact", flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know that nobody wants to execute it.
        Err(Errno::INVAL) => rustix::fs::memfd_create("artifact", flags)?,
        made => made?,
    };
    Ok(File::from(fd))
}

fn write_all(file: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Memory that another process may have filled.
pub(crate) struct Memory {
    pub(crate) file: File,
    pub(crate) bytes: u64,
    pub(crate) is_sealed: bool,
}

impl Memory {
    /// Takes a memfd and nothing else: reading another kind of file could block for ever.
    pub(crate) fn of(fd: OwnedFd) -> Result<Self, PutError> {
        let input = |source: io::Error| PutError::Input { source };
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| {
            input(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is not one of a memfd"))
        })?;
        let is_sealed = seals.contains(SEALS_NEEDED)
            // Whoever made it may have left the sealing to us. It fails while a writable mapping exists.
            || rustix::fs::fcntl_add_seals(&fd, SEALS).is_ok();
        let stat = rustix::fs::fstat(fd.as_fd()).map_err(|error| input(error.into()))?;
        Ok(Self { file: File::from(fd), bytes: size_of_stat(&stat), is_sealed })
    }

    /// The bytes without a copy; only of sealed memory.
    pub(crate) fn mapping(&self) -> Result<Mapping, PutError> {
        Mapping::of_sealed(&self.file, self.bytes).map_err(|source| PutError::Input { source })
    }
}

impl Store {
    /// Holds these bytes as an artifact in sealed memory: no disk is touched, and [`get`](Self::get) finds it as long as
    /// a clone of what this returns lives. To keep it, put its bytes.
    ///
    /// # Errors
    /// [`DiskError::Full`] with [`RoomLimit::Memory`] if all ephemeral artifacts together would pass
    /// [`ephemeral_bytes_max`](crate::StoreOptions::ephemeral_bytes_max): drop some; [`DiskError::Io`] of the system.
    pub fn put_ephemeral(&self, bytes: &[u8]) -> Result<Artifact, PutError> {
        let digest = Digest::of(bytes);
        if let Some(present) = self.ephemeral.find(&digest) {
            return Ok(present);
        }
        let length = bytes.len() as u64;
        let charge = self.ephemeral.charge(self.folder(), length)?;
        let memory =
            sealed_copy(bytes).map_err(|error| DiskError::io("fill memory for", self.folder(), error))?;
        let mapping = Mapping::of_sealed(&memory, length)
            .map_err(|error| DiskError::io("map memory for", self.folder(), error))?;
        Ok(self.ephemeral.register(digest, mapping, memory, charge))
    }

    /// Takes a memfd as an ephemeral artifact: not copied if its writer has sealed it, or if it can be sealed now
    /// because no writable mapping is left; copied otherwise. What was hashed is what is delivered in both cases.
    ///
    /// # Errors
    /// [`PutError::Input`] if the descriptor is none of a memfd, else as for [`put_ephemeral`](Self::put_ephemeral).
    pub fn adopt_memfd(&self, fd: OwnedFd) -> Result<Artifact, PutError> {
        let memory = Memory::of(fd)?;
        let charge = self.ephemeral.charge(self.folder(), memory.bytes)?;
        let memory = if memory.is_sealed { memory } else { self.copy_memory(&memory)? };
        let mapping = memory.mapping()?;
        let digest = Digest::of(mapping.as_bytes());
        Ok(self.ephemeral.register(digest, mapping, memory.file, charge))
    }

    /// At most as many bytes as were there when they were counted, however the writer goes on.
    fn copy_memory(&self, source: &Memory) -> Result<Memory, PutError> {
        let fault = |error| PutError::from(DiskError::io("fill memory for", self.folder(), error));
        let file = memory().map_err(fault)?;
        let mut piece = vec![0_u8; PIECE_BYTES];
        let mut bytes = 0;
        while bytes < source.bytes {
            let wanted =
                usize::try_from(source.bytes - bytes).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            match rustix::io::pread(&source.file, &mut piece[..wanted], bytes) {
                Ok(0) => break,
                Ok(count) => {
                    write_all(&file, &piece[..count]).map_err(fault)?;
                    bytes += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(PutError::Input { source: error.into() }),
            }
        }
        rustix::fs::fcntl_add_seals(&file, SEALS).map_err(|error| fault(error.into()))?;
        Ok(Memory { file, bytes, is_sealed: true })
    }
}
