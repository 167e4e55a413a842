//! How an instance ended, in one word and in one clause.
//!
//! Pure: what the kernel says of the process, what the host did to it, and what it said last come in; a class
//! comes out. What follows from it is decided in [`crate::restart`].

use std::fmt;
use std::time::Duration;

use rustix::process::Signal;

use crate::limits::Limit;
use crate::tail::last_lines;

/// What the kernel says of a process that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// Nobody knows: it was reaped by somebody else, or could no longer be waited for.
    Unknown,
}

impl ProcessEnd {
    /// Whether it exited with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }
}

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signaled(number) => f.write_str(&signal_name(*number)),
            Self::Unknown => f.write_str("an unknown end"),
        }
    }
}

/// What the host had done when an instance ended: the reason if the host ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostAct {
    /// It was asked to end, for this reason (`idle`, `stopped by request`).
    Stop {
        /// Why.
        why: String,
        /// Whether it had to be killed.
        forced: bool,
    },
    /// It was ended, and why is its class already, however it then went.
    Ended(ExitClass),
}

/// What an instance was doing when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// It was not ready yet.
    Start,
    /// So many calls were unanswered.
    Calls(u32),
    /// Nothing.
    Idle,
}

/// Why an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitClass {
    /// Exit code 0 after a goodbye, ready and with nothing left to do.
    Clean,
    /// It ended because the host asked it to.
    Stopped {
        /// Why.
        why: String,
    },
    /// It exited by itself, too early or with a code other than 0.
    Fault {
        /// The code.
        code: i32,
        /// What it left undone.
        during: During,
    },
    /// It panicked.
    Panic {
        /// What the panic said.
        message: String,
    },
    /// A signal that the host did not send.
    Signal {
        /// Its number.
        number: i32,
        /// What it left undone.
        during: During,
    },
    /// It did not become ready in time and was killed.
    StartTimeout {
        /// What was waited for, and how long.
        what: String,
    },
    /// It said itself that it cannot start.
    StartRefused {
        /// Why, in its words.
        what: String,
    },
    /// It hung and was ended.
    Hang {
        /// How that showed.
        what: String,
    },
    /// It passed a limit of its manifest.
    OverLimit {
        /// Which.
        limit: Limit,
        /// How that showed.
        what: String,
        /// Whether it is to be left alone from here on: `on-memory = "stop"`.
        stays_down: bool,
    },
    /// It broke the protocol and was killed.
    ProtocolViolation {
        /// How.
        what: String,
    },
    /// The host killed it.
    KilledByHost {
        /// Why.
        why: String,
    },
    /// The host stops as a whole.
    HostShutdown,
    /// It never ran: no such program, not executable, a limit that cannot be set.
    LauncherFailed {
        /// What the launcher said.
        message: String,
        /// Whether trying again without changing anything is pointless: the program or the launcher is missing,
        /// and not only descriptors or processes.
        permanent: bool,
        /// Whether it is the program that cannot be executed: its author's fault, and not the host's.
        of_program: bool,
    },
}

impl ExitClass {
    /// The class as one word, for `--json`, statistics and rules.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Stopped { .. } => "stopped",
            Self::Fault { .. } => "fault",
            Self::Panic { .. } => "panic",
            Self::Signal { .. } => "signal",
            Self::StartTimeout { .. } => "start-timeout",
            Self::StartRefused { .. } => "start-refused",
            Self::Hang { .. } => "hang",
            Self::OverLimit { limit: Limit::Memory, .. } => "out-of-memory",
            Self::OverLimit { limit: Limit::Cpu, .. } => "cpu-limit",
            Self::OverLimit { limit: Limit::Processes, .. } => "process-limit",
            Self::ProtocolViolation { .. } => "protocol-violation",
            Self::KilledByHost { .. } => "killed-by-host",
            Self::HostShutdown => "host-shutdown",
            Self::LauncherFailed { .. } => "launcher-failed",
        }
    }

    /// Whether it counts against the extension.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        !matches!(self, Self::Clean | Self::Stopped { .. } | Self::HostShutdown)
    }

    /// Whether trying again without changing anything is pointless.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::LauncherFailed { permanent: true, .. } | Self::OverLimit { stays_down: true, .. }
        )
    }
}

