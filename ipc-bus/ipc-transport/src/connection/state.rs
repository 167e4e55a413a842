//! Everything that a connection knows, and every decision about it: pure, under one lock, with the time given.
//!
//! Nothing here reads, writes, sleeps or wakes: wakers are collected for the owner, who calls them after
//! unlocking. This module must not know sockets or tasks.
//!
//! ```text
//!          drain()            goodbye()
//!   Open ----------> Draining ----------> Leaving      no new calls from Draining on
//!     |                 |                    |
//!     +-----------------+--------------------+--> Lost      nothing more will be read; everything read is delivered
//!                                                   |  a cause is given, or one second passed
//!                                                   v
//!                                                 Ended     every call has its outcome
//! ```

mod ends;
mod hosting;
mod streams;
mod to_ring;

use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipc_protocol::limits::IN_FLIGHT_CALLS_MAX;
use ipc_protocol::{Codec, Header, Kind};

use super::{CloseReason, ConnectionStatistics};
use crate::caller::{OnOverload, WeakProgressSink};
use crate::in_flight::{CallId, CallerSide, InFlight, PeerSide};
use crate::outcome::{CallError, CallResult, Cause};
use crate::outgoing::{Batch, Outgoing, QueuedBody};
use crate::payload::Encoded;
use crate::ring::RingWriter;
pub(super) use hosting::{NotServed, Served};
use streams::Streams;
pub(super) use to_ring::Flushed;

/// LIMIT: calls of one connection that wait for room.
const WAITING_CALLS_MAX: u32 = IN_FLIGHT_CALLS_MAX;

/// LIMIT: bytes of arguments that take no time worth counting to encode, so that the clock as it was read before is fresh.
const FRESH_BYTES_MAX: u64 = 16 << 10;

/// What a rejected caller should wait before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) in_flight_max: u32,
    pub(super) queued_bytes_max: u64,
    pub(super) message_bytes_max: u64,
}

#[derive(Debug)]
pub(super) enum Phase {
    Open,
    Draining,
    Leaving,
    Lost(CloseReason),
    Ended(CloseReason, Cause),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriterPhase {
    /// Parked until there are bytes.
    Idle,
    /// Told that there are bytes.
    Signalled,
    /// Waits until the peer reads.
    Blocked,
}

/// What the writer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextWrite {
    /// It writes the batch that it was given.
    Batch,
    /// It waits until it is woken.
    Park,
    /// It says that nothing follows the goodbye, and is done.
    EndOfStream,
    /// It is done.
    Over,
}

#[derive(Debug)]
pub(super) struct State {
    epoch: u32,
    limits: Limits,
    phase: Phase,
    /// The host's word on how the peer ended. The first counts.
    cause: Option<Cause>,
    calls: InFlight,
    outgoing: Outgoing,
    /// Where the bytes go if not through the socket.
    ring: Option<RingWriter>,
    /// Whether the reader task will flush what was kept back.
    is_task_told: bool,
    /// Whether it was told that nothing follows the goodbye.
    has_ended_stream: bool,
    /// Calls that wait for room, oldest first; some may be over already.
    waiting: VecDeque<CallId>,
    waiting_live: u32,
    /// Bytes of their bodies.
    waiting_bytes: u64,
    writer: WriterPhase,
    writer_waker: Option<Waker>,
    /// Bytes of answers to the peer's own requests that were queued since the queue was empty.
    answer_bytes: u64,
    /// The time that was read for the bytes that are queued now.
    clock: Option<Instant>,
    timer_target: Option<Instant>,
    timer_moved: bool,
    watchers: u32,
    /// Calls that are over and had host calls, of which nobody was told yet.
    over_hosting: Vec<CallId>,
    streams: Streams,
    statistics: ConnectionStatistics,
}

/// What a call looks like before it has an id.
#[derive(Debug)]
pub(super) struct NewCall<'a> {
    pub(super) method: u32,
    pub(super) codec: Codec,
    pub(super) body: QueuedBody<'a>,
    pub(super) deadline: Instant,
    pub(super) made_at: Instant,
    pub(super) on_overload: OnOverload,
    pub(super) progress: Option<WeakProgressSink>,
    pub(super) depth: u8,
    /// Whether its result may name streams.
    pub(super) has_streams: bool,
}

