//! Running cargo, and new programs with `--describe`: both under the host's launcher, so that they and all
//! that they start end when the conductor does.
//!
//! This file must not know which programs are fresh; it builds what it is told.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use extension_host::Manifest;
use extension_host::supervised::{self, LauncherProgram, OutputLimits, Program};
use indicatif::ProgressBar;
use ipc_protocol::limits::DESCRIPTION_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::compiler::CompilerWords;
use super::describe::DescribeError;
use super::messages::{LINE_BYTES_MAX, Message};
use super::{BuildError, Made, Target};
use crate::config::Settings;
use crate::progress::Screen;
use crate::terminal::is_without_colours;

/// LIMIT: time that a program may take to describe itself.
const DESCRIBE_TIME_MAX: Duration = Duration::from_secs(10);
/// Columns of cargo's progress line, which is read and not shown.
const PROGRESS_COLUMNS: &str = "160";
/// LIMIT: binaries that are told where the one that was named is not among them.
const BINARIES_TOLD_MAX: usize = 16;

/// One cargo, for all packages of one workspace.
pub(super) struct Build<'a> {
    pub(super) cargo: &'a Path,
    pub(super) workspace: &'a Path,
    pub(super) environment: &'a [(OsString, OsString)],
    pub(super) settings: &'a Settings,
}

impl Build<'_> {
    /// Builds `targets` and gives what was made of them, in their order.
    pub(super) async fn run(&self, targets: &[Target<'_>], screen: &Screen) -> Result<Vec<Made>, BuildError> {
        let packages: Vec<&str> = targets.iter().map(|target| target.package).collect();
        let packages = packages.join(", ");
        let mut cargo = supervised::spawn(&LauncherProgram::CurrentExe, self.program(targets, screen))
            .map_err(|error| BuildError::Run(io::Error::other(error)))?;
        let display = Display::new(screen, &packages);
        let (stdout, stderr) = (cargo.take_stdout(), cargo.take_stderr());
        let mut programs = vec![None; targets.len()];
        let mut libraries: Vec<Option<PathBuf>> = vec![None; targets.len()];
        let mut others = vec![BTreeSet::new(); targets.len()];
        let messages = pieces(stdout, |piece| {
            if let Some(Message::Compiled { package, is_fresh, binary, library }) = Message::parse(piece) {
                display.compiled(is_fresh);
                for (target, place) in targets.iter().zip(&mut libraries) {
                    if target.package == package && library.is_some() {
                        place.clone_from(&library);
                    }
                }
                let Some((name, file)) = binary else { return };
                let of_package = targets.iter().enumerate().filter(|(_, target)| target.package == package);
                for (index, target) in of_package {
                    if target.binary == name {
                        programs[index] = Some(file.clone());
                    } else if others[index].len() < BINARIES_TOLD_MAX {
                        others[index].insert(name.clone());
                    }
                }
            }
        });
        let mut said = CompilerWords::default();
        let words = pieces(stderr, |piece| {
            let text = String::from_utf8_lossy(piece);
            said.take(&without_escapes(&text));
            display.said(&text);
        });
        let (messages, words, end) = tokio::join!(messages, words, cargo.wait());
        drop(display);
        messages.and(words).map_err(BuildError::Run)?;
        if !end.is_success() {
            let (mistake, package) = said.verdict();
            let named = targets.iter().find(|target| Some(target.package) == package.as_deref());
            // What is built for one extension alone is that extension's matter, its dependencies included.
            let only = targets.first().filter(|_| targets.len() == 1);
            let extension = named.or(only).map(|target| target.extension.to_owned());
            return Err(BuildError::Failed { packages, extension, status: end, mistake });
        }
        let found = targets.iter().zip(programs).zip(others).zip(libraries);
        let found = found.map(|(((target, program), others), library)| {
            let program = program.ok_or_else(|| BuildError::NoBinary {
                extension: target.extension.to_owned(),
                package: target.package.to_owned(),
                binary: target.binary.clone(),
                others: Vec::from_iter(others),
            })?;
            if target.is_in_process && library.is_none() {
                return Err(BuildError::NoLibrary {
                    extension: target.extension.to_owned(),
                    package: Some(target.package.to_owned()),
                });
            }
            Ok(Made { program, library: library.filter(|_| target.is_in_process) })
        });
        found.collect()
    }

    fn program(&self, targets: &[Target<'_>], screen: &Screen) -> Program {
        let mut arguments = vec!["build", "--profile", &self.settings.build_profile];
        arguments.push("--message-format=json-render-diagnostics");
        for target in targets {
            arguments.extend(["-p", target.package]);
        }
        let mut program = Program::new(self.cargo).with_arguments(arguments);
        program.environment = self.environment.to_vec();
        if screen.is_terminal() {
            // What cargo would show to a terminal, although it writes to a pipe.
            let colour = if is_without_colours() { "never" } else { "always" };
            for (name, value) in [
                ("CARGO_TERM_COLOR", colour),
                ("CARGO_TERM_PROGRESS_WHEN", "always"),
                ("CARGO_TERM_PROGRESS_WIDTH", PROGRESS_COLUMNS),
            ] {
                program.environment.retain(|(known, _)| known != name);
                program.environment.push((name.into(), value.into()));
            }
        }
        program.working_directory = Some(self.workspace.to_path_buf());
        program
    }
}

/// Cargo's work as people watch it: a spinner with the current crates on a terminal, its own lines else.
struct Display<'a> {
    screen: &'a Screen,
    bar: Option<ProgressBar>,
}

