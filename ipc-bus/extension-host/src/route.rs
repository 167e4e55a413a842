//! The way of a call: to the endpoint if there is one, else it waits for one; and once more if that is safe.
//!
//! ```text
//! call -> broken, and somebody stands in for it? --yes--> the other one's route
//!      \-> endpoint? --yes--> sent -> answer, or a failure that is the caller's
//!            | no              |
//!            v                 +--> not delivered, or unknown and idempotent: the incarnation is gone
//!     queue, ask for a start <------/   (at most CALL_ATTEMPTS_MAX attempts, within the deadline)
//! ```
//!
//! A call's arguments are kept until its outcome is looked at, to make it again; one that ends at once, or is
//! given up, keeps nothing. What is kept for one extension is bounded: beyond that, calls are made once.
//!
//! A route never looks its extension up again: the extension's own endpoint is what changes. It must not know
//! how an extension is started.

use std::fmt;
use std::sync::Arc;

use crate::extension::{Arguments, Broken, Callee, Extension, FALLBACKS_MAX, Outgoing, Place, Sent, Waiting};
use crate::snapshot::InstanceState;
use ipc_protocol::FaultCode;
use ipc_transport::{CallError, CallResult, Caller, Cause, Follow, Reply, Request, RetryLog};

/// LIMIT: attempts of one call, the first included.
const CALL_ATTEMPTS_MAX: u32 = 4;

/// Calls one extension, wherever its instance is in its life. Cheap to clone.
///
/// The first call starts the extension; calls wait while it starts, up to their deadline. While it is broken
/// its fallback answers, if its manifest names one that is not; else they are refused, with the reason.
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

/// A call with what it needs to be made again. Its arguments are counted as kept, until it is dropped.
struct Call {
    extension: Arc<Extension>,
    outgoing: Outgoing,
    retry_log: Option<Arc<RetryLog>>,
    /// The incarnation that it was sent to last.
    epoch: u32,
}

impl Follow for Call {
    fn failed(self: Box<Self>, error: CallError) -> Result<Reply, CallError> {
        if !self.concerns_the_incarnation(&error, self.epoch) {
            return Err(error);
        }
        let epoch = self.epoch;
        Ok(Reply::from_future(self.again(error, epoch)))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.extension.give_back(self.outgoing.arguments.bytes_count());
    }
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
    fn call(&self, mut request: Request<'_>) -> Reply {
        if let Some(call_time_max) = self.extension.manifest.limits.call_time_max {
            request.deadline = request.deadline.min(request.made_at + call_time_max);
        }
        let endpoint = self.extension.endpoint.load();
        if endpoint.is_none()
            && let Some(other) = self.extension.stand_in()
        {
            return Self::new(other).call(request);
        }
        if let Some(endpoint) = endpoint.as_ref()
            && let Callee::InProcess(instance) = &endpoint.callee
        {
            endpoint.touch();
            let reply = instance.call_lent(&mut request);
            return self.follow_in_process(request, Sent { reply, epoch: endpoint.epoch });
        }
        let Request { method, payload, deadline, made_at, on_overload, retry_log, progress, depth } = request;
        // Encoded here, once, whether or not the call turns out to be made again: the typed value is only lent.
        let arguments = match Arguments::new(payload, method, endpoint.as_deref()) {
            Ok(arguments) => arguments,
            Err(error) => return Reply::ready(Err(error.into())),
        };
        let outgoing = Outgoing { method: method.into(), arguments, deadline, on_overload, progress, depth };
        let is_kept = self.extension.keep(outgoing.arguments.bytes_count());
        // Sent or queued before this returns, so that calls of one caller stay in order.
        if let Some(endpoint) = endpoint.as_ref() {
            let reply = outgoing.send(endpoint, made_at);
            if !is_kept {
                // Made once: the connection has a bound of its own.
                return reply;
            }
            let call = Call { extension: Arc::clone(&self.extension), outgoing, retry_log, epoch: 0 };
            return call.follow(Sent { reply, epoch: endpoint.epoch });
        }
        if !is_kept {
            return Reply::ready(Err(self.extension.keeps_enough()));
        }
        let call = Call { extension: Arc::clone(&self.extension), outgoing, retry_log, epoch: 0 };
        match self.extension.send_or_wait(&call.outgoing, 0) {
            Ok(Place::Sent(sent)) => call.follow(sent),
            Ok(Place::Waits(waiting)) => Reply::from_future(call.begin(waiting)),
            Err(error) => Reply::ready(Err(error)),
        }
    }
}

