//! What cargo and the compiler say while a build fails, read for the one line that an error needs: the first
//! mistake, its place, and whose package it is in.
//!
//! Everything that they say is shown to people as it comes; this is for the error at the end and for programs.
//! This file must not know how cargo is run.

use std::fmt;

/// LIMIT: characters of a mistake that are kept.
const MISTAKE_CHARS_MAX: usize = 400;

/// The first mistake of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompilerMistake {
    /// What the compiler calls it: `error[E0308]: mismatched types`.
    pub message: String,
    /// `src/main.rs:3:9`, where it names one.
    pub place: Option<String>,
}

impl fmt::Display for CompilerMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.place {
            Some(place) => write!(f, ", at {place}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CompilerMistake {}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct CompilerWords {
    mistake: Option<CompilerMistake>,
    /// The package that cargo gave up on.
    package: Option<String>,
}

impl CompilerWords {
    /// Takes one line, without what sets colours.
    pub(super) fn take(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("error: could not compile `") {
            let package = rest.split('`').next().unwrap_or_default();
            self.package.get_or_insert_with(|| package.to_owned());
            return;
        }
        match &mut self.mistake {
            None if line.starts_with("error") => {
                let message = line.chars().take(MISTAKE_CHARS_MAX).collect();
                self.mistake = Some(CompilerMistake { message, place: None });
            }
            Some(CompilerMistake { place: place @ None, .. }) => {
                let found = line.trim_start().strip_prefix("--> ");
                *place = found.map(|found| found.chars().take(MISTAKE_CHARS_MAX).collect());
            }
            _ => {}
        }
    }

    /// The first mistake, and the package that failed.
    pub(super) fn verdict(self) -> (Option<CompilerMistake>, Option<String>) {
        (self.mistake, self.package)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> (Option<String>, Option<String>) {
        let mut words = CompilerWords::default();
        text.lines().for_each(|line| words.take(line));
        let (mistake, package) = words.verdict();
        (mistake.map(|mistake| mistake.to_string()), package)
    }

    #[test]
    fn the_first_mistake_its_place_and_its_package_are_found() {
        let text = "   Compiling bad v0.1.0 (/x)\nwarning: unused\n --> src/lib.rs:9:9\nerror[E0308]: mismatched types\n \
            --> src/main.rs:1:25\n  |\n\nerror: aborting\n --> other:1:1\n\
            error: could not compile `bad` (bin \"bad\") due to 1 previous error\n";
        let mistake = "error[E0308]: mismatched types, at src/main.rs:1:25".to_owned();
        assert_eq!(verdict(text), (Some(mistake), Some("bad".to_owned())));
    }

    #[test]
    fn what_is_no_mistake_of_the_compiler_has_no_place() {
        let text = "error: linking with `cc` failed: exit status: 1\n  = note: no such file\n";
        assert_eq!(verdict(text), (Some("error: linking with `cc` failed: exit status: 1".to_owned()), None));
        assert_eq!(verdict("    Finished\n"), (None, None));
    }
}
