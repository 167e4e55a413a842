//! Where a file is wrong, why, and what is allowed: file, line, column, the line itself with a caret.
//!
//! Used for manifests here and for melodies by whoever reads those. This file must not know what either
//! contains; it only knows text and positions.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// LIMIT: characters of a source line that a diagnostic shows; the window moves so that the caret is in it.
pub const SHOWN_LINE_CHARS_MAX: usize = 120;

/// LIMIT: diagnostics kept for one file; a file with more is wrong as a whole.
pub const DIAGNOSTICS_MAX: usize = 64;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Probably not what was meant.
    Warning,
    /// The file cannot be used.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding in a text file.
///
/// ```
/// use extension_host::Diagnostic;
///
/// let text = "name = \"echo\"\nteir = \"process\"\n";
/// let found = Diagnostic::error("extension.toml", text, 14..18, "unknown key `teir`").with_hint("did you mean `tier`?");
/// assert_eq!((found.line, found.column), (2, 1));
/// assert!(found.to_string().contains("2 | teir = \"process\"\n  | ^^^^"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as it was named by whoever read it.
    pub file: PathBuf,
    /// Line, from 1; 0 if it is about the file as a whole.
    pub line: u32,
    /// Column in characters, from 1; 0 if it is about the file as a whole.
    pub column: u32,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one clause.
    pub message: String,
    /// What is allowed, or what to do.
    pub hint: Option<String>,
    /// The line itself, shortened to what is shown, and where in it the carets stand.
    shown: Option<Shown>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    line: String,
    caret_at: usize,
    caret_chars: usize,
}

impl Diagnostic {
    /// A finding at the bytes `span` of `text`. A span outside the text is moved to its end.
    #[must_use]
    pub fn at(
        severity: Severity,
        file: impl AsRef<Path>,
        text: &str,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Self {
        let start = floor_char_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line_number = text[..start].bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let end = floor_char_boundary(text, span.end).clamp(start, line_end);
        let caret_chars = text[start..end].chars().count().max(1);
        let line = text[line_start..line_end].trim_end_matches('\r');
        Self {
            file: file.as_ref().to_path_buf(),
            line: u32::try_from(line_number).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            severity,
            message: message.into(),
            hint: None,
            shown: Some(Shown::new(line, column - 1, caret_chars)),
        }
    }

    /// An error at the bytes `span` of `text`.
    #[must_use]
    pub fn error(file: impl AsRef<Path>, text: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        Self::at(Severity::Error, file, text, span, message)
    }

    /// A finding about a file as a whole: it is missing, unreadable, too large.
    #[must_use]
    pub fn whole_file(severity: Severity, file: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self {
            file: file.as_ref().to_path_buf(),
            line: 0,
            column: 0,
            severity,
            message: message.into(),
            hint: None,
            shown: None,
        }
    }

    /// The same finding, with what is allowed or what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Shown {
    fn new(line: &str, caret_at: usize, caret_chars: usize) -> Self {
        // A caret in the last quarter of the window shows what came before; most lines fit whole.
        let skip = (caret_at + 1).saturating_sub(SHOWN_LINE_CHARS_MAX * 3 / 4);
        let line: String = line.chars().skip(skip).take(SHOWN_LINE_CHARS_MAX).map(printable).collect();
        let caret_at = caret_at - skip;
        let room = line.chars().count().saturating_sub(caret_at).max(1);
        Self { line, caret_at, caret_chars: caret_chars.min(room) }
    }
}

/// Terminals act on control characters, and a tab is wider than its caret.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        control if control.is_control() => '\u{fffd}',
        other => other,
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.message)?;
        let number = if self.line == 0 { String::new() } else { self.line.to_string() };
        let margin = " ".repeat(number.len());
        write!(f, "\n{margin}--> {}", self.file.display())?;
        if self.line != 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if let Some(shown) = &self.shown {
            let before = " ".repeat(shown.caret_at);
            let carets = "^".repeat(shown.caret_chars);
            write!(f, "\n{margin} |\n{number} | {}\n{margin} | {before}{carets}", shown.line)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{margin} = {hint}")?;
        }
        Ok(())
    }
}

