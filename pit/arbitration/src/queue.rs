//! Claims that wait, in the order of the policy.
//!
//! Within a group they stand by rank, once and for all. Under strict priority there is one group; under fairness each
//! owner has one, and the groups are merged anew in every walk, because shares change with every grant.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, btree_map},
    iter::Peekable,
    task::Waker,
};

use pit_core::{
    clock::Tick,
    priority::{Priority, Rank},
};

use crate::claim::{Amounts, OwnerId};

/// A claim that waits or has been granted while it waited. Unique for the life of the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    pub(crate) rank: Rank,
    /// First come, first served within a rank. The how-manieth claim it is.
    pub(crate) number: u64,
    pub(crate) group: u32,
}

pub(crate) struct Waiter {
    pub(crate) owner: OwnerId,
    pub(crate) priority: Priority,
    pub(crate) amounts: Amounts,
    pub(crate) since: Tick,
    pub(crate) waker: Waker,
}

type Group = BTreeMap<Ticket, Waiter>;

/// All waiting claims.
#[derive(Default)]
pub(crate) struct Queue {
    /// INVARIANT: none is empty.
    groups: BTreeMap<u32, Group>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(BTreeMap::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(crate) fn insert(&mut self, ticket: Ticket, waiter: Waiter) {
        self.groups.entry(ticket.group).or_default().insert(ticket, waiter);
    }

    pub(crate) fn get_mut(&mut self, ticket: &Ticket) -> Option<&mut Waiter> {
        self.groups.get_mut(&ticket.group)?.get_mut(ticket)
    }

    pub(crate) fn remove(&mut self, ticket: &Ticket) -> Option<Waiter> {
        let group = self.groups.get_mut(&ticket.group)?;
        let waiter = group.remove(ticket)?;
        if group.is_empty() {
            self.groups.remove(&ticket.group);
        }
        Some(waiter)
    }

    /// Takes out all of these, which are in it, in the order of a walk.
    pub(crate) fn take(&mut self, tickets: &[Ticket], mut taken: impl FnMut(Ticket, Waiter)) {
        let mut tickets = tickets;
        let is_alone = self.groups.len() == 1;
        // In one pass, where that is less than looking for each of many.
        if let Some(mut group) = self.groups.first_entry().filter(|_| is_alone)
            && tickets.len() > group.get().len() / 8
        {
            let mut left = tickets.iter().peekable();
            let is_next = |ticket: &Ticket, _: &mut Waiter| left.next_if(|next| *next == ticket).is_some();
            group.get_mut().extract_if(.., is_next).for_each(|(ticket, waiter)| taken(ticket, waiter));
            if group.get().is_empty() {
                group.remove();
            }
            tickets = &[];
        }
        for ticket in tickets {
            if let Some(waiter) = self.remove(ticket) {
                taken(*ticket, waiter);
            }
        }
    }

    /// The walk through all of them in order. `key` says where the first of a group stands among those of others.
    pub(crate) fn walk(&self, key: impl Fn(u32, Tick) -> u64) -> Walk<'_> {
        let mut walk =
            Walk { groups: Vec::with_capacity(self.groups.len()), heap: BinaryHeap::new(), last: None };
        for (place, (group, waiters)) in self.groups.iter().enumerate() {
            walk.groups.push((*group, waiters.iter().peekable()));
            walk.last = Some(place);
            if self.groups.len() > 1 {
                walk.push_last(&key);
            }
        }
        walk
    }
}

/// A walk under way. Who is granted something on the way is still in the queue.
pub(crate) struct Walk<'q> {
    groups: Vec<(u32, Peekable<btree_map::Iter<'q, Ticket, Waiter>>)>,
    /// The first of each group: key, number, place of the group.
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// The group whose first is not in the heap: it is looked at only when the next is asked for, since its key depends
    /// on what became of the one before.
    last: Option<usize>,
}

impl<'q> Walk<'q> {
    /// The next, with the keys of this moment.
    pub(crate) fn next(&mut self, key: impl Fn(u32, Tick) -> u64) -> Option<(&'q Ticket, &'q Waiter)> {
        if let [(_, only)] = &mut *self.groups {
            return only.next();
        }
        self.push_last(&key);
        let Reverse((_, _, place)) = self.heap.pop()?;
        self.last = Some(place);
        self.groups[place].1.next()
    }

    fn push_last(&mut self, key: &impl Fn(u32, Tick) -> u64) {
        let Some(place) = self.last.take() else { return };
        let (group, waiters) = &mut self.groups[place];
        if let Some((ticket, waiter)) = waiters.peek() {
            self.heap.push(Reverse((key(*group, waiter.since), ticket.number, place)));
        }
    }
}
