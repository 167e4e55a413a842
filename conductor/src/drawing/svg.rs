//! A graph as SVG: a file that any browser shows, in light and dark.

use std::fmt::Write as _;

use super::layers::{Layout, Point, Size, layout};
use super::{MelodyGraph, call, notes, xml};
use crate::printable;

/// Room around everything.
const MARGIN: f64 = 16.0;
/// A column of the fixed-width fonts, at 13 units of height.
const COLUMN_WIDTH: f64 = 7.9;
const LINE_HEIGHT: f64 = 17.0;
/// Room between a box and what is written in it.
const PADDING: f64 = 10.0;

const STYLE: &str = "\
text{font:13px ui-monospace,Menlo,Consolas,monospace;fill:#1f2328;text-anchor:middle}\
text.id{font-weight:bold}text.note{fill:#59636e}\
rect{fill:#f6f8fa;stroke:#59636e;rx:6}rect.conditional{stroke-dasharray:5 3}\
path{fill:none;stroke:#59636e;stroke-width:1.3}path.waits{stroke-dasharray:2 4}\
#tip path{fill:#59636e;stroke:none}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}text.note{fill:#9198a1}\
rect{fill:#151b23;stroke:#9198a1}path{stroke:#9198a1}#tip path{fill:#9198a1}}";

/// The graph as a document of SVG. What is only waited for is a dotted line, a fan-out has a second box behind it.
#[must_use]
pub fn svg(graph: &MelodyGraph) -> String {
    let lines: Vec<Vec<String>> = graph
        .steps
        .iter()
        .map(|step| [step.id.clone(), call(step)].into_iter().chain(notes(step)).collect())
        .collect();
    let sizes: Vec<Size> = lines.iter().map(|lines| size_of(lines)).collect();
    let edges: Vec<(usize, usize)> = graph.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let Layout { boxes, routes, width, height } = layout(&sizes, &edges, &graph.in_order());
    let (width, height) = (width + 2.0 * MARGIN, height + 2.0 * MARGIN);

    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.1} {height:.1}\" width=\"{width:.1}\" \
         height=\"{height:.1}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n<style>{STYLE}</style>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n",
        xml(&graph.name),
        xml(&graph.description),
    );
    for (edge, route) in graph.edges.iter().zip(&routes) {
        let class = if edge.carries_value { "reads" } else { "waits" };
        let _ = writeln!(out, "<path class=\"{class}\" marker-end=\"url(#tip)\" d=\"{}\"/>", curve(route));
    }
    for (((step, lines), size), place) in graph.steps.iter().zip(&lines).zip(&sizes).zip(&boxes) {
        let (x, y) = moved(*place);
        let class = if step.has_condition { "conditional" } else { "plain" };
        let (left, Size { width, height }) = (x - size.width / 2.0, *size);
        for shift in if step.fans_out { &[4.0, 0.0][..] } else { &[0.0] } {
            let (left, top) = (left + shift, y + shift);
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            );
        }
        let mut baseline = y + PADDING + LINE_HEIGHT * 0.7;
        for (index, line) in lines.iter().enumerate() {
            let class = ["id", "call"].get(index).unwrap_or(&"note");
            let _ = writeln!(
                out,
                "<text class=\"{class}\" x=\"{x:.1}\" y=\"{baseline:.1}\">{}</text>",
                xml(line)
            );
            baseline += LINE_HEIGHT;
        }
    }
    out.push_str("</svg>\n");
    out
}

fn size_of(lines: &[String]) -> Size {
    let columns = lines.iter().map(|line| printable::columns(line)).max().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "names are short, and so are their lists")]
    let (columns, count) = (columns as f64, lines.len() as f64);
    Size { width: columns * COLUMN_WIDTH + 2.0 * PADDING, height: count * LINE_HEIGHT + 1.5 * PADDING }
}

fn moved((x, y): Point) -> Point {
    (x + MARGIN, y + MARGIN)
}

/// A smooth line through the points, upright at each of them.
fn curve(points: &[Point]) -> String {
    let mut points = points.iter().map(|point| moved(*point));
    let Some(mut before) = points.next() else { return String::new() };
    let mut data = format!("M{:.1} {:.1}", before.0, before.1);
    for point in points {
        let middle = f64::midpoint(before.1, point.1);
        let _ = write!(
            data,
            "C{:.1} {middle:.1} {:.1} {middle:.1} {:.1} {:.1}",
            before.0, point.0, point.0, point.1
        );
        before = point;
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::example;

    #[test]
    fn a_drawing_has_every_box_and_every_edge_and_is_the_same_each_time() {
        let graph = example();
        let drawn = svg(&graph);
        assert_eq!(drawn, svg(&graph));
        // A fan-out has two boxes; the arrow's tip is a path too.
        assert_eq!(drawn.matches("<rect ").count(), graph.steps.len() + 1);
        assert_eq!(drawn.matches("<path class=").count(), graph.edges.len());
        assert_eq!(drawn.matches("class=\"waits\"").count(), 1);
        assert!(drawn.contains(">measure</text>") && drawn.contains("gives report.md"), "{drawn}");
        assert!(drawn.contains("<desc>What &lt;it&gt; &amp; &quot;he&quot; do.</desc>"), "{drawn}");
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }

    #[test]
    fn a_name_cannot_leave_its_element() {
        let mut graph = example();
        graph.steps[0].method = "</text><script>\u{1b}".to_owned();
        let drawn = svg(&graph);
        assert!(drawn.contains("tool.&lt;/text&gt;&lt;script&gt;\u{fffd}"), "{drawn}");
    }
}
