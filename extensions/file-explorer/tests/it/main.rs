//! Listing real folders with the built extension.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use extension_sdk::{Blob, Fault, FaultCode, testing};
use interfaces::{FileExplorerClient, Listing, Tree};
use tempfile::TempDir;

fn explorer() -> FileExplorerClient {
    FileExplorerClient::new(testing::process(env!("CARGO_BIN_EXE_file-explorer")).expect("it starts"))
}

fn list(folder: &Path, all: bool) -> Tree {
    let request = Listing { path: blob(folder), recursive: true, all };
    testing::block_on(explorer().list(request)).expect("it is listed")
}

fn blob(path: &Path) -> Blob {
    Blob(path.as_os_str().as_bytes().to_vec())
}

fn fault(path: &Path) -> Fault {
    testing::fault(explorer().list(Listing { path: blob(path), recursive: true, all: false }))
}

/// Writes files by their paths as bytes, each with its own path's length as its content's length.
fn folder(files: &[&[u8]]) -> TempDir {
    let folder = tempfile::tempdir().expect("there is room for files");
    for path in files {
        let file = folder.path().join(OsStr::from_bytes(path));
        let made = fs::create_dir_all(file.parent().unwrap_or(folder.path()));
        made.and_then(|()| fs::write(file, vec![b'x'; path.len()])).expect("a file is written");
    }
    folder
}

fn paths(tree: &Tree) -> Vec<&[u8]> {
    tree.entries.iter().map(|entry| &entry.path[..]).collect()
}

#[test]
fn names_of_any_bytes_are_listed_in_the_order_of_their_bytes() {
    let files: [&[u8]; 7] =
        [b" leading", b"a\nb", b"a b/c|d", b"a`b", b"caf\xc3\xa9", b"invalid\xff\xfe/x", b"z\\x41"];
    let folder = folder(&files);
    let tree = list(folder.path(), false);
    let mut expected = files.to_vec();
    expected.sort_unstable();
    assert_eq!(paths(&tree), expected);
    assert!(tree.entries.iter().all(|entry| entry.bytes == entry.path.len() as u64));
    assert_eq!(tree.root, blob(&folder.path().canonicalize().unwrap()));
    assert_eq!((tree.problems, tree.problems_left_out), (Vec::new(), 0));
}

