//! What typed clients are made of: a [`Caller`], a time limit, and the future of one call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[cfg(feature = "fast")]
use ipc_transport::codec::{FastBody, FastSlot};
use ipc_transport::{Answer, CallError, Caller, DecodeError, Message, Payload, Reply, Request, TypedSlot};

use crate::block_on::block_on;
use crate::interface::Sendable;

/// LIMIT: how long a call may take, unless the client is told otherwise.
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Calls methods by name with typed values. Typed clients are this with an interface's methods.
#[derive(Clone)]
pub struct Client {
    caller: Arc<dyn Caller>,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// Calls through `caller`, each call within [`CALL_TIMEOUT_DEFAULT`].
    pub fn new(caller: impl Caller + 'static) -> Self {
        Self { caller: Arc::new(caller), timeout: CALL_TIMEOUT_DEFAULT }
    }

    /// The same client with another time limit for every call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts a call.
    pub fn call<A: Sendable, R: Sendable>(&self, method: &str, arguments: A) -> Call<R> {
        let reply = self.start(method, &mut Some(arguments));
        Call { reply, decode: Answer::decode }
    }

    /// Starts a call of a method that takes the fast codec; `schema_hash` is what the caller's interface says of
    /// it. Whether the call goes in that codec is for whatever lies between to decide.
    #[doc(hidden)]
    #[cfg(feature = "fast")]
    pub fn call_fast<A, R>(&self, method: &str, schema_hash: u64, arguments: A) -> Call<R>
    where
        A: Sendable + FastBody,
        R: Sendable + FastBody,
    {
        let reply = self.start(method, &mut FastSlot::new(arguments, schema_hash));
        Call { reply, decode: Answer::decode_fast }
    }

    fn start(&self, method: &str, slot: &mut dyn TypedSlot) -> Reply {
        self.caller.call(Request::new(method, Payload::Typed(slot), self.timeout))
    }
}

/// A call under way, which resolves to its result.
///
/// # Cancel safety
///
/// Dropping it before it resolved cancels the call; the cancel reaches the extension.
///
/// # Errors
///
/// [`CallError`] says whether the call may have run, and with it whether calling again is safe.
#[must_use = "dropping a call cancels it"]
pub struct Call<R> {
    reply: Reply,
    decode: fn(Answer) -> Result<R, DecodeError>,
}

impl<R: Message> Call<R> {
    /// Waits for the result on the thread that asks: for a method that is not async, and calls another extension.
    ///
    /// # Errors
    ///
    /// Those of the call. With `?` in a method that returns a [`Fault`](crate::Fault) the error becomes one that says
    /// whether the call may have run.
    pub fn wait(self) -> Result<R, CallError> {
        block_on(self)
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.reply).finish()
    }
}

impl<R: Message> Future for Call<R> {
    type Output = Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.reply).poll(cx));
        Poll::Ready(answer.and_then(|answer| (self.decode)(answer).map_err(CallError::Decode)))
    }
}
