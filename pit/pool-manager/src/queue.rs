//! Who waits for a model, in order, and what became of those who have not looked yet.
//!
//! Plain data behind the model's lock. Wakers are only stored here and handed out: they are foreign code, and run (and
//! are dropped) when the lock is released.

use std::{
    collections::{BTreeMap, HashMap},
    task::Waker,
};

use pit_core::priority::Rank;

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
    /// A lease was handed over; it counts as leased already.
    Leased,
    /// The model was retired or redeclared.
    ModelRetired,
    /// The holder was retired.
    HolderRetired,
}

#[derive(Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Ticket, Waker>,
    /// INVARIANT: `Leased` here is of the model's present epoch.
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

    pub(crate) fn push(&mut self, rank: Rank, waker: Waker) -> Ticket {
        let ticket = Ticket { rank, number: self.tickets };
        self.tickets += 1;
        self.waiting.insert(ticket, waker);
        ticket
    }

    /// Hands a lease to the first in the queue.
    pub(crate) fn serve_first(&mut self) -> Option<Waker> {
        let (ticket, waker) = self.waiting.pop_first()?;
        self.settled.insert(ticket.number, Settled::Leased);
        Some(waker)
    }

    /// Refuses everybody who waits, and those who were served and have not looked yet.
    pub(crate) fn refuse_all(&mut self) -> Vec<Waker> {
        for settled in self.settled.values_mut() {
            if *settled == Settled::Leased {
                *settled = Settled::ModelRetired;
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.settled.extend(waiting.keys().map(|ticket| (ticket.number, Settled::ModelRetired)));
        waiting.into_values().collect()
    }

    /// Fetches what became of a ticket, or leaves `waker` with it. The waker that is of no more use comes back.
    pub(crate) fn look(&mut self, ticket: Ticket, waker: Waker) -> (Option<Settled>, Option<Waker>) {
        if let Some(settled) = self.settled.remove(&ticket.number) {
            return (Some(settled), Some(waker));
        }
        let old = self.waiting.get_mut(&ticket).map(|stored| std::mem::replace(stored, waker));
        debug_assert!(old.is_some(), "a ticket waits or is settled");
        (None, old)
    }

    /// Takes a ticket out. A lease that it was handed comes back, to be handed on.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> (Option<Settled>, Option<Waker>) {
        (self.settled.remove(&ticket.number), self.waiting.remove(&ticket))
    }

    /// Lets a ticket that was taken out find a refusal when it looks next.
    pub(crate) fn refuse(&mut self, ticket: Ticket, why: Settled) {
        self.settled.insert(ticket.number, why);
    }
}