impl Route {
    /// A call that was made in this process. Most are over by now, and nothing of them was kept.
    fn follow_in_process(&self, request: Request<'_>, mut sent: Sent) -> Reply {
        let result = sent.reply.take_result();
        let is_over = result.as_ref().is_some_and(|result| match result {
            Ok(_) => true,
            Err(error) => !concerns_the_incarnation(&self.extension, error, sent.epoch),
        });
        if let Some(result) = result {
            sent.reply = Reply::ready(result);
        }
        if is_over {
            return sent.reply;
        }
        let Request { method, payload, deadline, on_overload, retry_log, progress, depth, .. } = request;
        // Encoded already, for the library: it could be, or the call would be over.
        let arguments = match Arguments::new(payload, method, None) {
            Ok(arguments) => arguments,
            Err(error) => return Reply::ready(Err(error.into())),
        };
        if !self.extension.keep(arguments.bytes_count()) {
            // Made once: the endpoint has a bound of its own.
            return sent.reply;
        }
        let outgoing = Outgoing { method: method.into(), arguments, deadline, on_overload, progress, depth };
        Call { extension: Arc::clone(&self.extension), outgoing, retry_log, epoch: 0 }.follow(sent)
    }
}

/// Whether another incarnation might do better. Says nothing yet about whether trying is safe.
fn concerns_the_incarnation(extension: &Extension, error: &CallError, epoch: u32) -> bool {
    match error {
        CallError::NotDelivered(cause) | CallError::Unknown(cause) => *cause != Cause::Deadline,
        // Only who was told to drain may refuse a call so. Of any other it is an answer: no later incarnation
        // need ever come.
        CallError::Fault(fault) => fault.code == FaultCode::Draining && extension.is_drained(epoch),
        _ => false,
    }
}

impl Call {
    /// A call that was sent. One that is over already keeps nothing, whether or not anybody looks at its reply.
    fn follow(mut self, Sent { reply, epoch }: Sent) -> Reply {
        self.epoch = epoch;
        reply.followed_by(Box::new(self))
    }

    /// The first attempt, where nothing was running.
    async fn begin(self, waiting: Waiting) -> CallResult {
        let Sent { reply, epoch } = match self.sent(&self.extension, waiting).await {
            Ok(sent) => sent,
            Err(error) => return self.elsewhere(error).await,
        };
        match reply.await {
            Err(error) if self.concerns_the_incarnation(&error, epoch) => self.again(error, epoch).await,
            result => result,
        }
    }

    /// It was not delivered, and will not be: whoever stands in for the extension answers, if anybody does. One who turns
    /// out to be broken as well is not the last to be asked.
    async fn elsewhere(&self, error: CallError) -> CallResult {
        for _ in 0..FALLBACKS_MAX {
            let Some(other) = self.extension.stand_in() else { break };
            let sent = match other.send_or_wait(&self.outgoing, 0)? {
                Place::Sent(sent) => Ok(sent),
                Place::Waits(waiting) => self.sent(&other, waiting).await,
            };
            match sent {
                Ok(sent) => return sent.reply.await,
                Err(_) if other.is_broken() => {}
                Err(error) => return Err(error),
            }
        }
        Err(error)
    }

