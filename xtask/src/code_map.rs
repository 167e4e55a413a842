//! The map in `ARCHITECTURE.md` against the workspace, both ways.

use crate::rules::Failure;
use crate::workspace::Workspace;

const PAGE: &str = "ARCHITECTURE.md";

/// Crates without a row, and rows without a crate.
pub(crate) fn check(workspace: &Workspace) -> Vec<Failure> {
    let rows = workspace.text(PAGE).map(rows).unwrap_or_default();
    if rows.is_empty() {
        let remedy = "it has a table whose first column is called `crate`: folders in backticks";
        return vec![Failure::of(PAGE, "there is no map of the crates", remedy)];
    }
    let mut failures = Vec::new();
    for member in &workspace.cargo.members {
        match rows.iter().filter(|(_, folder)| *folder == member.folder).count() {
            1 => {}
            0 => failures.push(Failure::of(
                PAGE,
                format!("the map does not show `{}`", member.folder),
                "give the crate a row: what it holds, what it must not know",
            )),
            _ => failures.push(Failure::of(
                PAGE,
                format!("the map shows `{}` more than once", member.folder),
                "keep one row",
            )),
        }
    }
    for (line, folder) in rows {
        if !workspace.cargo.members.iter().any(|member| member.folder == folder) {
            let what = format!("the map shows `{folder}`, which is no crate of the workspace");
            failures.push(Failure::at(PAGE, line, what, "remove the row, or name the crate's folder"));
        }
    }
    failures
}

/// The folders in the first column of the table whose head is `crate`, with their lines.
fn rows(page: &str) -> Vec<(usize, &str)> {
    let lines = page.lines().enumerate().skip_while(|(_, line)| !line.starts_with("| crate |"));
    let rows = lines.skip(2).take_while(|(_, line)| line.starts_with('|'));
    rows.filter_map(|(index, line)| Some((index + 1, line.split('`').nth(1)?))).collect()
}
