//! From the launcher to the running program: limits, then fork and exec.
#![expect(unsafe_code, reason = "what happens between fork and exec is unsafe by its nature")]

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::arguments::Arguments;
use crate::{EXIT_LAUNCHER_FAILED, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, signals};

/// Why the program does not run: the exit code and the line that say so.
pub(crate) struct StartFailure {
    pub(crate) exit_code: i32,
    pub(crate) message: String,
}

impl StartFailure {
    pub(crate) fn of_launcher(step: &str, error: impl Into<io::Error>) -> Self {
        Self { exit_code: EXIT_LAUNCHER_FAILED, message: format!("{step}: {}", error.into()) }
    }
}

/// What holds for the launcher as well as for the program, and is inherited.
pub(crate) fn apply_limits(arguments: &Arguments) -> Result<(), StartFailure> {
    let limit = |resource, value: u64| {
        let value = Some(value);
        rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })
    };
    limit(Resource::Core, 0)
        .map_err(|error| StartFailure::of_launcher("core dumps cannot be turned off", error))?;
    if let Some(wanted) = arguments.open_files_max {
        // More than the host itself may have cannot be given; its own limit is what holds then.
        let allowed = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        limit(Resource::Nofile, allowed.min(wanted.into()))
            .map_err(|error| StartFailure::of_launcher("open files cannot be limited", error))?;
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| StartFailure::of_launcher("new privileges cannot be refused", error))?;
    if let Some(directory) = &arguments.working_directory {
        std::env::set_current_dir(directory).map_err(|error| {
            StartFailure::of_launcher(&format!("folder {} cannot be entered", directory.display()), error)
        })?;
    }
    Ok(())
}

/// Starts the program as the leader of a group of its own.
pub(crate) fn start(arguments: &Arguments, program: &[OsString]) -> Result<Pid, StartFailure> {
    let launcher = rustix::process::getpid();
    let nice = i32::from(arguments.nice);
    let Some((path, program_arguments)) = program.split_first() else {
        return Err(StartFailure { exit_code: EXIT_LAUNCHER_FAILED, message: "no program is given".into() });
    };
    let mut command = Command::new(path);
    command.args(program_arguments).process_group(0);
    let in_child = move || {
        // The launcher has one thread, so that the death of the spawning thread, which is what fires this
        // signal, is the death of the launcher.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(launcher) {
            // It died before the line above: nobody is left to kill this process, or to read the error.
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        if nice > 0 {
            rustix::process::nice(nice)?;
        }
        signals::unblock_all()
    };
    // SAFETY: between fork and exec the closure makes system calls only (prctl, getppid, nice, sigprocmask): no
    // allocation, no lock, no memory shared with the parent; and the launcher has one thread, so that no lock
    // of another can have been copied in a locked state.
    unsafe { command.pre_exec(in_child) };
    let child = command.spawn().map_err(|error| {
        let exit_code = match error.kind() {
            io::ErrorKind::NotFound => EXIT_NOT_FOUND,
            _ => EXIT_NOT_EXECUTABLE,
        };
        let path = path.display();
        StartFailure { exit_code, message: format!("program {path} cannot be executed: {error}") }
    })?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| StartFailure {
        exit_code: EXIT_LAUNCHER_FAILED,
        message: format!("program has the impossible pid {}", child.id()),
    })
}
