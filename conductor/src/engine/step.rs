//! One running step: its attempts, its fan-out, its retries.
//!
//! ```text
//! per item   waiting --admitted--> calling --answer--> done
//!               ^                     |
//!               +--- backing off <----+ failed, and the rule allows another attempt
//!                                     +--> the step fails; whatever is in flight is cancelled
//! ```
//!
//! A step that does not fan out is a fan-out over one item. An item that waits costs nothing: items are
//! numbers, and one claim at a time waits for all of them. Only what is in flight has a future. Dropping
//! the future of a step cancels its calls, and the cancel reaches the extension.
//!
//! This file must not know other steps, the graph or the artifact store.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{Fuse, FusedFuture as _, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use ipc_protocol::Codec;
use ipc_transport::payload::DecodeError;
use ipc_transport::stream::whole;
use ipc_transport::{Answer, CallError, CallResult, Caller, Payload, ProgressSink, Reply, Request, RetryLog};

use super::failure::StepError;
use super::retry::{Decision, decide_retry};
use crate::bridge::{Admission, Admitted};
use crate::document::CAUSES_MAX;
use crate::melody::{Arguments, ItemOutputs, Items, PlanStep, RetryCause, StepOutput};

/// Everything that a step needs, of its own: the run may change what it keeps meanwhile.
pub(super) struct StepTask<'run> {
    pub(super) plan: &'run PlanStep,
    /// `None` once nothing can need them any more: they may be as large as all that the run holds.
    pub(super) arguments: Option<Arguments>,
    /// What it fans out over; `None`: it makes one call.
    pub(super) items: Option<Items>,
    pub(super) caller: Arc<dyn Caller>,
    pub(super) admission: Admission,
    pub(super) timeout: Duration,
    /// LIMIT: items in flight at the same time.
    pub(super) in_flight_max: u32,
    pub(super) statistics: &'run StepStatistics,
    pub(super) observer: &'run dyn Observer,
}

/// Is told what happens to the items of one step; of a step that does not fan out, to item 0.
pub(super) trait Observer {
    /// An attempt begins.
    fn started(&self, item: u32, attempt: u32);
    /// An attempt failed, and another one is made later.
    fn backing_off(&self, item: u32, attempt: u32, cause: &str, wait: Duration);
    /// The time for another attempt has come.
    fn due(&self, item: u32, attempt: u32);
    /// Who hears how far the call of an item is, if anybody sees it.
    fn listener(&self, item: u32) -> Option<ProgressSink>;
    /// An item has its result. Not told of the last one: the step ends with it.
    fn done(&self, item: u32, attempt: u32, items_done: u32);
}

/// What is counted while a step runs; read by the run's owner, on the same thread.
#[derive(Debug, Default)]
pub(super) struct StepStatistics {
    attempts: Cell<u64>,
    causes: RefCell<Vec<String>>,
    host_retries: Arc<RetryLog>,
}

impl StepStatistics {
    /// Attempts made, the host's retries included.
    pub(super) fn attempts(&self) -> u64 {
        self.attempts.get() + self.host_retries.count()
    }

    /// Why attempts failed: what the host retried first, then what came through to the engine.
    pub(super) fn causes(&self) -> Vec<String> {
        let host = self.host_retries.causes();
        let host = host.iter().map(|cause| format!("{}: {cause}", cause.class()));
        host.chain(self.causes.borrow().iter().cloned()).take(CAUSES_MAX).collect()
    }

    fn failed(&self, error: &CallError) -> String {
        let class = RetryCause::of(error).map_or("error", RetryCause::name);
        let cause = format!("{class}: {error}");
        let mut causes = self.causes.borrow_mut();
        if causes.len() < CAUSES_MAX {
            causes.push(cause.clone());
        }
        cause
    }
}

/// What a step gave, and the attempt with which it ended.
#[derive(Debug)]
pub(super) struct StepSuccess {
    pub(super) output: StepOutput,
    /// Its last item and the number of the attempt; `None` for a fan-out over nothing.
    pub(super) last: Option<(u32, u32)>,
}

