//! Reads a melody's file into the model.
//!
//! The parser keeps what it can read and notes what it cannot, so that a mistake in one step does not hide
//! those in the others. Strings with templates stay strings here. This file must not know what extensions
//! there are, nor what a template means.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use extension_host::diagnostic::{Diagnostic, Diagnostics, Severity};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::input::InputValue;
use super::model::{
    Argument, ArgumentValue, Claim, InputDeclaration, InputType, Lease, Model, ModelDeclaration, OnFailure,
    RetryCause, RetryRule, StepText,
};
use super::problem::{Problems, suggestion};
use super::table::{Fields, LaterKey, duration, first_line, in_order, integer, toml_type, wrong_type};

/// LIMIT: bytes of a melody's file.
pub const MELODY_BYTES_MAX: u64 = 1 << 20;
/// LIMIT: steps of a melody. What is many belongs into a fan-out.
pub const STEPS_MAX: usize = 10_000;
/// LIMIT: bytes of a name in a melody: of a step, an input, a model, an artifact, a resource.
pub const NAME_BYTES_MAX: usize = 64;
/// LIMIT: attempts that a retry rule may add.
pub const RETRY_TIMES_MAX: u32 = 100;
/// LIMIT: arrays and tables inside each other in `with`.
pub const ARGUMENT_NESTING_MAX: usize = 64;

const MELODY_KEYS: &[&str] = &["name", "description", "on-failure", "inputs", "models", "steps"];
const INPUT_KEYS: &[&str] = &["type", "default", "description"];
const STEP_KEYS: &[&str] =
    &["id", "call", "with", "for-each", "when", "claims", "lease", "retry", "timeout", "output", "after"];

const LATER_MELODY_KEYS: &[LaterKey] = &[
    ("finally", "steps that always run at the end do not exist yet"),
    ("schedule", "start the run from a timer of the system instead"),
];
const LATER_STEP_KEYS: &[LaterKey] = &[
    (
        "join",
        "a step waits until all steps that it depends on have succeeded; other join rules do not exist yet",
    ),
    ("finally", "steps that always run at the end do not exist yet"),
    ("at-most-once", "results are not journaled yet, so a run is never continued and no step runs again"),
    ("cache", "results are not cached yet"),
    ("priority", "steps are admitted in the order in which they become ready; priorities do not exist yet"),
    ("if", "the key for a condition is `when`"),
    ("needs", "the key for steps that must be done before is `after`"),
    ("depends-on", "the key for steps that must be done before is `after`"),
];

/// What could be read of a melody, with the mistakes found so far.
///
/// ```
/// use std::path::Path;
/// use conductor::melody::Draft;
///
/// let text = r#"
/// name = "greeting"
/// [[steps]]
/// id = "say"
/// call = "echo.echo"
/// with = { text = "hello" }
/// "#;
/// let draft = Draft::parse(text, Path::new("greeting.toml"));
/// assert_eq!(draft.extensions(), ["echo"]);
/// ```
#[derive(Clone, Debug)]
pub struct Draft {
    pub(super) problems: Problems,
    pub(super) model: Model,
}

impl Draft {
    /// Reads the melody at `path`. Mistakes in it are kept in the draft.
    ///
    /// # Errors
    ///
    /// [`Diagnostics`] about the file as a whole: it is missing, unreadable, too large or no text.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let failed = |message: String, hint: &str| {
            Diagnostics::from(Diagnostic::whole_file(Severity::Error, path, message).with_hint(hint))
        };
        let read = || -> std::io::Result<Vec<u8>> {
            use std::io::Read as _;
            let mut bytes = Vec::new();
            std::fs::File::open(path)?.take(MELODY_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| {
            failed(format!("the melody cannot be read: {error}"), "give the path of a melody's file")
        })?;
        if bytes.len() as u64 > MELODY_BYTES_MAX {
            return Err(failed(
                format!("the melody has more than {MELODY_BYTES_MAX} bytes"),
                "is it a melody?",
            ));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| failed("the melody is not UTF-8 text".into(), "save it as UTF-8"))?;
        Ok(Self::parse(&text, path))
    }

    /// Reads a melody from its text; `file` is how messages name it.
    #[must_use]
    pub fn parse(text: &str, file: &Path) -> Self {
        let mut problems = Problems::new(file, text);
        let (table, errors) = DeTable::parse_recoverable(text);
        // One slip makes the parser stumble several times; the first one of each line says enough.
        let mut line_before = None;
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let line = text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
            if line_before.replace(line) != Some(line) {
                problems.add(span, error.message().trim().replace('\n', ", "), "");
            }
        }
        // What the parser made up after a syntax error would only give mistakes that nobody made.
        let model =
            if errors.is_empty() { read_model(table.get_ref(), &mut problems) } else { Model::default() };
        Self { problems, model }
    }

    /// Names of the extensions that its steps call, sorted.
    #[must_use]
    pub fn extensions(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .model
            .steps
            .iter()
            .filter_map(|step| Some(step.call.as_ref()?.0.get_ref().as_str()))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The inputs that it declares, in the order of the file.
    #[must_use]
    pub fn inputs(&self) -> &[InputDeclaration] {
        &self.model.inputs
    }

    /// Whether a mistake was found already.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        !self.problems.is_empty()
    }
}

