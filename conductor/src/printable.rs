//! Text of others on its way to a terminal: what would steer the terminal is shown instead of obeyed.
//!
//! Messages, log lines and names come from extensions, melodies and files. Everything that is written for
//! people goes through here at the edge, and only there: documents for programs keep what was said. This
//! file must not know who says what.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands before the second and each further line of a message: no line of it can be taken for one of
/// the conductor's own.
const INDENT: &str = "       ";

/// The text as one line: control characters other than a tab are escaped, line feeds and changes of the direction of
/// writing included.
///
/// ```
/// assert_eq!(conductor::printable::line("a\u{1b}[2J\tb\nc"), "a\\u{1b}[2J\tb\\nc");
/// assert_eq!(conductor::printable::line("safe\u{202e}txt.exe"), "safe\\u{202e}txt.exe");
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
    let is_escaped =
        |character: char| (character.is_control() || turns_direction(character)) && !is_kept(character);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if turns_direction(character) {
            printable.extend(character.escape_unicode());
        } else if is_escaped(character) {
            printable.extend(character.escape_debug());
        } else {
            printable.push(character);
        }
    }
    Cow::Owned(printable)
}

/// Whether it makes a terminal show what follows in another order: a line could be made to read as another one.
const fn turns_direction(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A number of things: `1 step`, `2 steps`.
#[must_use]
pub fn counted(count: u64, thing: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{ending}")
}

/// How many columns of a terminal the text takes, once its control characters are escaped.
///
/// ```
/// assert_eq!(conductor::printable::columns("caf\u{e9} \u{6f22}"), 7);
/// ```
#[must_use]
pub fn columns(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text, or as much of its beginning as fits into that many columns with `...` behind it.
#[must_use]
pub fn cut(text: &str, columns_max: usize) -> Cow<'_, str> {
    const DOTS: &str = "...";
    if columns(text) <= columns_max {
        return Cow::Borrowed(text);
    }
    let room = columns_max.saturating_sub(DOTS.len());
    let mut kept = String::new();
    let mut taken = 0;
    for character in text.chars() {
        taken += UnicodeWidthChar::width(character).unwrap_or(0);
        if taken > room {
            break;
        }
        kept.push(character);
    }
    kept.push_str(&DOTS[..DOTS.len().min(columns_max)]);
    Cow::Owned(kept)
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

    #[test]
    fn a_text_is_cut_by_its_width_and_not_by_its_letters() {
        for (text, columns_max, expected) in [
            ("plain", 5, "plain"),
            ("plain text", 8, "plain..."),
            ("\u{6f22}\u{5b57}\u{6f22}\u{5b57}", 7, "\u{6f22}\u{5b57}..."),
            ("\u{6f22}\u{5b57}\u{6f22}\u{5b57}", 8, "\u{6f22}\u{5b57}\u{6f22}\u{5b57}"),
            ("plain", 2, ".."),
            ("plain", 0, ""),
        ] {
            assert_eq!(cut(text, columns_max), expected);
            assert!(columns(&cut(text, columns_max)) <= columns_max);
        }
    }
}
