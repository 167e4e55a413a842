//! From the launcher to the running program: limits, then fork and exec.
#![expect(unsafe_code, reason = "what happens between fork and exec is unsafe by its nature")]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::io::{Errno, FdFlags};
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
    // First: what follows is within its limits as well.
    for group in &arguments.groups {
        // 0 is whoever writes it.
        fs::write(group, "0").map_err(|error| {
            StartFailure::of_launcher(&format!("control group {} cannot be entered", group.display()), error)
        })?;
    }
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

/// Keeps the program from inheriting more than descriptors 0 to 2: whoever started the host may have left
/// others open in it.
pub(crate) fn keep_descriptors_here() -> Result<(), StartFailure> {
    let failed = |error: io::Error| StartFailure::of_launcher("descriptors cannot be kept back", error);
    for entry in fs::read_dir("/proc/self/fd").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(number @ 3..) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // SAFETY: the number is not -1, and nobody else closes descriptors in this process of one thread: it is
        // open, by the list, until after this turn of the loop.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        match rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC) {
            Ok(()) | Err(Errno::BADF) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(())
}

/// Starts the program as the leader of a session of its own, without a terminal.
pub(crate) fn start(arguments: &Arguments, program: &[OsString]) -> Result<Pid, StartFailure> {
    let launcher = rustix::process::getpid();
    let nice = i32::from(arguments.nice);
    let Some((path, program_arguments)) = program.split_first() else {
        return Err(StartFailure { exit_code: EXIT_LAUNCHER_FAILED, message: "no program is given".into() });
    };
    let mut command = Command::new(path);
    command.args(program_arguments);
    let in_child = move || {
        // The launcher has one thread, so that the death of the spawning thread, which is what fires this
        // signal, is the death of the launcher.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(launcher) {
            // It died before the line above: nobody is left to kill this process, or to read the error.
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        // And with it a group of its own. Its terminal would be the host's.
        rustix::process::setsid()?;
        if nice > 0 {
            rustix::process::nice(nice)?;
        }
        signals::default_all();
        signals::unblock_all()
    };
    // SAFETY: between fork and exec the closure makes system calls only (prctl, getppid, setsid, nice, sigaction, sigprocmask): no
    // allocation, no lock, no memory shared with the parent; and the launcher has one thread, so that no lock
    // of another can have been copied in a locked state.
    unsafe { command.pre_exec(in_child) };
    let child = command.spawn().map_err(|error| {
        let exit_code = exit_code_of(&error);
        let remedy = remedy(Path::new(path), &error);
        let path = path.display();
        StartFailure { exit_code, message: format!("program {path} cannot be executed: {error}{remedy}") }
    })?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| StartFailure {
        exit_code: EXIT_LAUNCHER_FAILED,
        message: format!("program has the impossible pid {}", child.id()),
    })
}

/// Whose fault it is that nothing was executed: the program's, or the system's, which may have no room for one more
/// process.
fn exit_code_of(error: &io::Error) -> i32 {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => EXIT_NOT_FOUND,
        Some(
            Errno::ACCESS
            | Errno::NOEXEC
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::LOOP
            | Errno::TXTBSY
            | Errno::LIBBAD,
        ) => EXIT_NOT_EXECUTABLE,
        _ => EXIT_LAUNCHER_FAILED,
    }
}

/// What to do about it, as the end of a sentence, where the file tells.
fn remedy(path: &Path, error: &io::Error) -> &'static str {
    let Ok(metadata) = fs::metadata(path) else { return "" };
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS) if metadata.is_dir() => "; it is a folder",
        Some(Errno::ACCESS) if metadata.permissions().mode() & 0o111 == 0 => {
            "; make it executable with chmod +x"
        }
        // The file is there: what is missing is what it names.
        Some(Errno::NOENT) => "; the interpreter of its `#!` line, or the loader that it needs, is missing",
        Some(Errno::NOEXEC) => "; it is no program of this machine, and no script that begins with `#!`",
        _ => "",
    }
}
