//! Many small artifacts at once: one file, few syncs, and everything that single ones have.

use std::io::Read;
use std::path::{Path, PathBuf};

use artifact_store::{Digest, DiskError, Expected, GetError, PACKED_BYTES_MAX, PutError, RoomLimit};
use rustix::io::Errno;

use crate::support::{Failing, FaultyDisk, check_whole, files_below, open, open_on, quick_folder, sample};

pub(crate) fn packs(folder: &Path) -> Vec<PathBuf> {
    files_below(&folder.join("packs")).into_keys().map(|name| folder.join("packs").join(name)).collect()
}

pub(crate) fn smalls(seeds: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    seeds.map(|seed| sample(seed, usize::try_from(seed % 300).unwrap())).collect()
}

pub(crate) fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn ten_thousand_small_ones_are_one_file_and_two_syncs() {
    let folder = quick_folder();
    let disk = FaultyDisk::new(true);
    let store = open_on(folder.path(), &disk);
    let items: Vec<_> = (0..10_000_u32).map(|number| number.to_le_bytes()).collect();
    disk.take_log();
    let stored = store.put_batch(&items).unwrap();
    let log = disk.take_log();
    assert_eq!(
        log.iter().filter(|line| line.starts_with("sync")).collect::<Vec<_>>(),
        ["sync_file", "sync_folder packs"]
    );
    let order: Vec<_> = log.iter().filter(|line| !line.starts_with("open")).collect();
    assert_eq!(order, ["create_nameless tmp", "write", "sync_file", "link packs", "sync_folder packs"]);
    assert_eq!((packs(folder.path()).len(), check_whole(folder.path())), (1, 0));

    let other = open(folder.path());
    for (item, stored) in items.iter().zip(&stored).step_by(97) {
        assert!(!stored.was_present);
        assert_eq!(other.get(&stored.digest).unwrap().as_bytes(), item);
    }
    assert_eq!(other.list().count(), 10_000);
    assert_eq!(other.usage().packed_artifacts, 10_000);
}

#[test]
fn a_batch_answers_in_order_whatever_is_large_twice_or_there_already() {
    let folder = quick_folder();
    let store = open(folder.path());
    let (limit, large) = (sample(1, PACKED_BYTES_MAX), sample(2, PACKED_BYTES_MAX + 1));
    store.put_bytes(b"single").unwrap();
    let items: [&[u8]; 6] = [b"", b"single", &large, b"small", &limit, b"small"];
    let stored = store.put_batch(&items).unwrap();
    let present: Vec<_> = stored.iter().map(|one| one.was_present).collect();
    assert_eq!(present, [false, true, false, false, false, false]);
    assert_eq!((packs(folder.path()).len(), check_whole(folder.path())), (1, 2));

    let again = open(folder.path()).put_batch(&items).unwrap();
    for ((stored, again), item) in stored.iter().zip(&again).zip(items) {
        assert_eq!((again.digest, again.bytes), (Digest::of(item), item.len() as u64));
        assert_eq!(stored.digest, again.digest);
        assert!(again.was_present);
        assert_eq!(store.get(&again.digest).unwrap().as_bytes(), item);
    }
    assert_eq!(packs(folder.path()).len(), 1, "nothing is written twice");
    assert!(store.put_bytes(b"small").unwrap().was_present);
    assert!(store.put_batch(&[""; 0]).unwrap().is_empty());
    assert!(!store.put_batch(&["alone"]).unwrap()[0].was_present);
    assert_eq!((packs(folder.path()).len(), check_whole(folder.path())), (1, 3), "one alone is no pack");
}

#[test]
fn a_packed_artifact_is_named_listed_verified_and_handed_on_like_any_other() {
    let folder = quick_folder();
    let store = open(folder.path());
    let items = smalls(1..40);
    let stored = store.put_batch(&items).unwrap();
    let digest = stored[7].digest;
    store.set_name("packed", &digest, Expected::Absent).unwrap();
    let other = open(folder.path());
    let artifact = other.get(&other.resolve("packed").unwrap().unwrap().digest).unwrap();
    assert_eq!((artifact.as_bytes(), artifact.path()), (items[7].as_slice(), None));
    let mut read = Vec::new();
    let mut file = std::fs::File::from(artifact.try_clone_fd().unwrap());
    file.read_to_end(&mut read).unwrap();
    assert_eq!(read, items[7]);
    assert!(std::io::Write::write_all(&mut file, b"x").is_err());
    assert_eq!(other.verify(&digest).unwrap(), items[7].len() as u64);
    assert_eq!(other.verify_all().filter(|(_, result)| result.is_ok()).count(), items.len());

    // As a file of its own too, for who wants a path: then it is listed once.
    assert!(!store.put_reader(items[7].as_slice()).unwrap().was_present);
    assert!(store.path_of(&digest).exists());
    assert_eq!(store.list().count(), items.len());
}

