//! Pages that speak of the code by name: the promises with their tests, and the orderings with their tags.
//!
//! Both drift without a word when a test or a tag is renamed. Whether the test holds the promise, only a reader can say.

use std::collections::BTreeSet;

use crate::ordering;
use crate::rules::Failure;
use crate::workspace::Workspace;

const SPECIFICATION: &str = "docs/specification.md";
const CONCURRENCY: &str = "docs/concurrency.md";

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
