//! Words: leftovers in code, tests that are left out or wait for a time, and the glossary in documents.

use crate::rules::Failure;
use crate::source::Source;
use crate::tokens::{self, Token};
use crate::workspace::Workspace;

/// Macros that are not to be there, and why.
const UNWANTED: &[(&str, &str)] = &[
    ("todo", "do it, or return an error that says what is missing"),
    ("unimplemented", "do it, or return an error that says what is missing"),
    ("dbg", "remove it, or make it a `tracing` event"),
];

/// Parts of a file's text without which no failure of [`words`] is in it.
const SUSPECTS: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore", "cfg_attr", "sleep", "elapsed()"];

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

/// Code that is not to be there.
pub(crate) fn words(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (path, source) in workspace.sources() {
        // Most files have none of them, and one look at a whole file is quick.
        let text = workspace.text(path).unwrap_or_default();
        if !SUSPECTS.iter().any(|suspect| text.contains(suspect)) {
            continue;
        }
        let tokens = tokens::tokens(source);
        for (unwanted, remedy) in UNWANTED {
            let is_macro = |place: usize| {
                tokens::text(&tokens, place + 1) == "!"
                    && ["(", "[", "{"].contains(&tokens::text(&tokens, place + 2))
            };
            let is_unwanted = |place: &usize| tokens[*place].text == *unwanted && is_macro(*place);
            let lines = (0..tokens.len()).filter(is_unwanted).map(|place| tokens[place].line);
            failures.extend(lines.map(|line| Failure::at(path, line, format!("`{unwanted}!`"), remedy)));
        }
        for line in tokens::attributes(&tokens).filter_map(ignored) {
            let remedy = "a test that lacks something prints `skipped: NAME: why`, and is counted";
            failures.push(Failure::at(path, line, "`#[ignore]`", remedy));
        }
        let is_meant = |line: usize| !source.is_in_loop(line) && !has_own_time(source, line);
        for (place, token) in tokens.iter().enumerate().filter(|(_, token)| token.is_test) {
            if is_sleep(&tokens, place) && is_meant(token.line) {
                let remedy = "wait for a level in a loop, with a bound";
                failures.push(Failure::at(path, token.line, "a test sleeps and hopes", remedy));
            } else if is_maximum(&tokens, place) && is_meant(token.line) {
                let remedy = "measure it in a bench; a test waits with a bound in a loop";
                failures.push(Failure::at(path, token.line, "a test asserts a maximum time", remedy));
            }
        }
    }
    failures
}

/// The line of an attribute that takes a test out, under a condition or always.
fn ignored(attribute: &[Token<'_>]) -> Option<usize> {
    let found = tokens::places(attribute, &["ignore"]).find(|place| {
        *place == 2 || (tokens::text(attribute, 2) == "cfg_attr" && attribute[place - 1].text == ",")
    });
    found.map(|place| attribute[place].line)
}

/// Whether this is a call of a function `sleep`, or gives one another name. A method of that name is somebody's own.
fn is_sleep(tokens: &[Token<'_>], place: usize) -> bool {
    let before = place.checked_sub(1).map_or("", |before| tokens::text(tokens, before));
    tokens[place].text == "sleep"
        && ["(", "as"].contains(&tokens::text(tokens, place + 1))
        && ![".", "fn"].contains(&before)
}

/// Whether this is the time since something, below a bound, in an assertion.
fn is_maximum(tokens: &[Token<'_>], place: usize) -> bool {
    let text = |at: usize| tokens::text(tokens, at);
    if text(place) != "elapsed" || text(place + 1) != "(" {
        return false;
    }
    let mut end = place + 3;
    // As in `elapsed().as_millis()`.
    while text(end) == "." && text(end + 2) == "(" && text(end + 3) == ")" {
        end += 4;
    }
    let statement = tokens[..place].iter().rev().take_while(|token| ![";", "{", "}"].contains(&token.text));
    text(end) == "<" && statement.into_iter().any(|token| token.text.contains("assert"))
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
    fn places_of(text: &str, is: impl Fn(&[Token<'_>], usize) -> bool) -> usize {
        let source = Source::new(text);
        let tokens = tokens::tokens(&source);
        (0..tokens.len()).filter(|place| is(&tokens, *place)).count()
    }

    #[test]
    fn sleeps_and_maximum_times_are_known_in_each_form() {
        for text in
            ["thread::sleep(A);", "sleep(A)", "tokio::time::sleep(A).await", "use thread::sleep as rest;"]
        {
            assert_eq!(places_of(text, is_sleep), 1, "{text}");
        }
        for text in ["self.sleep(1);", "async fn sleep() {}", "use thread::sleep;", "sleep_for_ever()"] {
            assert_eq!(places_of(text, is_sleep), 0, "{text}");
        }
        for text in [
            "assert!(a.elapsed() < B);",
            "assert!(a.elapsed().as_millis() <= 5, \"late\");",
            "assert!(\n    a.elapsed().as_secs() < 5,\n);",
        ] {
            assert_eq!(places_of(text, is_maximum), 1, "{text}");
        }
        for text in
            ["while a.elapsed() < B {}", "assert!(a.elapsed() >= B);", "assert!(c); let d = a.elapsed() < B;"]
        {
            assert_eq!(places_of(text, is_maximum), 0, "{text}");
        }
    }

    #[test]
    fn ignored_tests_are_known_in_each_form() {
        for (text, expected) in [
            ("#[ignore]", Some(1)),
            ("#[ignore = \"slow\"]", Some(1)),
            ("#[cfg_attr(\n    unix,\n    ignore\n)]", Some(3)),
            ("#[cfg_attr(ignore, inline)]", None),
            ("#[clap(ignore)]", None),
        ] {
            let source = Source::new(text);
            let tokens = tokens::tokens(&source);
            assert_eq!(tokens::attributes(&tokens).find_map(ignored), expected, "{text}");
        }
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
