//! Settings: defaults < `conductor.toml` < environment (`SYMPHONY_*`) < flags.
//!
//! ```text
//! Layer (flags) > Layer (environment) > Layer (file) > defaults   =>   Settings
//! ```
//!
//! A layer says only what its source says; [`Settings::from_layers`] is the one place where they meet.
//! The file is optional: `--config FILE`, `$SYMPHONY_CONFIG`, or the nearest `conductor.toml` from the
//! current folder upward. Folders in it are relative to the file. This module must not know what the
//! settings are used for.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use extension_host::diagnostic::{Diagnostic, Diagnostics, closest};
use extension_host::manifest::parse_duration;
use toml::de::{DeTable, DeValue};

/// File name that is looked for from the current folder upward.
pub const FILE_NAME: &str = "conductor.toml";

/// A step without `timeout` may take as long.
pub const STEP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Items of one fan-out that are in flight at the same time at most; claims bound them further.
pub const ITEMS_IN_FLIGHT_MAX_DEFAULT: u32 = 64;
/// Time that extensions have for ending before they are killed.
pub const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// LIMIT: the longest time that a setting may name.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// LIMIT: bytes of `conductor.toml`.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// One setting: its key in the file, its variable, and what it takes.
struct Key {
    name: &'static str,
    variable: &'static str,
    takes: &'static str,
    set: fn(&mut Layer, &[OsString], &Path) -> Option<()>,
}

/// Every setting. [`Settings`] documents them.
const KEYS: &[Key] = &[
    Key {
        name: "data-dir",
        variable: "SYMPHONY_DATA_DIR",
        takes: "a folder, for example \"/var/lib/symphony\"",
        set: |layer, values, base| {
            layer.data_dir = Some(base.join(one(values)?));
            Some(())
        },
    },
    Key {
        name: "extension-dirs",
        variable: "SYMPHONY_EXTENSION_DIRS",
        takes: "folders, for example [\"extensions\"]",
        set: |layer, values, base| {
            layer.extension_dirs = values.iter().map(|value| base.join(value)).collect();
            Some(())
        },
    },
    Key {
        name: "log",
        variable: "SYMPHONY_LOG",
        takes: "a level (error, warn, info, debug, trace) or a filter such as \"info,extension=debug\"",
        set: |layer, values, _| {
            let filter = text(values)?;
            filter.parse::<tracing_subscriber::EnvFilter>().ok()?;
            layer.log = Some(filter.to_owned());
            Some(())
        },
    },
    Key {
        name: "step-timeout",
        variable: "SYMPHONY_STEP_TIMEOUT",
        takes: "a time such as \"30s\", \"1500ms\" or \"5m\", at most 7 days",
        set: |layer, values, _| {
            layer.step_timeout = Some(parse_timeout(text(values)?)?);
            Some(())
        },
    },
    Key {
        name: "stop-timeout",
        variable: "SYMPHONY_STOP_TIMEOUT",
        takes: "a time such as \"5s\", at most 7 days",
        set: |layer, values, _| {
            layer.stop_timeout = Some(parse_timeout(text(values)?)?);
            Some(())
        },
    },
    Key {
        name: "items-in-flight-max",
        variable: "SYMPHONY_ITEMS_IN_FLIGHT_MAX",
        takes: "a number from 1 to 4096",
        set: |layer, values, _| {
            layer.items_in_flight_max = Some(bounded(text(values)?, 1, 4096)?);
            Some(())
        },
    },
    Key {
        name: "cores",
        variable: "SYMPHONY_CORES",
        takes: "a number from 1 to 4096",
        set: |layer, values, _| {
            layer.cores = Some(bounded(text(values)?, 1, 4096)?);
            Some(())
        },
    },
    Key {
        name: "build-profile",
        variable: "SYMPHONY_BUILD_PROFILE",
        takes: "the name of a cargo profile, for example \"release\" or \"dev\"",
        set: |layer, values, _| {
            let profile = text(values)?;
            let plain = profile.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            (plain && !profile.is_empty()).then(|| layer.build_profile = Some(profile.to_owned()))
        },
    },
];

fn one(values: &[OsString]) -> Option<&OsStr> {
    match values {
        [value] if !value.is_empty() => Some(value),
        _ => None,
    }
}

fn text(values: &[OsString]) -> Option<&str> {
    one(values)?.to_str()
}

fn bounded(text: &str, min: u32, max: u32) -> Option<u32> {
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

/// A time that may be waited for, as the configuration and the command line write it.
#[must_use]
pub fn parse_timeout(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|time| (Duration::from_millis(1)..=TIMEOUT_MAX).contains(time))
}

