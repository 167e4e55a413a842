//! What a failure says when it crosses the bus: whose fault, whether retrying helps, and what happened.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::FAULT_MESSAGE_BYTES_MAX;

/// A failed call, as the wire and the author of an extension say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Fault {
    /// What kind of failure; append-only numbers.
    pub code: FaultCode,
    /// Whose fault.
    pub origin: Origin,
    /// Whether and when the same call may succeed.
    pub retry: Retry,
    /// One clause for people, at most [`FAULT_MESSAGE_BYTES_MAX`] bytes.
    pub message: String,
}

impl Fault {
    /// A fault of the extension that gives no hope for the same call: [`Retry::Never`]. That is advice, which
    /// a caller who knows better need not take.
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > FAULT_MESSAGE_BYTES_MAX {
            let end = (0..=FAULT_MESSAGE_BYTES_MAX).rev().find(|&at| message.is_char_boundary(at));
            message.truncate(end.unwrap_or(0));
        }
        Self { code, origin: Origin::Extension, retry: Retry::Never, message }
    }

    /// The same fault with another origin.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The same fault with another retry advice.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }
}

macro_rules! fault_codes {
    ($($(#[$meta:meta])* $name:ident = $code:literal,)*) => {
        /// What kind of failure. Append-only; `docs/protocol.md` lists them with their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FaultCode {
            $($(#[$meta])* $name,)*
            /// A code of a later version, kept as it came.
            Other(u16),
        }

        impl FaultCode {
            /// Every code that this version names.
            pub const ALL: &'static [FaultCode] = &[$(FaultCode::$name,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn to_wire(self) -> u16 {
                match self { $(Self::$name => $code,)* Self::Other(code) => code }
            }

            /// The code with this number.
            #[must_use]
            pub const fn from_wire(code: u16) -> Self {
                match code { $($code => Self::$name,)* other => Self::Other(other) }
            }
        }
    };
}

fault_codes! {
    /// The method failed in its own way; the message says how.
    Failed = 1,
    /// The arguments are not what the method takes.
    InvalidArgument = 2,
    /// What was asked for does not exist.
    NotFound = 3,
    /// The operating system or the host refuses access.
    PermissionDenied = 4,
    /// The extension has no such method.
    UnknownMethod = 5,
    /// Part of the protocol that this side does not have (yet).
    Unsupported = 6,
    /// The method panicked; the extension lives on.
    Panicked = 7,
    /// The caller cancelled.
    Cancelled = 8,
    /// The deadline passed inside the extension.
    DeadlineExceeded = 9,
    /// Too much at once: retry later.
    Busy = 10,
    /// The extension is going away: call its successor.
    Draining = 11,
    /// Larger than a limit allows.
    TooLarge = 12,
    /// Reading or writing failed: disk, file, device.
    Io = 13,
    /// A frame carried an epoch that is not this instance's. Not said on a channel, where such frames are
    /// dropped.
    StaleEpoch = 14,
    /// The peer broke the protocol.
    ProtocolViolation = 15,
    /// The call did not reach whom it was for: calling again is safe.
    NotDelivered = 16,
    /// The call reached whom it was for, and whether it ran is not known.
    OutcomeUnknown = 17,
    /// Extensions call each other deeper than the host allows: most likely in a circle.
    TooDeep = 18,
}

impl Serialize for FaultCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.to_wire())
    }
}

impl<'de> Deserialize<'de> for FaultCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u16::deserialize(deserializer).map(Self::from_wire)
    }
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// The extension, or what it was asked to do.
    Extension,
    /// The host: configuration, limits, permissions.
    Host,
    /// The channel between them.
    Transport,
    /// An origin of a later version.
    #[serde(other)]
    Unknown,
}

/// Whether and when the same call may succeed: the word of whoever failed. Nobody retries on a fault because of
/// it alone; an operator's rule that names faults decides, and `AfterMs` then says how long to wait at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Retry {
    /// Not without changing something.
    Never,
    /// At once.
    Now,
    /// After as many milliseconds.
    AfterMs(u32),
}
