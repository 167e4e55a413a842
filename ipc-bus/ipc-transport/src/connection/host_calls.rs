//! What a peer asks of this side while it serves a call: admitted, run beside everything else, answered once.
//!
//! ```text
//!   HostCall --refused: HostFault at once
//!      |
//!      v
//!   running (a task) --its end, its deadline, its panic--------------------> HostReply or HostFault
//!      |  cancelled by the peer, or the call that it serves is over --------> HostFault, the task is dropped
//!      \--the connection ends: dropped, nobody is left to be answered
//! ```
//!
//! Whoever takes a host call off the table answers it, and nobody else does. This module must not know what the
//! methods mean.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use ipc_protocol::control::DescriptorGrant;
use ipc_protocol::limits::HOST_CALLS_IN_FLIGHT_MAX;
use ipc_protocol::{Codec, Fault, FaultCode, Header, Kind, Origin, Retry};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use super::incoming::check_plain;
use super::state::{NotServed, Served};
use super::{CloseReason, Shared};
use crate::framing::{FrameRef, Violation, append_message};
use crate::in_flight::CallId;
use crate::payload::Encoded;

/// LIMIT: bytes of the arguments of all host calls of one peer that are not answered. One may have more, if it is
/// the only one.
const ARGUMENT_BYTES_MAX: u64 = 16 << 20;

/// What a peer should wait before it asks again, if there was too much at once.
const RETRY_AFTER_MS: u32 = 10;

/// What a peer may ask of this side, within the calls that it serves. Given with
/// [`ConnectOptions::host_calls`](super::ConnectOptions::host_calls).
pub trait HostCalls: fmt::Debug + Send + Sync + 'static {
    /// The names of the methods, in the order of the table that the peer is told.
    fn methods(&self) -> Vec<String>;

    /// Runs one. Called in a task of its own, for which the future must not block.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the host call: when its deadline has passed, when the peer gives it up, when the
    /// call that it serves is over, or when the connection ends. Nobody learns its outcome then.
    fn run(&self, call: HostCall) -> HostCallFuture;

    /// A call is over within which there were host calls: whatever is kept for it can go. `None`: the connection has ended.
    /// May come several times, and comes last after the last of its host calls. Must not block.
    fn over(&self, serves: Option<u64>) {
        let _ = serves;
    }
}

/// A host call that runs.
pub type HostCallFuture = Pin<Box<dyn Future<Output = Result<HostAnswer, Fault>> + Send>>;

/// The answer to a host call.
#[derive(Debug)]
pub struct HostAnswer {
    /// The result.
    pub result: Encoded,
    /// What the peer is given besides; only one that agreed to take descriptors can be.
    pub grant: Option<HostGrant>,
}

impl From<Encoded> for HostAnswer {
    fn from(result: Encoded) -> Self {
        Self { result, grant: None }
    }
}

/// A descriptor for the peer.
#[derive(Debug)]
pub struct HostGrant {
    /// The descriptor. Its copy here is closed when it was sent.
    pub descriptor: OwnedFd,
    /// Its purpose, its length, and whether the peer may write.
    pub grant: DescriptorGrant,
}

/// One host call.
#[derive(Debug)]
#[non_exhaustive]
pub struct HostCall {
    /// Index into [`HostCalls::methods`].
    pub method: u32,
    /// The call that it serves: another one for each, as long as the connection lasts.
    pub serves: u64,
    /// When it is given up: the deadline of the call that it serves.
    pub deadline: Instant,
    /// How many calls of extensions that one serves, one within the other: see [`Request::depth`](crate::Request::depth).
    pub depth: u8,
    /// Its arguments as MessagePack, which nobody has looked at; none are empty.
    pub arguments: Bytes,
}

/// The host calls of one connection.
#[derive(Debug)]
pub(super) struct Hosted {
    calls: Arc<dyn HostCalls>,
    methods_count: u32,
    connection: Weak<Shared>,
    /// Whoever reads a frame need not be a task of it.
    runtime: Handle,
    /// To be locked before the connection's state, never within it.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    running: HashMap<u64, Running>,
    argument_bytes: u64,
    is_over: bool,
}

#[derive(Debug)]
struct Running {
    serves: CallId,
    argument_bytes: u64,
    task: AbortHandle,
}

