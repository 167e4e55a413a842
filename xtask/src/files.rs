//! Rules for single files: how they begin, how long they are, which characters they have, `unsafe`.

use crate::rules::Failure;
use crate::source::Source;
use crate::workspace::Workspace;

/// LIMIT: lines of a Rust file. Most have 150 to 350.
const LINES_MAX: usize = 600;

/// Files that open `unsafe_code`, and no others. A new one is an architecture change.
const UNSAFE_FILES: &[&str] = &[
    "benches/benches/pit/artifacts.rs",
    "extensions/hostile/src/system.rs",
    "ipc-bus/extension-launcher/src/signals.rs",
    "ipc-bus/extension-launcher/src/start.rs",
    "ipc-bus/ipc-transport/src/connection/socket.rs",
    "pit/artifact-store/src/mapping.rs",
];

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

/// Texts with other characters, and files that are no text where one is expected.
pub(crate) fn ascii(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (path, text) in workspace.all_texts() {
        if let Some((index, line)) = text.lines().enumerate().find(|(_, line)| !line.is_ascii()) {
            let found = line.chars().find(|c| !c.is_ascii()).unwrap_or_default();
            let what = format!("U+{:04X} is not ASCII", u32::from(found));
            failures.push(Failure::at(path, index + 1, what, "write it in ASCII, or escaped in a text"));
        }
    }
    failures
}

/// Unsafe code outside of the list, rows of the list without any, and uses without proof.
pub(crate) fn unsafe_code(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (path, source) in workspace.sources().filter(|(path, _)| !is_fixture(path)) {
        if !workspace.text(path).is_some_and(|text| text.contains("unsafe")) && !UNSAFE_FILES.contains(&path)
        {
            continue;
        }
        let opens = source.numbered().find(|(_, line)| {
            ["expect(unsafe_code", "allow(unsafe_code", "warn(unsafe_code"]
                .iter()
                .any(|open| line.code.contains(open))
        });
        match (opens, UNSAFE_FILES.contains(&path)) {
            (Some((line, _)), false) => failures.push(Failure::at(
                path,
                line,
                "opens `unsafe_code`, but is not in the list",
                "do without, or add it to UNSAFE_FILES in xtask/src/files.rs with an ADR",
            )),
            (None, true) => failures.push(stale(path)),
            _ => {}
        }
        failures.extend(unproven(path, source));
    }
    let missing = UNSAFE_FILES.iter().filter(|path| workspace.source(path).is_none());
    failures.extend(missing.map(|path| stale(path)));
    failures
}

fn stale(path: &str) -> Failure {
    let what = format!("`{path}` is in the list of unsafe files, but opens no `unsafe_code`");
    Failure::of("xtask/src/files.rs", what, "remove its row from UNSAFE_FILES")
}

/// Each use of `unsafe` that no `SAFETY:` stands directly above.
fn unproven<'a>(path: &'a str, source: &'a Source) -> impl Iterator<Item = Failure> {
    let uses = source.numbered().filter(|(_, line)| {
        line.code.contains("unsafe {") || line.code.trim_start().starts_with("unsafe impl")
    });
    let without = uses.filter(|(number, _)| !is_proven(source, *number));
    let remedy = "prove each condition in a comment above it";
    without.map(move |(number, _)| Failure::at(path, number, "`unsafe` without `SAFETY:`", remedy))
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
