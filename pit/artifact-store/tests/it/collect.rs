//! Collection: what nothing refers to goes, what anybody refers to stays, whatever others do meanwhile.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use artifact_store::{CollectError, Collected, Digest, Expected, GetError, NameError};

use crate::support::{
    Failing, FaultyDisk, check_whole, child, files_below, open, open_on, quick_folder, sample,
};

#[test]
fn only_what_nothing_refers_to_is_removed() {
    let folder = quick_folder();
    let store = open(folder.path());
    let [named, pinned, told, gone] = [b"named", b"pinne", b"told!", b"gone!"].map(|bytes| {
        let digest = store.put_bytes(bytes).unwrap().digest;
        drop(store.get(&digest).unwrap());
        digest
    });
    store.set_name("name", &named, Expected::Absent).unwrap();
    let pin = store.pin(&pinned).unwrap();
    let fresh = store.put_bytes(b"fresh").unwrap();

    let collected = store.collect(|digest| *digest == told).unwrap();
    let expected = Collected { removed: 1, removed_bytes: 5, pinned: 2, packs_rewritten: 0 };
    assert_eq!(collected, expected);
    for digest in [named, pinned, told, fresh.digest] {
        store.get(&digest).unwrap();
        open(folder.path()).get(&digest).unwrap();
    }
    assert!(matches!(store.get(&gone), Err(GetError::Absent { .. })), "what was kept open is forgotten too");
    let error = store.set_name("other", &gone, Expected::Absent).unwrap_err();
    assert!(matches!(error, NameError::NoArtifact { .. }), "{error:?}");
    assert!(matches!(store.pin(&gone), Err(GetError::Absent { .. })));

    drop((pin, fresh));
    store.remove_name("name", Expected::Version(1)).unwrap();
    assert_eq!(store.collect(|_| false).unwrap().removed, 4);
    assert_eq!(check_whole(folder.path()), 0);
    assert!(!store.put_bytes(b"gone!").unwrap().was_present, "what was collected can come again");
    assert_eq!(store.get(&gone).unwrap().as_bytes(), b"gone!");
}

#[test]
fn a_mapping_outlives_the_collection_of_its_artifact() {
    let folder = quick_folder();
    let store = open(folder.path());
    let bytes = sample(1, 100_000);
    let artifact = store.get(&store.put_bytes(&bytes).unwrap().digest).unwrap();
    assert_eq!(store.collect(|_| false).unwrap().removed, 1);
    assert!(artifact.as_bytes() == bytes);
}

/// Between finding a file and pinning it there is a moment for a collector.
#[test]
fn what_is_collected_while_it_is_being_pinned_is_neither_acknowledged_nor_named() {
    let batch = [b"one", b"two"];
    for (is_packed, bytes) in [(false, b"single".as_slice()), (true, b"one")] {
        let prepared = || {
            let folder = quick_folder();
            let disk = FaultyDisk::new(true);
            let store = open_on(folder.path(), &disk);
            store.put_bytes(b"single").unwrap();
            store.put_batch(&batch).unwrap();
            disk.fail_at(if is_packed { 2 } else { 1 }, Failing::Vanishing);
            (folder, disk, store)
        };
        let digest = Digest::of(bytes);
        let (folder, disk, store) = prepared();
        let stored = store.put_bytes(bytes).unwrap();
        assert!(!stored.was_present && disk.hit().is_some());
        assert_eq!(open(folder.path()).get(&digest).unwrap().as_bytes(), bytes);

        let (_folder, disk, store) = prepared();
        let error = store.set_name("name", &digest, Expected::Absent).unwrap_err();
        assert!(matches!(error, NameError::NoArtifact { .. }) && disk.hit().is_some(), "{error:?}");

        let (_folder, disk, store) = prepared();
        assert!(matches!(store.pin(&digest), Err(GetError::Absent { .. })) && disk.hit().is_some());
    }
}

#[test]
fn a_pack_is_rewritten_when_most_of_it_is_dead_and_removed_when_all_is() {
    let folder = quick_folder();
    let store = open(folder.path());
    let items: Vec<_> = (0..100).map(|seed| sample(seed, 1000)).collect();
    let stored = store.put_batch(&items).unwrap();
    let digests: Vec<_> = stored.iter().map(|one| one.digest).collect();
    assert_eq!(store.collect(|_| false).unwrap(), Collected { pinned: 1, ..Collected::default() });
    drop(stored);

    let keep = |kept: &[Digest]| {
        let kept = kept.to_vec();
        store.collect(|digest| kept.contains(digest)).unwrap()
    };
    assert_eq!(keep(&digests[..60]), Collected::default(), "not worth it");
    assert_eq!(store.list().count(), 100);
    let reader = open(folder.path());
    drop(reader.get(&digests[3]).unwrap());
    let collected = keep(&digests[..30]);
    assert_eq!((collected.removed, collected.removed_bytes, collected.packs_rewritten), (70, 70_000, 1));
    // A reader that knew the old pack finds the new one.
    for (digest, item) in digests.iter().zip(&items).take(30) {
        assert_eq!(reader.get(digest).unwrap().as_bytes(), item);
        assert_eq!(store.get(digest).unwrap().as_bytes(), item);
    }
    assert!(matches!(reader.get(&digests[50]), Err(GetError::Absent { .. })));
    assert_eq!(store.list().count(), 30);
    assert_eq!(keep(&[]).removed, 30);
    assert!(files_below(&folder.path().join("packs")).is_empty());
    assert!(!store.put_batch(&items).unwrap()[3].was_present);
}