impl fmt::Display for ExitClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("it ended cleanly"),
            Self::Stopped { why } => write!(f, "the host stopped it: {why}"),
            Self::Fault { code, during } => write!(f, "it exited with code {code}{during}"),
            Self::Panic { message } => write!(f, "it panicked: {message}"),
            Self::Signal { number, during } => write!(f, "{} ended it{during}", signal_name(*number)),
            Self::StartTimeout { what } => write!(f, "it did not start in time: {what}"),
            Self::StartRefused { what } => write!(f, "it refused to start: {what}"),
            Self::Hang { what } => write!(f, "it hung: {what}"),
            Self::OverLimit { limit, what, .. } => {
                write!(f, "it passed its limit of {}: {what}", limit.name())
            }
            Self::ProtocolViolation { what } => write!(f, "it broke the protocol: {what}"),
            Self::KilledByHost { why } => write!(f, "the host killed it: {why}"),
            Self::HostShutdown => f.write_str("the host stops"),
            Self::LauncherFailed { message, .. } => write!(f, "it could not be started: {message}"),
        }
    }
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str(" before it was ready"),
            Self::Calls(1) => f.write_str(" with a call in flight"),
            Self::Calls(calls) => write!(f, " with {calls} calls in flight"),
            Self::Idle => Ok(()),
        }
    }
}

/// One end of one instance, with what was known then.
#[derive(Clone, Debug)]
pub struct ExitReport {
    /// Why.
    pub class: ExitClass,
    /// What the kernel says.
    pub end: ProcessEnd,
    /// How long it had been ready; zero if it never was.
    pub ready_for: Duration,
    /// The last 64 KiB of its standard error.
    pub stderr_tail: String,
}

impl fmt::Display for ExitReport {
    /// The class as a clause, and the last that it said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// LIMIT: of its last words, in a message.
        const LINES_MAX: usize = 5;
        const BYTES_MAX: usize = 1 << 10;
        write!(f, "{}", self.class)?;
        let said = last_lines(&self.stderr_tail, LINES_MAX, BYTES_MAX);
        if said.is_empty()
            || !self.class.is_failure()
            || matches!(self.class, ExitClass::LauncherFailed { .. })
        {
            return Ok(());
        }
        write!(f, "; its last output: {said}")
    }
}

/// Classifies an end. `has_left`: the instance had said goodbye. Without that, an end that nobody asked for is a
/// failure, whatever its code.
///
/// ```
/// use extension_host::exit::{During, ProcessEnd, classify};
///
/// let class = classify(ProcessEnd::Signaled(11), None, During::Calls(1), false, "");
/// assert_eq!(class.name(), "signal");
/// assert_eq!(class.to_string(), "SIGSEGV ended it with a call in flight");
/// ```
#[must_use]
pub fn classify(
    end: ProcessEnd,
    host_act: Option<HostAct>,
    during: During,
    has_left: bool,
    stderr_tail: &str,
) -> ExitClass {
    // What the host did comes first: the signal that it sent is its own doing.
    match host_act {
        Some(HostAct::Ended(class)) => return class,
        Some(HostAct::Stop { why, forced: true }) => return ExitClass::KilledByHost { why },
        // Asked to end: SIGTERM is an answer as good as code 0.
        Some(HostAct::Stop { why, forced: false })
            if end.is_success() || end == ProcessEnd::Signaled(Signal::TERM.as_raw()) =>
        {
            return ExitClass::Stopped { why };
        }
        Some(HostAct::Stop { .. }) | None => {}
    }
    match end {
        ProcessEnd::Exited(
            code @ (extension_launcher::EXIT_LAUNCHER_FAILED
            | extension_launcher::EXIT_NOT_EXECUTABLE
            | extension_launcher::EXIT_NOT_FOUND),
        ) if during == During::Start
            && let Some(message) = launcher_message(stderr_tail) =>
        {
            let of_program = code != extension_launcher::EXIT_LAUNCHER_FAILED;
            ExitClass::LauncherFailed { message, permanent: true, of_program }
        }
        ProcessEnd::Exited(101) | ProcessEnd::Signaled(SIGABRT)
            if let Some(message) = panic_message(stderr_tail) =>
        {
            ExitClass::Panic { message }
        }
        ProcessEnd::Exited(0) if during == During::Idle && has_left => ExitClass::Clean,
        ProcessEnd::Exited(code) => ExitClass::Fault { code, during },
        ProcessEnd::Signaled(number) => ExitClass::Signal { number, during },
        ProcessEnd::Unknown => ExitClass::KilledByHost { why: "it could no longer be watched".into() },
    }
}

const SIGABRT: i32 = Signal::ABORT.as_raw();

fn launcher_message(stderr_tail: &str) -> Option<String> {
    let said =
        stderr_tail.lines().rev().find_map(|line| line.strip_prefix(extension_launcher::MESSAGE_PREFIX));
    said.map(str::to_owned)
}

/// The last panic in the standard library's form: `thread 'NAME' (ID) panicked at FILE:LINE:COLUMN:`, and the
/// message in the next line.
fn panic_message(stderr_tail: &str) -> Option<String> {
    let lines: Vec<&str> = stderr_tail.lines().collect();
    let at = lines.iter().rposition(|line| line.starts_with("thread '") && line.contains(" panicked at "))?;
    let (_, place) = lines[at].split_once(" panicked at ")?;
    let said = lines.get(at + 1).copied().unwrap_or("");
    Some(format!("{said} (at {})", place.trim_end_matches(':')))
}