fn read_model(table: &DeTable<'_>, problems: &mut Problems) -> Model {
    let whole = 0..problems.text().len().min(1);
    let fields = Fields::new(table, whole.clone(), "a melody", MELODY_KEYS, LATER_MELODY_KEYS, problems);
    let mut model = Model::default();
    if let Some(name) = fields.required_string("name", problems) {
        check_name(&name, "a melody's name", problems);
        model.name = name.into_inner();
    }
    model.description = fields.string("description", problems).map(Spanned::into_inner).unwrap_or_default();
    if let Some(word) = fields.string("on-failure", problems) {
        match word.get_ref().as_str() {
            "fail-fast" => model.on_failure = OnFailure::FailFast,
            "carry-on" => model.on_failure = OnFailure::CarryOn,
            other => {
                let hint = suggestion(other, ["fail-fast", "carry-on"], "allowed");
                problems.add(word.span(), format!("`on-failure` cannot be `{other}`"), hint);
            }
        }
    }
    for (name, value) in fields.entries("inputs", problems).unwrap_or_default() {
        check_name(&owned(name), "an input's name", problems);
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type(value, name.get_ref(), "a table with `type`", value.get_ref(), problems);
            continue;
        };
        model.inputs.extend(read_input(&owned(name), table, problems));
    }
    for (name, value) in fields.entries("models", problems).unwrap_or_default() {
        check_name(&owned(name), "a model's name", problems);
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type(value, name.get_ref(), "a table with `capacity`", value.get_ref(), problems);
            continue;
        };
        let fields = Fields::new(table, name.span(), "a model", &["capacity"], &[], problems);
        if fields.get("capacity").is_none() {
            problems.add(
                name.span(),
                "a model has no `capacity`",
                "how many steps may lease it at the same time",
            );
        }
        // A capacity that could not be read counts as one, so that leases of the model are not wrong too.
        let capacity = fields.integer("capacity", 1..=1_000_000, problems).unwrap_or(1);
        let capacity = u32::try_from(capacity).unwrap_or(1);
        model.models.push(ModelDeclaration { name: name.get_ref().to_string(), capacity });
    }
    read_steps(&fields, &mut model, problems);
    model
}

fn read_steps(fields: &Fields<'_>, model: &mut Model, problems: &mut Problems) {
    let Some(value) = fields.get("steps") else {
        problems.add(0..1, "a melody has no steps", "begin each with `[[steps]]`");
        return;
    };
    let DeValue::Array(steps) = value.get_ref() else {
        wrong_type(value, "steps", "an array of tables", value.get_ref(), problems);
        return;
    };
    if steps.len() > STEPS_MAX {
        problems.add(
            first_line(value.span(), problems.text()),
            format!("more than {STEPS_MAX} steps"),
            "use `for-each`",
        );
        return;
    }
    let mut ids: BTreeMap<String, Range<usize>> = BTreeMap::new();
    let mut artifacts: BTreeMap<String, Range<usize>> = BTreeMap::new();
    for value in steps.iter() {
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type(value, "steps", "an array of tables", value.get_ref(), problems);
            continue;
        };
        let Some(step) = read_step(table, value.span(), &mut artifacts, problems) else { continue };
        if ids.insert(step.id.get_ref().clone(), step.id.span()).is_some() {
            problems.add(
                step.id.span(),
                format!("a second step with the id `{}`", step.id.get_ref()),
                "ids are unique",
            );
            continue;
        }
        model.steps.push(step);
    }
}

