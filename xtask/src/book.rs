//! The documents as a book.
//!
//! That nothing leads nowhere is checked here. The pages are made by `mdbook` where it is installed: its licence is one
//! that no crate of the tree may have, so that it is a program beside the project and not a library of it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::rules::{Broken, RULES, run};
use crate::workspace::Workspace;

/// Runs the rules that concern documents.
#[must_use]
pub fn check(workspace: &Workspace) -> Vec<Broken> {
    RULES
        .iter()
        .filter(|rule| ["link", "summary"].contains(&rule.name))
        .flat_map(|rule| run(rule, workspace))
        .collect()
}

/// Builds the pages. Returns their folder, or `None` if `mdbook` is not installed.
///
/// # Errors
///
/// `mdbook` failed or warned; its words are the error.
pub fn build(workspace: &Workspace) -> anyhow::Result<Option<PathBuf>> {
    let folder = workspace.cargo.target_folder.join("book");
    let mut command = Command::new("mdbook");
    command.arg("build").arg("--dest-dir").arg(&folder).arg(&workspace.root);
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output.context("mdbook could not be run")?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let has_warned = ["WARN", "ERROR"].iter().any(|level| said.contains(level));
    anyhow::ensure!(output.status.success() && !has_warned, "mdbook: {}", said.trim_end());
    Ok(Some(folder))
}
