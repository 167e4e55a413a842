//! The small messages beside calls and replies.

use serde::{Deserialize, Serialize};

/// How far a call is. `done` never goes back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// How much is done, in the method's own unit.
    pub done: u64,
    /// How much there is, if known.
    #[serde(default)]
    pub total: Option<u64>,
    /// A clause for people.
    #[serde(default)]
    pub message: String,
}

impl Progress {
    /// `done` of `total`, with a clause for people.
    #[must_use]
    pub fn new(done: u64, total: Option<u64>, message: impl Into<String>) -> Self {
        Self { done, total, message: message.into() }
    }
}

/// One log record of an extension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogRecord {
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u8,
    /// Where it was written: a module path.
    pub target: String,
    /// What was written, fields included.
    pub message: String,
}

impl LogRecord {
    /// A record.
    #[must_use]
    pub fn new(level: u8, target: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level, target: target.into(), message: message.into() }
    }
}

/// An extension's own event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// What happened: a name.
    pub name: String,
    /// The event's data as MessagePack.
    #[serde(with = "serde_bytes", default)]
    pub data: Vec<u8>,
}

impl Event {
    /// An event with data as MessagePack.
    #[must_use]
    pub fn new(name: impl Into<String>, data: Vec<u8>) -> Self {
        Self { name: name.into(), data }
    }
}

/// From a thread of its own, so that busy and hung look different.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Heartbeat {
    /// Calls being worked on.
    pub running: u32,
    /// Age of the oldest of them in milliseconds.
    pub oldest_ms: u64,
}

impl Heartbeat {
    /// A heartbeat.
    #[must_use]
    pub fn new(running: u32, oldest_ms: u64) -> Self {
        Self { running, oldest_ms }
    }
}

/// The last frame of a side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Goodbye {
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

impl Goodbye {
    /// A goodbye.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// What may stand in front of a call's arguments: see [`crate::Flags::METADATA`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metadata {
    /// The same key on every attempt of the same call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
    /// Higher is more urgent; 0 is normal.
    #[serde(default)]
    pub priority: i8,
}

/// What a descriptor is for; the descriptor itself travels beside the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DescriptorGrant {
    /// `artifact`, `segment`, `socket`, `ring`.
    pub purpose: String,
    /// Which one, within its purpose.
    pub index: u32,
    /// Bytes behind it.
    pub bytes: u64,
    /// Whether the receiver may write.
    #[serde(default)]
    pub writable: bool,
}

impl DescriptorGrant {
    /// A descriptor that may only be read.
    #[must_use]
    pub fn new(purpose: impl Into<String>, index: u32, bytes: u64) -> Self {
        Self { purpose: purpose.into(), index, bytes, writable: false }
    }
}

/// Where a body lies in a shared segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SegmentSpan {
    /// Which segment.
    pub segment: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl SegmentSpan {
    /// `length` bytes from `offset` on.
    #[must_use]
    pub const fn new(segment: u32, offset: u64, length: u64) -> Self {
        Self { segment, offset, length }
    }
}
