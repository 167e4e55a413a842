//! A graph as lines of text: one step a line, with rails at the left that lead from a step to those that wait
//! for it.
//!
//! ```text
//! o     list
//! +--o  measure      waits for list
//! o--'  rank         waits for both, and is the last that does
//! ```
//!
//! A rail begins under its step and ends at the last one that waits for it. This file must not know terminals.

use super::{MelodyGraph, call, notes};
use crate::printable;

/// LIMIT: rails beside each other. A graph with more is told in words.
const RAILS_MAX: usize = 24;

/// The graph as lines of at most `columns_max` columns; `None`: of any length.
#[must_use]
pub fn text(graph: &MelodyGraph, columns_max: Option<usize>) -> String {
    let order = graph.in_order();
    let waits_for = graph.waits_for();
    let rails = rails(&order, &waits_for);
    let width = |of: fn(&MelodyGraph, usize) -> String| {
        order.iter().map(|step| printable::columns(&of(graph, *step))).max().unwrap_or(0)
    };
    let id = |graph: &MelodyGraph, step: usize| graph.steps[step].id.clone();
    let called = |graph: &MelodyGraph, step: usize| printable::line(&call(&graph.steps[step])).into_owned();
    let (id_width, call_width) = (width(id), width(called));
    let rails_width = rails.as_ref().map_or(0, |rails| rails.iter().map(String::len).max().unwrap_or(0));
    let mut lines = String::new();
    for (row, step) in order.iter().enumerate() {
        let mut notes = notes(&graph.steps[*step]);
        let mut line = match &rails {
            Some(rails) => format!("{:<rails_width$}  ", rails[row]),
            None => {
                let names: Vec<&str> =
                    waits_for[*step].iter().map(|step| graph.steps[*step].id.as_str()).collect();
                if !names.is_empty() {
                    notes.insert(0, format!("after {}", names.join(", ")));
                }
                String::new()
            }
        };
        for (cell, width) in [(id(graph, *step), id_width), (called(graph, *step), call_width)] {
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', width - printable::columns(&cell) + 2));
        }
        line.push_str(&printable::line(&notes.join(", ")));
        let line = line.trim_end();
        lines.push_str(&columns_max.map_or(line.into(), |columns| printable::cut(line, columns)));
        lines.push('\n');
    }
    lines
}

/// The rails of each row; `None` if there are too many beside each other.
fn rails(order: &[usize], waits_for: &[Vec<usize>]) -> Option<Vec<String>> {
    let mut waited_for = vec![0_usize; waits_for.len()];
    waits_for.iter().flatten().for_each(|step| waited_for[*step] += 1);
    // By column: the step whose rail it is.
    let mut columns: Vec<Option<usize>> = Vec::new();
    let mut rows = Vec::with_capacity(order.len());
    for step in order {
        let inputs: Vec<usize> = (0..columns.len())
            .filter(|column| columns[*column].is_some_and(|rail| waits_for[*step].contains(&rail)))
            .collect();
        let mut ended = Vec::new();
        for column in &inputs {
            // INVARIANT: an input is a column with a rail.
            let Some(rail) = columns[*column] else { continue };
            waited_for[rail] -= 1;
            if waited_for[rail] == 0 {
                ended.push(*column);
                columns[*column] = None;
            }
        }
        let free = || columns.iter().position(Option::is_none).unwrap_or(columns.len());
        let own = ended.first().copied().unwrap_or_else(free);
        if own == columns.len() {
            columns.push(None);
        }
        if columns.len() > RAILS_MAX {
            return None;
        }
        rows.push(row(&columns, own, &inputs, &ended));
        columns[own] = (waited_for[*step] > 0).then_some(*step);
        while columns.last() == Some(&None) {
            columns.pop();
        }
    }
    Some(rows)
}

/// One row: the step in the column `own`, its inputs joined to it.
fn row(columns: &[Option<usize>], own: usize, inputs: &[usize], ended: &[usize]) -> String {
    let joined = inputs.iter().copied().chain([own]);
    let (first, last) = (joined.clone().min().unwrap_or(own), joined.max().unwrap_or(own));
    let mut row = String::new();
    for (column, rail) in columns.iter().enumerate() {
        let is_between = (first..last).contains(&column);
        row.push(match rail {
            _ if column == own => 'o',
            _ if ended.contains(&column) => '\'',
            _ if inputs.contains(&column) => '+',
            Some(_) => '|',
            None if is_between => '-',
            None => ' ',
        });
        row.push_str(if is_between { "--" } else { "  " });
    }
    row.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::example;

    #[test]
    fn rails_lead_from_steps_to_those_that_wait_for_them() {
        let expected = "\
o        list     tool.do_list
+--o     measure  tool.do_measure  for each item
+--+--o  rank     tool.do_rank     conditional
o--|--'  report   tool.do_report   gives report.md
   o     rows     tool.do_rows     gives rows.json
";
        assert_eq!(text(&example(), None), expected);
    }

    #[test]
    fn lines_are_cut_to_the_width_of_a_terminal() {
        let drawn = text(&example(), Some(30));
        assert!(drawn.lines().all(|line| printable::columns(line) <= 30), "{drawn}");
        assert_eq!(drawn.lines().count(), 5);
    }

    #[test]
    fn a_graph_with_too_many_rails_is_told_in_words() {
        let mut graph = example();
        let step = graph.steps[0].clone();
        graph.edges.clear();
        for index in 5..40 {
            let id = format!("s{index}");
            graph.steps.push(crate::melody::graph::GraphStep { id, ..step.clone() });
        }
        let last = graph.steps.len() - 1;
        graph.edges.extend((0..last).map(|from| crate::melody::graph::Edge {
            from,
            to: last,
            carries_value: true,
        }));
        let drawn = text(&graph, None);
        assert!(drawn.contains("after list, measure, rank"), "{drawn}");
        assert_eq!(drawn.lines().count(), 40);
    }
}
