//! What an instance may use of the machine, all its processes together: by control groups where the system gives them,
//! else by looking from time to time.
//!
//! ```text
//! Backend (one for each host: what the machine gives)
//!    \-- prepare --> Limited (one for each instance): its group, made before the launcher starts
//!                       \-- exceeded --> Exceeded: what to do, and why   (watch: the decision)
//!                       \-- dropped: whoever is left is killed, the group is gone
//! ```
//!
//! | | memory | cpu | processes |
//! |---|---|---|---|
//! | control groups | the kernel kills | the kernel slows down | the kernel refuses |
//! | sampling | ended when seen above it | told when seen above it | ended when seen above it |
//!
//! Reading order: [`groups`] (the kernel's), [`sample`] (what is used), [`watch`] (what follows). This module must not
//! know the bus, or who is limited.

mod groups;
mod sample;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::manifest::{Limits, Reaction};
use groups::{Group, Groups};
use sample::Sample;
use watch::{Seen, Watch};

pub(crate) use watch::Exceeded;
pub use watch::Limit;

/// How often an instance is looked at whose limits the kernel holds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often one is looked at whose limits nobody else holds.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Who holds limits on this machine.
#[derive(Debug)]
pub(crate) enum Backend {
    Groups(Groups),
    /// Nobody but this host, and why.
    Sampling(String),
}

/// Who holds the limits of one extension: for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// It has none.
    Nobody,
    /// The kernel, with control groups of this version.
    Groups(u8),
    /// The host, which looks from time to time.
    Sampling,
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("none"),
            Self::Groups(version) => write!(f, "control groups, version {version}"),
            Self::Sampling => f.write_str("sampling"),
        }
    }
}

/// What an instance uses, all its processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory that are its own: no files, no shared libraries.
    pub memory_bytes: u64,
    /// The most that it used so far, where the kernel tells.
    pub memory_bytes_max: Option<u64>,
    /// Processes and threads.
    pub tasks: u32,
    /// Processor time.
    pub processor: Duration,
    /// Bytes that it had read from and written to disks.
    pub io_bytes: u64,
}

impl Backend {
    /// What this machine gives, and is wanted. Sweeps up what hosts left that are gone.
    pub(crate) fn probe(uses_groups: bool) -> Self {
        let groups =
            if uses_groups { Groups::probe() } else { Err("control groups are turned off".to_owned()) };
        match groups {
            Ok(groups) => Self::Groups(groups),
            Err(why) => Self::Sampling(why),
        }
    }

    pub(crate) fn held_by(&self, limits: &Limits) -> HeldBy {
        match self {
            _ if !has_any(limits) => HeldBy::Nobody,
            Self::Groups(groups) => HeldBy::Groups(groups.version()),
            Self::Sampling(_) => HeldBy::Sampling,
        }
    }

    /// What is to be said of limits that the kernel does not hold.
    pub(crate) fn warning(&self) -> Option<String> {
        let Self::Sampling(why) = self else { return None };
        let every_ms = SAMPLE_EVERY.as_millis();
        Some(format!(
            "its limits are held by looking every {every_ms} ms, so that what is short passes: {why}"
        ))
    }

    /// The limits of a new instance, of which `name` is a name that nobody else has.
    ///
    /// # Errors
    ///
    /// Why its group cannot be made, for people.
    pub(crate) fn prepare(&self, name: &str, limits: &Limits) -> Result<Limited, String> {
        let group = match self {
            Self::Groups(groups) => Some(groups.make(name, limits)?),
            Self::Sampling(_) => None,
        };
        Ok(Limited { group, limits: limits.clone() })
    }
}

/// Whether anything is limited that somebody must hold.
pub(crate) fn has_any(limits: &Limits) -> bool {
    limits.memory_bytes_max.is_some() || limits.cpu_percent_max.is_some() || limits.processes_max.is_some()
}

/// One instance under its limits. Dropping it kills whoever is left, and removes the group: that may take a while where
/// a process dies slowly.
#[derive(Debug)]
pub(crate) struct Limited {
    group: Option<Group>,
    limits: Limits,
}

impl Limited {
    /// What the launcher writes itself into, so that all that it starts is in it.
    pub(crate) fn joins(&self) -> Vec<PathBuf> {
        self.group.as_ref().map(Group::joins).unwrap_or_default()
    }

    /// What is used below `launcher`.
    pub(crate) fn usage(&self, launcher: u32) -> Usage {
        let Sample { memory_bytes, tasks, processor, io_bytes } = sample::sample(launcher);
        let of_group = self.group.as_ref().and_then(Group::memory);
        let (memory_bytes, memory_bytes_max) =
            of_group.map_or((memory_bytes, None), |(now, most)| (now, Some(most)));
        Usage { memory_bytes, memory_bytes_max, tasks, processor, io_bytes }
    }

    /// Waits until a limit is passed so that the instance must end. `warn` is told of those that are only to be told of.
    pub(crate) async fn exceeded(&self, launcher: u32, mut warn: impl FnMut(&str)) -> Exceeded {
        if !has_any(&self.limits) {
            return std::future::pending().await;
        }
        let mut watch = Watch::new(&self.limits, self.group.is_some());
        loop {
            tokio::time::sleep(if self.group.is_some() { LOOK_EVERY } else { SAMPLE_EVERY }).await;
            match watch.look(Instant::now(), self.see(launcher)) {
                None => {}
                Some(Exceeded { reaction: Reaction::Warn, what, .. }) => warn(&what),
                Some(exceeded) => return exceeded,
            }
        }
    }

    fn see(&self, launcher: u32) -> Seen {
        match &self.group {
            Some(group) => Seen::Groups(group.events()),
            None => Seen::Sampled(sample::sample(launcher)),
        }
    }

    /// The limit because of which the kernel has ended the instance, if it has.
    pub(crate) fn killed_by(&self) -> Option<Exceeded> {
        let kills = self.group.as_ref()?.events().memory_kills;
        (kills > 0).then(|| watch::over_memory(&self.limits))
    }

    /// Of one that has no limits.
    pub(crate) fn unlimited() -> Self {
        Self { group: None, limits: Limits::default() }
    }
}