#[test]
fn a_name_that_cannot_be_read_stops_a_collection() {
    let folder = quick_folder();
    let store = open(folder.path());
    store.put_bytes(b"x").unwrap();
    std::fs::write(folder.path().join("names/broken"), "what").unwrap();
    let error = store.collect(|_| false).unwrap_err();
    assert!(matches!(error, CollectError::Names { .. }), "{error:?}");
    assert_eq!(check_whole(folder.path()), 1);
}

#[test]
fn a_removed_name_never_begins_again_below_a_version_that_was_seen() {
    let folder = quick_folder();
    let store = open(folder.path());
    let digest = store.put_bytes(b"x").unwrap().digest;
    for expected in [Expected::Absent, Expected::Version(1), Expected::Version(2)] {
        store.set_name("a", &digest, expected).unwrap();
    }
    let error = store.remove_name("a", Expected::Version(2)).unwrap_err();
    assert!(matches!(error, NameError::Conflict { found: 3, .. }), "{error:?}");
    assert_eq!(store.remove_name("a", Expected::Version(3)).unwrap().unwrap().digest, digest);
    assert_eq!(store.remove_name("a", Expected::Anything).unwrap(), None);
    assert_eq!(store.resolve("a").unwrap(), None);
    let other = open(folder.path());
    assert_eq!(other.set_name("a", &digest, Expected::Absent).unwrap().version, 4);
    assert!(
        store.set_name("a", &digest, Expected::Version(3)).is_err(),
        "who saw the first life of the name"
    );
    // A damaged floor is reported, and nothing is guessed.
    let floor = folder.path().join("floor");
    std::fs::remove_file(&floor).unwrap();
    std::fs::write(&floor, "floor 1\n").unwrap();
    let error = store.set_name("b", &digest, Expected::Absent).unwrap_err();
    assert!(matches!(error, NameError::Corrupt { .. }), "{error:?}");
}

/// Of one writer; they end as soon as the collectors have had enough to do.
const ROUNDS_MAX: u64 = 5_000;

/// Threads put, batch, name and read while others collect without pause: no acknowledged and held artifact may be missing,
/// and no name may ever point to nothing.
#[test]
fn collectors_beside_writers_take_nothing_that_is_held_or_named() {
    let folder = quick_folder();
    let (is_over, removed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let collectors: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let store = open(folder.path());
                    while !is_over.load(Ordering::Relaxed) {
                        let collected = store.collect(|_| false).unwrap();
                        removed.fetch_add(collected.removed, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..3_u64)
            .map(|thread| {
                let (folder, removed) = (folder.path(), &removed);
                scope.spawn(move || {
                    let store = open(folder);
                    let name = format!("name-{thread}");
                    for round in 0..ROUNDS_MAX {
                        if round >= 150 && removed.load(Ordering::Relaxed) > 100 {
                            break;
                        }
                        // The same ones in all threads: one collects what the other is about to find present.
                        let single = store.put_bytes(&sample(round % 7, 300)).unwrap();
                        let items: Vec<_> = (0..5).map(|seed| sample(100 + round % 5 + seed, 200)).collect();
                        let batch = store.put_batch(&items).unwrap();
                        for stored in batch.iter().chain([&single]) {
                            store.verify(&stored.digest).unwrap();
                        }
                        let digest = if round % 2 == 0 { single.digest } else { batch[2].digest };
                        store.set_name(&name, &digest, Expected::Anything).unwrap();
                        drop((single, batch));
                        store.verify(&store.resolve(&name).unwrap().unwrap().digest).unwrap();
                    }
                })
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        collectors.into_iter().for_each(|collector| collector.join().unwrap());
        results.into_iter().for_each(|result| result.unwrap());
    });
    assert!(removed.into_inner() > 100, "the collectors found too little");
    let store = open(folder.path());
    store.collect(|_| false).unwrap();
    for thread in 0..3 {
        let named = store.resolve(&format!("name-{thread}")).unwrap().unwrap();
        store.verify(&named.digest).unwrap();
    }
    assert!(files_below(&folder.path().join("quarantine")).is_empty());
}

#[test]
fn what_another_process_holds_is_kept_until_that_process_is_dead() {
    let folder = quick_folder();
    let store = open(folder.path());
    let mut child = child("hold what was put", folder.path()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "held"), "the holder ended by itself");
    let held = Collected { pinned: 2, ..Collected::default() };
    assert_eq!(store.collect(|_| false).unwrap(), held, "a file and a pack");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.collect(|_| false).unwrap().removed, 3);
}
