//! Any program under the launcher: an extension's instance, `cargo build`, a `--describe`.
//!
//! What is started here ends with this process, however that ends, and with it everything that it started
//! itself. This file must not know the bus, manifests or restarts.
//!
//! ```text
//! spawn -> running --wait--> ended (reaped)
//!             |  \-- terminate: SIGTERM to the program's group
//!             |  \-- kill: the launcher kills every descendant
//!             |  \-- launcher killed: what it can no longer kill is swept up, then ended
//!             \-- dropped: killed, and reaped by a thread of its own
//! ```
//!
//! The end is known by a pidfd alone; nothing here listens to SIGCHLD or waits for "any child", so that it
//! lives beside whatever else starts processes. See `docs/adr/0002-launcher.md`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use extension_launcher::Arguments;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::exit::ProcessEnd;
use crate::sweep::{Mark, ends_within, sweep};
use crate::tail::Tail;

/// LIMIT: how long a launcher may take to kill all descendants before it is killed itself.
const LAUNCHER_KILL_TIME_MAX: Duration = Duration::from_secs(6);

/// Where the launcher is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LauncherProgram {
    /// This process's own program, which calls [`extension_launcher::run_if_launcher`] first of all in `main`.
    /// A program that does not would run as itself once more.
    CurrentExe,
    /// The program `extension-launcher`, or another that calls [`extension_launcher::run`].
    Path(PathBuf),
}

impl LauncherProgram {
    fn path(&self) -> &Path {
        match self {
            // The link, not what it points to: it works after the file was replaced or removed.
            Self::CurrentExe => Path::new("/proc/self/exe"),
            Self::Path(path) => path,
        }
    }
}

/// What to start, and how.
#[derive(Debug)]
pub struct Program {
    /// The program: a path, or a name that is looked for in the `PATH` of `environment`.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment, but for the mark [`crate::INSTANCE_VARIABLE`]: nothing is inherited.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory; `None`: this process's.
    pub working_directory: Option<PathBuf>,
    /// Added to this process's niceness, 0 to 19.
    pub nice: u8,
    /// Descriptors that it may have open.
    pub open_files_max: Option<u32>,
    /// Control groups that it is started in: the `cgroup.procs` of each.
    pub groups: Vec<PathBuf>,
    /// Its standard input: a channel, or nothing to read.
    pub channel: Option<OwnedFd>,
}

impl Program {
    /// A program without arguments and with an empty environment.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            working_directory: None,
            nice: 0,
            open_files_max: None,
            groups: Vec::new(),
            channel: None,
        }
    }

    /// The same program with these arguments.
    #[must_use]
    pub fn with_arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }
}

