//! The memory of one side's region, mapped by its owner for writing or by the other for reading.
#![expect(unsafe_code, reason = "memory that another process maps, too")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use pit_core::byte_ring::Control;

/// Where the bytes of the ring begin: the words have a page of their own.
const CONTROL_BYTES: usize = 4096;

/// LIMIT: bytes of a ring that a host may grant.
const RING_BYTES_MAX: usize = 1 << 30;

const _: () = assert!(size_of::<Control>() <= CONTROL_BYTES);

/// One region, as one side maps it.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    /// Bytes of the ring, a power of two.
    capacity: usize,
    is_writable: bool,
}

// SAFETY: the mapping belongs to the value alone and lives until it is dropped; it is not bound to a thread.
unsafe impl Send for Region {}
// SAFETY: what `&self` gives is atomic words, and copies of bytes. Bytes are written by `write` alone, whose caller
// says that nobody else of this process does so at the same place.
unsafe impl Sync for Region {}

/// New memory for a region, zeroed, that can never shrink or grow. Whoever has the descriptor can still map it
/// for writing.
pub(super) fn create(name: &str, capacity: usize) -> io::Result<OwnedFd> {
    let memory = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, bytes(capacity))?;
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(memory)
}

/// Bytes of a region with a ring of `capacity` bytes.
pub(super) const fn bytes(capacity: usize) -> u64 {
    (CONTROL_BYTES + capacity) as u64
}

/// From here on nobody can map the region for writing; mappings that there are stay as they are.
pub(super) fn seal_writing(memory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_add_seals(memory, SealFlags::FUTURE_WRITE | SealFlags::SEAL)?)
}

/// No further seals: nobody can take away what the region's owner needs.
pub(super) fn seal_seals(memory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_add_seals(memory, SealFlags::SEAL)?)
}

impl Region {
    /// Maps `memory`. A region that could shrink would end whoever touches it with SIGBUS, so it must be sealed.
    pub(super) fn map(memory: impl AsFd, is_writable: bool) -> io::Result<Self> {
        let memory = memory.as_fd();
        let length = fstat(memory)?.st_size;
        let seals = fcntl_get_seals(memory)?;
        let capacity = usize::try_from(length).unwrap_or(0).saturating_sub(CONTROL_BYTES);
        if !capacity.is_power_of_two()
            || capacity > RING_BYTES_MAX
            || !seals.contains(SealFlags::SHRINK | SealFlags::GROW)
        {
            let what = format!(
                "a ring's memory has {length} bytes and the seals {seals:?}, where a page and a power of two that \
                 can neither shrink nor grow were expected"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let length = CONTROL_BYTES + capacity;
        let access = if is_writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory of this program.
        let start = unsafe { mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, memory, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, capacity, is_writable })
    }

    /// Bytes of its ring.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Its words.
    pub(super) fn control(&self) -> &Control {
        // SAFETY: the mapping is longer than `Control`, page-aligned, and lives as long as `self`. All of its fields
        // are atomics, for which every bit pattern is a value and whose memory may change at any time. On memory
        // that is mapped read-only they are only loaded: a side stores to its own region alone.
        unsafe { self.start.cast::<Control>().as_ref() }
    }

    fn place(&self, position: u64) -> (NonNull<u8>, usize) {
        // INVARIANT: the capacity is a power of two, and what is below it fits.
        let at = usize::try_from(position & (self.capacity as u64 - 1)).unwrap_or(0);
        // SAFETY: `at` is below the capacity, so the place lies within the mapping.
        let place = unsafe { self.start.add(CONTROL_BYTES + at) };
        (place, self.capacity - at)
    }

    /// Copies `bytes` to `position`, around the end of the ring. The caller owns the region, is its only writer, and
    /// has seen that there is room.
    pub(super) fn write(&self, position: u64, bytes: &[u8]) {
        assert!(
            self.is_writable && bytes.len() <= self.capacity,
            "only the owner writes, and only what fits"
        );
        let (place, until_end) = self.place(position);
        let (first, rest) = bytes.split_at(bytes.len().min(until_end));
        // SAFETY: `first` fits before the ring's end, which the mapping covers; it is mapped for writing, and is no
        // memory of `bytes`, which is this program's own.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(first).cast(), first.len()) };
        let (start, _) = self.place(0);
        // SAFETY: `rest` is at most as long as the ring and begins at the ring's start; as above.
        unsafe { start.copy_from_nonoverlapping(NonNull::from(rest).cast(), rest.len()) };
    }

    /// Copies bytes from `position` out, around the end of the ring.
    ///
    /// A hostile owner may write the very bytes meanwhile. What arrives is then some bytes or others, in memory of
    /// this program's own, where every byte is a value and nothing has looked at them yet; the copy is a call that
    /// the compiler does not look into, and no reference to the shared bytes ever exists.
    pub(super) fn read(&self, position: u64, room: &mut [u8]) {
        assert!(room.len() <= self.capacity, "a ring holds no more");
        let (place, until_end) = self.place(position);
        let at = room.len().min(until_end);
        let (first, rest) = room.split_at_mut(at);
        // SAFETY: as many bytes lie before the ring's end, which the mapping covers; `first` is this program's own
        // memory, which nobody else has.
        unsafe { place.copy_to_nonoverlapping(NonNull::from(&mut *first).cast(), first.len()) };
        let (start, _) = self.place(0);
        // SAFETY: `rest` is at most as long as the ring; as above.
        unsafe { start.copy_to_nonoverlapping(NonNull::from(&mut *rest).cast(), rest.len()) };
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is the value's own and was made with this length; references into it borrow `self`.
        // It cannot fail for a mapping that exists.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), CONTROL_BYTES + self.capacity) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: usize = 64 << 10;

    #[test]
    fn bytes_go_around_the_end() {
        let memory = create("test", CAPACITY).unwrap();
        let writable = Region::map(&memory, true).unwrap();
        seal_writing(memory.as_fd()).unwrap();
        let readable = Region::map(&memory, false).unwrap();
        let pattern: Vec<u8> = (0..=255).collect();
        for position in [0, 17, CAPACITY as u64 - 100, 3 * CAPACITY as u64 - 1] {
            writable.write(position, &pattern);
            let mut room = [0; 256];
            readable.read(position, &mut room);
            assert_eq!(room.as_slice(), pattern, "{position}");
        }
    }

    #[test]
    fn the_other_side_can_neither_write_nor_shrink_it() {
        let memory = create("test", CAPACITY).unwrap();
        let _owner = Region::map(&memory, true).unwrap();
        seal_writing(memory.as_fd()).unwrap();
        assert!(Region::map(&memory, true).is_err());
        for length in [0, bytes(CAPACITY) * 2] {
            assert!(ftruncate(&memory, length).is_err(), "{length}");
        }
        assert!(fcntl_add_seals(&memory, SealFlags::WRITE).is_err(), "no further seals");
        let unsealed = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(Region::map(&unsealed, false).is_err());
        ftruncate(&unsealed, bytes(CAPACITY)).unwrap();
        assert!(Region::map(&unsealed, false).is_err(), "it could still shrink");
    }
}
