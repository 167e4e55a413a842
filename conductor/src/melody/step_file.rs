//! Reads the table of one step: what it calls with what, and under which conditions and limits.
//!
//! As in `file`, strings with templates stay strings, and reading goes on after a mistake. This file must not
//! know other steps.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{NAME_BYTES_MAX, check_name, owned};
use super::model::{Argument, ArgumentValue, Claim, Lease, RetryCause, RetryRule, StepText};
use super::problem::{Problems, suggestion};
use super::table::{Fields, LaterKey, duration, first_line, in_order, integer, wrong_type};

/// LIMIT: attempts that a retry rule may add.
pub(super) const RETRY_TIMES_MAX: u32 = 100;
/// LIMIT: arrays and tables inside each other in `with`.
pub(super) const ARGUMENT_NESTING_MAX: usize = 64;

const STEP_KEYS: &[&str] = &[
    "id", "call", "with", "for-each", "when", "claims", "lease", "priority", "retry", "timeout", "output",
    "after",
];

const LATER_STEP_KEYS: &[LaterKey] = &[
    (
        "join",
        "a step waits until all steps that it depends on have succeeded; other join rules do not exist yet",
    ),
    ("finally", "steps that always run at the end do not exist yet"),
    ("at-most-once", "results are not journaled yet, so a run is never continued and no step runs again"),
    ("cache", "results are not cached yet"),
    ("if", "the key for a condition is `when`"),
    ("needs", "the key for steps that must be done before is `after`"),
    ("depends-on", "the key for steps that must be done before is `after`"),
];

/// The step in a table; `None` if it has no id. `artifacts`: what earlier steps give.
pub(super) fn read_step(
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
        priority: fields
            .integer("priority", 0..=i64::from(u8::MAX), problems)
            .and_then(|level| u8::try_from(level).ok()),
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