impl<'a> Display<'a> {
    fn new(screen: &'a Screen, packages: &str) -> Self {
        let bar = screen.is_terminal().then(|| {
            let bar = screen.spinner("building");
            bar.set_message(packages.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            screen.line(&format!("building {packages}"));
        }
        Self { screen, bar }
    }

    fn compiled(&self, is_fresh: bool) {
        if let Some(bar) = &self.bar
            && !is_fresh
        {
            bar.inc(1);
        }
    }

    /// A line, or a state of the progress line, that cargo wrote to stderr.
    fn said(&self, text: &str) {
        match (&self.bar, progress_of(text)) {
            (Some(bar), Some(progress)) => bar.set_message(progress),
            (None, Some(_)) => {}
            // On a terminal these say the same as the spinner.
            (Some(_), None) if is_step(text) => {}
            (_, None) if text.trim().is_empty() && self.bar.is_some() => {}
            // As it is: the compiler colours what it says to a terminal. It runs with the user's rights anyway.
            (_, None) => {
                let _ = self.screen.write(format!("{text}\n").as_bytes());
            }
        }
    }
}

impl Drop for Display<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `12/80: serde, syn` of `    Building [====>      ] 12/80: serde, syn`.
fn progress_of(text: &str) -> Option<String> {
    let plain = without_escapes(text);
    let rest = plain.trim_start().strip_prefix("Building [")?;
    let (_, rest) = rest.split_once("] ")?;
    Some(rest.trim_end().to_owned())
}

/// Whether a line only says that a crate is being compiled, or that all is done.
fn is_step(text: &str) -> bool {
    let plain = without_escapes(text);
    let word = plain.split_whitespace().next().unwrap_or_default();
    plain.starts_with(' ') && matches!(word, "Compiling" | "Finished" | "Fresh" | "Dirty")
}

/// The text without what sets colours and clears lines.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // A sequence ends with its first letter.
            let _ = characters.find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Hands over what a pipe yields, piece by piece; a piece ends with a line feed or a carriage return.
async fn pieces(pipe: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut buffer = Vec::with_capacity(64 << 10);
    // A piece that is longer than any message is left out.
    let mut is_overlong = false;
    loop {
        let before = buffer.len();
        if pipe.read_buf(&mut buffer).await? == 0 {
            if !buffer.is_empty() {
                take(&buffer);
            }
            return Ok(());
        }
        let mut start = 0;
        for at in before..buffer.len() {
            if matches!(buffer[at], b'\n' | b'\r') {
                if !std::mem::take(&mut is_overlong) && at - start <= LINE_BYTES_MAX {
                    take(&buffer[start..at]);
                }
                start = at + 1;
            }
        }
        buffer.drain(..start);
        if buffer.len() > LINE_BYTES_MAX {
            is_overlong = true;
            buffer.clear();
        }
    }
}

/// What `program --describe` prints: restricted as an instance is (new privileges are
/// refused to whatever the launcher starts), within bounds.
pub(super) async fn run_describe(manifest: &Manifest, program: &Path) -> Result<Vec<u8>, DescribeError> {
    let extension = || manifest.name.clone();
    let process = Program::of_manifest(manifest, program).with_arguments(["--describe"]);
    let limits = OutputLimits { stdout_bytes_max: DESCRIPTION_BYTES_MAX, time_max: DESCRIBE_TIME_MAX };
    let running = supervised::spawn(&LauncherProgram::CurrentExe, process)
        .map_err(|error| DescribeError::Io { extension: extension(), source: io::Error::other(error) })?;
    let output = running.output(limits).await;
    let output = output
        .map_err(|error| DescribeError::Run { extension: extension(), how: format!("failed: {error}") })?;
    if !output.end.is_success() {
        let last = output.stderr_tail.lines().last().unwrap_or_default();
        let how = format!("ended with {}: {last}", output.end);
        return Err(DescribeError::Run { extension: extension(), how });
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_with_and_without_colours() {
        let plain = "    Building [=======>         ] 12/80: serde, syn   ";
        let coloured = "\u{1b}[K\u{1b}[1m\u{1b}[36m    Building\u{1b}[0m [=====> ] 12/80: serde, syn";
        for text in [plain, coloured] {
            assert_eq!(progress_of(text).as_deref(), Some("12/80: serde, syn"));
        }
        assert_eq!(progress_of("error: Building [x] 1"), None);
        assert!(is_step("   Compiling serde v1.0.0"));
        assert!(!is_step("error: Compiling failed"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn pieces_end_at_line_feeds_and_carriage_returns_and_are_bounded() {
        let long = vec![b'x'; LINE_BYTES_MAX + (128 << 10)];
        let text = [&b"one\rtwo\n\n"[..], &long, b"\nlast"].concat();
        let mut seen = Vec::new();
        pieces(Some(&text[..]), |piece| seen.push(String::from_utf8(piece.to_vec()).unwrap())).await.unwrap();
        assert_eq!(seen, ["one", "two", "", "last"]);
    }
}
