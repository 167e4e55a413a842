//! Peers that do as they are told, and what every [`ipc_transport::Caller`] must keep. For tests only.
//!
//! [`peer`] is the serving side by hand, to misbehave in detail; [`reference`](mod@reference) is an extension
//! with methods that bring a call into each state; [`conformance`] are the checks, generic over the tier; [`fuzz`]
//! are the targets of the fuzzer.
//! This crate must not know the host, the SDK or processes.

pub mod peer;
pub mod reference;

pub mod conformance;

pub mod fuzz;

pub use peer::Peer;