impl Table {
    fn take(&mut self, id: u64) -> Option<Running> {
        let running = self.running.remove(&id)?;
        self.argument_bytes -= running.argument_bytes;
        Some(running)
    }

    /// Why there is no room for another one, if there is none.
    fn refusal(&self, argument_bytes: u64) -> Option<Fault> {
        let count = self.running.len();
        let is_full = count >= HOST_CALLS_IN_FLIGHT_MAX as usize
            || count > 0 && self.argument_bytes + argument_bytes > ARGUMENT_BYTES_MAX;
        is_full.then(|| busy(format!("{count} host calls are not answered yet")))
    }
}

fn fault(code: FaultCode, message: impl Into<String>) -> Fault {
    Fault::new(code, message).with_origin(Origin::Host)
}

pub(super) fn busy(message: String) -> Fault {
    fault(FaultCode::Busy, message).with_retry(Retry::AfterMs(RETRY_AFTER_MS))
}

fn is_over() -> Fault {
    fault(FaultCode::Cancelled, "the call that the host call serves is over")
}

impl Hosted {
    /// Must be called within the runtime that is to run them.
    pub(super) fn new(calls: Arc<dyn HostCalls>, methods_count: usize, connection: Weak<Shared>) -> Self {
        let methods_count = u32::try_from(methods_count).unwrap_or(u32::MAX);
        Self { calls, methods_count, connection, runtime: Handle::current(), table: Mutex::default() }
    }

    /// Acts on a frame that only a peer with host calls may send: one of them, or the word that it is given up.
    pub(super) fn hear(&self, shared: &Shared, frame: FrameRef<'_>) -> Result<(), Violation> {
        check_plain(&frame.header)?;
        let id = frame.header.id;
        if frame.header.kind == Kind::Cancel {
            let taken = self.table.lock().take(id);
            match taken {
                Some(running) => {
                    running.task.abort();
                    shared.answer_host_call(
                        id,
                        Err(fault(FaultCode::Cancelled, "the caller cancelled the host call")),
                    );
                }
                // It was answered before.
                None => shared.state.lock().statistics_mut().ignored += 1,
            }
            return Ok(());
        }
        if let Some(refusal) = self.begin(shared, frame)? {
            shared.answer_host_call(id, Err(refusal));
        }
        Ok(())
    }

    /// Starts one, or says why not.
    fn begin(&self, shared: &Shared, frame: FrameRef<'_>) -> Result<Option<Fault>, Violation> {
        let Header { kind, id, method, aux, codec, length, .. } = frame.header;
        let unexpected = |expected| Err(Violation::Unexpected { kind, id, expected });
        if id == 0 {
            return unexpected("a host call has an id of its own, which is not 0");
        }
        let mut table = self.table.lock();
        if table.running.contains_key(&id) {
            return unexpected("the id of a host call that is not answered may not be used again");
        }
        if table.is_over {
            return Ok(Some(is_over()));
        }
        let Served { deadline, depth } = match shared.state.lock().serve(aux) {
            Ok(served) => served,
            Err(NotServed::Over) => return Ok(Some(is_over())),
            Err(NotServed::NeverSent) => return unexpected("the call that a host call serves was sent"),
        };
        if method >= self.methods_count {
            let message = format!("this host has no method number {method}");
            return Ok(Some(fault(FaultCode::UnknownMethod, message)));
        }
        if length > 0 && codec != Codec::MessagePack {
            let message = format!("codec {codec:?} was not agreed on for host calls");
            return Ok(Some(fault(FaultCode::Unsupported, message)));
        }
        let argument_bytes = u64::from(length);
        if let Some(refusal) = table.refusal(argument_bytes) {
            return Ok(Some(refusal));
        }
        let call = HostCall { method, serves: aux, deadline, depth, arguments: frame.body.into_bytes() };
        let answer = Answer { connection: Weak::clone(&self.connection), id, serves: aux, is_given: false };
        let task = self.runtime.spawn(run(Arc::clone(&self.calls), call, answer)).abort_handle();
        table.argument_bytes += argument_bytes;
        table.running.insert(id, Running { serves: CallId::from_wire(aux), argument_bytes, task });
        Ok(None)
    }

