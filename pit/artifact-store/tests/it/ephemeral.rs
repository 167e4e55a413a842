//! Artifacts in sealed memory: no disk, one budget, nobody can change them, and what others have filled is not copied.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};

use artifact_store::{
    Artifact, Digest, DiskError, EphemeralMemory, GetError, PutError, RoomLimit, Store, StoreOptions,
};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::children::FILLING;
use crate::support::{
    FaultyDisk, assert_all_checked, child, files_below, open, open_on, quick_folder, sample,
};
use crate::writable::Writable;

/// A memfd as an extension fills it, still open for writing.
fn memfd(bytes: &[u8]) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    assert_eq!(rustix::io::write(&fd, bytes).unwrap(), bytes.len());
    fd
}

/// One that nobody may seal any more, so that its writer can go on.
fn unsealable(bytes: &[u8]) -> OwnedFd {
    let fd = memfd(bytes);
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SEAL).unwrap();
    fd
}

#[test]
fn an_ephemeral_artifact_is_found_while_held_and_asks_nothing_of_the_disk() {
    let folder = quick_folder();
    let disk = FaultyDisk::new(true);
    let store = open_on(folder.path(), &disk);
    let before = files_below(folder.path());
    disk.take_log();
    let bytes = sample(1, 100_000);
    let artifact = store.put_ephemeral(&bytes).unwrap();
    let digest = artifact.digest();
    let again = store.put_ephemeral(&bytes).unwrap();
    assert!(store.get(&digest).unwrap().as_bytes() == bytes);
    assert!(artifact.is_ephemeral() && artifact.path().is_none());
    assert_eq!((store.usage().ephemeral_artifacts, store.usage().ephemeral_bytes), (1, 100_000));
    assert_eq!(disk.take_log(), [""; 0]);
    assert_eq!(files_below(folder.path()), before);

    let fd = artifact.try_clone_fd().unwrap();
    assert!(rustix::io::write(&fd, b"x").is_err());
    assert!(rustix::fs::ftruncate(&fd, 0).is_err());
    drop((artifact, again));
    assert_eq!((store.usage().ephemeral_artifacts, store.usage().ephemeral_bytes), (0, 0));
    assert!(matches!(store.get(&digest), Err(GetError::Absent { .. })));

    // Kept by putting it.
    let artifact = store.put_ephemeral(b"keep me").unwrap();
    store.put_bytes(artifact.as_bytes()).unwrap();
    assert_eq!(open(folder.path()).get(&artifact.digest()).unwrap().as_bytes(), b"keep me");
}

#[test]
fn the_budget_is_a_limit_and_what_is_let_go_is_free_again() {
    let folder = quick_folder();
    let options = StoreOptions { ephemeral_bytes_max: 1000, ..StoreOptions::default() };
    let store = Store::open(folder.path(), options).unwrap();
    let first = store.put_ephemeral(&sample(1, 600)).unwrap();
    for error in [
        store.put_ephemeral(&sample(2, 401)).unwrap_err(),
        store.adopt_memfd(memfd(&sample(2, 401))).unwrap_err(),
    ] {
        let PutError::Disk(DiskError::Full { shortage, .. }) = &error else { panic!("{error:?}") };
        assert_eq!(
            (shortage.limit, shortage.needed_bytes, shortage.free_bytes),
            (RoomLimit::Memory, 401, 400)
        );
        assert!(error.to_string().contains("ephemeral_bytes_max"), "{error}");
    }
    let second = store.put_ephemeral(&sample(3, 400)).unwrap();
    drop(first);
    store.adopt_memfd(memfd(&sample(4, 600))).unwrap();
    assert_eq!(store.usage().ephemeral_bytes, second.len());
}

