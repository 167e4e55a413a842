//! Strings of a melody with templates in them: compiled once, their references known, evaluated to bytes.
//!
//! ```text
//! "{{ steps.list.output.entries }}"   a reference: the bytes are copied, nothing is decoded
//! "{{ item.bytes > 100 }}"            an expression: its value keeps its type
//! "of {{ inputs.path }}"              text: always a string
//! ```
//!
//! This file must not know what a template is used for, nor the file's grammar.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use extension_host::diagnostic::closest;
use ipc_protocol::limits::MESSAGE_BYTES_MAX;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use super::evaluation::EvaluationCause;
use super::message_pack::{self, Key, Malformed, Reason};
use super::object::{self, NotAValue};
use super::problem::{Problems, suggestion};
use super::reference::{Found, Named, NamedKind, Scan, Shape, scan};
use super::value::StepOutput;

/// LIMIT: instructions of minijinja for one evaluation: about a second. A loop over 200,000 rows takes a
/// tenth of it. Small in tests, so that they reach it at once.
pub(super) const FUEL_MAX: u64 = if cfg!(test) { 1_000_000 } else { 20_000_000 };
/// LIMIT: macros and blocks inside each other.
pub(super) const TEMPLATE_RECURSION_MAX: usize = 64;

/// The environment of every expression: minijinja's own filters and functions, and no more.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

/// An environment for the templates of one melody.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL_MAX));
    environment.set_recursion_limit(TEMPLATE_RECURSION_MAX);
    // What is not there is an error, except where it is asked for: `is defined`, conditions.
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    // Text is passed on as it is written.
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    // Errors say where in the template they are.
    environment.set_debug(true);
    environment
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The output of the step with this index.
    Step(usize),
    Input(String),
    Item,
    RunId,
}

/// A value that a template reads.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) source: Source,
    /// The way into the source's value.
    pub(super) path: Vec<Key>,
    /// Where it stands in the file.
    pub(super) span: Range<usize>,
    /// As it is written.
    pub(super) text: String,
}

/// The names that templates of a melody may use.
#[derive(Debug)]
pub(super) struct Names<'m> {
    pub(super) steps: BTreeMap<&'m str, usize>,
    pub(super) inputs: Vec<&'m str>,
    /// Why `item` cannot be used here; `None`: it can.
    pub(super) no_item: Option<&'static str>,
}

/// A compiled string with a template in it.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) form: Form,
    pub(super) references: Vec<Reference>,
    /// Which value of the step it is: `with.rows[2]`.
    pub(super) key: String,
    /// Where the string stands in the file.
    pub(super) span: Range<usize>,
    /// The same for people.
    pub(super) at: String,
}

#[derive(Debug)]
pub(super) enum Form {
    /// The one reference, and nothing else.
    Reference,
    Expression(minijinja::Expression<'static, 'static>),
    /// The name of the text in the melody's environment.
    Text(String),
}

impl Template {
    /// Compiles `text`, which stands at `span`. `None` for a plain string, and where mistakes were added.
    pub(super) fn compile(
        text: &str,
        span: Range<usize>,
        key: String,
        names: &Names<'_>,
        texts: &mut Environment<'static>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let Scan { shape, found, named } = scan(text);
        let mut failed = |error: &minijinja::Error, offset: usize| {
            let place = match error.range() {
                Some(range) => problems.inside(&span, text, range.start + offset..range.end + offset),
                None => span.clone(),
            };
            problems.add(place, describe(error), "");
        };
        let (open_names, compiled) = match &shape {
            Shape::Plain => return None,
            Shape::Expression(inner) => {
                match ENVIRONMENT.compile_expression_owned(text[inner.clone()].to_owned()) {
                    Ok(expression) => (expression.undeclared_variables(false), Form::Expression(expression)),
                    Err(error) => {
                        failed(&error, inner.start);
                        return None;
                    }
                }
            }
            Shape::Text => {
                let name = format!("{}:{key}", span.start);
                let added = texts.add_template_owned(name.clone(), text.to_owned());
                match added.and_then(|()| Ok(texts.get_template(&name)?.undeclared_variables(false))) {
                    Ok(open_names) => (open_names, Form::Text(name)),
                    Err(error) => {
                        failed(&error, 0);
                        return None;
                    }
                }
            }
        };
        let is_reference = match (&shape, found.as_slice()) {
            (Shape::Expression(inner), [only]) => {
                text[inner.clone()].trim() == &text[only.range.clone()] && !only.is_called
            }
            _ => false,
        };
        let mut references = Vec::new();
        let mut is_wrong = false;
        for named in named.iter().filter(|named| !is_known(named)) {
            let message = format!("unknown {} `{}` in a template", named.kind.name(), named.name);
            let known = named.kind.usual().iter().copied();
            let hint =
                closest(&named.name, known).map(|name| format!("did you mean `{name}`?")).unwrap_or_default();
            problems.add(problems.inside(&span, text, named.range.clone()), message, hint);
            is_wrong = true;
        }
        for found in found.iter().filter(|found| open_names.contains(&found.root)) {
            let place = problems.inside(&span, text, found.range.clone());
            match resolve(found, names) {
                Ok(Some((source, path))) => {
                    let text = text[found.range.clone()].to_owned();
                    references.push(Reference { source, path, span: place, text });
                }
                Ok(None) => {}
                Err((message, hint)) => {
                    problems.add(place, message, hint);
                    is_wrong = true;
                }
            }
        }
        let form = if is_reference && references.len() == 1 { Form::Reference } else { compiled };
        let at = problems.place(&span);
        (!is_wrong).then_some(Self { form, references, key, span, at })
    }

