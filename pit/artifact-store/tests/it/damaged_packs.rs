//! A damaged pack is seen, takes nothing along that is whole, and is replaced.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use artifact_store::{Digest, Expected, GetError, Store, VerifyError};
use rustix::io::Errno;

use crate::batch::{packs, rewrite};
use crate::support::{Failing, FaultyDisk, files_below, open, open_on, quick_folder, sample};

const ITEMS: usize = 5;
/// Head and index of a pack of so many.
const BEGIN: usize = 64 + ITEMS * 36;
/// What a record has before its bytes.
const RECORD_HEAD: usize = 48;

fn items() -> Vec<Vec<u8>> {
    (0..ITEMS).map(|seed| sample(seed as u64 + 1, 10 + seed * 7)).collect()
}

fn digests(items: &[Vec<u8>]) -> BTreeSet<Digest> {
    items.iter().map(|item| Digest::of(item)).collect()
}

/// A store with one pack, in which the first and the last artifact are named; its pack is changed then.
fn damaged(change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let folder = quick_folder();
    let items = items();
    let store = open(folder.path());
    store.put_batch(&items).unwrap();
    for (name, item) in [("first", &items[0]), ("last", &items[ITEMS - 1])] {
        store.set_name(name, &Digest::of(item), Expected::Absent).unwrap();
    }
    drop(store);
    rewrite(&packs(folder.path())[0], change);
    folder
}

/// What an audit tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    sound: BTreeSet<Digest>,
    lost: BTreeSet<Digest>,
    dangling: BTreeSet<String>,
    unnamed: usize,
}

fn audit(store: &Store) -> Told {
    let mut told = Told::default();
    for (digest, result) in store.verify_all() {
        let is_new = match result {
            Ok(_) => told.sound.insert(digest.unwrap()),
            Err(VerifyError::Artifact(GetError::Corrupt { digest: lost, kept_at })) => {
                assert!(digest == Some(lost) && kept_at.exists());
                told.lost.insert(lost)
            }
            Err(VerifyError::Artifact(GetError::LostInPack { kept_at })) => {
                told.unnamed += usize::from(kept_at.exists());
                true
            }
            Err(VerifyError::Dangling { name, .. }) => told.dangling.insert(name),
            Err(error) => panic!("{error:?}"),
        };
        assert!(is_new, "told twice: {digest:?}");
    }
    told
}

