//! Those who find nothing free: asking once, waiting, being told, going away.

use std::task::Waker;

use pit_core::{clock::Tick, priority::Rank, unwind::Calls};

use super::{Got, Locked};
use crate::{
    queue::{Settled, Ticket, Waiter},
    shared::Count,
};

/// LIMIT: who waits for one model. Longer queues only hide that there is too much work; who is refused must hold back
/// its own.
pub const WAITERS_PER_MODEL_MAX: usize = 100_000;

/// Why there is no lease now.
pub(crate) enum Refused {
    Busy,
    /// What is idle was being unloaded for it: it may be worth another try.
    NoMemory,
    Loading,
    CoolingDown {
        until: Tick,
    },
    ModelRetired,
    QueueFull,
}

/// How an attempt to take a lease or a place in the queue ended.
pub(crate) enum Queued {
    Leased(Got),
    Waiting(Ticket),
    Refused(Refused),
}

impl Locked<'_> {
    /// Takes what can be had at once, and has something loaded if nothing can. The calls are ended by whoever gets the
    /// answer, when it is in safety.
    pub(crate) fn ask(mut self, generation: u32, owner: u32) -> (Result<Got, Refused>, Calls) {
        let answer = self.try_ask(generation, owner);
        if answer.is_err() {
            self.count(Count::Refused);
        }
        (answer, self.finish())
    }

    fn try_ask(&mut self, generation: u32, owner: u32) -> Result<Got, Refused> {
        if !self.is_current(generation) {
            return Err(Refused::ModelRetired);
        }
        let now = self.now();
        self.advance(now);
        if self.state.queue.is_empty()
            && let Some(got) = self.take_any(owner)
        {
            return Ok(got);
        }
        self.load_wanted(1, now);
        if self.state.instances.loading > 0 {
            return Err(Refused::Loading);
        }
        if self.after.wanted_bytes.is_some() {
            return Err(Refused::NoMemory);
        }
        let until = self.state.instances.all_rest_until(now);
        Err(until.map_or(Refused::Busy, |until| Refused::CoolingDown { until }))
    }

    /// Takes a lease, or a place in the queue: the lock is held from the look to the place, so that no lease is given
    /// back unseen in between. The calls are ended by whoever gets the answer, when it is in safety.
    pub(crate) fn take_or_wait(
        mut self,
        generation: u32,
        rank: impl FnOnce(Tick) -> Rank,
        waiter: Waiter,
    ) -> (Queued, Calls) {
        let queued = self.try_take_or_wait(generation, rank, waiter);
        (queued, self.finish())
    }

    fn try_take_or_wait(
        &mut self,
        generation: u32,
        rank: impl FnOnce(Tick) -> Rank,
        waiter: Waiter,
    ) -> Queued {
        if !self.is_current(generation) {
            return Queued::Refused(Refused::ModelRetired);
        }
        let now = self.now();
        self.advance(now);
        if self.state.queue.is_empty()
            && let Some(got) = self.take_any(waiter.owner)
        {
            return Queued::Leased(got);
        }
        if self.state.queue.len() >= WAITERS_PER_MODEL_MAX {
            return Queued::Refused(Refused::QueueFull);
        }
        if let Some(until) = self.state.instances.all_rest_until(now)
            && until > waiter.deadline
        {
            return Queued::Refused(Refused::CoolingDown { until });
        }
        if self.state.queue.is_empty()
            && let Some(got) = self.guard_all(waiter.owner)
        {
            return Queued::Leased(got);
        }
        let ticket = self.state.queue.push(rank(now), waiter);
        self.load_wanted(0, now);
        self.arm_rests(now);
        Queued::Waiting(ticket)
    }

    /// What became of one who waits, and its lease if it was handed one; if nothing yet, `waker` is left to be woken.
    pub(crate) fn look(mut self, ticket: Ticket, waker: Waker) -> Option<Result<Got, Settled>> {
        let (settled, useless_waker) = self.state.queue.look(ticket, waker);
        let got = settled.map(|settled| match settled {
            Settled::Leased { index, word } => {
                let slot = self.cell.slots().get(index);
                slot.map(|slot| (*slot, word)).ok_or(Settled::ModelRetired)
            }
            refused => Err(refused),
        });
        // No number has changed, so that nothing is to be published.
        drop(self);
        drop(useless_waker);
        got
    }

    /// One who waited does not any more. A lease that it was handed goes on to the next.
    pub(crate) fn leave(mut self, ticket: Ticket) {
        let (settled, waker) = self.state.queue.remove(ticket);
        self.took_out(settled);
        self.finish().end();
        drop(waker);
    }

    /// One who waits, or was handed a lease that it has not fetched, finds that its holder has ended.
    pub(crate) fn refuse(mut self, ticket: Ticket) {
        let (settled, waker) = self.state.queue.remove(ticket);
        let had_been = settled.filter(|settled| !matches!(settled, Settled::Leased { .. }));
        if settled.is_some() || waker.is_some() {
            self.state.queue.settle(ticket, had_been.unwrap_or(Settled::HolderRetired));
        }
        self.took_out(settled);
        self.after.woken.extend(waker);
        self.finish().end();
    }

    fn took_out(&mut self, settled: Option<Settled>) {
        if let Some(Settled::Leased { index, word }) = settled
            && let Some(slot) = self.cell.slots().get(index)
        {
            self.give_up(slot, word);
        }
        if self.state.queue.is_empty() {
            self.lift_guards();
        }
    }
}
