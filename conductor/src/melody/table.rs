//! Reads the tables of a melody key by key: whatever is unknown, missing or of the wrong type is a mistake
//! with its place, and reading goes on.
//!
//! This file must not know the keys of a melody; whoever reads a table says which ones it has.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use extension_host::manifest::parse_duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problems, suggestion};

/// LIMIT: the longest time that a melody can name.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A key of a later version, with what to say to somebody who uses it now.
pub(super) type LaterKey = (&'static str, &'static str);

/// One table of the file, of which every key is known.
pub(super) struct Fields<'t> {
    table: &'t DeTable<'t>,
    span: Range<usize>,
    /// What the table is, for messages: "a step".
    what: &'static str,
}

impl<'t> Fields<'t> {
    /// The table, after every key that is not in `known` became a mistake.
    pub(super) fn new(
        table: &'t DeTable<'t>,
        span: Range<usize>,
        what: &'static str,
        known: &[&'static str],
        later: &[LaterKey],
        problems: &mut Problems,
    ) -> Self {
        for (key, _) in table {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            match later.iter().find(|(later, _)| *later == name) {
                Some((_, why)) => {
                    problems.add(key.span(), format!("`{name}` is not supported in {what}"), *why);
                }
                None => {
                    let hint = suggestion(name, known.iter().copied(), "keys");
                    problems.add(key.span(), format!("unknown key `{name}` in {what}"), hint);
                }
            }
        }
        Self { table, span, what }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// The string at `key`.
    pub(super) fn string(&self, key: &str, problems: &mut Problems) -> Option<Spanned<String>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(value.span(), text.clone().into_owned())),
            other => {
                wrong_type(value, key, "a string", other, problems);
                None
            }
        }
    }

    /// The string at `key`; a mistake if there is none.
    pub(super) fn required_string(&self, key: &str, problems: &mut Problems) -> Option<Spanned<String>> {
        if self.get(key).is_none() {
            problems.add(
                first_line(self.span.clone(), problems.text()),
                format!("{} has no `{key}`", self.what),
                "",
            );
        }
        self.string(key, problems)
    }

    /// The integer at `key`, which must be in `range`.
    pub(super) fn integer(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
        problems: &mut Problems,
    ) -> Option<i64> {
        integer(self.get(key)?, key, range, problems)
    }

    /// The time at `key`.
    pub(super) fn duration(&self, key: &str, problems: &mut Problems) -> Option<Duration> {
        if let Some(value) = self.get(key)
            && let DeValue::Integer(number) = value.get_ref()
        {
            let hint = format!("a time has a unit: \"{}s\"", number.as_str());
            problems.add(value.span(), format!("`{key}` must be a string, not an integer"), hint);
            return None;
        }
        let text = self.string(key, problems)?;
        duration(&text, problems)
    }

    /// The array of strings at `key`.
    pub(super) fn strings(&self, key: &str, problems: &mut Problems) -> Option<Vec<Spanned<String>>> {
        let value = self.get(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            wrong_type(value, key, "an array of strings", value.get_ref(), problems);
            return None;
        };
        let mut strings = Vec::new();
        for element in array.iter() {
            match element.get_ref() {
                DeValue::String(text) => {
                    strings.push(Spanned::new(element.span(), text.clone().into_owned()));
                }
                other => wrong_type(element, key, "an array of strings", other, problems),
            }
        }
        Some(strings)
    }

    /// The table at `key`, its entries in the order of the file.
    pub(super) fn entries(&self, key: &str, problems: &mut Problems) -> Option<Entries<'t>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(in_order(table)),
            other => {
                wrong_type(value, key, "a table", other, problems);
                None
            }
        }
    }
}

/// Keys and values of a table.
pub(super) type Entries<'t> = Vec<(&'t Spanned<Cow<'t, str>>, &'t Spanned<DeValue<'t>>)>;

/// The entries of `table` in the order of the file; the parser keeps them sorted by name.
pub(super) fn in_order<'t>(table: &'t DeTable<'t>) -> Entries<'t> {
    let mut entries: Entries<'t> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The value as an integer in `range`.
pub(super) fn integer(
    value: &Spanned<DeValue<'_>>,
    key: &str,
    range: std::ops::RangeInclusive<i64>,
    problems: &mut Problems,
) -> Option<i64> {
    let DeValue::Integer(written) = value.get_ref() else {
        wrong_type(value, key, "an integer", value.get_ref(), problems);
        return None;
    };
    match i64::from_str_radix(written.as_str(), written.radix()) {
        Ok(number) if range.contains(&number) => Some(number),
        _ => {
            let hint = format!("from {} to {}", range.start(), range.end());
            problems.add(value.span(), format!("`{key}` is out of range"), hint);
            None
        }
    }
}

/// A time such as `250ms`, `10s`, `5m`, `2h`.
pub(super) fn duration(text: &Spanned<String>, problems: &mut Problems) -> Option<Duration> {
    match parse_duration(text.get_ref()) {
        Some(duration) if !duration.is_zero() && duration <= DURATION_MAX => Some(duration),
        found => {
            let message = match found {
                Some(_) => format!("`{}` is out of range", text.get_ref()),
                None => format!("`{}` is not a time", text.get_ref()),
            };
            problems.add(text.span(), message, "a whole number with `ms`, `s`, `m` or `h`, from 1ms to 168h");
            None
        }
    }
}

/// Adds the mistake that the value at `key` is a `found` and not what is `expected`.
pub(super) fn wrong_type(
    value: &Spanned<DeValue<'_>>,
    key: &str,
    expected: &str,
    found: &DeValue<'_>,
    problems: &mut Problems,
) {
    let message = format!("`{key}` must be {expected}, not {}", toml_type(found));
    problems.add(first_line(value.span(), problems.text()), message, "");
}

/// A TOML type with its article.
pub(super) fn toml_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The part of `span` on its first line: what a caret can underline.
pub(super) fn first_line(span: Range<usize>, text: &str) -> Range<usize> {
    let end = text.get(span.clone()).and_then(|text| text.find('\n')).map_or(span.end, |at| span.start + at);
    span.start..end
}
