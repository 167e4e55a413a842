//! What an author of an extension sees: interfaces, context, typed clients, and the `main` of an extension.
//!
//! ```
//! use extension_sdk::{Context, Fault, FaultCode};
//!
//! // The interface: a crate or a module that callers and implementers share.
//! #[extension_sdk::message]
//! pub struct Division { pub dividend: i64, pub divisor: i64 }
//!
//! #[extension_sdk::interface]
//! pub trait Calculator {
//!     /// Divides, rounding towards zero.
//!     #[method(idempotent, pure)]
//!     fn divide(&self, request: Division) -> Result<i64, Fault>;
//!
//!     /// Adds until it is told to stop.
//!     async fn add(&self, cx: &Context, numbers: Vec<i64>) -> Result<i64, Fault>;
//! }
//!
//! // The extension.
//! #[derive(Default)]
//! struct Exact;
//!
//! impl Calculator for Exact {
//!     fn divide(&self, request: Division) -> Result<i64, Fault> {
//!         request
//!             .dividend
//!             .checked_div(request.divisor)
//!             .ok_or_else(|| Fault::new(FaultCode::InvalidArgument, "the divisor is zero"))
//!     }
//!
//!     async fn add(&self, cx: &Context, numbers: Vec<i64>) -> Result<i64, Fault> {
//!         let mut sum = 0;
//!         for number in numbers {
//!             cx.check()?;
//!             sum += number;
//!         }
//!         Ok(sum)
//!     }
//! }
//!
//! # mod hidden { use super::*;
//! extension_sdk::export!(Exact as Calculator); // writes `main`
//! # }
//!
//! // A caller, here in a test of the extension alone.
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use extension_sdk::testing;
//! let calculator = CalculatorClient::new(testing::in_process::<Exact>()?);
//! assert_eq!(testing::block_on(calculator.divide(Division { dividend: 7, divisor: 2 }))?, 3);
//! # Ok(())
//! # }
//! ```
//!
//! This crate must not know the host or the Pit, and it does without tokio and without C.
//!
//! Reading order: `interface` (what the macros generate is made of), [`definition`] (what an extension is),
//! [`context`] (what a method is given), [`client`] (how others call), [`mod@stream`] (what follows a result), `arguments`, `schema`, `blob` (bytes and
//! types), `mapping` (bytes of artifacts), `serve` (the running process), `loaded` (the same in the host's process), `logging`, `process` (the
//! `main`), [`testing`].

extern crate self as extension_sdk;

mod arguments;
mod blob;
mod block_on;
pub mod client;
pub mod context;
pub mod definition;
pub mod embedded;
mod interface;
mod loaded;
mod logging;
mod mapping;
mod process;
mod schema;
mod serve;
mod service;
pub mod stream;
pub mod testing;

pub use blob::Blob;
pub use client::{Call, Client};
pub use context::Context;
pub use definition::{Definition, Extension, NoConfig, Setup};
pub use extension_sdk_macros::{export, interface, message};
pub use ipc_protocol::{Fault, FaultCode, Origin, Retry};
pub use ipc_transport::{CallError, Caller, Cause};
pub use process::run;
/// For log records: `extension_sdk::tracing::info!("...")`.
pub use tracing;

/// The target of the fuzzer: see `fuzz/`.
#[cfg(fuzzing)]
#[doc(hidden)]
pub use serve::fuzz::serving;

/// What generated code refers to. Nothing here is for authors, and all of it may change.
#[doc(hidden)]
pub mod __private {
    pub use extension_abi::Table;
    #[cfg(feature = "fast")]
    pub use extension_sdk_macros::FastMessage;
    #[cfg(feature = "fast")]
    pub use ipc_transport::codec;
    pub use schemars;
    pub use serde;

    pub use crate::arguments::decode as decode_arguments;
    pub use crate::block_on::block_on;
    pub use crate::definition::{Start, definition};
    pub use crate::interface::{Interface, Method, Part, Sendable, encode_result, is_part};
    #[cfg(feature = "fast")]
    pub use crate::interface::{decode_fast as decode_fast_arguments, encode_fast_result};
    pub use crate::loaded::table;
    pub use crate::schema::schemas;
    #[cfg(feature = "fast")]
    pub use crate::schema::{fast_hash, fast_schemas};
}
