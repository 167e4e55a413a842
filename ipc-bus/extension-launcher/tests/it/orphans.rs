//! Nothing below a launcher outlives it, its program or its host.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Instant;

use extension_launcher::Arguments;

use crate::{BOUND, launch_shell};

/// A tree that does what daemons do: forks twice, makes sessions of its own, ignores SIGTERM and SIGHUP.
/// Prints the pid of each of its four survivors, then what follows.
const RUNAWAYS: &str = "trap '' TERM HUP; \
    for i in 1 2; do \
      (setsid sh -c 'trap \"\" TERM HUP; echo $$; (setsid sh -c \"echo \\$\\$; while :; do sleep 600; done\" &) & \
                     while :; do sleep 600; done' &) & \
    done; ";

/// Pid and start time: together they name a process for ever.
type Identity = (u32, String);

fn identity(pid: u32) -> Option<Identity> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // A zombie has died; reaping it is its new parent's business.
    (fields[0] != "Z").then(|| (pid, fields[19].to_owned()))
}

fn read_pids(lines: &mut impl Iterator<Item = std::io::Result<String>>, count: usize) -> Vec<Identity> {
    let mut found = Vec::new();
    while found.len() < count {
        let line = lines.next().expect("the tree prints its pids").expect("text");
        if let Ok(pid) = line.parse() {
            found.push(identity(pid).expect("the process runs"));
        }
    }
    found
}

fn wait_until_gone(processes: &[Identity]) {
    let give_up = Instant::now() + BOUND;
    loop {
        let alive: Vec<&Identity> =
            processes.iter().filter(|process| identity(process.0).as_ref() == Some(process)).collect();
        if alive.is_empty() {
            return;
        }
        assert!(Instant::now() < give_up, "still running: {alive:?}");
        std::thread::yield_now();
    }
}

#[test]
fn runaways_end_with_the_program() {
    for end in ["read line; exit 5", "read line; kill -SEGV $$"] {
        let mut command = launch_shell(Arguments::default(), &format!("{RUNAWAYS}{end}"));
        let mut launcher = command.stdin(Stdio::piped()).spawn().expect("the launcher starts");
        let mut lines = BufReader::new(launcher.stdout.take().expect("stdout is piped")).lines();
        let runaways = read_pids(&mut lines, 4);
        drop(launcher.stdin.take());
        launcher.wait().expect("the launcher is ours");
        // Already gone when the launcher is: that is what makes its end the end of the whole tree.
        for runaway in &runaways {
            assert_ne!(identity(runaway.0).as_ref(), Some(runaway), "{end}");
        }
    }
}

#[test]
fn runaways_end_when_the_host_is_killed() {
    // The host is a shell that starts the launcher as its child and then only waits.
    let launcher = env!("CARGO_BIN_EXE_extension-launcher");
    let script = format!("{RUNAWAYS} while :; do sleep 600; done");
    let host_script = format!("\"{launcher}\" --parent $$ -- /bin/sh -c \"$0\" & echo $!; wait; exit 1");
    let mut host = Command::new("/bin/sh")
        .args(["-c", &host_script, &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell starts");
    let mut stdout = BufReader::new(host.stdout.take().expect("stdout is piped"));
    let processes = read_pids(&mut stdout.by_ref().lines(), 5);
    host.kill().expect("the host is ours");
    host.wait().expect("the host is ours");
    wait_until_gone(&processes);
    // The pipe's end too: nobody that was not counted holds it.
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the pipe ends");
}
