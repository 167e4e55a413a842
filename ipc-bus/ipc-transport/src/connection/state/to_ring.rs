//! How queued bytes go to the ring: at once, or together with others. Another part of the state.

use super::{Phase, State};
use crate::framing::Violation;

/// Calls in flight from which on new ones go to the ring together: the other side has enough to do meanwhile. Whoever writes
/// there takes its cache lines from the other core, and passes a fence behind which he waits for them: it costs the
/// same for one call and for ten.
const TOGETHER_MIN: u32 = 8;

/// LIMIT: bytes that are kept back to be written together.
const TOGETHER_BYTES_MAX: u64 = 2 << 10;

/// LIMIT: times that a ring is filled under one lock.
const FLUSH_ROUNDS_MAX: u32 = 4;

/// What came of [`State::flush_to_ring`], to be told without the lock.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::connection) struct Flushed {
    /// The other side sleeps.
    pub(in crate::connection) must_wake: bool,
    /// There is more, and room for it: the reader task goes on.
    pub(in crate::connection) has_more: bool,
    /// Nothing follows the goodbye.
    pub(in crate::connection) is_end_of_stream: bool,
    /// The other side's words cannot be.
    pub(in crate::connection) lie: Option<Violation>,
}

impl State {
    /// Whether what was just queued may go to the ring later, and whether the reader task must be told to see to it: it does
    /// when it has its turn, unless somebody flushes before.
    pub(in crate::connection) fn keep_back(&mut self) -> Option<bool> {
        let is_kept = self.ring.is_some()
            && self.calls.sent() >= TOGETHER_MIN
            && (1..TOGETHER_BYTES_MAX).contains(&self.outgoing.queued())
            && matches!(self.phase, Phase::Open);
        is_kept.then(|| !std::mem::replace(&mut self.is_task_told, true))
    }

    /// The reader task has its turn.
    pub(in crate::connection) fn task_is_here(&mut self) {
        self.is_task_told = false;
    }

    /// Whether something waits to be written.
    pub(in crate::connection) fn keeps_back(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Writes to the ring what is queued, as far as there is room; but no more than [`FLUSH_ROUNDS_MAX`] fills of it,
    /// however fast the other side reads, because callers wait for the lock.
    pub(in crate::connection) fn flush_to_ring(&mut self) -> Flushed {
        let mut flushed = Flushed::default();
        if self.ring.is_none() {
            return flushed;
        }
        let is_leaving = matches!(self.phase, Phase::Leaving);
        let is_over = matches!(self.phase, Phase::Lost(_) | Phase::Ended(..));
        if is_over || self.outgoing.is_empty() && (self.has_ended_stream || !is_leaving) {
            return flushed;
        }
        flushed.has_more = true;
        for _ in 0..FLUSH_ROUNDS_MAX {
            let Some(ring) = &mut self.ring else { break };
            let must_wake = &mut flushed.must_wake;
            let drained = self.outgoing.drain_into(|bytes| ring.write_by_pieces(bytes, must_wake));
            flushed.must_wake |= ring.publish();
            let is_full = match drained {
                Ok(true) => false,
                Ok(false) => match ring.wait_for_room() {
                    Ok(is_full) => is_full,
                    Err(violation) => return Flushed { lie: Some(violation), ..flushed },
                },
                Err(violation) => return Flushed { lie: Some(violation), ..flushed },
            };
            if is_full {
                // Whoever reads rings.
                flushed.has_more = false;
                break;
            }
            if self.waiting_live > 0 {
                self.admit();
            }
            if self.outgoing.is_empty() {
                flushed.has_more = false;
                break;
            }
        }
        if self.outgoing.is_empty() {
            if let Some(ring) = &mut self.ring {
                ring.stop_waiting();
            }
            if is_leaving {
                self.has_ended_stream = true;
                flushed.is_end_of_stream = true;
            }
        }
        flushed
    }
}
