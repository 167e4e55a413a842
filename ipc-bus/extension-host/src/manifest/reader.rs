//! Reads TOML tables key by key, and remembers where each stands: an error names its line and what is allowed,
//! an unknown key is found by nobody having asked for it, and one error does not hide the next.
//!
//! It must not know what the keys mean.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Diagnostics, Severity, closest};

/// The text, and what was found wrong in it so far.
pub(crate) struct Source<'t> {
    file: &'t Path,
    text: &'t str,
    found: RefCell<Diagnostics>,
}

impl<'t> Source<'t> {
    pub(crate) fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text, found: RefCell::default() }
    }

    pub(crate) fn report(
        &self,
        severity: Severity,
        span: Range<usize>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let mut diagnostic = Diagnostic::at(severity, self.file, self.text, span, message);
        diagnostic.hint = hint;
        self.found.borrow_mut().push(diagnostic);
    }

    pub(crate) fn error(&self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Severity::Error, span, message, Some(hint.into()));
    }

    /// For what is understood and not yet acted on: silence would be a promise.
    pub(crate) fn not_enforced(&self, span: Range<usize>, key: &str) {
        self.report(Severity::Note, span, format!("`{key}` is declared, not enforced by this version"), None);
    }

    pub(crate) fn finish(self) -> Diagnostics {
        let mut found = self.found.into_inner();
        found.sort();
        found
    }
}

/// One table on its way through the checks.
pub(crate) struct Table<'s, 't> {
    source: &'s Source<'t>,
    entries: &'s DeTable<'t>,
    /// As it is written in the file: empty for the root.
    name: String,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'s, 't> Table<'s, 't> {
    pub(crate) fn new(source: &'s Source<'t>, entries: &'s DeTable<'t>, name: impl Into<String>) -> Self {
        Self { source, entries, name: name.into(), known: RefCell::default() }
    }

    /// The key as it is written from the root: `limits.memory`.
    pub(crate) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    pub(crate) fn value(&self, key: &'static str) -> Option<&'s Spanned<DeValue<'t>>> {
        self.known.borrow_mut().insert(key);
        self.entries.get(key)
    }

    /// Where the value of `key` stands; the start of the file if it is absent.
    pub(crate) fn span(&self, key: &str) -> Range<usize> {
        self.entries.get(key).map_or(0..0, Spanned::span)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = value.get_ref().type_str();
        self.source.error(
            value.span(),
            format!("`{}` is of type {found}", self.path(key)),
            format!("expected {expected}"),
        );
    }

    pub(crate) fn string(&self, key: &'static str) -> Option<&'s str> {
        let value = self.value(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(key, value, "a string");
        }
        text
    }

    /// A string that stands for something: `parse` returns it, or what is allowed.
    pub(crate) fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.string(key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(allowed) => {
                self.source.error(
                    self.span(key),
                    format!("`{}` is {text:?}", self.path(key)),
                    format!("allowed: {allowed}"),
                );
                None
            }
        }
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        self.parsed(key, |text| {
            let chosen = choices.iter().find(|(word, _)| *word == text);
            chosen.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
                words.join(", ")
            })
        })
    }

    pub(crate) fn integer<T>(&self, key: &'static str, allowed: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let value = self.value(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "a whole number");
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fitting =
            number.and_then(|number| T::try_from(number).ok()).filter(|number| allowed.contains(number));
        if fitting.is_none() {
            self.source.error(
                value.span(),
                format!("`{}` is {}", self.path(key), integer.as_str()),
                format!("allowed: {} to {}", allowed.start(), allowed.end()),
            );
        }
        fitting
    }

    pub(crate) fn strings(&self, key: &'static str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of strings");
            return None;
        };
        let mut strings = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => strings.push(text.to_owned()),
                None => self.wrong_type(key, item, "a list of strings"),
            }
        }
        Some(strings)
    }

    /// The items of a list that must have exactly `count` of them.
    pub(crate) fn exactly(&self, key: &'static str, count: usize) -> Option<Vec<&'s Spanned<DeValue<'t>>>> {
        let value = self.value(key)?;
        match value.get_ref().as_array() {
            Some(array) if array.iter().count() == count => Some(array.iter().collect()),
            _ => {
                self.wrong_type(key, value, &format!("a list of exactly {count}"));
                None
            }
        }
    }

    pub(crate) fn table(&self, key: &'static str) -> Option<Table<'s, 't>> {
        let value = self.value(key)?;
        let Some(entries) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table");
            return None;
        };
        Some(Table::new(self.source, entries, self.path(key)))
    }

    /// Each entry of a table whose keys are the author's: `read` checks one.
    pub(crate) fn entries<T>(
        &self,
        key: &'static str,
        mut read: impl FnMut(
            &'s Source<'t>,
            &'s Spanned<toml::de::DeString<'t>>,
            &'s Spanned<DeValue<'t>>,
        ) -> Option<T>,
    ) -> Vec<(String, T)> {
        let Some(table) = self.table(key) else { return Vec::new() };
        let read_entry = |(name, value): (&'s Spanned<toml::de::DeString<'t>>, &'s Spanned<DeValue<'t>>)| {
            Some((name.get_ref().to_string(), read(self.source, name, value)?))
        };
        table.entries.iter().filter_map(read_entry).collect()
    }

    /// Notes that `key` is understood and not acted on, if it is there.
    pub(crate) fn not_enforced(&self, key: &'static str) {
        if let Some(value) = self.value(key) {
            self.source.not_enforced(value.span(), &self.path(key));
        }
    }

    /// Reports every key that nobody asked for.
    pub(crate) fn finish(self) {
        let known = self.known.borrow();
        for key in self.entries.keys().filter(|key| !known.contains(key.get_ref().as_ref())) {
            let hint = match closest(key.get_ref(), known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => {
                    let keys: Vec<&str> = known.iter().copied().collect();
                    format!("known keys: {}", keys.join(", "))
                }
            };
            self.source.error(key.span(), format!("unknown key `{}`", self.path(key.get_ref())), hint);
        }
    }
}
