//! Atomic orderings: each has its reason beside it, and what is released under a name is acquired under it.
//!
//! ```text
//! // ORDERING(slot): Release, pairs with the Acquire in `read`.
//! word.store(value, Ordering::Release);
//! ```
//!
//! A tag belongs to one crate. Tests are free: there `SeqCst` says that order is not the matter.

use std::collections::{BTreeMap, BTreeSet};

use crate::rules::Failure;
use crate::source::Source;
use crate::tokens::{self, Token};
use crate::workspace::Workspace;

/// LIMIT: lines between an ordering and the comment that speaks of it.
const COMMENT_LINES_MAX: usize = 12;

/// LIMIT: a reason has at least so many words.
const REASON_WORDS_MIN: usize = 4;

const MARK: &str = "ORDERING(";

const ORDERINGS: &[&str] = &["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];

/// One use of an ordering.
struct Use<'a> {
    path: &'a str,
    line: usize,
    orderings: Vec<&'a str>,
}

/// What is known of one tag of one crate.
#[derive(Default)]
struct Tag<'a> {
    uses: Vec<Use<'a>>,
    comments: Vec<Comment<'a>>,
}

/// One comment that bears a tag.
struct Comment<'a> {
    path: &'a str,
    line: usize,
    reason: &'a str,
}

impl Tag<'_> {
    fn has(&self, orderings: &[&str]) -> bool {
        self.uses.iter().any(|one| one.orderings.iter().any(|ordering| orderings.contains(ordering)))
    }
}

/// Every ordering without a tag, and every tag that is half a pair.
pub(crate) fn check(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut tags: BTreeMap<(&str, &str), Tag<'_>> = BTreeMap::new();
    for (path, source) in workspace.sources() {
        // Most files have none, and one look at a whole file is quick.
        if !workspace.text(path).is_some_and(|text| text.contains("Ordering") || text.contains(MARK)) {
            continue;
        }
        let remedy = "write `Ordering::` at each use, so that it is found";
        let hidden = hidden(&tokens::tokens(source));
        failures.extend(hidden.into_iter().map(|(line, what)| Failure::at(path, line, what, remedy)));
        let folder = crate_of(workspace, path);
        for (number, line) in source.numbered().filter(|(_, line)| !line.is_test) {
            if let Some(found) = tag_in(&line.comment) {
                let reason = line.remark().split_once("):").map_or("", |(_, reason)| reason.trim());
                tags.entry((folder, found)).or_default().comments.push(Comment {
                    path,
                    line: number,
                    reason,
                });
            }
            let orderings = orderings(&line.code);
            if orderings.is_empty() {
                continue;
            }
            match tag_above(source, number) {
                Some(tag) => {
                    tags.entry((folder, tag)).or_default().uses.push(Use { path, line: number, orderings });
                }
                None => failures.push(Failure::at(
                    path,
                    number,
                    format!("`{}` without `ORDERING(tag):`", orderings.join("`, `")),
                    "say above it what it pairs with, or why Relaxed suffices",
                )),
            }
        }
    }
    failures.extend(tags.iter().filter_map(|((_, name), tag)| judge(name, tag)));
    failures
}

fn judge(name: &str, tag: &Tag<'_>) -> Option<Failure> {
    let Some(first) = tag.uses.first() else {
        let comment = tag.comments.first()?;
        let what = format!("`{name}` has no ordering below it");
        return Some(Failure::at(comment.path, comment.line, what, "remove the comment"));
    };
    let at = |what, remedy| Some(Failure::at(first.path, first.line, what, remedy));
    let releases = tag.has(&["Release", "AcqRel", "SeqCst"]);
    let acquires = tag.has(&["Acquire", "AcqRel", "SeqCst"]);
    if releases != acquires {
        let (is, lacks) = if releases { ("releases", "acquires") } else { ("acquires", "releases") };
        return at(
            format!("`{name}` {is}, but nothing of that name {lacks}"),
            "give the other side the same tag; without another side, Relaxed suffices",
        );
    }
    if releases && tag.uses.len() < 2 {
        return at(format!("`{name}` stands at one place only"), "give the other side the same tag");
    }
    let says_why = |comment: &Comment<'_>| {
        comment.reason.contains("Relaxed") && comment.reason.split_whitespace().count() >= REASON_WORDS_MIN
    };
    if !releases && !tag.comments.iter().any(says_why) {
        return at(
            format!("`{name}` is Relaxed and nobody says why"),
            "say why Relaxed suffices, once per tag",
        );
    }
    None
}

/// Each crate's name with each tag that it has, tests apart.
pub(crate) fn tags(workspace: &Workspace) -> BTreeSet<(String, String)> {
    let mut tags = BTreeSet::new();
    for (path, source) in workspace.sources() {
        let name = crate_of(workspace, path).rsplit('/').next().unwrap_or_default();
        let found = source.lines.iter().filter(|line| !line.is_test).filter_map(|line| tag_in(&line.comment));
        tags.extend(found.map(|tag| (name.to_owned(), tag.to_owned())));
    }
    tags
}