/// What one source says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// See [`Settings::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// See [`Settings::extension_dirs`].
    pub extension_dirs: Vec<PathBuf>,
    /// See [`Settings::log`].
    pub log: Option<String>,
    /// See [`Settings::step_timeout`].
    pub step_timeout: Option<Duration>,
    /// See [`Settings::stop_timeout`].
    pub stop_timeout: Option<Duration>,
    /// See [`Settings::items_in_flight_max`].
    pub items_in_flight_max: Option<u32>,
    /// See [`Settings::cores`].
    pub cores: Option<u32>,
    /// See [`Settings::build_profile`].
    pub build_profile: Option<String>,
}

impl Layer {
    /// The layer of a configuration file with this text.
    ///
    /// # Errors
    ///
    /// Diagnostics for everything that is wrong in it: syntax, unknown keys, values.
    pub fn from_file(file: &Path, source: &str) -> Result<Self, Diagnostics> {
        let base = file.parent().unwrap_or(Path::new(""));
        let mut found = Diagnostics::default();
        let mut layer = Self::default();
        let (table, errors) = DeTable::parse_recoverable(source);
        for error in errors {
            found.push(Diagnostic::error(file, source, error.span().unwrap_or(0..0), error.message()));
        }
        for (name, value) in table.get_ref() {
            let written: &str = name.get_ref();
            let Some(key) = KEYS.iter().find(|key| key.name == written) else {
                let unknown = format!("unknown key `{written}`");
                let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                let hint = match closest(written, names.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("known keys are {}", names.join(", ")),
                };
                found.push(Diagnostic::error(file, source, name.span(), unknown).with_hint(hint));
                continue;
            };
            if values_of(value.get_ref()).and_then(|values| (key.set)(&mut layer, &values, base)).is_none() {
                let wrong = format!("`{written}` cannot have this value");
                let hint = format!("it takes {}", key.takes);
                found.push(Diagnostic::error(file, source, value.span(), wrong).with_hint(hint));
            }
        }
        found.sort();
        if found.has_errors() { Err(found) } else { Ok(layer) }
    }

