//! What several tests need: folders, sample bytes, a disk that fails as told, and programs that are this one again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use artifact_store::{Digest, Disk, Folder, RealDisk, Store, StoreOptions};
use rustix::io::Errno;

/// A folder in memory where there is one: for tests that sync very often and do not depend on what a disk then does.
pub(crate) fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Prints a line that the test harness does not hold back, as it does with what a passing test prints.
pub(crate) fn report(line: &str) {
    io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Sample bytes that differ with the seed.
pub(crate) fn sample(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

pub(crate) fn open(folder: &Path) -> Store {
    Store::open(folder, StoreOptions::default()).unwrap()
}

pub(crate) fn open_on(folder: &Path, disk: &Arc<FaultyDisk>) -> Store {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    Store::open(folder, StoreOptions { disk, ..StoreOptions::default() }).unwrap()
}

/// All files below a folder, by path from there; none if there is no such folder.
pub(crate) fn files_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(base: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(base, &path, found);
            } else {
                found.insert(path.strip_prefix(base).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

/// Every file in `objects/` holds the bytes of its name, and nothing of dead writers is left. Says how many there are.
pub(crate) fn check_whole(folder: &Path) -> usize {
    let objects = files_below(&folder.join("objects"));
    for (path, bytes) in &objects {
        let name = path.to_str().unwrap().replace('/', "");
        assert_eq!(Digest::of(bytes).to_string(), name, "a file that is not what its name says");
    }
    assert_eq!(files_below(&folder.join("tmp")).len(), 0, "files of dead writers are left");
    objects.len()
}

/// How a [`FaultyDisk`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// Not at all.
    Never,
    /// The n-th operation only.
    Once(Errno),
    /// The n-th operation, after half of its bytes were written if it is a write.
    Torn(Errno),
    /// The n-th and every later operation: what a process that dies there leaves behind.
    Crash,
    /// Each write from the n-th on takes at most a third of its bytes.
    ShortWrites,
    /// The n-th operation, if it opens a file, finds it, and right after that a collector has removed it.
    Vanishing,
}

#[derive(Debug)]
struct Plan {
    failing: Failing,
    at: u64,
    done: u64,
    hit: Option<&'static str>,
    log: Vec<String>,
}

/// The real disk, except that the n-th operation fails. Records what was done.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    has_nameless: bool,
    has_clones: bool,
    /// Somebody who still has a file open for writing, and writes at the next sync of a file.
    intruder: Mutex<Option<File>>,
    /// Of the file with this inode the device cannot read these bytes.
    unreadable: Mutex<Option<(u64, Range<u64>)>>,
    plan: Mutex<Plan>,
}

impl FaultyDisk {
    pub(crate) fn new(has_nameless: bool) -> Arc<Self> {
        Self::of(has_nameless, false)
    }

    /// One that can share bytes between files.
    pub(crate) fn with_clones() -> Arc<Self> {
        Self::of(true, true)
    }

    fn of(has_nameless: bool, has_clones: bool) -> Arc<Self> {
        let plan = Plan { failing: Failing::Never, at: 0, done: 0, hit: None, log: Vec::new() };
        Arc::new(Self {
            has_nameless,
            has_clones,
            intruder: Mutex::default(),
            unreadable: Mutex::default(),
            plan: Mutex::new(plan),
        })
    }

    /// At the next sync of a file somebody writes to this one.
    pub(crate) fn intrude(&self, file: File) {
        *self.intruder.lock().unwrap() = Some(file);
    }

    /// From now on the device cannot read these bytes of a file; `None` heals it.
    pub(crate) fn make_unreadable(&self, bytes: Option<(u64, Range<u64>)>) {
        *self.unreadable.lock().unwrap() = bytes;
    }

    /// Counts from 1, anew from here.
    pub(crate) fn fail_at(&self, at: u64, failing: Failing) {
        *self.plan.lock().unwrap() = Plan { failing, at, done: 0, hit: None, log: Vec::new() };
    }

    /// Which operation was made to fail.
    pub(crate) fn hit(&self) -> Option<&'static str> {
        self.plan.lock().unwrap().hit
    }

    /// What was done since the counting began.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.plan.lock().unwrap().log)
    }

    fn step(&self, operation: &'static str, on: &str) -> Result<(), (Errno, bool)> {
        let mut plan = self.plan.lock().unwrap();
        plan.done += 1;
        plan.log.push(format!("{operation} {on}").trim_end().to_owned());
        let (is_it, is_past) = (plan.done == plan.at, plan.done >= plan.at);
        let outcome = match plan.failing {
            Failing::Once(errno) if is_it => Err((errno, false)),
            Failing::Torn(errno) if is_it => Err((errno, true)),
            Failing::Crash if is_past => Err((Errno::IO, is_it)),
            _ => Ok(()),
        };
        if outcome.is_err() && plan.hit.is_none() {
            plan.hit = Some(operation);
        }
        outcome
    }

    fn whole(&self, operation: &'static str, on: &str) -> io::Result<()> {
        self.step(operation, on).map_err(|(errno, _)| errno.into())
    }
}

