//! Who waits for a model, in order, and what became of those who have not looked yet.
//!
//! Plain data behind the model's lock. Wakers are only stored here and handed out: they are foreign code, and run (and
//! are dropped) when the lock is released.

use std::{
    collections::{BTreeMap, HashMap},
    task::Waker,
};

use pit_core::{clock::Tick, priority::Rank};

use crate::word::SlotWord;

/// One who waits, or has waited. Unique for the life of the model's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    rank: Rank,
    /// First come, first served within a rank.
    number: u64,
}

/// What became of one who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// A slot was handed over, with this word; it counts as leased already.
    Leased { index: u32, word: SlotWord },
    /// The model was retired or redeclared.
    ModelRetired,
    /// The holder was retired.
    HolderRetired,
    /// Every instance rests for longer than the deadline allows.
    CoolingDown { until: Tick },
}

/// What is known of one who waits.
pub(crate) struct Waiter {
    pub(crate) owner: u32,
    pub(crate) deadline: Tick,
    pub(crate) waker: Waker,
}

#[derive(Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Ticket, Waiter>,
    settled: HashMap<u64, Settled>,
    tickets: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn push(&mut self, rank: Rank, waiter: Waiter) -> Ticket {
        let ticket = Ticket { rank, number: self.tickets };
        self.tickets += 1;
        self.waiting.insert(ticket, waiter);
        ticket
    }

    /// In whose name the first waits.
    pub(crate) fn first_owner(&self) -> Option<u32> {
        self.waiting.first_key_value().map(|(_, waiter)| waiter.owner)
    }

    /// Who is first, to be [settled](Self::settle).
    pub(crate) fn pop_first(&mut self) -> Option<(Ticket, Waiter)> {
        self.waiting.pop_first()
    }

    /// Lets a ticket that waits no more find this when it looks next.
    pub(crate) fn settle(&mut self, ticket: Ticket, settled: Settled) {
        self.settled.insert(ticket.number, settled);
    }

    /// Refuses everybody who waits, and those who were served and have not looked yet.
    pub(crate) fn refuse_all(&mut self) -> Vec<Waker> {
        for settled in self.settled.values_mut() {
            if matches!(settled, Settled::Leased { .. }) {
                *settled = Settled::ModelRetired;
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.settled.extend(waiting.keys().map(|ticket| (ticket.number, Settled::ModelRetired)));
        waiting.into_values().map(|waiter| waiter.waker).collect()
    }

    /// Refuses those whose deadline comes before `until`; the wakers of all, who have to wait for another moment now.
    pub(crate) fn cool_down(&mut self, until: Tick) -> Vec<Waker> {
        let late = |(_, waiter): &(&Ticket, &mut Waiter)| waiter.deadline < until;
        let late: Vec<Ticket> = self.waiting.iter_mut().filter(late).map(|(ticket, _)| *ticket).collect();
        let mut woken: Vec<Waker> = Vec::new();
        for ticket in late {
            woken.extend(self.waiting.remove(&ticket).map(|waiter| waiter.waker));
            self.settle(ticket, Settled::CoolingDown { until });
        }
        woken.extend(self.waiting.values().map(|waiter| waiter.waker.clone()));
        woken
    }

    /// Fetches what became of a ticket, or leaves `waker` with it. The waker that is of no more use comes back.
    pub(crate) fn look(&mut self, ticket: Ticket, waker: Waker) -> (Option<Settled>, Option<Waker>) {
        if let Some(settled) = self.settled.remove(&ticket.number) {
            return (Some(settled), Some(waker));
        }
        let old = self.waiting.get_mut(&ticket).map(|waiter| std::mem::replace(&mut waiter.waker, waker));
        debug_assert!(old.is_some(), "a ticket waits or is settled");
        (None, old)
    }

    /// Takes a ticket out. What had become of it comes back, or its waker.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> (Option<Settled>, Option<Waker>) {
        let waiter = self.waiting.remove(&ticket);
        (self.settled.remove(&ticket.number), waiter.map(|waiter| waiter.waker))
    }
}
