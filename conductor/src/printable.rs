//! Text of others on its way to a terminal: what would steer the terminal is shown instead of obeyed.
//!
//! Messages, log lines and names come from extensions, melodies and files. Everything that is written for
//! people goes through here at the edge, and only there: documents for programs keep what was said. This
//! file must not know who says what.

use std::borrow::Cow;

/// What stands before the second and each further line of a message: no line of it can be taken for one of
/// the conductor's own.
const INDENT: &str = "       ";

/// The text as one line: control characters other than a tab are escaped, line feeds included.
///
/// ```
/// assert_eq!(conductor::printable::line("a\u{1b}[2J\tb\nc"), "a\\u{1b}[2J\tb\\nc");
/// ```
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character == '\t')
}

/// The text with its lines: what [`line()`] escapes is escaped, except for line feeds.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| matches!(character, '\t' | '\n'))
}

/// Like [`lines`], with every line but the first indented.
#[must_use]
pub fn paragraph(text: &str) -> Cow<'_, str> {
    match lines(text) {
        text if text.contains('\n') => Cow::Owned(text.replace('\n', &format!("\n{INDENT}"))),
        text => text,
    }
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    // C1 controls too: some terminals take U+009B for the begin of a sequence.
    let is_escaped = |character: char| character.is_control() && !is_kept(character);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_escaped(character) {
            printable.extend(character.escape_debug());
        } else {
            printable.push(character);
        }
    }
    Cow::Owned(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        let text = "a\u{1b}]0;title\u{7}\r\u{8}\u{9b}31m\u{7f}\tb\nhelp: c \u{fc}";
        let shown = "a\\u{1b}]0;title\\u{7}\\r\\u{8}\\u{9b}31m\\u{7f}\tb";
        assert_eq!(line(text), format!("{shown}\\nhelp: c \u{fc}"));
        assert_eq!(lines(text), format!("{shown}\nhelp: c \u{fc}"));
        assert_eq!(paragraph(text), format!("{shown}\n       help: c \u{fc}"));
        assert!(matches!(line("plain \u{fc}"), Cow::Borrowed(_)));
    }
}