#[test]
fn only_regular_files_are_listed_and_links_are_not_followed() {
    let folder = folder(&[b"real", b"sub/real"]);
    let at = |name: &str| folder.path().join(name);
    symlink(folder.path(), at("sub/loop")).unwrap();
    symlink("self", at("self")).unwrap();
    symlink("/etc", at("elsewhere")).unwrap();
    symlink("real", at("to-a-file")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    for all in [false, true] {
        let tree = list(folder.path(), all);
        assert_eq!(paths(&tree), [&b"real"[..], b"sub/real"]);
        assert_eq!(tree.problems, []);
    }
    // The folder itself may be given by a link.
    symlink(folder.path(), at("again")).unwrap();
    assert_eq!(paths(&list(&at("again"), false)).len(), 2);
}

#[test]
fn hidden_and_ignored_files_are_listed_only_if_all_are() {
    let files: [&[u8]; 7] =
        [b".git/config", b".gitignore", b".hidden/a", b".ignore", b"kept", b"target/x", b"sub/note.log"];
    let folder = folder(&files);
    fs::write(folder.path().join(".gitignore"), "target/\n*.log\n").unwrap();
    // Not a file of git's: it must not count.
    fs::write(folder.path().join(".ignore"), "kept\n").unwrap();
    assert_eq!(paths(&list(folder.path(), false)), [&b"kept"[..]]);
    let mut expected = files.to_vec();
    expected.sort_unstable();
    assert_eq!(paths(&list(folder.path(), true)), expected);
    // A folder inside is subject to the file above it.
    assert_eq!(paths(&list(&folder.path().join("sub"), false)), [&b""[..]; 0]);
}

#[test]
fn without_recursion_only_the_folder_itself_is_listed() {
    let folder = folder(&[b"a", b"sub/b"]);
    let request = Listing { path: blob(folder.path()), recursive: false, all: false };
    let tree = testing::block_on(explorer().list(request)).unwrap();
    assert_eq!(paths(&tree), [&b"a"[..]]);
}

#[test]
fn an_empty_folder_is_an_empty_list() {
    let folder = folder(&[]);
    let tree = list(folder.path(), true);
    assert_eq!((tree.entries, tree.problems), (Vec::new(), Vec::new()));
}

#[test]
fn what_is_no_folder_is_a_fault_that_says_so() {
    let folder = folder(&[b"file"]);
    let missing = fault(&folder.path().join("missing"));
    assert_eq!(missing.code, FaultCode::NotFound);
    assert!(missing.message.contains("there is no folder `") && missing.message.contains("missing"));
    assert_eq!(fault(&folder.path().join("file")).code, FaultCode::InvalidArgument);
    assert_eq!(fault(Path::new("")).code, FaultCode::InvalidArgument);
    assert_eq!(fault(Path::new("a\0b")).code, FaultCode::Io);
}

#[test]
fn folders_that_may_not_be_read_are_problems_inside_and_a_fault_as_the_root() {
    if rustix::process::geteuid().is_root() {
        // Past the capture of passing tests, so that a summary can count it.
        let _ =
            writeln!(std::io::stderr(), "skipped: folders_that_may_not_be_read: root may read everything");
        return;
    }
    let folder = folder(&[b"a", b"locked/b"]);
    let locked = folder.path().join("locked");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    let tree = list(folder.path(), false);
    let root = fault(&locked);
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(paths(&tree), [&b"a"[..]]);
    assert_eq!(tree.problems.len(), 1);
    assert_eq!(tree.problems[0].path, "locked");
    assert_eq!(root.code, FaultCode::PermissionDenied);
}

#[test]
fn a_broken_gitignore_is_a_problem_and_the_rest_of_it_counts() {
    let folder = folder(&[b"a", b"b.log"]);
    fs::write(folder.path().join(".gitignore"), "{a\n*.log\n").unwrap();
    let tree = list(folder.path(), false);
    assert_eq!(paths(&tree), [&b"a"[..]]);
    assert_eq!(tree.problems.len(), 1);
    assert!(tree.problems[0].error.contains("{a"), "{:?}", tree.problems);
}

/// All that comes until the stream ends.
fn lines(path: &Path) -> Vec<Vec<u8>> {
    let mut lines = explorer().lines(blob(path), false).wait().expect("it is read");
    std::iter::from_fn(|| lines.wait()).map(|line| line.expect("a line").0).collect()
}

#[test]
fn lines_are_the_bytes_between_ends_of_lines() {
    let folder = folder(&[]);
    let file = folder.path().join("file");
    let long = vec![b'x'; (512 << 10) + 5];
    for (content, expected) in [
        (&b""[..], &[][..]),
        (b"\n", &[&b""[..]]),
        (b"a\n\nb\xff", &[b"a", b"", b"b\xff"]),
        (b"a\r\n", &[b"a\r"]),
        (&long, &[&long[..512 << 10], b"xxxxx"]),
    ] {
        fs::write(&file, content).expect("a file is written");
        assert_eq!(lines(&file), expected, "{:?}", content.escape_ascii().to_string().get(..20));
    }
    let missing = testing::fault(explorer().lines(blob(&folder.path().join("none")), false));
    assert_eq!(missing.code, FaultCode::NotFound);
    assert!(missing.message.starts_with("there is no file `"), "{}", missing.message);
    let wrong = testing::fault(explorer().lines(blob(folder.path()), false));
    assert_eq!(wrong.code, FaultCode::InvalidArgument);
}
