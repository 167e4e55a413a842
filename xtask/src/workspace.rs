//! A tree as the rules see it: its text files, and what cargo says of it.
//!
//! Reading it and asking cargo are two steps, so that a copy can be judged with what cargo said of the original.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;

use crate::cargo::Cargo;
use crate::source::{self, Source};

/// Folders that hold nothing of ours, wherever they lie.
const SKIPPED: &[&str] = &[".git", "target", ".symphony", "node_modules", "__pycache__"];

/// A tree. A clone shares the files' contents.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Absolute.
    pub root: PathBuf,
    /// Members and what they depend on.
    pub cargo: Cargo,
    /// By path below the root. `None`: not a text.
    files: BTreeMap<String, Option<Arc<str>>>,
    sources: BTreeMap<String, Arc<Source>>,
}

impl Workspace {
    /// Reads the tree and asks cargo.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or cargo does not understand the tree: the text is cargo's.
    pub fn load(root: &Path) -> anyhow::Result<Self> {
        Self::read(root, Cargo::ask(root)?)
    }

    /// Reads the tree.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn read(root: &Path, cargo: Cargo) -> anyhow::Result<Self> {
        let mut workspace =
            Self { root: root.to_path_buf(), cargo, files: BTreeMap::new(), sources: BTreeMap::new() };
        workspace.read_again(&list(root)?)?;
        Ok(workspace)
    }

    /// Reads some files of the tree once more, new ones included. What is gone is forgotten.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn read_again(&mut self, paths: &[String]) -> anyhow::Result<()> {
        for path in paths {
            let text = match fs::read(self.root.join(path)) {
                Ok(bytes) => String::from_utf8(bytes).ok(),
                // A name that is no text is known only as it is shown, which is no name to read it by.
                Err(_) if path.contains(char::REPLACEMENT_CHARACTER) => None,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.files.remove(path);
                    self.sources.remove(path);
                    continue;
                }
                Err(error) => return Err(error).with_context(|| path.clone()),
            };
            if let Some(text) = text.as_ref().filter(|_| is_a(path, "rs")) {
                self.sources.insert(path.clone(), Arc::new(Source::new(text)));
            }
            self.files.insert(path.clone(), text.map(Arc::from));
        }
        source::mark_test_files(&mut self.sources);
        Ok(())
    }

    /// Every file's path below the root, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Every document.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts("md")
    }

    /// Every file with its text, if it is one.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_deref()))
    }

    pub(crate) fn all_texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter_map(|(path, text)| Some((path, text?)))
    }

    pub(crate) fn texts(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        self.all_texts().filter(move |(path, _)| is_a(path, extension))
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.sources.iter().map(|(path, source)| (path.as_str(), &**source))
    }

    pub(crate) fn source(&self, path: &str) -> Option<&Source> {
        self.sources.get(path).map(|source| &**source)
    }

    /// Whether `path` is a file or a folder of the tree.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.has_file(path) || self.is_folder(path)
    }

    pub(crate) fn has_file(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    pub(crate) fn is_folder(&self, path: &str) -> bool {
        let below = format!("{path}/");
        path.is_empty()
            || self.files.range(below.clone()..).next().is_some_and(|(p, _)| p.starts_with(&below))
    }
}

fn is_a(path: &str, extension: &str) -> bool {
    path.strip_suffix(extension).is_some_and(|path| path.ends_with('.'))
}

/// Paths of the files of the tree at `root`, with `/` between: what git has or would take, so that what it ignores is
/// nobody's business. A tree without git, such as an unpacked archive, is walked.
///
/// # Errors
///
/// A folder cannot be read, or git does not understand the tree: the text is git's.
pub fn list(root: &Path) -> anyhow::Result<Vec<String>> {
    if !root.join(".git").exists() {
        return walk(root);
    }
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = match Command::new("git").args(arguments).current_dir(root).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return walk(root),
        output => output.context("git could not be run")?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "git ls-files: {}", said.trim_end());
    // Not what git still has and the disk no longer does, and no links: walking finds neither.
    let is_file = |path: &OsStr| root.join(path).symlink_metadata().is_ok_and(|it| it.is_file());
    let paths = output.stdout.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let mut found: Vec<_> =
        paths.filter(|path| is_file(path)).map(|path| path.to_string_lossy().into_owned()).collect();
    found.sort();
    // Where a merge is not done, git has a path more than once.
    found.dedup();
    Ok(found)
}

fn walk(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let at = root.join(&folder);
        for entry in fs::read_dir(&at).with_context(|| at.display().to_string())? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                    folders.push(path);
                }
            } else if kind.is_file() {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
