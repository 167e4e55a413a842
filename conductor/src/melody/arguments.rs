//! The arguments of a step, or of a call by hand, against the schema of the method.
//!
//! This file must not know how a schema is written, nor where it comes from.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::check::Checker;
use super::message_pack::Key;
use super::model::{Argument, ArgumentValue};
use super::plan::Segment;
use super::problem::{Problems, suggestion};
use super::reference::{Shape, scan};
use super::schema::{self, Inside, Schema, can_be, spoken, spoken_of_json};
use super::table::first_line;
use super::template::{Form, Template};

/// Checks `with` of the step with this index; mistakes are added to `problems`.
pub(super) fn check_arguments<'a>(
    checker: &'a Checker<'a>,
    step: usize,
    method: &str,
    schema: Schema<'_>,
    problems: &mut Problems,
) {
    let text = checker.step_text(step);
    let place = match &text.call {
        Some((_, method)) => method.span(),
        None => text.with_span.clone(),
    };
    let entries: Vec<_> = text.with.iter().map(|(name, argument)| (name, argument)).collect();
    let table = Table { what: format!("`{method}`"), thing: "argument", place };
    if schema.is_empty_struct() {
        for (name, _) in &entries {
            problems.add(name.span(), format!("`{method}` takes no arguments"), "");
        }
        return;
    }
    let mut walk = Walk { templates: Some((checker, step)), problems };
    walk.entries(&entries, schema, &table);
}

/// What is wrong with the arguments of a call of `method` that is made by hand, judged by the method's JSON
/// Schema; nothing where the schema says nothing.
///
/// ```
/// use conductor::melody::arguments::check_given;
/// use serde_json::json;
///
/// let schema = r#"{"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}"#;
/// let wrong = check_given("echo", schema, &json!({"txt": "hello"}));
/// assert_eq!(wrong[0], "`echo` takes no argument `txt` (did you mean `text`?)");
/// assert_eq!(wrong[1], "`echo` needs the argument `text`");
/// ```
#[must_use]
pub fn check_given(method: &str, schema: &str, arguments: &Value) -> Vec<String> {
    let Some(document) = schema::parse(schema) else { return Vec::new() };
    let schema = Schema::of(&document);
    let mut problems = Problems::new(Path::new(""), "");
    match given(arguments).value {
        ArgumentValue::Table(entries) if schema.is_empty_struct() => {
            for (name, _) in entries {
                problems.add(
                    0..0,
                    format!("`{method}` takes no arguments, and `{}` is given", name.get_ref()),
                    "",
                );
            }
        }
        ArgumentValue::Table(entries) => {
            let entries: Vec<_> = entries.iter().map(|(name, argument)| (name, argument)).collect();
            let table = Table { what: format!("`{method}`"), thing: "argument", place: 0..0 };
            Walk { templates: None, problems: &mut problems }.entries(&entries, schema, &table);
        }
        _ => problems.add(0..0, "the arguments are no JSON object", "for example {\"text\": \"hello\"}"),
    }
    let found = problems.into_diagnostics();
    let said = found.items().iter().map(|item| match &item.hint {
        Some(hint) => format!("{} ({hint})", item.message),
        None => item.message.clone(),
    });
    said.collect()
}

/// A value of JSON as it would stand in a melody. Bounded by the nesting that the parser of JSON allows.
fn given(value: &Value) -> Argument {
    let value = match value {
        Value::Null => ArgumentValue::Nil,
        Value::Bool(boolean) => ArgumentValue::Boolean(*boolean),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => ArgumentValue::Integer(integer),
            (None, number) => ArgumentValue::Number(number.unwrap_or(f64::NAN)),
        },
        Value::String(text) => ArgumentValue::Text(text.clone()),
        Value::Array(elements) => ArgumentValue::Array(elements.iter().map(given).collect()),
        Value::Object(entries) => {
            let entries = entries.iter();
            ArgumentValue::Table(
                entries.map(|(name, value)| (toml::Spanned::new(0..0, name.clone()), given(value))).collect(),
            )
        }
    };
    Argument { span: 0..0, value }
}

