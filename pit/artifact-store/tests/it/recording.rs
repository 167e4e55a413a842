//! A disk that records what is asked of it, and what a crash may leave of that.
//!
//! ```text
//!   operations 1..n  --crash after the k-th-->  what was synced by then, for certain;
//!                                               of the rest any subset, the last write perhaps torn
//! ```
//!
//! Adversarial within what a file system may do: each write and each entry of a folder that was not synced survives or not
//! independently of all others, a file's sync does not sync its name, and a rename may leave both names but not neither. It
//! knows nothing of stores.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use artifact_store::{Disk, Folder, RealDisk};
use rustix::io::Errno;

/// What was asked, in order. Folders and files are named by paths below the base; `P` is what the test notes between.
#[derive(Clone, Debug)]
pub(crate) enum Step<P> {
    MakeFolder { path: PathBuf },
    Write { file: usize, offset: usize, bytes: Vec<u8> },
    SyncFile { file: usize },
    Add { path: PathBuf, file: usize },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    SyncFolder { path: PathBuf },
    Note(P),
}

#[derive(Debug)]
struct Log<P> {
    steps: Vec<Step<P>>,
    /// Files by inode. A number that is used again is another file.
    files: HashMap<u64, usize>,
    lengths: Vec<usize>,
}

/// The real disk, and the record of it.
#[derive(Debug)]
pub(crate) struct Recorder<P> {
    base: PathBuf,
    has_nameless: bool,
    log: Mutex<Log<P>>,
}

impl<P: Clone> Recorder<P> {
    /// Records what happens below a folder. What is there already is durable.
    pub(crate) fn new(base: &Path, has_nameless: bool) -> Arc<Self> {
        let log = Log { steps: Vec::new(), files: HashMap::new(), lengths: Vec::new() };
        let recorder = Self { base: base.to_owned(), has_nameless, log: Mutex::new(log) };
        recorder.take_in(base);
        Arc::new(recorder)
    }

    fn take_in(&self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let parent = self.below(folder);
            if path.is_dir() {
                self.push(Step::MakeFolder { path: self.below(&path) });
                self.take_in(&path);
            } else {
                let file = self.file(&File::open(&path).unwrap());
                self.push(Step::SyncFile { file });
                self.push(Step::Add { path: self.below(&path), file });
            }
            self.push(Step::SyncFolder { path: parent });
        }
    }

    pub(crate) fn note(&self, note: P) {
        self.push(Step::Note(note));
    }

    pub(crate) fn steps(&self) -> Vec<Step<P>> {
        self.log.lock().unwrap().steps.clone()
    }

    fn push(&self, step: Step<P>) {
        self.log.lock().unwrap().steps.push(step);
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.base).unwrap().to_owned()
    }

    fn created(&self, file: &File) -> usize {
        let inode = rustix::fs::fstat(file).unwrap().st_ino;
        let mut log = self.log.lock().unwrap();
        let number = log.lengths.len();
        log.files.insert(inode, number);
        log.lengths.push(0);
        number
    }

    /// The number of a file; one that was made elsewhere comes with all its bytes, not synced.
    fn file(&self, file: &File) -> usize {
        let inode = rustix::fs::fstat(file).unwrap().st_ino;
        if let Some(number) = self.log.lock().unwrap().files.get(&inode) {
            return *number;
        }
        let number = self.created(file);
        let mut bytes = Vec::new();
        let mut reader = file.try_clone().unwrap();
        reader.rewind().unwrap();
        reader.read_to_end(&mut bytes).unwrap();
        self.wrote(number, &bytes);
        number
    }

    fn wrote(&self, file: usize, bytes: &[u8]) {
        let mut log = self.log.lock().unwrap();
        let offset = log.lengths[file];
        log.lengths[file] += bytes.len();
        log.steps.push(Step::Write { file, offset, bytes: bytes.to_vec() });
    }
}

impl<P: Clone + std::fmt::Debug + Send + Sync> Disk for Recorder<P> {
    fn make_folder(&self, parent: &Folder, name: &str) -> io::Result<()> {
        RealDisk.make_folder(parent, name)?;
        self.push(Step::MakeFolder { path: self.below(parent.path()).join(name) });
        Ok(())
    }

    fn create_nameless(&self, folder: &Folder) -> io::Result<File> {
        if !self.has_nameless {
            return Err(Errno::OPNOTSUPP.into());
        }
        let file = RealDisk.create_nameless(folder)?;
        self.created(&file);
        Ok(file)
    }

