//! What an in-process endpoint knows of its calls, and every decision about them: pure, under one lock, with the
//! time given.
//!
//! Nothing here calls the library, sleeps or wakes: what is to be done comes back to the owner, who does it after
//! unlocking. This file must not know tables or threads.
//!
//! ```text
//!          drain()           end()
//!   Open ----------> Draining -----> Ended          from anywhere; reopen() begins a new term
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipc_protocol::limits::IN_FLIGHT_CALLS_MAX;
use ipc_transport::caller::WeakProgressSink;
use ipc_transport::connection::ConnectionStatistics;
use ipc_transport::in_flight::{CallId, CallerSide, InFlight, PeerSide};
use ipc_transport::{CallError, CallResult, Cause, Encoded, OnOverload, ProgressSink};

/// LIMIT: calls of one instance that wait for room.
const WAITING_CALLS_MAX: u32 = IN_FLIGHT_CALLS_MAX;

/// What a rejected caller should wait before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) in_flight_max: u32,
    /// Of the arguments of calls that wait for room.
    pub(super) queued_bytes_max: u64,
    pub(super) message_bytes_max: u64,
}

#[derive(Debug)]
enum Phase {
    Open,
    Draining,
    Ended(Cause),
}

/// See the file.
#[derive(Debug)]
pub(super) struct Books {
    limits: Limits,
    phase: Phase,
    /// Which instance these are the books of: handles of an earlier one get nothing done.
    term: u32,
    calls: InFlight,
    /// For each slot the word that names its call while that is cancelled. The library may read it at any time.
    words: Vec<&'static AtomicU64>,
    /// Calls that wait for room, oldest first; some may be over already.
    waiting: VecDeque<CallId>,
    waiting_live: u32,
    waiting_bytes: u64,
    /// Threads of this side that are in a function of the library.
    inside: u32,
    timer_target: Option<Instant>,
    watchers: u32,
    statistics: ConnectionStatistics,
}

/// A call that was taken on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begun {
    /// To be handed to the library now, with its word; then [`Books::collect`].
    Send(CallId, &'static AtomicU64),
    /// It waits for room. Whether the timer must look again.
    Waits(CallId, bool),
}

/// Arguments of a call: kept only where it must wait.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    Lent(&'a [u8]),
    Shared(&'a Bytes),
}

impl Body<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    fn to_encoded(self) -> Encoded {
        Encoded::message_pack(match self {
            Self::Lent(bytes) => Bytes::copy_from_slice(bytes),
            Self::Shared(bytes) => bytes.clone(),
        })
    }
}

/// What a call looks like before it has an id.
pub(super) struct NewCall<'a> {
    pub(super) method: u32,
    pub(super) body: Body<'a>,
    pub(super) deadline: Instant,
    pub(super) on_overload: OnOverload,
    pub(super) progress: Option<WeakProgressSink>,
}

/// A call that waited and is to be handed over now; then [`Books::left`].
pub(super) struct Admitted {
    pub(super) id: CallId,
    pub(super) word: &'static AtomicU64,
    pub(super) method: u32,
    pub(super) body: Encoded,
    pub(super) deadline: Instant,
}