#[test]
fn a_memfd_is_adopted_sealed_or_copied_and_its_writer_cannot_change_it_afterwards() {
    let folder = quick_folder();
    let store = open(folder.path());
    let bytes = sample(5, 10_000);
    for (make, is_copied) in [(memfd as fn(&[u8]) -> OwnedFd, false), (unsealable, true)] {
        let writer = make(&bytes);
        let artifact = store.adopt_memfd(writer.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(rustix::io::pwrite(&writer, b"changed", 0).is_ok(), is_copied);
        assert_eq!(rustix::fs::ftruncate(&writer, 1).is_ok(), is_copied);
        assert!(artifact.as_bytes() == bytes);
        assert_eq!(artifact.digest(), Digest::of(&bytes));
    }
    assert_eq!(store.adopt_memfd(memfd(b"")).unwrap().len(), 0);
}

#[test]
fn a_memfd_is_put_whether_sealed_or_not() {
    let folder = quick_folder();
    let store = open(folder.path());
    for (seed, make) in (0..).zip([memfd as fn(&[u8]) -> OwnedFd, unsealable]) {
        for length in [0, 1, 5000, 600_000, 5_000_000] {
            let bytes = sample(seed, length);
            let stored = store.put_memfd(make(&bytes)).unwrap();
            assert!(open(folder.path()).get(&stored.digest).unwrap().as_bytes() == bytes);
        }
    }
}

#[test]
fn a_descriptor_that_is_no_memfd_is_refused_at_once() {
    let folder = quick_folder();
    let store = open(folder.path());
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let zero = std::fs::File::open("/dev/zero").unwrap();
    for fd in [pipe, zero.into()] {
        let copy = fd.try_clone().unwrap();
        assert!(matches!(store.put_memfd(fd), Err(PutError::Input { .. })));
        assert!(matches!(store.adopt_memfd(copy), Err(PutError::Input { .. })));
    }
}

fn inode(fd: impl AsFd) -> u64 {
    rustix::fs::fstat(fd).unwrap().st_ino
}

fn inode_of(artifact: &Artifact) -> u64 {
    inode(artifact.try_clone_fd().unwrap())
}

/// A child that fills memory of this process, and has done so when this returns; and the descriptor by whose number it finds
/// the memory, to be kept until it has ended: after that the number may be that of another test's file.
fn filled_by(role: &str, memory: &EphemeralMemory) -> (Child, OwnedFd) {
    let fd = memory.try_clone_fd().unwrap();
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()));
    let mut child = child(role, &path).spawn().unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "filled"), "the child ended by itself");
    (child, fd)
}

fn let_go_on(mut child: Child) {
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_all_checked(&child.wait_with_output().unwrap());
}

#[test]
fn memory_that_another_process_has_filled_and_let_go_is_adopted_without_a_copy() {
    let folder = quick_folder();
    let disk = FaultyDisk::new(true);
    let store = open_on(folder.path(), &disk);
    disk.take_log();
    let memory = store.create_ephemeral(FILLING.1 as u64).unwrap();
    assert_eq!((memory.bytes(), store.usage().ephemeral_bytes), (300_001, 300_001), "before it is filled");
    let (child, found_by) = filled_by("fill memory", &memory);
    let artifact = memory.adopt().unwrap();
    let bytes = sample(FILLING.0, FILLING.1);
    assert!(artifact.as_bytes() == bytes && artifact.digest() == Digest::of(&bytes));
    assert_eq!(inode_of(&artifact), inode(&found_by), "the very memory");
    assert_eq!(store.usage().ephemeral_bytes, 300_001, "counted once");
    assert!(store.get(&Digest::of(&bytes)).unwrap().is_ephemeral());
    let_go_on(child);
    drop(found_by);
    assert!(artifact.as_bytes() == bytes);
    drop(artifact);
    assert_eq!((store.usage().ephemeral_artifacts, store.usage().ephemeral_bytes), (0, 0));
    assert!(disk.take_log().is_empty());
}

#[test]
fn memory_that_another_process_still_has_mapped_is_copied_and_what_it_writes_on_is_not_seen() {
    let folder = quick_folder();
    let store = open(folder.path());
    let memory = store.create_ephemeral(FILLING.1 as u64).unwrap();
    let watched = memory.try_clone_fd().unwrap();
    let (child, found_by) = filled_by("keep memory mapped", &memory);
    assert_eq!(rustix::fs::fcntl_add_seals(&watched, SealFlags::WRITE), Err(rustix::io::Errno::BUSY));
    let artifact = memory.adopt().unwrap();
    let bytes = sample(FILLING.0, FILLING.1);
    assert!(artifact.as_bytes() == bytes && artifact.digest() == Digest::of(&bytes));
    assert_ne!(inode_of(&artifact), inode(&found_by));
    assert_eq!(store.usage().ephemeral_bytes, 300_001, "the original has left the budget");
    let_go_on(child);
    drop(found_by);
    let mut now = vec![0; FILLING.1];
    rustix::io::pread(&watched, &mut now, 0).unwrap();
    assert!(now == sample(78, FILLING.1) && artifact.as_bytes() == bytes);
}

#[test]
fn a_mapping_of_this_process_counts_too_and_a_forbidden_seal_is_no_seal() {
    let folder = quick_folder();
    let store = open(folder.path());
    let bytes = sample(9, 5000);
    for is_forbidden in [false, true] {
        let memory = store.create_ephemeral(5000).unwrap();
        let fd = memory.try_clone_fd().unwrap();
        let of_memory = inode(&fd);
        let file = File::from(fd);
        let mut writable = Writable::of(&file).unwrap();
        writable.fill(&bytes);
        if is_forbidden {
            rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL).unwrap();
            drop(writable);
            let artifact = memory.adopt().unwrap();
            assert!(artifact.as_bytes() == bytes && inode_of(&artifact) != of_memory);
        } else {
            let artifact = memory.adopt().unwrap();
            assert!(artifact.as_bytes() == bytes && inode_of(&artifact) != of_memory);
            writable.fill(&sample(10, 5000));
            assert!(artifact.as_bytes() == bytes);
        }
    }
}

