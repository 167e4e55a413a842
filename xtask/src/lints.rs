//! The compiler's lints that the house depends on: denied at the root, and opened by no crate as a whole.
//!
//! A crate cannot weaken the root's table in its manifest, which cargo sees to; one attribute in its root can.

use toml::Table;

use crate::rules::Failure;
use crate::tokens::{self, Token};
use crate::workspace::Workspace;

const ROOT: &str = "Cargo.toml";

/// Tool and lint. Removing one is a decision, and made here.
const DENIED: &[(&str, &str)] = &[
    ("rust", "unsafe_code"),
    ("rust", "unsafe_op_in_unsafe_fn"),
    ("clippy", "undocumented_unsafe_blocks"),
    ("clippy", "multiple_unsafe_ops_per_block"),
    ("clippy", "unwrap_used"),
    ("clippy", "host_endian_bytes"),
    ("clippy", "todo"),
    ("clippy", "unimplemented"),
];

/// Groups that hold one of them.
const GROUPS: &[&str] = &["warnings", "all", "restriction"];

/// Lints that the root no longer denies, and crates that open one for all that they have.
pub(crate) fn check(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = weakened(workspace);
    for (path, source) in workspace.sources() {
        let is_root =
            ["src/lib.rs", "src/main.rs"].iter().any(|end| path.ends_with(end)) || path.contains("/src/bin/");
        if !is_root || !workspace.text(path).is_some_and(|text| text.contains("#!")) {
            continue;
        }
        let tokens = tokens::tokens(source);
        for attribute in tokens::attributes(&tokens).filter(|attribute| is_open_to_all(attribute)) {
            let opened = DENIED.iter().map(|(_, lint)| lint).chain(GROUPS);
            let names = |lint: &str| attribute.iter().find(|token| token.text == lint);
            for token in opened.filter_map(|lint| names(lint)) {
                let what = format!("opens `{}` for the whole crate", token.text);
                let remedy = "open it where it is needed, with a reason";
                failures.push(Failure::at(path, token.line, what, remedy));
            }
        }
    }
    failures
}

/// Whether an attribute is for all that it stands in, weakens a lint, and not for tests alone.
fn is_open_to_all(attribute: &[Token<'_>]) -> bool {
    let is_inner = tokens::text(attribute, 1) == "!";
    let weakens = tokens::places(attribute, &["allow", "expect", "warn"]).next().is_some();
    let is_for_tests = (3..7).map(|at| tokens::text(attribute, at)).eq(["cfg_attr", "(", "test", ","]);
    is_inner && weakens && !is_for_tests
}

/// Lints that are not denied at the root.
fn weakened(workspace: &Workspace) -> Vec<Failure> {
    let manifest: Table = workspace.text(ROOT).and_then(|text| text.parse().ok()).unwrap_or_default();
    let table = manifest.get("workspace").and_then(|table| table.get("lints"));
    let level = |tool: &str, lint: &str| {
        let value = table?.get(tool)?.get(lint)?;
        value.get("level").unwrap_or(value).as_str()
    };
    let weak = DENIED.iter().filter(|(tool, lint)| !matches!(level(tool, lint), Some("deny" | "forbid")));
    let failure = |(tool, lint): &(&str, &str)| {
        let what = format!("`{lint}` is not denied in [workspace.lints.{tool}]");
        Failure::of(ROOT, what, "deny it; the list stands in xtask/src/lints.rs")
    };
    weak.map(failure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    #[test]
    fn an_attribute_for_all_of_a_crate_is_known() {
        for (text, expected) in [
            ("#![allow(clippy::unwrap_used, reason = \"x\")]", true),
            ("#![cfg_attr(unix, expect(\n    clippy::todo,\n))]", true),
            ("#![cfg_attr(test, allow(clippy::unwrap_used))]", false),
            ("#![deny(clippy::unwrap_used)]", false),
            ("#[allow(clippy::unwrap_used)]\nfn f() {}", false),
        ] {
            let source = Source::new(text);
            let tokens = tokens::tokens(&source);
            assert_eq!(tokens::attributes(&tokens).any(is_open_to_all), expected, "{text}");
        }
    }
}
