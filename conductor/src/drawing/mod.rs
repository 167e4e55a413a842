//! A melody's graph as people look at it: lines of text, Mermaid, SVG.
//!
//! The same graph gives the same bytes, on every machine. Names come from files and are escaped as each form
//! needs it. This module must not know how a melody is read or run.

mod layers;
mod mermaid;
mod svg;
mod text;

pub use mermaid::mermaid;
pub use svg::svg;
pub use text::text;

use crate::melody::graph::{GraphStep, MelodyGraph};

/// What is worth knowing of a step beside its name and its call.
fn notes(step: &GraphStep) -> Vec<String> {
    let mut notes = Vec::new();
    if step.fans_out {
        notes.push("for each item".to_owned());
    }
    if step.has_condition {
        notes.push("conditional".to_owned());
    }
    if let Some(artifact) = &step.artifact {
        notes.push(format!("gives {artifact}"));
    }
    notes
}

fn call(step: &GraphStep) -> String {
    format!("{}.{}", step.extension, step.method)
}

/// Text in a document of XML: what would end it is escaped, what may not be in it is replaced.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
fn example() -> MelodyGraph {
    use crate::melody::graph::Edge;
    let step = |id: &str, fans_out, artifact: Option<&str>| GraphStep {
        id: id.to_owned(),
        extension: "tool".to_owned(),
        method: format!("do_{id}"),
        fans_out,
        has_condition: id == "rank",
        artifact: artifact.map(str::to_owned),
    };
    let edge = |from, to, carries_value| Edge { from, to, carries_value };
    MelodyGraph {
        name: "example".to_owned(),
        description: "What <it> & \"he\" do.".to_owned(),
        steps: vec![
            step("list", false, None),
            step("measure", true, None),
            step("rank", false, None),
            step("report", false, Some("report.md")),
            step("rows", false, Some("rows.json")),
        ],
        edges: vec![
            edge(0, 1, true),
            edge(0, 2, true),
            edge(0, 3, false),
            edge(1, 2, true),
            edge(1, 4, true),
            edge(2, 3, true),
        ],
    }
}