fn last(folder: &Folder) -> &str {
    folder.path().file_name().unwrap().to_str().unwrap()
}

impl Disk for FaultyDisk {
    fn make_folder(&self, parent: &Folder, name: &str) -> io::Result<()> {
        self.whole("make_folder", name)?;
        RealDisk.make_folder(parent, name)
    }

    fn create_nameless(&self, folder: &Folder) -> io::Result<File> {
        if !self.has_nameless {
            return Err(Errno::OPNOTSUPP.into());
        }
        self.whole("create_nameless", last(folder))?;
        RealDisk.create_nameless(folder)
    }

    fn create_named(&self, folder: &Folder, name: &str) -> io::Result<File> {
        self.whole("create_named", last(folder))?;
        RealDisk.create_named(folder, name)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        if let Err((errno, is_torn)) = self.step("write", "") {
            if is_torn {
                RealDisk.write(file, &bytes[..bytes.len() / 2])?;
            }
            return Err(errno.into());
        }
        let is_short = {
            let mut plan = self.plan.lock().unwrap();
            let is_short = plan.failing == Failing::ShortWrites && plan.done >= plan.at;
            if is_short {
                plan.hit = Some("write");
            }
            is_short
        };
        let length = if is_short { bytes.len().div_ceil(3) } else { bytes.len() };
        RealDisk.write(file, &bytes[..length])
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.whole("sync_file", "")?;
        if let Some(mut intruder) = self.intruder.lock().unwrap().take() {
            intruder.write_all(b"intruder")?;
        }
        RealDisk.sync_file(file)
    }

    fn clone_bytes(&self, source: &File, file: &File) -> io::Result<()> {
        self.whole("clone_bytes", "")?;
        if !self.has_clones {
            return Err(Errno::OPNOTSUPP.into());
        }
        // The file systems of most test machines cannot share bytes; that they are the same file's is the point here.
        let mut bytes = Vec::new();
        (&*source).read_to_end(&mut bytes)?;
        RealDisk.write(file, &bytes).map(drop)
    }

    fn link(&self, file: &File, folder: &Folder, name: &str) -> io::Result<()> {
        self.whole("link", last(folder))?;
        RealDisk.link(file, folder, name)
    }

    fn rename(&self, from: &Folder, name: &str, to: &Folder, new_name: &str) -> io::Result<()> {
        self.whole("rename", last(to))?;
        RealDisk.rename(from, name, to, new_name)
    }

    fn remove(&self, folder: &Folder, name: &str) -> io::Result<()> {
        self.whole("remove", last(folder))?;
        RealDisk.remove(folder, name)
    }

    fn sync_folder(&self, folder: &Folder) -> io::Result<()> {
        self.whole("sync_folder", last(folder))?;
        RealDisk.sync_folder(folder)
    }

    fn open(&self, folder: &Folder, name: &str) -> io::Result<File> {
        self.whole("open", last(folder))?;
        let file = RealDisk.open(folder, name)?;
        let mut plan = self.plan.lock().unwrap();
        if plan.failing == Failing::Vanishing && plan.done == plan.at {
            plan.hit = Some("open");
            RealDisk.remove(folder, name)?;
        }
        Ok(file)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.whole("read_at", "")?;
        if let Some((inode, bytes)) = &*self.unreadable.lock().unwrap()
            && rustix::fs::fstat(file).unwrap().st_ino == *inode
            && offset < bytes.end
            && offset + buffer.len() as u64 > bytes.start
        {
            return Err(Errno::IO.into());
        }
        RealDisk.read_at(file, buffer, offset)
    }
}

/// Names the role that this program plays as a child of its own tests.
pub(crate) const ROLE: &str = "ARTIFACT_STORE_TEST_ROLE";
/// The folder of the store of such a child.
pub(crate) const FOLDER: &str = "ARTIFACT_STORE_TEST_FOLDER";
/// What a child prints when it has checked everything: a child that ran nothing is no proof.
pub(crate) const ALL_CHECKED: &str = "all checked";

/// Makes a command play a role: this program, restricted to the test that is the children's entrance.
pub(crate) fn in_role<'a>(command: &'a mut Command, role: &str, folder: &Path) -> &'a mut Command {
    command
        .env(ROLE, role)
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}

/// This program as a child in a role.
pub(crate) fn child(role: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(CHILD_ARGUMENTS);
    in_role(&mut command, role, folder);
    command
}

/// Arguments after which this program is the children's entrance and nothing else.
pub(crate) const CHILD_ARGUMENTS: [&str; 5] =
    ["children::entrance", "--exact", "--nocapture", "--quiet", "--test-threads=1"];

/// The child ended well and has checked what it was to check.
pub(crate) fn assert_all_checked(output: &Output) {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains(ALL_CHECKED), "{:?}\n{text}", output.status);
}

/// A reader that fails after some bytes.
pub(crate) struct FailingReader {
    pub(crate) bytes_left: usize,
}

impl Read for FailingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes_left == 0 {
            return Err(io::Error::other("the source broke"));
        }
        let count = buffer.len().min(self.bytes_left);
        buffer[..count].fill(7);
        self.bytes_left -= count;
        Ok(count)
    }
}