    fn create_named(&self, folder: &Folder, name: &str) -> io::Result<File> {
        let created = RealDisk.create_named(folder, name)?;
        let file = self.created(&created);
        self.push(Step::Add { path: self.below(folder.path()).join(name), file });
        Ok(created)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let number = self.file(file);
        let count = RealDisk.write(file, bytes)?;
        self.wrote(number, &bytes[..count]);
        Ok(count)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        let number = self.file(file);
        RealDisk.sync_file(file)?;
        self.push(Step::SyncFile { file: number });
        Ok(())
    }

    fn clone_bytes(&self, _source: &File, _file: &File) -> io::Result<()> {
        Err(Errno::OPNOTSUPP.into())
    }

    fn link(&self, file: &File, folder: &Folder, name: &str) -> io::Result<()> {
        let number = self.file(file);
        RealDisk.link(file, folder, name)?;
        self.push(Step::Add { path: self.below(folder.path()).join(name), file: number });
        Ok(())
    }

    fn rename(&self, from: &Folder, name: &str, to: &Folder, new_name: &str) -> io::Result<()> {
        RealDisk.rename(from, name, to, new_name)?;
        let from = self.below(from.path()).join(name);
        self.push(Step::Rename { from, to: self.below(to.path()).join(new_name) });
        Ok(())
    }

    fn remove(&self, folder: &Folder, name: &str) -> io::Result<()> {
        RealDisk.remove(folder, name)?;
        self.push(Step::Remove { path: self.below(folder.path()).join(name) });
        Ok(())
    }

    fn sync_folder(&self, folder: &Folder) -> io::Result<()> {
        RealDisk.sync_folder(folder)?;
        self.push(Step::SyncFolder { path: self.below(folder.path()) });
        Ok(())
    }

    fn open(&self, folder: &Folder, name: &str) -> io::Result<File> {
        RealDisk.open(folder, name)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        RealDisk.read_at(file, buffer, offset)
    }
}

/// What a path leads to after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Folder,
    File(Vec<u8>),
}

/// All that is left, by path. What has no way from the base is not in it.
pub(crate) type Tree = BTreeMap<PathBuf, Node>;

/// What may or may not have reached the disk.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Write(usize),
    /// A new entry, also that of a rename.
    Entry(usize),
    /// The old entry of a removal.
    Gone(usize),
    /// The old entry of a rename, which goes only if the new one is there.
    Moved(usize),
}

/// How the last write that survives looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Whole,
    /// Its first half only.
    Torn,
    /// As long as it was, but zeros.
    Zeros,
}

/// LIMIT: with so many pending operations all subsets are tried; with more, prefixes, single ones and all but one.
const ALL_SUBSETS_MAX: usize = 7;

/// Every state that a crash after these steps may leave.
pub(crate) fn states_after<P>(steps: &[Step<P>], mut visit: impl FnMut(Tree)) {
    let pending = pending(steps);
    let last_write = pending.iter().rposition(|one| matches!(one, Pending::Write(_)));
    for survivors in subsets(pending.len()) {
        let is_last_write_there = last_write.is_some_and(|at| survivors[at]);
        let variants: &[Last] =
            if is_last_write_there { &[Last::Whole, Last::Torn, Last::Zeros] } else { &[Last::Whole] };
        for last in variants {
            visit(tree(steps, &pending, &survivors, last_write, *last));
        }
    }
}

fn subsets(count: usize) -> Vec<Vec<bool>> {
    if count <= ALL_SUBSETS_MAX {
        return (0..1_u32 << count).map(|mask| (0..count).map(|at| mask >> at & 1 == 1).collect()).collect();
    }
    let mut subsets: Vec<Vec<bool>> =
        (0..=count).map(|length| (0..count).map(|at| at < length).collect()).collect();
    for one in 0..count {
        subsets.push((0..count).map(|at| at == one).collect());
        subsets.push((0..count).map(|at| at != one).collect());
    }
    subsets
}

