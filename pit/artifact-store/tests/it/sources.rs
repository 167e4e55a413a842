//! Files moved, shared or copied into the store; large slices.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use artifact_store::{Digest, DiskError, PutError};
use rustix::io::Errno;

use crate::support::{Failing, FaultyDisk, check_whole, open, open_on, quick_folder, sample};

fn source(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("source");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_moved_file_is_linked_and_not_written() {
    let folder = quick_folder();
    let disk = FaultyDisk::new(true);
    let store = open_on(&folder.path().join("store"), &disk);
    let bytes = sample(1, 700_000);
    let path = source(folder.path(), &bytes);
    let inode = std::fs::metadata(&path).unwrap().ino();
    disk.take_log();
    let stored = store.adopt_file(&path).unwrap();
    let log = disk.take_log();
    assert!(!log.iter().any(|line| line.starts_with("write")), "{log:?}");
    let shard = format!("link {}", &stored.digest.to_string()[..2]);
    let order = |step: &str| log.iter().position(|line| line == step).unwrap();
    assert!(order("sync_file") < order(&shard), "durable before it has its name");
    assert!(!path.exists());
    assert!(store.get(&stored.digest).unwrap().as_bytes() == bytes);
    let metadata = std::fs::metadata(store.path_of(&stored.digest)).unwrap();
    assert_eq!((metadata.ino(), metadata.mode() & 0o777), (inode, 0o400));

    // One that is there already is not stored twice, and goes all the same.
    let path = source(folder.path(), &bytes);
    assert!(store.adopt_file(&path).unwrap().was_present);
    assert!(!path.exists());
}

#[test]
fn a_file_that_cannot_be_moved_is_copied_and_goes() {
    let folder = quick_folder();
    let store = open(&folder.path().join("store"));
    // It has another name, through which somebody could write.
    let path = source(folder.path(), b"twice named");
    let other = folder.path().join("other");
    std::fs::hard_link(&path, &other).unwrap();
    let stored = store.adopt_file(&path).unwrap();
    assert!(!path.exists());
    std::fs::write(&other, "changed").unwrap();
    assert_eq!(store.get(&stored.digest).unwrap().as_bytes(), b"twice named");
    // On another file system.
    let elsewhere = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = source(elsewhere.path(), b"from far");
    let stored = store.adopt_file(&path).unwrap();
    assert!(!path.exists());
    assert_eq!(store.get(&stored.digest).unwrap().as_bytes(), b"from far");
    assert!(matches!(store.adopt_file(folder.path()), Err(PutError::Input { .. })));
}

#[test]
fn a_file_that_is_written_to_while_it_is_moved_is_stored_as_it_is_read_then() {
    let folder = quick_folder();
    let disk = FaultyDisk::new(true);
    let store = open_on(&folder.path().join("store"), &disk);
    let path = source(folder.path(), &sample(5, 10_000));
    disk.intrude(std::fs::File::options().write(true).open(&path).unwrap());
    let stored = store.adopt_file(&path).unwrap();
    let artifact = open(store.folder()).get(&stored.digest).unwrap();
    assert!(artifact.as_bytes().starts_with(b"intruder"), "what was hashed is what is stored");
    assert_eq!((check_whole(store.folder()), path.exists()), (1, false));
}

#[test]
fn a_file_that_was_not_stored_is_still_there_as_it_was() {
    for at in 1.. {
        let folder = quick_folder();
        let disk = FaultyDisk::new(true);
        let store = open_on(&folder.path().join("store"), &disk);
        let path = source(folder.path(), b"mine");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        disk.fail_at(at, Failing::Once(Errno::IO));
        let result = store.adopt_file(&path);
        if disk.hit().is_none() {
            result.unwrap();
            assert!(at > 4);
            return;
        }
        if result.is_err() {
            assert_eq!(std::fs::read(&path).unwrap(), b"mine");
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        } else {
            assert!(!path.exists());
            assert_eq!(open(store.folder()).get(&Digest::of(b"mine")).unwrap().as_bytes(), b"mine");
        }
    }
}

#[test]
fn where_bytes_can_be_shared_a_file_is_put_without_writing_it() {
    let folder = quick_folder();
    let disk = FaultyDisk::with_clones();
    let store = open_on(&folder.path().join("store"), &disk);
    let bytes = sample(2, 300_000);
    let path = source(folder.path(), &bytes);
    disk.take_log();
    let stored = store.put_file(&path).unwrap();
    let log = disk.take_log();
    assert!(
        log.iter().any(|line| line == "clone_bytes") && !log.iter().any(|line| line.starts_with("write"))
    );
    assert_eq!((stored.digest, stored.bytes), (Digest::of(&bytes), 300_000));
    std::fs::File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    assert!(open(store.folder()).get(&stored.digest).unwrap().as_bytes() == bytes);
    assert_eq!(check_whole(store.folder()), 1);
}

#[test]
fn a_large_slice_is_put_once_whole_and_again_without_being_written() {
    let folder = quick_folder();
    let store = open(folder.path());
    let bytes = sample(3, (9 << 20) + 5);
    assert!(!store.put_bytes(&bytes).unwrap().was_present);
    assert!(store.put_bytes(&bytes).unwrap().was_present);
    assert!(open(folder.path()).get(&Digest::of(&bytes)).unwrap().as_bytes() == bytes);
    assert_eq!(check_whole(folder.path()), 1);
}

#[test]
fn a_large_slice_that_meets_a_failing_disk_is_not_visible() {
    let bytes = sample(4, 5 << 20);
    for at in 1.. {
        let folder = quick_folder();
        let disk = FaultyDisk::new(true);
        let store = open_on(folder.path(), &disk);
        disk.fail_at(at, Failing::Once(Errno::NOSPC));
        let result = store.put_bytes(&bytes);
        let Some(hit) = disk.hit() else {
            result.unwrap();
            assert!(at > 8);
            return;
        };
        if !matches!(hit, "open" | "sync_folder") {
            assert!(matches!(result, Err(PutError::Disk(DiskError::Full { .. }))), "{hit}: {result:?}");
            assert_eq!(check_whole(folder.path()), 0);
            disk.fail_at(0, Failing::Never);
            assert!(!store.put_bytes(&bytes).unwrap().was_present);
        }
    }
}
