//! A copy of the tree in a temporary folder, to be broken and mended again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tempfile::TempDir;
use xtask::cargo::Cargo;
use xtask::{Broken, Workspace, check, workspace};

/// The tree as it is when the tests begin, with what cargo says of it: asked once, used for every copy.
static ORIGINAL: LazyLock<(TempDir, Workspace)> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the tree");
    let folder = copy(root);
    let workspace = Workspace::load(folder.path()).expect("cargo understands the tree");
    (folder, workspace)
});

/// What is broken in the original. It should be nothing, which one test says and the others do not repeat.
static BEFORE: LazyLock<BTreeSet<String>> =
    LazyLock::new(|| check(&ORIGINAL.1).iter().map(without_line).collect());

/// A tree that may be changed.
pub(crate) struct Copy {
    folder: TempDir,
    /// As it was read before the first change.
    clean: Workspace,
    /// As cargo would say it of the changed tree.
    pub(crate) cargo: Cargo,
    /// Changed files, as they were. `None`: they were not there.
    changed: BTreeMap<String, Option<String>>,
}

impl Copy {
    pub(crate) fn new() -> Self {
        let folder = copy(&ORIGINAL.1.root);
        let cargo = ORIGINAL.1.cargo.clone();
        let clean = Workspace::read(folder.path(), cargo.clone()).expect("the tree can be read");
        Self { folder, clean, cargo, changed: BTreeMap::new() }
    }

    /// Takes every change back.
    pub(crate) fn mend(&mut self) {
        for (path, text) in std::mem::take(&mut self.changed) {
            let at = self.root().join(path);
            match text {
                Some(text) => fs::write(at, text),
                None => fs::remove_file(at),
            }
            .expect("the file can be changed once more");
        }
        self.cargo = ORIGINAL.1.cargo.clone();
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn write(&mut self, path: &str, text: &str) {
        self.write_bytes(path, text.as_bytes());
    }

    pub(crate) fn write_bytes(&mut self, path: &str, bytes: &[u8]) {
        let at = self.remembered(path);
        fs::write(at, bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    pub(crate) fn remove(&mut self, path: &str) {
        let at = self.remembered(path);
        fs::remove_file(at).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Where a file is that is about to be changed, and can be mended from now on.
    fn remembered(&mut self, path: &str) -> PathBuf {
        let at = self.root().join(path);
        self.changed.entry(path.to_owned()).or_insert_with(|| fs::read_to_string(&at).ok());
        at
    }

    /// Replaces `from`, which must be there.
    #[track_caller]
    pub(crate) fn replace(&mut self, path: &str, from: &str, to: &str) {
        let text = self.text(path);
        assert!(text.contains(from), "{path} has no {from:?}: the case no longer breaks anything");
        self.write(path, &text.replace(from, to));
    }

    pub(crate) fn append(&mut self, path: &str, more: &str) {
        self.write(path, &(self.text(path) + more));
    }

    /// The tree as it is now.
    pub(crate) fn workspace(&self) -> Workspace {
        let mut workspace = self.clean.clone();
        workspace.cargo = self.cargo.clone();
        let changed: Vec<_> = self.changed.keys().cloned().collect();
        workspace.read_again(&changed).expect("the tree can be read");
        workspace
    }

    /// What is broken here and was not in the original.
    pub(crate) fn newly_broken(&self) -> Vec<Broken> {
        let broken = check(&self.workspace()).into_iter();
        broken.filter(|broken| !BEFORE.contains(&without_line(broken))).collect()
    }
}

/// What is broken in the tree as it is.
pub(crate) fn broken_before() -> &'static BTreeSet<String> {
    &BEFORE
}

/// An edit moves lines, and what was broken before is not new because of that.
fn without_line(broken: &Broken) -> String {
    let mut broken = broken.clone();
    broken.failure.line = None;
    broken.to_string()
}

fn copy(root: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("there is room");
    for path in workspace::list(root).expect("the tree can be read") {
        let to = folder.path().join(&path);
        fs::create_dir_all(to.parent().expect("a file lies in a folder")).expect("there is room");
        match fs::copy(root.join(&path), to) {
            // Somebody saves a file by renaming another.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            copied => drop(copied.expect("there is room")),
        }
    }
    folder
}
