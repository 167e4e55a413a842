//! Tests an extension alone: without a conductor, without building its binary.
//!
//! [`in_process`] calls the extension's methods on the caller's own thread, [`over_socket`] through a real
//! channel with the same serving loop as the extension's process, [`process`] through a channel to the built
//! binary. All are a [`Caller`], so the typed clients work with each, and a test may be generic over them.
//! [`context`] is for calling a method directly.
//!
//! ```
//! use extension_sdk::{Caller, Fault, testing};
//!
//! #[extension_sdk::interface]
//! pub trait Greeter {
//!     /// Greets.
//!     fn greet(&self, name: String) -> Result<String, Fault>;
//! }
//!
//! #[derive(Default)]
//! struct Polite;
//!
//! impl Greeter for Polite {
//!     fn greet(&self, name: String) -> Result<String, Fault> {
//!         Ok(format!("Good day, {name}."))
//!     }
//! }
//!
//! # mod hidden { use super::*;
//! extension_sdk::export!(Polite as Greeter);
//! # }
//!
//! fn greets(caller: impl Caller + 'static) {
//!     let greeter = GreeterClient::new(caller);
//!     let greeting = testing::block_on(greeter.greet("Ada".into()));
//!     assert_eq!(greeting.expect("it greets"), "Good day, Ada.");
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! greets(testing::in_process::<Polite>()?);
//! greets(testing::over_socket::<Polite>()?);
//! # Ok(())
//! # }
//! ```

mod socket;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipc_protocol::control::Progress;
use ipc_protocol::handshake::MethodEntry;
use ipc_protocol::{Fault, FaultCode, Origin};
use ipc_transport::scan::scan;
use ipc_transport::{Answer, CallError, CallResult, Caller, Encoded, Reply, Request};
use serde::Serialize;

pub use crate::block_on::block_on;
pub use socket::{OverSocket, over_socket, over_socket_with, process, process_with};

use crate::context::{CallState, Context, ProgressSink};
use crate::definition::Extension;
use crate::service::{self, MethodTraits, Service};

/// An extension in this process, without a channel. Arguments and results are encoded as they are on one.
#[derive(Clone)]
pub struct InProcess {
    methods: Arc<[MethodTraits]>,
    service: Arc<dyn Service>,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.methods.iter().map(|method| &method.entry.name);
        f.debug_tuple("InProcess").field(&names.collect::<Vec<_>>()).finish()
    }
}

/// Starts `T` without a `[config]` table.
///
/// # Errors
///
/// What the extension's start says.
pub fn in_process<T: Extension>() -> Result<InProcess, Fault> {
    start_in_process::<T>(&[])
}

/// Starts `T` with `config` as its `[config]` table.
///
/// # Errors
///
/// What the extension's start says.
pub fn in_process_with<T: Extension>(config: &impl Serialize) -> Result<InProcess, Fault> {
    start_in_process::<T>(&encode_config(config)?)
}

fn start_in_process<T: Extension>(config: &[u8]) -> Result<InProcess, Fault> {
    let definition = T::definition();
    let methods = service::method_table(&definition)?.into();
    Ok(InProcess { methods, service: service::start(definition, config)?.into() })
}

fn encode_config(config: &impl Serialize) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    ipc_transport::payload::encode_into(config, &mut bytes).map_err(|error| {
        Fault::new(FaultCode::InvalidArgument, format!("the config cannot be encoded: {}", error.0))
    })?;
    Ok(bytes)
}

/// A context of no call: not cancelled, without a deadline, its progress read by nobody.
#[must_use]
pub fn context() -> Context {
    context_until(None)
}

fn context_until(deadline: Option<Instant>) -> Context {
    Context::new(Arc::new(CallState::new(0, Instant::now(), deadline)), Arc::new(Nobody))
}

struct Nobody;

impl ProgressSink for Nobody {
    fn progress(&self, _: u64, _: Progress) {}
}

impl Caller for InProcess {
    /// Runs the method before it returns.
    fn call(&self, request: Request<'_>) -> Reply {
        Reply::ready(self.run(request))
    }
}

impl InProcess {
    fn run(&self, request: Request<'_>) -> CallResult {
        let method = find(self.methods.iter().map(|method| &method.entry), request.method)?;
        let body = request.payload.into_encoded()?;
        let mut result = Vec::new();
        self.service.run(method, &context_until(Some(request.deadline)), &body.bytes, &mut result)?;
        answer(result)
    }
}

/// The answer of a result, looked over as the host does: a test is not to accept what a melody could not use.
fn answer(result: impl Into<Bytes>) -> CallResult {
    let result = result.into();
    scan(&result).map_err(|error| {
        let fault = Fault::new(FaultCode::ProtocolViolation, format!("the host refuses the result: {error}"));
        fault.with_origin(Origin::Transport)
    })?;
    Ok(Answer::encoded(Encoded::message_pack(result)))
}

/// The index of a method in the table.
fn find<'a>(mut methods: impl Iterator<Item = &'a MethodEntry>, name: &str) -> Result<usize, CallError> {
    methods.position(|method| method.name == name).ok_or_else(|| {
        Fault::new(FaultCode::UnknownMethod, format!("the extension has no method `{name}`")).into()
    })
}

#[cfg(test)]
mod tests {
    use ipc_protocol::limits::NESTING_MAX;

    use super::*;

    /// A list in a list in a list.
    #[extension_sdk::message]
    pub(super) struct Nested(Vec<Nested>);

    #[extension_sdk::interface]
    pub(super) trait Nesting {
        /// Nests lists.
        fn nest(&self, depth: usize) -> Result<Nested, Fault>;
    }

    #[derive(Default)]
    struct Nest;

    impl Nesting for Nest {
        fn nest(&self, depth: usize) -> Result<Nested, Fault> {
            Ok((1..depth).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner])))
        }
    }

    mod exported {
        use super::{Nest, Nesting};
        crate::export!(Nest as Nesting);
        const _: fn() -> std::process::ExitCode = main;
    }

    #[test]
    fn a_result_that_the_host_would_refuse_fails_in_a_test_too() {
        let callers = [
            NestingClient::new(in_process::<Nest>().unwrap()),
            NestingClient::new(over_socket::<Nest>().unwrap()),
        ];
        for nesting in callers {
            assert!(block_on(nesting.nest(NESTING_MAX)).is_ok());
            match block_on(nesting.nest(NESTING_MAX + 1)) {
                Err(CallError::Fault(fault)) => {
                    assert!(fault.message.contains("nests deeper than 128"), "{}", fault.message);
                }
                other => panic!("{:?}", other.err()),
            }
        }
    }
}
