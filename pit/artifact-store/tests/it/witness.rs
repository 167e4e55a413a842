//! What one process has verified another one believes, until the file is touched.

use std::os::unix::fs::PermissionsExt;

use artifact_store::{GetError, Store};

use crate::support::{FaultyDisk, open, open_on, quick_folder, sample};

/// How often a get of a store that was just opened reads the file.
fn reads_of_a_first_get(folder: &std::path::Path, digest: &artifact_store::Digest) -> usize {
    let disk = FaultyDisk::new(true);
    let store = open_on(folder, &disk);
    disk.take_log();
    let result = store.get(digest);
    let reads = disk.take_log().iter().filter(|line| line.starts_with("read_at")).count();
    if let Err(error) = result {
        assert!(matches!(error, GetError::Corrupt { .. }), "{error:?}");
    }
    reads
}

fn stored(store: &Store) -> artifact_store::Digest {
    store.put_bytes(&sample(1, 5000)).unwrap().digest
}

#[test]
fn what_was_hashed_when_it_was_written_is_not_hashed_to_be_read() {
    let folder = quick_folder();
    let digest = stored(&open(folder.path()));
    assert_eq!(reads_of_a_first_get(folder.path(), &digest), 0);
}

#[test]
fn without_the_witness_the_first_get_hashes_and_the_next_process_need_not() {
    let folder = quick_folder();
    let digest = stored(&open(folder.path()));
    let witness = folder.path().join("verified");
    let whole = std::fs::read(&witness).unwrap();
    let other_boot = [&whole[..20], b"00000000-0000-0000-0000-000000000000", &whole[56..]].concat();
    for damaged in [None, Some(&whole[..whole.len() - 1]), Some(&other_boot), Some(b"")] {
        std::fs::remove_file(&witness).unwrap();
        if let Some(damaged) = damaged {
            std::fs::write(&witness, damaged).unwrap();
        }
        assert!(reads_of_a_first_get(folder.path(), &digest) > 0, "{damaged:?}");
        // A witness out of order is begun anew only when it is full or of another boot; until then others hash too.
        if damaged.is_none_or(|damaged| damaged.len() != whole.len() - 1) {
            assert_eq!(reads_of_a_first_get(folder.path(), &digest), 0, "{damaged:?}");
        }
    }
}

#[test]
fn a_file_that_was_touched_is_hashed_again() {
    let folder = quick_folder();
    let store = open(folder.path());
    let digest = stored(&store);
    let path = store.path_of(&digest);
    // The same bytes, but who knows that.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(reads_of_a_first_get(folder.path(), &digest) > 0);
    assert_eq!(reads_of_a_first_get(folder.path(), &digest), 0);

    // Other bytes under the old time of writing: the change time cannot be set back.
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = sample(1, 5000);
    bytes[4000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert!(matches!(open(folder.path()).get(&digest), Err(GetError::Corrupt { .. })));
}

#[test]
fn damage_that_one_process_has_found_no_other_believes_away() {
    let folder = quick_folder();
    let store = open(folder.path());
    let digest = stored(&store);
    // A folder in the way: the damaged file cannot be moved aside.
    std::fs::create_dir(folder.path().join("quarantine").join(digest.to_string())).unwrap();
    let path = store.path_of(&digest);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, b"damaged").unwrap();
    for _ in 0..2 {
        assert!(matches!(open(folder.path()).get(&digest), Err(GetError::Corrupt { .. })));
        assert!(matches!(store.get(&digest), Err(GetError::Corrupt { .. })));
    }
}
