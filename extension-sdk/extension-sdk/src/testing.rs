//! Tests an extension alone: without a conductor, without building its binary.
//!
//! | what | runs the methods | for |
//! |---|---|---|
//! | [`in_process`] | on the caller's own thread | most tests: arguments, results, faults, configuration |
//! | [`over_socket`] | in the serving loop of an extension's process, on a thread of the test's | many calls at once, cancelling |
//! | [`process`] | in the built binary | what only a process has: files, environment, its end |
//! | [`OneCall`], [`context`] | the test calls the method itself | deadline, cancellation, progress, what it asks of its host |
//!
//! The first three are a [`Caller`], so the typed clients work with each, and a test may be generic over them.
//!
//! # Results and faults
//!
//! ```
//! use extension_sdk::{Caller, Fault, FaultCode, testing};
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
//!         if name.is_empty() {
//!             return Err(Fault::new(FaultCode::InvalidArgument, "`name` is empty"));
//!         }
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
//!     assert_eq!(testing::fault(greeter.greet(String::new())).code, FaultCode::InvalidArgument);
//! }
//!
//! # fn main() -> Result<(), Fault> {
//! greets(testing::in_process::<Polite>()?);
//! greets(testing::over_socket::<Polite>()?);
//! # Ok(())
//! # }
//! ```
//!
//! # Deadline, cancellation, progress
//!
//! A method that takes a [`Context`] is called with that of a [`OneCall`]:
//!
//! ```
//! use std::time::Duration;
//! use extension_sdk::testing::OneCall;
//! use extension_sdk::{Context, Fault, FaultCode};
//!
//! fn count(cx: &Context, to: u64) -> Result<u64, Fault> {
//!     for done in 1..=to {
//!         cx.check()?;
//!         cx.progress(done, Some(to), "counting");
//!     }
//!     Ok(to)
//! }
//!
//! let call = OneCall::new();
//! assert_eq!(count(&call.context(), 1000)?, 1000);
//! assert_eq!(call.progress().last().map(|last| (last.done, last.total)), Some((1000, Some(1000))));
//!
//! let late = OneCall::within(Duration::ZERO);
//! assert_eq!(count(&late.context(), 1000).map_err(|fault| fault.code), Err(FaultCode::DeadlineExceeded));
//!
//! // Without an end, if it would not ask.
//! let cancelled = OneCall::cancelled_by_progress();
//! assert_eq!(count(&cancelled.context(), u64::MAX).map_err(|fault| fault.code), Err(FaultCode::Cancelled));
//! # Ok::<(), Fault>(())
//! ```
//!
//! # Configuration
//!
//! [`in_process_with`], [`over_socket_with`] and [`process_with`] give the manifest's `[config]` table as whatever can be
//! serialized; what the start refuses is an error of theirs:
//!
//! ```
//! use std::collections::BTreeMap;
//! use extension_sdk::{Fault, FaultCode, Setup, testing};
//!
//! #[extension_sdk::message]
//! struct Settings { greeting: String }
//!
//! struct Configured { greeting: String }
//!
//! impl Configured {
//!     fn start(setup: &Setup<Settings>) -> Result<Self, Fault> {
//!         Ok(Self { greeting: setup.config().greeting.clone() })
//!     }
//! }
//!
//! #[extension_sdk::interface]
//! pub trait Greeter {
//!     /// Greets.
//!     fn greet(&self, name: String) -> Result<String, Fault>;
//! }
//!
//! impl Greeter for Configured {
//!     fn greet(&self, name: String) -> Result<String, Fault> {
//!         Ok(format!("{}, {name}", self.greeting))
//!     }
//! }
//!
//! # mod hidden { use super::*;
//! extension_sdk::export!(Configured as Greeter, start = Configured::start);
//! # }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = BTreeMap::from([("greeting", "Hello")]);
//! let greeter = GreeterClient::new(testing::in_process_with::<Configured>(&config)?);
//! assert_eq!(testing::block_on(greeter.greet("Ada".into()))?, "Hello, Ada");
//!
//! let refused = testing::in_process::<Configured>().map(|_| ()).unwrap_err();
//! assert_eq!(refused.code, FaultCode::InvalidArgument);
//! assert!(refused.message.contains("greeting"));
//! # Ok(())
//! # }
//! ```

