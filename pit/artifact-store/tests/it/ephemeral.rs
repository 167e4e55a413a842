//! Artifacts in sealed memory: no disk, one budget, nobody can change them.

use std::os::fd::{AsFd, OwnedFd};

use artifact_store::{Digest, DiskError, GetError, PutError, RoomLimit, Store, StoreOptions};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::support::{FaultyDisk, files_below, open, open_on, quick_folder, sample};

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
