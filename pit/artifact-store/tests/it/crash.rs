//! Processes that are killed while they write.
//!
//! This proves the order of operations against the page cache, not what a disk keeps when the power goes.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use artifact_store::Digest;

use crate::support::{check_whole, child, open, report};

/// Starts a writer, kills it after some acknowledgements and a moment, and returns what it had said by then.
fn kill_a_writer(role: &str, folder: &Path, acknowledgements: usize, moment: Duration) -> Vec<String> {
    let mut child = child(role, folder).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    while said.len() < acknowledgements {
        let line = lines.next().expect("the writer ended by itself").unwrap();
        if line.starts_with("stored") || line.starts_with("named") {
            said.push(line);
        }
    }
    let start = Instant::now();
    while start.elapsed() < moment {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    // The last line may be cut off: only a whole one is an acknowledgement, and a whole one has this length.
    let rest = lines.map_while(Result::ok);
    said.extend(rest.filter(|line| line.split(' ').next_back().is_some_and(|digest| digest.len() == 64)));
    said
}

fn kill_again_and_again(role: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut stored = HashSet::new();
    let mut version = 0;
    let mut swept = 0;
    for round in 0..25 {
        // Not at the acknowledgement but at some moment of what follows it; the steps are primes, to meet many.
        let moment = Duration::from_micros(round * 1_009 % 7_919);
        for line in kill_a_writer(role, folder.path(), 1 + usize::try_from(round % 3).unwrap(), moment) {
            let mut words = line.split(' ').skip(1);
            match words.clone().count() {
                1 => drop(stored.insert(words.next().unwrap().parse::<Digest>().unwrap())),
                _ => version = words.next().unwrap().parse().unwrap(),
            }
        }
        let store = open(folder.path());
        swept += store.open_report().swept;
        let present = check_whole(folder.path());
        assert!(present >= stored.len(), "{present} artifacts, {} acknowledged", stored.len());
        for digest in &stored {
            store.get(digest).unwrap();
        }
        if let Some(named) = store.resolve("latest").unwrap() {
            assert!(named.version >= version, "an acknowledged name is gone");
            store.get(&named.digest).unwrap();
        } else {
            assert_eq!(version, 0, "an acknowledged name is gone");
        }
    }
    assert!(stored.len() >= 25, "{}", stored.len());
    report(&format!(
        "25 kills, {} artifacts acknowledged, {swept} files of dead writers swept",
        stored.len()
    ));
}

#[test]
fn a_writer_killed_at_any_moment_leaves_only_whole_artifacts() {
    kill_again_and_again("put until killed");
}

#[test]
fn a_writer_killed_at_any_moment_leaves_only_whole_artifacts_without_nameless_files() {
    kill_again_and_again("put until killed, without nameless files");
}

#[test]
fn what_a_dead_writer_left_is_swept_and_what_a_stopped_one_holds_is_not() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path());
    let mut child = child("stop while writing", folder.path()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "writing"), "the writer ended by itself");
    let left = || std::fs::read_dir(folder.path().join("tmp")).unwrap().count();
    assert_eq!((open(folder.path()).open_report().swept, left()), (0, 1));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((open(folder.path()).open_report().swept, left()), (1, 0));
    assert_eq!(check_whole(folder.path()), 0);
}
