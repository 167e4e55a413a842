//! How it travels: one way to call, whatever lies between caller and extension.
//!
//! [`Caller`] is implemented by the router, by a socket connection and by whatever comes later (shared
//! memory, a loaded library): no call site changes with the tier. This crate must not know what a message
//! means, who started the peer, or why.
//!
//! Both sides of a stream share [`framing`], [`scan`] and [`handshake`], which need no runtime; the calling
//! side is [`connection`], with the feature `tokio`.

// What a call is.
pub mod payload;

#[cfg(feature = "wincode")]
pub mod codec;

pub mod outcome;

pub mod stream;

mod told;

pub mod caller;

// What both sides of a stream do.
pub mod scan;

pub mod framing;

pub mod handshake;

pub mod ring;

pub mod descriptors;

#[cfg(feature = "rendezvous")]
pub mod rendezvous;

// The calling side.
/// For the endpoints of other crates of ours, and not for their users: it may change.
#[cfg(feature = "tokio")]
#[doc(hidden)]
pub mod in_flight;
#[cfg(feature = "tokio")]
mod outgoing;

#[cfg(feature = "tokio")]
pub mod connection;

pub use caller::{Caller, Follow, OnOverload, ProgressSink, Reply, Request, RetryLog};
pub use outcome::{Answer, CallError, CallResult, Cause};
pub use payload::{DecodeError, EncodeError, Encoded, Fingerprint, Message, NotFast, Payload, TypedSlot};