/// Why a program was not started. Whether the program itself can be executed shows later, as its end: the
/// launcher then exits with 125, 126 or 127 and says why on stderr.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The launcher cannot be executed. Check the installation.
    #[error("the launcher {} cannot be executed", launcher.display())]
    Launcher {
        /// Where it should be.
        launcher: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The started launcher cannot be watched: too many open files, or a kernel without pidfd.
    #[error("the launcher cannot be watched")]
    Watch(#[source] io::Error),
}

/// A running program. Dropping it kills it with all its descendants.
#[derive(Debug)]
pub struct Supervised {
    launcher_pid: Pid,
    /// `None` once it is handed over to the reaper.
    pidfd: Option<AsyncFd<OwnedFd>>,
    /// What everything below the launcher bears.
    mark: Mark,
    /// Whether the launcher was told to kill everything, and so did.
    is_ordered: bool,
    /// The launcher is reaped, it ended so, and what it left behind is being killed.
    sweeping: Option<(ProcessEnd, JoinHandle<()>)>,
    end: Option<ProcessEnd>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

/// Starts `program` under the launcher. Costs a vfork, whatever this process's memory.
///
/// # Errors
///
/// [`SpawnError`]; nothing runs then.
///
/// # Panics
///
/// Outside a tokio runtime with I/O enabled.
pub fn spawn(launcher: &LauncherProgram, program: Program) -> Result<Supervised, SpawnError> {
    let arguments = Arguments {
        parent_pid: std::process::id(),
        nice: program.nice,
        open_files_max: program.open_files_max,
        groups: program.groups,
        working_directory: program.working_directory,
    };
    let mut command = Command::new(launcher.path());
    let mark = Mark::random();
    let (name, value) = mark.variable();
    command
        .arg0(extension_launcher::NAME)
        .args(arguments.to_command_line(program.path.as_os_str(), &program.arguments))
        .env_clear()
        .envs(program.environment)
        .env(name, value)
        .stdin(program.channel.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A terminal's Ctrl-C is for this process, which then stops the others in order.
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|source| SpawnError::Launcher { launcher: launcher.path().to_path_buf(), source })?;
    // Closes this process's copy of the channel's other end: else its end would never be seen.
    drop(command);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let receiver = |fd: Option<OwnedFd>| fd.map(pipe::Receiver::from_owned_fd).transpose();
    let watch = |pid: Pid| -> io::Result<Supervised> {
        // Nobody else waits for this child, so that its pid is not given away before this line.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        Ok(Supervised {
            launcher_pid: pid,
            pidfd: Some(watched(pidfd)?),
            mark,
            is_ordered: false,
            sweeping: None,
            end: None,
            stdout: receiver(stdout.map(OwnedFd::from))?,
            stderr: receiver(stderr.map(OwnedFd::from))?,
        })
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match pid.ok_or_else(|| io::ErrorKind::InvalidData.into()).and_then(watch) {
        Ok(supervised) => Ok(supervised),
        Err(error) => {
            // It has hardly begun: killing the launcher kills the program that it may have started.
            let _ = child.kill();
            let _ = child.wait();
            Err(SpawnError::Watch(error))
        }
    }
}

impl Supervised {
    /// The launcher's pid, for people. It is the program's parent.
    #[must_use]
    pub fn launcher_pid(&self) -> u32 {
        self.launcher_pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The program's own pid, for people, if the launcher has started it and the kernel tells.
    #[must_use]
    pub fn program_pid(&self) -> Option<u32> {
        let launcher = self.launcher_pid();
        let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).ok()?;
        // In the order of their birth: the program is the launcher's first.
        children.split_ascii_whitespace().next()?.parse().ok()
    }

    /// The program's standard output, once.
    pub fn take_stdout(&mut self) -> Option<pipe::Receiver> {
        self.stdout.take()
    }

    /// The program's standard error, once. The launcher's own line, if it cannot start it, comes here too.
    pub fn take_stderr(&mut self) -> Option<pipe::Receiver> {
        self.stderr.take()
    }

    /// Waits until the program and all its descendants have ended, and reaps. Again afterwards: the same.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn wait(&mut self) -> ProcessEnd {
        loop {
            if let Some(end) = self.end {
                return end;
            }
            if let Some((end, sweep)) = &mut self.sweeping {
                // An error means that the runtime ends, and nothing waits any longer.
                let _ = sweep.await;
                self.end = Some(*end);
                continue;
            }
            let Some(pidfd) = &self.pidfd else { return ProcessEnd::Unknown };
            match pidfd.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime's driver is gone: nobody can wait any more, and dropping kills.
                Err(_) => return ProcessEnd::Unknown,
            }
            // Before it is reaped: after that its name is another's.
            let has_killed_all = calls_itself_ended(self.launcher_pid);
            let Some(end) = reap(pidfd.get_ref()) else { continue };
            if may_have_left(end, self.is_ordered || has_killed_all) {
                let mark = self.mark.clone();
                self.sweeping = Some((end, tokio::task::spawn_blocking(move || sweep(&mark))));
            } else {
                self.end = Some(end);
            }
        }
    }

    /// Asks the program and its process group to end, by SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    /// Has the launcher kill the program and every descendant at once.
    pub fn kill(&mut self) {
        self.is_ordered =
            self.pidfd.as_ref().is_some_and(|pidfd| !ends_within(pidfd.get_ref(), Duration::ZERO));
        self.signal(Signal::USR1);
        // A program may stop its launcher: that must not delay its end.
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let (Some(pidfd), None, None) = (&self.pidfd, &self.sweeping, self.end) {
            // It may have ended just now; then there is nothing to signal.
            let _ = rustix::process::pidfd_send_signal(pidfd.get_ref(), signal);
        }
    }

    /// SIGTERM, then after `grace` the end of everything; returns when it is reaped. With a grace of zero
    /// there is no SIGTERM.
    pub async fn end(&mut self, grace: Duration) -> ProcessEnd {
        if !grace.is_zero() {
            self.terminate();
            if let Ok(end) = tokio::time::timeout(grace, self.wait()).await {
                return end;
            }
        }
        self.kill();
        if let Ok(end) = tokio::time::timeout(LAUNCHER_KILL_TIME_MAX, self.wait()).await {
            return end;
        }
        // The program stopped or disturbed its launcher. Its own child dies with it, the others by their mark.
        self.is_ordered = false;
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// Waits for the end and collects the output: for programs that answer and exit.
    ///
    /// # Errors
    ///
    /// [`OutputError`]: it took or said too much; it is killed then.
    pub async fn output(mut self, limits: OutputLimits) -> Result<Output, OutputError> {
        let (stdout, stderr) = (self.take_stdout(), self.take_stderr());
        let collected = tokio::time::timeout(limits.time_max, async {
            let stdout = read_bounded(stdout, limits.stdout_bytes_max);
            tokio::join!(stdout, read_tail(stderr))
        });
        let Ok((stdout, stderr)) = collected.await else {
            self.end(Duration::ZERO).await;
            return Err(OutputError::TooSlow { time_max: limits.time_max });
        };
        let Some(stdout) = stdout else {
            self.end(Duration::ZERO).await;
            return Err(OutputError::TooLong { stdout_bytes_max: limits.stdout_bytes_max });
        };
        // Both pipes have ended, so that nothing below the launcher is left to wait for.
        Ok(Output { end: self.wait().await, stdout, stderr_tail: stderr.to_text() })
    }
}