    /// Further attempts, after `error` in the incarnation `epoch`.
    async fn again(self, mut error: CallError, mut epoch: u32) -> CallResult {
        for _ in 1..CALL_ATTEMPTS_MAX {
            let Some(cause) = self.reason_to_retry(&error) else { return Err(error) };
            let sent = match self.extension.send_or_wait(&self.outgoing, epoch) {
                Ok(Place::Sent(sent)) => Ok(sent),
                Ok(Place::Waits(waiting)) => self.sent(&self.extension, waiting).await,
                Err(full) => Err(full),
            };
            let sent = match sent {
                Ok(sent) => sent,
                // What was certain stays certain: nothing was delivered, and this is why nothing will be.
                Err(later) if matches!(error, CallError::NotDelivered(_)) => {
                    return self.elsewhere(later).await;
                }
                // It was delivered: whatever kept it from being delivered once more is not its outcome.
                Err(_) => return Err(error),
            };
            if let Some(log) = &self.retry_log {
                log.record(cause.clone());
            }
            self.extension.tell_retry(sent.epoch, self.outgoing.method.as_str(), &cause);
            epoch = sent.epoch;
            match sent.reply.await {
                Err(next) if self.concerns_the_incarnation(&next, epoch) => error = next,
                result => return result,
            }
        }
        Err(error)
    }

    fn concerns_the_incarnation(&self, error: &CallError, epoch: u32) -> bool {
        concerns_the_incarnation(&self.extension, error, epoch)
    }

    /// Why the call may be made again; `None`: it must not.
    fn reason_to_retry(&self, error: &CallError) -> Option<Cause> {
        match error {
            CallError::NotDelivered(cause) => Some(cause.clone()),
            // It was refused, so that it did not run.
            CallError::Fault(fault) => Some(Cause::Closed(fault.message.clone())),
            CallError::Unknown(cause) => {
                self.extension.is_idempotent(self.outgoing.method.as_str()).then(|| cause.clone())
            }
            _ => None,
        }
    }

    /// Waits until the queue has sent the call, or there is a reason to wait no longer.
    async fn sent(&self, extension: &Extension, mut waiting: Waiting) -> Result<Sent, CallError> {
        let why = tokio::select! {
            biased;
            sent = &mut waiting.sent => match sent {
                Ok(sent) => return Ok(sent),
                Err(_) => return Err(host_stops()),
            },
            why = no_start(extension) => why,
            () = tokio::time::sleep_until(self.outgoing.deadline.into()) => {
                let cause = match extension.last_failure() {
                    Some(report) => Cause::Died(report.to_string()),
                    None if extension.is_starting() => {
                        Cause::DeadlineAtStart(extension.name.as_ref().to_owned())
                    }
                    None => Cause::Deadline,
                };
                CallError::NotDelivered(cause)
            }
        };
        // Sent at the last moment, it has another outcome.
        extension.give_up(&mut waiting).ok_or(why)
    }
}

/// Waits until it is certain that no incarnation follows.
async fn no_start(extension: &Extension) -> CallError {
    let mut phases = extension.watch_phase();
    loop {
        let phase = phases.borrow_and_update().clone();
        match phase.state {
            InstanceState::Broken => return is_broken(&extension.name, phase.broken),
            InstanceState::Closed => return host_stops(),
            _ => {}
        }
        if phases.changed().await.is_err() {
            return host_stops();
        }
    }
}

/// The refusal of an extension that is left alone: its own doing, unless the host could not start it.
fn is_broken(name: &str, broken: Option<Broken>) -> CallError {
    let by_itself = broken.as_ref().is_some_and(|broken| broken.by_itself);
    // A program that cannot be executed does not mend itself, though the host tries it again.
    let until = broken.as_ref().filter(|broken| !(by_itself && broken.is_permanent));
    let until = until.map(|broken| broken.until);
    let retry_after = until.map(|until| until.saturating_duration_since(tokio::time::Instant::now()));
    let why = broken.map_or("".into(), |broken| broken.reason);
    let reason = format!("extension `{name}` is broken: {why}");
    if by_itself {
        CallError::NotDelivered(Cause::Broken { reason, retry_after })
    } else {
        CallError::Rejected { reason, retry_after }
    }
}

fn host_stops() -> CallError {
    CallError::Rejected { reason: "the host stops".to_owned(), retry_after: None }
}