    /// Gives up all that serve one of `calls`, and says their ids.
    fn give_up(&self, calls: &[CallId]) -> Vec<u64> {
        let mut table = self.table.lock();
        let serving = |running: &Running| calls.contains(&running.serves);
        let ids: Vec<u64> =
            table.running.iter().filter(|(_, running)| serving(running)).map(|(id, _)| *id).collect();
        for running in ids.iter().filter_map(|id| table.take(*id)) {
            running.task.abort();
        }
        ids
    }

    /// Gives everything up: nobody is left to be answered.
    pub(super) fn end(&self) {
        {
            let mut table = self.table.lock();
            table.is_over = true;
            table.argument_bytes = 0;
            for (_, running) in table.running.drain() {
                running.task.abort();
            }
        }
        self.calls.over(None);
    }
}

async fn run(calls: Arc<dyn HostCalls>, call: HostCall, mut answer: Answer) {
    let deadline = call.deadline;
    let outcome = match timeout_at(deadline.into(), async move { calls.run(call).await }).await {
        Ok(outcome) => outcome,
        Err(_) => Err(fault(FaultCode::DeadlineExceeded, "the deadline of the call that it serves passed")
            .with_retry(Retry::Now)),
    };
    answer.give(outcome);
}

/// The answer to a host call that runs: given when it is dropped, if not before.
struct Answer {
    connection: Weak<Shared>,
    id: u64,
    serves: u64,
    is_given: bool,
}

impl Answer {
    fn give(&mut self, outcome: Result<HostAnswer, Fault>) {
        self.is_given = true;
        let Some(shared) = self.connection.upgrade() else { return };
        let Some(hosted) = &shared.hosted else { return };
        if hosted.table.lock().take(self.id).is_some() {
            shared.answer_host_call(self.id, outcome);
        } else if !shared.state.lock().is_served(self.serves) {
            // It was given up while it ran, and may have kept something after it was told that its call is over.
            hosted.calls.over(Some(self.serves));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.is_given {
            self.give(Err(fault(FaultCode::Failed, "the host failed while it ran the host call")));
        }
    }
}

impl Shared {
    /// Answers a host call that is on the table no longer, or never was.
    fn answer_host_call(&self, id: u64, outcome: Result<HostAnswer, Fault>) {
        let outcome = outcome.and_then(|answer| self.grant_beside_ring(id, answer));
        let mut state = self.state.lock();
        if let Err(violation) = state.answer_host_call(id, outcome) {
            // Its reader sees the end of the stream, and then this reason, which is the first.
            let _ = state.lose(CloseReason::Violation(violation.to_string()));
            drop(state);
            self.socket.shut_down();
            return;
        }
        self.finish(state, &mut Vec::new());
    }

    /// Sends what is granted with an answer, where it cannot go the way of the answer: descriptors do not lie in a ring.
    fn grant_beside_ring(&self, id: u64, mut answer: HostAnswer) -> Result<HostAnswer, Fault> {
        if answer.grant.is_some() && !self.grants_descriptors {
            return Err(fault(FaultCode::Unsupported, "the extension did not agree to take descriptors"));
        }
        if self.through_ring.is_some()
            && let Some(HostGrant { descriptor, grant }) = answer.grant.take()
        {
            let mut bytes = Vec::new();
            // A struct of numbers and strings cannot fail to be encoded.
            let _ = append_message(&mut bytes, granting(self.epoch, id), &grant);
            // Less than a page goes whole or not at all.
            let sent = self.socket.send_granting(&bytes, descriptor);
            if !sent.is_ok_and(|count| count == bytes.len()) {
                return Err(busy("descriptors wait to be taken".to_owned()));
            }
        }
        Ok(answer)
    }

    /// Gives up the host calls that serve calls which are over.
    pub(super) fn give_up_host_calls(&self, calls: &[CallId]) {
        let ids = self.hosted.as_ref().map(|hosted| hosted.give_up(calls)).unwrap_or_default();
        for id in ids {
            self.answer_host_call(id, Err(is_over()));
        }
        if let Some(hosted) = &self.hosted {
            calls.iter().for_each(|call| hosted.calls.over(Some(call.to_wire())));
        }
    }
}

/// The header of a descriptor that belongs to the answer to a host call.
pub(super) const fn granting(epoch: u32, id: u64) -> Header {
    Header { descriptors: 1, aux: 1, ..Header::new(Kind::Descriptor, epoch, id) }
}
