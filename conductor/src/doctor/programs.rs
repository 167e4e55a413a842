//! Programs that are started, and whether starting one works at all: each under the host's launcher, within
//! bounds.

use std::path::PathBuf;
use std::time::Duration;

use extension_host::supervised::{self, LauncherProgram, OutputLimits, Program};

use super::Check;
use super::kernel::line_of;
use crate::build::environment::find_cargo;

/// LIMIT: how long a program may take to tell its version.
const TIME_MAX: Duration = Duration::from_secs(20);
/// LIMIT: bytes of what it may say.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// Whether a process can be started, watched and reaped as an extension is: this very program is.
pub(super) async fn launcher() -> Vec<Check> {
    let tried = first_line("/proc/self/exe".into(), &["--version"]).await.map(drop);
    vec![Check::tried("launcher", tried, "no extension can be started").needed()]
}

/// Programs that only some extensions need.
pub(super) async fn checks() -> Vec<Check> {
    let cargo = find_cargo(|name| std::env::var_os(name));
    let beside =
        |name: &str| cargo.as_ref().map(|cargo| cargo.with_file_name(name)).filter(|file| file.is_file());
    let rustc = beside("rustc").unwrap_or_else(|| "rustc".into());
    let follows = "extensions that are built from source cannot be: install Rust (https://rustup.rs)";
    vec![
        version("cargo", cargo.clone().unwrap_or_else(|| "cargo".into()), follows).await,
        version("rustc", rustc, follows).await,
        version("python3", "python3".into(), "extensions that are written in Python cannot be run").await,
    ]
}

async fn version(name: &'static str, program: PathBuf, follows: &str) -> Check {
    match first_line(program, &["--version"]).await {
        Ok(line) => Check::works(name, line),
        Err(why) => Check::missing(name, why, follows),
    }
}

/// Whether this user may make a user namespace, tried by a program of the system that does nothing else.
pub(super) async fn user_namespaces() -> Check {
    const NAME: &str = "user namespaces";
    const FOLLOWS: &str = "an extension cannot be given a root and processes of its own here";
    if line_of("/proc/sys/user/max_user_namespaces").is_ok_and(|max| max == "0") {
        return Check::missing(NAME, "none are allowed (user.max_user_namespaces)", FOLLOWS);
    }
    match first_line("unshare".into(), &["--user", "--map-root-user", "true"]).await {
        Ok(_) => Check::works(NAME, "tried"),
        Err(why) if why.contains("not found") || why.contains("No such file") => {
            Check::limited(NAME, "not tried: the program unshare is not there", "")
        }
        Err(why) => Check::missing(NAME, why, FOLLOWS),
    }
}

/// The first line of what a program says when it succeeds, or why it did not.
async fn first_line(path: PathBuf, arguments: &[&str]) -> Result<String, String> {
    let mut program = Program::new(path).with_arguments(arguments);
    program.environment = std::env::vars_os().collect();
    let limits = OutputLimits { stdout_bytes_max: OUTPUT_BYTES_MAX, time_max: TIME_MAX };
    let running =
        supervised::spawn(&LauncherProgram::CurrentExe, program).map_err(|error| error.to_string())?;
    let output = running.output(limits).await.map_err(|error| error.to_string())?;
    if !output.end.is_success() {
        let last = output.stderr_tail.lines().last().unwrap_or_default();
        // The program is meant, and not who started it.
        let last = last.strip_prefix("extension-launcher: ").unwrap_or(last);
        return Err(if last.is_empty() { output.end.to_string() } else { last.to_owned() });
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
