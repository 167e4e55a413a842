//! Several threads and several processes on one folder.

use std::sync::Barrier;

use artifact_store::Expected;

use crate::support::{assert_all_checked, check_whole, child, open, sample};

#[test]
fn processes_share_a_folder_without_losing_an_artifact_or_an_update() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let children: Vec<_> = (0..3).map(|_| child("put beside others", &path).spawn().unwrap()).collect();
    for child in children {
        assert_all_checked(&child.wait_with_output().unwrap());
    }
    // 10 artifacts in common, and of each process 40 of its own, each of which counted the name up once.
    assert_eq!(check_whole(&path), 10 + 3 * 40);
    assert_eq!(open(&path).resolve("counter").unwrap().unwrap().version, 3 * 40);
}

#[test]
fn of_many_writers_of_one_artifact_exactly_one_stores_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for round in 0..20 {
        let bytes = sample(round, 30_000);
        let barrier = Barrier::new(4);
        let fresh: usize = std::thread::scope(|scope| {
            let put = || {
                barrier.wait();
                usize::from(!store.put_reader(bytes.as_slice()).unwrap().was_present)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(put)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(fresh, 1);
    }
    assert_eq!(check_whole(folder.path()), 20);
}

/// Several find the same damage while others put the artifact again: the sound copy must win.
#[test]
fn a_sound_copy_is_never_moved_to_quarantine() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = sample(1, 200_000);
    let digest = open(folder.path()).put_bytes(&bytes).unwrap().digest;
    for _ in 0..20 {
        let path = open(folder.path()).path_of(&digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, sample(2, 200_000)).unwrap();
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (barrier, bytes, folder) = (&barrier, &bytes, folder.path());
                scope.spawn(move || {
                    let store = open(folder);
                    barrier.wait();
                    if thread < 2 {
                        store.put_bytes(bytes).unwrap();
                        assert!(
                            store.get(&digest).unwrap().as_bytes() == bytes,
                            "an acknowledged artifact is gone"
                        );
                    } else if let Ok(artifact) = store.get(&digest) {
                        assert!(artifact.as_bytes() == bytes);
                    }
                });
            }
        });
        assert!(open(folder.path()).get(&digest).unwrap().as_bytes() == bytes);
    }
    assert_eq!(check_whole(folder.path()), 1);
}

#[test]
fn a_reader_sees_a_name_whole_while_it_is_being_set() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let digests: Vec<_> = (0..8).map(|seed| store.put_bytes(&sample(seed, 50)).unwrap().digest).collect();
    store.set_name("name", &digests[1], Expected::Absent).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for version in 2..100 {
                store.set_name("name", &digests[version % 8], Expected::Anything).unwrap();
            }
        });
        let mut last = 0;
        while !writer.is_finished() {
            let named = store.resolve("name").unwrap().unwrap();
            assert!(named.version >= last, "a version went back");
            assert_eq!(named.digest, digests[usize::try_from(named.version).unwrap() % 8]);
            last = named.version;
        }
    });
}
