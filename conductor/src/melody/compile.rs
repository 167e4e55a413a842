//! From the model to templates and edges: every string is compiled, every reference becomes an edge, and the
//! tracker of graphs judges whether the edges make sense.
//!
//! This file must not know what extensions there are: that is checked afterwards, against these results.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dag_tracker::{Graph, GraphBuilder, GraphError};
use minijinja::Environment;
use toml::Spanned;

use super::message_pack;
use super::model::{Argument, ArgumentValue, Model, StepText};
use super::plan::{Segment, StepTemplates};
use super::problem::{Problems, suggestion};
use super::template::{self, Names, Source, Template};

/// The compiled strings of a melody.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) templates: Vec<StepTemplates>,
    pub(super) texts: Environment<'static>,
    /// By step: the steps that must be done before, each with the place that says so.
    pub(super) edges: Vec<BTreeMap<usize, Range<usize>>>,
    /// `None` if the edges are wrong.
    pub(super) graph: Option<Arc<Graph>>,
}

/// Compiles every string of `model`; mistakes are added to `problems`.
pub(super) fn compile(model: &Model, problems: &mut Problems) -> Compiled {
    let mut names = Names {
        steps: model
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| (step.id.get_ref().as_str(), index))
            .collect(),
        inputs: model.inputs.iter().map(|input| input.name.as_str()).collect(),
        no_item: None,
    };
    let mut texts = template::environment();
    let mut templates = Vec::with_capacity(model.steps.len());
    let mut edges = Vec::with_capacity(model.steps.len());
    for (index, step) in model.steps.iter().enumerate() {
        let compiled = compile_step(step, &mut names, &mut texts, problems);
        edges.push(edges_of(index, step, &compiled, &names, problems));
        templates.push(compiled);
    }
    let graph = build_graph(model, &edges, problems);
    Compiled { templates, texts, edges, graph }
}

fn compile_step(
    step: &StepText,
    names: &mut Names<'_>,
    texts: &mut Environment<'static>,
    problems: &mut Problems,
) -> StepTemplates {
    let mut compiled = StepTemplates::default();
    names.no_item = Some("`for-each` says what the items are");
    compiled.for_each = whole(step.for_each.as_ref(), "for-each", names, texts, problems);
    names.no_item = Some("`when` is decided once, before the items are known");
    compiled.when = whole(step.when.as_ref(), "when", names, texts, problems);
    names.no_item =
        if step.for_each.is_some() { None } else { Some("`item` needs a `for-each` in the same step") };

    let mut segments = Segments { done: Vec::new(), literal: Vec::new(), names, texts, problems };
    message_pack::append_map_head(&mut segments.literal, u32::try_from(step.with.len()).unwrap_or(u32::MAX));
    for (name, argument) in &step.with {
        segments.key(name);
        segments.argument(argument, &format!("with.{}", name.get_ref()));
    }
    segments.flush();
    compiled.arguments = segments.done;
    compiled
}

/// The template of a key that must be one expression.
fn whole(
    text: Option<&Spanned<String>>,
    key: &str,
    names: &Names<'_>,
    texts: &mut Environment<'static>,
    problems: &mut Problems,
) -> Option<Template> {
    let text = text?;
    let known = problems.count();
    let compiled = Template::compile(text.get_ref(), text.span(), key.into(), names, texts, problems);
    let is_text = compiled.as_ref().is_none_or(|template| matches!(template.form, template::Form::Text(_)));
    if is_text && problems.count() == known {
        let hint = format!("write `{key} = \"{{{{ ... }}}}\"`");
        problems.add(text.span(), format!("`{key}` must be one expression and nothing else"), hint);
        return None;
    }
    compiled
}

/// Writes `with` as segments.
struct Segments<'a, 'm> {
    done: Vec<Segment>,
    literal: Vec<u8>,
    names: &'a Names<'m>,
    texts: &'a mut Environment<'static>,
    problems: &'a mut Problems,
}

