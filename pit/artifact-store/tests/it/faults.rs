//! Each operation on the disk made to fail in turn, until an action passes untouched: nothing half visible, no false
//! acknowledgement, what was there before unharmed, and the store serves on or says that it does not.

use std::error::Error;
use std::path::Path;
use std::sync::LazyLock;

use artifact_store::{Digest, DiskError, Expected, GetError, NameError, PutError, RoomLimit, Store};
use rustix::io::Errno;

use crate::support::{Failing, FaultyDisk, check_whole, open, open_on, quick_folder, report, sample};

const FAILURES: [Failing; 8] = [
    Failing::Once(Errno::NOSPC),
    Failing::Once(Errno::DQUOT),
    Failing::Once(Errno::IO),
    Failing::Once(Errno::INTR),
    Failing::Torn(Errno::NOSPC),
    Failing::Torn(Errno::IO),
    Failing::Crash,
    Failing::ShortWrites,
];

fn earlier() -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| sample(100, 7000));
    &BYTES
}

/// Large enough to be written in two pieces.
fn new() -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| sample(200, 300_000));
    &BYTES
}

type Done = Result<(), Box<dyn Error>>;
type Action = (&'static str, fn(&Store) -> Done);

/// What is done while the disk fails. Each acts on a store that holds `earlier` under the name `name`.
const ACTIONS: [Action; 7] = [
    ("put_bytes", |store| Ok(store.put_bytes(new()).map(drop)?)),
    ("put_reader", |store| Ok(store.put_reader(new()).map(drop)?)),
    ("put_bytes again", |store| Ok(store.put_bytes(earlier()).map(drop)?)),
    ("put_reader again", |store| Ok(store.put_reader(earlier()).map(drop)?)),
    ("get", |store| {
        let artifact = store.get(&Digest::of(earlier()))?;
        assert!(artifact.as_bytes() == earlier());
        Ok(())
    }),
    ("set_name", |store| {
        store.set_name("name", &Digest::of(earlier()), Expected::Version(1))?;
        Ok(())
    }),
    ("put and set_name", |store| {
        let stored = store.put_bytes(new())?;
        store.set_name("name", &stored.digest, Expected::Version(1))?;
        Ok(())
    }),
];

fn is_full(error: &(dyn Error + 'static)) -> Option<RoomLimit> {
    match (error.downcast_ref::<PutError>(), error.downcast_ref::<NameError>()) {
        (Some(PutError::Disk(DiskError::Full { shortage, .. })), _)
        | (_, Some(NameError::Disk(DiskError::Full { shortage, .. }))) => Some(shortage.limit),
        _ => None,
    }
}

fn is_poisoned(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(PutError::Disk(DiskError::Poisoned { .. })))
        || matches!(error.downcast_ref(), Some(NameError::Disk(DiskError::Poisoned { .. })))
}

/// What the next process finds.
fn check_aftermath(folder: &Path, action: &str, is_acknowledged: bool, is_suspect: bool) {
    let store = open(folder);
    assert_eq!(store.open_report().verified.is_some(), is_suspect);
    assert!(
        store.get(&Digest::of(earlier())).unwrap().as_bytes() == earlier(),
        "the earlier artifact was harmed"
    );
    let is_new_there = match store.get(&Digest::of(new())) {
        Ok(artifact) => artifact.as_bytes() == new(),
        Err(GetError::Absent { .. }) => false,
        Err(error) => panic!("half visible: {error:?}"),
    };
    let named = store.resolve("name").unwrap().unwrap();
    let before = (Digest::of(earlier()), 1);
    let after = if action == "set_name" { (before.0, 2) } else { (Digest::of(new()), 2) };
    let sets_name = action.contains("set_name");
    if is_acknowledged {
        assert!(
            is_new_there || !matches!(action, "put_bytes" | "put_reader" | "put and set_name"),
            "false acknowledgement"
        );
        assert_eq!(
            (named.digest, named.version),
            if sets_name { after } else { before },
            "false acknowledgement"
        );
    } else {
        let allowed = if sets_name { vec![before, after] } else { vec![before] };
        assert!(allowed.contains(&(named.digest, named.version)), "{named:?}");
    }
    assert!(store.get(&named.digest).is_ok(), "a name that points to nothing");
    assert_eq!(check_whole(folder), 1 + usize::from(is_new_there));
    assert!(std::fs::read_dir(folder.join("quarantine")).unwrap().next().is_none());
}

/// Fails the n-th operation of one action; false when the action has fewer.
fn attempt(action: Action, failing: Failing, at: u64, has_nameless: bool) -> bool {
    let folder = quick_folder();
    let before = open(folder.path());
    let digest = before.put_bytes(earlier()).unwrap().digest;
    before.set_name("name", &digest, Expected::Absent).unwrap();

    let disk = FaultyDisk::new(has_nameless);
    let store = open_on(folder.path(), &disk);
    disk.fail_at(at, failing);
    let result = action.1(&store);
    let Some(hit) = disk.hit() else {
        result.unwrap();
        return false;
    };
    let is_sync = hit.starts_with("sync");
    let is_unseen_file = hit == "sync_file" && !action.0.ends_with("again");
    if let Err(error) = &result {
        let error = error.as_ref();
        let room = match failing {
            Failing::Once(Errno::NOSPC) | Failing::Torn(Errno::NOSPC) => Some(RoomLimit::Disk),
            Failing::Once(Errno::DQUOT) => Some(RoomLimit::Quota),
            _ => None,
        };
        let is_growing =
            matches!(hit, "create_nameless" | "create_named" | "write" | "link" | "make_folder" | "rename")
                || is_unseen_file;
        if is_growing {
            assert_eq!(is_full(error), room, "{hit}: {error:?}");
        }
        assert_eq!(is_poisoned(error), is_sync && is_full(error).is_none(), "{hit}: {error:?}");
        assert!(error.source().is_some(), "the chain keeps the system's error: {error:?}");
    }
    let is_poisoned = result.as_ref().is_err_and(|error| is_poisoned(error.as_ref()));

    // The fault is over, for a process that is still there: the same store serves on, or says that it does not.
    disk.fail_at(0, Failing::Never);
    if failing != Failing::Crash {
        assert!(store.get(&digest).unwrap().as_bytes() == earlier());
        let next = store.put_bytes(b"one more");
        let renamed = store.set_name("other", &digest, Expected::Anything);
        if is_poisoned {
            assert!(matches!(next, Err(PutError::Disk(DiskError::Poisoned { .. }))), "{next:?}");
            assert!(matches!(renamed, Err(NameError::Disk(DiskError::Poisoned { .. }))), "{renamed:?}");
        } else {
            let path = store.path_of(&next.unwrap().digest);
            renamed.unwrap();
            std::fs::remove_file(path).unwrap();
        }
    }
    drop(store);
    // A dead process could not leave word that a sync had failed; for it, it had not.
    let is_suspect = is_poisoned && failing != Failing::Crash;
    check_aftermath(folder.path(), action.0, result.is_ok(), is_suspect);
    true
}

#[test]
fn any_operation_may_fail_and_nothing_is_half_visible_or_falsely_acknowledged() {
    let mut attempts = 0;
    for action in ACTIONS {
        for failing in FAILURES {
            for has_nameless in [true, false] {
                let passed_at = (1..).find(|at| !attempt(action, failing, *at, has_nameless)).unwrap();
                attempts += passed_at - 1;
                let has_writes = action.0.contains("put_reader")
                    || action.0.contains("set_name")
                    || action.0 == "put_bytes";
                assert!(
                    passed_at > 1 || (failing == Failing::ShortWrites && !has_writes),
                    "{action:?} {failing:?}"
                );
            }
        }
    }
    assert!(attempts > 500, "only {attempts} faults were tried");
    report(&format!("{attempts} faults tried"));
}

#[test]
fn a_failed_sync_is_final_until_the_store_is_opened_and_verified_again() {
    let folder = quick_folder();
    let disk = FaultyDisk::new(true);
    let store = open_on(folder.path(), &disk);
    let digests: Vec<_> = (0..5).map(|seed| store.put_bytes(&sample(seed, 1000)).unwrap().digest).collect();
    let mut begun = store.writer().unwrap();
    begun.append(b"begun before").unwrap();

    disk.fail_at(3, Failing::Once(Errno::IO));
    let error = store.put_reader(&b"never acknowledged"[..]).unwrap_err();
    assert_eq!(disk.hit(), Some("sync_file"));
    assert!(matches!(error, PutError::Disk(DiskError::Poisoned { .. })), "{error:?}");
    let error = begun.commit().unwrap_err();
    assert!(
        matches!(error, PutError::Disk(DiskError::Poisoned { .. })),
        "a writer that began before is refused too: {error:?}"
    );
    assert!(store.clone().writer().is_err());

    // What the disk lost meanwhile is found when the store is opened, not when somebody asks.
    let lost = store.path_of(&digests[2]);
    std::fs::remove_file(&lost).unwrap();
    std::fs::write(&lost, b"not what it was").unwrap();
    let again = open(folder.path());
    assert_eq!(again.open_report().verified, Some(4));
    assert_eq!(again.open_report().quarantined, [digests[2]]);
    again.put_bytes(b"acknowledged").unwrap();
    assert_eq!(open(folder.path()).open_report().verified, None);
    assert_eq!(check_whole(folder.path()), 5);
}