fn read_input(
    name: &Spanned<String>,
    table: &DeTable<'_>,
    problems: &mut Problems,
) -> Option<InputDeclaration> {
    let fields = Fields::new(table, name.span(), "an input", INPUT_KEYS, &[], problems);
    let written = fields.required_string("type", problems);
    // An input of which the type is wrong stays known, so that its references are not wrong too.
    let mut input_type = InputType::String;
    let mut is_type_known = false;
    if let Some(word) = &written {
        match InputType::ALL.iter().find(|(name, _)| name == word.get_ref()) {
            Some((_, found)) => (input_type, is_type_known) = (*found, true),
            None => {
                let hint = suggestion(word.get_ref(), InputType::ALL.map(|(name, _)| name), "types");
                problems.add(word.span(), format!("unknown type `{}`", word.get_ref()), hint);
            }
        }
    }
    let default = fields.get("default").filter(|_| is_type_known).and_then(|value| {
        let found = match (value.get_ref(), input_type) {
            (DeValue::String(text), InputType::String) => Some(InputValue::Text(text.to_string())),
            (DeValue::String(text), InputType::Path) => Some(InputValue::Path(text.to_string().into())),
            (DeValue::Boolean(boolean), InputType::Boolean) => Some(InputValue::Boolean(*boolean)),
            (DeValue::Integer(_), InputType::Integer) => {
                return integer(value, "default", i64::MIN..=i64::MAX, problems).map(InputValue::Integer);
            }
            (DeValue::Integer(written), InputType::Number) => {
                written.as_str().parse().ok().map(InputValue::Number)
            }
            (DeValue::Float(written), InputType::Number) => {
                written.as_str().parse().ok().map(InputValue::Number)
            }
            _ => None,
        };
        if found.is_none() {
            let message = format!(
                "the default of an input of type {} is {}",
                input_type.name(),
                toml_type(value.get_ref())
            );
            problems.add(value.span(), message, "");
        }
        found
    });
    let description = fields.string("description", problems).map(Spanned::into_inner).unwrap_or_default();
    Some(InputDeclaration { name: name.get_ref().clone(), input_type, default, description })
}

fn read_step(
    table: &DeTable<'_>,
    span: Range<usize>,
    artifacts: &mut BTreeMap<String, Range<usize>>,
    problems: &mut Problems,
) -> Option<StepText> {
    let fields = Fields::new(table, span, "a step", STEP_KEYS, LATER_STEP_KEYS, problems);
    let id = fields.required_string("id", problems);
    let call = fields.required_string("call", problems).and_then(|call| split_call(&call, problems));
    let with: Vec<_> = fields
        .entries("with", problems)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(key, value)| Some((owned(key), read_argument(value, 0, problems)?)))
        .collect();
    let mut claims = Vec::new();
    for (resource, value) in fields.entries("claims", problems).unwrap_or_default() {
        if let Some(amount) = integer(value, resource.get_ref(), 1..=i64::MAX, problems) {
            let claim = Claim { resource: resource.get_ref().to_string(), amount: amount.unsigned_abs() };
            claims.push((resource.span(), claim));
        }
    }
    let leases = fields.strings("lease", problems).unwrap_or_default();
    let leases = leases.into_iter().map(|name| {
        let lease = match name.get_ref().split_once('/') {
            Some((extension, model)) => Lease { extension: Some(extension.into()), model: model.into() },
            None => Lease { extension: None, model: name.get_ref().clone() },
        };
        (name.span(), lease)
    });
    let artifact = read_output(&fields, problems).map(|name| {
        if artifacts.insert(name.get_ref().clone(), name.span()).is_some() {
            let message = format!("a second step gives the artifact `{}`", name.get_ref());
            problems.add(name.span(), message, "an artifact's name is unique in a melody");
        }
        name.into_inner()
    });
    let step = StepText {
        call,
        with,
        with_span: fields.get("with").map_or_else(|| id.as_ref().map_or(0..0, Spanned::span), Spanned::span),
        for_each: fields.string("for-each", problems),
        when: fields.string("when", problems),
        claims,
        leases: leases.collect(),
        retry: read_retry(&fields, problems),
        timeout: fields.duration("timeout", problems),
        artifact,
        after: fields.strings("after", problems).unwrap_or_default(),
        id: id?,
    };
    check_name(&step.id, "a step's id", problems);
    Some(step)
}

fn split_call(call: &Spanned<String>, problems: &mut Problems) -> Option<(Spanned<String>, Spanned<String>)> {
    match call.get_ref().split_once('.') {
        Some((extension, method)) if !extension.is_empty() && !method.is_empty() && !method.contains('.') => {
            let place = |range| problems.inside(&call.span(), call.get_ref(), range);
            let dot = extension.len();
            Some((
                Spanned::new(place(0..dot), extension.to_owned()),
                Spanned::new(place(dot + 1..call.get_ref().len()), method.to_owned()),
            ))
        }
        _ => {
            problems.add(call.span(), format!("`{}` is no call", call.get_ref()), "write `extension.method`");
            None
        }
    }
}