impl Segments<'_, '_> {
    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.done.push(Segment::Literal(Bytes::from(std::mem::take(&mut self.literal))));
        }
    }

    fn string(&mut self, text: &str) {
        // A melody is far smaller than a message, so this does not fail.
        if message_pack::append_string(&mut self.literal, text).is_err() {
            message_pack::append_nil(&mut self.literal);
        }
    }

    fn key(&mut self, key: &Spanned<String>) {
        self.string(key.get_ref());
    }

    /// Bounded by `ARGUMENT_NESTING_MAX`, which the parser has checked.
    fn argument(&mut self, argument: &Argument, key: &str) {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        match &argument.value {
            ArgumentValue::Text(text) => {
                let span = argument.span.clone();
                match Template::compile(text, span, key.to_owned(), self.names, self.texts, self.problems) {
                    Some(template) => {
                        self.flush();
                        self.done.push(Segment::Template(template));
                    }
                    // Plain text; or a mistake was added, and there will be no plan.
                    None => self.string(text),
                }
            }
            ArgumentValue::Integer(number) => message_pack::append_integer(&mut self.literal, *number),
            ArgumentValue::Number(number) => message_pack::append_float(&mut self.literal, *number),
            ArgumentValue::Boolean(boolean) => message_pack::append_boolean(&mut self.literal, *boolean),
            ArgumentValue::Nil => message_pack::append_nil(&mut self.literal),
            ArgumentValue::Array(elements) => {
                message_pack::append_array_head(&mut self.literal, count(elements.len()));
                for (index, element) in elements.iter().enumerate() {
                    self.argument(element, &format!("{key}[{index}]"));
                }
            }
            ArgumentValue::Table(entries) => {
                message_pack::append_map_head(&mut self.literal, count(entries.len()));
                for (name, value) in entries {
                    self.key(name);
                    self.argument(value, &format!("{key}.{}", name.get_ref()));
                }
            }
        }
    }
}

/// What the step with this index waits for.
fn edges_of(
    index: usize,
    step: &StepText,
    compiled: &StepTemplates,
    names: &Names<'_>,
    problems: &mut Problems,
) -> BTreeMap<usize, Range<usize>> {
    let mut edges = BTreeMap::new();
    for template in compiled.all() {
        for reference in &template.references {
            match reference.source {
                Source::Step(other) if other == index => {
                    let message = format!("step `{}` reads its own output", step.id.get_ref());
                    problems.add(
                        reference.span.clone(),
                        message,
                        "a step can read only what was done before it",
                    );
                }
                Source::Step(other) => drop(edges.entry(other).or_insert(reference.span.clone())),
                _ => {}
            }
        }
    }
    for name in &step.after {
        match names.steps.get(name.get_ref().as_str()) {
            Some(other) if *other == index => {
                problems.add(name.span(), format!("step `{}` waits for itself", step.id.get_ref()), "");
            }
            Some(other) => drop(edges.entry(*other).or_insert(name.span())),
            None => {
                let hint = suggestion(name.get_ref(), names.steps.keys().copied(), "steps");
                problems.add(name.span(), format!("there is no step `{}`", name.get_ref()), hint);
            }
        }
    }
    edges
}

/// Lets the tracker check the edges.
fn build_graph(
    model: &Model,
    edges: &[BTreeMap<usize, Range<usize>>],
    problems: &mut Problems,
) -> Option<Arc<Graph>> {
    let name = |index: usize| model.steps.get(index).map_or("", |step| step.id.get_ref().as_str());
    let mut builder = GraphBuilder::new();
    for (index, edges) in edges.iter().enumerate() {
        builder.step(name(index), edges.keys().map(|other| name(*other)));
    }
    match builder.build() {
        Ok(graph) => Some(graph),
        Err(GraphError::Cycle { path }) => {
            // The place of the first edge of the cycle.
            let index_of = |id: &str| model.steps.iter().position(|step| step.id.get_ref() == id);
            let indexes: Vec<usize> = path.iter().filter_map(|id| index_of(id)).collect();
            let place = match indexes[..] {
                [step, waits_for, ..] => edges.get(step).and_then(|edges| edges.get(&waits_for)).cloned(),
                _ => None,
            };
            let message = format!("steps wait for each other: {}", path.join(" -> "));
            problems.add(place.unwrap_or(0..1), message, "one of them must not read or name the next");
            None
        }
        // Ids are unique and edges name steps; only a melody beyond the tracker's limits comes here.
        Err(error) => {
            problems.add(0..1, error.to_string(), "");
            None
        }
    }
}
