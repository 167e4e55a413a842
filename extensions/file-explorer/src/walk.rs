//! The walk: every regular file below a folder, whatever its name, and what could not be looked into.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use extension_sdk::{Blob, Context, Fault};
use ignore::{DirEntry, Error, WalkBuilder};
use interfaces::{Entry, Listing, Problem, Tree};

/// LIMIT: problems that a result names; the rest is counted.
const PROBLEMS_MAX: usize = 1000;

/// Files between two looks at the clock.
const CHECK_INTERVAL_FILES: u64 = 256;

/// Lists the regular files below `root`.
///
/// # Errors
///
/// The context's fault, when the call was cancelled or its deadline passed.
pub(crate) fn walk(cx: &Context, root: &Path, listing: &Listing) -> Result<Tree, Fault> {
    let mut walker = WalkBuilder::new(root);
    walker
        .standard_filters(false)
        .follow_links(false)
        .max_depth(if listing.recursive { None } else { Some(1) })
        .hidden(!listing.all)
        .git_ignore(!listing.all)
        .parents(!listing.all)
        // A `.gitignore` counts in a copy without `.git`, too.
        .require_git(false);
    let mut found = Found { root, tree: Tree { root: blob(root), ..Tree::default() } };
    let mut seen = 0;
    for entry in walker.build() {
        seen += 1;
        if seen % CHECK_INTERVAL_FILES == 0 {
            cx.check()?;
            cx.progress(found.tree.entries.len() as u64, None, "files found");
        }
        match entry {
            Ok(entry) => found.add(&entry),
            Err(error) => found.add_problem(root, &error),
        }
    }
    let Found { mut tree, .. } = found;
    tree.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    tree.problems.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(tree)
}

struct Found<'a> {
    root: &'a Path,
    tree: Tree,
}

impl Found<'_> {
    fn add(&mut self, entry: &DirEntry) {
        if let Some(error) = entry.error() {
            self.add_problem(entry.path(), error);
        }
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            return;
        }
        match entry.metadata() {
            Ok(metadata) => {
                let path = blob(entry.path().strip_prefix(self.root).unwrap_or(entry.path()));
                self.tree.entries.push(Entry { path, bytes: metadata.len() });
            }
            // It is gone since its folder was read, and so it is not there.
            Err(error) if is_not_found(&error) => {}
            // In a folder that may be read but not entered: a file all the same, and whoever opens it will say
            // why that cannot be done.
            Err(_) => {
                let path = blob(entry.path().strip_prefix(self.root).unwrap_or(entry.path()));
                self.tree.entries.push(Entry { path, bytes: 0 });
            }
        }
    }

    fn add_problem(&mut self, path: &Path, error: &Error) {
        if self.tree.problems.len() >= PROBLEMS_MAX {
            self.tree.problems_left_out += 1;
            return;
        }
        let (path, text) = describe(path, error);
        let path = path.strip_prefix(self.root).unwrap_or(path);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        self.tree.problems.push(Problem { path: blob(path).to_string(), error: text });
    }
}

fn is_not_found(error: &Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Which path an error speaks of, as far as it says, and what happened.
fn describe<'a>(path: &'a Path, error: &'a Error) -> (&'a Path, String) {
    match error {
        Error::WithPath { path, err } => describe(path, err),
        Error::WithDepth { err, .. } | Error::WithLineNumber { err, .. } => describe(path, err),
        Error::Io(error) => (path, error.to_string()),
        other => (path, other.to_string()),
    }
}

fn blob(path: &Path) -> Blob {
    Blob(path.as_os_str().as_bytes().to_vec())
}
