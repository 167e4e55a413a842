//! Reads a melody's file into the model.
//!
//! The parser keeps what it can read and notes what it cannot, so that a mistake in one step does not hide
//! those in the others. Strings with templates stay strings here. This file must not know what extensions
//! there are, nor what a template means.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use extension_host::diagnostic::{Diagnostic, Diagnostics, Severity};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::input::InputValue;
use super::model::{InputDeclaration, InputType, Model, ModelDeclaration, OnFailure};
use super::problem::{Problems, suggestion};
use super::step_file::read_step;
use super::table::{Fields, LaterKey, first_line, integer, toml_type, wrong_type};

/// LIMIT: bytes of a melody's file.
pub const MELODY_BYTES_MAX: u64 = 1 << 20;
/// LIMIT: steps of a melody. What is many belongs into a fan-out.
pub const STEPS_MAX: usize = 10_000;
/// LIMIT: bytes of a name in a melody: of a step, an input, a model, an artifact, a resource.
pub const NAME_BYTES_MAX: usize = 64;

const MELODY_KEYS: &[&str] = &["name", "description", "on-failure", "inputs", "models", "steps"];
const INPUT_KEYS: &[&str] = &["type", "default", "description"];
const LATER_MELODY_KEYS: &[LaterKey] = &[
    ("finally", "steps that always run at the end do not exist yet"),
    ("schedule", "start the run from a timer of the system instead"),
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
        let other = path.extension().and_then(|other| other.to_str());
        if let Some(other) = other.filter(|other| matches!(*other, "yaml" | "yml" | "json")) {
            return Err(failed(format!("a melody cannot be written in {other} yet"), "write it in TOML"));
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

    /// The mistakes that were found already, for who cannot go on to the [check](Self::check).
    #[must_use]
    pub fn into_mistakes(self) -> Diagnostics {
        self.problems.into_diagnostics()
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

/// Adds a mistake if `name` is not one that can be said in a template and on the command line.
pub(super) fn check_name(name: &Spanned<String>, what: &str, problems: &mut Problems) {
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

pub(super) fn owned(key: &Spanned<std::borrow::Cow<'_, str>>) -> Spanned<String> {
    Spanned::new(key.span(), key.get_ref().to_string())
}