/// All findings of one check, in the order of the file. Shown one after the other with an empty line between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    left_out: usize,
}

impl Diagnostics {
    /// Adds a finding; beyond [`DIAGNOSTICS_MAX`] they are only counted.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.items.len() < DIAGNOSTICS_MAX {
            self.items.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    /// Whether one of them is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.left_out > 0 || self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// The findings, by file, line and column.
    #[must_use]
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// Puts them into the order of the file.
    pub fn sort(&mut self) {
        self.items.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    }

    /// Adds those of another check.
    pub fn append(&mut self, other: Self) {
        self.left_out += other.left_out;
        for item in other.items {
            self.push(item);
        }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { items: vec![diagnostic], left_out: 0 }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{item}")?;
        }
        if self.left_out > 0 {
            write!(f, "\n\n{} more findings are not shown", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The one of `known` that `given` was probably meant to be: at most a third of its letters differ.
#[must_use]
pub fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // LIMIT: nobody misspells a key of this length, and the distance is quadratic.
    const GIVEN_CHARS_MAX: usize = 64;
    let given: Vec<char> = given.chars().take(GIVEN_CHARS_MAX).collect();
    known
        .into_iter()
        .map(|candidate| (edit_distance(&given, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(3) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete, replace or swap with their neighbour.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_and_column_count_characters_from_one() {
        let text = "a = 1\n\u{e4}\u{f6} = \"x\"\r\nlast";
        for (span, line, column) in [
            (0..1, 1, 1),
            (6..8, 2, 1),
            (8..10, 2, 2),
            (11..12, 2, 4),
            (text.len() - 4..text.len(), 3, 1),
            (text.len()..text.len(), 3, 5),
            (9_999..10_000, 3, 5),
        ] {
            let found = Diagnostic::error("f", text, span.clone(), "m");
            assert_eq!((found.line, found.column), (line, column), "{span:?}");
        }
    }

    #[test]
    fn caret_stays_within_the_shown_line() {
        let long = format!("key = \"{}\"", "x".repeat(1_000));
        for at in [0, 6, 100, 500, 1_006] {
            let shown = Diagnostic::error("f", &long, at..at + 1, "m").to_string();
            let lines: Vec<&str> = shown.lines().collect();
            assert!(lines[3].chars().count() <= SHOWN_LINE_CHARS_MAX + 8, "{shown}");
            let caret = lines[4].chars().position(|c| c == '^').expect("a caret is shown");
            assert!(caret < lines[3].chars().count(), "{shown}");
        }
    }

    #[test]
    fn control_characters_are_not_passed_to_the_terminal() {
        let shown = Diagnostic::error("f", "a\u{1b}[31m\tb", 0..1, "m").to_string();
        assert!(!shown.contains('\u{1b}') && !shown.contains('\t'), "{shown:?}");
    }

    #[test]
    fn closest_finds_typing_mistakes_only() {
        let known = ["tier", "version", "idle-timeout", "in-flight"];
        for (given, expected) in [
            ("teir", Some("tier")),
            ("idle_timeout", Some("idle-timeout")),
            ("in-fligth", Some("in-flight")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(closest(given, known), expected, "{given}");
        }
    }

    #[test]
    fn findings_beyond_the_limit_are_counted() {
        let mut all = Diagnostics::default();
        for _ in 0..DIAGNOSTICS_MAX + 3 {
            all.push(Diagnostic::whole_file(Severity::Note, "f", "m"));
        }
        assert_eq!(all.items().len(), DIAGNOSTICS_MAX);
        assert!(all.to_string().ends_with("3 more findings are not shown"));
    }
}
