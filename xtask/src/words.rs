//! Words: marks in comments, leftovers in code, and the glossary in documents.

use crate::rules::Failure;
use crate::source::{Line, Source};
use crate::workspace::Workspace;

/// Marks that stand for themselves.
const MARKS: &[&str] = &["SAFETY", "INVARIANT", "LIMIT"];

/// Kinds of what is left to do: `TODO-design: ...`.
const TODO_KINDS: &[&str] = &["design", "cleanup", "robustness", "performance"];

/// Marks of what should have been done.
const LEFTOVERS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// Code that is not to be there, why, and whether tests are meant alone.
const UNWANTED: &[(&str, &str)] = &[
    ("todo!(", "do it, or return an error that says what is missing"),
    ("unimplemented!(", "do it, or return an error that says what is missing"),
    ("dbg!(", "remove it, or make it a `tracing` event"),
    ("#[ignore", "a test that lacks something prints `skipped: NAME: why`, and is counted"),
];

const SLEEPS: &[&str] = &["thread::sleep(", "time::sleep("];

/// In an assertion: a bound on how long something took.
const MAXIMUM: &str = "elapsed() <";

/// The glossary.
const GLOSSARY: &str = "docs/glossary.md";

/// Words beside the glossary's that also have a meaning of their own in a sentence, so that only a reader can tell.
const ORDINARY: &[&str] = &[
    "server",
    "core",
    "daemon",
    "kernel",
    "plugin",
    "worker",
    "service",
    "contract",
    "endpoint",
    "command",
    "node",
    "task",
    "job",
    "execution",
    "file",
    "version",
    "pid",
    "resource",
    "handle",
    "permit",
    "lock",
    "mode",
    "wrapper",
    "status",
    "error",
    "exception",
    "reason",
    "proxy",
    "stub",
    "descriptor",
    "metadata",
    "hash",
    "blob",
];