/// Why a step failed, and the attempt with which it did.
#[derive(Debug)]
pub(super) struct StepFailure {
    pub(super) error: Box<StepError>,
    /// The item and the number of its attempt; `None`: before any attempt began.
    pub(super) last: Option<(u32, u32)>,
    /// The item of the fan-out that is to blame, as it was given; `None`: none of them is.
    pub(super) item: Option<Bytes>,
}

impl StepFailure {
    /// A failure that is not the matter of one item.
    pub(super) fn new(error: StepError, last: Option<(u32, u32)>) -> Self {
        Self { error: Box::new(error), last, item: None }
    }
}

/// An item on its way: which, and the number of its attempt from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attempt {
    item: u32,
    number: u32,
}

/// A call in flight, with what it holds until it ends.
struct Flight {
    attempt: Attempt,
    reply: Reply,
    deadline: Instant,
    admitted: Admitted,
}

impl Flight {
    async fn end(self) -> (Attempt, CallResult) {
        // A step's output is one value.
        let result = whole(self.reply, self.deadline).await;
        drop(self.admitted);
        (self.attempt, result)
    }
}

impl StepTask<'_> {
    /// Makes every call of the step.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels what is in flight and gives back claims and leases.
    pub(super) async fn run(self) -> Result<StepSuccess, StepFailure> {
        let items = self.items.clone();
        let value = |failure: &StepFailure| items.as_ref()?.get(failure.last?.0);
        self.carry_out().await.map_err(|failure| StepFailure { item: value(&failure), ..failure })
    }

    async fn carry_out(mut self) -> Result<StepSuccess, StepFailure> {
        let count = self.items.as_ref().map_or(1, Items::len);
        let mut results = Results::new(self.items.is_some(), count);
        let mut last = None;
        let mut next_item = 0;
        let mut items_done = 0;
        let mut backing_off: BinaryHeap<Reverse<(Instant, Attempt)>> = BinaryHeap::new();
        let mut in_flight = FuturesUnordered::new();
        let admission = self.admission.clone();
        let mut admitting = pin!(Fuse::terminated());

        while items_done < count {
            let wake = backing_off.peek().map(|Reverse((time, _))| *time);
            let is_due = wake.is_some_and(|time| time <= Instant::now());
            let has_work = is_due || next_item < count;
            if has_work && in_flight.len() < self.in_flight_max as usize && admitting.is_terminated() {
                admitting.set(admission.admit().fuse());
            }
            let is_admitting = !admitting.is_terminated();
            let sleep = OptionalSleep(wake.filter(|_| !is_due));
            tokio::select! {
                biased;
                Some((attempt, result)) = in_flight.next(), if !in_flight.is_empty() => {
                    let Attempt { item, number } = attempt;
                    match result {
                        Ok(answer) => {
                            let failure = |error| StepFailure::new(error, Some((item, number)));
                            let bytes = self.bytes_of(answer).map_err(failure)?;
                            results.take(self.plan, item, bytes).map_err(failure)?;
                            items_done += 1;
                            last = Some((item, number));
                            if items_done < count {
                                self.observer.done(item, number, items_done);
                            }
                        }
                        Err(error) => {
                            let wait = self.after_failure(attempt, error)?;
                            let next = Attempt { item, number: number + 1 };
                            backing_off.push(Reverse((Instant::now() + wait, next)));
                        }
                    }
                }
                admitted = &mut admitting, if is_admitting => {
                    let admitted =
                        admitted.map_err(|error| StepFailure::new(StepError::Admission(error), None))?;
                    let attempt = match backing_off.pop_if_due() {
                        Some(attempt) => {
                            self.observer.due(attempt.item, attempt.number);
                            attempt
                        }
                        None if next_item < count => {
                            next_item += 1;
                            Attempt { item: next_item - 1, number: 1 }
                        }
                        // What was due when the claim was made is the only thing that can have gone.
                        None => continue,
                    };
                    in_flight.push(self.begin(attempt, admitted)?.end());
                }
                () = sleep.wait(), if sleep.0.is_some() => {}
            }
        }
        Ok(StepSuccess { output: results.into_output(), last })
    }

    /// Starts the call of an attempt that was admitted.
    fn begin(&mut self, attempt: Attempt, admitted: Admitted) -> Result<Flight, StepFailure> {
        let Attempt { item, number } = attempt;
        self.observer.started(item, number);
        self.statistics.attempts.set(self.statistics.attempts.get() + 1);
        let value = self.items.as_ref().and_then(|items| items.get(item));
        // INVARIANT: they are let go only with the one attempt that there is.
        let arguments = self.arguments.as_ref().expect("arguments are kept while an attempt may need them");
        let arguments = arguments
            .build(value.as_ref())
            .map_err(|error| StepFailure::new(error.into(), Some((item, number))))?;
        if self.items.is_none() && self.plan.retry.is_none() {
            self.arguments = None;
        }
        let request = Request::new(&self.plan.method, Payload::Encoded(arguments), self.timeout)
            .with_retry_log(self.statistics.host_retries.clone());
        let request = match self.observer.listener(item) {
            Some(listener) => request.with_progress(listener),
            None => request,
        };
        let deadline = request.deadline;
        Ok(Flight { attempt, reply: self.caller.call(request), deadline, admitted })
    }

    /// How long to wait before the next attempt.
    fn after_failure(&self, attempt: Attempt, error: CallError) -> Result<Duration, StepFailure> {
        let Attempt { item, number } = attempt;
        match decide_retry(self.plan.retry.as_ref(), number, &error, jitter()) {
            Decision::Again(wait) => {
                let cause = self.statistics.failed(&error);
                self.observer.backing_off(item, number, &cause, wait);
                Ok(wait)
            }
            Decision::GiveUp => {
                self.statistics.failed(&error);
                let error = StepError::Call { method: self.method(), timeout: self.timeout, source: error };
                Err(StepFailure::new(error, Some((item, number))))
            }
        }
    }

    fn bytes_of(&self, answer: Answer) -> Result<Bytes, StepError> {
        let failed = |source| StepError::Call { method: self.method(), timeout: self.timeout, source };
        let encoded = answer.into_encoded().map_err(|error| failed(error.into()))?;
        match encoded.codec {
            Codec::MessagePack => Ok(encoded.bytes),
            codec => Err(failed(DecodeError::Codec(codec).into())),
        }
    }

    fn method(&self) -> String {
        method_of(self.plan)
    }
}

