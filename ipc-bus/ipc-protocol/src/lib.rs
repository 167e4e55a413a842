//! What is said on the bus: frames, handshake, control messages, faults, descriptions, limits.
//!
//! Types and fixed layouts only. This crate must not know sockets, tokio, processes or the Pit; it never
//! reads or writes anything. The byte-by-byte document is `docs/protocol.md`; the files in
//! `tests/golden/v1` decode for ever.
//!
//! Reading order: [`frame`] (the fixed header), [`handshake`] (who are you), [`control`] (the small
//! messages beside calls), [`fault`] (what a failure says), [`host_call`] (what an extension asks of its host), [`stream`] (what
//! follows a result), [`describe`] (what `--describe` prints), [`limits`].

pub mod frame;
pub mod handshake;

pub mod control;
pub mod fault;
pub mod host_call;
pub mod stream;

pub mod describe;
pub mod limits;

pub use fault::{Fault, FaultCode, Origin, Retry};
pub use frame::{Codec, Flags, Header, HeaderError, Kind};

/// The version of the wire protocol that this crate writes. Numbered on its own: it is not the crate's
/// version, and it changes only when bytes become incompatible.
pub const PROTOCOL_VERSION: u16 = 1;
