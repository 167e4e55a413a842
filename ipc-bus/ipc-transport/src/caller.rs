//! One trait for every tier.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "tokio")]
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ipc_protocol::control::Progress;
use parking_lot::Mutex;

use crate::outcome::{CallError, CallResult, Cause};
use crate::payload::Payload;

/// Calls methods of one extension: the router's route, a socket connection, a loaded library.
///
/// # Semantics
///
/// 1. Exactly one outcome per call.
/// 2. `NotDelivered` only if the bytes were never visible to the extension; in doubt `Unknown`.
/// 3. Calls of one caller to one instance are delivered in order; answers come in any order.
/// 4. Dropping the [`Reply`] cancels the call; the cancel reaches the extension. Nobody learns the outcome
///    then: [`crate::CallError::Cancelled`] is for a caller who still waits.
pub trait Caller: Send + Sync {
    /// Starts a call. The payload is used up before this returns: it may borrow.
    fn call(&self, request: Request<'_>) -> Reply;
}

impl<C: Caller + ?Sized> Caller for Arc<C> {
    fn call(&self, request: Request<'_>) -> Reply {
        (**self).call(request)
    }
}

/// LIMIT: what a timeout counts as that no clock can add.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// One call on its way to a [`Caller`].
#[derive(Debug)]
pub struct Request<'a> {
    /// Name of the method.
    pub method: &'a str,
    /// Its arguments.
    pub payload: Payload<'a>,
    /// When the caller stops waiting. Every call has a deadline.
    pub deadline: Instant,
    /// The time as it was read for the deadline: whoever sends the request soon need not read it again. Whoever keeps
    /// a request sets it anew: what is left until the deadline is counted from here.
    pub made_at: Instant,
    /// What to do while the extension has too much to do.
    pub on_overload: OnOverload,
    /// Where retries by the host are written down, if anybody wants to know.
    pub retry_log: Option<Arc<RetryLog>>,
    /// Who hears how far the call is, if anybody does.
    pub progress: Option<ProgressSink>,
    /// How many calls of extensions this one serves, one within the other: 0 unless an extension makes it, else one more
    /// than the call has within which it is made. A host bounds it.
    pub depth: u8,
}

impl<'a> Request<'a> {
    /// A call that must be answered within `timeout`, and that waits while the extension is busy.
    #[must_use]
    pub fn new(method: &'a str, payload: Payload<'a>, timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            method,
            payload,
            deadline: now.checked_add(timeout).unwrap_or_else(|| now + TIMEOUT_MAX),
            made_at: now,
            on_overload: OnOverload::Wait,
            retry_log: None,
            progress: None,
            depth: 0,
        }
    }

    /// The same call, its retries written down in `log`.
    #[must_use]
    pub fn with_retry_log(mut self, log: Arc<RetryLog>) -> Self {
        self.retry_log = Some(log);
        self
    }

    /// The same call, its progress told to `progress`.
    #[must_use]
    pub fn with_progress(mut self, progress: ProgressSink) -> Self {
        self.progress = Some(progress);
        self
    }

    /// The same call, rejected at once instead of waiting while the extension is busy.
    #[must_use]
    pub fn or_reject(mut self) -> Self {
        self.on_overload = OnOverload::Reject;
        self
    }
}

/// What a call does while the extension has as much in flight or queued as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOverload {
    /// Wait until there is room or the deadline passes.
    Wait,
    /// End at once with [`crate::CallError::Rejected`].
    Reject,
}

/// Retries that the host made for one call, or for several that share the log.
#[derive(Debug, Default)]
pub struct RetryLog {
    retries: Mutex<Retries>,
}

#[derive(Debug, Default)]
struct Retries {
    count: u64,
    causes: Vec<Cause>,
}

impl RetryLog {
    /// LIMIT: causes kept; later retries are only counted.
    pub const CAUSES_MAX: usize = 64;

    /// Writes one retry down.
    pub fn record(&self, cause: Cause) {
        let mut retries = self.retries.lock();
        retries.count += 1;
        if retries.causes.len() < Self::CAUSES_MAX {
            retries.causes.push(cause);
        }
    }

    /// How many retries there were, those included whose cause is not kept.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.retries.lock().count
    }

    /// The causes of the first [`Self::CAUSES_MAX`] retries, oldest first.
    #[must_use]
    pub fn causes(&self) -> Vec<Cause> {
        self.retries.lock().causes.clone()
    }
}

/// Hears how far one call is, as its extension tells it. Whoever makes the call knows what it is for: so the
/// sink is its own, and needs no name. Clones are the same sink.
///
/// Nothing is kept between the extension and the sink. What it says too fast is dropped, what it says after the
/// call's end or after the reply was dropped is not heard. A call that the host makes again begins anew.
///
/// # Concurrency
///
/// Called by whoever reads the connection, one frame after the other, and once more at most while the reply is being
/// dropped. Through shared memory that is any caller who waits for an answer, on his thread. It must not block, call, or panic: the answers wait for it. Keep the last word, or send it on
/// without waiting.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use ipc_protocol::control::Progress;
/// use ipc_transport::ProgressSink;
///
/// let done = Arc::new(AtomicU64::new(0));
/// let seen = Arc::clone(&done);
/// let sink = ProgressSink::new(move |progress| seen.store(progress.done, Ordering::Relaxed));
/// sink.tell(Progress::new(3, Some(10), "reading"));
/// assert_eq!(done.load(Ordering::Relaxed), 3);
/// ```
#[derive(Clone)]
pub struct ProgressSink(Arc<dyn Fn(Progress) + Send + Sync>);