#[test]
fn memory_counts_from_its_making_and_is_given_back_whatever_becomes_of_it() {
    let folder = quick_folder();
    let options = StoreOptions { ephemeral_bytes_max: 1000, ..StoreOptions::default() };
    let store = Store::open(folder.path(), options).unwrap();
    let used = || store.usage().ephemeral_bytes;
    let is_full = |error: PutError| matches!(error, PutError::Disk(DiskError::Full { shortage, .. }) if shortage.limit == RoomLimit::Memory);
    for bytes in [1001, u64::MAX] {
        assert!(is_full(store.create_ephemeral(bytes).unwrap_err()));
    }
    let memory = store.create_ephemeral(600).unwrap();
    assert!(is_full(store.create_ephemeral(401).unwrap_err()));
    assert!(is_full(store.put_ephemeral(&sample(1, 401)).unwrap_err()));
    assert_eq!(used(), 600);
    // A copy needs its own part beside the original's, and there is none.
    let file = File::from(memory.try_clone_fd().unwrap());
    let writable = Writable::of(&file).unwrap();
    assert!(is_full(memory.adopt().unwrap_err()));
    assert_eq!(used(), 0);
    drop(writable);
    drop(store.create_ephemeral(1000).unwrap());
    assert_eq!(used(), 0);
    // What is there already is delivered, and its twin given back.
    let first = store.put_ephemeral(&[0; 400]).unwrap();
    let second = store.create_ephemeral(400).unwrap();
    assert_eq!(used(), 800);
    let second = second.adopt().unwrap();
    assert_eq!((used(), store.usage().ephemeral_artifacts), (400, 1));
    drop(first);
    assert_eq!((used(), second.as_bytes()), (400, [0; 400].as_slice()));
    drop(second);
    assert_eq!(used(), 0);
    assert!(store.create_ephemeral(0).unwrap().adopt().unwrap().is_empty());
}

#[test]
fn a_memfd_that_is_put_stays_its_owners() {
    let folder = quick_folder();
    let store = open(folder.path());
    for length in [0, 3000, 5_000_000] {
        let bytes = sample(length as u64, length);
        let fd = memfd(&bytes);
        let before = rustix::fs::fcntl_get_seals(&fd).unwrap();
        let stored = store.put_memfd(fd.try_clone().unwrap()).unwrap();
        assert_eq!((stored.digest, stored.bytes), (Digest::of(&bytes), length as u64));
        assert_eq!(rustix::fs::fcntl_get_seals(&fd).unwrap(), before, "it was not sealed");
        rustix::io::pwrite(&fd, b"written on", 0).unwrap();
        assert!(open(folder.path()).get(&stored.digest).unwrap().as_bytes() == bytes);
        assert_eq!(store.usage().ephemeral_artifacts, 0);
    }
}

/// Ends the writer of a test that ends before its time.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody writes and changes the length all the while: whatever is taken, its digest is that of what is delivered.
#[test]
fn what_is_taken_from_memory_that_changes_is_what_was_hashed() {
    const LENGTH: usize = 700_000;
    let folder = quick_folder();
    let store = open(folder.path());
    let is_over = AtomicBool::new(false);
    // Nobody may seal it, so that its writer can go on for ever.
    let fd = unsealable(&sample(1, LENGTH));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut changes = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                changes += 1;
                let at = changes.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (LENGTH as u64);
                rustix::io::pwrite(&fd, &changes.to_le_bytes(), at).unwrap();
                if changes.is_multiple_of(64) {
                    rustix::fs::ftruncate(&fd, at).unwrap();
                    rustix::fs::ftruncate(&fd, LENGTH as u64).unwrap();
                }
            }
            changes
        });
        let ending = Ending(&is_over);
        let mut different = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let stored = store.put_memfd(fd.try_clone().unwrap()).unwrap();
            assert!(open(folder.path()).verify(&stored.digest).unwrap() == stored.bytes);
            let artifact = store.adopt_memfd(fd.try_clone().unwrap()).unwrap();
            assert!(Digest::of(artifact.as_bytes()) == artifact.digest());
            assert_eq!(store.usage().ephemeral_bytes, artifact.len(), "no more than was there is counted");
            different.extend([stored.digest, artifact.digest()]);
        }
        drop(ending);
        assert!(writer.join().unwrap() > 1000 && different.len() > 10, "{} different", different.len());
    });
}
