//! What depends on what in a melody, for those who want to see it: steps and edges, without their templates.
//!
//! Made from the file alone: no extension has to be built for it. This file must not know how a graph is drawn.

use extension_host::diagnostic::Diagnostics;
use serde::Serialize;

use super::compile::compile;
use super::file::Draft;

/// A melody as a graph. Comes from [`Draft::graph`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MelodyGraph {
    /// The melody's name.
    #[serde(rename = "melody")]
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its steps, in the order of the file.
    pub steps: Vec<GraphStep>,
    /// What waits for what, sorted; without cycles.
    pub edges: Vec<Edge>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GraphStep {
    /// Its id.
    pub id: String,
    /// The extension that it calls.
    pub extension: String,
    /// The method of that extension.
    pub method: String,
    /// Whether it makes one call for each of many items.
    #[serde(rename = "for-each")]
    pub fans_out: bool,
    /// Whether it runs only if a condition holds.
    #[serde(rename = "when")]
    pub has_condition: bool,
    /// The artifact that its output becomes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
}

/// One step waits for another. Both are places in [`MelodyGraph::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Edge {
    /// The step that is first.
    pub from: usize,
    /// The step that waits for it.
    pub to: usize,
    /// Whether the second one reads what the first one gives; else it only waits.
    #[serde(rename = "reads")]
    pub carries_value: bool,
}

impl Draft {
    /// The graph of the melody. What its extensions take and give is not looked at.
    ///
    /// # Errors
    ///
    /// [`Diagnostics`]: every mistake that can be found in the file alone.
    pub fn graph(self) -> Result<MelodyGraph, Diagnostics> {
        let Self { mut problems, model } = self;
        let compiled = compile(&model, &mut problems);
        if !problems.is_empty() {
            return Err(problems.into_diagnostics());
        }
        let mut edges = Vec::new();
        for (to, (waits_for, templates)) in compiled.edges.iter().zip(&compiled.templates).enumerate() {
            let reads = templates.steps_read();
            let edge = |from: &usize| Edge { from: *from, to, carries_value: reads.contains(from) };
            edges.extend(waits_for.keys().map(edge));
        }
        edges.sort_unstable();
        let steps = model.steps.into_iter().map(|step| {
            // INVARIANT: a step without its call is a problem.
            let (extension, method) = step.call.map_or_else(Default::default, |(extension, method)| {
                (extension.into_inner(), method.into_inner())
            });
            GraphStep {
                id: step.id.into_inner(),
                extension,
                method,
                fans_out: step.for_each.is_some(),
                has_condition: step.when.is_some(),
                artifact: step.artifact,
            }
        });
        Ok(MelodyGraph { name: model.name, description: model.description, steps: steps.collect(), edges })
    }
}

impl MelodyGraph {
    /// For each step the steps that it waits for, sorted.
    #[must_use]
    pub fn waits_for(&self) -> Vec<Vec<usize>> {
        let mut waits_for = vec![Vec::new(); self.steps.len()];
        self.edges.iter().for_each(|edge| waits_for[edge.to].push(edge.from));
        waits_for
    }

    /// The steps in an order in which each comes after those that it waits for; else as in the file.
    #[must_use]
    pub fn in_order(&self) -> Vec<usize> {
        let mut open: Vec<usize> = self.waits_for().iter().map(Vec::len).collect();
        let mut followers = vec![Vec::new(); self.steps.len()];
        self.edges.iter().for_each(|edge| followers[edge.from].push(edge.to));
        let mut ready: std::collections::BTreeSet<usize> =
            (0..open.len()).filter(|step| open[*step] == 0).collect();
        let mut order = Vec::with_capacity(open.len());
        while let Some(step) = ready.pop_first() {
            order.push(step);
            for follower in &followers[step] {
                open[*follower] -= 1;
                if open[*follower] == 0 {
                    ready.insert(*follower);
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::REPORT;
    use super::*;

    #[test]
    fn a_graph_has_every_step_and_says_what_is_read_and_what_is_only_waited_for() {
        let graph = Draft::parse(REPORT, Path::new("m.toml")).graph().unwrap();
        let ids: Vec<&str> = graph.steps.iter().map(|step| step.id.as_str()).collect();
        assert_eq!(ids, ["list", "measure", "rank", "report"]);
        let edges: Vec<_> = graph.edges.iter().map(|edge| (edge.from, edge.to, edge.carries_value)).collect();
        let expected = [(0, 1, true), (0, 2, true), (0, 3, false), (1, 2, true), (1, 3, true), (2, 3, true)];
        assert_eq!(edges, expected);
        assert!(graph.steps[1].fans_out && graph.steps[3].has_condition);
        assert_eq!(graph.steps[3].artifact.as_deref(), Some("report.md"));
        assert_eq!(graph.in_order(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_melody_with_a_cycle_has_no_graph() {
        let text = REPORT.replace("path = \"{{ inputs.path }}\"", "path = \"{{ steps.rank.output.total }}\"");
        let found = Draft::parse(&text, Path::new("m.toml")).graph().unwrap_err();
        assert!(found.to_string().contains("wait for each other"), "{found}");
    }
}
