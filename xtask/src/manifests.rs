//! Manifests: what is inherited, what is named once, and that what is named is used.

use toml::{Table, Value};

use crate::rules::Failure;
use crate::workspace::Workspace;

const ROOT: &str = "Cargo.toml";

/// What each crate takes over from the workspace.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];

const DEPENDENCIES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// Every manifest that goes its own way.
pub(crate) fn check(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut named = Vec::new();
    for member in &workspace.cargo.members {
        let path = format!("{}/Cargo.toml", member.folder);
        let Some(text) = workspace.text(&path) else { continue };
        let manifest: Table = match text.parse() {
            Ok(manifest) => manifest,
            Err(error) => {
                failures.push(Failure::of(path, error.to_string(), "write it as TOML"));
                continue;
            }
        };
        let mut broken = |what: String, remedy| failures.push(Failure::of(&path, what, remedy));
        if member.folder.rsplit('/').next() != Some(&member.name) {
            broken(format!("`{}` lies in a folder of another name", member.name), "give both one name");
        }
        if member.folder.split('/').count() > 2 {
            broken("lies deeper than folder/crate".into(), "move it up: folders of crates are flat");
        }
        if !inherits(manifest.get("lints")) {
            broken("does not inherit the lints".into(), "write `workspace = true` below `[lints]`");
        }
        let package = manifest.get("package").and_then(Value::as_table);
        for key in INHERITED.iter().filter(|key| !inherits(package.and_then(|package| package.get(**key)))) {
            broken(format!("`{key}` is not the workspace's"), "write it as `key.workspace = true`");
        }
        if package.and_then(|package| package.get("description")).is_none() {
            broken("has no description".into(), "say in one line what the crate is for");
        }
        for (name, value) in dependencies(&manifest) {
            if !inherits(Some(value)) {
                broken(
                    format!("`{name}` is not the workspace's"),
                    "name its version once, in the root's [workspace.dependencies], and write `workspace = true`",
                );
            }
            if !is_used(workspace, &member.folder, name) {
                broken(format!("`{name}` is named, but no source uses it"), "remove it");
            }
            named.push(name.clone());
        }
    }
    failures.extend(root(workspace, &named));
    failures
}

/// The root's table has what the members name, and nothing else.
fn root(workspace: &Workspace, named: &[String]) -> Vec<Failure> {
    let manifest: Table = workspace.text(ROOT).and_then(|text| text.parse().ok()).unwrap_or_default();
    let table =
        manifest.get("workspace").and_then(|table| table.get("dependencies")).and_then(Value::as_table);
    let Some(table) = table else {
        return vec![Failure::of(ROOT, "has no [workspace.dependencies]", "versions stand there, once")];
    };
    let unused = table.keys().filter(|name| !named.contains(name));
    let failure =
        |name| Failure::of(ROOT, format!("`{name}` is in the table, but no crate uses it"), "remove it");
    unused.map(failure).collect()
}

fn inherits(value: Option<&Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
}

/// Every dependency of a manifest, those for certain systems included.
fn dependencies(manifest: &Table) -> impl Iterator<Item = (&String, &Value)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(|targets| targets.values()).filter_map(Value::as_table);
    let tables = std::iter::once(manifest).chain(targets);
    tables.flat_map(|table| {
        let lists = DEPENDENCIES.iter().filter_map(|key| table.get(*key)?.as_table());
        lists.flat_map(|list| list.iter())
    })
}

/// Whether a source of the crate names the dependency.
fn is_used(workspace: &Workspace, folder: &str, dependency: &str) -> bool {
    let name = dependency.replace('-', "_");
    let below = format!("{folder}/");
    // In comments and texts too: documentation has examples, and attributes name modules in texts.
    workspace.texts("rs").filter(|(path, _)| path.starts_with(&below)).any(|(_, text)| names(text, &name))
}

fn names(code: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name)
        .any(|(at, _)| !code[..at].ends_with(is_word) && !code[at + name.len()..].starts_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_whole_word() {
        assert!(names("use rmp::encode;", "rmp"));
        assert!(names("#[derive(serde::Serialize)]", "serde"));
        assert!(!names("use rmp_serde::encode;", "rmp"));
        assert!(!names("let my_rmp = 1;", "rmp"));
    }

    #[test]
    fn dependencies_of_one_system_count() {
        let text = "[dependencies]\na.workspace = true\n[target.'cfg(loom)'.dependencies]\nloom = \"1\"\n";
        let manifest: Table = text.parse().expect("it is TOML");
        let found: Vec<_> =
            dependencies(&manifest).map(|(name, value)| (name.as_str(), inherits(Some(value)))).collect();
        assert_eq!(found, [("a", true), ("loom", false)]);
    }
}
