//! One layer of the configuration: what one file, the environment or the flags say, each value with its place.
//!
//! A layer says only what its source says. What it says was checked when the layer was made, so that layers
//! can be put on top of each other without a further error. This file must not know which layer is stronger.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use extension_host::diagnostic::{Diagnostic, Diagnostics, closest};
use toml::de::{DeTable, DeValue};

use super::Settings;
use super::keys::{KEYS, Key};
use crate::printable::cut;

/// LIMIT: columns of a wrong value that are shown.
const GIVEN_COLUMNS_MAX: usize = 64;

/// Where a value was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    #[default]
    Default,
    /// In a file.
    File {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u32,
    },
    /// In a variable of the environment.
    Variable(&'static str),
    /// On the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A variable or a flag has a value that its setting does not take.
#[derive(Debug, thiserror::Error)]
#[error("{origin} has a wrong value, {given}: it takes {takes}")]
pub struct ValueError {
    /// Which one.
    pub origin: Origin,
    /// What it has, quoted; the beginning of what is long.
    pub given: String,
    /// What it takes.
    pub takes: &'static str,
}

/// What one source says.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    pub(super) said: Vec<Said>,
}

/// One value of a layer.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// Its place in [`KEYS`].
    pub(super) key: usize,
    pub(super) values: Vec<OsString>,
    /// What relative folders start from.
    pub(super) base: PathBuf,
    pub(super) origin: Origin,
}

impl Said {
    /// `None`: the key does not take these values.
    fn new(key: usize, values: Vec<OsString>, base: &Path, origin: Origin) -> Option<Self> {
        (KEYS[key].set)(&mut Settings::default(), &values, base)?;
        Some(Self { key, values, base: base.to_path_buf(), origin })
    }
}

impl Layer {
    /// The layer of a configuration file with this text. Folders in it are relative to the file.
    ///
    /// # Errors
    ///
    /// Diagnostics for everything that is wrong in it: syntax, unknown keys, values.
    pub fn from_file(file: &Path, source: &str) -> Result<Self, Diagnostics> {
        let base = file.parent().unwrap_or(Path::new(""));
        let mut found = Diagnostics::default();
        let mut layer = Self::default();
        let (table, errors) = DeTable::parse_recoverable(source);
        // One slip makes the parser stumble several times; the first one of each line says enough.
        let mut line_before = None;
        for error in errors {
            let wrong = Diagnostic::error(file, source, error.span().unwrap_or(0..0), error.message());
            if line_before.replace(wrong.line) != Some(wrong.line) {
                found.push(wrong);
            }
        }
        // What the parser made up after a slip would only give mistakes that nobody made.
        if found.has_errors() {
            found.sort();
            return Err(found);
        }
        for (name, value) in table.get_ref() {
            let written: &str = name.get_ref();
            let Some(key) = KEYS.iter().position(|key| key.name == written) else {
                found.push(
                    Diagnostic::error(file, source, name.span(), format!("unknown key `{written}`"))
                        .with_hint(known_key(written)),
                );
                continue;
            };
            let line = source.bytes().take(name.span().start).filter(|byte| *byte == b'\n').count() + 1;
            let origin =
                Origin::File { file: file.to_path_buf(), line: u32::try_from(line).unwrap_or(u32::MAX) };
            match values_of(value.get_ref()).and_then(|values| Said::new(key, values, base, origin)) {
                Some(said) => layer.said.push(said),
                None => {
                    let wrong = format!("`{written}` cannot have this value");
                    let hint = format!("it takes {}", KEYS[key].takes);
                    found.push(Diagnostic::error(file, source, value.span(), wrong).with_hint(hint));
                }
            }
        }
        found.sort();
        if found.has_errors() { Err(found) } else { Ok(layer) }
    }