    /// Whether the value differs from item to item.
    pub(super) fn reads_item(&self) -> bool {
        self.references.iter().any(|reference| reference.source == Source::Item)
    }

    /// The value.
    pub(super) fn evaluate(
        &self,
        context: &Context,
        item: Option<&StepOutput>,
        texts: &Environment<'static>,
    ) -> Result<StepOutput, EvaluationCause> {
        match &self.form {
            Form::Reference => {
                // INVARIANT: `compile` gives this form only to a template with one reference.
                let [reference] = &self.references[..] else { return Err(EvaluationCause::NoItem) };
                let value = context.value(reference, item)?;
                let inside = value.descend(&reference.path).map_err(NotAValue::from)?;
                inside.ok_or_else(|| EvaluationCause::Missing(reference.text.clone()))
            }
            Form::Expression(expression) => {
                let value = expression.eval(self.root(context, item)?).map_err(|error| failure(&error))?;
                let mut out = Vec::new();
                object::encode(&value, &mut out)?;
                Ok(StepOutput::Single(Bytes::from(out)))
            }
            Form::Text(name) => {
                let mut text = Bounded(Vec::new());
                let template = texts.get_template(name).map_err(|error| failure(&error))?;
                template
                    .render_captured_to(self.root(context, item)?, &mut text)
                    .map_err(|error| failure(&error))?;
                let mut out = Vec::with_capacity(text.0.len() + 5);
                // minijinja writes whole strings, so this is UTF-8.
                message_pack::append_string(&mut out, &String::from_utf8_lossy(&text.0))
                    .map_err(NotAValue::from)?;
                Ok(StepOutput::Single(Bytes::from(out)))
            }
        }
    }

    /// Whether the value counts as true; what is not there does not.
    pub(super) fn is_true(
        &self,
        context: &Context,
        texts: &Environment<'static>,
    ) -> Result<bool, EvaluationCause> {
        match &self.form {
            Form::Expression(expression) => {
                let value = expression.eval(self.root(context, None)?).map_err(|error| failure(&error))?;
                Ok(value.is_true())
            }
            _ => match self.evaluate(context, None, texts) {
                Ok(value) => Ok(value.is_true()),
                Err(EvaluationCause::Missing(_)) => Ok(false),
                Err(cause) => Err(cause),
            },
        }
    }

    /// What the names of an expression stand for.
    fn root(&self, context: &Context, item: Option<&StepOutput>) -> Result<Value, EvaluationCause> {
        let mut root = Root::default();
        for reference in &self.references {
            let value = object::to_object(&context.value(reference, item)?);
            match &reference.source {
                Source::Step(index) => {
                    let id = context.step_ids.get(*index).cloned().unwrap_or_default();
                    root.steps.insert(id, Value::from_pairs([("output", value)]));
                }
                Source::Input(name) => drop(root.inputs.insert(name.clone(), value)),
                Source::Item => root.item = Some(value),
                Source::RunId => root.run_id = Some(value),
            }
        }
        Ok(Value::from_object(root))
    }
}

/// The values that templates are evaluated against.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) step_ids: std::sync::Arc<[String]>,
    pub(super) outputs: BTreeMap<usize, StepOutput>,
    pub(super) inputs: std::sync::Arc<super::input::InputValues>,
    pub(super) run_id: Bytes,
}

impl Context {
    fn value(&self, reference: &Reference, item: Option<&StepOutput>) -> Result<StepOutput, EvaluationCause> {
        match &reference.source {
            Source::Step(index) => self.outputs.get(index).cloned().ok_or_else(|| {
                EvaluationCause::NoOutput(self.step_ids.get(*index).cloned().unwrap_or_default())
            }),
            Source::Input(name) => match self.inputs.encoded(name) {
                Some(bytes) => Ok(StepOutput::Single(bytes.clone())),
                None => Err(EvaluationCause::Missing(reference.text.clone())),
            },
            Source::Item => item.cloned().ok_or(EvaluationCause::NoItem),
            Source::RunId => Ok(StepOutput::Single(self.run_id.clone())),
        }
    }
}

