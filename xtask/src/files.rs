//! Rules for single files: that they are there, how they begin, how long they are, which characters they have, `unsafe`.

use crate::rules::Failure;
use crate::source::Source;
use crate::tokens::{self, Token};
use crate::workspace::Workspace;

/// LIMIT: lines of a Rust file. Most have 150 to 350.
const LINES_MAX: usize = 600;

/// Files that open `unsafe_code`, and no others. A new one is an architecture change.
const UNSAFE_FILES: &[&str] = &[
    "benches/benches/pit/artifacts.rs",
    "extension-sdk/extension-abi/src/tables.rs",
    "extension-sdk/extension-sdk-macros/src/export.rs",
    "extension-sdk/extension-sdk/src/loaded/host.rs",
    "extension-sdk/extension-sdk/src/loaded/table.rs",
    "extension-sdk/extension-sdk/src/mapping.rs",
    "extensions/hostile/src/system.rs",
    "ipc-bus/extension-host/src/in_process/callbacks.rs",
    "ipc-bus/extension-host/src/in_process/library.rs",
    "ipc-bus/extension-host/src/in_process/table.rs",
    "ipc-bus/extension-host/tests/it/reference_table.rs",
    "ipc-bus/extension-launcher/src/signals.rs",
    "ipc-bus/extension-launcher/src/start.rs",
    "ipc-bus/ipc-transport/src/connection/socket.rs",
    "ipc-bus/ipc-transport/src/ring/region.rs",
    "pit/artifact-store/src/mapping.rs",
    "pit/artifact-store/tests/it/writable.rs",
];

/// Files that must be there.
const ROOT_FILES: &[&str] = &[
    ".ci/run",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "book.toml",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// How the names of files end that need not be texts.
const BINARY: &[&str] = &[".bin"];

/// Inputs that a fuzzer made up: bytes, whether they are a text or not.
const CORPUS: &str = "fuzz/corpus/";

/// Cases of compile errors: their text is the test, not ours to comment.
fn is_fixture(path: &str) -> bool {
    path.contains("/tests/ui/")
}

/// Files that do not say what they are for.
pub(crate) fn headers(workspace: &Workspace) -> Vec<Failure> {
    let files = workspace.texts("rs").filter(|(path, text)| !is_fixture(path) && !text.starts_with("//! "));
    let remedy = "say what it is for and what it must not know";
    files.map(|(path, _)| Failure::at(path, 1, "does not begin with `//!`", remedy)).collect()
}

/// Files that are too long.
pub(crate) fn sizes(workspace: &Workspace) -> Vec<Failure> {
    let lines = workspace.texts("rs").map(|(path, text)| (path, text.lines().count()));
    let long = lines.filter(|(_, lines)| *lines > LINES_MAX);
    let failure = |(path, lines)| {
        let what = format!("{lines} lines, above {LINES_MAX}");
        Failure::of(path, what, "find the two things that it does and part them")
    };
    long.map(failure).collect()
}

/// Texts and names with other characters, and files that are no text where one is expected.
pub(crate) fn ascii(workspace: &Workspace) -> Vec<Failure> {
    let remedy = "write it in ASCII, or escaped in a text";
    let other = |text: &str| {
        let found = text.chars().find(|c| !c.is_ascii())?;
        Some(format!("U+{:04X} is not ASCII", u32::from(found)))
    };
    let mut failures = Vec::new();
    for (path, text) in workspace.files() {
        if let Some(what) = other(path) {
            failures.push(Failure::of(path, format!("in its name, {what}"), remedy));
        }
        if path.starts_with(CORPUS) {
            continue;
        }
        let Some(text) = text else {
            // No rule looks into what is no text, so that one wrong byte would put a file out of reach of all of them.
            if !BINARY.iter().any(|end| path.ends_with(end)) {
                failures.push(Failure::of(path, "is not UTF-8", remedy));
            }
            continue;
        };
        let mut lines = text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, other(line)?)));
        if let Some((line, what)) = lines.next() {
            failures.push(Failure::at(path, line, what, remedy));
        }
    }
    failures
}

/// Files that stand at the root of the tree, for people and for tools that look there.
pub(crate) fn root_files(workspace: &Workspace) -> Vec<Failure> {
    let missing = ROOT_FILES.iter().filter(|path| !workspace.has_file(path));
    missing
        .map(|path| Failure::of(*path, "is missing", "write it, or take it back from the history"))
        .collect()
}

/// Unsafe code outside of the list, rows of the list without any, and uses without proof.
pub(crate) fn unsafe_uses(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (path, source) in workspace.sources().filter(|(path, _)| !is_fixture(path)) {
        let is_listed = UNSAFE_FILES.contains(&path);
        if !is_listed && !workspace.text(path).is_some_and(|text| text.contains("unsafe")) {
            continue;
        }
        let tokens = tokens::tokens(source);
        if is_listed {
            // However the attribute is written, it names the lint.
            if tokens::places(&tokens, &["unsafe_code"]).next().is_none() {
                failures.push(stale(path));
            }
            failures.extend(unproven(path, source, &tokens));
        } else if let Some(place) = tokens::places(&tokens, &["unsafe", "unsafe_code"]).next() {
            failures.push(Failure::at(
                path,
                tokens[place].line,
                format!("`{}`, but the file is not in the list", tokens[place].text),
                "do without, or add it to UNSAFE_FILES in xtask/src/files.rs with an ADR",
            ));
        }
    }
    let missing = UNSAFE_FILES.iter().filter(|path| workspace.source(path).is_none());
    failures.extend(missing.map(|path| stale(path)));
    failures
}

fn stale(path: &str) -> Failure {
    let what = format!("`{path}` is in the list of unsafe files, but opens no `unsafe_code`");
    Failure::of("xtask/src/files.rs", what, "remove its row from UNSAFE_FILES")
}

/// Each `unsafe`, whatever follows it, that no `SAFETY:` stands directly above.
fn unproven(path: &str, source: &Source, tokens: &[Token<'_>]) -> Vec<Failure> {
    let uses = tokens::places(tokens, &["unsafe"]);
    let without = uses.map(|place| tokens[place].line).filter(|line| !is_proven(source, *line));
    let remedy = "prove each condition in a comment above it";
    without.map(|line| Failure::at(path, line, "`unsafe` without `SAFETY:`", remedy)).collect()
}

fn is_proven(source: &Source, number: usize) -> bool {
    for line in source.lines[..number - 1].iter().rev() {
        if line.remark().starts_with("SAFETY:") {
            return true;
        }
        // The comment stands before the statement, whose earlier lines may come in between.
        let code = line.code.trim_end();
        if code.ends_with([';', '{', '}']) || (code.is_empty() && line.remark().is_empty()) {
            return false;
        }
    }
    false
}
