//! The launcher's life.
//!
//! ```text
//! start --> Running --SIGUSR1, host died, program ended--> kill every descendant --> mirror the end
//!             +--program cannot be started --> exit 125, 126, 127
//! ```

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal, WaitStatus};

use crate::arguments::Arguments;
use crate::descendants::Children;
use crate::signals::Signals;
use crate::start::{StartFailure, apply_limits, keep_descriptors_here, start};
use crate::{ENDED_NAME, EXIT_LAUNCHER_FAILED, complain, descendants, signals};

/// Runs the program and returns the exit code that mirrors its end; if a signal ended it, does not return.
pub(crate) fn run(arguments: &Arguments, program: &[OsString]) -> i32 {
    show_name(program);
    let prepared = match Launcher::prepare(arguments, program) {
        Ok(prepared) => prepared,
        Err(failure) => {
            complain(&failure.message);
            return failure.exit_code;
        }
    };
    mirror(prepared.supervise())
}

/// Has `ps` show `launcher:NAME`: executed by a link, this process would be called after that, `exe`.
fn show_name(program: &[OsString]) {
    /// LIMIT: bytes of a name that the kernel keeps.
    const NAME_BYTES_MAX: usize = 15;
    let path = program.first().map_or(OsStr::new(""), OsString::as_os_str);
    let name = Path::new(path).file_name().unwrap_or(path);
    let mut shown = [b"launcher:", name.as_bytes()].concat();
    shown.truncate(NAME_BYTES_MAX);
    call_oneself(&shown);
}

fn call_oneself(name: &[u8]) {
    if let Ok(name) = CString::new(name) {
        // Without it the launcher does its work as well.
        let _ = rustix::thread::set_name(&name);
    }
}

struct Launcher {
    parent: OwnedFd,
    signals: Signals,
    program: Pid,
}

impl Launcher {
    fn prepare(arguments: &Arguments, program: &[OsString]) -> Result<Self, StartFailure> {
        let parent = watch_parent(arguments.parent_pid)?;
        let signals = Signals::take(&[Signal::TERM, Signal::USR1, Signal::CHILD])
            .map_err(|error| StartFailure::of_launcher("signals cannot be taken", error))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| StartFailure::of_launcher("orphans cannot be adopted", error))?;
        let nothing = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|error| StartFailure::of_launcher("/dev/null cannot be opened", error))?;
        keep_descriptors_here()?;
        apply_limits(arguments)?;
        let program = start(arguments, program)?;
        // From here on only the program holds the channel and the pipes, so that their end is its end.
        for close in [rustix::stdio::dup2_stdin, rustix::stdio::dup2_stdout, rustix::stdio::dup2_stderr] {
            let _ = close(&nothing);
        }
        Ok(Self { parent, signals, program })
    }

    /// Waits for whatever ends the program, and ends everything with it. No status: the program outlived even
    /// SIGKILL, in a system call that cannot be interrupted.
    fn supervise(&self) -> (Option<WaitStatus>, Children) {
        loop {
            let (ended, _) = descendants::reap(self.program);
            if ended.is_some() {
                let (_, left) = descendants::kill_all(self.program, &self.signals);
                return (ended, left);
            }
            let mut watched =
                [PollFd::new(&self.parent, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            let polled = poll(&mut watched, None);
            let mut kill_now = polled.is_ok() && !watched[0].revents().is_empty();
            while let Some(number) = self.signals.next() {
                if number == Signal::TERM.as_raw() {
                    let _ = rustix::process::kill_process_group(self.program, Signal::TERM);
                    // A program that was stopped would not see it before it goes on.
                    let _ = rustix::process::kill_process_group(self.program, Signal::CONT);
                } else if number == Signal::USR1.as_raw() {
                    kill_now = true;
                }
            }
            if kill_now {
                return descendants::kill_all(self.program, &self.signals);
            }
        }
    }
}

/// A descriptor that becomes readable when the host has died.
fn watch_parent(parent_pid: u32) -> Result<OwnedFd, StartFailure> {
    let pid = i32::try_from(parent_pid).ok().and_then(Pid::from_raw);
    let parent = pid
        .ok_or(io::ErrorKind::InvalidInput.into())
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from));
    let parent = parent.map_err(|error| StartFailure::of_launcher("the host cannot be watched", error))?;
    // Checked after the descriptor is held: had the host died before, and another process got its pid, this
    // one would have another parent by now.
    if rustix::process::getppid() != pid {
        return Err(StartFailure {
            exit_code: EXIT_LAUNCHER_FAILED,
            message: format!("process {parent_pid} is not the parent of this process"),
        });
    }
    Ok(parent)
}

/// Ends the launcher as the program ended.
fn mirror((ended, left): (Option<WaitStatus>, Children)) -> i32 {
    if left == Children::None {
        call_oneself(ENDED_NAME.as_bytes());
    }
    let Some(status) = ended else { return EXIT_LAUNCHER_FAILED };
    if let Some(code) = status.exit_status() {
        return code;
    }
    let Some(number) = status.terminating_signal() else { return EXIT_LAUNCHER_FAILED };
    // A core_pattern that pipes to a program ignores the limit of zero; this it does not ignore.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    signals::die_by(number);
    // A shell's convention, for a signal that did not end this process.
    128 + number
}
