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

impl fmt::Display for HostEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.extension, self.instance)?;
        match &self.kind {
            EventKind::Created => f.write_str("starts"),
            EventKind::Ready { start_time } => write!(f, "is ready after {start_time:.1?}"),
            EventKind::Died { report } => write!(f, "ended: {report}"),
            EventKind::Restarting { after } => write!(f, "starts again in {after:.1?}"),
            EventKind::Broken { reason } => write!(f, "is broken: {reason}"),
            EventKind::Stopped => f.write_str("is stopped"),
            EventKind::Retried { method, cause } => write!(f, "call of `{method}` is made again: {cause}"),
        }
    }
}
