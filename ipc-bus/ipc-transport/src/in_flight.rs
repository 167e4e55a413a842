//! The calls of one connection: who waits for an answer, and which answers are still owed.
//!
//! A slot has two sides that end on their own: the peer's (it owes one answer to whatever it was sent) and
//! the caller's (it wants one outcome). It is free when both are over, and gets a new generation then, so
//! that an id names one call and never another. This module must not know bytes, clocks or tasks.
//!
//! ```text
//!  peer:    Waiting ----> Sent ----> Over            caller:   Listening ----> Ended ----> Gone
//!              |  withdrawn           ^                             |   dropped              ^
//!              +----------------------+                             +------------------------+
//! ```

use std::task::Waker;
use std::time::Instant;

use crate::caller::WeakProgressSink;
use crate::outcome::CallResult;
use crate::payload::Encoded;

/// A call's id on the wire: `generation << 32 | index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(u64);

impl CallId {
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    pub const fn from_wire(id: u64) -> Self {
        Self(id)
    }

    pub const fn to_wire(self) -> u64 {
        self.0
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the index")]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What the peer owes.
#[derive(Debug)]
pub enum PeerSide {
    /// Nothing yet: the call waits for room.
    Waiting { method: u32, body: Encoded },
    /// One answer. The call's bytes lie between these positions of the outgoing stream.
    Sent { start: u64, end: u64 },
    /// Nothing more.
    Over,
}

/// What the caller wants.
#[derive(Debug)]
pub enum CallerSide {
    /// The outcome.
    Listening(Option<Waker>),
    /// To collect it.
    Ended(CallResult),
    /// Nothing more.
    Gone,
}

#[derive(Debug)]
pub struct Slot {
    generation: u32,
    pub peer: PeerSide,
    pub caller: CallerSide,
    /// While the caller listens: its deadline. After that: since when it does not.
    pub listens_until: Instant,
    /// Whether it was sent in the fast codec, and so may be answered in it.
    pub is_fast: bool,
    /// Whether the peer has asked for something within it.
    pub is_hosting: bool,
    /// How many calls of extensions it serves, one within the other.
    pub depth: u8,
    /// Whether its result may name streams, which somebody must read or drop.
    pub has_streams: bool,
    /// Weak: a sink is foreign code, and must not be dropped under a lock.
    pub progress: Option<WeakProgressSink>,
}

impl Slot {
    /// Ends the caller's side, if it still listens. Returns whether it did.
    fn end(&mut self, result: CallResult, wake: &mut Vec<Waker>) -> bool {
        match &mut self.caller {
            CallerSide::Listening(waker) => {
                wake.extend(waker.take());
                self.caller = CallerSide::Ended(result);
                true
            }
            CallerSide::Ended(_) | CallerSide::Gone => false,
        }
    }

    /// Whether the peer owes an answer that somebody waits for.
    fn is_awaited(&self) -> bool {
        matches!((&self.peer, &self.caller), (PeerSide::Sent { .. }, CallerSide::Listening(_)))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct InFlight {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose peer side is `Sent`.
    sent: u32,
    /// Those of them whose caller listens.
    awaited: u32,
}

impl InFlight {
    /// Answers that the peer owes.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Answers that the peer owes and somebody waits for.
    pub fn awaited(&self) -> u32 {
        self.awaited
    }

    /// Ends the caller's side of a call, if it still listens. Returns whether it did.
    pub fn end(&mut self, id: CallId, result: CallResult, wake: &mut Vec<Waker>) -> bool {
        let Some(slot) = self.get_mut(id) else { return false };
        let was_awaited = slot.is_awaited();
        let has_ended = slot.end(result, wake);
        self.awaited -= u32::from(was_awaited);
        has_ended
    }

    /// Answers that the peer owes and nobody waits for.
    pub fn unanswered(&self) -> u32 {
        self.sent - self.awaited
    }

    /// Since when nobody has waited for the oldest of them.
    pub fn oldest_unanswered(&self) -> Option<Instant> {
        if self.unanswered() == 0 {
            return None;
        }
        let owed = |slot: &&Slot| {
            matches!(slot.peer, PeerSide::Sent { .. }) && !matches!(slot.caller, CallerSide::Listening(_))
        };
        self.slots.iter().filter(owed).map(|slot| slot.listens_until).min()
    }

    /// A new call, whose caller listens.
    pub fn insert(&mut self, deadline: Instant, progress: Option<WeakProgressSink>) -> CallId {
        let caller = CallerSide::Listening(None);
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.caller = caller;
            slot.listens_until = deadline;
            slot.is_fast = false;
            slot.is_hosting = false;
            slot.depth = 0;
            slot.has_streams = false;
            slot.progress = progress;
            return CallId::new(index, slot.generation);
        }
        // INVARIANT: a slot is a call that is sent, waits or is held by its caller: memory ends before u32.
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot {
            generation: 1,
            peer: PeerSide::Over,
            caller,
            listens_until: deadline,
            is_fast: false,
            is_hosting: false,
            depth: 0,
            has_streams: false,
            progress,
        });
        CallId::new(index, 1)
    }

    /// The slot of a call of which a side is not over.
    pub fn get_mut(&mut self, id: CallId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index() as usize).filter(|slot| {
            slot.generation == id.generation()
                && !matches!((&slot.peer, &slot.caller), (PeerSide::Over, CallerSide::Gone))
        })
    }

    /// Whether `id` once named a call. Wraps with the generation.
    pub fn was_issued(&self, id: CallId) -> bool {
        self.slots.get(id.index() as usize).is_some_and(|slot| {
            let age = slot.generation.wrapping_sub(id.generation());
            // The current generation of a free slot is issued next.
            id.generation() != 0 && age != 0 && age < u32::MAX / 2
        })
    }

    /// Marks a call as sent, in the fast codec or not.
    pub fn set_sent(&mut self, id: CallId, start: u64, end: u64, is_fast: bool) {
        if let Some(slot) = self.get_mut(id) {
            slot.peer = PeerSide::Sent { start, end };
            slot.is_fast = is_fast;
            let is_awaited = slot.is_awaited();
            self.sent += 1;
            self.awaited += u32::from(is_awaited);
        }
    }

    /// The answer to a call that is sent. Both sides end: `result` is there to be collected, if it was asked for.
    pub fn answer(&mut self, id: CallId, result: Option<CallResult>, wake: &mut Vec<Waker>) {
        let Some(slot) = self.get_mut(id) else { return };
        let (was_sent, was_awaited) = (matches!(slot.peer, PeerSide::Sent { .. }), slot.is_awaited());
        slot.peer = PeerSide::Over;
        let is_gone = matches!(slot.caller, CallerSide::Gone);
        if let Some(result) = result {
            slot.end(result, wake);
        }
        self.sent -= u32::from(was_sent);
        self.awaited -= u32::from(was_awaited);
        if is_gone {
            self.release(id);
        }
    }

    /// The peer owes nothing more for this call: it answered, or the call never reached it.
    pub fn end_peer(&mut self, id: CallId) {
        if let Some(slot) = self.get_mut(id) {
            let was_sent = matches!(slot.peer, PeerSide::Sent { .. });
            let was_awaited = slot.is_awaited();
            slot.peer = PeerSide::Over;
            self.sent -= u32::from(was_sent);
            self.awaited -= u32::from(was_awaited);
            self.release(id);
        }
    }

    /// The caller wants nothing more of this call. Returns the outcome, if there is one.
    pub fn end_caller(&mut self, id: CallId) -> Option<CallResult> {
        let slot = self.get_mut(id)?;
        let was_awaited = slot.is_awaited();
        slot.progress = None;
        let caller = std::mem::replace(&mut slot.caller, CallerSide::Gone);
        self.awaited -= u32::from(was_awaited);
        self.release(id);
        match caller {
            CallerSide::Ended(result) => Some(result),
            CallerSide::Listening(_) | CallerSide::Gone => None,
        }
    }

    fn release(&mut self, id: CallId) {
        let slot = &mut self.slots[id.index() as usize];
        if matches!((&slot.peer, &slot.caller), (PeerSide::Over, CallerSide::Gone)) {
            // Zero is left out, so that no call has the id 0.
            slot.generation = slot.generation.checked_add(1).unwrap_or(1);
            self.free.push(id.index());
        }
    }

    /// Every call of which a side is not over.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (CallId, &mut Slot)> {
        self.slots.iter_mut().zip(0..).filter_map(|(slot, index)| {
            let over = matches!((&slot.peer, &slot.caller), (PeerSide::Over, CallerSide::Gone));
            (!over).then(|| (CallId::new(index, slot.generation), slot))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outcome::{CallError, Cause};

    fn outcome() -> CallResult {
        Err(CallError::Unknown(Cause::Deadline))
    }

    #[test]
    fn a_slot_is_free_when_both_sides_are_over_in_either_order() {
        let mut calls = InFlight::default();
        let now = Instant::now();
        let first = calls.insert(now, None);
        calls.set_sent(first, 0, 32, false);
        assert_eq!((first.to_wire(), calls.sent(), calls.awaited()), (1 << 32, 1, 1));

        // The caller goes first: the slot stays taken until the late answer.
        assert!(calls.end_caller(first).is_none());
        assert_eq!((calls.sent(), calls.awaited(), calls.insert(now, None).index()), (1, 0, 1));
        calls.end_peer(first);
        assert_eq!(calls.sent(), 0);
        let second = calls.insert(now, None);
        assert_eq!(second.to_wire(), 2 << 32);

        // The answer comes first: the outcome waits for its caller.
        calls.set_sent(second, 32, 64, false);
        assert!(calls.end(second, outcome(), &mut Vec::new()));
        assert!(!calls.end(second, outcome(), &mut Vec::new()), "the first outcome counts");
        assert_eq!((calls.sent(), calls.awaited()), (1, 0));
        calls.end_peer(second);
        assert!(calls.end_caller(second).is_some());
        assert!(calls.get_mut(second).is_none());
        assert_eq!(calls.insert(now, None).to_wire(), 3 << 32);
    }

    #[test]
    fn the_oldest_answer_that_nobody_waits_for_is_known() {
        let mut calls = InFlight::default();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let ids: Vec<CallId> = (0..4).map(|_| calls.insert(at(100), None)).collect();
        for &id in &ids[..3] {
            calls.set_sent(id, 0, 32, false);
        }
        assert_eq!((calls.unanswered(), calls.oldest_unanswered()), (0, None), "all are waited for");
        for (&id, left_at) in ids.iter().zip([7, 3, 5, 1]) {
            calls.get_mut(id).expect("it is in flight").listens_until = at(left_at);
        }
        assert!(calls.end_caller(ids[0]).is_none());
        assert!(calls.end(ids[2], outcome(), &mut Vec::new()), "this one's deadline passed");
        assert_eq!((calls.unanswered(), calls.oldest_unanswered()), (2, Some(at(5))));
        assert!(calls.end_caller(ids[2]).is_some(), "that the outcome was collected changes nothing");
        assert_eq!((calls.unanswered(), calls.oldest_unanswered()), (2, Some(at(5))));
        calls.end_peer(ids[2]);
        assert_eq!((calls.unanswered(), calls.oldest_unanswered()), (1, Some(at(7))));
        calls.end_peer(ids[0]);
        assert_eq!((calls.unanswered(), calls.oldest_unanswered()), (0, None));
    }

    #[test]
    fn ids_that_were_never_issued_are_told_from_old_ones() {
        let mut calls = InFlight::default();
        let id = calls.insert(Instant::now(), None);
        assert!(!calls.was_issued(id), "it is in flight");
        assert!(calls.end_caller(id).is_none());
        assert!(calls.was_issued(id));
        for never in [0, 2 << 32, 1 << 32 | 1, u64::MAX] {
            assert!(!calls.was_issued(CallId::from_wire(never)), "{never}");
        }
    }

    #[test]
    fn generations_wrap_around_zero() {
        let mut calls = InFlight::default();
        let id = calls.insert(Instant::now(), None);
        assert!(calls.end_caller(id).is_none());
        calls.slots[0].generation = u32::MAX;
        let last = calls.insert(Instant::now(), None);
        assert_eq!(last.generation(), u32::MAX);
        assert!(calls.end_caller(last).is_none());
        let first = calls.insert(Instant::now(), None);
        assert_eq!(first.generation(), 1);
        assert!(calls.was_issued(last), "the one before the wrap is old");
    }
}
