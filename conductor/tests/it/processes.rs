//! Processes as the system tells of them: which descend from a conductor, and whether they are gone.

use std::fs;

use rustix::process::{Pid, Signal};

use crate::support::eventually;

/// A process, known by its pid and its start: pids are given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) started: u64,
    pub(crate) name: String,
    parent: u32,
}

impl Process {
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let (head, rest) = stat.rsplit_once(") ")?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = rest.split(' ').collect();
        // A zombie has ended: it only waits for its parent to take note.
        if fields[0] == "Z" {
            return None;
        }
        Some(Self { pid, started: fields[19].parse().ok()?, name, parent: fields[1].parse().ok()? })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.started == self.started)
    }

    pub(crate) fn kill(&self) {
        let pid = Pid::from_raw(i32::try_from(self.pid).expect("a pid")).expect("a pid");
        // Only this very process, which the test has started.
        if self.is_alive() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// All descendants of a process.
pub(crate) fn descendants(pid: u32) -> Vec<Process> {
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<Process> = pids.filter_map(Process::read).collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}

/// Waits until none of these processes is left.
#[track_caller]
pub(crate) fn all_gone(processes: &[Process]) {
    eventually("the end of all processes", || !processes.iter().any(Process::is_alive));
}
