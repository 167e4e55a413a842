//! What a launcher left behind that was itself killed: found by a mark in its environment, and killed.
//!
//! A launcher kills all that its program started. One that gets SIGKILL cannot: its program dies with it, but
//! whoever had lost its parent before goes to the system's init. So every program is started with a variable of
//! its own, [`INSTANCE_VARIABLE`], which all that it starts inherits; after a launcher's sudden end every process
//! that has it is killed. A process that takes the variable out of its environment on purpose, or forbids others
//! to read it, is not found. This file must not know who was started, or why.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::time::Timespec;

use crate::random::Random;

/// The variable that every program under a launcher has: a random number, another one for each start.
pub const INSTANCE_VARIABLE: &str = "SYMPHONY_INSTANCE";

/// LIMIT: how long to look and kill. Whoever forks faster than that is left to the operator.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(5);

/// LIMIT: how long to look again at processes that show no environment yet. Whoever was started with none never shows
/// one, and must not hold up a restart.
const UNKNOWN_TIME_MAX: Duration = Duration::from_millis(50);

/// Between two such looks.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(1);

/// LIMIT: bytes of an environment that are looked at. The kernel allows a program fewer by default.
const ENVIRONMENT_BYTES_MAX: u64 = 8 << 20;

/// What one started program and all that it starts have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// `NAME=VALUE`.
    entry: String,
}

impl Mark {
    /// A new one: 128 bits.
    pub(crate) fn random() -> Self {
        let (high, low) = (Random::from_system().next(), Random::from_system().next());
        Self { entry: format!("{INSTANCE_VARIABLE}={high:016x}{low:016x}") }
    }

    /// Name and value of the variable.
    pub(crate) fn variable(&self) -> (&OsStr, &OsStr) {
        let (name, value) = self.entry.split_once('=').unwrap_or((INSTANCE_VARIABLE, ""));
        (OsStr::new(name), OsStr::new(value))
    }

    /// Whether an environment, as the kernel shows it, has the variable.
    fn is_in(&self, environment: &[u8]) -> bool {
        environment.split(|&byte| byte == 0).any(|entry| entry == self.entry.as_bytes())
    }

    fn is_on(&self, pid: Pid) -> Borne {
        let folder = format!("/proc/{}", pid.as_raw_nonzero());
        let mut environment = Vec::new();
        let read = File::open(format!("{folder}/environ"))
            .and_then(|file| file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut environment));
        match read {
            // A process that is about to execute a program shows none until the kernel has laid it out. Kernel
            // threads and the dead show none either, and have no program.
            Ok(0) if fs::read_link(format!("{folder}/exe")).is_ok() => Borne::NotYetKnown,
            Ok(_) if self.is_in(&environment) => Borne::Yes,
            // Gone, or another user's.
            _ => Borne::No,
        }
    }
}

/// Whether a process has the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Borne {
    Yes,
    No,
    NotYetKnown,
}

/// Kills every process with the mark, and returns when a look at all processes finds none. Blocks for some
/// milliseconds.
pub(crate) fn sweep(mark: &Mark) {
    let start = Instant::now();
    let give_up = start + SWEEP_TIME_MAX;
    loop {
        let Looked { found, is_all_known } = look(mark);
        let is_settled = is_all_known || start.elapsed() >= UNKNOWN_TIME_MAX;
        if (found.is_empty() && is_settled) || Instant::now() >= give_up {
            return;
        }
        if found.is_empty() {
            thread::sleep(UNKNOWN_PAUSE);
        }
        for process in &found {
            // It may have ended just now.
            let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
        }
        for process in &found {
            // Whether it ended or the time did shows in the next turn.
            ends_within(process, give_up.saturating_duration_since(Instant::now()));
        }
    }
}

/// Waits until the process behind a pidfd has ended; whether it has.
pub(crate) fn ends_within(process: &OwnedFd, time: Duration) -> bool {
    let Ok(timeout) = Timespec::try_from(time) else { return false };
    let mut ends = [PollFd::new(process, PollFlags::IN)];
    matches!(rustix::io::retry_on_intr(|| poll(&mut ends, Some(&timeout))), Ok(1..))
}

/// What one look at all processes has found.
struct Looked {
    /// Those with the mark.
    found: Vec<OwnedFd>,
    /// Whether it is known of every process.
    is_all_known: bool,
}

fn look(mark: &Mark) -> Looked {
    let mut looked = Looked { found: Vec::new(), is_all_known: true };
    let Ok(entries) = fs::read_dir("/proc") else { return looked };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        let borne = mark.is_on(pid);
        looked.is_all_known &= borne != Borne::NotYetKnown;
        if borne != Borne::Yes {
            continue;
        }
        let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // Looked at again: between the two another process may have got the pid.
        match mark.is_on(pid) {
            Borne::Yes => looked.found.push(process),
            Borne::No => {}
            // It executes another program at this moment.
            Borne::NotYetKnown => looked.is_all_known = false,
        }
    }
    looked
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_mark_is_known_only_as_a_whole_entry() {
        let mark = Mark { entry: format!("{INSTANCE_VARIABLE}=00ff") };
        for (environment, is_in) in [
            (&b"A=1\0SYMPHONY_INSTANCE=00ff\0B=2\0"[..], true),
            (b"SYMPHONY_INSTANCE=00ff", true),
            (b"SYMPHONY_INSTANCE=00ff1\0", false),
            (b"OTHER_SYMPHONY_INSTANCE=00ff\0", false),
            (b"A=SYMPHONY_INSTANCE=00ff\0", false),
            (b"", false),
        ] {
            assert_eq!(mark.is_in(environment), is_in, "{:?}", String::from_utf8_lossy(environment));
        }
        assert_ne!(Mark::random(), Mark::random());
    }

    #[test]
    fn whoever_bears_the_mark_is_killed_and_nobody_else() {
        let (mark, other) = (Mark::random(), Mark::random());
        let start = |mark: &Mark| {
            let (name, value) = mark.variable();
            let mut sleep = Command::new("sleep");
            sleep.arg("600").env(name, value).stdin(Stdio::null());
            sleep.spawn().expect("sleep starts")
        };
        let (mut marked, mut bystander) = (start(&mark), start(&other));
        sweep(&mark);
        assert!(!marked.wait().expect("the child is ours").success());
        assert!(bystander.try_wait().expect("the child is ours").is_none(), "it was not meant");
        sweep(&other);
        bystander.wait().expect("the child is ours");
    }
}
