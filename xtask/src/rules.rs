//! The list of rules, and what a rule says when it is broken.

use std::fmt;

use crate::workspace::Workspace;
use crate::{
    budget, code_map, deny, files, layers, links, lints, manifests, marks, ordering, promises, protocol,
    words,
};

/// A rule of the house.
#[derive(Debug)]
pub struct Rule {
    /// What it is called in a report.
    pub name: &'static str,
    /// What it holds, in one line.
    pub says: &'static str,
    check: fn(&Workspace) -> Vec<Failure>,
}

/// All rules. A new one needs a row here and a test in `tests/it/` that breaks it.
pub const RULES: &[Rule] = &[
    rule("layers", "crates of ours know only those that the table of arrows allows", layers::arrows),
    rule("outside", "crates of others stay out of the layers that do without them", layers::outside),
    rule("code-map", "ARCHITECTURE.md lists each crate, and no other", code_map::check),
    rule(
        "manifest",
        "manifests inherit versions, lints and dependencies, and use what they name",
        manifests::check,
    ),
    rule("lint", "the root denies the lints of the list, and no crate opens one as a whole", lints::check),
    rule("root-file", "what people and tools look for at the root is there", files::root_files),
    rule("header", "each Rust file begins with //! and what it is for", files::headers),
    rule("size", "Rust files stay short enough to be read in one go", files::sizes),
    rule("ascii", "texts and the names of files are ASCII", files::ascii),
    rule(
        "unsafe",
        "only listed files open unsafe code, and every use of it has its SAFETY comment",
        files::unsafe_uses,
    ),
    rule(
        "ordering",
        "each atomic ordering has its ORDERING(tag) comment, and tags come in pairs",
        ordering::check,
    ),
    rule("mark", "comments bear only the known marks", marks::marks),
    rule("word", "no leftovers, no ignored tests, no sleeping tests", words::words),
    rule("glossary", "documents use the glossary's words, not those beside them", words::glossary),
    rule("sdk-budget", "the smallest extension costs few crates, no runtime, no C", budget::check),
    rule("deny", "licences, sources and bans of deny.toml hold for what is built", deny::check),
    rule(
        "protocol",
        "docs/protocol.md was read again after a change of the protocol's source",
        protocol::check,
    ),
    rule("task", "each `cargo xtask NAME` that is spoken of can be run", promises::tasks),
    rule("bench-id", "docs/specification.md names only ids that a bench reports", promises::bench_ids),
    rule("link", "links, anchors and paths in documents lead somewhere", links::check),
    rule(
        "promise",
        "each promise of docs/specification.md has its number, and tests that exist",
        promises::promises,
    ),
    rule("tag-page", "docs/concurrency.md speaks of tags that the code has", promises::tags),
    rule("summary", "each page of docs/ stands in docs/SUMMARY.md once", links::summary),
];

const fn rule(name: &'static str, says: &'static str, check: fn(&Workspace) -> Vec<Failure>) -> Rule {
    Rule { name, says, check }
}

/// One place where a rule does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Relative to the root.
    pub file: String,
    /// From 1. `None` where the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Failure {
    pub(crate) fn at(
        file: impl Into<String>,
        line: usize,
        what: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self { file: file.into(), line: Some(line), what: what.into(), remedy }
    }

    pub(crate) fn of(file: impl Into<String>, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { file: file.into(), line: None, what: what.into(), remedy }
    }
}

/// A failure, and the rule that found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Name of the rule.
    pub rule: &'static str,
    /// Where and how.
    pub failure: Failure,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { file, line, what, remedy } = &self.failure;
        write!(f, "{file}")?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}: {what}; {remedy}", self.rule)
    }
}

/// Runs every rule.
#[must_use]
pub fn check(workspace: &Workspace) -> Vec<Broken> {
    RULES.iter().flat_map(|rule| run(rule, workspace)).collect()
}

/// Runs one rule.
pub(crate) fn run(rule: &Rule, workspace: &Workspace) -> impl Iterator<Item = Broken> {
    (rule.check)(workspace).into_iter().map(|failure| Broken { rule: rule.name, failure })
}