/// Comments with a mark that means nothing here.
pub(crate) fn marks(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (path, source) in workspace.sources() {
        for (number, line) in source.numbered().filter(|(_, line)| !line.remark().is_empty()) {
            if let Some(word) =
                line.comment.split(|c: char| !c.is_alphanumeric() && c != '-').find(|w| LEFTOVERS.contains(w))
            {
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

/// What stands before the colon, if it looks like a mark.
fn mark(line: &Line) -> Option<&str> {
    let (mark, _) = line.remark().split_once(':')?;
    let capitals = mark.bytes().take_while(u8::is_ascii_uppercase).count();
    // As in `TODO-design` and `ORDERING(slot)`; names such as FNV-1a are no marks.
    let tail = mark[capitals..].trim_start_matches(['-', '(']).trim_end_matches(')');
    let is_tail = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_');
    let is_mark = capitals >= 3
        && matches!(mark.as_bytes().get(capitals), None | Some(b'-' | b'('))
        && tail.bytes().all(is_tail);
    is_mark.then_some(mark)
}

fn is_known(mark: &str) -> bool {
    MARKS.contains(&mark)
        || mark.strip_prefix("TODO-").is_some_and(|kind| TODO_KINDS.contains(&kind))
        || mark
            .strip_prefix("ORDERING(")
            .and_then(|rest| rest.strip_suffix(')'))
            .is_some_and(|tag| !tag.is_empty())
}

/// Code that is not to be there.
pub(crate) fn words(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    let suspects =
        UNWANTED.iter().map(|(unwanted, _)| *unwanted).chain(SLEEPS.iter().copied()).chain([MAXIMUM]);
    let suspects: Vec<&str> = suspects.collect();
    for (path, source) in workspace.sources() {
        // Most files have none of them, and one look at a whole file is quick.
        let text = workspace.text(path).unwrap_or_default();
        if !suspects.iter().any(|suspect| text.contains(suspect)) {
            continue;
        }
        for (number, line) in source.numbered() {
            for (unwanted, remedy) in UNWANTED.iter().filter(|(unwanted, _)| line.code.contains(unwanted)) {
                failures.push(Failure::at(path, number, format!("`{unwanted}`"), remedy));
            }
            let sleeps = SLEEPS.iter().any(|sleep| line.code.contains(sleep));
            let is_maximum = line.code.contains("assert") && line.code.contains(MAXIMUM);
            let is_meant = line.is_test && (sleeps || is_maximum);
            if !is_meant || source.is_in_loop(number) || has_own_time(source, number) {
                continue;
            }
            failures.push(if sleeps {
                Failure::at(
                    path,
                    number,
                    "a test sleeps and hopes",
                    "wait for a level in a loop, with a bound",
                )
            } else {
                let remedy = "measure it in a bench; a test waits with a bound in a loop";
                Failure::at(path, number, "a test asserts a maximum time", remedy)
            });
        }
    }
    failures
}

/// Whether the test's clock is one that it moves itself.
fn has_own_time(source: &Source, number: usize) -> bool {
    let above = source.lines[..number].iter().rev();
    let mut above = above.skip_while(|line| !line.code.contains("fn "));
    above.next();
    above
        .take_while(|line| line.code.trim_start().starts_with("#["))
        .any(|line| line.code.contains("start_paused"))
}

/// Documents that say a word that the glossary has another one for.
pub(crate) fn glossary(workspace: &Workspace) -> Vec<Failure> {
    let Some(glossary) = workspace.text(GLOSSARY) else {
        return vec![Failure::of(GLOSSARY, "is missing", "it says which words are used here")];
    };
    let banned = banned(glossary);
    if banned.is_empty() {
        return vec![Failure::of(GLOSSARY, "has no table of words", "columns: word, meaning, not")];
    }
    let mut failures = Vec::new();
    for (path, text) in workspace.documents().filter(|(path, _)| *path != GLOSSARY) {
        let mut is_code = false;
        for (index, line) in text.lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            if is_code {
                continue;
            }
            let prose = prose(line);
            for (word, instead) in banned.iter().filter(|(word, _)| has_word(&prose, word)) {
                let what = format!("`{word}`; the glossary says `{instead}`");
                failures.push(Failure::at(
                    path,
                    index + 1,
                    what,
                    "one word per idea, or the reader looks for a second idea",
                ));
            }
        }
    }
    failures
}

/// Each word of the last column with the first column's, but for ordinary ones.
fn banned(glossary: &str) -> Vec<(&str, &str)> {
    let rows = glossary.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let pairs = cells.filter(|cells| cells.len() == 3 && cells[2] != "not");
    pairs
        .flat_map(|cells| cells[2].split(", ").map(move |word| (word, cells[0])).collect::<Vec<_>>())
        .filter(|(word, _)| !word.is_empty() && !word.starts_with('-') && !ORDINARY.contains(word))
        .collect()
}

/// A line in small letters, without what stands in backticks or leads elsewhere.
fn prose(line: &str) -> String {
    let outside: Vec<_> = line.split('`').step_by(2).collect();
    let outside = outside.join(" ");
    let mut prose = String::new();
    for (index, part) in outside.split("](").enumerate() {
        let part = if index == 0 { part } else { part.split_once(')').map_or("", |(_, rest)| rest) };
        prose.push_str(part);
        prose.push(' ');
    }
    prose.make_ascii_lowercase();
    prose
}

fn has_word(prose: &str, word: &str) -> bool {
    prose.match_indices(word).any(|(at, _)| {
        let rest = &prose[at + word.len()..];
        let rest = rest.strip_prefix('s').unwrap_or(rest);
        !prose[..at].ends_with(char::is_alphanumeric) && !rest.starts_with(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(
            marks_of("// It: so.\n// FNV-1a: so.\n// The SAFETY: so.\n// A: b\nlet a = \"NOTE: so\";")
                .is_empty()
        );
        assert!(is_known("TODO-design") && is_known("ORDERING(x)") && is_known("LIMIT"));
        assert!(!is_known("TODO-later") && !is_known("ORDERING()") && !is_known("NOTE"));
    }

    #[test]
    fn a_clock_that_the_test_moves_is_known() {
        let text = "#[tokio::test(start_paused = true)]\nasync fn a() {\n  sleep();\n}\n#[test]\nfn b() {\n  sleep();\n}\n";
        let source = Source::new(text);
        assert!(has_own_time(&source, 3));
        assert!(!has_own_time(&source, 7));
    }

    #[test]
    fn words_are_whole_and_outside_of_backticks() {
        assert!(has_word(&prose("Two Replicas of it."), "replica"));
        assert!(!has_word(&prose("`replica` and [this](replica.md)"), "replica"));
        assert!(!has_word(&prose("replicated"), "replica"));
    }

    #[test]
    fn the_last_column_is_banned_but_for_ordinary_words() {
        let glossary =
            "| word | meaning | not |\n|---|---|---|\n| step | one node | task, sub-task |\n| run | x | |\n";
        assert_eq!(banned(glossary), [("sub-task", "step")]);
    }
}
