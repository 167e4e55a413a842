//! A graph as a Mermaid flowchart, as Markdown files and wikis show it.

use std::fmt::Write as _;

use super::{MelodyGraph, call, notes, xml};

/// The graph as a flowchart: what is only waited for is a dotted line.
#[must_use]
pub fn mermaid(graph: &MelodyGraph) -> String {
    let mut out = format!("---\ntitle: {}\n---\nflowchart TD\n", graph.name);
    // Writing to a string does not fail.
    for (index, step) in graph.steps.iter().enumerate() {
        let lines = [step.id.clone(), call(step)].into_iter().chain(notes(step));
        let label: Vec<String> = lines.map(|line| label(&line)).collect();
        let (open, close) = match (step.has_condition, step.fans_out) {
            (true, _) => ("{{\"", "\"}}"),
            (false, true) => ("[[\"", "\"]]"),
            (false, false) => ("[\"", "\"]"),
        };
        let _ = writeln!(out, "    s{index}{open}{}{close}", label.join("<br/>"));
    }
    for edge in &graph.edges {
        let arrow = if edge.carries_value { "-->" } else { "-.->" };
        let _ = writeln!(out, "    s{} {arrow} s{}", edge.from, edge.to);
    }
    out
}

/// Text in a label: quotes and brackets of its own would end it.
fn label(text: &str) -> String {
    xml(text).replace('#', "#35;").replace('`', "#96;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::example;

    #[test]
    fn a_flowchart_has_steps_and_edges() {
        let expected = "\
---
title: example
---
flowchart TD
    s0[\"list<br/>tool.do_list\"]
    s1[[\"measure<br/>tool.do_measure<br/>for each item\"]]
    s2{{\"rank<br/>tool.do_rank<br/>conditional\"}}
    s3[\"report<br/>tool.do_report<br/>gives report.md\"]
    s4[\"rows<br/>tool.do_rows<br/>gives rows.json\"]
    s0 --> s1
    s0 --> s2
    s0 -.-> s3
    s1 --> s2
    s1 --> s4
    s2 --> s3
";
        assert_eq!(mermaid(&example()), expected);
    }

    #[test]
    fn a_name_cannot_end_its_label() {
        let mut graph = example();
        graph.steps[0].extension = "\"] --> s9#".to_owned();
        assert!(mermaid(&graph).contains("&quot;] --&gt; s9#35;.do_list"), "{}", mermaid(&graph));
    }
}
