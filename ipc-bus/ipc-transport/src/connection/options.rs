//! How to talk to one peer, who hears what it says beside answers, and why that ends.

use std::sync::Arc;
use std::time::Duration;

use ipc_protocol::control::{Event, Goodbye, Heartbeat, LogRecord};
use ipc_protocol::handshake::Hello;
use ipc_protocol::limits::{
    IN_FLIGHT_CALLS_DEFAULT, QUEUED_BYTES_DEFAULT, READY_TIMEOUT_MS, WELCOME_TIMEOUT_MS,
};

use super::host_calls::HostCalls;
use crate::outcome::Cause;
use crate::ring::Latency;

/// How to talk to one peer.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The first frame. Its `in_flight_max` is taken from below, and what this side has is added to its features.
    pub hello: Hello,
    /// Time for the extension's `Welcome`.
    pub welcome_timeout: Duration,
    /// Time from `Welcome` to `Ready`.
    pub ready_timeout: Duration,
    /// Calls in flight at most: 1 to [`IN_FLIGHT_CALLS_MAX`](ipc_protocol::limits::IN_FLIGHT_CALLS_MAX).
    pub in_flight_max: u32,
    /// Bytes that may wait to be written, and as many in the bodies of calls that wait for room; beyond both,
    /// calls are rejected. A single message may be longer when nothing else waits.
    pub queued_bytes_max: u64,
    /// Whether to offer shared memory. An extension that does not know it, or cannot use it, is talked to over the
    /// socket all the same.
    pub offers_rings: bool,
    /// How long both sides poll shared memory before they sleep.
    pub latency: Latency,
    /// Whether answers to host calls may bring descriptors.
    pub grants_descriptors: bool,
    /// What the extension may ask of this side within the calls that it serves; `None`: nothing.
    pub host_calls: Option<Arc<dyn HostCalls>>,
}

impl ConnectOptions {
    /// The limits of the protocol.
    #[must_use]
    pub fn new(hello: Hello) -> Self {
        Self {
            hello,
            welcome_timeout: Duration::from_millis(WELCOME_TIMEOUT_MS.into()),
            ready_timeout: Duration::from_millis(READY_TIMEOUT_MS.into()),
            in_flight_max: IN_FLIGHT_CALLS_DEFAULT,
            queued_bytes_max: QUEUED_BYTES_DEFAULT,
            offers_rings: true,
            latency: Latency::default(),
            grants_descriptors: false,
            host_calls: None,
        }
    }
}

/// What a peer says beside answers.
///
/// # Concurrency
///
/// Called by whoever reads, one after the other, in the order of arrival: whoever blocks here, blocks the
/// answers. Through shared memory a caller who waits for an answer may be the one who reads: then it is his thread.
pub trait PeerEvents: Send + Sync + 'static {
    /// A log record.
    fn log(&self, record: LogRecord) {
        let _ = record;
    }
    /// A sign of life.
    fn heartbeat(&self, heartbeat: Heartbeat) {
        let _ = heartbeat;
    }
    /// The extension's own event.
    fn event(&self, event: Event) {
        let _ = event;
    }
    /// The extension's last frame.
    fn goodbye(&self, goodbye: Goodbye) {
        let _ = goodbye;
    }
    /// Nothing more will be read. Calls wait for [`Connection::fail_all`](super::Connection::fail_all) now, unless this side closed.
    fn closed(&self, reason: &CloseReason) {
        let _ = reason;
    }
}

/// For whoever wants answers only.
impl PeerEvents for () {}

/// Why nothing more is read from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed its end: most likely its process ended.
    Eof,
    /// The peer broke the protocol; what it did.
    Violation(String),
    /// This side closed; why.
    ClosedHere(String),
}

impl CloseReason {
    /// What a call is told when nobody knows more.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Eof => Cause::Died("it closed its channel, and how it ended is not known".to_owned()),
            Self::Violation(what) => Cause::ProtocolViolation(what.clone()),
            Self::ClosedHere(why) => Cause::Closed(why.clone()),
        }
    }
}
