//! What happens to instances, as numbered events: a reader that is too slow is told how many it missed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use pit_core::ring::{EventReader, Read};

use crate::exit::ExitReport;

/// LIMIT: events kept for readers that are behind.
pub const EVENTS_KEPT_MAX: usize = 1024;

pit_core::id! {
    /// One running copy of an extension: its place among the extension's instances, and as generation its epoch,
    /// which changes at every start.
    pub struct InstanceId("instance");
}

/// Something happened to an instance.
#[derive(Clone, Debug)]
pub struct HostEvent {
    /// The extension.
    pub extension: Arc<str>,
    /// The instance and its epoch.
    pub instance: InstanceId,
    /// When, as time since the host began.
    pub at: Duration,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// It is being started.
    Created,
    /// It takes calls.
    Ready {
        /// From the decision to start it until now.
        start_time: Duration,
    },
    /// It ended.
    Died {
        /// How.
        report: Arc<ExitReport>,
    },
    /// It will be started again.
    Restarting {
        /// After this time.
        after: Duration,
    },
    /// It will not be started again by itself.
    Broken {
        /// Why.
        reason: Arc<str>,
    },
    /// It ended as it should, and is started again when it is needed.
    Stopped,
    /// A call was made again by the host.
    Retried {
        /// Its method.
        method: String,
        /// Why the attempt before failed.
        cause: ipc_transport::Cause,
    },
}

impl EventKind {
    /// The kind as one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Ready { .. } => "ready",
            Self::Died { .. } => "died",
            Self::Restarting { .. } => "restarting",
            Self::Broken { .. } => "broken",
            Self::Stopped => "stopped",
            Self::Retried { .. } => "retried",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("starts"),
            Self::Ready { start_time } => write!(f, "is ready after {start_time:.1?}"),
            Self::Died { report } => write!(f, "ended: {report}"),
            Self::Restarting { after } => write!(f, "starts again in {after:.1?}"),
            Self::Broken { reason } => write!(f, "is broken: {reason}"),
            Self::Stopped => f.write_str("is stopped"),
            Self::Retried { method, cause } => write!(f, "call of `{method}` is made again: {cause}"),
        }
    }
}

impl fmt::Display for HostEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.extension, self.instance, self.kind)
    }
}