fn signal_name(number: i32) -> String {
    const NAMES: [(Signal, &str); 15] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::SYS, "SIGSYS"),
    ];
    let named = NAMES.iter().find(|(signal, _)| signal.as_raw() == number);
    named.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use During::{Calls, Idle, Start};
    use ProcessEnd::{Exited, Signaled, Unknown};

    const PANIC: &str =
        "starting\n\nthread 'main' (12) panicked at src/main.rs:3:5:\nno such thing\nnote: run with\n";

    #[test]
    fn every_end_has_a_class() {
        let stop = |forced| Some(HostAct::Stop { why: "idle".into(), forced });
        let launcher = "extension-launcher: program /x cannot be executed: no\n";
        for (end, act, during, stderr, class, clause) in [
            (Exited(0), None, Idle, "", "fault", "it exited with code 0"),
            (Exited(0), None, Start, "", "fault", "it exited with code 0 before it was ready"),
            (Exited(0), None, Calls(1), "", "fault", "it exited with code 0 with a call in flight"),
            (Exited(3), None, Idle, "", "fault", "it exited with code 3"),
            (Exited(101), None, Idle, PANIC, "panic", "it panicked: no such thing (at src/main.rs:3:5)"),
            (Signaled(6), None, Idle, PANIC, "panic", "it panicked: no such thing (at src/main.rs:3:5)"),
            (Exited(101), None, Idle, "", "fault", "it exited with code 101"),
            (Signaled(6), None, Calls(2), "", "signal", "SIGABRT ended it with 2 calls in flight"),
            (Signaled(9), None, Idle, "", "signal", "SIGKILL ended it"),
            (Signaled(42), None, Idle, "", "signal", "signal 42 ended it"),
            (
                Exited(127),
                None,
                Start,
                launcher,
                "launcher-failed",
                "it could not be started: program /x cannot be executed: no",
            ),
            (
                Exited(127),
                None,
                Start,
                "sh: x: not found\n",
                "fault",
                "it exited with code 127 before it was ready",
            ),
            (Exited(127), None, Idle, launcher, "fault", "it exited with code 127"),
            (Exited(0), stop(false), Idle, "", "stopped", "the host stopped it: idle"),
            (Signaled(15), stop(false), Idle, "", "stopped", "the host stopped it: idle"),
            (Exited(9), stop(false), Idle, "", "fault", "it exited with code 9"),
            (Signaled(9), stop(true), Idle, "", "killed-by-host", "the host killed it: idle"),
            (
                Signaled(9),
                Some(HostAct::Ended(ExitClass::HostShutdown)),
                Calls(1),
                "",
                "host-shutdown",
                "the host stops",
            ),
            (
                Signaled(9),
                Some(HostAct::Ended(ExitClass::StartTimeout { what: "no Welcome in 5 s".into() })),
                Start,
                "",
                "start-timeout",
                "it did not start in time: no Welcome in 5 s",
            ),
            (
                Signaled(15),
                Some(HostAct::Ended(ExitClass::Hang { what: "it said nothing".into() })),
                Calls(1),
                "",
                "hang",
                "it hung: it said nothing",
            ),
            (
                Signaled(9),
                Some(HostAct::Ended(ExitClass::ProtocolViolation { what: "garbage".into() })),
                Calls(1),
                PANIC,
                "protocol-violation",
                "it broke the protocol: garbage",
            ),
            (Unknown, None, Idle, "", "killed-by-host", "the host killed it: it could no longer be watched"),
        ] {
            let found = classify(end, act.clone(), during, false, stderr);
            assert_eq!(
                (found.name(), found.to_string().as_str()),
                (class, clause),
                "{end:?} {act:?} {during:?}"
            );
        }
    }

    #[test]
    fn only_who_said_goodbye_and_owes_nothing_ends_cleanly() {
        for (has_left, during, class) in
            [(true, Idle, "clean"), (false, Idle, "fault"), (true, Calls(1), "fault"), (true, Start, "fault")]
        {
            assert_eq!(
                classify(Exited(0), None, during, has_left, "").name(),
                class,
                "{has_left} {during:?}"
            );
        }
    }

    #[test]
    fn a_report_ends_with_the_last_output() {
        let report = |stderr_tail: &str| ExitReport {
            class: ExitClass::Fault { code: 3, during: Idle },
            end: Exited(3),
            ready_for: Duration::ZERO,
            stderr_tail: stderr_tail.into(),
        };
        assert_eq!(report("a\n\nb\n").to_string(), "it exited with code 3; its last output: a\nb");
        assert_eq!(report("").to_string(), "it exited with code 3");
    }
}