/// The folder of the crate that a file belongs to.
fn crate_of<'a>(workspace: &'a Workspace, path: &str) -> &'a str {
    let members = workspace.cargo.members.iter().map(|member| member.folder.as_str());
    let mut fits =
        members.filter(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
    fits.next().unwrap_or_default()
}

fn orderings(code: &str) -> Vec<&str> {
    let words = code.match_indices("Ordering::").map(|(at, found)| &code[at + found.len()..]);
    let names = words.map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default());
    names.filter(|name| ORDERINGS.contains(name)).collect()
}

/// Where orderings are named in a way that hides their uses: the line, and how.
fn hidden(tokens: &[Token<'_>]) -> Vec<(usize, &'static str)> {
    let mut hidden = Vec::new();
    for place in tokens::places(tokens, &["Ordering"]).filter(|place| !tokens[*place].is_test) {
        let text = |offset: usize| tokens::text(tokens, place + offset);
        let is_atomic = |name: &str| ORDERINGS.contains(&name);
        let what = match (text(1), text(2)) {
            ("as", _) => "gives orderings another name",
            (";", _) if is_all_of_a_type(tokens, place) => "gives orderings another name",
            (">", "::") if is_atomic(text(3)) => "names an ordering past `Ordering::`",
            ("::", after)
                if is_import(tokens, place) && (["{", "*"].contains(&after) || is_atomic(after)) =>
            {
                "imports orderings by themselves"
            }
            _ => continue,
        };
        hidden.push((tokens[place].line, what));
    }
    hidden
}

/// Whether what ends here is `type NAME = path::Ordering`.
fn is_all_of_a_type(tokens: &[Token<'_>], place: usize) -> bool {
    let statement = before(tokens, place, &[";", "{", "}"]);
    statement.iter().any(|token| token.text == "type")
}

/// Whether this stands in a `use`, within as many braces as there may be.
fn is_import(tokens: &[Token<'_>], place: usize) -> bool {
    let statement = before(tokens, place, &[";"]);
    // Each `use` ends with the next `;`, but for those of captured lifetimes.
    tokens::places(statement, &["use"]).any(|place| tokens::text(statement, place + 1) != "<")
}

/// What stands before a token since the last one with one of these texts.
fn before<'t, 'a>(tokens: &'t [Token<'a>], place: usize, ends: &[&str]) -> &'t [Token<'a>] {
    let from = tokens[..place].iter().rposition(|token| ends.contains(&token.text)).map_or(0, |end| end + 1);
    &tokens[from..place]
}

fn tag_in(comment: &str) -> Option<&str> {
    let rest = comment.strip_prefix("//")?.trim_start().strip_prefix(MARK)?;
    rest.split_once("):").map(|(tag, _)| tag)
}

/// The tag that speaks of a line: the nearest above it in the same function.
fn tag_above(source: &Source, number: usize) -> Option<&str> {
    let from = number.saturating_sub(COMMENT_LINES_MAX + 1);
    for line in source.lines[from..number].iter().rev() {
        if let Some(tag) = tag_in(&line.comment) {
            return Some(tag);
        }
        if line.code.contains("fn ") {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orderings_of_comparisons_are_no_orderings() {
        assert_eq!(orderings("x.load(Ordering::Acquire) == y(Ordering::Less)"), ["Acquire"]);
        assert_eq!(
            orderings("std::sync::atomic::Ordering::AcqRel, Ordering::Relaxed"),
            ["AcqRel", "Relaxed"]
        );
    }

    #[test]
    fn a_tag_ends_with_its_function() {
        let text = "fn a() {\n// ORDERING(x): Relaxed.\nload();\n\nload();\n}\nfn b() {\nload();\n}\n";
        let source = Source::new(text);
        assert_eq!(tag_above(&source, 5), Some("x"));
        assert_eq!(tag_above(&source, 8), None);
    }

    #[test]
    fn hidden_orderings_are_seen() {
        for (text, expected) in [
            ("use std::sync::atomic::Ordering::{Acquire, Release};", &[1][..]),
            ("fn f() {\n    use Ordering::Relaxed;\n}", &[2]),
            ("use std::sync::atomic::{\n    AtomicU32,\n    Ordering::*,\n};", &[3]),
            ("use std::sync::atomic::{AtomicU32, Ordering as O};", &[1]),
            ("use std::sync::atomic::{\n    Ordering as\n    O,\n};", &[2]),
            ("pub(crate) type O =\n    std::sync::atomic::Ordering;", &[2]),
            ("fn f() {\n    g(<Ordering>::Acquire);\n}", &[2]),
            ("use std::sync::atomic::{AtomicU32, Ordering};", &[]),
            ("use std::cmp::Ordering::Less;", &[]),
            ("fn f(a: Ordering) -> Ordering {\n    let b: Ordering = a;\n    b\n}", &[]),
            ("#[cfg(test)]\nuse std::sync::atomic::Ordering::SeqCst;", &[]),
        ] {
            let source = Source::new(text);
            let found = hidden(&tokens::tokens(&source));
            let lines: Vec<usize> = found.into_iter().map(|(line, _)| line).collect();
            assert_eq!(lines, expected, "{text}");
        }
    }
}
