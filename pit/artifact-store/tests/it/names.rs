//! Names: set, read, compare-and-swap, damage.

use artifact_store::{Digest, Expected, NameError, NameRule, Named};

use crate::support::{open, sample};

#[test]
fn a_name_counts_its_versions_and_refuses_who_has_not_seen_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let [a, b] = [b"a", b"b"].map(|bytes| store.put_bytes(bytes).unwrap().digest);
    let name = "run-7/report.md";
    assert_eq!(store.resolve(name).unwrap(), None);
    assert_eq!(store.set_name(name, &a, Expected::Absent).unwrap().version, 1);
    assert_eq!(store.set_name(name, &b, Expected::Version(1)).unwrap().version, 2);
    for expected in [Expected::Absent, Expected::Version(1), Expected::Version(3)] {
        let error = store.set_name(name, &a, expected).unwrap_err();
        assert!(matches!(error, NameError::Conflict { found: 2, .. }), "{error:?}");
    }
    let current = Named { name: name.to_owned(), digest: b, version: 2 };
    assert_eq!(open(folder.path()).resolve(name).unwrap(), Some(current));
    assert_eq!(store.set_name(name, &a, Expected::Anything).unwrap().version, 3);
    let error = store.set_name("new", &a, Expected::Version(1)).unwrap_err();
    assert!(matches!(error, NameError::Conflict { found: 0, .. }), "{error:?}");
}

#[test]
fn a_name_points_only_to_what_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let error = store.set_name("x", &Digest::of(b"nothing"), Expected::Anything).unwrap_err();
    assert!(matches!(error, NameError::NoArtifact { .. }), "{error:?}");
    assert_eq!(store.resolve("x").unwrap(), None);
}

#[test]
fn no_name_leads_out_of_the_folder_of_names() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"));
    let digest = store.put_bytes(b"x").unwrap().digest;
    for name in ["../escape", "/etc/escape", "a/../../escape", "..", "a\0b", ""] {
        let error = store.set_name(name, &digest, Expected::Anything).unwrap_err();
        assert!(matches!(error, NameError::Invalid { .. }), "{name:?}: {error:?}");
        assert!(matches!(store.resolve(name), Err(NameError::Invalid { .. })), "{name:?}");
    }
    let error = store.resolve(&"x".repeat(256)).unwrap_err();
    assert!(matches!(error, NameError::Invalid { rule: NameRule::Length, .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(folder.path().join("store/names")).unwrap().count(), 0);
}

#[test]
fn names_are_listed_by_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let longest = "n".repeat(255);
    let all = ["run-1/a", "run-1/b/c", "run-10/a", "run-1", ".dot", "sp ace\"'*", &longest];
    for (seed, name) in (0..).zip(all) {
        let digest = store.put_bytes(&sample(seed, 10)).unwrap().digest;
        store.set_name(name, &digest, Expected::Absent).unwrap();
    }
    let listed = |prefix: &str| {
        let mut names: Vec<_> = store.names(prefix).unwrap().map(|named| named.unwrap().name).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(listed("run-1/"), ["run-1/a", "run-1/b/c"]);
    assert_eq!(listed("run-1"), ["run-1", "run-1/a", "run-1/b/c", "run-10/a"]);
    assert_eq!(listed("").len(), all.len());
    assert_eq!(listed("no"), [""; 0]);
}

#[test]
fn a_damaged_record_is_reported_and_never_believed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let digest = store.put_bytes(b"x").unwrap().digest;
    store.set_name("a/b", &digest, Expected::Absent).unwrap();
    let path = folder.path().join("names/a\\b");
    let whole = std::fs::read_to_string(&path).unwrap();
    let elsewhere = whole.replace("a/b", "a/c");
    for damaged in ["", &whole[1..], &whole.replace("version 1", "version 2"), &elsewhere, &whole.repeat(50)]
    {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, damaged).unwrap();
        assert!(matches!(store.resolve("a/b"), Err(NameError::Corrupt { .. })), "{damaged:?}");
        let error = store.set_name("a/b", &digest, Expected::Anything).unwrap_err();
        assert!(matches!(error, NameError::Corrupt { .. }), "{error:?}");
        assert!(matches!(store.names("").unwrap().next(), Some(Err(NameError::Corrupt { .. }))));
    }
    // The remedy that the error names.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(store.set_name("a/b", &digest, Expected::Anything).unwrap().version, 1);
}
