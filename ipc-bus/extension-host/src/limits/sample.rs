//! What a tree of processes uses, read from `/proc`, from the launcher down: it adopts whoever loses its parent.

use std::fs;
use std::time::Duration;

use crate::processor::{children, ticks_in_stat};

/// LIMIT: processes of one instance that are looked at. What more use is not seen; there are too many then in any case.
const PROCESSES_MAX: usize = 4096;

/// What a tree uses, its launcher included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Anonymous and shared memory that is resident: what would be gone with it.
    pub(crate) memory_bytes: u64,
    /// Processes and threads.
    pub(crate) tasks: u32,
    /// Processor time, that of ended children included.
    pub(crate) processor: Duration,
    /// Bytes read from and written to disks.
    pub(crate) io_bytes: u64,
}

/// Looks at `pid` and all below it. It may be too little while processes come and go.
pub(crate) fn sample(pid: u32) -> Sample {
    let mut found = vec![pid];
    let mut looked_at = 0;
    let (mut sample, mut ticks) = (Sample::default(), 0_u64);
    while let Some(&pid) = found.get(looked_at) {
        looked_at += 1;
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let status = read("status");
        if status.is_empty() {
            continue;
        }
        let kib = |name: &str| number_after(&status, name).unwrap_or(0);
        sample.memory_bytes += (kib("RssAnon:") + kib("RssShmem:")) << 10;
        sample.tasks +=
            number_after(&status, "Threads:").and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
        ticks = ticks.saturating_add(ticks_in_stat(read("stat").as_bytes()).unwrap_or(0));
        let io = read("io");
        sample.io_bytes += number_after(&io, "\nread_bytes:").unwrap_or(0)
            + number_after(&io, "\nwrite_bytes:").unwrap_or(0);
        let room = PROCESSES_MAX.saturating_sub(found.len());
        found.extend(children(pid).take(room));
    }
    let a_second = rustix::param::clock_ticks_per_second().max(1);
    sample.processor = Duration::from_millis(ticks.saturating_mul(1_000) / a_second);
    sample
}

/// The number that follows `name` in a file of the kernel's.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_summed_up() {
        let held = std::hint::black_box(vec![1_u8; 8 << 20]);
        let alone = sample(std::process::id());
        assert!(alone.memory_bytes > held.len() as u64 && alone.tasks >= 1, "{alone:?}");
        let mut shell = std::process::Command::new("sh");
        let script = "sleep 60 & sleep 60 & echo there; wait";
        shell.args(["-c", script]).stdout(std::process::Stdio::piped()).process_group_of_its_own();
        let mut shell = shell.spawn().expect("a shell starts");
        let mut line = [0; 6];
        std::io::Read::read_exact(shell.stdout.as_mut().expect("it is piped"), &mut line)
            .expect("it says so");
        let tree = sample(shell.id());
        // The shell's own end first: its children are ours to end by their group.
        let group = rustix::process::Pid::from_child(&shell);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).expect("it is ours");
        shell.wait().expect("it is a child");
        assert_eq!(tree.tasks, 3, "{tree:?}");
        assert_eq!(sample(shell.id()), Sample::default(), "nobody is there");
    }

    trait Grouped {
        fn process_group_of_its_own(&mut self) -> &mut Self;
    }

    impl Grouped for std::process::Command {
        fn process_group_of_its_own(&mut self) -> &mut Self {
            std::os::unix::process::CommandExt::process_group(self, 0)
        }
    }
}
