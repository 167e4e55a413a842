//! Whether cargo would take a new package into the workspace of a folder above it.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

/// What a new package is to the workspaces above it.
#[derive(Clone, Debug, PartialEq)]
pub enum Membership {
    /// One takes it in.
    Member(Inherited),
    /// None does: it must be a workspace of its own, or cargo would refuse it below another one.
    Alone,
}

/// What a member need not say itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inherited {
    /// The workspace's own table of dependencies has the SDK.
    pub has_sdk: bool,
    /// It has lints.
    pub has_lints: bool,
    /// Its table for packages.
    pub package: Table,
}

impl Membership {
    /// That of a package in `folder`, which is absolute and not there yet.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        for root in folder.ancestors().skip(1) {
            let Ok(text) = fs::read_to_string(root.join("Cargo.toml")) else { continue };
            let Some(workspace) = text.parse::<Table>().ok().and_then(|mut table| table.remove("workspace"))
            else {
                continue;
            };
            let takes = |key: &str| {
                let patterns = workspace.get(key).and_then(Value::as_array).into_iter().flatten();
                let relative = folder.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
                patterns.filter_map(Value::as_str).any(|pattern| matches_path(pattern, relative))
            };
            // The nearest workspace decides, as with cargo.
            if !takes("members") || takes("exclude") {
                return Self::Alone;
            }
            let table = |key: &str| workspace.get(key).and_then(Value::as_table);
            return Self::Member(Inherited {
                has_sdk: table("dependencies").is_some_and(|table| table.contains_key("extension-sdk")),
                has_lints: table("lints").is_some(),
                package: table("package").cloned().unwrap_or_default(),
            });
        }
        Self::Alone
    }
}

/// Whether a pattern of `members` is this path: `*` and `?` stand for letters within one folder's name.
fn matches_path(pattern: &str, path: &str) -> bool {
    let mut patterns = pattern.trim_start_matches("./").split('/').filter(|name| !name.is_empty());
    let mut names = path.split('/');
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if matches_name(pattern.as_bytes(), name.as_bytes()) => {}
            _ => return false,
        }
    }
}

fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches_name(rest, name)
                || name.split_first().is_some_and(|(_, name)| matches_name(pattern, name))
        }
        (Some((b'?', pattern)), Some((_, name))) => matches_name(pattern, name),
        (Some((letter, pattern)), Some((other, name))) => letter == other && matches_name(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_cargos_do() {
        for (pattern, path, expected) in [
            ("extensions/*", "extensions/hello", true),
            ("extensions/*", "extensions/a/b", false),
            ("extensions/*", "hello", false),
            ("extensions/he*o", "extensions/hello", true),
            ("extensions/h?llo", "extensions/hello", true),
            ("./hello", "hello", true),
            ("hello/", "hello", true),
            ("*", "hello", true),
            ("he", "hello", false),
        ] {
            assert_eq!(matches_path(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_nearest_workspace_decides() {
        let place = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = place.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let of = |path: &str| Membership::of(&place.path().join(path));
        assert_eq!(of("a/b"), Membership::Alone);
        write("Cargo.toml", "[workspace]\nmembers = [\"a/*\"]\nexclude = [\"a/out\"]\n");
        let member = || Membership::Member(Inherited::default());
        assert_eq!(of("a/b"), member());
        assert_eq!(of("a/out"), Membership::Alone);
        assert_eq!(of("b"), Membership::Alone);
        // A package between is no workspace, and a file that is none says nothing.
        write("a/Cargo.toml", "[package]\nname = \"a\"\n");
        assert_eq!(of("a/b"), member());
        write("a/Cargo.toml", "no toml");
        assert_eq!(of("a/b"), member());
        write("a/Cargo.toml", "[workspace]\n");
        assert_eq!(of("a/b"), Membership::Alone);
    }
}