/// What was not synced, in order. Writes to files that never got a name are left out: nobody can see them.
fn pending<P>(steps: &[Step<P>]) -> Vec<Pending> {
    let is_synced = |at: usize, folder: Option<&Path>| {
        let is_it =
            |step: &Step<P>| matches!(step, Step::SyncFolder { path } if Some(path.as_path()) == folder);
        steps[at..].iter().any(is_it)
    };
    let mut pending = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Write { file, .. } => {
                let is_synced = steps[at..]
                    .iter()
                    .any(|step| matches!(step, Step::SyncFile { file: other } if other == file));
                let is_named =
                    steps.iter().any(|step| matches!(step, Step::Add { file: other, .. } if other == file));
                if !is_synced && is_named {
                    pending.push(Pending::Write(at));
                }
            }
            Step::MakeFolder { path } | Step::Add { path, .. } if !is_synced(at, path.parent()) => {
                pending.push(Pending::Entry(at));
            }
            Step::Remove { path } if !is_synced(at, path.parent()) => pending.push(Pending::Gone(at)),
            Step::Rename { from, to } => {
                if !is_synced(at, to.parent()) {
                    pending.push(Pending::Entry(at));
                }
                if !is_synced(at, from.parent()) {
                    pending.push(Pending::Moved(at));
                }
            }
            _ => {}
        }
    }
    pending
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Folder,
    File(usize),
}

fn tree<P>(
    steps: &[Step<P>],
    pending: &[Pending],
    survivors: &[bool],
    last_write: Option<usize>,
    last: Last,
) -> Tree {
    let is_lost = |wanted: fn(&Pending) -> Option<usize>, at: usize| {
        pending.iter().zip(survivors).any(|(one, survives)| wanted(one) == Some(at) && !survives)
    };
    let write = |one: &Pending| if let Pending::Write(at) = one { Some(*at) } else { None };
    let entry = |one: &Pending| if let Pending::Entry(at) = one { Some(*at) } else { None };
    let gone = |one: &Pending| if let Pending::Gone(at) = one { Some(*at) } else { None };
    let moved = |one: &Pending| if let Pending::Moved(at) = one { Some(*at) } else { None };
    let torn = last_write.map(|at| pending[at]).as_ref().and_then(write);

    // What names mean to the living, to know what a rename has moved; and what the disk has of it.
    let mut living: HashMap<&Path, Target> = HashMap::new();
    let mut entries: BTreeMap<&Path, Target> = BTreeMap::new();
    let mut files: HashMap<usize, Vec<u8>> = HashMap::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::MakeFolder { path } => {
                living.insert(path, Target::Folder);
                if !is_lost(entry, at) {
                    entries.insert(path, Target::Folder);
                }
            }
            Step::Add { path, file } => {
                living.insert(path, Target::File(*file));
                if !is_lost(entry, at) {
                    entries.insert(path, Target::File(*file));
                }
            }
            Step::Rename { from, to } => {
                let target = living.remove(from.as_path()).unwrap();
                living.insert(to, target);
                let is_there = !is_lost(entry, at);
                if is_there {
                    entries.insert(to, target);
                }
                if is_there && !is_lost(moved, at) {
                    entries.remove(from.as_path());
                }
            }
            Step::Remove { path } => {
                living.remove(path.as_path());
                if !is_lost(gone, at) {
                    entries.remove(path.as_path());
                }
            }
            Step::Write { file, offset, bytes } if !is_lost(write, at) => {
                let content = files.entry(*file).or_default();
                let length =
                    if torn == Some(at) && last == Last::Torn { bytes.len() / 2 } else { bytes.len() };
                content.resize(content.len().max(offset + length), 0);
                if torn != Some(at) || last != Last::Zeros {
                    content[*offset..offset + length].copy_from_slice(&bytes[..length]);
                }
            }
            _ => {}
        }
    }
    let mut tree = Tree::new();
    // In order of paths: parents come before what is in them.
    for (path, target) in entries {
        let parent = path.parent().unwrap();
        if parent == Path::new("") || tree.get(parent) == Some(&Node::Folder) {
            let node = match target {
                Target::Folder => Node::Folder,
                Target::File(file) => Node::File(files.get(&file).cloned().unwrap_or_default()),
            };
            tree.insert(path.to_owned(), node);
        }
    }
    tree
}

/// Puts a tree into a fresh folder.
pub(crate) fn plant(tree: &Tree, base: &Path) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    for (path, node) in tree {
        let path = base.join(path);
        match node {
            Node::Folder => std::fs::create_dir(path).unwrap(),
            Node::File(bytes) => {
                // Whoever is not root may write only to what the store itself writes to again.
                let is_rewritten = ["lock", "verified"].iter().any(|name| path.ends_with(name));
                let mode = if is_rewritten { 0o600 } else { 0o400 };
                let mut options = File::options();
                let mut file = options.write(true).create_new(true).mode(mode).open(path).unwrap();
                file.write_all(bytes).unwrap();
            }
        }
    }
}