/// What a list tells, in which names do not occur.
fn listed(store: &Store) -> Told {
    let mut told = Told::default();
    for listed in store.list() {
        match listed {
            Ok(listed) => assert!(told.sound.insert(listed.digest)),
            Err(GetError::Corrupt { digest, .. }) => assert!(told.lost.insert(digest)),
            Err(GetError::LostInPack { .. }) => told.unnamed += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    told
}

/// All of them are delivered, by a process that has seen nothing yet.
fn check_delivered<'a>(folder: &Path, sound: impl IntoIterator<Item = &'a Vec<u8>>) {
    let store = open(folder);
    for item in sound {
        assert_eq!(store.get(&Digest::of(item)).unwrap().as_bytes(), item);
    }
}

#[test]
fn with_any_byte_of_its_head_damaged_a_pack_loses_nothing() {
    let items = items();
    for at in 0..BEGIN {
        let folder = damaged(|pack| pack[at] ^= 0xa5);
        let before = packs(folder.path());
        check_delivered(folder.path(), &items);
        let told = audit(&open(folder.path()));
        assert_eq!(told, Told { sound: digests(&items), ..Told::default() }, "byte {at}");
        assert_eq!(listed(&open(folder.path())), told, "byte {at}");
        // It was replaced, and what it was is kept.
        let after = packs(folder.path());
        assert!(after.len() == 1 && after != before, "byte {at}");
        let kept = format!("pack-{}", before[0].file_name().unwrap().to_str().unwrap());
        assert!(files_below(&folder.path().join("quarantine")).keys().all(|name| name.ends_with(&kept)));
    }
}

#[test]
fn a_pack_cut_off_anywhere_keeps_what_is_whole_and_tells_what_is_lost() {
    let items = items();
    let whole = BEGIN + items.iter().map(|item| RECORD_HEAD + item.len()).sum::<usize>();
    for length in 0..whole {
        for is_head_damaged in [false, true] {
            let folder = damaged(|pack| {
                assert_eq!(pack.len(), whole);
                pack.truncate(length);
                if let Some(byte) = pack.get_mut(2).filter(|_| is_head_damaged) {
                    *byte ^= 1;
                }
            });
            let mut end = BEGIN;
            let there = items.iter().take_while(|item| {
                end += RECORD_HEAD + item.len();
                end <= length
            });
            let there = there.count();
            check_delivered(folder.path(), &items[..there]);
            let told = audit(&open(folder.path()));
            assert_eq!(told.sound, digests(&items[..there]), "cut at {length}");
            let all: BTreeSet<_> = told.lost.iter().chain(&told.sound).copied().collect();
            if length >= BEGIN && !is_head_damaged {
                // The index is there: every loss has a name.
                assert_eq!((all, told.unnamed), (digests(&items), 0), "cut at {length}");
            } else {
                // Silent about nothing: what has no name of its own is told with its pack or by the name that misses it.
                assert!(all == digests(&items) || told.unnamed == 1, "cut at {length}: {told:?}");
                let misses = |name: &str, at: usize| {
                    there <= at
                        && !told.lost.contains(&Digest::of(&items[at]))
                        && !told.dangling.contains(name)
                };
                assert!(!misses("first", 0) && !misses("last", ITEMS - 1), "cut at {length}: {told:?}");
            }
            assert_eq!(audit(&open(folder.path())), told, "and is told again by the next process");
            let list = listed(&open(folder.path()));
            assert_eq!((list.sound, list.lost, list.unnamed), (told.sound, told.lost, told.unnamed));

            // Put again, nothing is missing; only what nobody can name is never known to be there again.
            open(folder.path()).put_batch(&items).unwrap();
            let healed = audit(&open(folder.path()));
            let expected = Told { sound: digests(&items), unnamed: told.unnamed, ..Told::default() };
            assert_eq!(healed, expected, "cut at {length}");
        }
    }
}

#[test]
fn damage_in_the_middle_costs_the_artifact_that_it_hits() {
    let items = items();
    let third = BEGIN + 2 * RECORD_HEAD + items[0].len() + items[1].len();
    let others = digests(&[&items[..2], &items[3..]].concat());
    for at in third..third + RECORD_HEAD + items[2].len() {
        for is_head_damaged in [false, true] {
            let folder = damaged(|pack| {
                pack[at] ^= 0x10;
                pack[20] ^= u8::from(is_head_damaged);
            });
            let is_in_bytes = at >= third + RECORD_HEAD;
            let told = audit(&open(folder.path()));
            let mut expected = Told { sound: others.clone(), ..Told::default() };
            if is_in_bytes {
                expected.lost.insert(Digest::of(&items[2]));
            } else if is_head_damaged {
                expected.unnamed = 1;
            } else {
                expected.sound = digests(&items);
            }
            assert_eq!(told, expected, "byte {at}, {is_head_damaged}");
            assert_eq!(audit(&open(folder.path())).lost, told.lost, "byte {at}, {is_head_damaged}");
        }
    }
}

/// Garbage of all sizes in place of a pack: nothing of it is delivered, and that something was lost is not kept silent.
#[test]
fn a_pack_of_which_nothing_is_left_is_told() {
    for bytes in [vec![], b"symphony pack 2\n".to_vec(), vec![0; 500], sample(3, 5_000)] {
        let folder = damaged(|pack| *pack = bytes);
        let told = audit(&open(folder.path()));
        let dangling = ["first", "last"].map(str::to_owned).into();
        assert_eq!(told, Told { dangling, unnamed: 1, ..Told::default() });
        assert_eq!(audit(&open(folder.path())), told);
        // Whoever accepts the loss says so by removing what is kept, and the names.
        let store = open(folder.path());
        for name in ["first", "last"] {
            store.remove_name(name, Expected::Version(1)).unwrap();
        }
        for kept in files_below(&folder.path().join("quarantine")).into_keys() {
            std::fs::remove_file(folder.path().join("quarantine").join(kept)).unwrap();
        }
        assert_eq!(audit(&open(folder.path())), Told::default());
    }
}

#[test]
fn a_damaged_pack_that_somebody_pins_stays_until_he_lets_go() {
    let items = items();
    let folder = damaged(|_| {});
    let holder = open(folder.path());
    let pin = holder.pin(&Digest::of(&items[1])).unwrap();
    let pack = packs(folder.path()).remove(0);
    rewrite(&pack, |pack| pack[70] ^= 1);
    for _ in 0..2 {
        let store = open(folder.path());
        assert_eq!(audit(&store).sound, digests(&items));
        assert_eq!(store.collect(|_| false).unwrap().removed, 0);
        assert!(pack.exists());
    }
    drop(pin);
    assert_eq!(audit(&open(folder.path())), Told { sound: digests(&items), ..Told::default() });
    assert!(!pack.exists());
}

#[test]
fn whatever_fails_while_a_pack_is_mended_what_is_whole_stays_readable_and_no_loss_is_forgotten() {
    let items = items();
    let all = digests(&items);
    let cut = |pack: &mut Vec<u8>| {
        pack.pop();
        pack[33] ^= 1;
    };
    let mut attempts = 0;
    for failing in [Failing::Once(Errno::NOSPC), Failing::Once(Errno::IO), Failing::Crash] {
        for at in 1.. {
            let folder = damaged(cut);
            let disk = FaultyDisk::new(at % 2 == 0);
            let store = open_on(folder.path(), &disk);
            disk.fail_at(at, failing);
            let found = store.get(&Digest::of(&items[1]));
            let Some(hit) = disk.hit() else {
                found.unwrap();
                break;
            };
            attempts += 1;
            disk.fail_at(0, Failing::Never);
            if failing != Failing::Crash {
                for item in &items[..ITEMS - 1] {
                    assert_eq!(store.get(&Digest::of(item)).unwrap().as_bytes(), item, "{hit} at {at}");
                }
                let told = audit(&store);
                assert_eq!(
                    (told.lost, told.sound.len()),
                    ([Digest::of(&items[4])].into(), 4),
                    "{hit} at {at}"
                );
            }
            drop(store);
            let told = audit(&open(folder.path()));
            assert_eq!(told.lost, [Digest::of(&items[4])].into(), "{hit} at {at}");
            assert_eq!(told.sound, all.iter().filter(|one| !told.lost.contains(one)).copied().collect());
            assert_eq!(packs(folder.path()).len(), 1, "{hit} at {at}: replaced once");
        }
    }
    assert!(attempts > 30, "only {attempts}");
}

#[test]
fn a_pack_that_cannot_be_read_for_a_moment_is_not_given_up() {
    let items = items();
    let folder = damaged(|_| {});
    let before = packs(folder.path());
    let disk = FaultyDisk::new(true);
    for at in 1..5 {
        let store = open_on(folder.path(), &disk);
        disk.fail_at(at, Failing::Once(Errno::IO));
        let _found = store.get(&Digest::of(&items[0]));
        disk.fail_at(0, Failing::Never);
        assert_eq!(audit(&store).sound, digests(&items));
    }
    // For longer than a moment: what cannot be read is told, what can be is delivered, and puts go on.
    let inode = std::fs::metadata(&before[0]).unwrap().ino();
    disk.make_unreadable(Some((inode, 0..64)));
    let store = open_on(folder.path(), &disk);
    let told = audit(&store);
    assert_eq!((told.sound.len(), told.lost.len(), told.unnamed), (0, 0, 1), "all lies in one sector");
    store.put_bytes(b"goes on").unwrap();
    disk.make_unreadable(None);
    assert_eq!(audit(&store).sound.len(), ITEMS + 1, "the same store reads it when it can be read");
    assert_eq!(packs(folder.path()), before);
    assert!(files_below(&folder.path().join("quarantine")).is_empty());
}

#[test]
fn a_pack_that_cannot_be_read_takes_no_other_along() {
    let folder = quick_folder();
    let others: Vec<_> = (100..110).map(|seed| sample(seed, 5_000)).collect();
    for batch in others.chunks(2) {
        open(folder.path()).put_batch(batch).unwrap();
    }
    let disk = FaultyDisk::new(true);
    for pack in packs(folder.path()) {
        disk.make_unreadable(Some((std::fs::metadata(&pack).unwrap().ino(), 0..8192)));
        let store = open_on(folder.path(), &disk);
        let had = others.iter().filter(|item| store.get(&Digest::of(item)).is_ok()).count();
        assert!(had >= 8, "{had}");
    }
}

/// Packs of the first layout have no records; their index is all there is, and is read as it was.
#[test]
fn a_pack_without_records_is_read_and_loses_only_what_its_index_has_lost() {
    let items = items();
    let bare = |pack: &mut Vec<u8>| {
        let mut head = pack[..BEGIN].to_vec();
        head[14] = b'1';
        head[24..32].copy_from_slice(&(items.iter().map(Vec::len).sum::<usize>() as u64).to_le_bytes());
        let check = Digest::of(&[&head[..32], &head[64..]].concat());
        head[32..64].copy_from_slice(check.as_bytes());
        *pack = [head, items.concat()].concat();
    };
    let folder = damaged(bare);
    let before = packs(folder.path());
    assert_eq!(audit(&open(folder.path())), Told { sound: digests(&items), ..Told::default() });
    assert_eq!(packs(folder.path()), before, "it is none that has to be mended");
    // The third entry's digest: its bytes belong to nobody then.
    let folder = damaged(|pack| {
        bare(pack);
        pack[64 + 2 * 36] ^= 1;
    });
    let told = audit(&open(folder.path()));
    assert_eq!((told.sound.len(), told.unnamed), (4, 1));
}