/// What minijinja finds behind the names of a melody.
#[derive(Debug, Default)]
struct Root {
    steps: BTreeMap<String, Value>,
    inputs: BTreeMap<String, Value>,
    item: Option<Value>,
    run_id: Option<Value>,
}

impl Object for Root {
    fn get_value(self: &std::sync::Arc<Self>, key: &Value) -> Option<Value> {
        let of = |values: &BTreeMap<String, Value>| {
            Value::from_pairs(values.iter().map(|(name, value)| (name.clone(), value.clone())))
        };
        match key.as_str()? {
            "steps" => Some(of(&self.steps)),
            "inputs" => Some(of(&self.inputs)),
            "item" => self.item.clone(),
            "run" => Some(Value::from_pairs(self.run_id.clone().map(|id| ("id", id)))),
            _ => None,
        }
    }
}

/// What `found` refers to; `None` for a name of minijinja itself.
#[expect(clippy::type_complexity, reason = "the error is a message and a hint")]
fn resolve(found: &Found, names: &Names<'_>) -> Result<Option<(Source, Vec<Key>)>, (String, String)> {
    let mut path = found.path.as_slice();
    if found.is_called && !path.is_empty() {
        path = &path[..path.len() - 1];
    }
    match (found.root.as_str(), path) {
        ("steps", [Key::Field(id), rest @ ..]) => {
            let Some(index) = names.steps.get(id.as_str()) else {
                let dashed = names.steps.keys().find(|known| known.starts_with(&format!("{id}-")));
                let hint = match dashed {
                    Some(known) => format!("a `-` means minus here: write `steps[\"{known}\"]`"),
                    None => suggestion(id, names.steps.keys().copied(), "steps"),
                };
                return Err((format!("there is no step `{id}`"), hint));
            };
            match rest {
                [Key::Field(output), rest @ ..] if output == "output" => {
                    Ok(Some((Source::Step(*index), rest.to_vec())))
                }
                _ => Err((format!("a step has only `output`: `steps.{id}.output`"), String::new())),
            }
        }
        ("steps", _) => {
            Err(("`steps` must be followed by a step's id".into(), "write `steps.ID.output`".into()))
        }
        ("inputs", [Key::Field(name), rest @ ..]) => {
            if !names.inputs.contains(&name.as_str()) {
                let dashed = names.inputs.iter().find(|known| known.starts_with(&format!("{name}-")));
                let hint = match dashed {
                    Some(known) => format!("a `-` means minus here: write `inputs[\"{known}\"]`"),
                    None => suggestion(name, names.inputs.iter().copied(), "inputs"),
                };
                return Err((format!("there is no input `{name}`"), hint));
            }
            if !rest.is_empty() {
                return Err((format!("the input `{name}` has no fields"), String::new()));
            }
            Ok(Some((Source::Input(name.clone()), Vec::new())))
        }
        ("inputs", _) => {
            Err(("`inputs` must be followed by an input's name".into(), "write `inputs.NAME`".into()))
        }
        ("item", path) => match names.no_item {
            None => Ok(Some((Source::Item, path.to_vec()))),
            Some(why) => Err(("there is no `item` here".into(), why.into())),
        },
        ("run", [Key::Field(id)]) if id == "id" => Ok(Some((Source::RunId, Vec::new()))),
        ("run", _) => Err(("a run has only `id`".into(), "write `run.id`".into())),
        (other, _) if ENVIRONMENT.globals().any(|(global, _)| global == other) => Ok(None),
        (other, _) => {
            let hint = suggestion(other, ["steps", "inputs", "item", "run"], "names");
            Err((format!("unknown name `{other}` in a template"), hint))
        }
    }
}

/// Whether minijinja has the filter or the test. It does not list them, but it says so when asked for one.
fn is_known(named: &Named) -> bool {
    let (question, unknown) = match named.kind {
        NamedKind::Filter => (format!("none | {}", named.name), ErrorKind::UnknownFilter),
        NamedKind::Test => (format!("none is {}", named.name), ErrorKind::UnknownTest),
    };
    let Ok(expression) = ENVIRONMENT.compile_expression(&question) else { return true };
    !matches!(expression.eval(()), Err(error) if error.kind() == unknown)
}

/// Text that grows no further than a message may.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MESSAGE_BYTES_MAX {
            return Err(io::Error::other(Malformed { offset: 0, reason: Reason::TooLarge }));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// minijinja's error in one clause, without its place.
fn describe(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("it takes more than {FUEL_MAX} instructions"),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    }
}

fn failure(error: &minijinja::Error) -> EvaluationCause {
    EvaluationCause::Expression(describe(error))
}
