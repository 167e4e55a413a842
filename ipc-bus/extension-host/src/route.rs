//! The way of a call: to the endpoint if there is one, else it waits for one; and once more if that is safe.
//!
//! ```text
//! call -> endpoint? --yes--> sent -> answer, or a failure that is the caller's
//!            | no              |
//!            v                 +--> not delivered, or unknown and idempotent: the incarnation is gone
//!     ask for a start, wait <-------/   (at most CALL_ATTEMPTS_MAX attempts, within the deadline)
//! ```
//!
//! A route never looks its extension up again: the extension's own endpoint is what changes. It must not know
//! how an extension is started.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use ipc_protocol::FaultCode;
use ipc_transport::{
    CallError, CallResult, Caller, Cause, Encoded, OnOverload, Payload, Reply, Request, RetryLog,
};

use crate::extension::{Endpoint, Extension, Wanting};
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
/// Calling takes no lock of the host's: one atomic load more than the connection itself. Calls of one caller are
/// delivered in order while an incarnation runs; those made while none runs may overtake each other.
#[derive(Clone)]
pub struct Route {
    extension: Arc<Extension>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Route").field(&self.extension.name).finish()
    }
}

/// What every attempt of a call needs.
struct Call {
    extension: Arc<Extension>,
    method: Box<str>,
    arguments: Encoded,
    deadline: Instant,
    on_overload: OnOverload,
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
        let call = Call { extension, method: method.into(), arguments, deadline, on_overload, retry_log };
        // Sent before this returns, so that calls of one caller stay in order.
        let first =
            self.extension.endpoint.load().as_ref().map(|endpoint| (call.send(endpoint), endpoint.epoch));
        // Started from here on, too, and not only when the reply is looked at.
        let wanting = first.is_none().then(|| self.extension.want());
        Reply::from_future(async move {
            let Some((reply, epoch)) = first else { return Box::pin(call.begin(wanting)).await };
            match reply.await {
                Err(error) if call.concerns_the_incarnation(&error) => {
                    Box::pin(call.again(error, epoch)).await
                }
                result => result,
            }
        })
    }
}

impl Call {
    fn send(&self, endpoint: &Endpoint) -> Reply {
        endpoint.touch();
        endpoint.connection.call(Request {
            method: &self.method,
            payload: Payload::Encoded(self.arguments.clone()),
            deadline: self.deadline,
            on_overload: self.on_overload,
            retry_log: None,
        })
    }

    /// The first attempt, where nothing was running.
    async fn begin(self, wanting: Option<Wanting>) -> CallResult {
        let endpoint = self.endpoint_after(0).await?;
        drop(wanting);
        match self.send(&endpoint).await {
            Err(error) if self.concerns_the_incarnation(&error) => self.again(error, endpoint.epoch).await,
            result => result,
        }
    }

    /// Further attempts, after `error` in the incarnation `epoch`.
    async fn again(self, mut error: CallError, mut epoch: u32) -> CallResult {
        for _ in 1..CALL_ATTEMPTS_MAX {
            let Some(cause) = self.reason_to_retry(&error) else { return Err(error) };
            let endpoint = match self.endpoint_after(epoch).await {
                Ok(endpoint) => endpoint,
                // What was certain stays certain: nothing was delivered, and this is why nothing will be.
                Err(later) if matches!(error, CallError::NotDelivered(_) | CallError::Fault(_)) => {
                    return Err(later);
                }
                Err(_) => return Err(error),
            };
            if let Some(log) = &self.retry_log {
                log.record(cause.clone());
            }
            self.extension.tell_retry(endpoint.epoch, &self.method, &cause);
            epoch = endpoint.epoch;
            match self.send(&endpoint).await {
                Err(next) if self.concerns_the_incarnation(&next) => error = next,
                result => return result,
            }
        }
        Err(error)
    }

    /// Whether another incarnation might do better. Says nothing yet about whether trying is safe.
    fn concerns_the_incarnation(&self, error: &CallError) -> bool {
        match error {
            CallError::NotDelivered(cause) | CallError::Unknown(cause) => *cause != Cause::Deadline,
            CallError::Fault(fault) => fault.code == FaultCode::Draining,
            _ => false,
        }
    }

    /// Why the call may be made again; `None`: it must not.
    fn reason_to_retry(&self, error: &CallError) -> Option<Cause> {
        match error {
            CallError::NotDelivered(cause) => Some(cause.clone()),
            // It was refused, so that it did not run.
            CallError::Fault(fault) => Some(Cause::Closed(fault.message.clone())),
            CallError::Unknown(cause) => self.extension.is_idempotent(&self.method).then(|| cause.clone()),
            _ => None,
        }
    }

    /// Waits for an incarnation later than `epoch`, and has one started if nothing runs.
    async fn endpoint_after(&self, epoch: u32) -> Result<Arc<Endpoint>, CallError> {
        let extension = &self.extension;
        let mut phases = extension.watch_phase();
        let _wanting = extension.want();
        loop {
            let phase = phases.borrow_and_update().clone();
            match phase.state {
                InstanceState::Ready => {
                    let endpoint = extension.endpoint.load_full().filter(|endpoint| endpoint.epoch > epoch);
                    if let Some(endpoint) = endpoint {
                        return Ok(endpoint);
                    }
                }
                InstanceState::Broken => {
                    let (reason, until) = match phase.broken {
                        Some((reason, until)) => (reason, Some(until)),
                        None => ("".into(), None),
                    };
                    let reason = format!("extension `{}` is broken: {reason}", extension.name);
                    let retry_after =
                        until.map(|until| until.saturating_duration_since(tokio::time::Instant::now()));
                    return Err(CallError::Rejected { reason, retry_after });
                }
                InstanceState::Closed => return Err(host_stops()),
                _ => {}
            }
            let deadline = tokio::time::Instant::from_std(self.deadline);
            match tokio::time::timeout_at(deadline, phases.changed()).await {
                Err(_) => return Err(CallError::NotDelivered(Cause::Deadline)),
                Ok(Err(_)) => return Err(host_stops()),
                Ok(Ok(())) => {}
            }
        }
    }
}

fn host_stops() -> CallError {
    CallError::Rejected { reason: "the host stops".to_owned(), retry_after: None }
}
