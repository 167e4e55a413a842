//! Artifacts that never touch a disk: sealed memory (memfd), found by digest as long as somebody holds them.
//!
//! ```text
//!   bytes -----------------------------------> own memfd --sealed, hashed--> delivered
//!   own memfd of a given size, filled by another process
//!     \------no writable mapping is left-----------------\--sealed, hashed--> delivered, not copied
//!      \-----one is left---> copied and hashed in one pass, sealed-----------> delivered
//!   a memfd of somebody else: the same, but its size is not known before, nor sealed
//! ```
//!
//! They count against one budget per store, from when their memory is made until their last holder lets go. Nothing of
//! them survives the process; what shall be kept is put. Knows nothing of the folder of the store but its path, for errors.

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
use crate::digest::{Digest, DigestHash, Hasher};
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
/// After these nobody can change its length.
const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);
/// Without these somebody could change it.
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

impl Charge {
    /// It turned out to be less.
    fn shrink_to(&mut self, bytes: u64) {
        let spared = self.bytes.saturating_sub(bytes);
        self.bytes -= spared;
        self.ephemeral.held.lock().bytes -= spared;
    }
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
    let file = new_memory()?;
    write_all(&file, bytes)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

fn new_memory() -> io::Result<File> {
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

/// A memfd of somebody else, as it is now.
pub(crate) struct Memory {
    file: File,
    bytes: u64,
}

impl Memory {
    /// Takes a memfd and nothing else: reading another kind of file could block for ever.
    pub(crate) fn of(fd: OwnedFd) -> Result<Self, PutError> {
        let input = |source: io::Error| PutError::Input { source };
        rustix::fs::fcntl_get_seals(&fd).map_err(|_| {
            input(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is not one of a memfd"))
        })?;
        let stat = rustix::fs::fstat(fd.as_fd()).map_err(|error| input(error.into()))?;
        Ok(Self { file: File::from(fd), bytes: size_of_stat(&stat) })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Seals it, if nobody can write to it any more. What nobody may seal is left as it is.
    fn seal(&mut self) -> Result<bool, PutError> {
        // It fails while a writable mapping exists, and if somebody has forbidden it.
        let _is_done = rustix::fs::fcntl_add_seals(&self.file, SEALS).is_ok();
        self.is_sealed()
    }

    /// Nobody can change it any more; then its length is known for good.
    pub(crate) fn is_sealed(&mut self) -> Result<bool, PutError> {
        let input = |error: Errno| PutError::Input { source: error.into() };
        if !rustix::fs::fcntl_get_seals(&self.file).map_err(input)?.contains(SEALS_NEEDED) {
            return Ok(false);
        }
        // Before the seals it may have had another one.
        self.bytes = size_of_stat(&rustix::fs::fstat(&self.file).map_err(input)?);
        Ok(true)
    }

    /// The bytes without a copy; only of sealed memory.
    pub(crate) fn mapping(&self) -> Result<Mapping, PutError> {
        Mapping::of_sealed(&self.file, self.bytes).map_err(|source| PutError::Input { source })
    }

    /// Hands over the bytes piece by piece, each read once, however its writer goes on; at most as many as were there
    /// when they were counted. Says how many there were.
    pub(crate) fn copy(&self, mut take: impl FnMut(&[u8]) -> Result<(), PutError>) -> Result<u64, PutError> {
        let mut piece = vec![0_u8; PIECE_BYTES];
        let mut bytes = 0;
        while bytes < self.bytes {
            let left = usize::try_from(self.bytes - bytes).unwrap_or(PIECE_BYTES);
            match rustix::io::pread(&self.file, &mut piece[..left.min(PIECE_BYTES)], bytes) {
                Ok(0) => break,
                Ok(count) => {
                    take(&piece[..count])?;
                    bytes += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(PutError::Input { source: error.into() }),
            }
        }
        Ok(bytes)
    }
}

/// Memory of a fixed length that becomes an ephemeral artifact when it was filled. Nobody can change its length, and it
/// counts against the budget from its making. Dropping it gives the budget back.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// use artifact_store::{Digest, Store, StoreOptions};
/// use std::os::unix::fs::FileExt;
///
/// let store = Store::open(folder.path(), StoreOptions::default())?;
/// let memory = store.create_ephemeral(5)?;
/// // Another process would map it.
/// std::fs::File::from(memory.try_clone_fd()?).write_all_at(b"hello", 0)?;
/// let artifact = memory.adopt()?;
/// assert_eq!(artifact.digest(), Digest::of(b"hello"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EphemeralMemory {
    store: Store,
    memory: Memory,
    charge: Charge,
}

impl std::fmt::Debug for EphemeralMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EphemeralMemory").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl EphemeralMemory {
    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.memory.bytes
    }

    /// A writable descriptor for who fills it. As long as he has it mapped writable, adoption has to copy.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.memory.file.as_fd().try_clone_to_owned()
    }

    /// Makes it an artifact. Without a writable mapping of it anywhere it is sealed, hashed once and not copied; from then
    /// on nobody can change it, whoever has a descriptor. While there is one, its bytes are copied and hashed in one
    /// pass, and what was hashed is what is delivered; the copy needs its own part of the budget meanwhile.
    ///
    /// LIMIT: what was copied from leaves the budget, though its memory stays as long as the other process has it mapped.
    ///
    /// # Errors
    /// As for [`Store::put_ephemeral`]; the bytes are lost then.
    pub fn adopt(self) -> Result<Artifact, PutError> {
        let Self { store, memory, charge } = self;
        store.adopt_memory(memory, Some(charge))
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
        let memory = sealed_copy(bytes).map_err(|error| self.memory_fault("fill memory for", error))?;
        let mapping = Mapping::of_sealed(&memory, length)
            .map_err(|error| self.memory_fault("map memory for", error))?;
        Ok(self.ephemeral.register(digest, mapping, memory, charge))
    }

    /// Memory of this length for another process to fill, which then becomes an ephemeral artifact without a copy.
    ///
    /// # Errors
    /// As for [`put_ephemeral`](Self::put_ephemeral).
    pub fn create_ephemeral(&self, bytes: u64) -> Result<EphemeralMemory, PutError> {
        let charge = self.ephemeral.charge(self.folder(), bytes)?;
        let made = new_memory().and_then(|file| {
            rustix::fs::ftruncate(&file, bytes)?;
            rustix::fs::fcntl_add_seals(&file, SIZE_SEALS)?;
            Ok(file)
        });
        let file = made.map_err(|error| self.memory_fault("make memory for", error))?;
        Ok(EphemeralMemory { store: self.clone(), memory: Memory { file, bytes }, charge })
    }

    /// Takes a memfd that was made elsewhere as an ephemeral artifact: not copied if its writer has sealed it, or if it
    /// can be sealed now because no writable mapping is left; copied otherwise. What was hashed is what is delivered in
    /// both cases.
    ///
    /// # Errors
    /// [`PutError::Input`] if the descriptor is none of a memfd, else as for [`put_ephemeral`](Self::put_ephemeral).
    pub fn adopt_memfd(&self, fd: OwnedFd) -> Result<Artifact, PutError> {
        self.adopt_memory(Memory::of(fd)?, None)
    }

    /// `charge` is the part of the budget that the memory has already.
    fn adopt_memory(&self, mut memory: Memory, charge: Option<Charge>) -> Result<Artifact, PutError> {
        if memory.seal()? {
            let charge = match charge {
                Some(charge) => charge,
                None => self.ephemeral.charge(self.folder(), memory.bytes)?,
            };
            let mapping = memory.mapping()?;
            let digest = Digest::of(mapping.as_bytes());
            return Ok(self.ephemeral.register(digest, mapping, memory.file, charge));
        }
        // Beside the one of the original, which lives until this returns.
        let mut of_copy = self.ephemeral.charge(self.folder(), memory.bytes)?;
        let fault = |error| PutError::from(self.memory_fault("fill memory for", error));
        let file = new_memory().map_err(fault)?;
        let mut hasher = Hasher::default();
        let bytes = memory.copy(|piece| {
            hasher.add(piece);
            write_all(&file, piece).map_err(fault)
        })?;
        of_copy.shrink_to(bytes);
        rustix::fs::fcntl_add_seals(&file, SEALS).map_err(|error| fault(error.into()))?;
        let mapping = Mapping::of_sealed(&file, bytes).map_err(fault)?;
        Ok(self.ephemeral.register(hasher.digest(), mapping, file, of_copy))
    }

    fn memory_fault(&self, operation: &'static str, error: io::Error) -> DiskError {
        DiskError::io(operation, self.folder(), error)
    }
}
