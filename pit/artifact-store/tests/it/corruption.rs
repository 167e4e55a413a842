//! Damage on the disk: detected, set aside, never delivered, and healed by the next put.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use artifact_store::{Digest, DiskError, GetError, PutError};

use crate::support::{check_whole, open, sample};

/// Changes a stored file as only somebody who means it can.
fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).unwrap();
}

#[test]
fn every_flipped_bit_is_detected_and_the_next_put_heals() {
    let folder = tempfile::tempdir().unwrap();
    let whole = sample(1, 24);
    let digest = open(folder.path()).put_bytes(&whole).unwrap().digest;
    for bit in 0..whole.len() * 8 {
        let store = open(folder.path());
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        overwrite(&store.path_of(&digest), &damaged);

        let error = store.get(&digest).unwrap_err();
        let GetError::Corrupt { kept_at, .. } = &error else { panic!("bit {bit}: {error:?}") };
        assert_eq!(std::fs::read(kept_at).unwrap(), damaged);
        assert!(kept_at.starts_with(folder.path().join("quarantine")));
        assert!(matches!(store.get(&digest), Err(GetError::Absent { .. })));

        assert!(!store.put_bytes(&whole).unwrap().was_present);
        assert_eq!(store.get(&digest).unwrap().as_bytes(), whole);
    }
    assert_eq!(check_whole(folder.path()), 1);
}

#[test]
fn a_file_of_the_wrong_length_or_kind_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let whole = sample(2, 5000);
    let digest = open(folder.path()).put_bytes(&whole).unwrap().digest;
    let longer = [whole.as_slice(), b"x"].concat();
    for damaged in [&whole[..0], &whole[..4999], &longer] {
        let store = open(folder.path());
        overwrite(&store.path_of(&digest), damaged);
        assert!(matches!(store.get(&digest), Err(GetError::Corrupt { .. })));
        store.put_bytes(&whole).unwrap();
    }
    let store = open(folder.path());
    let path = store.path_of(&digest);
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert!(
        matches!(store.get(&digest), Err(GetError::Corrupt { .. })),
        "a pipe neither blocks nor is delivered"
    );
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert!(
        matches!(store.get(&digest), Err(GetError::Disk(DiskError::Io { .. }))),
        "a link is not followed"
    );
}

#[test]
fn a_put_that_finds_a_damaged_copy_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let whole = sample(3, 5000);
    let digest = open(folder.path()).put_bytes(&whole).unwrap().digest;
    for put_in_pieces in [false, true] {
        let store = open(folder.path());
        overwrite(&store.path_of(&digest), &sample(4, 5000));
        let stored = if put_in_pieces { store.put_reader(&whole[..]) } else { store.put_bytes(&whole) };
        assert!(!stored.unwrap().was_present);
        assert_eq!(store.get(&digest).unwrap().as_bytes(), whole);
        assert_eq!(check_whole(folder.path()), 1);
    }
}

#[test]
fn verifying_detects_damage_that_came_after_the_first_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let digests: Vec<_> = (0..20).map(|seed| store.put_bytes(&sample(seed, 3000)).unwrap().digest).collect();
    for digest in &digests {
        store.get(digest).unwrap();
    }
    let damaged = [digests[3], digests[11]];
    for digest in &damaged {
        overwrite(&store.path_of(digest), b"damaged");
    }
    let mut bad: Vec<_> =
        store.verify_all().filter(|(_, result)| result.is_err()).filter_map(|(digest, _)| digest).collect();
    bad.sort_unstable_by_key(|digest| digests.iter().position(|other| other == digest));
    assert_eq!(bad, damaged);
    for digest in &damaged {
        assert!(
            matches!(store.get(digest), Err(GetError::Absent { .. })),
            "what was remembered is forgotten"
        );
    }
    assert_eq!(check_whole(folder.path()), 18);
}

#[test]
fn a_damaged_copy_that_cannot_be_moved_is_neither_delivered_nor_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let whole = sample(5, 100);
    let digest = open(folder.path()).put_bytes(&whole).unwrap().digest;
    let store = open(folder.path());
    overwrite(&store.path_of(&digest), b"damaged");
    // A folder in the way: a file cannot be renamed over it.
    std::fs::create_dir(folder.path().join("quarantine").join(digest.to_string())).unwrap();
    let error = store.get(&digest).unwrap_err();
    assert!(
        matches!(&error, GetError::Corrupt { kept_at, .. } if *kept_at == store.path_of(&digest)),
        "{error:?}"
    );
    for result in [store.put_bytes(&whole), store.put_reader(&whole[..])] {
        assert!(matches!(result, Err(PutError::Obstructed { .. })), "{result:?}");
    }
    assert_eq!(Digest::of(b"damaged"), Digest::of(&std::fs::read(store.path_of(&digest)).unwrap()));
}