/// A table that is checked, for messages.
struct Table {
    /// What takes the entries.
    what: String,
    /// What an entry is.
    thing: &'static str,
    /// Where a missing entry is reported.
    place: std::ops::Range<usize>,
}

struct Walk<'a, 'p> {
    /// Where templates are found, of this step; `None`: there are none, and text is text.
    templates: Option<(&'a Checker<'a>, usize)>,
    problems: &'p mut Problems,
}

impl<'a> Walk<'a, '_> {
    fn entries(
        &mut self,
        entries: &[(&toml::Spanned<String>, &Argument)],
        schema: Schema<'_>,
        table: &Table,
    ) {
        let fields = schema.fields();
        for (name, argument) in entries {
            match schema.inside(&Key::Field(name.get_ref().clone())) {
                Inside::Found(inside) => self.argument(argument, name.get_ref(), inside),
                Inside::NoField(known) => {
                    let message = format!("{} takes no {} `{}`", table.what, table.thing, name.get_ref());
                    let hint = suggestion(name.get_ref(), known, &format!("{}s", table.thing));
                    self.problems.add(name.span(), message, hint);
                }
                Inside::Unknown | Inside::WrongType(_) => {}
            }
        }
        let required = fields.map(|(_, required)| required).unwrap_or_default();
        for missing in required {
            if !entries.iter().any(|(name, _)| name.get_ref() == missing) {
                let message = format!("{} needs the {} `{missing}`", table.what, table.thing);
                self.problems.add(table.place.clone(), message, "");
            }
        }
    }

    /// Bounded by the nesting that the parser allows.
    fn argument(&mut self, argument: &Argument, name: &str, schema: Schema<'_>) {
        let given = match &argument.value {
            ArgumentValue::Text(text) => match (self.templates, self.template(argument)) {
                (Some((checker, step)), Some(template)) => {
                    return self.template_type(checker, step, template, name, schema);
                }
                // A template with a mistake: its type is not known.
                (Some(_), None) if scan(text).shape != Shape::Plain => return,
                _ => "string",
            },
            ArgumentValue::Nil => "null",
            ArgumentValue::Integer(_) => "integer",
            ArgumentValue::Number(_) => "number",
            ArgumentValue::Boolean(_) => "boolean",
            ArgumentValue::Array(_) => "array",
            ArgumentValue::Table(_) => "object",
        };
        let span = first_line(argument.span.clone(), self.problems.text());
        if let Some(expected) = schema.types() {
            let given = BTreeSet::from([given]);
            let is_fraction =
                matches!(argument.value, ArgumentValue::Number(number) if number.fract() != 0.0);
            let fits = can_be(&given, &expected) && (!is_fraction || expected.contains("number"));
            if !fits {
                let spoken = if self.templates.is_some() { spoken } else { spoken_of_json };
                let message = format!("`{name}` must be {}, not {}", spoken(&expected), spoken(&given));
                return self.problems.add(span, message, "");
            }
        }
        match &argument.value {
            ArgumentValue::Text(text) => self.allowed_text(text, name, &span, schema),
            ArgumentValue::Integer(number) => {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "bounds of schemas are small or powers of two"
                )]
                let number = *number as f64;
                let (least, greatest) = schema.bounds();
                if least.is_some_and(|least| number < least)
                    || greatest.is_some_and(|greatest| number > greatest)
                {
                    let hint = match (least, greatest) {
                        (Some(least), Some(greatest)) => format!("from {least} to {greatest}"),
                        (Some(least), None) => format!("at least {least}"),
                        (None, greatest) => format!("at most {}", greatest.unwrap_or(f64::MAX)),
                    };
                    self.problems.add(span, format!("`{name}` is out of range"), hint);
                }
            }
            ArgumentValue::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let key = Key::Index(u32::try_from(index).unwrap_or(u32::MAX));
                    if let Inside::Found(inside) = schema.inside(&key) {
                        self.argument(element, &format!("{name}[{index}]"), inside);
                    }
                }
            }
            ArgumentValue::Table(entries) => {
                let entries: Vec<_> = entries.iter().map(|(name, argument)| (name, argument)).collect();
                self.entries(
                    &entries,
                    schema,
                    &Table { what: format!("`{name}`"), thing: "key", place: span },
                );
            }
            ArgumentValue::Number(_) | ArgumentValue::Boolean(_) | ArgumentValue::Nil => {}
        }
    }

    fn allowed_text(&mut self, text: &str, name: &str, span: &std::ops::Range<usize>, schema: Schema<'_>) {
        let Some(allowed) = schema.allowed_values() else { return };
        let allowed: Vec<&str> = allowed.into_iter().filter_map(Value::as_str).collect();
        if !allowed.contains(&text) {
            let hint = suggestion(text, allowed, "allowed");
            self.problems.add(span.clone(), format!("`{name}` cannot be `{text}`"), hint);
        }
    }

    /// The template that an argument was compiled to; `None` for plain text, and where it has a mistake.
    fn template(&self, argument: &Argument) -> Option<&'a Template> {
        let (checker, step) = self.templates?;
        let arguments: &'a [Segment] = &checker.compiled(step).arguments;
        arguments.iter().find_map(|segment| match segment {
            Segment::Template(template) if template.span == argument.span => Some(template),
            _ => None,
        })
    }

    /// Checks the type of what a template yields, where it is known.
    fn template_type(
        &mut self,
        checker: &'a Checker<'a>,
        step: usize,
        template: &Template,
        name: &str,
        schema: Schema<'_>,
    ) {
        let (given, span, what) = match (&template.form, &template.references[..]) {
            (Form::Text(_), _) => (
                Some(BTreeSet::from(["string"])),
                template.span.clone(),
                "text with templates in it".to_owned(),
            ),
            (Form::Reference, [reference]) => {
                let types = checker.reference(step, reference, None).and_then(Schema::types);
                (types, reference.span.clone(), format!("`{}`", reference.text))
            }
            _ => return,
        };
        if let (Some(given), Some(expected)) = (given, schema.types())
            && !can_be(&given, &expected)
        {
            let message = format!("`{name}` must be {}, and {what} is {}", spoken(&expected), spoken(&given));
            self.problems.add(first_line(span, self.problems.text()), message, "");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_by_hand_are_judged_as_those_of_a_melody() {
        let schema = json!({"type": "object", "required": ["path", "depth"], "properties": {
            "path": {"type": "string"}, "all": {"type": ["boolean", "null"]},
            "depth": {"type": "integer", "minimum": 0, "maximum": 9},
            "options": {"type": "object", "properties": {"style": {"enum": ["plain", "rich"]}}}}});
        let schema = schema.to_string();
        let cases = [
            (json!({"path": "{{ x }}", "depth": 3, "all": null}), ""),
            (json!({"path": "a"}), "`list` needs the argument `depth`"),
            (json!({"path": 1, "depth": 2}), "`path` must be a string, not an integer"),
            (json!({"path": null, "depth": 2}), "`path` must be a string, not null"),
            (json!({"path": "a", "depth": 10}), "`depth` is out of range (from 0 to 9)"),
            (
                json!({"path": "a", "depth": 1, "al": true}),
                "`list` takes no argument `al` (did you mean `all`?)",
            ),
            (
                json!({"path": "a", "depth": 1, "options": {"style": "rch"}}),
                "`style` cannot be `rch` (did you mean `rich`?)",
            ),
            (json!([1]), "the arguments are no JSON object (for example {\"text\": \"hello\"})"),
        ];
        for (arguments, expected) in cases {
            assert_eq!(check_given("list", &schema, &arguments).join(" | "), expected, "{arguments}");
        }
        assert!(check_given("m", "nonsense", &json!({"any": 1})).is_empty());
        assert_eq!(check_given("m", r#"{"type": "object"}"#, &json!({"any": 1})).len(), 1);
    }
}
