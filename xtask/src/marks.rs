//! Marks in comments: the few that the house has, those that are nearly one of them, and what is left to do.
//!
//! A mark that is not quite spelt right is worse than none: the rules that look for it pass over it.

use crate::rules::Failure;
use crate::source::Line;
use crate::workspace::Workspace;

/// Marks that stand for themselves.
const MARKS: &[&str] = &["SAFETY", "INVARIANT", "LIMIT"];

/// Words before a colon that are taken for marks, also when they are not quite spelt so. All others are prose.
const LIKE_MARKS: &[&str] = &["SAFETY", "INVARIANT", "LIMIT", "ORDERING", "TODO", "FIXME", "NOTE"];

/// Kinds of what is left to do: `TODO-design: ...`.
const TODO_KINDS: &[&str] = &["design", "cleanup", "robustness", "performance"];

/// Marks of what should have been done.
const LEFTOVERS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// Comments with a mark that means nothing here.
pub(crate) fn marks(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (path, source) in workspace.sources() {
        for (number, line) in source.numbered().filter(|(_, line)| !line.remark().is_empty()) {
            if let Some(word) = leftover(line) {
                let remedy =
                    "do it, or say what is missing as TODO-design, -cleanup, -robustness or -performance";
                failures.push(Failure::at(
                    path,
                    number,
                    format!("`{word}` says neither what nor why"),
                    remedy,
                ));
            } else if let Some(mark) = mark(line).filter(|mark| !is_known(mark)) {
                let remedy = "use SAFETY, ORDERING(tag), INVARIANT, LIMIT or TODO-kind, or write a sentence";
                failures.push(Failure::at(path, number, format!("`{mark}` is no known mark"), remedy));
            }
        }
    }
    failures
}

/// A word that says that something is left to do: in capitals anywhere, in any letters where a comment begins.
fn leftover(line: &Line) -> Option<&str> {
    let mut words = line.comment.split(|c: char| !c.is_alphanumeric() && c != '-');
    if let Some(word) = words.find(|word| LEFTOVERS.contains(word)) {
        return Some(word);
    }
    let remark = line.remark();
    let end = remark.find(|c: char| !c.is_alphanumeric()).unwrap_or(remark.len());
    let (word, rest) = remark.split_at(end);
    let is_mark = matches!(rest.bytes().next(), None | Some(b':' | b'(' | b'!'));
    (is_mark && LEFTOVERS.iter().any(|leftover| word.eq_ignore_ascii_case(leftover))).then_some(word)
}

/// What stands before the colon, if it looks like a mark of the house.
fn mark(line: &Line) -> Option<&str> {
    let (mark, _) = line.remark().split_once(':')?;
    let capitals = mark.bytes().take_while(u8::is_ascii_uppercase).count();
    // As in `TODO-design` and `ORDERING(slot)`; names such as FNV-1a are no marks.
    let tail = mark[capitals..].trim_start_matches(['-', '(']).trim_end_matches(')');
    let is_tail = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_');
    let is_mark = matches!(mark.as_bytes().get(capitals), None | Some(b'-' | b'('))
        && tail.bytes().all(is_tail)
        && LIKE_MARKS.iter().any(|like| is_like(&mark[..capitals], like));
    is_mark.then_some(mark)
}

/// Whether a word is this one, or it with letters in another order or, in a long one, a few wrong.
fn is_like(word: &str, other: &str) -> bool {
    let sorted = |word: &str| {
        let mut letters = word.as_bytes().to_vec();
        letters.sort_unstable();
        letters
    };
    // None of four: `NODE` and `NONE` are words of their own.
    let wrong_max = match other.len() {
        0..=4 => 0,
        5..=7 => 1,
        _ => 2,
    };
    sorted(word) == sorted(other) || distance(word.as_bytes(), other.as_bytes()) <= wrong_max
}

/// How many letters are to be put in, taken out or replaced to make one word of the other.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (place, against) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != against);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[other.len()]
}

fn is_known(mark: &str) -> bool {
    MARKS.contains(&mark)
        || mark.strip_prefix("TODO-").is_some_and(|kind| TODO_KINDS.contains(&kind))
        || mark
            .strip_prefix("ORDERING(")
            .and_then(|rest| rest.strip_suffix(')'))
            .is_some_and(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    #[track_caller]
    fn marks_of(text: &str) -> Vec<String> {
        Source::new(text).lines.iter().filter_map(mark).map(str::to_owned).collect()
    }

    #[test]
    fn a_mark_begins_its_comment() {
        assert_eq!(
            marks_of("// SAFETY: so.\n/// LIMIT: so.\n// ORDERING(a-b): so."),
            ["SAFETY", "LIMIT", "ORDERING(a-b)"]
        );
        assert_eq!(marks_of("// TODO-design: so.\n// NOTE: so."), ["TODO-design", "NOTE"]);
        assert_eq!(
            marks_of("// SAFTEY: so.\n// ORDRING(x): so.\n// INVARIENT: so.\n// LIMITS: so."),
            ["SAFTEY", "ORDRING(x)", "INVARIENT", "LIMITS"]
        );
        assert!(
            marks_of("// It: so.\n// FNV-1a: so.\n// The SAFETY: so.\n// A: b\nlet a = \"NOTE: so\";")
                .is_empty()
        );
        assert!(marks_of("// SIGTERM: asks.\n/// JSON: or not.\n// NONE: so.\n// NODE: so.").is_empty());
        assert!(is_known("TODO-design") && is_known("ORDERING(x)") && is_known("LIMIT"));
        assert!(!is_known("TODO-later") && !is_known("ORDERING()") && !is_known("NOTE"));
    }

    #[test]
    fn leftovers_are_found_in_any_letters() {
        let found = |text: &str| leftover(&Source::new(text).lines[0]).map(str::to_owned);
        for text in ["// todo: this", "f(); // Fixme(me): that", "/// hack", "// to do, and TODO"] {
            assert!(found(text).is_some(), "{text}");
        }
        for text in ["// todo lists are made elsewhere", "// A hack: none.", "// TODO-design: this"] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
