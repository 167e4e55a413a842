//! Any program under the launcher: its output, its true end, and its end when nobody wants it any more.

use std::path::Path;
use std::time::Duration;

use extension_host::supervised::{OutputError, OutputLimits, spawn};
use extension_host::{INSTANCE_VARIABLE, LauncherProgram, ProcessEnd, Program};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::programs::programs;
use crate::support::{BOUND, is_running, kill, on_both_runtimes};

fn shell(script: &str) -> Program {
    Program::new("/bin/sh").with_arguments(["-c", script])
}

fn launcher() -> LauncherProgram {
    LauncherProgram::Path(programs().launcher.clone())
}

const LIMITS: OutputLimits = OutputLimits { stdout_bytes_max: 1 << 20, time_max: BOUND };

#[test]
fn output_and_true_end_are_told() {
    on_both_runtimes(async || {
        for (script, end, stdout, stderr) in [
            ("echo out; echo err >&2; exit 5", ProcessEnd::Exited(5), "out\n", "err\n"),
            ("kill -SEGV $$", ProcessEnd::Signaled(11), "", ""),
            ("kill -ABRT $$", ProcessEnd::Signaled(6), "", ""),
            ("kill -TERM $$", ProcessEnd::Signaled(15), "", ""),
            ("cat", ProcessEnd::Exited(0), "", ""),
        ] {
            let output = spawn(&launcher(), shell(script)).expect("it starts").output(LIMITS).await;
            let output = output.expect("it ends within its limits");
            assert_eq!(output.end, end, "{script}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), stdout, "{script}");
            assert_eq!(output.stderr_tail, stderr, "{script}");
        }
    });
}

#[test]
fn nothing_of_the_environment_is_inherited() {
    on_both_runtimes(async || {
        let mut program = Program::new("/usr/bin/env");
        program.environment.push(("OWN".into(), "a b".into()));
        let output = spawn(&launcher(), program).expect("it starts").output(LIMITS).await;
        let stdout = String::from_utf8(output.expect("it ends").stdout).expect("text");
        let (own, mark) = stdout.split_once('\n').expect("two lines");
        assert_eq!(own, "OWN=a b");
        let (name, value) = mark.trim_end().split_once('=').expect("the mark is a variable");
        assert_eq!((name, value.len()), (INSTANCE_VARIABLE, 32));
    });
}

#[test]
fn output_without_end_is_ended() {
    on_both_runtimes(async || {
        let limits = OutputLimits { stdout_bytes_max: 1_000, time_max: BOUND };
        let endless = spawn(&launcher(), shell("while :; do echo more; done")).expect("it starts");
        let pid = endless.launcher_pid();
        let error = endless.output(limits).await.expect_err("it says too much");
        assert_eq!(error, OutputError::TooLong { stdout_bytes_max: 1_000 });
        assert!(!is_running(pid));

        let limits = OutputLimits { time_max: Duration::from_millis(50), ..limits };
        let endless = spawn(&launcher(), shell("sleep 600 & wait")).expect("it starts");
        let pid = endless.launcher_pid();
        let error = endless.output(limits).await.expect_err("it takes too long");
        assert_eq!(error, OutputError::TooSlow { time_max: Duration::from_millis(50) });
        assert!(!is_running(pid));
    });
}

/// Starts a process that gets away from its session and its parent, and says its pid.
const RUNAWAY: &str = "(setsid sh -c 'trap \"\" TERM HUP; echo $$; while :; do sleep 600; done' &); ";

#[test]
fn what_got_away_ends_though_its_launcher_is_killed() {
    on_both_runtimes(async || {
        let mut program = shell(&format!("{RUNAWAY} while :; do sleep 600; done"));
        program.environment.push(("PATH".into(), std::env::var_os("PATH").expect("a test has a PATH")));
        let mut program = spawn(&launcher(), program).expect("it starts");
        let stdout = program.take_stdout().expect("it is taken once");
        let runaway = BufReader::new(stdout).lines().next_line().await.expect("it says its pid");
        let runaway: u32 = runaway.expect("it says its pid").parse().expect("a pid");
        kill(program.launcher_pid());
        assert_eq!(program.wait().await, ProcessEnd::Signaled(9));
        // Gone already: that is what makes its end the end of the whole tree, however it came.
        assert!(!is_running(runaway));
        assert_eq!(program.wait().await, ProcessEnd::Signaled(9));
    });
}

#[test]
fn a_dropped_program_is_killed_with_all_that_it_started_and_reaped() {
    on_both_runtimes(async || {
        let mut program = shell(&format!("{RUNAWAY} wait; while :; do sleep 600; done"));
        program.environment.push(("PATH".into(), std::env::var_os("PATH").expect("a test has a PATH")));
        let mut program = spawn(&launcher(), program).expect("it starts");
        let stdout = program.take_stdout().expect("it is taken once");
        let runaway = BufReader::new(stdout).lines().next_line().await.expect("it says its pid");
        let runaway: u32 = runaway.expect("it says its pid").parse().expect("a pid");
        let launcher = program.launcher_pid();
        drop(program);
        let gone = async {
            // Reaped, not only dead: a zombie would still be there.
            while is_running(runaway) || Path::new(&format!("/proc/{launcher}")).exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, gone).await.expect("they are killed and reaped");
    });
}
