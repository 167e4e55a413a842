//! The bookkeeping of an arbiter: what is free, what is granted, who waits in which order.
//!
//! One plain structure without locks, clocks or knowledge of futures: times come in as arguments, and the wakers of
//! those who were served go out, to be woken when the lock around this is released.
//!
//! INVARIANT: free + granted = capacity, for each resource.
//! INVARIANT: after each operation no waiting claim could be granted by the rule of [`Room`].

use std::{
    collections::{BTreeMap, HashMap},
    task::Waker,
};

use pit_core::{
    clock::Tick,
    priority::{Ageing, Priority, Rank},
};

use crate::{
    claim::{Amounts, ClaimSpec, GrantId, OwnerId},
    room::Room,
};

/// A claim that waits or has been granted while it waited. Unique for the life of the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    rank: Rank,
    /// First come, first served within a rank.
    number: u64,
}

pub(crate) struct Waiter {
    pub(crate) owner: OwnerId,
    pub(crate) priority: Priority,
    pub(crate) amounts: Amounts,
    pub(crate) since: Tick,
    waker: Waker,
}

#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub(crate) owner: OwnerId,
    pub(crate) priority: Priority,
    pub(crate) amounts: Amounts,
}

struct GrantSlot {
    generation: u32,
    held: Option<Held>,
}

/// What became of a waiting claim.
pub(crate) enum Looked {
    Granted(GrantId),
    StillWaiting,
}

pub(crate) struct State {
    free: Vec<u64>,
    grants: Vec<GrantSlot>,
    empty_grant_slots: Vec<u32>,
    waiting: BTreeMap<Ticket, Waiter>,
    /// Granted while waiting, and not yet fetched by the one who waited.
    served: HashMap<u64, GrantId>,
    tickets: u64,
    /// Kept to save an allocation in every look at the queue.
    room: Vec<u64>,
}

impl State {
    pub(crate) fn new(capacities: Vec<u64>) -> Self {
        Self {
            room: Vec::with_capacity(capacities.len()),
            free: capacities,
            grants: Vec::new(),
            empty_grant_slots: Vec::new(),
            waiting: BTreeMap::new(),
            served: HashMap::new(),
            tickets: 0,
        }
    }

    pub(crate) fn free(&self) -> &[u64] {
        &self.free
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.waiting.values()
    }

    pub(crate) fn grants(&self) -> impl Iterator<Item = (GrantId, &Held)> {
        self.grants.iter().zip(0_u32..).filter_map(|(slot, index)| {
            let held = slot.held.as_ref()?;
            Some((GrantId::new(index, slot.generation), held))
        })
    }

    /// Grants the claim when it fits and takes nothing that a claim of a better rank waits for.
    ///
    /// `rank` is asked for only when somebody waits: it costs a look at the clock.
    pub(crate) fn try_grant(&mut self, spec: &ClaimSpec, rank: impl FnOnce() -> Rank) -> Option<GrantId> {
        let amounts = spec.inline_amounts();
        // The common case, without a copy of the free units.
        let fits = amounts.places().all(|(place, units)| self.free[place] >= units);
        if !fits {
            return None;
        }
        if !self.waiting.is_empty() {
            let behind_me = Ticket { rank: rank(), number: self.tickets };
            self.room.clone_from(&self.free);
            let mut room = Room::new(&mut self.room);
            for waiter in self.waiting.range(..behind_me).map(|(_, waiter)| waiter) {
                room.keep(&waiter.amounts);
                if room.is_empty() {
                    break;
                }
            }
            if !room.fits(amounts) {
                return None;
            }
        }
        let held = Held { owner: spec.owner(), priority: spec.priority(), amounts: *amounts };
        Some(self.grant(held))
    }

    /// Puts a claim into the queue that [`try_grant`](Self::try_grant) has just refused.
    pub(crate) fn enqueue(&mut self, spec: &ClaimSpec, ageing: Ageing, now: Tick, waker: Waker) -> Ticket {
        let ticket = Ticket { rank: ageing.rank(spec.priority(), now), number: self.tickets };
        self.tickets += 1;
        let waiter = Waiter {
            owner: spec.owner(),
            priority: spec.priority(),
            amounts: *spec.inline_amounts(),
            since: now,
            waker,
        };
        self.waiting.insert(ticket, waiter);
        ticket
    }

    /// Fetches the grant of a claim that waited, or leaves `waker` to be woken for it. The old waker comes back, to be
    /// dropped outside the lock.
    pub(crate) fn look(&mut self, ticket: Ticket, waker: Waker) -> (Looked, Option<Waker>) {
        if let Some(grant) = self.served.remove(&ticket.number) {
            return (Looked::Granted(grant), Some(waker));
        }
        let old = self.waiting.get_mut(&ticket).map(|waiter| std::mem::replace(&mut waiter.waker, waker));
        debug_assert!(old.is_some(), "a ticket is in the queue or served");
        (Looked::StillWaiting, old)
    }

    /// Takes back a claim that waited: out of the queue, or its grant released. Who is served by that is in `woken`;
    /// the waker of the claim itself comes back, to be dropped outside the lock.
    pub(crate) fn withdraw(&mut self, ticket: Ticket, woken: &mut Vec<Waker>) -> Option<Waker> {
        if let Some(grant) = self.served.remove(&ticket.number) {
            self.release(grant, woken);
            return None;
        }
        let waiter = self.waiting.remove(&ticket)?;
        // What it kept from the claims behind it is theirs now.
        self.serve(woken);
        Some(waiter.waker)
    }

    /// Ends a grant; who is served by what it held is in `woken`.
    pub(crate) fn release(&mut self, grant: GrantId, woken: &mut Vec<Waker>) {
        let place = grant.index() as usize;
        let slot = &mut self.grants[place];
        debug_assert_eq!(slot.generation, grant.generation(), "a grant is released once");
        let Some(held) = slot.held.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.empty_grant_slots.push(grant.index());
        for (place, units) in held.amounts.places() {
            self.free[place] += units;
        }
        if !self.waiting.is_empty() {
            self.serve(woken);
        }
    }

    /// Goes through the queue in order and grants what the rule of [`Room`] allows.
    fn serve(&mut self, woken: &mut Vec<Waker>) {
        let mut left = std::mem::take(&mut self.room);
        left.clone_from(&self.free);
        let mut room = Room::new(&mut left);
        let mut served = Vec::new();
        for (ticket, waiter) in &self.waiting {
            if room.fits(&waiter.amounts) {
                served.push(*ticket);
            }
            room.keep(&waiter.amounts);
            if room.is_empty() {
                break;
            }
        }
        self.room = left;
        for ticket in served {
            let Some(waiter) = self.waiting.remove(&ticket) else { continue };
            let held = Held { owner: waiter.owner, priority: waiter.priority, amounts: waiter.amounts };
            let grant = self.grant(held);
            self.served.insert(ticket.number, grant);
            woken.push(waiter.waker);
        }
    }

    fn grant(&mut self, held: Held) -> GrantId {
        for (place, units) in held.amounts.places() {
            // INVARIANT: the caller has seen that it fits.
            self.free[place] -= units;
        }
        if let Some(index) = self.empty_grant_slots.pop() {
            let slot = &mut self.grants[index as usize];
            slot.held = Some(held);
            return GrantId::new(index, slot.generation);
        }
        // LIMIT: a grant is a value in somebody's hands; memory ends long before 2^32 of them.
        let index = u32::try_from(self.grants.len()).unwrap_or(u32::MAX);
        self.grants.push(GrantSlot { generation: 0, held: Some(held) });
        GrantId::new(index, 0)
    }
}
