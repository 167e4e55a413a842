//! Which files belong to a tree: what git has or would take, and all of them where there is no git.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use xtask::workspace;

/// Runs git in a folder. `false`: it cannot be run.
fn git(folder: &Path, arguments: &[&str]) -> bool {
    let Ok(status) = Command::new("git").args(arguments).current_dir(folder).status() else { return false };
    assert!(status.success(), "git {arguments:?}: {status}");
    true
}

#[test]
fn what_git_ignores_or_has_lost_is_not_of_the_tree() {
    let folder = tempfile::tempdir().expect("there is room");
    let write = |path: &str| fs::write(folder.path().join(path), "x\n").expect("there is room");
    fs::create_dir(folder.path().join("part")).expect("there is room");
    ["part/known", "gone", "new", "ignored"].into_iter().for_each(write);
    fs::write(folder.path().join(".gitignore"), "/ignored\n").expect("there is room");
    std::os::unix::fs::symlink("new", folder.path().join("link")).expect("there is room");
    let all = workspace::list(folder.path()).expect("the folder can be read");
    assert_eq!(all, [".gitignore", "gone", "ignored", "new", "part/known"]);
    if !git(folder.path(), &["init", "--quiet"]) {
        // Past the capture of output, so that it is counted.
        let name = "what_git_ignores_or_has_lost_is_not_of_the_tree";
        let _ = writeln!(std::io::stderr(), "skipped: {name}: git cannot be run");
        return;
    }
    git(folder.path(), &["add", "part/known", "gone"]);
    fs::remove_file(folder.path().join("gone")).expect("it was there");
    fs::write(folder.path().join(OsStr::from_bytes(b"caf\xe9")), "x\n").expect("there is room");
    let ours = workspace::list(folder.path()).expect("git knows the folder");
    assert_eq!(ours, [".gitignore", "caf\u{fffd}", "new", "part/known"]);
}