    /// The layer of the environment, read through `get`.
    ///
    /// # Errors
    ///
    /// [`EnvironmentError`]: a variable has a value that its setting does not take.
    pub fn from_environment(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, EnvironmentError> {
        let mut layer = Self::default();
        for key in KEYS {
            let Some(value) = get(key.variable).filter(|value| !value.is_empty()) else { continue };
            let values: Vec<OsString> = if key.name == "extension-dirs" {
                std::env::split_paths(&value).map(PathBuf::into_os_string).collect()
            } else {
                vec![value]
            };
            (key.set)(&mut layer, &values, Path::new(""))
                .ok_or(EnvironmentError { variable: key.variable, takes: key.takes })?;
        }
        Ok(layer)
    }
}

/// A variable of the environment has a value that its setting does not take.
#[derive(Debug, thiserror::Error)]
#[error("the variable {variable} has a wrong value: it takes {takes}")]
pub struct EnvironmentError {
    /// The variable.
    pub variable: &'static str,
    /// What it takes.
    pub takes: &'static str,
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

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where artifacts and caches are kept: `$XDG_DATA_HOME/symphony` or `~/.local/share/symphony`.
    pub data_dir: PathBuf,
    /// Folders whose subfolders are extensions, the first one found wins. The folders `extensions`
    /// beside the melody's and the current folder's ancestors follow them.
    pub extension_dirs: Vec<PathBuf>,
    /// What is logged to stderr.
    pub log: String,
    /// Time of a step that names none.
    pub step_timeout: Duration,
    /// Time that extensions have for ending.
    pub stop_timeout: Duration,
    /// Items of one fan-out in flight at most.
    pub items_in_flight_max: u32,
    /// What claims on `cpu` share.
    pub cores: u32,
    /// Cargo profile that extensions are built with.
    pub build_profile: String,
}

/// What is logged when nothing is said.
pub const LOG_DEFAULT: &str = "warn";

/// Nothing says where data may be kept.
#[derive(Debug, thiserror::Error)]
#[error("no data folder: neither --data, SYMPHONY_DATA_DIR, XDG_DATA_HOME nor HOME is set")]
pub struct NoDataFolder;

impl Settings {
    /// The settings that `layers` give, the strongest first.
    ///
    /// # Errors
    ///
    /// [`NoDataFolder`]: no layer names one, and the environment has no home.
    pub fn from_layers(
        layers: &[Layer],
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, NoDataFolder> {
        fn first<T: Clone>(layers: &[Layer], pick: impl Fn(&Layer) -> &Option<T>) -> Option<T> {
            layers.iter().find_map(|layer| pick(layer).clone())
        }
        let data_dir = match first(layers, |layer| &layer.data_dir) {
            Some(folder) => folder,
            None => data_dir_default(get).ok_or(NoDataFolder)?,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            data_dir,
            extension_dirs: layers.iter().flat_map(|layer| layer.extension_dirs.clone()).collect(),
            log: first(layers, |layer| &layer.log).unwrap_or_else(|| LOG_DEFAULT.to_owned()),
            step_timeout: first(layers, |layer| &layer.step_timeout).unwrap_or(STEP_TIMEOUT_DEFAULT),
            stop_timeout: first(layers, |layer| &layer.stop_timeout).unwrap_or(STOP_TIMEOUT_DEFAULT),
            items_in_flight_max: first(layers, |layer| &layer.items_in_flight_max)
                .unwrap_or(ITEMS_IN_FLIGHT_MAX_DEFAULT),
            cores: first(layers, |layer| &layer.cores).unwrap_or(u32::try_from(cores).unwrap_or(u32::MAX)),
            build_profile: first(layers, |layer| &layer.build_profile)
                .unwrap_or_else(|| "release".to_owned()),
        })
    }
}

/// As the XDG base directory specification says: a relative path there is ignored.
fn data_dir_default(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| get(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let share = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(share.join("symphony"))
}

/// The nearest `conductor.toml` from `folder` upward.
#[must_use]
pub fn find_file(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().map(|folder| folder.join(FILE_NAME)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_layer_wins_and_folders_add_up() {
        let file = Layer::from_file(
            Path::new("/etc/conductor.toml"),
            "data-dir = \"data\"\nextension-dirs = [\"one\", \"/two\"]\nstep-timeout = \"2m\"\ncores = 3\n",
        )
        .unwrap();
        let environment = Layer::from_environment(|name| match name {
            "SYMPHONY_STEP_TIMEOUT" => Some("250ms".into()),
            "SYMPHONY_EXTENSION_DIRS" => Some("/three:/four".into()),
            "SYMPHONY_LOG" => Some("".into()),
            _ => None,
        })
        .unwrap();
        let flags = Layer { extension_dirs: vec!["five".into()], ..Layer::default() };
        let settings = Settings::from_layers(&[flags, environment, file], |_| None).unwrap();
        assert_eq!(settings.data_dir, Path::new("/etc/data"));
        assert_eq!(settings.step_timeout, Duration::from_millis(250));
        assert_eq!((settings.cores, settings.log.as_str()), (3, LOG_DEFAULT));
        let folders = ["five", "/three", "/four", "/etc/one", "/two"].map(PathBuf::from);
        assert_eq!(settings.extension_dirs, folders);
    }

    #[test]
    fn every_mistake_of_a_file_is_found_with_its_place() {
        let text = "data_dir = \"x\"\ncores = 0\nstep-timeout = \"30\"\nlog = [\"a\", \"b\"]\n";
        let found = Layer::from_file(Path::new("conductor.toml"), text).unwrap_err();
        let places: Vec<_> = found.items().iter().map(|item| (item.line, item.column)).collect();
        assert_eq!(places, [(1, 1), (2, 9), (3, 16), (4, 7)]);
        assert!(found.to_string().contains("did you mean `data-dir`?"), "{found}");
        assert!(Layer::from_file(Path::new("conductor.toml"), "cores = \n").is_err());
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let error = Layer::from_environment(|name| (name == "SYMPHONY_CORES").then(|| "many".into()));
        assert_eq!(error.unwrap_err().variable, "SYMPHONY_CORES");
    }

    #[test]
    fn data_folder_follows_the_base_directories() {
        let from = |pairs: &'static [(&str, &str)]| {
            let get =
                |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| OsString::from(pair.1));
            Settings::from_layers(&[], get).map(|settings| settings.data_dir)
        };
        assert_eq!(from(&[("XDG_DATA_HOME", "/d"), ("HOME", "/h")]).unwrap(), Path::new("/d/symphony"));
        assert_eq!(
            from(&[("XDG_DATA_HOME", "d"), ("HOME", "/h")]).unwrap(),
            Path::new("/h/.local/share/symphony")
        );
        assert!(from(&[("HOME", "")]).is_err());
    }

    #[test]
    fn times_have_a_unit_and_bounds() {
        for (text, expected) in [
            ("30s", Some(Duration::from_secs(30))),
            ("5m", Some(Duration::from_secs(300))),
            ("7h", Some(Duration::from_secs(25_200))),
            ("1500ms", Some(Duration::from_millis(1500))),
            ("0s", None),
            ("30", None),
            ("-1s", None),
            ("999999999h", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
    }
}
