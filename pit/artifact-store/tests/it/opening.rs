//! Opening: new, again, at once, interrupted, foreign, newer.

use std::sync::{Arc, Barrier};

use artifact_store::{DiskError, Expected, OpenError, Store, StoreOptions};

use crate::crash_states::to_format_1;
use crate::support::{Failing, FaultyDisk, check_whole, open, open_on, sample};

fn error_of(folder: &std::path::Path) -> OpenError {
    Store::open(folder, StoreOptions::default()).unwrap_err()
}

#[test]
fn a_folder_that_holds_something_else_is_refused_and_untouched() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("diary.txt"), "mine").unwrap();
    let error = error_of(folder.path());
    assert!(matches!(&error, OpenError::NotAStore { found, .. } if found == "diary.txt"), "{error:?}");
    assert!(error.to_string().contains("is not an artifact store"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("format"), "something else\n").unwrap();
    let error = error_of(folder.path());
    assert!(matches!(&error, OpenError::NotAStore { found, .. } if found == "format"), "{error:?}");

    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(error_of(file.path()), OpenError::Disk(DiskError::Io { .. })));
}

#[test]
fn a_newer_format_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).put_bytes(b"x").unwrap();
    let format = folder.path().join("format");
    std::fs::remove_file(&format).unwrap();
    std::fs::write(&format, "symphony artifact-store format 4\n").unwrap();
    let error = error_of(folder.path());
    assert!(matches!(error, OpenError::NewerFormat { found: 4, known: 3, .. }), "{error:?}");
}

#[test]
fn a_store_of_the_first_format_is_upgraded_once_and_keeps_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let digest = store.put_bytes(b"old").unwrap().digest;
    store.set_name("name", &digest, Expected::Absent).unwrap();
    drop(store);
    to_format_1(folder.path());

    let store = open(folder.path());
    assert_eq!(store.open_report().upgraded_from, Some(1));
    assert_eq!(store.get(&digest).unwrap().as_bytes(), b"old");
    assert_eq!(store.resolve("name").unwrap().unwrap().version, 1);
    store.put_batch(&["a", "b"]).unwrap();
    let format = std::fs::read_to_string(folder.path().join("format")).unwrap();
    assert_eq!(format, "symphony artifact-store format 3\n");
    assert_eq!(open(folder.path()).open_report().upgraded_from, None);
}

#[test]
fn the_root_folder_of_a_file_system_can_be_a_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lost+found")).unwrap();
    open(folder.path()).put_bytes(b"x").unwrap();
    assert_eq!(check_whole(folder.path()), 1);
}

#[test]
fn many_may_create_one_store_at_once() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/store");
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (path, barrier) = (&path, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let stored = open(path).put_bytes(&sample(seed, 100)).unwrap();
                    open(path).get(&stored.digest).unwrap();
                });
            }
        });
        assert_eq!(check_whole(&path), 4);
    }
}

#[test]
fn a_creation_interrupted_anywhere_is_completed_by_the_next_opener() {
    for has_nameless in [true, false] {
        let mut interrupted = 0;
        for at in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store");
            let disk = FaultyDisk::new(has_nameless);
            disk.fail_at(at, Failing::Crash);
            let options = StoreOptions { disk: Arc::clone(&disk) as Arc<_>, ..StoreOptions::default() };
            let result = Store::open(&path, options);
            if disk.hit().is_none() {
                result.unwrap();
                break;
            }
            interrupted += 1;
            drop(result);
            open(&path).put_bytes(b"x").unwrap();
            assert_eq!(check_whole(&path), 1);
        }
        assert!(interrupted >= 8, "only {interrupted} operations were interrupted");
    }
}

/// The format vouches for the layout, so it comes last, and after the layout is durable.
#[test]
fn a_new_store_is_made_durable_before_its_format_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(true);
    let parent = format!("sync_folder {}", folder.path().file_name().unwrap().to_str().unwrap());
    open_on(&folder.path().join("store"), &disk);
    let order = [
        "make_folder store",
        &parent,
        "open store",
        "make_folder objects",
        "make_folder tmp",
        "make_folder names",
        "make_folder quarantine",
        "make_folder packs",
        "sync_folder store",
        "create_nameless tmp",
        "write",
        "sync_file",
        "link store",
        "sync_folder store",
    ];
    assert_eq!(disk.take_log(), order);
    open_on(&folder.path().join("store"), &disk);
    let changing = disk.take_log().into_iter().filter(|line| !line.starts_with("make_folder"));
    assert_eq!(changing.collect::<Vec<_>>(), ["open store", "read_at"], "opening again changes nothing");
}

#[test]
fn the_writer_of_a_living_process_is_not_swept() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(false);
    let store = open_on(folder.path(), &disk);
    let mut writer = store.writer().unwrap();
    writer.append(b"he").unwrap();
    assert_eq!(open(folder.path()).open_report().swept, 0);
    writer.append(b"llo").unwrap();
    let stored = writer.commit().unwrap();
    assert_eq!(open(folder.path()).get(&stored.digest).unwrap().as_bytes(), b"hello");
    assert_eq!(check_whole(folder.path()), 1);
}