impl State {
    pub(super) fn new(epoch: u32, limits: Limits, ring: Option<RingWriter>) -> Self {
        Self {
            epoch,
            limits,
            phase: Phase::Open,
            cause: None,
            calls: InFlight::default(),
            outgoing: Outgoing::default(),
            ring,
            is_task_told: false,
            has_ended_stream: false,
            waiting: VecDeque::new(),
            waiting_live: 0,
            waiting_bytes: 0,
            // Its first poll looks by itself.
            writer: WriterPhase::Idle,
            writer_waker: None,
            answer_bytes: 0,
            clock: None,
            timer_target: None,
            timer_moved: false,
            watchers: 0,
            over_hosting: Vec::new(),
            streams: Streams::default(),
            statistics: ConnectionStatistics::default(),
        }
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.calls.sent()
    }

    /// Since when nobody has waited for the oldest answer that is still owed and not wanted.
    pub(super) fn oldest_unanswered(&self) -> Option<Instant> {
        self.calls.oldest_unanswered()
    }

    /// Whether somebody waits for [`Self::is_idle`].
    pub(super) fn is_watched(&self) -> bool {
        self.watchers > 0
    }

    pub(super) fn watch(&mut self) {
        self.watchers += 1;
    }

    pub(super) fn unwatch(&mut self) {
        self.watchers -= 1;
    }

