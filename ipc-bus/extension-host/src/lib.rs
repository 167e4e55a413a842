//! Who lives: starts extensions, watches over them, routes calls to them, stops them.
//!
//! A plugin host that can be used without the conductor. It must not know what is called or why: no workflows,
//! no artifacts, no policies of the Pit. What expires, what is kept, and where logs go, it declares as traits.
//!
//! ```text
//! caller -> Route -> Endpoint (connection of the present incarnation) -> socket -> extension
//!             |            ^ published by
//!             |        supervisor: one task for each extension, the only one that changes its state
//!             |            | starts, watches, ends
//!             |            v
//!             |        Supervised: launcher -> program
//!             \-- nothing there: asks for a start, waits; failed: makes the call again, if that is safe
//! ```
//!
//! ```no_run
//! use std::path::{Path, PathBuf};
//! use std::time::Duration;
//! use extension_host::{Host, HostOptions, LauncherProgram, Manifest};
//! use ipc_transport::{Caller, Encoded, Payload, Request};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(HostOptions::new(LauncherProgram::Path("/usr/lib/symphony/extension-launcher".into())))?;
//! host.register(Manifest::load(Path::new("echo/extension.toml"))?, PathBuf::from("echo/echo"))?;
//! let echo = host.extension("echo")?;
//! let arguments = Payload::Encoded(Encoded::from_value(&"hello")?);
//! let answer = echo.call(Request::new("echo", arguments, Duration::from_secs(1))).await?;
//! assert_eq!(answer.decode::<String>()?, "hello");
//! host.shutdown(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`diagnostic`] and [`manifest`] (what an extension is), `program`, [`supervised`], `sweep` and
//! [`exit`] (a process and its end), [`restart`] (what follows from it), [`logs`], [`events`], [`expiry`], [`storage`] (what the
//! outside sees, decides and keeps), `host_calls` (what extensions ask for), [`in_process`] (the same without a process), `hang`, `limits` and `extension` (one extension's life), `route` (the way of a call), `host`
//! (all of them).

pub mod diagnostic;
pub mod events;
pub mod exit;
pub mod expiry;
mod extension;
mod hang;
mod host;
mod host_calls;
pub mod in_process;
mod limits;
pub mod logs;
pub mod manifest;
mod processor;
mod program;
mod random;
pub mod restart;
mod route;
mod snapshot;
pub mod storage;
pub mod supervised;
mod sweep;
mod tail;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use events::{EventKind, EventReader, HostEvent, InstanceId, Read};
pub use exit::{ExitClass, ExitReport, ProcessEnd};
pub use expiry::{Expired, Expiry, ExpiryHandle, TimerExpiry};
pub use hang::HangLimits;
pub use host::{Host, HostError, HostOptions, RegisterError, StopTimes, UnknownExtension};
pub use in_process::{InProcess, Library, LibrarySource};
pub use limits::{HeldBy, Limit, Usage};
pub use logs::{LogLine, LogOrigin, LogSink, TracingLog};
pub use manifest::{Manifest, Transport};
pub use route::Route;
pub use snapshot::{ExtensionSnapshot, InstanceState, PastEnd, StartTimes};
pub use storage::{NewArtifact, OpenedArtifact, Storage};
pub use supervised::{LauncherProgram, Program, Supervised};
pub use sweep::INSTANCE_VARIABLE;
