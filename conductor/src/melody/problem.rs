//! Mistakes of a melody, each with its place, collected so that one check reports all of them.
//!
//! This file must not know what a melody contains.

use std::ops::Range;
use std::path::{Path, PathBuf};

use extension_host::diagnostic::{Diagnostic, Diagnostics, closest};

/// Names listed in a hint; more than these are left out.
const LISTED_NAMES_MAX: usize = 12;

/// The text of a melody and what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Problems {
    file: PathBuf,
    text: String,
    found: Diagnostics,
    count: usize,
}

impl Problems {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        Self { file: file.to_path_buf(), text: text.to_owned(), found: Diagnostics::default(), count: 0 }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Adds a mistake at the bytes `span`; an empty hint is left out.
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        let found = Diagnostic::error(&self.file, &self.text, span, message);
        let hint = hint.into();
        self.count += 1;
        self.found.push(if hint.is_empty() { found } else { found.with_hint(hint) });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are, to see whether some were added.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// All mistakes, in the order of the file.
    pub(super) fn into_diagnostics(mut self) -> Diagnostics {
        self.found.sort();
        self.found
    }

    /// The place as `file:line:column`.
    pub(super) fn place(&self, span: &Range<usize>) -> String {
        let found = Diagnostic::error(&self.file, &self.text, span.clone(), "");
        format!("{}:{}:{}", found.file.display(), found.line, found.column)
    }

    /// Where the bytes `range` of the string that was written at `span` stand in the file: exactly where
    /// the string is written without escapes, else the whole string.
    pub(super) fn inside(&self, span: &Range<usize>, content: &str, range: Range<usize>) -> Range<usize> {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        match raw.find(content) {
            // A multi-line string's content starts after its three quotes and a line break.
            Some(at) if range.end <= content.len() => {
                let start = span.start + at;
                start + range.start..start + range.end
            }
            _ => span.clone(),
        }
    }
}

/// What a wrong name should have been: the closest one, else what there is.
pub(super) fn suggestion<'a>(given: &str, known: impl IntoIterator<Item = &'a str>, what: &str) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    if let Some(closest) = closest(given, known.iter().copied()) {
        return format!("did you mean `{closest}`?");
    }
    if known.is_empty() {
        return format!("there are no {what}");
    }
    known.sort_unstable();
    let left_out = known.len().saturating_sub(LISTED_NAMES_MAX);
    known.truncate(LISTED_NAMES_MAX);
    let more = if left_out > 0 { format!(" and {left_out} more") } else { String::new() };
    format!("{what}: {}{more}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_inside_a_string_is_exact_where_nothing_is_escaped() {
        let text = "a = \"{{ x }}\"\nb = \"\\u007b{ x }}\"\nc = \"\"\"\n{{ x }}\"\"\"";
        let problems = Problems::new(Path::new("m.toml"), text);
        assert_eq!(problems.inside(&(4..13), "{{ x }}", 3..4), 8..9);
        let escaped = 18..text.find("\nc").unwrap();
        assert_eq!(problems.inside(&escaped, "{{ x }}", 3..4), escaped);
        let multi_line = text.find("\"\"\"").unwrap()..text.len();
        assert_eq!(&text[problems.inside(&multi_line, "{{ x }}", 3..4)], "x");
    }

    #[test]
    fn a_suggestion_is_the_closest_name_or_what_there_is() {
        assert_eq!(suggestion("lst", ["list", "rank"], "steps"), "did you mean `list`?");
        assert_eq!(suggestion("zzzzz", ["list", "rank"], "steps"), "steps: list, rank");
        assert_eq!(suggestion("zzzzz", [], "steps"), "there are no steps");
    }
}
