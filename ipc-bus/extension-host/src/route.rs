//! The way of a call: to the endpoint if there is one, else it waits for one; and once more if that is safe.
//!
//! ```text
//! call -> endpoint? --yes--> sent -> answer, or a failure that is the caller's
//!            | no              |
//!            v                 +--> not delivered, or unknown and idempotent: the incarnation is gone
//!     queue, ask for a start <------/   (at most CALL_ATTEMPTS_MAX attempts, within the deadline)
//! ```
//!
//! A route never looks its extension up again: the extension's own endpoint is what changes. It must not know
//! how an extension is started.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use ipc_protocol::FaultCode;
use ipc_transport::{CallError, CallResult, Caller, Cause, Reply, Request, RetryLog};
use tokio::sync::oneshot;

use crate::extension::{Extension, Outgoing, Place, Sent};
use crate::snapshot::InstanceState;

/// LIMIT: attempts of one call, the first included.
const CALL_ATTEMPTS_MAX: u32 = 4;

/// Calls one extension, wherever its instance is in its life. Cheap to clone.
///
/// The first call starts the extension; calls wait while it starts, up to their deadline. While it is broken
/// they are rejected, with the reason.
///
/// # Concurrency
///
/// Calling takes no lock of the host's while an incarnation runs: one atomic load more than the connection itself.
/// Calls of one caller are delivered in order, over starts too, whether or not their replies are looked at. Only
/// one that is made again, because its incarnation ended, may come behind later ones.
#[derive(Clone)]
pub struct Route {
    extension: Arc<Extension>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Route").field(&self.extension.name).finish()
    }
}

/// A call with what it needs to be made again.
struct Call {
    extension: Arc<Extension>,
    outgoing: Outgoing,
    retry_log: Option<Arc<RetryLog>>,
}

impl Route {
    pub(crate) fn new(extension: Arc<Extension>) -> Self {
        Self { extension }
    }

    /// The extension's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.extension.name
    }
}

impl Caller for Route {
    fn call(&self, request: Request<'_>) -> Reply {
        let Request { method, payload, mut deadline, on_overload, retry_log } = request;
        if let Some(call_time_max) = self.extension.manifest.limits.call_time_max {
            deadline = deadline.min(Instant::now() + call_time_max);
        }
        // Encoded here, once, whether or not the call turns out to be made again: the typed value is only lent.
        let arguments = match payload.into_encoded() {
            Ok(arguments) => arguments,
            Err(error) => return Reply::ready(Err(error.into())),
        };
        let extension = Arc::clone(&self.extension);
        let outgoing = Outgoing { method: method.into(), arguments, deadline, on_overload };
        let call = Call { extension, outgoing, retry_log };
        // Sent or queued before this returns, so that calls of one caller stay in order.
        let first = match self.extension.endpoint.load().as_ref() {
            Some(endpoint) => {
                Ok(Place::Sent(Sent { reply: call.outgoing.send(endpoint), epoch: endpoint.epoch }))
            }
            None => self.extension.send_or_wait(&call.outgoing, 0),
        };
        match first {
            Ok(Place::Sent(Sent { reply, epoch })) => Reply::from_future(async move {
                match reply.await {
                    Err(error) if call.concerns_the_incarnation(&error, epoch) => {
                        Box::pin(call.again(error, epoch)).await
                    }
                    result => result,
                }
            }),
            Ok(Place::Waits(waits)) => Reply::from_future(call.begin(waits)),
            Err(error) => Reply::ready(Err(error)),
        }
    }
}

impl Call {
    /// The first attempt, where nothing was running.
    async fn begin(self, waits: oneshot::Receiver<Sent>) -> CallResult {
        let Sent { reply, epoch } = self.sent(waits).await?;
        match reply.await {
            Err(error) if self.concerns_the_incarnation(&error, epoch) => self.again(error, epoch).await,
            result => result,
        }
    }