/// `extension.method`.
pub(super) fn method_of(plan: &PlanStep) -> String {
    format!("{}.{}", plan.extension, plan.method)
}

/// Results as they come in.
enum Results {
    One(Option<StepOutput>),
    Many(ItemOutputs),
}

impl Results {
    fn new(fans_out: bool, count: u32) -> Self {
        if fans_out { Self::Many(ItemOutputs::new(count)) } else { Self::One(None) }
    }

    fn take(&mut self, plan: &PlanStep, item: u32, bytes: Bytes) -> Result<(), StepError> {
        match self {
            Self::One(output) => {
                let value = StepOutput::single(bytes);
                *output =
                    Some(value.map_err(|source| StepError::Malformed { method: method_of(plan), source })?);
            }
            Self::Many(outputs) => outputs
                .set(item, &bytes)
                .map_err(|source| StepError::Results { method: method_of(plan), source })?,
        }
        Ok(())
    }

    fn into_output(self) -> StepOutput {
        match self {
            // INVARIANT: a step that makes one call ends only with its result.
            Self::One(output) => output.unwrap_or_else(|| ItemOutputs::new(0).into()),
            Self::Many(outputs) => outputs.into(),
        }
    }
}

trait PopIfDue {
    fn pop_if_due(&mut self) -> Option<Attempt>;
}

impl PopIfDue for BinaryHeap<Reverse<(Instant, Attempt)>> {
    fn pop_if_due(&mut self) -> Option<Attempt> {
        let Reverse((time, _)) = self.peek()?;
        if *time > Instant::now() {
            return None;
        }
        self.pop().map(|Reverse((_, attempt))| attempt)
    }
}

/// Until a moment, if there is one.
struct OptionalSleep(Option<Instant>);

impl OptionalSleep {
    async fn wait(&self) {
        match self.0 {
            Some(time) => tokio::time::sleep_until(time.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// A number from 0 to 1 that need not be secret: it spreads attempts that failed together.
fn jitter() -> f64 {
    use std::hash::BuildHasher as _;
    let random = std::hash::RandomState::new().hash_one(0_u8);
    // 53 bits: every one of them fits into a float.
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
