//! A host that is killed leaves nothing behind, however its extensions tried to get away.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::programs::programs;
use crate::support::{BOUND, is_running};

/// Every descendant of `pid`, with their parents dead or alive, as far as /proc tells.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", found[at])).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    found.split_off(1)
}

#[test]
fn nothing_outlives_a_host_that_is_killed() {
    outlives_nothing("command = [\"hostile\", \"runaways\"]\n");
}

#[test]
fn nothing_outlives_a_host_that_is_killed_if_the_environment_says_the_mode() {
    outlives_nothing("command = [\"hostile\"]\nenvironment = { HOSTILE_MODE = \"runaways\" }\n");
}

fn outlives_nothing(run: &str) {
    let mut manifest = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = format!("name = \"runaways\"\nversion = \"0.1.0\"\n[run]\n{run}");
    manifest.write_all(text.as_bytes()).expect("a temporary file is writable");
    let mut host = Command::new(&programs().small_host)
        .arg(manifest.path())
        .args([programs().hostile.as_os_str(), "misbehave".as_ref(), "stay".as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the small host starts");
    let mut answer = String::new();
    let mut stdout = BufReader::new(host.stdout.take().expect("stdout is piped"));
    stdout.read_line(&mut answer).expect("the host answers");
    assert!(!answer.is_empty(), "the host failed");
    let below = descendants(host.id());
    // The launcher, the extension, and two that got away from it.
    assert!(below.len() >= 4 && below.iter().all(|pid| is_running(*pid)), "{below:?}");
    host.kill().expect("the host is ours");
    host.wait().expect("the host is ours");
    let give_up = Instant::now() + BOUND;
    while below.iter().any(|pid| is_running(*pid)) {
        assert!(Instant::now() < give_up, "some of {below:?} still run");
        std::thread::yield_now();
    }
}

#[test]
fn the_example_calls_and_stops() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../extensions/hostile/extension.toml");
    let output = Command::new(&programs().small_host)
        .args([manifest.as_ref(), programs().hostile.as_os_str(), "echo".as_ref()])
        .output()
        .expect("the small host starts");
    // MessagePack's nil.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\\xc0\n");
    assert!(output.status.success(), "{output:?}");
}