    /// Further attempts, after `error` in the incarnation `epoch`.
    async fn again(self, mut error: CallError, mut epoch: u32) -> CallResult {
        for _ in 1..CALL_ATTEMPTS_MAX {
            let Some(cause) = self.reason_to_retry(&error) else { return Err(error) };
            let sent = match self.extension.send_or_wait(&self.outgoing, epoch) {
                Ok(Place::Sent(sent)) => Ok(sent),
                Ok(Place::Waits(waits)) => self.sent(waits).await,
                Err(full) => Err(full),
            };
            let sent = match sent {
                Ok(sent) => sent,
                // What was certain stays certain: nothing was delivered, and this is why nothing will be.
                Err(later) if matches!(error, CallError::NotDelivered(_)) => return Err(later),
                // It was delivered: whatever kept it from being delivered once more is not its outcome.
                Err(_) => return Err(error),
            };
            if let Some(log) = &self.retry_log {
                log.record(cause.clone());
            }
            self.extension.tell_retry(sent.epoch, &self.outgoing.method, &cause);
            epoch = sent.epoch;
            match sent.reply.await {
                Err(next) if self.concerns_the_incarnation(&next, epoch) => error = next,
                result => return result,
            }
        }
        Err(error)
    }

    /// Whether another incarnation might do better. Says nothing yet about whether trying is safe.
    fn concerns_the_incarnation(&self, error: &CallError, epoch: u32) -> bool {
        match error {
            CallError::NotDelivered(cause) | CallError::Unknown(cause) => *cause != Cause::Deadline,
            // Only who was told to drain may refuse a call so. Of any other it is an answer: no later incarnation
            // need ever come.
            CallError::Fault(fault) => fault.code == FaultCode::Draining && self.extension.is_drained(epoch),
            _ => false,
        }
    }

    /// Why the call may be made again; `None`: it must not.
    fn reason_to_retry(&self, error: &CallError) -> Option<Cause> {
        match error {
            CallError::NotDelivered(cause) => Some(cause.clone()),
            // It was refused, so that it did not run.
            CallError::Fault(fault) => Some(Cause::Closed(fault.message.clone())),
            CallError::Unknown(cause) => {
                self.extension.is_idempotent(&self.outgoing.method).then(|| cause.clone())
            }
            _ => None,
        }
    }

    /// Waits until the queue has sent the call, or there is a reason to wait no longer.
    async fn sent(&self, mut waits: oneshot::Receiver<Sent>) -> Result<Sent, CallError> {
        let why = tokio::select! {
            biased;
            sent = &mut waits => match sent {
                Ok(sent) => return Ok(sent),
                Err(_) => return Err(host_stops()),
            },
            why = self.no_start() => why,
            () = tokio::time::sleep_until(self.outgoing.deadline.into()) => {
                let cause = match self.extension.last_failure() {
                    Some(report) => Cause::Died(report.to_string()),
                    None => Cause::Deadline,
                };
                CallError::NotDelivered(cause)
            }
        };
        // Sent at the last moment, it has another outcome.
        self.extension.give_up(&mut waits).ok_or(why)
    }

    /// Waits until it is certain that no incarnation follows.
    async fn no_start(&self) -> CallError {
        let extension = &self.extension;
        let mut phases = extension.watch_phase();
        loop {
            let phase = phases.borrow_and_update().clone();
            match phase.state {
                InstanceState::Broken => {
                    let (reason, until) = match phase.broken {
                        Some((reason, until)) => (reason, Some(until)),
                        None => ("".into(), None),
                    };
                    let reason = format!("extension `{}` is broken: {reason}", extension.name);
                    let retry_after =
                        until.map(|until| until.saturating_duration_since(tokio::time::Instant::now()));
                    return CallError::Rejected { reason, retry_after };
                }
                InstanceState::Closed => return host_stops(),
                _ => {}
            }
            if phases.changed().await.is_err() {
                return host_stops();
            }
        }
    }
}

fn host_stops() -> CallError {
    CallError::Rejected { reason: "the host stops".to_owned(), retry_after: None }
}
