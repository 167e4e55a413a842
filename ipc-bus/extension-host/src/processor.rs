//! How much processor time a process and all below it have used: what tells a computation from a hang.
//!
//! Read from `/proc`, from the launcher down: it adopts whoever loses its parent, and what has ended and was
//! waited for is in the time of who waited. This file must not know why anybody asks.

use std::fs;
use std::time::Duration;

/// LIMIT: processes of one instance that are looked at. The time of more is not counted.
const PROCESSES_MAX: usize = 256;

/// The processor time, in user and in kernel mode, of the process `pid` and all below it, ended ones included.
/// `None`: there is no such process. It may be too little while processes come and go.
pub(crate) fn processor_time(pid: u32) -> Option<Duration> {
    let mut found = vec![pid];
    let mut looked_at = 0;
    let mut ticks = None;
    while let Some(&pid) = found.get(looked_at) {
        looked_at += 1;
        let Some(used) = fs::read(format!("/proc/{pid}/stat")).ok().as_deref().and_then(ticks_in_stat) else {
            continue;
        };
        ticks = Some(used.saturating_add(ticks.unwrap_or(0)));
        let room = PROCESSES_MAX.saturating_sub(found.len());
        found.extend(children(pid).take(room));
    }
    let a_second = rustix::param::clock_ticks_per_second().max(1);
    ticks.map(|ticks| Duration::from_millis(ticks.saturating_mul(1_000) / a_second))
}

/// The children of every thread of `pid`.
pub(crate) fn children(pid: u32) -> impl Iterator<Item = u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
}

/// `utime`, `stime`, `cutime` and `cstime` of `/proc/PID/stat`, which are the fields 14 to 17, together. The second,
/// the name in brackets, may hold anything, brackets and spaces included: so count from its last bracket.
pub(crate) fn ticks_in_stat(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = 0_u64;
    for _ in 0..4 {
        ticks = ticks.saturating_add(fields.next()?.parse().ok()?);
    }
    Some(ticks)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn ticks_are_found_behind_a_hostile_name() {
        for (stat, ticks) in [
            (&b"12 (sh) S 7 12 12 0 -1 4 1 2 3 4 100 20 3 4000 20 0 1 0"[..], Some(4_123)),
            (b"12 (a) R 9 (b) S 7 12 12 0 -1 4 1 2 3 4 100 20 3 4000 20", Some(4_123)),
            (b"12 (sh) S 7 12 12 0 -1 4 1 2 3 4 100 20 3", None),
            (b"12 (sh) S 7 12 12 0 -1 4 1 2 3 4 100 -20 3 4 5", None),
            (b"12 (sh", None),
            (b"", None),
        ] {
            assert_eq!(ticks_in_stat(stat), ticks, "{}", String::from_utf8_lossy(stat));
        }
    }

    #[test]
    fn what_a_grandchild_uses_counts_while_it_runs_and_after_it_was_waited_for() {
        // The grandchild computes, says so, and waits to be let go.
        let script = "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; read line) <&3; echo waited; read line";
        let script = format!("exec 3<&0; {script}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("a shell starts");
        let (mut input, mut output) =
            (shell.stdin.take().expect("it is piped"), shell.stdout.take().expect("it is piped"));
        let mut hear = |text: &str| {
            let mut heard = vec![0; text.len()];
            output.read_exact(&mut heard).expect("it says so");
            assert_eq!(String::from_utf8_lossy(&heard), text);
        };
        hear("done\n");
        let while_running = processor_time(shell.id()).expect("it runs");
        std::io::Write::write_all(&mut input, b"go\n").expect("it reads");
        hear("waited\n");
        let afterwards = processor_time(shell.id()).expect("it runs");
        drop(input);
        shell.wait().expect("it is a child");
        assert!(while_running >= Duration::from_millis(20), "{while_running:?}");
        assert!(afterwards >= while_running, "{afterwards:?} after {while_running:?}");
        assert_eq!(processor_time(shell.id()), None);
    }
}
