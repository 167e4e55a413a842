//! The launcher as hosts see it: real programs, real signals, real deaths.

mod end;
mod orphans;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use extension_launcher::Arguments;

/// Anything that must happen at all happens within this time, even on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// The launcher, told that this process is its host, with `script` as the program's.
fn launch_shell(arguments: Arguments, script: &str) -> Command {
    launch(arguments, "/bin/sh", &["-c", script])
}

fn launch(arguments: Arguments, program: &str, program_arguments: &[&str]) -> Command {
    let arguments = Arguments { parent_pid: std::process::id(), ..arguments };
    let mut command = Command::new(env!("CARGO_BIN_EXE_extension-launcher"));
    command.args(arguments.to_command_line(program.as_ref(), program_arguments));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