/// Bounds of [`Supervised::output`].
#[derive(Clone, Copy, Debug)]
pub struct OutputLimits {
    /// Bytes of its standard output.
    pub stdout_bytes_max: u64,
    /// Time until its end.
    pub time_max: Duration,
}

/// What [`Supervised::output`] collected.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub end: ProcessEnd,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// The last 64 KiB of its standard error.
    pub stderr_tail: String,
}

/// Why [`Supervised::output`] gave up on a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// It did not end in time.
    #[error("the program did not end within {time_max:?}")]
    TooSlow {
        /// The bound.
        time_max: Duration,
    },
    /// It wrote more than allowed.
    #[error("the program wrote more than {stdout_bytes_max} bytes")]
    TooLong {
        /// The bound.
        stdout_bytes_max: u64,
    },
}

#[expect(
    deprecated,
    reason = "the safe form asks that the descriptor stays open and the same: an OwnedFd guarantees just that"
)]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

async fn read_bounded(stdout: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stdout) = stdout {
        // A pipe that fails has ended.
        let _ = stdout.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).await;
    }
    (bytes.len() as u64 <= bytes_max).then_some(bytes)
}

async fn read_tail(stderr: Option<impl AsyncRead + Unpin>) -> Tail {
    let mut tail = Tail::default();
    let mut chunk = vec![0; 8 << 10];
    if let Some(mut stderr) = stderr {
        while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
            tail.push(&chunk[..read]);
        }
    }
    tail
}

/// Reaps the process behind `pidfd` if it has ended.
fn reap(pidfd: &OwnedFd) -> Option<ProcessEnd> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ProcessEnd::Exited(code),
            (None, Some(number)) => ProcessEnd::Signaled(number),
            (None, None) => ProcessEnd::Unknown,
        }),
        Ok(None) | Err(Errno::INTR | Errno::AGAIN) => None,
        // Somebody else in this process reaped it, against the rules.
        Err(_) => Some(ProcessEnd::Unknown),
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self.end.is_some() {
            return;
        }
        let Some(pidfd) = self.pidfd.take() else { return };
        let pidfd = pidfd.into_inner();
        let is_sweeping = self.sweeping.is_some();
        let is_ordered = !ends_within(&pidfd, Duration::ZERO);
        // A program may stop its launcher: that must not delay its end.
        for signal in [Signal::USR1, Signal::CONT] {
            let _ = rustix::process::pidfd_send_signal(&pidfd, signal);
        }
        let rest = Arc::new((pidfd, self.mark.clone()));
        let given = Arc::clone(&rest);
        let end = move |(pidfd, mark): &(OwnedFd, Mark)| {
            let end = reap_killed(pidfd, is_ordered);
            if is_sweeping || end.is_none_or(|(end, is_ordered)| may_have_left(end, is_ordered)) {
                sweep(mark);
            }
        };
        // Killing takes milliseconds and must not be waited for here, perhaps on a runtime's only thread.
        let reaper = std::thread::Builder::new().name("reaper".into()).spawn(move || end(&given));
        if reaper.is_err() {
            end(&rest);
        }
    }
}

/// Waits for a launcher that was told to kill everything, and reaps it: how it ended, and whether as it was
/// told, if it had been.
fn reap_killed(pidfd: &OwnedFd, is_ordered: bool) -> Option<(ProcessEnd, bool)> {
    let by_itself = ends_within(pidfd, LAUNCHER_KILL_TIME_MAX);
    if !by_itself {
        let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        ends_within(pidfd, LAUNCHER_KILL_TIME_MAX);
    }
    Some((reap(pidfd)?, is_ordered && by_itself))
}

/// Whether a launcher that ended so may not have killed what is below it: by the one signal that it cannot
/// block. That its program ended by that signal looks the same, unless the launcher was ordered to kill it or has said
/// that it has.
fn may_have_left(end: ProcessEnd, has_killed_all: bool) -> bool {
    end == ProcessEnd::Signaled(Signal::KILL.as_raw()) && !has_killed_all
}

/// Whether a launcher, ended or not, has said that nothing is left below it.
fn calls_itself_ended(launcher: Pid) -> bool {
    let name = std::fs::read(format!("/proc/{}/comm", launcher.as_raw_nonzero()));
    name.is_ok_and(|name| name.trim_ascii_end() == extension_launcher::ENDED_NAME.as_bytes())
}
