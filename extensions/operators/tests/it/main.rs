//! Measuring real files with the built extension, and what is made of it.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use extension_sdk::{Blob, FaultCode, testing};
use interfaces::{Entry, OperatorsClient, Problem, Row, Totals};
use serde_json::json;

const OPERATORS: &str = env!("CARGO_BIN_EXE_operators");

/// BLAKE3 of nothing, from the algorithm's test vectors.
const BLAKE3_OF_NOTHING: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

fn operators() -> OperatorsClient {
    OperatorsClient::new(testing::process(OPERATORS).expect("it starts"))
}

fn blob(path: &Path) -> Blob {
    Blob(path.as_os_str().as_bytes().to_vec())
}

fn entry(path: &[u8], bytes: u64) -> Entry {
    Entry { path: Blob(path.to_vec()), bytes }
}

#[test]
fn a_file_is_measured_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = blob(folder.path());
    let large = "two words\n".repeat(100_000);
    type Case<'a> = (&'a [u8], &'a [u8], u64, u64, &'a str, &'a str);
    let cases: [Case<'_>; 6] = [
        (b"empty.rs", b"", 0, 0, "empty.rs", "Rust"),
        (b"a\nb.py", b"x = 1", 1, 3, "a\nb.py", "Python"),
        (b"invalid\xff.md", b"a\n\nb\n", 3, 2, "invalid\\xff.md", "Markdown"),
        (b"no-name", b"plain\n", 1, 1, "no-name", "Other"),
        (b"data", b"\0\n\0", 2, 2, "data", "Binary"),
        (b"large.txt", large.as_bytes(), 100_000, 200_000, "large.txt", "Text"),
    ];
    let operators = operators();
    for (name, content, lines, words, path, language) in cases {
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), content).unwrap();
        // What the listing said is no longer true: the file's own length counts.
        let row = testing::block_on(operators.measure(root.clone(), entry(name, 12_345))).unwrap();
        let expected = Row {
            path: path.into(),
            bytes: content.len() as u64,
            lines,
            words,
            language: language.into(),
            blake3: Some(blake3::hash(content).to_hex().to_string()),
            error: None,
        };
        assert_eq!(row, expected);
    }
    assert_eq!(blake3::hash(b"").to_hex().as_str(), BLAKE3_OF_NOTHING);
}

#[test]
fn what_cannot_be_read_is_a_row_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    symlink("/etc/hostname", at("link.txt")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let mut cases = vec![
        ("gone.rs", "it is no longer there"),
        ("folder", "it is no longer a regular file"),
        ("link.txt", "it is no longer a regular file"),
        ("pipe", "it is no longer a regular file"),
        ("socket", "it is no longer a regular file"),
        ("gone/too", "it is no longer there"),
    ];
    if rustix::process::geteuid().is_root() {
        // Past the capture of passing tests, so that a summary can count it.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: what_cannot_be_read, a locked file: root may read everything"
        );
    } else {
        fs::write(at("locked"), "x").unwrap();
        fs::set_permissions(at("locked"), fs::Permissions::from_mode(0o000)).unwrap();
        cases.push(("locked", "Permission denied (os error 13)"));
    }
    let operators = operators();
    for (name, error) in cases {
        let call = operators.measure(blob(folder.path()), entry(name.as_bytes(), 7));
        let row = testing::block_on(call).unwrap();
        assert_eq!((row.path.as_str(), row.error.as_deref()), (name, Some(error)));
        assert_eq!((row.bytes, row.blake3), (7, None));
    }
}

#[test]
fn a_path_that_leads_out_of_the_root_is_refused() {
    let operators = operators();
    for path in [&b"/etc/hostname"[..], b"../x", b"a/../../x"] {
        let call = operators.measure(Blob(b"/tmp".to_vec()), entry(path, 0));
        assert_eq!(testing::fault(call).code, FaultCode::InvalidArgument);
    }
}

#[test]
fn rows_become_a_ranking_a_report_and_json() {
    let operators = OperatorsClient::new(testing::process_with(OPERATORS, &json!({"largest": 1})).unwrap());
    let row =
        |path: &str, bytes: u64| Row { path: path.into(), bytes, language: "Rust".into(), ..Row::default() };
    let gone = Row { error: Some("gone".into()), ..row("c", 9) };
    let rows = vec![row("a", 1), row("b`|\n", 2), gone];
    let problem = Problem { path: "locked".into(), error: "refused".into() };
    let ranking = operators.rank(Blob(b"/x\xff".to_vec()), rows.clone(), vec![problem.clone()], 3);
    let ranking = testing::block_on(ranking).unwrap();
    assert_eq!(ranking.root, "/x\\xff");
    assert_eq!(ranking.totals, Totals { files: 3, bytes: 3, lines: 0, words: 0 });
    assert_eq!(ranking.largest.len(), 1, "as configured");
    assert_eq!((ranking.unread.len(), &ranking.problems, ranking.problems_left_out), (1, &vec![problem], 3));
    let report = testing::block_on(operators.render(ranking)).unwrap();
    assert!(report.starts_with("# Folder report\n") && report.contains("- and 3 more\n"), "{report}");

    let text = testing::block_on(operators.to_json(rows)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let paths: Vec<_> = json.as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["c", "b`|\n", "a"]);
    assert_eq!(json[0]["error"], "gone");
}

#[test]
fn nothing_becomes_a_report_and_an_empty_array() {
    let operators = operators();
    let ranking = testing::block_on(operators.rank(Blob::default(), Vec::new(), Vec::new(), 0)).unwrap();
    let report = testing::block_on(operators.render(ranking)).unwrap();
    assert!(report.contains("There are no files in this folder."));
    assert_eq!(testing::block_on(operators.to_json(Vec::new())).unwrap(), "[]\n");
}

#[test]
fn a_wrong_configuration_stops_the_start_with_a_reason() {
    for (config, part) in [
        (json!({"largest": 1_000_000}), "at most 10000"),
        (json!({"largest": "many"}), "key `largest`"),
        (json!({"smallest": 1}), "unknown field `smallest`"),
    ] {
        let fault = testing::process_with(OPERATORS, &config).unwrap_err();
        assert_eq!(fault.code, FaultCode::InvalidArgument);
        assert!(fault.message.contains(part), "{}", fault.message);
    }
}

#[test]
fn a_file_that_takes_longer_than_its_call_may_is_a_row_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing on the disk, but hours to read.
    fs::File::create(folder.path().join("endless")).unwrap().set_len(1 << 43).unwrap();
    let operators = operators().with_timeout(std::time::Duration::from_secs(2));
    let call = operators.measure(blob(folder.path()), entry(b"endless", 7));
    let row = testing::block_on(call).unwrap();
    assert_eq!(row.error.as_deref(), Some("it could not be read to its end within 2s"));
    assert_eq!((row.bytes, row.blake3), (7, None));
}
