//! Every setting there is: its key, its variable, its flag, what it takes and how it is read and shown.
//!
//! The one table of settings. Files, variables, flags, `--help` and `config show` all read it; this file must
//! not know where a value comes from.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use extension_host::manifest::parse_duration;
use serde_json::{Value, json};

use super::{Settings, TIMEOUT_MAX};

/// One setting.
pub(crate) struct Key {
    /// Its key in a file.
    pub(crate) name: &'static str,
    /// Its variable in the environment.
    pub(crate) variable: &'static str,
    /// What it takes, for people who wrote something else.
    pub(crate) takes: &'static str,
    /// What it is for, in a clause.
    pub(crate) about: &'static str,
    /// Reads values, relative folders from the given one; `None`: it does not take them.
    pub(super) set: fn(&mut Settings, &[OsString], &Path) -> Option<()>,
    /// The value in force, as it could be written into a file.
    pub(crate) get: fn(&Settings) -> Value,
}

/// LIMIT: the greatest number that a setting takes.
const NUMBER_MAX: u32 = 4096;

/// Words of a filter that stand alone.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Every setting, in the order in which they are shown.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "data-dir",
        variable: "SYMPHONY_DATA_DIR",
        takes: "a folder, for example \"/var/lib/symphony\"",
        about: "where artifacts and records are kept",
        set: |settings, values, base| {
            settings.data_dir = base.join(one(values)?);
            Some(())
        },
        get: |settings| json!(settings.data_dir.to_string_lossy()),
    },
    Key {
        name: "extension-dirs",
        variable: "SYMPHONY_EXTENSION_DIRS",
        takes: "folders, for example [\"extensions\"]",
        about: "folders of extensions; every layer adds its own",
        set: |settings, values, base| {
            let folders = values.iter().map(|value| base.join(value));
            settings.extension_dirs.splice(0..0, folders);
            Some(())
        },
        get: |settings| {
            json!(settings.extension_dirs.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>())
        },
    },
    Key {
        name: "log",
        variable: "SYMPHONY_LOG",
        takes: "a level (error, warn, info, debug, trace) or a filter such as \"info,extension=debug\"",
        about: "what is logged to stderr",
        set: |settings, values, _| {
            let filter = text(values)?;
            filter.parse::<tracing_subscriber::EnvFilter>().ok()?;
            // A misspelt level would be the name of a target that nobody has.
            let is_meant = |word: &str| word.contains(['=', ':', '[']) || LEVELS.contains(&word);
            filter.split(',').all(is_meant).then(|| settings.log = filter.to_owned())
        },
        get: |settings| json!(settings.log),
    },
    Key {
        name: "step-timeout",
        variable: "SYMPHONY_STEP_TIMEOUT",
        takes: "a time such as \"30s\", \"1500ms\" or \"5m\", at most 7 days",
        about: "time of a call where nothing else is said",
        set: |settings, values, _| {
            settings.step_timeout = parse_timeout(text(values)?)?;
            Some(())
        },
        get: |settings| json!(written(settings.step_timeout)),
    },
    Key {
        name: "stop-timeout",
        variable: "SYMPHONY_STOP_TIMEOUT",
        takes: "a time such as \"5s\", at most 7 days",
        about: "time for ending before a kill",
        set: |settings, values, _| {
            settings.stop_timeout = parse_timeout(text(values)?)?;
            Some(())
        },
        get: |settings| json!(written(settings.stop_timeout)),
    },
    Key {
        name: "items-in-flight-max",
        variable: "SYMPHONY_ITEMS_IN_FLIGHT_MAX",
        takes: "a number from 1 to 4096",
        about: "items of a fan-out at the same time",
        set: |settings, values, _| {
            settings.items_in_flight_max = number(values)?;
            Some(())
        },
        get: |settings| json!(settings.items_in_flight_max),
    },
    Key {
        name: "cores",
        variable: "SYMPHONY_CORES",
        takes: "a number from 1 to 4096",
        about: "what claims on cpu share",
        set: |settings, values, _| {
            settings.cores = number(values)?;
            Some(())
        },
        get: |settings| json!(settings.cores),
    },
    Key {
        name: "build-profile",
        variable: "SYMPHONY_BUILD_PROFILE",
        takes: "the name of a cargo profile, for example \"release\" or \"dev\"",
        about: "cargo profile of extensions",
        set: |settings, values, _| {
            let profile = text(values)?;
            let plain = profile.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            (plain && !profile.is_empty()).then(|| settings.build_profile = profile.to_owned())
        },
        get: |settings| json!(settings.build_profile),
    },
    Key {
        name: "in-process",
        variable: "SYMPHONY_IN_PROCESS",
        takes: "names of extensions, for example [\"echo\"]",
        about: "extensions that run in the conductor itself",
        set: |settings, values, _| {
            let names: Option<Vec<String>> =
                values.iter().map(|name| name.to_str().map(str::to_owned)).collect();
            let names = names?;
            let is_name = |name: &String| {
                let plain = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
                plain && (1..=64).contains(&name.len())
            };
            names.iter().all(is_name).then(|| settings.in_process = names)
        },
        get: |settings| json!(settings.in_process),
    },
    Key {
        name: "control-groups",
        variable: "SYMPHONY_CONTROL_GROUPS",
        takes: "\"auto\" or \"off\"",
        about: "whether limits are held by control groups",
        set: |settings, values, _| {
            settings.uses_control_groups = match text(values)? {
                "auto" => true,
                "off" => false,
                _ => return None,
            };
            Some(())
        },
        get: |settings| json!(if settings.uses_control_groups { "auto" } else { "off" }),
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

fn number(values: &[OsString]) -> Option<u32> {
    text(values)?.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number))
}

/// A time that may be waited for, as the configuration and the command line write it.
#[must_use]
pub fn parse_timeout(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|time| (Duration::from_millis(1)..=TIMEOUT_MAX).contains(time))
}

/// A time as [`parse_timeout`] reads it.
fn written(time: Duration) -> String {
    match (time.as_millis(), time.subsec_millis()) {
        (_, 0) => format!("{}s", time.as_secs()),
        (milliseconds, _) => format!("{milliseconds}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_bounds_and_are_written_as_they_are_read() {
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
            let found = parse_timeout(text);
            assert_eq!(found, expected, "{text}");
            assert_eq!(found.and_then(|time| parse_timeout(&written(time))), expected, "{text}");
        }
    }
}
