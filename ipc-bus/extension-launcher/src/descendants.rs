//! Who is below the launcher, and the end of all of them.
//!
//! The launcher is a subreaper: whoever loses its parent anywhere below becomes its child, however it forked,
//! whatever session or group it made for itself. So killing children until there are none kills all.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::time::Timespec;

/// LIMIT: how long to go on killing. A process in an uninterruptible system call dies when that ends, killed
/// already and without the launcher.
const KILL_TIME_MAX: Duration = Duration::from_secs(5);

/// A child that was missed (it appeared while the list was read) is found after this time, even if no other
/// child ends meanwhile.
const RESCAN_AFTER: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Reaps every child that has ended, and tells of the one with `pid`.
pub(crate) fn reap(pid: Pid) -> (Option<WaitStatus>, Children) {
    let mut ended = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((reaped, status))) if reaped == pid => ended = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return (ended, Children::Some),
            Err(_) => return (ended, Children::None),
        }
    }
}

/// Whether there are children left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Children {
    /// At least one, running.
    Some,
    /// None, and so no descendants either.
    None,
}

/// Kills every descendant and reaps them until there are none; tells how the one with `pid` ended, if it was
/// still there, and whether any could not be killed in time. `child_signal` is readable when a child has ended.
pub(crate) fn kill_all(pid: Pid, child_signal: impl AsFd) -> (Option<WaitStatus>, Children) {
    let give_up = Instant::now() + KILL_TIME_MAX;
    let mut ended = None;
    // The whole group in one call first: a program that forks without pause cannot outrun that.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    loop {
        for child in children().unwrap_or_default() {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
        let (status, left) = reap(pid);
        ended = ended.or(status);
        if left == Children::None || Instant::now() >= give_up {
            return (ended, left);
        }
        let mut waited = [PollFd::new(&child_signal, PollFlags::IN)];
        let _ = poll(&mut waited, Some(&RESCAN_AFTER));
        drain(&child_signal);
    }
}

/// Empties the signal descriptor, so that the next wait is for a new signal.
fn drain(child_signal: impl AsFd) {
    let mut signals = [0_u8; 1024];
    while matches!(rustix::io::read(&child_signal, &mut signals), Ok(1..)) {}
}

/// The children of this process, which has one thread.
fn children() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid().as_raw_pid();
    match fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        Ok(list) => Ok(list.split_ascii_whitespace().filter_map(parse_pid).collect()),
        // A kernel without CONFIG_PROC_CHILDREN: look at every process.
        Err(_) => children_by_scan(own),
    }
}

fn children_by_scan(own: i32) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(parse_pid) else { continue };
        let Ok(stat) = fs::read(entry.path().join("stat")) else { continue };
        if parent_in_stat(&stat) == Some(own) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The fourth field of `/proc/PID/stat`. The second, the name in brackets, may hold anything, brackets and
/// spaces included: so count from its last bracket.
fn parent_in_stat(stat: &[u8]) -> Option<i32> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_the_same_children() {
        let own = rustix::process::getpid().as_raw_pid();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep starts");
        let found = children_by_scan(own).expect("/proc is readable");
        child.kill().expect("the child is ours");
        child.wait().expect("the child is ours");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        assert!(found.contains(&pid), "{found:?}");
    }

    #[test]
    fn parent_is_found_behind_a_hostile_name() {
        for (stat, parent) in [
            (&b"12 (sh) S 7 12 12"[..], Some(7)),
            (b"12 (a) R 9 (b) S 7 1 1", Some(7)),
            (b"12 (\xff\xfe) Z 1 1", Some(1)),
            (b"12 (sh", None),
            (b"", None),
        ] {
            assert_eq!(parent_in_stat(stat), parent);
        }
    }
}
