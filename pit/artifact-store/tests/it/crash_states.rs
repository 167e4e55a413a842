//! The machine stops at any operation: every state that the disk may then be in is planted into a fresh folder, where
//! the real store is opened and held to its promises.
//!
//! What was acknowledged is there and verified; what was damaged before is never delivered and its loss is told, until it is
//! put again; nothing is half visible; names point to whole artifacts and to what they
//! were acknowledged to point to, or to what was being set; the store goes on. And the enumeration itself is tested: with
//! the syncs of files or of folders taken out of the record it must find a broken promise.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{Debug, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use artifact_store::{Digest, Disk, Expected, Store, StoreOptions};

use crate::batch::{packs, rewrite};
use crate::recording::{Node, Recorder, Step, Tree, plant, states_after};
use crate::support::{files_below, open, quick_folder, report, sample};

/// What the store was asked and has answered, between the operations.
#[derive(Clone, Debug)]
enum Note {
    Stored(Vec<u8>),
    /// From here on it may be gone.
    Released(Digest),
    /// It was damaged before; from here on it must be told of, or be whole.
    Damaged(Digest),
    /// A name is about to become this; `None` is its removal.
    Naming(&'static str, Option<Digest>),
    Named(&'static str, Option<(Digest, u64)>),
}

type Record = Recorder<Note>;

/// What was done, of which the first steps say what was there before.
struct Recorded {
    steps: Vec<Step<Note>>,
    durable: usize,
}

fn open_recorded(folder: &Path, recorder: &Arc<Record>) -> Store {
    let disk: Arc<dyn Disk> = Arc::clone(recorder) as Arc<dyn Disk>;
    Store::open(folder, StoreOptions { disk, ..StoreOptions::default() }).unwrap()
}

fn name(recorder: &Record, store: &Store, name: &'static str, digest: &Digest, expected: Expected) {
    recorder.note(Note::Naming(name, Some(*digest)));
    let named = store.set_name(name, digest, expected).unwrap();
    recorder.note(Note::Named(name, Some((named.digest, named.version))));
}

fn put(recorder: &Record, store: &Store, bytes: &[u8]) -> Digest {
    let digest = store.put_bytes(bytes).unwrap().digest;
    recorder.note(Note::Stored(bytes.to_vec()));
    digest
}

/// Everything that writes: each kind of put, names, collection with rewriting of packs, and two handles.
fn life_of_a_store(base: &Path, has_nameless: bool) -> Recorded {
    let recorder = Recorder::new(base, has_nameless);
    let path = base.join("store");
    let store = open_recorded(&path, &recorder);

    let first = put(&recorder, &store, b"first");
    name(&recorder, &store, "n", &first, Expected::Absent);
    let pieces = sample(1, 900);
    let mut writer = store.writer().unwrap();
    pieces.chunks(300).for_each(|piece| writer.append(piece).unwrap());
    let second = writer.commit().unwrap().digest;
    recorder.note(Note::Stored(pieces));
    name(&recorder, &store, "n", &second, Expected::Version(1));
    put(&recorder, &store, b"first");

    let mut batch: Vec<_> = (10..16).map(|seed| sample(seed, 100)).collect();
    batch.push(sample(16, 66_000));
    let packed = store.put_batch(&batch).unwrap();
    batch.iter().for_each(|bytes| recorder.note(Note::Stored(bytes.clone())));
    name(&recorder, &store, "packed", &packed[2].digest, Expected::Absent);
    let more = [batch[0].clone(), sample(20, 50), sample(21, 50)];
    store.put_batch(&more).unwrap();
    more.iter().for_each(|bytes| recorder.note(Note::Stored(bytes.clone())));

    let elsewhere = tempfile::NamedTempFile::new_in(base.parent().unwrap()).unwrap();
    std::fs::write(elsewhere.path(), sample(30, 500)).unwrap();
    let adopted = store.adopt_file(elsewhere.path()).unwrap().digest;
    recorder.note(Note::Stored(sample(30, 500)));

    // Another process: it knows nothing of what is durable already.
    let other = open_recorded(&path, &recorder);
    put(&recorder, &other, &sample(1, 900));

    recorder.note(Note::Naming("n", None));
    store.remove_name("n", Expected::Version(2)).unwrap();
    recorder.note(Note::Named("n", None));

    // Only what is named and what was moved in stays.
    drop(packed);
    for listed in store.list() {
        let digest = listed.unwrap().digest;
        if digest != Digest::of(&batch[2]) && digest != adopted {
            recorder.note(Note::Released(digest));
        }
    }
    let collected = store.collect(|digest| *digest == adopted).unwrap();
    assert!(collected.removed >= 9 && collected.packs_rewritten == 1, "{collected:?}");

    let again = put(&recorder, &store, b"first");
    name(&recorder, &other, "n", &again, Expected::Absent);
    Recorded { steps: recorder.steps(), durable: 0 }
}

/// A store of the first format, opened by this release.
fn upgrade(base: &Path, has_nameless: bool) -> Recorded {
    let path = base.join("store");
    let store = open(&path);
    let digest = store.put_bytes(b"old").unwrap().digest;
    store.set_name("n", &digest, Expected::Absent).unwrap();
    drop(store);
    to_format_1(&path);

    let recorder = Recorder::new(base, has_nameless);
    recorder.note(Note::Stored(b"old".to_vec()));
    recorder.note(Note::Named("n", Some((digest, 1))));
    let durable = recorder.steps().len();
    let store = open_recorded(&path, &recorder);
    assert_eq!(store.open_report().upgraded_from, Some(1));
    store.put_batch(&["new", "and new"]).unwrap();
    recorder.note(Note::Stored(b"new".to_vec()));
    Recorded { steps: recorder.steps(), durable }
}

/// Undoes what later formats have added to an unused store.
pub(crate) fn to_format_1(store: &Path) {
    std::fs::remove_dir(store.join("packs")).unwrap();
    std::fs::remove_file(store.join("verified")).unwrap();
    std::fs::remove_file(store.join("format")).unwrap();
    std::fs::write(store.join("format"), "symphony artifact-store format 1\n").unwrap();
}

/// A store with a damaged file and a damaged pack, in order of what is done about them: found and set aside, salvaged,
/// put again, collected.
fn repair(base: &Path, has_nameless: bool) -> Recorded {
    let path = base.join("store");
    let store = open(&path);
    let file = sample(50, 200);
    let packed: Vec<_> = (60..64).map(|seed| sample(seed, 80)).collect();
    let in_file = store.put_bytes(&file).unwrap().digest;
    let in_pack: Vec<_> = store.put_batch(&packed).unwrap().iter().map(|one| one.digest).collect();
    // No name tells of what is lost in the pack.
    let named = [("file", in_file), ("whole", in_pack[0])];
    for (name, digest) in &named {
        store.set_name(name, digest, Expected::Absent).unwrap();
    }
    let of_file = store.path_of(&in_file);
    drop(store);
    rewrite(&of_file, |bytes| bytes[7] ^= 1);
    // The head, and the last byte of the last artifact.
    rewrite(&packs(&path)[0], |bytes| {
        bytes[40] ^= 1;
        *bytes.last_mut().unwrap() ^= 1;
    });

    let recorder = Recorder::new(base, has_nameless);
    packed[..3].iter().for_each(|bytes| recorder.note(Note::Stored(bytes.clone())));
    [in_file, in_pack[3]].into_iter().for_each(|digest| recorder.note(Note::Damaged(digest)));
    named.iter().for_each(|(name, digest)| recorder.note(Note::Named(name, Some((*digest, 1)))));
    let durable = recorder.steps().len();
    let store = open_recorded(&path, &recorder);
    let wrong: Vec<_> = store.verify_all().filter(|(_, result)| result.is_err()).collect();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    put(&recorder, &store, &file);
    store.put_batch(&packed[2..]).unwrap();
    recorder.note(Note::Stored(packed[3].clone()));
    name(&recorder, &store, "again", &in_pack[3], Expected::Absent);
    assert!(store.verify_all().all(|(_, result)| result.is_ok()));
    recorder.note(Note::Released(in_pack[1]));
    recorder.note(Note::Released(in_pack[2]));
    assert_eq!(store.collect(|_| false).unwrap().removed, 2);
    Recorded { steps: recorder.steps(), durable }
}

/// What is promised after these steps.
#[derive(Default)]
struct Promises {
    stored: BTreeMap<Digest, Vec<u8>>,
    /// To be told of, or to be whole.
    damaged: BTreeSet<Digest>,
    /// There was damage at some time, of which something is kept.
    has_damage: bool,
    names: BTreeMap<&'static str, Naming>,
}

#[derive(Default)]
struct Naming {
    acknowledged: Option<(Digest, u64)>,
    /// What it is about to become, while it is being set or removed.
    setting: Option<Option<Digest>>,
    /// The highest version that was ever acknowledged.
    highest: u64,
}

impl Promises {
    fn of(steps: &[Step<Note>]) -> Self {
        let mut promises = Self::default();
        for step in steps {
            let Step::Note(note) = step else { continue };
            match note {
                Note::Stored(bytes) => {
                    promises.damaged.remove(&Digest::of(bytes));
                    promises.stored.insert(Digest::of(bytes), bytes.clone());
                }
                Note::Released(digest) => {
                    promises.stored.remove(digest);
                }
                Note::Damaged(digest) => {
                    promises.damaged.insert(*digest);
                    promises.has_damage = true;
                }
                Note::Naming(name, digest) => promises.names.entry(name).or_default().setting = Some(*digest),
                Note::Named(name, named) => {
                    let highest = promises.names.get(name).map_or(0, |naming| naming.highest);
                    let highest = named.map_or(highest, |(_, version)| version.max(highest));
                    promises.names.insert(name, Naming { acknowledged: *named, setting: None, highest });
                }
            }
        }
        promises
    }
}

/// A promise that is not kept.
type Broken = String;

fn must<T, E: Debug>(what: &str, result: Result<T, E>) -> Result<T, Broken> {
    result.map_err(|error| format!("{what}: {error:?}"))
}

fn ensure(is_kept: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if is_kept { Ok(()) } else { Err(what()) }
}

/// Opens the store that a crash has left, and holds it to its promises.
fn check(folder: &Path, promises: &Promises) -> Result<(), Broken> {
    let path = folder.join("store");
    // A release that does not know packs must refuse a store that has any.
    if !files_below(&path.join("packs")).is_empty() {
        let format = must("the format", std::fs::read_to_string(path.join("format")))?;
        ensure(format.ends_with(" 3\n"), || format!("there are packs in a store that says {format:?}"))?;
    }
    let store = must("opening", Store::open(&path, StoreOptions::default()))?;
    for (digest, bytes) in &promises.stored {
        let artifact = must("an acknowledged artifact", store.get(digest))?;
        ensure(artifact.as_bytes() == bytes, || format!("{digest} has other bytes"))?;
    }
    for digest in &promises.damaged {
        let is_wrong = store.get(digest).is_ok_and(|artifact| Digest::of(artifact.as_bytes()) != *digest);
        ensure(!is_wrong, || format!("{digest} is delivered and damaged"))?;
    }
    // By a process that has seen nothing of it yet, so that what the one above has found is told again.
    let mut told = BTreeSet::new();
    for (digest, result) in open(&path).verify_all() {
        match digest.filter(|digest| promises.damaged.contains(digest)) {
            Some(digest) => drop(told.insert(digest)),
            None => drop(must(&format!("{digest:?} is visible and not whole"), result)?),
        }
    }
    ensure(told == promises.damaged, || format!("of {:?} only {told:?} are told", promises.damaged))?;
    for (name, Naming { acknowledged, setting, .. }) in &promises.names {
        let found = must("a name", store.resolve(name))?.map(|named| (named.digest, named.version));
        let is_new = setting.is_some_and(|setting| found.map(|(digest, _)| digest) == setting);
        ensure(found == *acknowledged || is_new, || {
            format!("name {name} is {found:?}, not {acknowledged:?}")
        })?;
    }
    for named in must("the names", store.names(""))? {
        let named = must("a name", named)?;
        if !promises.damaged.contains(&named.digest) {
            must(&format!("{} points to nothing", named.name), store.get(&named.digest))?;
        }
    }
    let left = files_below(&path.join("tmp"));
    ensure(left.is_empty(), || format!("left behind: {:?}", left.keys()))?;
    let kept = files_below(&path.join("quarantine"));
    ensure(kept.is_empty() || promises.has_damage, || format!("set aside: {:?}", kept.keys()))?;
    // It goes on: artifacts, packs, names; and no name begins again below what somebody has seen.
    let digest = must("a put afterwards", store.put_bytes(b"afterwards"))?.digest;
    must("a batch afterwards", store.put_batch(&["one", "two"]))?;
    for (name, Naming { highest, .. }) in &promises.names {
        let named = must("a name afterwards", store.set_name(name, &digest, Expected::Anything))?;
        ensure(named.version > *highest, || format!("{name} is at {} after {highest}", named.version))?;
    }
    let store = must("opening again", Store::open(&path, StoreOptions::default()))?;
    for bytes in promises.stored.values().map(Vec::as_slice).chain([&b"afterwards"[..], b"one", b"two"]) {
        must("an artifact after it went on", store.get(&Digest::of(bytes)))?;
    }
    Ok(())
}

/// What was verified is noted in a file that is never synced, so that a crash may leave anything of it; and after a crash
/// the machine has another boot. The note of the last boot vouches for every file that is there, as it is.
fn plant_witness(store: &Path, state: u64) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let last_boot =
        if boot.starts_with('0') { boot.replacen('0', "1", 1) } else { format!("0{}", &boot[1..]) };
    let head = |boot: &str| format!("{:<64}", format!("symphony verified 1\n{}\n", boot.trim())).into_bytes();
    let mut records = Vec::new();
    for (path, _) in files_below(&store.join("objects")) {
        let Ok(digest) = path.to_str().unwrap().replace('/', "").parse::<Digest>() else { continue };
        let file = std::fs::metadata(store.join("objects").join(&path)).unwrap();
        let mut record = digest.as_bytes().to_vec();
        let times = [file.ctime(), file.ctime_nsec()].map(i64::cast_unsigned);
        for word in [file.dev(), file.ino(), file.len(), times[0], times[1]] {
            record.extend_from_slice(&word.to_le_bytes());
        }
        record.extend_from_slice(&Digest::of(&record).as_bytes()[..8]);
        records.push(record);
    }
    let records = records.concat();
    let torn = &records[..records.len() - records.len().min(33)];
    let bytes = match state % 6 {
        0 => return,
        1 => [head(&last_boot), records].concat(),
        2 => [head(&last_boot), torn.to_vec()].concat(),
        // The file was made anew, and the records did not arrive, or as zeros, or half of the head did not.
        3 => [head(&boot), vec![0; 200]].concat(),
        4 => [head(&boot), torn[torn.len() - torn.len() % 80..].to_vec()].concat(),
        _ => head(&boot)[..40].to_vec(),
    };
    if std::fs::exists(store.join("objects")).unwrap() {
        std::fs::write(store.join("verified"), bytes).unwrap();
    }
}

#[derive(Debug, Default)]
struct Enumerated {
    states: u64,
    different: u64,
    broken: Option<String>,
}

fn fingerprint(tree: &Tree) -> Digest {
    let mut text = String::new();
    for (path, node) in tree {
        let content = match node {
            Node::Folder => "folder".to_owned(),
            Node::File(bytes) => Digest::of(bytes).to_string(),
        };
        writeln!(text, "{} {content}", path.display()).unwrap();
    }
    Digest::of(text.as_bytes())
}

/// Tries every crash after the first steps of a record until a promise is broken.
fn enumerate(steps: &[Step<Note>], durable: usize) -> Enumerated {
    let mut done = Enumerated::default();
    let mut seen = HashSet::new();
    for length in durable..=steps.len() {
        let (before, promises) = (&steps[..length], Promises::of(&steps[..length]));
        let notes = before.iter().filter(|step| matches!(step, Step::Note(_))).count();
        states_after(before, |tree: Tree| {
            done.states += 1;
            if done.broken.is_some() || !seen.insert((fingerprint(&tree), notes)) {
                return;
            }
            done.different += 1;
            let folder = quick_folder();
            plant(&tree, folder.path());
            plant_witness(&folder.path().join("store"), done.different);
            if let Err(broken) = check(folder.path(), &promises) {
                let names: Vec<_> = tree
                    .iter()
                    .filter(|(_, node)| matches!(node, Node::File(_)))
                    .map(|(path, _)| path.display().to_string())
                    .collect();
                done.broken =
                    Some(format!("after {length} steps ({:?}): {broken}; {names:#?}", before.last()));
            }
        });
    }
    done
}

type Life = fn(&Path, bool) -> Recorded;

#[test]
fn whatever_a_crash_leaves_of_any_operation_the_promises_are_kept() {
    let records: [(&str, Life, bool, u64); 6] = [
        ("a repair", repair, true, 200),
        ("a repair without nameless files", repair, false, 560),
        ("a life", life_of_a_store, true, 470),
        ("a life without nameless files", life_of_a_store, false, 1_200),
        ("an upgrade", upgrade, true, 12),
        ("an upgrade without nameless files", upgrade, false, 24),
    ];
    for (what, record, has_nameless, different_min) in records {
        let folder = quick_folder();
        let base = folder.path().join("base");
        std::fs::create_dir(&base).unwrap();
        let Recorded { steps, durable } = record(&base, has_nameless);
        let done = enumerate(&steps, durable);
        assert!(done.broken.is_none(), "{what}: {}", done.broken.unwrap());
        let Enumerated { states, different, .. } = done;
        report(&format!("{what}: {} steps, {states} crash states, {different} different", steps.len()));
        assert!(different >= different_min, "only {different} different states");
    }
}

type IsLeftOut = fn(&Step<Note>) -> bool;

/// A net that catches nothing proves nothing: with each kind of sync left out a promise must break.
#[test]
fn without_its_syncs_a_store_is_found_to_break_its_promises() {
    let folder = quick_folder();
    let base = folder.path().join("base");
    std::fs::create_dir(&base).unwrap();
    let steps = life_of_a_store(&base, true).steps;
    let left_out: [(&str, IsLeftOut); 5] = [
        ("files", |step| matches!(step, Step::SyncFile { .. })),
        (
            "the folder of the packs",
            |step| matches!(step, Step::SyncFolder { path } if path.ends_with("packs")),
        ),
        (
            "the folder of the names",
            |step| matches!(step, Step::SyncFolder { path } if path.ends_with("names")),
        ),
        (
            "the folder of the shards",
            |step| matches!(step, Step::SyncFolder { path } if path.ends_with("objects")),
        ),
        (
            "the shards",
            |step| matches!(step, Step::SyncFolder { path } if path.parent().is_some_and(|parent| parent.ends_with("objects"))),
        ),
    ];
    for (what, is_left_out) in left_out {
        let without: Vec<_> = steps.iter().filter(|step| !is_left_out(step)).cloned().collect();
        assert!(without.len() < steps.len(), "there is no sync of {what}");
        let broken = enumerate(&without, 0).broken;
        assert!(broken.is_some(), "nobody misses the syncs of {what}");
    }
}
