//! The small program between a host and what it starts.
//!
//! ```text
//! host --posix_spawn--> launcher --fork, exec--> program --> its children, whatever they do to get away
//!   \___ pidfd ___________/   \__ subreaper: whoever loses its parent below becomes the launcher's child __/
//! ```
//!
//! It applies limits, executes the program, and stays as a minimal single-threaded init: it forwards SIGTERM,
//! reaps, mirrors the program's true end (same exit code, same signal), and leaves nothing behind: when the
//! program ends, or the host does in whatever way, every descendant is killed.
//!
//! It must not know the bus, the manifest or tokio, it never reads the channel (file descriptor 0, which it
//! passes on and closes), and it allocates next to nothing: there is one of it for each running program.
//!
//! # How a host finds it
//!
//! Either as the program `extension-launcher` of this crate, or inside the host's own program, which executes
//! itself under the name [`NAME`] and calls [`run_if_launcher`] as the very first thing in `main`.
//!
//! # Arguments
//!
//! ```text
//! extension-launcher --parent PID [--nice N] [--open-files N] [--group FILE]... [--cwd DIR] -- PROGRAM [ARG]...
//! ```
//!
//! See [`Arguments`] for each of them. The environment and file descriptors 0 to 2 are the program's.
//!
//! # Signals that it takes
//!
//! | signal  | effect |
//! |---------|--------|
//! | SIGTERM | forwarded to the program's process group, and SIGCONT behind it |
//! | SIGUSR1 | everything is killed at once, then the program's end is mirrored |
//! | others  | blocked: a terminal's Ctrl-C is the host's business |
//!
//! # Exit codes of its own
//!
//! 125: the launcher itself failed (arguments, a limit, the working directory, no room for a process); 126: the
//! program is there
//! but cannot be executed; 127: there is no such program. Each with one line on stderr that begins with
//! [`MESSAGE_PREFIX`].

mod arguments;
mod descendants;
mod init;
mod signals;
mod start;

use std::ffi::OsStr;
use std::path::Path;

pub use arguments::{ArgumentError, Arguments};

/// The name under which a host executes itself to become the launcher, and the launcher's own program's.
pub const NAME: &str = "extension-launcher";

/// What the launcher calls itself, as `ps` shows it, once nothing is left below it and it is about to end. Whoever waits
/// for it finds the name until he has reaped it: by this an end by SIGKILL that mirrors the program's is told from one of
/// a launcher that was killed itself.
pub const ENDED_NAME: &str = "launcher-ended";

/// What each line of the launcher on stderr begins with.
pub const MESSAGE_PREFIX: &str = "extension-launcher: ";

/// The launcher itself failed.
pub const EXIT_LAUNCHER_FAILED: i32 = 125;

/// The program cannot be executed.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;

/// There is no such program.
pub const EXIT_NOT_FOUND: i32 = 127;

/// Becomes the launcher, and does not return, if this process was started under its [`NAME`]; otherwise does
/// nothing. Call it before anything else in `main`: before threads, signal handlers and files.
///
/// ```
/// // The first line of the host's own main:
/// extension_launcher::run_if_launcher();
/// ```
pub fn run_if_launcher() {
    let Some(name) = std::env::args_os().next() else { return };
    if Path::new(&name).file_name() == Some(OsStr::new(NAME)) {
        run();
    }
}

/// Becomes the launcher, under whatever name this process was started.
pub fn run() -> ! {
    let code = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok((arguments, program)) => init::run(&arguments, &program),
        Err(error) => {
            complain(&error.to_string());
            EXIT_LAUNCHER_FAILED
        }
    };
    std::process::exit(code)
}

/// One line on stderr, which is the program's log. A full or closed pipe must not hold the launcher up.
#[expect(clippy::print_stderr, reason = "stderr is how the launcher answers; it has no other channel")]
fn complain(message: &str) {
    eprintln!("{MESSAGE_PREFIX}{message}");
}
