//! How calls end: answered, expired, or lost with their peer. The other half of the state.

use std::task::Waker;
use std::time::Instant;

use ipc_protocol::Kind;

use super::{Phase, State};
use crate::caller::ProgressSink;
use crate::connection::CloseReason;
use crate::connection::streams::names_of;
use crate::framing::Violation;
use crate::in_flight::{CallId, CallerSide, PeerSide};
use crate::outcome::{CallError, CallResult, Cause};

impl State {
    /// Ends every call whose deadline has passed. Returns when to look again.
    pub(in crate::connection) fn expire(&mut self, now: Instant, wake: &mut Vec<Waker>) -> Option<Instant> {
        let taken = self.outgoing.taken();
        let mut next = None::<Instant>;
        let mut sent = Vec::new();
        let mut waiting = Vec::new();
        let mut unseen = Vec::new();
        for (id, slot) in self.calls.iter_mut() {
            if !matches!(slot.caller, CallerSide::Listening(_)) {
                continue;
            }
            if slot.listens_until > now {
                next = Some(next.map_or(slot.listens_until, |next| next.min(slot.listens_until)));
                continue;
            }
            self.statistics.expired += 1;
            // Not since its deadline: if this process itself was stopped, the peer hears only now that it is over.
            slot.listens_until = now;
            match slot.peer {
                PeerSide::Sent { start, end } if start >= taken => unseen.push((start, end, id)),
                PeerSide::Sent { .. } => sent.push(id),
                PeerSide::Waiting { .. } | PeerSide::Over => waiting.push(id),
            }
        }
        for id in waiting {
            self.calls.end(id, Err(CallError::NotDelivered(Cause::Deadline)), wake);
            self.end_waiting(id);
        }
        for &(.., id) in &unseen {
            self.calls.end(id, Err(CallError::NotDelivered(Cause::Deadline)), wake);
        }
        self.withdraw(unseen);
        for id in sent {
            self.calls.end(id, Err(CallError::Unknown(Cause::Deadline)), wake);
            self.push(Kind::Cancel, id.to_wire());
        }
        self.admit();
        self.timer_target = next;
        next
    }

    /// Takes calls back that the peer cannot have seen, so that it never will.
    fn withdraw(&mut self, mut calls: Vec<(u64, u64, CallId)>) {
        if calls.is_empty() {
            return;
        }
        calls.sort_unstable_by_key(|&(start, ..)| start);
        let ranges: Vec<(u64, u64)> = calls.iter().map(|&(start, end, _)| (start, end)).collect();
        for (.., id) in calls {
            self.calls.end_peer(id);
        }
        self.outgoing.withdraw(&ranges);
        // Later calls move up by what was removed before them.
        let mut removed_until = Vec::with_capacity(ranges.len() + 1);
        removed_until.push(0);
        removed_until.extend(ranges.iter().scan(0, |sum, (from, to)| {
            *sum += to - from;
            Some(*sum)
        }));
        for (_, slot) in self.calls.iter_mut() {
            if let PeerSide::Sent { start, end } = &mut slot.peer {
                let removed: u64 = removed_until[ranges.partition_point(|&(from, _)| from < *start)];
                *start -= removed;
                *end -= removed;
            }
        }
    }

    pub(in crate::connection) fn fail_waiting(&mut self, cause: &Cause, wake: &mut Vec<Waker>) {
        for id in std::mem::take(&mut self.waiting) {
            if let Some(slot) = self.calls.get_mut(id)
                && let PeerSide::Waiting { body, .. } = &slot.peer
            {
                self.waiting_live -= 1;
                self.waiting_bytes -= body.bytes.len() as u64;
                self.calls.end(id, Err(CallError::NotDelivered(cause.clone())), wake);
                self.calls.end_peer(id);
            }
        }
    }