mod host;
mod one_call;
mod socket;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipc_protocol::handshake::MethodEntry;
use ipc_protocol::limits::MESSAGE_BYTES_DEFAULT;
use ipc_protocol::{Codec, Fault, FaultCode, Origin};
use ipc_transport::scan::scan;
use ipc_transport::{Answer, CallError, CallResult, Caller, Encoded, Message, Payload, Reply, Request};
use serde::Serialize;

pub use crate::block_on::block_on;
pub use ipc_protocol::control::Progress;
pub use one_call::OneCall;
pub use socket::{OverSocket, over_socket, over_socket_with, process, process_with};

use crate::client::Call;
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

/// Starts `T` without a `[config]` table, to be called on the test's own thread: see [the module](self).
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
///
/// ```
/// assert_eq!(extension_sdk::testing::context().remaining(), None);
/// ```
#[must_use]
pub fn context() -> Context {
    context_until(None, None)
}

/// The fault that a call ends with.
///
/// # Panics
///
/// The call ends otherwise: the test fails, and says how.
#[track_caller]
pub fn fault<R: Message>(call: Call<R>) -> Fault {
    match block_on(call) {
        Err(CallError::Fault(fault)) => fault,
        Err(error) => panic!("the call ended without a fault: {error:?}"),
        Ok(_) => panic!("the call ended with a result, not with a fault"),
    }
}

fn context_until(deadline: Option<Instant>, hears: Option<ipc_transport::ProgressSink>) -> Context {
    Context::new(Arc::new(CallState::new(0, Instant::now(), deadline)), Arc::new(Told(hears)))
}

/// Whoever made the call, if he wants to hear of its progress.
struct Told(Option<ipc_transport::ProgressSink>);

impl ProgressSink for Told {
    fn progress(&self, _: u64, progress: Progress) {
        if let Some(hears) = &self.0 {
            hears.tell(progress);
        }
    }
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
        let is_fast = means_the_same(&self.methods[method].entry, &request.payload);
        let body = request.payload.into_encoded_for(is_fast, MESSAGE_BYTES_DEFAULT)?;
        let mut result = Vec::new();
        let cx = context_until(Some(request.deadline), request.progress);
        let codec = match body.codec {
            Codec::Wincode => {
                self.service.run_fast(method, &cx, &body.bytes, MESSAGE_BYTES_DEFAULT, &mut result)?
            }
            _ => {
                self.service.run(method, &cx, &body.bytes, &mut result)?;
                Codec::MessagePack
            }
        };
        answer(codec, result)
    }
}

/// Whether caller and extension mean the same layout, so that a call may go in the fast codec.
fn means_the_same(entry: &MethodEntry, payload: &Payload<'_>) -> bool {
    let ours = payload.schema_hash();
    ours != 0 && ours == entry.schema_hash
}

/// The answer of a result, looked over as the host does: a test is not to accept what a melody could not use.
/// Melodies get nothing in the fast codec, which its reader looks over itself.
fn answer(codec: Codec, result: impl Into<Bytes>) -> CallResult {
    let result = result.into();
    if codec == Codec::Wincode {
        return Ok(Answer::encoded(Encoded { codec, bytes: result }));
    }
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

    #[extension_sdk::interface]
    pub(super) trait Counting {
        /// Reports once.
        fn count(&self, cx: &Context) -> Result<(), Fault>;
    }

    #[derive(Default)]
    struct Count;

    impl Counting for Count {
        fn count(&self, cx: &Context) -> Result<(), Fault> {
            cx.progress(1, Some(2), "counting");
            Ok(())
        }
    }

    mod counting {
        use super::{Count, Counting};
        crate::export!(Count as Counting);
        const _: fn() -> std::process::ExitCode = main;
    }

    #[test]
    fn whoever_makes_a_call_hears_of_its_progress() {
        let callers: [Arc<dyn Caller>; 2] =
            [Arc::new(in_process::<Count>().unwrap()), Arc::new(over_socket::<Count>().unwrap())];
        for caller in callers {
            let heard: Arc<parking_lot::Mutex<Vec<_>>> = Arc::default();
            let hears = Arc::clone(&heard);
            let sink = ipc_transport::ProgressSink::new(move |progress: Progress| {
                hears.lock().push((progress.done, progress.total));
            });
            let payload = ipc_transport::Payload::Encoded(Encoded::from_value(&[(); 0]).unwrap());
            let request = Request::new("count", payload, std::time::Duration::from_secs(60));
            // Progress comes before the answer.
            let answer = block_on(caller.call(request.with_progress(sink)));
            assert!(answer.is_ok(), "{answer:?}");
            assert_eq!(*heard.lock(), [(1, Some(2))]);
        }
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
