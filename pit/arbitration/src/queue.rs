//! Claims that wait, in the order of the policy, and what became of those that were granted and not fetched yet.
//!
//! Within a group they stand by rank, once and for all. Under strict priority there is one group; under fairness each
//! owner has one, and the groups are merged anew in every walk, because shares change with every grant. The order knows
//! places only, so that it stays small; what is known of a claim lies in its place and is not moved when it is granted.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, binary_heap::PeekMut, btree_map},
    iter::Peekable,
    task::Waker,
    time::Duration,
};

use pit_core::{
    clock::Tick,
    priority::{Priority, Rank},
};

use crate::{
    claim::{Amounts, GrantId, OwnerId},
    grants::Held,
};

/// A claim that waits or has been granted while it waited. Its future's alone, until it is fetched or withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) at: At,
    pub(crate) group: u32,
    place: u32,
}

/// Where a claim stands in its group: first come, first served within a rank. The number is the how-manieth claim it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) rank: Rank,
    pub(crate) number: u64,
}

pub(crate) struct Waiter {
    pub(crate) owner: OwnerId,
    pub(crate) priority: Priority,
    pub(crate) amounts: Amounts,
    pub(crate) since: Tick,
    /// How long less urgent holders have to make room for it, if they are to.
    pub(crate) preempts: Option<Duration>,
    /// INVARIANT: there is one as long as the claim waits.
    pub(crate) waker: Option<Waker>,
    /// What became of it.
    pub(crate) granted: Option<GrantId>,
}

impl Waiter {
    /// The grant that it becomes.
    pub(crate) const fn held(&self, account: u32, at: At) -> Held {
        let Self { owner, priority, amounts, .. } = *self;
        Held { owner, account, priority, born: at.number, has_kin: false, amounts }
    }
}

/// One in the order of its group.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) place: u32,
    since: Tick,
}

type Group = BTreeMap<At, Entry>;

/// All waiting claims.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) order: Order,
    waiters: Vec<Waiter>,
    empty: Vec<u32>,
}

/// Who stands where.
#[derive(Default)]
pub(crate) struct Order {
    /// INVARIANT: none is empty.
    groups: BTreeMap<u32, Group>,
    len: usize,
}

impl Queue {
    pub(crate) const fn len(&self) -> usize {
        self.order.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.order.len == 0
    }

    pub(crate) fn insert(&mut self, at: At, group: u32, waiter: Waiter) -> Ticket {
        let since = waiter.since;
        let place = if let Some(place) = self.empty.pop() {
            self.waiters[place as usize] = waiter;
            place
        } else {
            self.waiters.push(waiter);
            // LIMIT: of those that wait. What was granted and not fetched is somebody's future; memory ends before 2^32.
            u32::try_from(self.waiters.len() - 1).unwrap_or(u32::MAX)
        };
        self.order.groups.entry(group).or_default().insert(at, Entry { place, since });
        self.order.len += 1;
        Ticket { at, group, place }
    }

    pub(crate) fn waiter(&self, entry: Entry) -> &Waiter {
        &self.waiters[entry.place as usize]
    }

    pub(crate) fn waiter_mut(&mut self, entry: Entry) -> &mut Waiter {
        &mut self.waiters[entry.place as usize]
    }

    /// The claim of a ticket that was not fetched.
    pub(crate) fn get_mut(&mut self, ticket: &Ticket) -> &mut Waiter {
        &mut self.waiters[ticket.place as usize]
    }

    /// What became of a claim; its place is empty then.
    pub(crate) fn fetch(&mut self, ticket: &Ticket) -> Option<GrantId> {
        let granted = self.get_mut(ticket).granted.take()?;
        self.empty.push(ticket.place);
        Some(granted)
    }

