//! The protocol's document and its source move together.
//!
//! The document bears a digest of the source that its author last looked at. Comments, tests and the way the lines are
//! broken do not count; what is said on the wire does. The tables and dumps are held by the tests of `ipc-protocol`;
//! this is for the sentences, which no test can read.

use anyhow::Context as _;

use crate::rules::Failure;
use crate::source::Source;
use crate::workspace::Workspace;

/// The document.
pub const DOCUMENT: &str = "docs/protocol.md";

const SOURCE: &str = "ipc-bus/ipc-protocol/src/";
const BEGIN: &str = "<!-- describes ipc-bus/ipc-protocol/src, blake3 ";
const END: &str = " -->";

/// The digest that the document bears is that of the source.
pub(crate) fn check(workspace: &Workspace) -> Vec<Failure> {
    let Some(document) = workspace.text(DOCUMENT) else {
        return vec![Failure::of(DOCUMENT, "is missing", "an extension in any language is written from it")];
    };
    let recorded = document
        .lines()
        .enumerate()
        .find_map(|(index, line)| Some((index + 1, line.strip_prefix(BEGIN)?.strip_suffix(END)?)));
    let actual = digest(workspace);
    let remedy =
        "read the document beside the change, mend it, then run `cargo xtask tidy --accept-protocol`";
    match recorded {
        Some((_, recorded)) if recorded == actual => Vec::new(),
        Some((line, _)) => {
            vec![Failure::at(DOCUMENT, line, "the source has changed since the document was read", remedy)]
        }
        None => vec![Failure::of(DOCUMENT, "does not say which source it describes", remedy)],
    }
}

/// The document, with the digest of the source as it is.
///
/// # Errors
///
/// There is no document.
pub fn accept(workspace: &Workspace) -> anyhow::Result<String> {
    let document = workspace.text(DOCUMENT).with_context(|| format!("{DOCUMENT} is missing"))?;
    let mut lines: Vec<&str> = document.lines().filter(|line| !line.starts_with(BEGIN)).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    Ok(format!("{}\n\n{BEGIN}{}{END}\n", lines.join("\n"), digest(workspace)))
}

/// Half a digest is enough to see a change by accident.
fn digest(workspace: &Workspace) -> String {
    let mut hasher = blake3::Hasher::new();
    for (path, source) in workspace.sources().filter(|(path, _)| path.starts_with(SOURCE)) {
        hasher.update(path.as_bytes());
        hasher.update(said(workspace.text(path).unwrap_or_default(), source).as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The file's words and signs with one blank between them, without comments and tests.
fn said(text: &str, source: &Source) -> String {
    let mut said = String::new();
    for (text, line) in text.lines().zip(&source.lines).filter(|(_, line)| !line.is_test) {
        for word in text.get(..line.comment_at).unwrap_or(text).split_whitespace() {
            said.push_str(word);
            said.push(' ');
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same(one: &str, other: &str) -> bool {
        said(one, &Source::new(one)) == said(other, &Source::new(other))
    }

    #[test]
    fn comments_tests_and_breaks_do_not_count() {
        let plain = "const A: u8 = 1;\nconst B: &str = \"b // c\";\n";
        assert!(same(plain, "// Why.\nconst A: u8 = 1; // one\n\nconst B: &str =\n    \"b // c\";\n"));
        assert!(same(plain, &format!("{plain}#[cfg(test)]\nmod tests {{\n}}\n")));
        assert!(!same(plain, &plain.replace('1', "2")));
        assert!(!same(plain, &plain.replace("// c", "// d")));
    }
}
