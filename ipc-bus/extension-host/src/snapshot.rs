//! The present state of extensions, as values: for status, for `why`, for tests.

use std::sync::Arc;
use std::time::Duration;

use ipc_transport::connection::ConnectionStatistics;

use crate::events::InstanceId;
use crate::exit::ExitReport;
use crate::limits::{HeldBy, Usage};
use crate::manifest::Tier;

/// LIMIT: ends of an extension's incarnations that are remembered.
pub(crate) const PAST_ENDS_MAX: usize = 16;

/// Where an extension's instance is in its life.
///
/// ```text
/// Stopped -> Starting -> Ready -> Stopping -> Stopped
///    ^          |          |
///    |          +----------+--> Backoff -> Starting
///    +--- probe, reset --- Broken <--+        (any) -> Closed, when the host stops
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Not running; started when it is called.
    Stopped,
    /// Its process is being started.
    Starting,
    /// Takes calls.
    Ready,
    /// Finishes what it has, and ends.
    Stopping,
    /// It failed, and is started again after a while.
    Backoff,
    /// It failed too often, or in a way that does not mend itself.
    Broken,
    /// The host has stopped.
    Closed,
}

impl InstanceState {
    /// The state as one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Broken => "broken",
            Self::Closed => "closed",
        }
    }
}

/// How long the steps of a start took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartTimes {
    /// Waiting for others to start.
    pub queued: Duration,
    /// Starting the process.
    pub spawned: Duration,
    /// From there to being ready: its own start.
    pub handshake: Duration,
}

/// One end of an incarnation.
#[derive(Clone, Debug)]
pub struct PastEnd {
    /// Which.
    pub instance: InstanceId,
    /// When, as time since the host began.
    pub at: Duration,
    /// How.
    pub report: Arc<ExitReport>,
}

/// One extension.
#[derive(Clone, Debug)]
pub struct ExtensionSnapshot {
    /// Its name.
    pub name: String,
    /// Its version, as its manifest has it.
    pub version: String,
    /// Where it runs, whatever its manifest wishes.
    pub tier: Tier,
    /// Where its instance is in its life.
    pub state: InstanceState,
    /// Its instance; the generation is the epoch, 0 before the first start.
    pub instance: InstanceId,
    /// The extension's own process, if it runs and the kernel tells.
    pub pid: Option<u32>,
    /// The launcher above it.
    pub launcher_pid: Option<u32>,
    /// Starts so far.
    pub starts: u64,
    /// Those of them that followed a failure.
    pub restarts: u64,
    /// Calls sent to it.
    pub calls: u64,
    /// The counters of all its connections together, those of incarnations that have ended included; what is a
    /// state and no count (in flight, waiting, queued) is the present one's.
    pub totals: ConnectionStatistics,
    /// How long it has owed the oldest answer that nobody waits for any longer.
    pub oldest_unanswered: Option<Duration>,
    /// Bytes of arguments that are kept for calls to it that are not over; those of up to a KiB are not counted.
    pub kept_bytes: u64,
    /// Calls that the host made again.
    pub retries: u64,
    /// Log lines that were dropped.
    pub log_lines_dropped: u64,
    /// How long the last successful start took.
    pub last_start: Option<StartTimes>,
    /// The last ends, oldest first, at most 16.
    pub past_ends: Vec<PastEnd>,
    /// Why it is broken.
    pub broken: Option<String>,
    /// The present connection's counters.
    pub connection: Option<ConnectionStatistics>,
    /// Who holds its limits.
    pub held_by: HeldBy,
    /// What its instance uses, if it runs in a process of its own.
    pub usage: Option<Usage>,
}