    /// Takes the one answer that the peer owes. `result` is asked for only if somebody wants it, and is told
    /// whether the call was in the fast codec.
    pub(in crate::connection) fn answer(
        &mut self,
        kind: Kind,
        id: u64,
        result: impl FnOnce(bool) -> Result<CallResult, Violation>,
        wake: &mut Vec<Waker>,
    ) -> Result<(), Violation> {
        let call = CallId::from_wire(id);
        let taken = self.outgoing.taken();
        let Some(slot) = self.calls.get_mut(call) else {
            let expected = if self.calls.was_issued(call) {
                self.statistics.duplicates += 1;
                "every call is answered once, and this one was"
            } else {
                "no call has this id"
            };
            return Err(Violation::Unexpected { kind, id, expected });
        };
        match slot.peer {
            PeerSide::Sent { start, .. } if start < taken => {}
            PeerSide::Over => {
                self.statistics.duplicates += 1;
                let expected = "every call is answered once, and this one was";
                return Err(Violation::Unexpected { kind, id, expected });
            }
            PeerSide::Sent { .. } | PeerSide::Waiting { .. } => {
                return Err(Violation::Unexpected { kind, id, expected: "this call was not sent yet" });
            }
        }
        let was_hosting = slot.is_hosting;
        let mut unwanted = None;
        let result = match slot.caller {
            CallerSide::Listening(_) => {
                self.statistics.answers += 1;
                Some(result(slot.is_fast)?)
            }
            CallerSide::Ended(_) | CallerSide::Gone => {
                self.statistics.late += 1;
                if slot.has_streams {
                    unwanted = Some(result(slot.is_fast)?);
                }
                None
            }
        };
        if let Some(Ok(answer)) = unwanted
            && let Ok(encoded) = answer.into_encoded()
        {
            self.refuse_streams(names_of(&encoded));
        }
        self.calls.answer(call, result, wake);
        if was_hosting {
            self.over_hosting.push(call);
        }
        if self.waiting_live > 0 {
            self.admit();
        }
        Ok(())
    }

    /// Whether somebody waits for the answer with this id, or must see what it names.
    pub(in crate::connection) fn is_awaited(&mut self, id: u64) -> bool {
        self.calls
            .get_mut(CallId::from_wire(id))
            .is_some_and(|slot| slot.has_streams || matches!(slot.caller, CallerSide::Listening(_)))
    }

    /// Who hears how far a call is, if anybody does; `None`: the peer does not run it.
    pub(in crate::connection) fn running(&mut self, id: u64) -> Option<Option<ProgressSink>> {
        let slot = self.calls.get_mut(CallId::from_wire(id))?;
        let sink = slot.progress.as_ref().filter(|_| matches!(slot.caller, CallerSide::Listening(_)));
        matches!(slot.peer, PeerSide::Sent { .. }).then(|| sink.and_then(ProgressSink::upgrade))
    }

    /// Nothing more will be read. Returns the reason that counts: the first.
    pub(in crate::connection) fn lose(&mut self, reason: CloseReason) -> CloseReason {
        match &self.phase {
            Phase::Lost(first) | Phase::Ended(first, _) => first.clone(),
            Phase::Open | Phase::Draining | Phase::Leaving => {
                self.phase = Phase::Lost(reason.clone());
                reason
            }
        }
    }

    /// The host's word on the cause. Returns whether it is the first.
    pub(in crate::connection) fn give_cause(&mut self, cause: Cause) -> bool {
        let is_first = self.cause.is_none() && !matches!(self.phase, Phase::Ended(..));
        if is_first {
            self.cause = Some(cause);
        }
        is_first
    }

    /// Whether the host said how the peer ended.
    pub(in crate::connection) fn is_caused(&self) -> bool {
        self.cause.is_some()
    }

    /// Every call gets its outcome: the given cause, or what the reason allows to say.
    pub(in crate::connection) fn end(&mut self, wake: &mut Vec<Waker>) {
        let reason = match &self.phase {
            Phase::Ended(..) => return,
            Phase::Lost(reason) => reason.clone(),
            Phase::Open | Phase::Draining | Phase::Leaving => {
                CloseReason::ClosedHere("the runtime ended".to_owned())
            }
        };
        let cause = self.cause.take().unwrap_or_else(|| reason.cause());
        self.phase = Phase::Ended(reason, cause.clone());
        self.fail_waiting(&cause, wake);
        self.end_streams(&cause, wake);
        let taken = self.outgoing.taken();
        let mut over = Vec::new();
        for (id, slot) in self.calls.iter_mut() {
            if let PeerSide::Sent { start, .. } = slot.peer {
                over.push((id, start >= taken));
            }
        }
        for (id, is_unseen) in over {
            let cause = cause.clone();
            let error = if is_unseen { CallError::NotDelivered(cause) } else { CallError::Unknown(cause) };
            self.calls.end(id, Err(error), wake);
            self.calls.end_peer(id);
        }
        self.outgoing.discard();
        self.timer_target = None;
        self.timer_moved = true;
        wake.extend(self.writer_waker.take());
    }
}
