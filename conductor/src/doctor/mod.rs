//! What this machine can do, what is missing, and what follows from it: tried, where trying costs nothing.
//!
//! Each check gives one [`Check`]. A check must change nothing: what it makes has no name, and is gone with it.
//! This module must not know how its findings are shown.

mod control_groups;
mod data_folder;
mod kernel;
mod limits;
mod mounts;
mod programs;

use serde::Serialize;

use crate::config::Settings;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// All of it can be used.
    Works,
    /// A part of it can be used.
    Limited,
    /// It cannot be used.
    Missing,
}

impl State {
    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Limited => "limited",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it went.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What follows from it; empty if nothing does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub follows: String,
    /// Whether melodies cannot be run without it.
    pub needed: bool,
}

impl Check {
    fn works(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Works, found: found.into(), follows: String::new(), needed: false }
    }

    fn limited(name: &'static str, found: impl Into<String>, follows: impl Into<String>) -> Self {
        Self { state: State::Limited, follows: follows.into(), ..Self::works(name, found) }
    }

    fn missing(name: &'static str, found: impl Into<String>, follows: impl Into<String>) -> Self {
        Self { state: State::Missing, follows: follows.into(), ..Self::works(name, found) }
    }

    /// Whether something worked, and what follows if it did not.
    fn tried<E: std::fmt::Display>(name: &'static str, tried: Result<(), E>, follows: &str) -> Self {
        match tried {
            Ok(()) => Self::works(name, "tried"),
            Err(error) => Self::missing(name, error.to_string(), follows),
        }
    }

    fn needed(self) -> Self {
        Self { needed: true, ..self }
    }
}

/// Looks at everything, in the order in which it is shown. `settings`: those in force, or why there are none
/// and what to do about it.
pub async fn examine(settings: Result<&Settings, (&str, &str)>) -> Vec<Check> {
    let mut checks = kernel::checks();
    checks.extend(programs::launcher().await);
    match settings {
        Ok(settings) => checks.extend(data_folder::checks(&settings.data_dir)),
        // Which folder it would be is not known.
        Err((why, help)) => checks.push(Check::missing("configuration", why, help).needed()),
    }
    checks.extend(limits::checks());
    checks.extend(programs::checks().await);
    checks.extend(kernel::confinement());
    checks.push(programs::user_namespaces().await);
    checks.push(control_groups::check());
    checks.push(Check::limited(
        "sandbox",
        "this release applies none of the four above",
        "extensions run with your rights, except that they cannot gain new ones: start those that you trust",
    ));
    checks
}

/// Whether melodies can be run.
#[must_use]
pub fn is_fit(checks: &[Check]) -> bool {
    checks.iter().all(|check| !check.needed || check.state != State::Missing)
}