    /// Takes a claim that waits out of the order, and its waker; what else is known of it stays in its place.
    pub(crate) fn remove(&mut self, ticket: &Ticket) -> Option<Waker> {
        let group = self.order.groups.get_mut(&ticket.group)?;
        group.remove(&ticket.at)?;
        if group.is_empty() {
            self.order.groups.remove(&ticket.group);
        }
        self.order.len -= 1;
        self.empty.push(ticket.place);
        self.get_mut(ticket).waker.take()
    }

    /// Takes those out of `order` that have been granted something in a walk through it, and makes it this queue's again.
    pub(crate) fn put_back(&mut self, mut order: Order, served: Vec<Served>) {
        for Served { group, count, last } in served {
            let btree_map::Entry::Occupied(mut entry) = order.groups.entry(group) else { continue };
            let members = entry.get_mut();
            order.len -= count;
            if count == members.len() {
                entry.remove();
            } else if count == 1 {
                members.remove(&last);
            } else {
                // Nobody behind the last one was granted anything.
                let is_granted = |_: &At, entry: &mut Entry| self.waiter(*entry).granted.is_some();
                members.extract_if(..=last, is_granted).for_each(drop);
            }
        }
        self.order = order;
    }
}

/// How many of a group were granted something in a walk, and the last of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    group: u32,
    count: usize,
    last: At,
}

impl Order {
    /// The walk through all of them in order. `key` says where the first of a group stands among those of others.
    pub(crate) fn walk(&self, key: impl Fn(u32, Tick) -> u64) -> Walk<'_> {
        let groups = self.groups.iter().map(|(group, members)| (*group, members.iter().peekable()));
        let mut parts: Vec<_> =
            groups.map(|(group, members)| Part { group, members, served: None }).collect();
        let mut firsts = Vec::new();
        if let [_, _, ..] = *parts {
            for (place, part) in parts.iter_mut().enumerate() {
                if let Some((at, entry)) = part.members.peek() {
                    firsts.push(Reverse((key(part.group, entry.since), at.number, place)));
                }
            }
        }
        Walk { parts, firsts: firsts.into(), present: None }
    }
}

/// A walk under way. Who is granted something on the way is still in the order.
pub(crate) struct Walk<'q> {
    parts: Vec<Part<'q>>,
    /// The first of each group: key, number, place of the group. Of a single group there are none.
    firsts: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// The group of the one that came last. The one behind it is looked at only when the next is asked for, since its key
    /// depends on what became of the one before.
    present: Option<usize>,
}

/// A group in a walk.
struct Part<'q> {
    group: u32,
    members: Peekable<btree_map::Iter<'q, At, Entry>>,
    served: Option<(usize, At)>,
}

impl Walk<'_> {
    /// The next, with the keys of this moment: where it stands, its group, and its entry.
    pub(crate) fn next(&mut self, key: impl Fn(u32, Tick) -> u64) -> Option<(At, u32, Entry)> {
        let mut place = 0;
        if self.parts.len() > 1 {
            if self.present.is_some()
                && let Some(mut first) = self.firsts.peek_mut()
            {
                let part = &mut self.parts[first.0.2];
                match part.members.peek() {
                    Some((at, entry)) => (first.0.0, first.0.1) = (key(part.group, entry.since), at.number),
                    None => drop(PeekMut::pop(first)),
                }
            }
            place = self.firsts.peek()?.0.2;
        }
        self.present = Some(place);
        let part = self.parts.get_mut(place)?;
        part.members.next().map(|(at, entry)| (*at, part.group, *entry))
    }

    /// Notes that the one that came last, and stands there, has been granted something.
    pub(crate) fn note_served(&mut self, at: At) {
        if let Some(part) = self.present.and_then(|place| self.parts.get_mut(place)) {
            part.served = Some((part.served.map_or(1, |(count, _)| count + 1), at));
        }
    }

    /// What was granted in the walk.
    pub(crate) fn into_served(self) -> Vec<Served> {
        let served = |part: Part<'_>| {
            let (count, last) = part.served?;
            Some(Served { group: part.group, count, last })
        };
        self.parts.into_iter().filter_map(served).collect()
    }
}
