//! Tables and documents on stdout: columns for people, JSON for programs.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use extension_host::{Diagnostic, Diagnostics};
use serde::Serialize;
use serde_json::{Value, json};

use crate::printable;

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; control characters in cells are escaped, because names may come from anywhere.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable::line(&cell).replace('\t', "\\t")).collect());
    }

    /// Writes the table.
    ///
    /// # Errors
    ///
    /// `out` cannot be written to.
    pub(super) fn write(&self, mut out: impl Write) -> io::Result<()> {
        let width = |column: usize, heading: &str| {
            let cells =
                self.rows.iter().filter_map(|row| row.get(column)).map(|cell| printable::columns(cell));
            cells.chain([heading.len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> =
            self.headings.iter().enumerate().map(|(column, heading)| width(column, heading)).collect();
        let headings: Vec<String> = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            // Padded by hand: formatting counts characters, and a terminal columns.
            let pad = |cell: &str, width: usize| " ".repeat(width.saturating_sub(printable::columns(cell)));
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell}{}", pad(cell, *width))).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Whether stdout has its one document.
// ORDERING(document-written): Relaxed; one thread writes documents and asks afterwards.
static IS_DOCUMENT_WRITTEN: AtomicBool = AtomicBool::new(false);

/// Whether [`write_json`] was called: stdout gets one document, whatever fails after it.
pub(super) fn is_document_written() -> bool {
    // ORDERING(document-written): see there.
    IS_DOCUMENT_WRITTEN.load(Ordering::Relaxed)
}

/// Writes `value` to stdout as one indented JSON document.
///
/// # Errors
///
/// Stdout cannot be written to.
pub(super) fn write_json(value: &impl Serialize) -> io::Result<()> {
    // Whole or not at all: half a document helps no program.
    let mut document = serde_json::to_vec_pretty(value)?;
    document.push(b'\n');
    // ORDERING(document-written): see there.
    IS_DOCUMENT_WRITTEN.store(true, Ordering::Relaxed);
    let mut out = io::stdout().lock();
    out.write_all(&document)?;
    out.flush()
}

/// Diagnostics for programs.
pub(super) fn findings(found: &Diagnostics) -> Vec<Value> {
    let finding = |item: &Diagnostic| {
        json!({
            "file": item.file.to_string_lossy(),
            "line": item.line,
            "column": item.column,
            "severity": item.severity.to_string(),
            "message": item.message,
            "hint": item.hint,
        })
    };
    found.items().iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_are_escaped() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(["a\u{1b}[31m\nb".to_owned(), "1".to_owned()]);
        table.row(["longer-than-that-one".to_owned(), "22".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let expected = "NAME                  SIZE\n\
                        a\\u{1b}[31m\\nb        1\n\
                        longer-than-that-one  22\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
