//! How a program ends is how its launcher ends.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use extension_launcher::Arguments;
use rustix::process::{Pid, Signal};

use crate::{BOUND, launch, launch_shell, text};

#[test]
fn exit_codes_and_signals_are_mirrored() {
    for (script, code, signal) in [
        ("exit 0", Some(0), None),
        ("exit 42", Some(42), None),
        ("exit 255", Some(255), None),
        ("kill -ABRT $$", None, Some(Signal::ABORT)),
        ("kill -SEGV $$", None, Some(Signal::SEGV)),
        ("kill -BUS $$", None, Some(Signal::BUS)),
        ("kill -TERM $$", None, Some(Signal::TERM)),
        ("kill -KILL $$", None, Some(Signal::KILL)),
        ("kill -PIPE $$", None, Some(Signal::PIPE)),
        ("kill -INT $$", None, Some(Signal::INT)),
        ("kill -CHLD $$; exit 3", Some(3), None),
    ] {
        let status = launch_shell(Arguments::default(), script).status().expect("the launcher starts");
        assert_eq!(status.code(), code, "{script}: {status}");
        assert_eq!(status.signal(), signal.map(Signal::as_raw), "{script}: {status}");
        assert!(!status.core_dumped(), "{script}");
    }
}

#[test]
fn a_signal_that_was_ignored_outside_ends_the_program_as_ever() {
    let launcher = launch_shell(Arguments::default(), "kill -INT $$; exit 3");
    // As in a background job of a script: the shell ignores the signal, and what it becomes inherits that.
    let mut ignoring = std::process::Command::new("/bin/sh");
    ignoring.args(["-c", "trap '' INT HUP; exec \"$0\" \"$@\""]);
    let status = ignoring.arg(launcher.get_program()).args(launcher.get_args()).status();
    assert_eq!(status.expect("the launcher starts").signal(), Some(Signal::INT.as_raw()));
}

/// A script whose interpreter is missing. Made by another process: one that is forked here meanwhile would hold the
/// file open, and nobody can execute what somebody writes.
fn script_without_interpreter() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("script-without-interpreter");
    let make = "printf '#!/no/such/interpreter\\n' >\"$0\" && chmod 755 \"$0\"";
    let made = std::process::Command::new("/bin/sh").args(["-c", make]).arg(&path).status();
    assert!(made.expect("a shell starts").success());
    path
}

#[test]
fn what_cannot_be_started_is_told_in_one_line() {
    let folder = std::env::temp_dir();
    let folder = folder.to_str().expect("the temporary folder has a printable name");
    let script = script_without_interpreter();
    let script = script.to_str().expect("the temporary folder has a printable name");
    let missing_folder = Arguments { working_directory: Some("/no/such".into()), ..Arguments::default() };
    for (arguments, program, code, expected) in [
        (Arguments::default(), "/no/such/program", 127, "program /no/such/program cannot be executed"),
        (
            Arguments::default(),
            folder,
            126,
            "cannot be executed: Permission denied (os error 13); it is a folder",
        ),
        (Arguments::default(), "/etc/passwd", 126, "; make it executable with chmod +x"),
        (Arguments::default(), script, 127, "; the interpreter of its `#!` line, or the loader"),
        (Arguments::default(), "/etc/passwd/x", 126, "Not a directory"),
        (missing_folder, "/bin/true", 125, "folder /no/such cannot be entered"),
    ] {
        let output = launch(arguments, program, &[]).output().expect("the launcher starts");
        let (_, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.starts_with(extension_launcher::MESSAGE_PREFIX), "{stderr}");
        assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn a_launcher_whose_host_is_not_its_parent_starts_nothing() {
    let mut command = launch_shell(Arguments::default(), "echo ran");
    // The same line again, with another parent in it.
    let line: Vec<_> = command.get_args().skip(2).map(ToOwned::to_owned).collect();
    command = std::process::Command::new(env!("CARGO_BIN_EXE_extension-launcher"));
    let output = command.args(["--parent", "1"]).args(line).output().expect("the launcher starts");
    assert_eq!(text(&output).0, "");
    assert_eq!(output.status.code(), Some(extension_launcher::EXIT_LAUNCHER_FAILED));
}

#[test]
fn limits_hold_in_the_program() {
    let arguments = Arguments {
        nice: 5,
        open_files_max: Some(64),
        working_directory: Some("/usr".into()),
        ..Arguments::default()
    };
    let script = "ulimit -n; ulimit -c; nice; pwd; grep -E 'NoNewPrivs|SigBlk' /proc/self/status; \
                  test $(ps -o pgid= $$) = $$ && test $(ps -o sid= $$) = $$ && echo leads";
    let output = launch_shell(arguments, script).output().expect("the launcher starts");
    let own_nice = rustix::process::nice(0).expect("the own niceness is readable");
    let expected = format!(
        "64\n0\n{}\n/usr\nSigBlk:\t0000000000000000\nNoNewPrivs:\t1\nleads\n",
        (own_nice + 5).min(19)
    );
    let (stdout, stderr) = text(&output);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&stdout), sorted(&expected), "{stderr}");
}