impl Books {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            phase: Phase::Ended(Cause::Closed("it was not started yet".to_owned())),
            term: 0,
            calls: InFlight::default(),
            words: Vec::new(),
            waiting: VecDeque::new(),
            waiting_live: 0,
            waiting_bytes: 0,
            inside: 0,
            timer_target: None,
            watchers: 0,
            statistics: ConnectionStatistics::default(),
        }
    }

    /// Begins a new term, with nothing of the one before it. Returns its number.
    pub(super) fn reopen(&mut self, limits: Limits) -> u32 {
        self.limits = limits;
        self.phase = Phase::Open;
        self.term += 1;
        self.statistics = ConnectionStatistics::default();
        self.term
    }

    pub(super) fn is_term(&self, term: u32) -> bool {
        self.term == term
    }

    /// Why the instance takes no calls, if it does not.
    fn closed(&self, term: u32) -> Option<Cause> {
        match &self.phase {
            _ if self.term != term => Some(Cause::Closed("the instance was stopped".to_owned())),
            Phase::Open => None,
            Phase::Draining => Some(Cause::Closed("the extension is being drained".to_owned())),
            Phase::Ended(cause) => Some(cause.clone()),
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Takes a call on.
    pub(super) fn begin(&mut self, term: u32, call: &NewCall<'_>, now: Instant) -> Result<Begun, CallError> {
        let length = call.body.as_slice().len() as u64;
        if length > self.limits.message_bytes_max {
            let limit = self.limits.message_bytes_max;
            return Err(self.reject(format!("{length} bytes are above the limit of {limit} bytes"), None));
        }
        if let Some(cause) = self.closed(term) {
            return Err(CallError::NotDelivered(cause));
        }
        if call.deadline <= now {
            self.statistics.expired += 1;
            return Err(CallError::NotDelivered(Cause::Deadline));
        }
        if self.waiting_live == 0 && self.calls.sent() < self.limits.in_flight_max {
            let id = self.calls.insert(call.deadline, call.progress.clone());
            self.send(id, length);
            return Ok(Begun::Send(id, self.word(id)));
        }
        if call.on_overload == OnOverload::Reject {
            return Err(self.reject(format!("{} calls are in flight", self.calls.sent()), Some(RETRY_AFTER)));
        }
        if self.waiting_live == WAITING_CALLS_MAX {
            return Err(self.reject(format!("{WAITING_CALLS_MAX} calls wait already"), Some(RETRY_AFTER)));
        }
        if self.waiting_bytes > 0 && self.waiting_bytes + length > self.limits.queued_bytes_max {
            let text = format!("{} bytes wait already in {} calls", self.waiting_bytes, self.waiting_live);
            return Err(self.reject(text, Some(RETRY_AFTER)));
        }
        let id = self.calls.insert(call.deadline, call.progress.clone());
        if let Some(slot) = self.calls.get_mut(id) {
            slot.peer = PeerSide::Waiting { method: call.method, body: call.body.to_encoded() };
        }
        self.waiting.push_back(id);
        self.waiting_live += 1;
        self.waiting_bytes += length;
        Ok(Begun::Waits(id, self.arm(call.deadline)))
    }

    fn send(&mut self, id: CallId, length: u64) {
        self.calls.set_sent(id, 0, 0, false);
        self.statistics.calls += 1;
        self.statistics.bytes_written += length;
        self.inside += 1;
    }

    /// Whether the timer must look earlier than it would.
    fn arm(&mut self, deadline: Instant) -> bool {
        let is_earlier = self.timer_target.is_none_or(|target| deadline < target);
        if is_earlier {
            self.timer_target = Some(deadline);
        }
        is_earlier
    }

    /// A thread is out of the library again.
    pub(super) fn left(&mut self) {
        self.inside -= 1;
    }

    /// Lets a thread into the library for anything but a call. It must say [`Self::left`].
    pub(super) fn enter(&mut self, term: u32) -> bool {
        let may_enter = self.term == term && !self.is_ended();
        self.inside += u32::from(may_enter);
        may_enter
    }

    /// The outcome of a call that was just handed over, if it has one; else whether the timer must look again.
    pub(super) fn collect(&mut self, id: CallId, deadline: Instant) -> Result<CallResult, bool> {
        self.left();
        match self.calls.get_mut(id) {
            Some(slot) if matches!(slot.caller, CallerSide::Listening(_)) => Err(self.arm(deadline)),
            _ => self.calls.end_caller(id).ok_or(false),
        }
    }

    /// The word that says whether this call is cancelled.
    pub(super) fn word(&mut self, id: CallId) -> &'static AtomicU64 {
        let index = id.index() as usize;
        while self.words.len() <= index {
            // LIMIT: one for each call that was ever in flight at the same time. The library may read it for ever.
            self.words.push(Box::leak(Box::default()));
        }
        self.words[index]
    }

    /// Says in its word that the call is cancelled.
    fn mark(&mut self, id: CallId) {
        // ORDERING(cancel): Relaxed, the word guards no other data; a handler may see it a little later.
        self.word(id).store(id.to_wire(), Ordering::Relaxed);
    }

    /// The call's outcome, or the promise to wake.
    pub(super) fn poll(&mut self, id: CallId, waker: &Waker) -> Poll<CallResult> {
        if let Some(slot) = self.calls.get_mut(id)
            && let CallerSide::Listening(before) = &mut slot.caller
        {
            if !before.as_ref().is_some_and(|before| before.will_wake(waker)) {
                *before = Some(waker.clone());
            }
            return Poll::Pending;
        }
        // INVARIANT: a caller's side ends only here, in `collect` and in `abandon`, after which nobody polls.
        let over = || Err(CallError::Unknown(Cause::Closed("the call is over".to_owned())));
        Poll::Ready(self.calls.end_caller(id).unwrap_or_else(over))
    }

    /// The caller is gone. Returns whether the library must be told.
    pub(super) fn abandon(&mut self, id: CallId, now: Instant) -> bool {
        let Some(slot) = self.calls.get_mut(id) else { return false };
        let was_listening = matches!(slot.caller, CallerSide::Listening(_));
        let is_told = match slot.peer {
            PeerSide::Waiting { .. } => {
                self.end_waiting(id);
                false
            }
            PeerSide::Sent { .. } if was_listening => {
                slot.listens_until = now;
                self.mark(id);
                true
            }
            PeerSide::Sent { .. } | PeerSide::Over => false,
        };
        self.statistics.cancelled += u64::from(was_listening);
        self.calls.end_caller(id);
        is_told
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

    /// The next call for which there is room now.
    pub(super) fn admit(&mut self) -> Option<Admitted> {
        loop {
            if !matches!(self.phase, Phase::Open) || self.calls.sent() >= self.limits.in_flight_max {
                return None;
            }
            let id = self.waiting.pop_front()?;
            let Some(slot) = self.calls.get_mut(id) else { continue };
            if let PeerSide::Waiting { method, body } = std::mem::replace(&mut slot.peer, PeerSide::Over) {
                let (deadline, length) = (slot.listens_until, body.bytes.len() as u64);
                self.waiting_live -= 1;
                self.waiting_bytes -= length;
                self.send(id, length);
                return Some(Admitted { id, word: self.word(id), method, body, deadline });
            }
        }
    }

    /// Takes the one outcome that the library owes for the call `id`. Returns whether a call may be admitted now.
    pub(super) fn complete(
        &mut self,
        id: u64,
        result: CallResult,
        length: usize,
        wake: &mut Vec<Waker>,
    ) -> bool {
        let id = CallId::from_wire(id);
        let Some(slot) = self.calls.get_mut(id) else {
            let was_issued = self.calls.was_issued(id);
            self.statistics.duplicates += u64::from(was_issued);
            self.statistics.ignored += u64::from(!was_issued);
            return false;
        };
        if !matches!(slot.peer, PeerSide::Sent { .. }) {
            self.statistics.duplicates += 1;
            return false;
        }
        self.statistics.bytes_read += length as u64;
        if self.calls.end(id, result, wake) {
            self.statistics.answers += 1;
        } else {
            self.statistics.late += 1;
        }
        self.calls.end_peer(id);
        self.waiting_live > 0
    }

    /// Who hears how far a call is, if anybody does.
    pub(super) fn running(&mut self, id: u64) -> Option<ProgressSink> {
        let slot = self.calls.get_mut(CallId::from_wire(id));
        let slot = slot.filter(|slot| {
            matches!((&slot.peer, &slot.caller), (PeerSide::Sent { .. }, CallerSide::Listening(_)))
        });
        if slot.is_none() {
            self.statistics.ignored += 1;
        }
        slot.and_then(|slot| slot.progress.as_ref()).and_then(ProgressSink::upgrade)
    }

    /// Ends every call whose deadline has passed. Returns those that the library must be told of.
    pub(super) fn expire(&mut self, now: Instant, wake: &mut Vec<Waker>) -> Vec<CallId> {
        let (mut next, mut sent, mut waiting) = (None::<Instant>, Vec::new(), Vec::new());
        for (id, slot) in self.calls.iter_mut() {
            if !matches!(slot.caller, CallerSide::Listening(_)) {
                continue;
            }
            if slot.listens_until > now {
                next = Some(next.map_or(slot.listens_until, |next| next.min(slot.listens_until)));
                continue;
            }
            self.statistics.expired += 1;
            slot.listens_until = now;
            match slot.peer {
                PeerSide::Sent { .. } => sent.push(id),
                PeerSide::Waiting { .. } | PeerSide::Over => waiting.push(id),
            }
        }
        for id in waiting {
            self.calls.end(id, Err(CallError::NotDelivered(Cause::Deadline)), wake);
            self.end_waiting(id);
        }
        for &id in &sent {
            self.mark(id);
            self.calls.end(id, Err(CallError::Unknown(Cause::Deadline)), wake);
        }
        self.timer_target = next;
        sent
    }

    pub(super) fn timer_target(&self) -> Option<Instant> {
        self.timer_target
    }

    /// No new calls; those that wait are given back.
    pub(super) fn drain(&mut self, term: u32, wake: &mut Vec<Waker>) {
        if self.term == term && matches!(self.phase, Phase::Open) {
            self.phase = Phase::Draining;
            let cause = Cause::Closed("the extension is being drained".to_owned());
            self.fail_waiting(&cause, wake);
        }
    }

    fn fail_waiting(&mut self, cause: &Cause, wake: &mut Vec<Waker>) {
        for id in std::mem::take(&mut self.waiting) {
            if self.calls.get_mut(id).is_some_and(|slot| matches!(slot.peer, PeerSide::Waiting { .. })) {
                self.calls.end(id, Err(CallError::NotDelivered(cause.clone())), wake);
                self.end_waiting(id);
            }
        }
    }

    /// Every call gets its outcome, and no function of the library is entered any more. What it still runs, it
    /// still owes.
    pub(super) fn end(&mut self, term: u32, cause: &Cause, now: Instant, wake: &mut Vec<Waker>) {
        if self.term != term || self.is_ended() {
            return;
        }
        self.phase = Phase::Ended(cause.clone());
        self.fail_waiting(cause, wake);
        let listening: Vec<CallId> = self
            .calls
            .iter_mut()
            .filter(|(_, slot)| matches!(slot.caller, CallerSide::Listening(_)))
            .map(|(id, slot)| {
                slot.listens_until = now;
                id
            })
            .collect();
        for id in listening {
            self.mark(id);
            self.calls.end(id, Err(CallError::Unknown(cause.clone())), wake);
        }
        self.timer_target = None;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.calls.awaited() == 0 && self.waiting_live == 0
    }

    /// Whether no thread of this side is in the library.
    pub(super) fn is_outside(&self) -> bool {
        self.inside == 0
    }

    /// Whether the library owes nothing: nothing of this term can reach a later one.
    pub(super) fn is_quiet(&self) -> bool {
        self.inside == 0 && self.calls.sent() == 0
    }

    pub(super) fn watch(&mut self, watchers: i32) {
        self.watchers = self.watchers.saturating_add_signed(watchers);
    }

    /// Whether somebody waits for what [`Self::is_idle`] or [`Self::is_outside`] say.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers > 0
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.calls.sent()
    }

    pub(super) fn oldest_unanswered(&self) -> Option<Instant> {
        self.calls.oldest_unanswered()
    }

    pub(super) fn statistics(&self) -> ConnectionStatistics {
        let mut statistics = self.statistics;
        statistics.in_flight = self.calls.sent();
        statistics.unanswered = self.calls.unanswered();
        statistics.waiting = self.waiting_live;
        statistics
    }

    fn reject(&mut self, reason: String, retry_after: Option<Duration>) -> CallError {
        self.statistics.rejected += 1;
        CallError::Rejected { reason, retry_after }
    }
}
