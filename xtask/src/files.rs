//! Rules for single files: headers, lengths, characters, lints, `unsafe`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::workspace::Workspace;

/// Lines of a Rust file, unless it says `// LENGTH:` and why.
const LINES_MAX: usize = 600;

/// Files that may open `unsafe_code`. A new one is an architecture change.
const UNSAFE_FILES: &[&str] = &[
    "pit/artifact-store/src/mapping.rs",
    "ipc-bus/ipc-transport/src/connection/socket.rs",
    "ipc-bus/extension-launcher/src/signals.rs",
    "ipc-bus/extension-launcher/src/start.rs",
    "extensions/hostile/src/system.rs",
];

/// Every file that breaks a rule.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut broken = Vec::new();
    for member in &workspace.crates {
        let name = member.folder.file_name().unwrap_or_default().to_string_lossy();
        if name != member.name.as_str() {
            broken.push(format!("{}: its folder is called {name}", member.name));
        }
        let manifest = fs::read_to_string(member.folder.join("Cargo.toml"))?;
        if !manifest.contains("[lints]\nworkspace = true") {
            broken.push(format!("{}: does not inherit the workspace's lints", member.name));
        }
        for file in rust_files(&member.folder)? {
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let shown = file.strip_prefix(&workspace.root).unwrap_or(&file).display().to_string();
            broken.extend(check_file(&shown, &text));
        }
    }
    Ok(broken)
}

fn check_file(shown: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let is_fixture = shown.contains("/tests/ui/");
    if !is_fixture && !text.starts_with("//!") {
        broken.push(format!("{shown}: does not begin with //! and what it is for"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !text.contains("// LENGTH:") {
        broken.push(format!("{shown}: {lines} lines, above {LINES_MAX}, and no LENGTH: that says why"));
    }
    if let Some((number, _)) = text.lines().enumerate().find(|(_, line)| !line.is_ascii()) {
        broken.push(format!("{shown}:{}: not ASCII", number + 1));
    }
    let opens_unsafe = text.contains("expect(unsafe_code") || text.contains("allow(unsafe_code");
    if opens_unsafe && !shown.starts_with("xtask/") && !UNSAFE_FILES.contains(&shown) {
        broken.push(format!("{shown}: opens unsafe_code, but is not in the list of xtask/src/files.rs"));
    }
    broken
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn breaks(text: &str, expected: &str) {
        let broken = check_file("pit/x/src/lib.rs", text);
        assert!(broken.iter().any(|line| line.contains(expected)), "{broken:#?}");
    }

    #[test]
    fn each_rule_is_reported_when_broken() {
        breaks("fn main() {}\n", "does not begin with //!");
        breaks(&format!("//! Long.\n{}", "\n".repeat(LINES_MAX)), "lines, above 600");
        breaks("//! Caf\u{e9}.\n", ":1: not ASCII");
        breaks("//! Unsafe.\n#![expect(unsafe_code)]\n", "opens unsafe_code");
    }

    #[test]
    fn a_file_in_order_is_not_reported() {
        assert!(check_file("pit/x/src/lib.rs", "//! In order.\n").is_empty());
        let long = format!("//! Long.\n// LENGTH: a table.\n{}", "\n".repeat(LINES_MAX));
        assert!(check_file("pit/x/src/lib.rs", &long).is_empty());
    }
}