/// A sink that hears nothing any more when its call is over.
#[cfg(feature = "tokio")]
#[doc(hidden)]
pub type WeakProgressSink = Weak<dyn Fn(Progress) + Send + Sync>;

impl ProgressSink {
    /// A sink that calls `hear`.
    pub fn new(hear: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Tells how far the call is.
    pub fn tell(&self, progress: Progress) {
        (self.0)(progress);
    }

    #[cfg(feature = "tokio")]
    #[doc(hidden)]
    #[must_use]
    pub fn downgrade(&self) -> WeakProgressSink {
        Arc::downgrade(&self.0)
    }

    #[cfg(feature = "tokio")]
    #[doc(hidden)]
    #[must_use]
    pub fn upgrade(weak: &WeakProgressSink) -> Option<Self> {
        weak.upgrade().map(Self)
    }
}

impl std::fmt::Debug for ProgressSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProgressSink")
    }
}

/// A call in flight. Resolves once; dropping it before cancels the call.
#[must_use = "dropping a reply cancels the call"]
pub struct Reply(ReplyForm);

/// What becomes of a call that failed where it was sent.
pub trait Follow: Send {
    /// The call ended with `error`: that is its outcome, or it is made again.
    ///
    /// # Errors
    ///
    /// The outcome.
    fn failed(self: Box<Self>, error: CallError) -> Result<Reply, CallError>;
}

enum ReplyForm {
    Ready(Option<CallResult>),
    Boxed(Pin<Box<dyn Future<Output = CallResult> + Send>>),
    /// A connection's own form, which needs no allocation.
    #[cfg(feature = "tokio")]
    InFlight(crate::connection::InFlightReply, Option<Box<dyn Follow>>),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            ReplyForm::Ready(_) => "Reply(ready)",
            ReplyForm::Boxed(_) => "Reply(in flight)",
            #[cfg(feature = "tokio")]
            ReplyForm::InFlight(..) => "Reply(in flight)",
        })
    }
}

impl Reply {
    /// A call that ended before it was sent, or at once.
    pub fn ready(result: CallResult) -> Self {
        Self(ReplyForm::Ready(Some(result)))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn in_flight(reply: crate::connection::InFlightReply) -> Self {
        Self(ReplyForm::InFlight(reply, None))
    }

    /// Takes the outcome, if it is here already because the call ended before it was sent, or at once. Such a
    /// reply must not be polled any more.
    pub fn take_result(&mut self) -> Option<CallResult> {
        match &mut self.0 {
            ReplyForm::Ready(result) => result.take(),
            _ => None,
        }
    }

    /// The same call, which `follow` is asked about if it fails. Free for a call that does not.
    pub fn followed_by(self, follow: Box<dyn Follow>) -> Self {
        match self.0 {
            ReplyForm::Ready(Some(Err(error))) => {
                follow.failed(error).unwrap_or_else(|error| Self::ready(Err(error)))
            }
            ReplyForm::Ready(result) => Self(ReplyForm::Ready(result)),
            #[cfg(feature = "tokio")]
            ReplyForm::InFlight(reply, None) => Self(ReplyForm::InFlight(reply, Some(follow))),
            form => Self::from_future(async move {
                match Self(form).await {
                    Err(error) => match follow.failed(error) {
                        Ok(reply) => reply.await,
                        Err(error) => Err(error),
                    },
                    result => result,
                }
            }),
        }
    }

    /// A call that ends when `future` does; dropping the future must cancel it.
    pub fn from_future(future: impl Future<Output = CallResult> + Send + 'static) -> Self {
        Self(ReplyForm::Boxed(Box::pin(future)))
    }
}

impl Future for Reply {
    type Output = CallResult;

    /// # Panics
    ///
    /// When polled again after it resolved.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult> {
        match &mut self.0 {
            ReplyForm::Ready(result) => match result.take() {
                Some(result) => Poll::Ready(result),
                None => panic!("a reply was polled after it resolved"),
            },
            ReplyForm::Boxed(future) => future.as_mut().poll(cx),
            #[cfg(feature = "tokio")]
            ReplyForm::InFlight(reply, follow) => {
                let result = std::task::ready!(Pin::new(reply).poll(cx));
                match (result, follow.take()) {
                    (Err(error), Some(follow)) => match follow.failed(error) {
                        Ok(again) => {
                            *self = again;
                            self.poll(cx)
                        }
                        Err(error) => Poll::Ready(Err(error)),
                    },
                    (result, _) => Poll::Ready(result),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Encoded;

    #[test]
    fn a_log_counts_every_retry_and_keeps_the_first_causes() {
        let log = RetryLog::default();
        for index in 0..100 {
            log.record(Cause::Died(index.to_string()));
        }
        assert_eq!(log.count(), 100);
        let causes = log.causes();
        assert_eq!(causes.len(), RetryLog::CAUSES_MAX);
        assert_eq!(causes[63], Cause::Died("63".to_owned()));
    }

    #[test]
    fn a_timeout_beyond_all_clocks_is_a_long_time_and_no_panic() {
        let payload = Payload::Encoded(Encoded::message_pack(vec![0xc0]));
        let request = Request::new("method", payload, Duration::MAX);
        assert!(request.deadline > Instant::now() + TIMEOUT_MAX / 2);
    }
}