fn read_argument(value: &Spanned<DeValue<'_>>, depth: usize, problems: &mut Problems) -> Option<Argument> {
    let span = first_line(value.span(), problems.text());
    if depth > ARGUMENT_NESTING_MAX {
        problems.add(span, format!("`with` is nested deeper than {ARGUMENT_NESTING_MAX}"), "");
        return None;
    }
    let read = match value.get_ref() {
        DeValue::String(text) => ArgumentValue::Text(text.to_string()),
        DeValue::Integer(_) => {
            ArgumentValue::Integer(integer(value, "the number", i64::MIN..=i64::MAX, problems)?)
        }
        DeValue::Float(written) => ArgumentValue::Number(written.as_str().parse().ok()?),
        DeValue::Boolean(boolean) => ArgumentValue::Boolean(*boolean),
        DeValue::Datetime(_) => {
            problems.add(span, "a date is not a value of MessagePack", "write it as a string");
            return None;
        }
        DeValue::Array(array) => ArgumentValue::Array(
            array.iter().filter_map(|element| read_argument(element, depth + 1, problems)).collect(),
        ),
        DeValue::Table(table) => ArgumentValue::Table(
            in_order(table)
                .into_iter()
                .filter_map(|(key, value)| Some((owned(key), read_argument(value, depth + 1, problems)?)))
                .collect(),
        ),
    };
    Some(Argument { span: value.span(), value: read })
}

fn read_retry(fields: &Fields<'_>, problems: &mut Problems) -> Option<RetryRule> {
    let value = fields.get("retry")?;
    let DeValue::Table(table) = value.get_ref() else {
        wrong_type(value, "retry", "a table with `times`", value.get_ref(), problems);
        return None;
    };
    let fields = Fields::new(table, value.span(), "`retry`", &["times", "backoff", "on"], &[], problems);
    let mut rule = RetryRule {
        times: 0,
        backoff_first: Duration::from_millis(100),
        backoff_max: Duration::from_secs(5),
        on: vec![RetryCause::Crashed, RetryCause::Timeout, RetryCause::Rejected],
    };
    if fields.get("times").is_none() {
        problems.add(
            first_line(value.span(), problems.text()),
            "`retry` has no `times`",
            "how often to try again",
        );
    }
    let times = fields.integer("times", 1..=i64::from(RETRY_TIMES_MAX), problems);
    rule.times = times.and_then(|times| u32::try_from(times).ok()).unwrap_or(0);
    if let Some(written) = fields.strings("backoff", problems) {
        let waits: Vec<_> = written.iter().filter_map(|wait| duration(wait, problems)).collect();
        match waits[..] {
            [first, max] if first <= max => (rule.backoff_first, rule.backoff_max) = (first, max),
            // The wrong one of the two was reported already.
            _ if waits.len() < written.len() => {}
            _ => {
                let span = fields.get("backoff").map_or(value.span(), Spanned::span);
                problems.add(
                    span,
                    "`backoff` is not two times",
                    "the first wait and the longest: [\"100ms\", \"5s\"]",
                );
            }
        }
    }
    if let Some(causes) = fields.strings("on", problems) {
        rule.on.clear();
        for cause in causes {
            match RetryCause::ALL.iter().find(|(name, _)| name == cause.get_ref()) {
                Some((_, cause)) => rule.on.push(*cause),
                None => {
                    let hint = suggestion(cause.get_ref(), RetryCause::ALL.map(|(name, _)| name), "causes");
                    problems.add(cause.span(), format!("unknown cause `{}`", cause.get_ref()), hint);
                }
            }
        }
    }
    Some(rule)
}

fn read_output(fields: &Fields<'_>, problems: &mut Problems) -> Option<Spanned<String>> {
    let value = fields.get("output")?;
    let DeValue::Table(table) = value.get_ref() else {
        wrong_type(value, "output", "a table with `artifact`", value.get_ref(), problems);
        return None;
    };
    let fields = Fields::new(table, value.span(), "`output`", &["artifact"], &[], problems);
    let name = fields.required_string("artifact", problems)?;
    let text = name.get_ref();
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty()
        || text.len() > NAME_BYTES_MAX
        || text.starts_with('.')
        || !text.chars().all(is_allowed)
    {
        let hint = format!("1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, not `.` first; no path");
        problems.add(name.span(), format!("`{text}` is no name for an artifact"), hint);
        return None;
    }
    Some(name)
}

/// Adds a mistake if `name` is not one that can be said in a template and on the command line.
fn check_name(name: &Spanned<String>, what: &str, problems: &mut Problems) {
    let text = name.get_ref();
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if !text.starts_with(|c: char| c.is_ascii_lowercase())
        || text.len() > NAME_BYTES_MAX
        || !text.chars().all(is_allowed)
    {
        let hint = format!("1 to {NAME_BYTES_MAX} of a-z, 0-9, `_` and `-`, beginning with a letter");
        problems.add(name.span(), format!("`{text}` cannot be {what}"), hint);
    }
}

fn owned(key: &Spanned<std::borrow::Cow<'_, str>>) -> Spanned<String> {
    Spanned::new(key.span(), key.get_ref().to_string())
}
