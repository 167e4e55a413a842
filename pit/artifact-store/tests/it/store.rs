//! Putting and getting when nothing goes wrong, and the order in which the disk is asked.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use artifact_store::{Digest, Expected, GetError, PutError, Store, StoreOptions};

use crate::support::{FailingReader, FaultyDisk, check_whole, open, open_on, sample};

#[test]
fn what_was_put_in_any_way_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let lengths = [0, 1, 4096, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 3_000_000];
    for (seed, length) in lengths.into_iter().enumerate() {
        let seed = seed as u64 * 10;
        let of_bytes = sample(seed, length);
        assert_eq!(store.put_bytes(&of_bytes).unwrap().bytes, length as u64);

        let of_reader = sample(seed + 1, length);
        store.put_reader(of_reader.as_slice()).unwrap();

        let of_file = sample(seed + 2, length);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&of_file).unwrap();
        store.put_file(file.path()).unwrap();

        let of_writer = sample(seed + 3, length);
        let mut writer = store.writer().unwrap();
        for piece in of_writer.chunks(1 + length / 3) {
            writer.append(piece).unwrap();
        }
        assert_eq!(writer.bytes(), length as u64);
        writer.commit().unwrap();

        for bytes in [of_bytes, of_reader, of_file, of_writer] {
            let artifact = store.get(&Digest::of(&bytes)).unwrap();
            assert!(artifact.as_bytes() == bytes, "{length} bytes");
            assert_eq!((artifact.len(), artifact.is_empty()), (length as u64, length == 0));
            assert_eq!(std::fs::read(artifact.path().unwrap()).unwrap(), bytes);
        }
    }
    check_whole(folder.path());
}

#[test]
fn putting_again_stores_once_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bytes = sample(1, 10_000);
    assert!(!store.put_bytes(&bytes).unwrap().was_present);
    assert!(store.put_bytes(&bytes).unwrap().was_present);
    assert!(store.put_reader(bytes.as_slice()).unwrap().was_present);
    assert!(open(folder.path()).put_reader(bytes.as_slice()).unwrap().was_present);
    assert_eq!(check_whole(folder.path()), 1);
}

#[test]
fn files_are_for_reading_only_and_folders_for_the_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a/b/store");
    let store = open(&folder);
    let stored = store.put_bytes(b"x").unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let path = store.path_of(&stored.digest);
    assert_eq!(mode(&path), 0o400);
    for folder in [&*folder, &folder.join("objects"), path.parent().unwrap(), &folder.join("names")] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
}

#[test]
fn a_dropped_writer_and_a_broken_source_leave_nothing() {
    for has_nameless in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = open_on(folder.path(), &FaultyDisk::new(has_nameless));
        let mut writer = store.writer().unwrap();
        writer.append(&sample(1, 5000)).unwrap();
        drop(writer);
        let error = store.put_reader(FailingReader { bytes_left: 600_000 }).unwrap_err();
        assert!(matches!(error, PutError::Input { .. }), "{error:?}");
        let error = store.put_file(folder.path()).unwrap_err();
        assert!(matches!(error, PutError::Input { .. }), "{error:?}");
        let error = store.put_file(&folder.path().join("nowhere")).unwrap_err();
        assert!(matches!(error, PutError::Input { .. }), "{error:?}");
        assert_eq!(check_whole(folder.path()), 0);
        assert_eq!(store.list().count(), 0);
    }
}

#[test]
fn an_artifact_that_was_never_put_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put_bytes(b"x").unwrap();
    for result in [store.get(&Digest::of(b"y")).map(drop), store.verify(&Digest::of(b"y")).map(drop)] {
        assert!(matches!(result, Err(GetError::Absent { .. })), "{result:?}");
    }
}

#[test]
fn another_process_reads_through_the_descriptor_and_cannot_write_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bytes = sample(2, 100_000);
    let artifact = store.get(&store.put_bytes(&bytes).unwrap().digest).unwrap();
    // Twice: a descriptor with a shared position would be at its end the second time.
    for _ in 0..2 {
        let input = Stdio::from(artifact.try_clone_fd().unwrap());
        let output = Command::new("cat").stdin(input).output().unwrap();
        assert!(output.stdout == bytes);
    }
    let mut file = std::fs::File::from(artifact.try_clone_fd().unwrap());
    assert!(file.write_all(b"x").is_err());
}

#[test]
fn a_held_artifact_outlives_the_store_and_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bytes = sample(3, 100_000);
    let artifact = store.get(&store.put_bytes(&bytes).unwrap().digest).unwrap();
    drop(store);
    drop(folder);
    assert!(artifact.as_bytes() == bytes);
}

#[test]
fn more_artifacts_than_are_kept_open_are_all_delivered() {
    for open_artifacts_max in [0, 1, 3] {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions { open_artifacts_max, ..StoreOptions::default() };
        let store = Store::open(folder.path(), options).unwrap();
        let digests: Vec<_> =
            (0..10).map(|seed| store.put_bytes(&sample(seed, 100)).unwrap().digest).collect();
        for _ in 0..3 {
            for (seed, digest) in (0..).zip(&digests) {
                assert_eq!(store.get(digest).unwrap().as_bytes(), sample(seed, 100));
            }
        }
    }
}

