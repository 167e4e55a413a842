//! Pages that speak of the code by name: the promises with their tests and benches, the orderings with their tags, and
//! our own tasks.
//!
//! All drift without a word when a thing is renamed. Whether the test holds the promise, only a reader can say.

use std::collections::BTreeSet;

use crate::TASKS;
use crate::ordering;
use crate::rules::Failure;
use crate::workspace::Workspace;

const SPECIFICATION: &str = "docs/specification.md";
const CONCURRENCY: &str = "docs/concurrency.md";

const BENCHES: &str = "benches/";

/// With what the ids of benches begin.
const ID_KINDS: &[&str] = &["call", "rate", "peer", "pit"];

/// What stands where no test does.
const OPEN: &[&str] = &["[not measured]", "not kept", "not reached", "`cargo "];

/// Promises without a number of their own or without anything that holds them, and tests that are not there.
pub(crate) fn promises(workspace: &Workspace) -> Vec<Failure> {
    let Some(text) = workspace.text(SPECIFICATION) else {
        return vec![Failure::of(SPECIFICATION, "is missing", "it numbers what is promised")];
    };
    let mut failures = Vec::new();
    let mut numbers = BTreeSet::new();
    for (line, cells) in rows(text).filter(|(_, cells)| cells[0].starts_with("P-")) {
        if !numbers.insert(cells[0]) {
            let what = format!("{} is promised twice", cells[0]);
            failures.push(Failure::at(SPECIFICATION, line, what, "take the next free number"));
        }
        let held_by = cells[cells.len() - 1];
        let has_test = tests(held_by).next().is_some() || held_by.contains(".rs`");
        if !has_test && !OPEN.iter().any(|open| held_by.contains(open)) {
            let what = format!("nothing holds {}", cells[0]);
            failures.push(Failure::at(
                SPECIFICATION,
                line,
                what,
                "name a test as `file::test`, or say `[not measured]`",
            ));
        }
    }
    if numbers.is_empty() {
        failures.push(Failure::of(
            SPECIFICATION,
            "numbers no promise",
            "columns: number, promise, limit, held by",
        ));
    }
    for (path, text) in workspace.documents() {
        for (index, line) in text.lines().enumerate() {
            for (file, test) in tests(line).filter(|(file, test)| !is_there(workspace, file, test)) {
                let what = format!("there is no `{test}` in `{file}`");
                failures.push(Failure::at(
                    path,
                    index + 1,
                    what,
                    "name the test as it is called now, from the root",
                ));
            }
        }
    }
    failures
}

/// Tags on the page that no ordering of the crate bears.
pub(crate) fn tags(workspace: &Workspace) -> Vec<Failure> {
    let Some(text) = workspace.text(CONCURRENCY) else {
        return vec![Failure::of(
            CONCURRENCY,
            "is missing",
            "it says why each atomic ordering is what it is",
        )];
    };
    let there = ordering::tags(workspace);
    let (mut section, mut is_tags) = ("", false);
    let mut failures = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim().trim_matches('`');
        }
        if !line.starts_with('|') {
            is_tags = false;
            continue;
        }
        is_tags |= line.starts_with("| tag |");
        let first = line.split('|').nth(1).unwrap_or_default();
        for tag in first.split('`').skip(1).step_by(2).filter(|_| is_tags) {
            if !there.contains(&(section.to_owned(), tag.to_owned())) {
                let what = format!("no ordering of `{section}` bears the tag `{tag}`");
                failures.push(Failure::at(CONCURRENCY, index + 1, what, "follow the code"));
            }
        }
    }
    failures
}

/// `cargo xtask NAME` in texts and comments, with a name that it does not know.
pub(crate) fn tasks(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut look = |path: &str, line: usize, text: &str| {
        for name in text.split("cargo xtask ").skip(1) {
            let end = name.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(name.len());
            let name = &name[..end];
            if !name.is_empty() && !TASKS.contains(&name) {
                let what = format!("there is no task `cargo xtask {name}`");
                failures.push(Failure::at(path, line, what, "name one that `cargo xtask` has"));
            }
        }
    };
    for (path, text) in workspace.all_texts() {
        if !text.contains("cargo xtask ") {
            continue;
        }
        match workspace.source(path) {
            Some(source) => source.numbered().for_each(|(number, line)| look(path, number, &line.comment)),
            None => text.lines().enumerate().for_each(|(index, line)| look(path, index + 1, line)),
        }
    }
    failures
}

/// Ids in the specification that no bench has.
pub(crate) fn bench_ids(workspace: &Workspace) -> Vec<Failure> {
    let benches = workspace.texts("rs").filter(|(path, _)| path.starts_with(BENCHES));
    let ids: BTreeSet<&str> =
        benches.flat_map(|(_, text)| text.split('"')).filter(|text| is_id(text)).collect();
    let text = workspace.text(SPECIFICATION).unwrap_or_default();
    let mut failures = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = line.split(|c: char| c.is_whitespace() || "`|,;:()".contains(c));
        let named = words.map(|word| word.trim_end_matches('.')).filter(|word| is_id(word));
        // What has a point is a file.
        for id in named.filter(|id| !id.contains('.') && !workspace.exists(id)) {
            if !ids.iter().any(|known| is_same(known, id)) {
                let what = format!("no bench reports `{id}`");
                failures.push(Failure::at(SPECIFICATION, index + 1, what, "name an id as its bench has it"));
            }
        }
    }
    failures
}

/// Whether a text is a bench's id, or the form of one with blanks in braces.
fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.{}*".contains(&byte);
    let is_whole =
        text.split_once('/').is_some_and(|(kind, rest)| ID_KINDS.contains(&kind) && !rest.is_empty());
    is_whole && text.bytes().all(is_plain)
}

/// Whether an id is the known one: `{blanks}` of the known may be anything, and a star in place of the last part stands
/// for all of one kind.
fn is_same(known: &str, id: &str) -> bool {
    if let Some(kind) = id.strip_suffix('*') {
        return known.starts_with(kind);
    }
    match known.split_once('{') {
        None => known == id,
        Some((before, rest)) => {
            let after = rest.rsplit('}').next().unwrap_or_default();
            id.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
        }
    }
}

/// The rows of all tables, with their lines and cells.
fn rows(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let row = line.strip_prefix("| ")?.strip_suffix('|')?;
        Some((index + 1, row.split(" | ").map(str::trim).collect()))
    })
}

/// Each `file.rs::name` in backticks.
fn tests(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let codes = line.split('`').skip(1).step_by(2);
    codes.filter_map(|code| code.split_once("::").filter(|(file, _)| file.ends_with(".rs")))
}

fn is_there(workspace: &Workspace, file: &str, test: &str) -> bool {
    let name = test.rsplit("::").next().unwrap_or(test);
    workspace.source(file).is_some_and(|source| {
        source.lines.iter().any(|line| {
            line.code.split_once("fn ").is_some_and(|(_, rest)| {
                rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(['(', '<']))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_benches() {
        assert!(is_id("call/direct") && is_id("peer/raw-socket/64{variant}"));
        assert!(!is_id("peer/") && !is_id("release/echo") && !is_id("pit") && !is_id("call/a b"));
        assert!(is_same("call/direct", "call/direct") && !is_same("call/direct", "call/direc"));
        assert!(is_same("rate/socket/{in_flight}", "rate/socket/64"));
        assert!(
            is_same("peer/{what}/cold", "peer/map/cold") && !is_same("peer/{what}/cold", "peer/map/warm")
        );
        assert!(is_same("peer/moka/cancel", "peer/moka/*") && !is_same("peer/moka/cancel", "peer/heap/*"));
    }
}