    /// The layer of the environment, read through `get`. An empty variable says nothing.
    ///
    /// # Errors
    ///
    /// [`ValueError`]: mend the variable that it names.
    pub fn from_environment(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, ValueError> {
        let mut layer = Self::default();
        for key in KEYS {
            let Some(value) = get(key.variable).filter(|value| !value.is_empty()) else { continue };
            let values: Vec<OsString> = match key.name {
                "extension-dirs" => std::env::split_paths(&value).map(PathBuf::into_os_string).collect(),
                // What is no text is no name either, and is refused as it is.
                "in-process" => match value.to_str() {
                    Some(names) => names.split(',').map(|name| name.trim().into()).collect(),
                    None => vec![value],
                },
                _ => vec![value],
            };
            layer = layer.with(key.name, Origin::Variable(key.variable), values)?;
        }
        Ok(layer)
    }

    /// The same layer, in which `origin` says that the setting `name` has these values; none say nothing.
    ///
    /// # Errors
    ///
    /// [`ValueError`]: the setting does not take them.
    pub fn with(mut self, name: &str, origin: Origin, values: Vec<OsString>) -> Result<Self, ValueError> {
        let Some(key) = KEYS.iter().position(|key| key.name == name).filter(|_| !values.is_empty()) else {
            return Ok(self);
        };
        let takes = KEYS[key].takes;
        let given = given(&values);
        match Said::new(key, values, Path::new(""), origin.clone()) {
            Some(said) => self.said.push(said),
            None => return Err(ValueError { origin, given, takes }),
        }
        Ok(self)
    }
}

/// Values as they are told to whoever gave them.
fn given(values: &[OsString]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{:?}", value.to_string_lossy())).collect();
    cut(&values.join(" "), GIVEN_COLUMNS_MAX).into_owned()
}

fn known_key(written: &str) -> String {
    let names: Vec<&str> = KEYS.iter().map(|Key { name, .. }| *name).collect();
    match closest(written, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known keys are {}", names.join(", ")),
    }
}

/// The values of a TOML value as text: a scalar is one, an array of scalars several.
fn values_of(value: &DeValue<'_>) -> Option<Vec<OsString>> {
    let scalar = |value: &DeValue<'_>| -> Option<OsString> {
        match value {
            DeValue::String(text) => Some(OsString::from(text.as_ref())),
            DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().into()),
            _ => None,
        }
    };
    match value {
        DeValue::Array(array) => array.iter().map(|value| scalar(value.get_ref())).collect(),
        value => scalar(value).map(|value| vec![value]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_of_a_file_is_found_with_its_place() {
        let text = "data_dir = \"x\"\ncores = 0\nstep-timeout = \"30\"\nlog = [\"a\", \"b\"]\n";
        let found = Layer::from_file(Path::new("conductor.toml"), text).unwrap_err();
        let places: Vec<_> = found.items().iter().map(|item| (item.line, item.column)).collect();
        assert_eq!(places, [(1, 1), (2, 9), (3, 16), (4, 7)]);
        assert!(found.to_string().contains("did you mean `data-dir`?"), "{found}");
        let found = Layer::from_file(Path::new("conductor.toml"), "cores = \n").unwrap_err();
        assert_eq!(found.items().len(), 1, "{found}");
    }

    #[test]
    fn a_wrong_variable_and_a_wrong_flag_are_named() {
        let error = Layer::from_environment(|name| (name == "SYMPHONY_CORES").then(|| "many".into()));
        assert!(error.unwrap_err().to_string().starts_with("$SYMPHONY_CORES has a wrong value, \"many\":"));
        let error = Layer::default().with("log", Origin::Flag("--log"), vec!["==".into()]);
        assert!(error.unwrap_err().to_string().starts_with("--log has a wrong value"));
        for (filter, is_taken) in
            [("loud", false), ("warn,loud", false), ("warn,extension=debug", true), ("a::b=info,off", true)]
        {
            let layer = Layer::default().with("log", Origin::Flag("--log"), vec![filter.into()]);
            assert_eq!(layer.is_ok(), is_taken, "{filter}");
        }
    }
}