#[test]
fn listing_names_each_artifact_once_with_length_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let before = SystemTime::now() - std::time::Duration::from_secs(5);
    let mut expected: Vec<_> = (0..40)
        .map(|length| {
            let stored = store.put_bytes(&sample(9, length)).unwrap();
            (stored.digest, stored.bytes)
        })
        .collect();
    // What does not belong here is passed over.
    std::fs::write(folder.path().join("objects/README"), "x").unwrap();
    let shard = store.path_of(&expected[0].0);
    std::fs::write(shard.with_file_name("note"), "x").unwrap();

    let mut listed: Vec<_> = store.list().map(Result::unwrap).collect();
    assert!(listed.iter().all(|one| one.modified > before && one.modified < SystemTime::now()));
    listed.sort_by_key(|one| one.digest);
    expected.sort_unstable();
    assert_eq!(listed.iter().map(|one| (one.digest, one.bytes)).collect::<Vec<_>>(), expected);

    let mut verified: Vec<_> =
        store.verify_all().map(|(digest, bytes)| (digest.unwrap(), bytes.unwrap())).collect();
    verified.sort_unstable();
    assert_eq!(verified, expected);
}

/// The promise is in the order: bytes durable before the name, the name durable before the acknowledgement.
#[test]
fn the_disk_is_asked_in_the_order_that_makes_a_put_durable() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(true);
    let store = open_on(folder.path(), &disk);
    let digest = Digest::of(b"x");
    let shard = &digest.to_string()[..2];
    let link = format!("link {shard}");
    let sync = format!("sync_folder {shard}");
    let open = "open objects";
    let make = format!("make_folder {shard}");

    disk.take_log();
    store.put_bytes(b"x").unwrap();
    let order =
        [open, "create_nameless tmp", "write", "sync_file", &make, &link, &sync, "sync_folder objects"];
    assert_eq!(disk.take_log(), order);

    // A second writer cannot know whether the first one has synced.
    store.put_bytes(b"x").unwrap();
    assert_eq!(disk.take_log(), [open, "sync_file", &sync]);
    store.put_reader(&b"x"[..]).unwrap();
    let order = ["create_nameless tmp", "write", "sync_file", &link, open, "sync_file", &sync];
    assert_eq!(disk.take_log(), order);

    store.set_name("x", &digest, Expected::Absent).unwrap();
    let floor = format!("open {}", folder.path().file_name().unwrap().to_str().unwrap());
    let order = [
        open,
        "open names",
        &floor,
        "create_named tmp",
        "write",
        "sync_file",
        "rename names",
        "sync_folder names",
    ];
    assert_eq!(disk.take_log(), order);

    // Another process does not know that the folder of the artifact is durable.
    let other = open_on(folder.path(), &disk);
    disk.take_log();
    other.put_bytes(b"x").unwrap();
    assert_eq!(disk.take_log().last().unwrap(), "sync_folder objects");

    store.get(&digest).unwrap();
    disk.take_log();
    let mut text = String::new();
    store.get(&digest).unwrap().as_bytes().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), disk.take_log().len()), ("x", 0), "a repeated get asks nothing of the disk");
}

/// What a receiver tries: to open the file behind its stdin anew for writing, or to change its mode first.
fn tries_to_write(artifact: &artifact_store::Artifact, user: Option<u32>) -> bool {
    use std::os::unix::process::CommandExt;
    let script = "chmod 600 /proc/self/fd/0; exec 3<>/proc/self/fd/0 && printf changed >&3";
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", script]).stdin(Stdio::from(artifact.try_clone_fd().unwrap())).stderr(Stdio::null());
    if let Some(user) = user {
        shell.uid(user).gid(user);
    }
    shell.status().unwrap().success()
}

#[test]
fn nobody_can_write_through_the_descriptor_of_sealed_memory_and_no_other_user_through_that_of_a_file() {
    let folder = crate::support::quick_folder();
    let store = open(folder.path());
    let packed = store.put_batch(&["packed", "too"]).unwrap().remove(0).digest;
    let ephemeral = store.put_ephemeral(b"ephemeral").unwrap();
    let stored = store.get(&store.put_bytes(b"stored").unwrap().digest).unwrap();
    for artifact in [&store.get(&packed).unwrap(), &ephemeral] {
        assert!(!tries_to_write(artifact, None), "not even its own user");
        assert_eq!(Digest::of(artifact.as_bytes()), artifact.digest());
    }
    // Becoming another user takes a privilege. What its own user can do to the file of the store is no promise.
    if rustix::process::geteuid().is_root() {
        assert!(!tries_to_write(&stored, Some(65_534)));
        assert_eq!(stored.as_bytes(), b"stored");
    } else {
        crate::support::report("skipped: only root can try it as another user");
    }
}