#[test]
fn a_damaged_one_is_set_aside_alone_and_the_next_put_heals() {
    let folder = quick_folder();
    let items = smalls(100..120);
    let digests: Vec<_> =
        open(folder.path()).put_batch(&items).unwrap().into_iter().map(|one| one.digest).collect();
    let pack = packs(folder.path()).remove(0);
    // The last byte of the last one.
    rewrite(&pack, |bytes| *bytes.last_mut().unwrap() ^= 1);

    let store = open(folder.path());
    let bad = digests.len() - 1;
    let error = store.get(&digests[bad]).unwrap_err();
    let GetError::Corrupt { kept_at, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*kept_at, folder.path().join("quarantine").join(digests[bad].to_string()));
    assert_ne!(std::fs::read(kept_at).unwrap(), items[bad]);
    assert!(matches!(store.get(&digests[bad]), Err(GetError::Absent { .. })));
    for (digest, item) in digests.iter().zip(&items).take(bad) {
        assert_eq!(store.get(digest).unwrap().as_bytes(), item);
    }
    assert!(!store.put_bytes(&items[bad]).unwrap().was_present);
    assert_eq!(open(folder.path()).get(&digests[bad]).unwrap().as_bytes(), items[bad]);
}

#[test]
fn any_operation_of_a_batch_may_fail_and_the_store_stays_whole() {
    let items = smalls(1..30);
    for failing in [
        Failing::Once(Errno::NOSPC),
        Failing::Once(Errno::IO),
        Failing::Torn(Errno::NOSPC),
        Failing::Crash,
        Failing::ShortWrites,
    ] {
        for at in 1.. {
            let folder = quick_folder();
            let disk = FaultyDisk::new(true);
            let store = open_on(folder.path(), &disk);
            disk.fail_at(at, failing);
            let result = store.put_batch(&items);
            let Some(hit) = disk.hit() else {
                result.unwrap();
                assert!(at > if failing == Failing::ShortWrites { 1 } else { 4 }, "{failing:?}");
                break;
            };
            if let (Err(error), Failing::Once(Errno::NOSPC) | Failing::Torn(_)) = (&result, failing)
                && !hit.starts_with("open")
                && hit != "sync_folder"
            {
                let is_room = matches!(error, PutError::Disk(DiskError::Full { shortage, .. }) if shortage.limit == RoomLimit::Disk);
                assert!(is_room, "{hit}: {error:?}");
            }
            if matches!(failing, Failing::Once(_)) && hit == "sync_folder" {
                assert!(matches!(result, Err(PutError::Disk(DiskError::Poisoned { .. }))), "{result:?}");
            }
            // The same store goes on once there is room, unless it has said that it does not.
            disk.fail_at(0, Failing::Never);
            if !store.usage().is_poisoned {
                store.put_batch(&items).unwrap();
            }
            let after = open(folder.path());
            let found: Vec<_> = items.iter().map(|item| after.get(&Digest::of(item))).collect();
            let whole = found.iter().zip(&items).filter(|(found, item)| {
                found.as_ref().is_ok_and(|found| found.as_bytes() == item.as_slice())
            });
            let whole = whole.count();
            let is_expected = if store.usage().is_poisoned {
                whole == 0 || whole == items.len()
            } else {
                whole == items.len()
            };
            assert!(is_expected, "{hit}: {whole} of {}", items.len());
            assert!(files_below(&folder.path().join("quarantine")).is_empty());
        }
    }
}

#[test]
fn putting_a_batch_again_costs_one_descriptor_and_two_syncs() {
    let folder = quick_folder();
    let items: Vec<_> = (0..3_000_u32).map(|number| number.to_le_bytes()).collect();
    open(folder.path()).put_batch(&items).unwrap();
    let disk = FaultyDisk::new(true);
    let store = open_on(folder.path(), &disk);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    disk.take_log();
    let before = descriptors();
    let stored = store.put_batch(&items).unwrap();
    // Other tests open and close files beside this one.
    assert!(descriptors() < before + 1_000, "{} more descriptors", descriptors() - before);
    assert!(stored.iter().all(|one| one.was_present));
    let log = disk.take_log();
    assert!(!log.iter().any(|line| line.starts_with("write")));
    assert_eq!(
        log.iter().filter(|line| line.starts_with("sync")).collect::<Vec<_>>(),
        ["sync_file", "sync_folder packs"]
    );
}
