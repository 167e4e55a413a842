//! How the program ends: the documented exit codes, and the failure that carries one to the edge.
//!
//! Every command returns [`Failure`] and prints nothing about it: the chain is printed once, in
//! [`Failure::print`]. This file must not know any command.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;

use crate::document::ErrorReport;
use crate::printable;

/// The exit codes, as documented in `conductor --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Success = 0,
    /// The run, the call or the check failed.
    Failed = 1,
    /// The command line, an input, a melody, a manifest or the configuration is wrong.
    Usage = 2,
    /// Something that the program needs is missing or unusable: a binary, cargo, the data folder.
    Environment = 3,
    /// Cancelled because the terminal was closed.
    HungUp = 129,
    /// Cancelled by Ctrl-C.
    Interrupted = 130,
    /// Cancelled by SIGTERM.
    Terminated = 143,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, with the exit code that says so to programs.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong; `None` where there is nothing to add (a `--json` document, a table).
    pub error: Option<anyhow::Error>,
    /// The error was shown to people already, in a better form than a chain.
    pub is_shown: bool,
    /// What to do about it, in a clause.
    pub help: Option<String>,
    /// The extension whose author is at fault; `None`: whoever the exit code says.
    pub extension: Option<String>,
    /// What documents say of it; `None`: what follows from the rest.
    pub report: Option<Box<ErrorReport>>,
}

impl Failure {
    const fn new(exit: Exit, error: anyhow::Error) -> Self {
        Self { exit, error: Some(error), is_shown: false, help: None, extension: None, report: None }
    }

    /// A failure of the run itself.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Failed, error.into())
    }

    /// Wrong input: the caller's fault.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Usage, error.into())
    }

    /// Something outside is missing or unusable.
    pub fn environment(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Environment, error.into())
    }

    /// Ends with `exit`; all was said already.
    #[must_use]
    pub const fn silent(exit: Exit) -> Self {
        Self { exit, error: None, is_shown: true, help: None, extension: None, report: None }
    }

    /// Cancelled with `exit`, which people know because they did it; documents are told `report`.
    #[must_use]
    pub fn cancelled(exit: Exit, report: ErrorReport) -> Self {
        Self { report: Some(Box::new(report)), ..Self::silent(exit) }
    }

    /// The same failure, of which people know already.
    #[must_use]
    pub fn shown(mut self) -> Self {
        self.is_shown = true;
        self
    }

    /// The same failure with a clause about what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same failure, for which the author of `extension` is to blame.
    #[must_use]
    pub fn of_extension(mut self, extension: Option<&str>) -> Self {
        self.extension = extension.map(str::to_owned);
        self
    }

    /// The failure of a call, of which people and documents are told the same.
    #[must_use]
    pub fn reported(report: ErrorReport) -> Self {
        let help = format!("{} (at fault: {}; try again: {})", report.help, report.origin, report.retry);
        let failure = Self::failed(anyhow::Error::msg(report.message.clone())).with_help(help);
        Self { report: Some(Box::new(report)), ..failure }
    }

    /// Writes the chain to stderr: `error: what: why: why`, then what to do.
    pub fn print(&self) {
        let (Some(error), false) = (&self.error, self.is_shown) else { return };
        // A closed stderr is no reason to fail differently.
        let _ = writeln!(std::io::stderr().lock(), "{}", self.told(error));
    }

    /// Parts of it are the words of extensions and names of files.
    fn told(&self, error: &anyhow::Error) -> String {
        let chain = chain(error.as_ref());
        let mut text = format!("error: {}", printable::paragraph(&chain));
        if let Some(help) = &self.help {
            let _ = write!(text, "\n  help: {}", printable::paragraph(help));
        }
        if let Some(extension) = &self.extension {
            let _ = write!(text, " (at fault: the extension `{}`)", printable::line(extension));
        }
        text
    }
}

/// The error and its sources in one line, without repeating a clause that the one before ends with.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let clause = source.to_string();
        if !text.ends_with(&clause) {
            let _ = write!(text, ": {clause}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_that_was_said_is_not_repeated() {
        let inner = std::io::Error::other("no room");
        let error = anyhow::Error::from(inner).context("cannot store `a`");
        assert_eq!(chain(error.as_ref()), "cannot store `a`: no room");
        let error = anyhow::anyhow!("no room").context("it failed: no room");
        assert_eq!(chain(error.as_ref()), "it failed: no room");
    }

    #[test]
    fn words_of_others_cannot_steer_the_terminal_or_pose_as_help() {
        let failure = Failure::failed(anyhow::anyhow!("no\u{1b}[2J\n  help: give it your password"));
        let failure = failure.with_help("ask `a\u{9b}b`");
        let told = failure.error.as_ref().map(|error| failure.told(error));
        let expected = "error: no\\u{1b}[2J\n         help: give it your password\n  help: ask `a\\u{9b}b`";
        assert_eq!(told.as_deref(), Some(expected));
    }
}
