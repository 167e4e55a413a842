//! `extension.toml`: what an extension is, how it is started, and what it may do.
//!
//! Read and checked as a whole before anything starts; every error names file, line, column and what is
//! allowed. This module must not know processes or the bus, and it never looks at the file system beyond the
//! one file.
//!
//! ```
//! use std::path::Path;
//! use extension_host::Manifest;
//!
//! let text = "name = \"echo\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"echo\"]\n";
//! let manifest = Manifest::parse(text, Path::new("extension.toml"))?;
//! assert_eq!(manifest.name, "echo");
//! # Ok::<(), extension_host::Diagnostics>(())
//! ```

mod reader;
mod tables;
#[cfg(test)]
mod tests;
mod together;
mod values;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc_transport::ring::Latency;

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::restart::RestartPolicy;

pub use together::check_together;
pub use values::{Requirement, Version, parse_duration};

/// LIMIT: bytes of a manifest.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// An extension, as its author describes it. Fields are named after the file's keys.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file it was read from.
    pub file: PathBuf,
    /// `name`: `[a-z0-9-]{1,64}`; also the name of the extension's package.
    pub name: String,
    /// `version`.
    pub version: Version,
    /// `tier`.
    pub tier: Tier,
    /// `transport`.
    pub transport: Transport,
    /// `latency`.
    pub latency: Latency,
    /// `[run]`.
    pub run: Run,
    /// `[build]`.
    pub build: Option<Build>,
    /// `[activation]`.
    pub activation: Activation,
    /// `[pool]`.
    pub pool: Pool,
    /// `[restart]`.
    pub restart: RestartPolicy,
    /// `[limits]`.
    pub limits: Limits,
    /// `[permissions]`.
    pub permissions: Permissions,
    /// `[models.NAME]`: scarce things that its steps lease.
    pub models: BTreeMap<String, Model>,
    /// `[config]` as MessagePack, for the extension alone; empty if there is none.
    pub config: Vec<u8>,
    /// What is worth knowing and no error: keys that are declared and not enforced by this version.
    pub notes: Diagnostics,
}

/// What calls of an extension in a process of its own go through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Shared memory, where both sides can; else the socket.
    #[default]
    SharedMemory,
    /// The socket alone.
    Socket,
}

/// Where an extension runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// In a process of its own. The default.
    Process,
    /// In the conductor's process.
    InProcess,
}

impl Tier {
    /// The tier as manifests write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::InProcess => "in-process",
        }
    }
}

impl Manifest {
    /// What the manifest asks for that a process of its own would have, and that nothing can give within the
    /// conductor's: keys, as they are written.
    #[must_use]
    pub fn unenforced_in_process(&self) -> Vec<&'static str> {
        let asked = [
            ("run.command (its arguments)", self.run.command.len() > 1),
            ("run.environment", !self.run.environment.is_empty()),
            ("run.nice", self.run.nice > 0),
            ("limits.open-files", self.limits.open_files_max.is_some()),
            ("limits.memory", self.limits.memory_bytes_max.is_some()),
            ("limits.cpu", self.limits.cpu_percent_max.is_some()),
            ("limits.processes", self.limits.processes_max.is_some()),
            ("permissions.calls (it cannot ask its host)", !self.permissions.calls.is_empty()),
            ("permissions.artifacts (it cannot ask its host)", self.permissions.artifacts != Artifacts::None),
            (
                "permissions.environment (the whole environment can be read)",
                !self.permissions.environment.is_empty(),
            ),
        ];
        asked.into_iter().filter_map(|(key, is_asked)| is_asked.then_some(key)).collect()
    }
}

/// `[run]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `command`: the program, then its arguments.
    pub command: Vec<String>,
    /// `environment`: set in an otherwise clean environment.
    pub environment: BTreeMap<String, String>,
    /// `nice`: 0 to 19.
    pub nice: u8,
}

/// `[build]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// `cargo-package`: the package whose binary this is.
    pub cargo_package: String,
}

/// `[activation]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activation {
    /// `start = "eager"`: at once, and not at the first call.
    pub eager: bool,
    /// `idle-timeout`: stopped after so long without a call; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// `requires`: other extensions, and which versions of them will do.
    pub requires: BTreeMap<String, Requirement>,
    /// `fallback`: who answers while this one is broken.
    pub fallback: Option<String>,
}

/// `[pool]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `min`: instances that always run.
    pub instances_min: u32,
    /// `max`: instances at most.
    pub instances_max: u32,
    /// `spares`: instances that are started ahead.
    pub spares: u32,
}

impl Default for Pool {
    fn default() -> Self {
        Self { instances_min: 0, instances_max: 1, spares: 0 }
    }
}

/// `[limits]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `memory`, in bytes.
    pub memory_bytes_max: Option<u64>,
    /// `cpu`, in percent of one core.
    pub cpu_percent_max: Option<u32>,
    /// `processes`.
    pub processes_max: Option<u32>,
    /// `open-files`.
    pub open_files_max: Option<u32>,
    /// `in-flight`: calls at the same time.
    pub in_flight_max: Option<u32>,
    /// `call`: the longest that a call may take, whatever its caller allows.
    pub call_time_max: Option<Duration>,
    /// `on-...`: what to do when a limit is passed, by the limit's name.
    pub reactions: BTreeMap<&'static str, Reaction>,
}

/// What to do when a limit is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// End the instance and start it again, as `[restart]` says.
    Restart,
    /// End the instance and leave the extension broken.
    Stop,
    /// Log it.
    Warn,
}

/// `[permissions]`: nothing is allowed that is not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// `read`: paths, with templates.
    pub read: Vec<String>,
    /// `write`: paths, with templates.
    pub write: Vec<String>,
    /// `network`.
    pub network: Network,
    /// `calls`: extensions that it may call.
    pub calls: Vec<String>,
    /// `environment`: variables that it gets from the conductor's environment.
    pub environment: Vec<String>,
    /// `artifacts`.
    pub artifacts: Artifacts,
    /// `ports`: listening sockets that the host makes for it.
    pub ports: u32,
}

/// `network`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// `false`.
    #[default]
    None,
    /// `true`.
    All,
    /// A list of ports.
    Ports(Vec<u16>),
}

/// `artifacts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Artifacts {
    /// `"none"`.
    #[default]
    None,
    /// `"read"`.
    Read,
    /// `"read-write"`.
    ReadWrite,
}

/// `[models.NAME]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// `capacity`: leases at the same time.
    pub capacity: u32,
}

impl Manifest {
    /// Reads and checks the manifest in `file`.
    ///
    /// # Errors
    ///
    /// [`Diagnostics`]: the file cannot be read, or everything that is wrong in it. Mend the file.
    pub fn load(file: &Path) -> Result<Self, Diagnostics> {
        let unreadable = |message: String| {
            let hint = "every extension has an extension.toml, as UTF-8 text";
            Diagnostics::from(Diagnostic::whole_file(Severity::Error, file, message).with_hint(hint))
        };
        let read = |file: &Path| -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(file)?.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes =
            read(file).map_err(|error| unreadable(format!("the manifest cannot be read: {error}")))?;
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(unreadable(format!("the manifest is longer than {MANIFEST_BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(bytes);
        let text = text.map_err(|error| {
            unreadable(format!("the manifest is not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
        })?;
        Self::parse(&text, file)
    }

    /// Checks a manifest's text; `file` is only named in what is found.
    ///
    /// # Errors
    ///
    /// [`Diagnostics`]: everything that is wrong in it.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Diagnostics> {
        tables::parse(text, file)
    }
}