#[test]
fn a_pipe_that_the_program_closes_ends_though_the_launcher_lives() {
    let script = "exec >&- 2>&-; while :; do sleep 600; done";
    let mut launcher = launch_shell(Arguments::default(), script).spawn().expect("the launcher starts");
    let mut nothing = Vec::new();
    let mut stdout = launcher.stdout.take().expect("stdout is piped");
    stdout.read_to_end(&mut nothing).expect("the pipe ends");
    assert!(launcher.try_wait().expect("the launcher is ours").is_none());
    signal(launcher.id(), Signal::USR1);
    launcher.wait().expect("the launcher is ours");
}

#[test]
fn terminate_is_forwarded_to_the_whole_group() {
    let script = "trap 'echo parent; wait; exit 9' TERM; \
                  sh -c 'trap \"echo child; exit 0\" TERM; echo ready; while :; do sleep 0.01; done' & wait; wait";
    let mut launcher = launch_shell(Arguments::default(), script).spawn().expect("the launcher starts");
    let mut lines = BufReader::new(launcher.stdout.take().expect("stdout is piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    signal(launcher.id(), Signal::TERM);
    let mut rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
    rest.sort();
    assert_eq!(rest, ["child", "parent"]);
    assert_eq!(launcher.wait().expect("the launcher is ours").code(), Some(9));
}

#[test]
fn terminate_reaches_a_program_that_was_stopped() {
    let script = "echo $$; while :; do sleep 600; done";
    let mut launcher = launch_shell(Arguments::default(), script).spawn().expect("the launcher starts");
    let mut lines = BufReader::new(launcher.stdout.take().expect("stdout is piped")).lines();
    let program: u32 = lines.next().expect("a line").expect("text").parse().expect("a pid");
    signal(program, Signal::STOP);
    signal(launcher.id(), Signal::TERM);
    assert_eq!(launcher.wait().expect("the launcher is ours").signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn a_launcher_shows_whom_it_launched() {
    for (program, shown) in [("/bin/sh", "launcher:sh\n"), ("/usr/bin/sha512sum", "launcher:sha512\n")] {
        let mut command = launch(Arguments::default(), program, &[]);
        let mut launcher = command.stdin(std::process::Stdio::piped()).spawn().expect("the launcher starts");
        let name = format!("/proc/{}/comm", launcher.id());
        let give_up = Instant::now() + BOUND;
        while std::fs::read_to_string(&name).expect("the launcher runs") != shown {
            assert!(Instant::now() < give_up, "{program} has a launcher of another name");
            std::thread::yield_now();
        }
        drop(launcher.stdin.take());
        assert!(launcher.wait().expect("the launcher is ours").success());
    }
}

#[test]
fn a_program_that_ignores_terminate_is_killed_by_order_even_if_its_launcher_was_stopped() {
    for orders in
        [&[Signal::USR1][..], &[Signal::TERM, Signal::USR1], &[Signal::STOP, Signal::USR1, Signal::CONT]]
    {
        let script = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
        let mut launcher = launch_shell(Arguments::default(), script).spawn().expect("the launcher starts");
        let mut lines = BufReader::new(launcher.stdout.take().expect("stdout is piped")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "ready");
        orders.iter().for_each(|order| signal(launcher.id(), *order));
        let status = launcher.wait().expect("the launcher is ours");
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    }
}

#[test]
fn what_the_host_inherited_does_not_reach_the_program() {
    let host_script = "exec 7</dev/null 9</dev/null; exec \"$0\" \"$@\"";
    let script = "for fd in 7 9; do test -e /proc/$$/fd/$fd && echo $fd; done; echo checked";
    let inner = launch_shell(Arguments::default(), script);
    let mut outer = std::process::Command::new("/bin/sh");
    outer.args(["-c", host_script]).arg(inner.get_program()).args(inner.get_args());
    let (stdout, stderr) = text(&outer.output().expect("the shell starts"));
    assert_eq!(stdout, "checked\n", "{stderr}");
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("the process is ours and not reaped");
}