    /// Whether nobody waits for an outcome. Answers that are still owed and nobody wants do not count: an
    /// extension that never gives up what was cancelled would hold up every stop.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.awaited() == 0 && self.waiting_live == 0 && self.open_streams() == 0
    }

    pub(super) fn statistics_mut(&mut self) -> &mut ConnectionStatistics {
        &mut self.statistics
    }

    pub(super) fn statistics(&self) -> ConnectionStatistics {
        ConnectionStatistics {
            bytes_written: self.outgoing.written(),
            bytes_queued: self.outgoing.queued(),
            in_flight: self.calls.sent(),
            unanswered: self.calls.unanswered(),
            waiting: self.waiting_live,
            streams: self.open_streams(),
            ..self.statistics
        }
    }

    // ---- the caller's side -----------------------------------------------------------------------------

    /// Starts a call: sends it, or lets it wait for room.
    pub(super) fn begin(&mut self, call: &NewCall<'_>) -> Result<CallId, CallError> {
        let length = call.body.as_slice().len() as u64;
        if length > self.limits.message_bytes_max {
            return Err(self.reject(
                format!("{length} bytes are above the limit of {} bytes", self.limits.message_bytes_max),
                None,
            ));
        }
        // A call that begins after the end waits with the others for its cause.
        let is_lost = match &self.phase {
            Phase::Open => false,
            Phase::Lost(_) => true,
            Phase::Draining | Phase::Leaving => return Err(CallError::NotDelivered(draining())),
            Phase::Ended(_, cause) => return Err(CallError::NotDelivered(cause.clone())),
        };
        // Through a ring nothing waits to be written with it, so the caller's own reading is as good.
        let is_fresh = self.ring.is_some() && length <= FRESH_BYTES_MAX;
        let now = if is_fresh { call.made_at } else { self.now() };
        if call.deadline <= now {
            self.statistics.expired += 1;
            return Err(CallError::NotDelivered(Cause::Deadline));
        }
        if !is_lost && self.waiting_live == 0 && self.has_room(length) {
            let id = self.calls.insert(call.deadline, call.progress.clone());
            self.mark(id, call);
            self.arm_timer(call.deadline);
            self.send(id, call.method, call.codec, call.body, call.deadline - now);
            return Ok(id);
        }
        if !is_lost && call.on_overload == OnOverload::Reject {
            return Err(self.reject(
                format!(
                    "{} calls are in flight and {} bytes queued",
                    self.in_flight(),
                    self.outgoing.queued()
                ),
                Some(RETRY_AFTER),
            ));
        }
        if self.waiting_live == WAITING_CALLS_MAX {
            return Err(self.reject(format!("{WAITING_CALLS_MAX} calls wait already"), Some(RETRY_AFTER)));
        }
        // What waits for its cause is never sent.
        let kept = if is_lost { 0 } else { length };
        if self.waiting_bytes > 0 && self.waiting_bytes + kept > self.limits.queued_bytes_max {
            return Err(self.reject(
                format!("{} bytes wait already in {} calls", self.waiting_bytes, self.waiting_live),
                Some(RETRY_AFTER),
            ));
        }
        let id = self.calls.insert(call.deadline, call.progress.clone());
        self.mark(id, call);
        self.arm_timer(call.deadline);
        if let Some(slot) = self.calls.get_mut(id) {
            let bytes = if is_lost { Bytes::new() } else { call.body.to_bytes() };
            slot.peer = PeerSide::Waiting { method: call.method, body: Encoded { codec: call.codec, bytes } };
        }
        self.waiting.push_back(id);
        self.waiting_live += 1;
        self.waiting_bytes += kept;
        Ok(id)
    }

    /// Writes down what most calls do not have.
    fn mark(&mut self, id: CallId, call: &NewCall<'_>) {
        if (call.depth > 0 || call.has_streams)
            && let Some(slot) = self.calls.get_mut(id)
        {
            (slot.depth, slot.has_streams) = (call.depth, call.has_streams);
        }
    }

    /// The call's outcome, if it is here.
    pub(super) fn take_outcome(&mut self, id: CallId) -> Option<CallResult> {
        match self.calls.get_mut(id)?.caller {
            CallerSide::Ended(_) => self.calls.end_caller(id),
            CallerSide::Listening(_) | CallerSide::Gone => None,
        }
    }

    /// The call's outcome, or the promise to wake.
    pub(super) fn poll(&mut self, id: CallId, waker: &Waker) -> Poll<CallResult> {
        let Some(slot) = self.calls.get_mut(id) else {
            // INVARIANT: a caller's side ends only here and in `abandon`, after which nobody polls.
            return Poll::Ready(Err(CallError::Unknown(Cause::Closed("the call is over".to_owned()))));
        };
        match &mut slot.caller {
            CallerSide::Listening(Some(before)) if before.will_wake(waker) => Poll::Pending,
            CallerSide::Listening(before) => {
                *before = Some(waker.clone());
                Poll::Pending
            }
            CallerSide::Ended(_) | CallerSide::Gone => match self.calls.end_caller(id) {
                Some(result) => Poll::Ready(result),
                None => Poll::Pending,
            },
        }
    }

    /// The caller is gone: the extension is told, unless it answered or never heard of the call.
    pub(super) fn abandon(&mut self, id: CallId) {
        let now = self.now();
        let Some(slot) = self.calls.get_mut(id) else { return };
        let was_listening = matches!(slot.caller, CallerSide::Listening(_));
        match slot.peer {
            PeerSide::Waiting { .. } => self.end_waiting(id),
            PeerSide::Sent { .. } if was_listening => {
                slot.listens_until = now;
                if slot.is_hosting {
                    self.over_hosting.push(id);
                }
                self.push(Kind::Cancel, id.to_wire());
            }
            PeerSide::Sent { .. } | PeerSide::Over => {}
        }
        if was_listening {
            self.statistics.cancelled += 1;
        }
        self.calls.end_caller(id);
    }

    // ---- sending ---------------------------------------------------------------------------------------

    fn has_room(&self, length: u64) -> bool {
        self.calls.sent() < self.limits.in_flight_max
            && (self.outgoing.queued() + length <= self.limits.queued_bytes_max || self.outgoing.is_empty())
    }

    fn send(&mut self, id: CallId, method: u32, codec: Codec, body: QueuedBody<'_>, left: Duration) {
        let header = Header {
            codec,
            method,
            // Zero would mean that there is no deadline.
            aux: u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1),
            ..Header::new(Kind::Call, self.epoch, id.to_wire())
        };
        let start = self.outgoing.push(header, body);
        let is_fast = codec == Codec::Wincode;
        self.calls.set_sent(id, start, self.outgoing.end(), is_fast);
        self.statistics.calls += 1;
        self.statistics.calls_fast += u64::from(is_fast);
    }

    /// Sends the calls that waited, as far as there is room.
    fn admit(&mut self) {
        while let Some(&id) = self.waiting.front() {
            let waiting = match self.calls.get_mut(id) {
                Some(slot) => match &slot.peer {
                    PeerSide::Waiting { method, body } => Some((*method, body.clone(), slot.listens_until)),
                    PeerSide::Sent { .. } | PeerSide::Over => None,
                },
                None => None,
            };
            if let Some((method, body, deadline)) = waiting {
                if !matches!(self.phase, Phase::Open) || !self.has_room(body.bytes.len() as u64) {
                    return;
                }
                self.waiting_live -= 1;
                self.waiting_bytes -= body.bytes.len() as u64;
                let left = deadline.saturating_duration_since(self.now());
                self.send(id, method, body.codec, QueuedBody::Shared(&body.bytes), left);
            }
            self.waiting.pop_front();
        }
    }

    fn end_waiting(&mut self, id: CallId) {
        let waiting = self.calls.get_mut(id).and_then(|slot| match &slot.peer {
            PeerSide::Waiting { body, .. } => Some(body.bytes.len() as u64),
            PeerSide::Sent { .. } | PeerSide::Over => None,
        });
        if let Some(length) = waiting {
            self.waiting_live -= 1;
            self.waiting_bytes -= length;
            self.calls.end_peer(id);
            // Those that are over stay in the queue until they are many.
            if self.waiting.len() > 2 * self.waiting_live as usize + 64 {
                let calls = &mut self.calls;
                self.waiting.retain(|&id| {
                    calls.get_mut(id).is_some_and(|slot| matches!(slot.peer, PeerSide::Waiting { .. }))
                });
            }
        }
    }

    fn push(&mut self, kind: Kind, id: u64) {
        self.push_frame(Header::new(kind, self.epoch, id), &[]);
    }

    fn may_push(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining)
    }

    /// Queues a frame beside calls; nothing after this side's goodbye.
    fn push_frame(&mut self, header: Header, body: &[u8]) {
        if self.may_push() {
            self.outgoing.push(header, QueuedBody::Borrowed(body));
        }
    }

    /// No new calls; those that wait are given back.
    pub(super) fn drain(&mut self, wake: &mut Vec<Waker>) {
        if matches!(self.phase, Phase::Open) {
            self.push(Kind::Drain, 0);
            self.phase = Phase::Draining;
            self.fail_waiting(&draining(), wake);
        }
    }

    /// This side's last frame.
    pub(super) fn leave(&mut self, goodbye: &[u8], wake: &mut Vec<Waker>) {
        if matches!(self.phase, Phase::Open | Phase::Draining) {
            let header = Header { codec: Codec::MessagePack, ..Header::new(Kind::Goodbye, self.epoch, 0) };
            self.push_frame(header, goodbye);
            self.phase = Phase::Leaving;
            self.fail_waiting(&draining(), wake);
        }
    }

    fn reject(&mut self, reason: String, retry_after: Option<Duration>) -> CallError {
        self.statistics.rejected += 1;
        CallError::Rejected { reason, retry_after }
    }

    /// The time, read once for all bytes that go out together.
    fn now(&mut self) -> Instant {
        match self.clock {
            // What a ring has no room for waits for long.
            _ if self.ring.is_some() => Instant::now(),
            Some(clock) if !self.outgoing.is_empty() && self.writer != WriterPhase::Blocked => clock,
            _ => *self.clock.insert(Instant::now()),
        }
    }

    // ---- writer and timer ------------------------------------------------------------------------------

    /// The bytes to write at once, without the writer's help: when nothing else is queued or in flight.
    pub(super) fn direct_bytes(&self) -> Option<&[u8]> {
        if self.writer == WriterPhase::Idle && self.calls.sent() == 1 && self.ring.is_none() {
            self.outgoing.in_one_piece()
        } else {
            None
        }
    }

    pub(super) fn wrote_direct(&mut self, count: usize) {
        self.outgoing.wrote_piece(count);
    }

    /// The writer's waker, if it must be told of bytes.
    pub(super) fn signal_writer(&mut self) -> Option<Waker> {
        if self.writer == WriterPhase::Idle && !self.outgoing.is_empty() && self.ring.is_none() {
            self.writer = WriterPhase::Signalled;
            return self.writer_waker.take();
        }
        None
    }

    /// Whether the timer must look again at when it is to wake.
    pub(super) fn take_timer_moved(&mut self) -> bool {
        std::mem::take(&mut self.timer_moved)
    }

    pub(super) fn timer_target(&self) -> Option<Instant> {
        self.timer_target
    }

    fn arm_timer(&mut self, deadline: Instant) {
        if self.timer_target.is_none_or(|target| deadline < target) {
            self.timer_target = Some(deadline);
            self.timer_moved = true;
        }
    }

    /// What the writer does next. Parks it if there is nothing to write.
    pub(super) fn next_write(&mut self, batch: &mut Batch, waker: &Waker) -> NextWrite {
        if matches!(self.phase, Phase::Lost(_) | Phase::Ended(..)) {
            return NextWrite::Over;
        }
        if !self.outgoing.is_empty() {
            self.writer = WriterPhase::Signalled;
            self.outgoing.take(batch);
            return NextWrite::Batch;
        }
        if matches!(self.phase, Phase::Leaving) {
            return NextWrite::EndOfStream;
        }
        self.answer_bytes = 0;
        self.writer = WriterPhase::Idle;
        self.writer_waker = Some(waker.clone());
        NextWrite::Park
    }

    pub(super) fn wrote(&mut self, count: usize) {
        if matches!(self.phase, Phase::Ended(..)) {
            return;
        }
        self.outgoing.wrote(count);
        if self.waiting_live > 0 {
            self.admit();
        }
    }

    /// The peer does not read: the writer waits for it.
    pub(super) fn block_writer(&mut self, batch: &mut Batch, waker: &Waker) {
        if !matches!(self.phase, Phase::Ended(..)) {
            self.outgoing.give_back(batch);
        }
        self.writer = WriterPhase::Blocked;
        self.writer_waker = Some(waker.clone());
    }
}

fn draining() -> Cause {
    Cause::Closed("the extension is being drained".to_owned())
}
