//! The bookkeeping of an arbiter: what is free, what is granted, who waits in which order.
//!
//! One plain structure without locks, clocks or knowledge of futures: times come in as arguments, and the wakers of
//! those whom something has become of go out, to be woken when the lock around this is released. What holders want in
//! addition, and who is told to give back, stands in `growth`.
//!
//! INVARIANT: free + granted = capacity, for each resource.
//! INVARIANT: after each operation no waiting claim could be granted by the rule of [`Room`].

use std::{collections::BTreeMap, task::Waker, time::Duration};

use pit_core::{clock::Tick, priority::Priority};

use crate::{
    accounts::Accounts,
    claim::{Amounts, ClaimSpec, GrantId, OwnerId},
    grants::{Grants, Held, Notice, Reason},
    growth::Growing,
    numbers::NumberMap,
    policy::Policy,
    queue::{Queue, Ticket, Waiter},
    room::Room,
    victims::{Candidate, choose},
};

/// A claim with its amounts resolved.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'s> {
    pub(crate) owner: OwnerId,
    pub(crate) priority: Priority,
    pub(crate) amounts: &'s Amounts,
}

impl<'s> Wanted<'s> {
    pub(crate) const fn of(spec: &ClaimSpec, amounts: &'s Amounts) -> Self {
        Self { owner: spec.owner(), priority: spec.priority(), amounts }
    }
}

/// What became of a claim or an extension that waited, and was not fetched yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Granted(GrantId),
    /// An extension: what it adds is part of the grant.
    Extended,
    /// An extension: its grant was told to give back.
    Told(Notice),
}

pub(crate) struct State {
    pub(crate) policy: Policy,
    /// What the wounded are given.
    pub(crate) wound_notice: Duration,
    pub(crate) free: Vec<u64>,
    pub(crate) grants: Grants,
    /// Kept under fairness between owners only.
    pub(crate) accounts: Option<Accounts>,
    pub(crate) queue: Queue,
    /// What holders want in addition, the oldest holder first.
    pub(crate) growing: BTreeMap<u64, Growing>,
    /// By the number of the claim or extension.
    pub(crate) outcomes: NumberMap<u64, Outcome>,
    numbers: u64,
    /// Kept to save an allocation in every look at the queue.
    pub(crate) room: Vec<u64>,
}

impl State {
    pub(crate) fn new(capacities: Vec<u64>, policy: Policy, wound_notice: Duration) -> Self {
        Self {
            wound_notice,
            room: Vec::with_capacity(capacities.len()),
            accounts: policy.is_by_share().then(|| Accounts::new(&capacities)),
            policy,
            free: capacities,
            grants: Grants::default(),
            queue: Queue::default(),
            growing: BTreeMap::new(),
            outcomes: NumberMap::default(),
            numbers: 0,
        }
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.queue.len() + self.growing.len()
    }

    fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.growing.is_empty()
    }

    /// A number that no claim or extension had before.
    pub(crate) const fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn fits(&self, amounts: &Amounts) -> bool {
        amounts.places().all(|(place, units)| self.free[place] >= units)
    }

    /// Grants the claim if it fits and nobody waits; the common case.
    pub(crate) fn try_alone(&mut self, wanted: Wanted<'_>) -> Option<GrantId> {
        if self.has_waiting() || !self.fits(wanted.amounts) {
            return None;
        }
        let account = self.accounts.as_mut().map_or(0, |accounts| accounts.open(wanted.owner));
        if let Some(accounts) = &mut self.accounts {
            accounts.add(account, wanted.amounts);
        }
        let born = self.number();
        Some(self.hold(wanted.owner, wanted.priority, wanted.amounts, account, born))
    }

    /// Grants the claim if it fits and takes nothing that a claim before it waits for.
    pub(crate) fn try_among_others(
        &mut self,
        wanted: Wanted<'_>,
        now: Tick,
        woken: &mut Vec<Waker>,
    ) -> Option<GrantId> {
        if !self.fits(wanted.amounts) {
            return None;
        }
        let ticket = self.enqueue(wanted, now, Waker::noop().clone());
        let granted = self.grant_if_next(ticket, now, woken);
        if granted.is_none() {
            // It was there for this look only, so that nobody else is served by its going.
            self.remove(ticket);
        }
        granted
    }

    /// Puts a claim into the queue.
    pub(crate) fn enqueue(&mut self, wanted: Wanted<'_>, now: Tick, waker: Waker) -> Ticket {
        let group = self.accounts.as_mut().map_or(0, |accounts| accounts.open(wanted.owner));
        let rank = self.policy.ageing().rank(wanted.priority, now);
        let ticket = Ticket { rank, number: self.number(), group };
        let Wanted { owner, priority, amounts } = wanted;
        self.queue.insert(ticket, Waiter { owner, priority, amounts: *amounts, since: now, waker });
        ticket
    }

    /// Grants a claim in the queue, if those before it leave enough.
    pub(crate) fn grant_if_next(
        &mut self,
        ticket: Ticket,
        now: Tick,
        woken: &mut Vec<Waker>,
    ) -> Option<GrantId> {
        let amounts = self.queue.get_mut(&ticket)?.amounts;
        let mut left = std::mem::take(&mut self.room);
        left.clone_from(&self.free);
        let fits = self.left_for(ticket, &mut left, |room| room.fits(&amounts));
        self.room = left;
        let granted = fits.then(|| self.grant_waiting(ticket)).flatten();
        self.serve_moved(granted.is_some(), now, woken);
        granted
    }

    /// After something was granted out of turn, or has come before another claim of its owner: under fairness that owner's
    /// other claims have moved back among those of the others.
    pub(crate) fn serve_moved(&mut self, has_moved: bool, now: Tick, woken: &mut Vec<Waker>) {
        if has_moved && self.accounts.is_some() && self.has_waiting() {
            self.serve(None, now, woken);
        }
    }

    /// Takes from `left` what those before `ticket` keep; false as soon as `is_enough` says so.
    fn left_for(&self, ticket: Ticket, left: &mut [u64], is_enough: impl Fn(&Room<'_>) -> bool) -> bool {
        let mut room = Room::new(left);
        self.growing.values().for_each(|growing| room.keep(&growing.amounts));
        let key = |group, since| self.key(group, since);
        let mut walk = self.queue.walk(key);
        while let Some((before, waiter)) = walk.next(key) {
            if before.number == ticket.number || !is_enough(&room) {
                break;
            }
            room.keep(&waiter.amounts);
        }
        is_enough(&room)
    }

    /// Tells less urgent holders to make room for a claim that waits, if that is enough.
    pub(crate) fn preempt_for(
        &mut self,
        ticket: Ticket,
        notice: Duration,
        now: Tick,
        woken: &mut Vec<Waker>,
    ) {
        let Some(waiter) = self.queue.get_mut(&ticket) else { return };
        let (wanted, priority) = (waiter.amounts, waiter.priority);
        let mut expected = self.expected();
        self.left_for(ticket, &mut expected, |_| true);
        let mut lesser: Vec<(GrantId, &Held)> = self.grants.iter().collect();
        lesser.retain(|(id, held)| held.priority < priority && self.grants.notice(*id).is_none());
        lesser.sort_by_key(|(_, held)| (held.priority, std::cmp::Reverse(held.born)));
        let lesser = lesser.into_iter().map(|(id, held)| Candidate { id, amounts: held.amounts });
        let (chosen, is_covered) = choose(&wanted, &mut expected, lesser);
        if is_covered && !chosen.is_empty() {
            let notice = Notice { by: now.after(notice), reason: Reason::Preempted };
            for id in chosen {
                self.tell(id, notice, woken);
            }
            self.serve(None, now, woken);
        }
    }

    /// What is free, or was asked back.
    pub(crate) fn expected(&self) -> Vec<u64> {
        let mut expected = self.free.clone();
        let told = self.grants.told().flat_map(|held| held.amounts.places());
        told.for_each(|(place, units)| expected[place] += units);
        expected
    }

    /// Fetches what became of a claim or an extension that waited.
    pub(crate) fn fetch(&mut self, number: u64) -> Option<Outcome> {
        self.outcomes.remove(&number)
    }

    /// Takes back a claim that waited: out of the queue, or its grant released. The waker of the claim itself comes
    /// back, to be dropped outside the lock.
    pub(crate) fn withdraw(&mut self, ticket: Ticket, now: Tick, woken: &mut Vec<Waker>) -> Option<Waker> {
        if let Some(Outcome::Granted(grant)) = self.fetch(ticket.number) {
            self.release(grant, now, woken);
            return None;
        }
        let waiter = self.remove(ticket)?;
        // What it kept from the claims behind it is theirs now.
        self.serve(Some(&waiter.amounts), now, woken);
        Some(waiter.waker)
    }

    /// Ends a grant, if it is valid. `now` counts only if [`needs_time`](Self::needs_time).
    pub(crate) fn release(&mut self, grant: GrantId, now: Tick, woken: &mut Vec<Waker>) {
        let Some((held, listener)) = self.grants.remove(grant) else { return };
        woken.extend(listener);
        for (place, units) in held.amounts.places() {
            self.free[place] += units;
        }
        if let Some(accounts) = &mut self.accounts {
            accounts.take(held.account, &held.amounts);
            accounts.close(held.account);
        }
        // Copied only if somebody waits.
        if !self.queue.is_empty() || !self.growing.is_empty() {
            let amounts = held.amounts;
            self.serve(Some(&amounts), now, woken);
        }
    }

    /// Whether a release may have to give somebody notice.
    pub(crate) fn needs_time(&self) -> bool {
        !self.growing.is_empty()
    }

    /// Serves those who wait, after something of `changed` has become free or is kept no longer; `None`: of anything.
    pub(crate) fn serve(&mut self, changed: Option<&Amounts>, now: Tick, woken: &mut Vec<Waker>) {
        let mut changed = changed;
        loop {
            // A grant under fairness moves its owner back, and may let another one through.
            while self.serve_queue(changed, woken) && self.accounts.is_some() {}
            // Who is told wants nothing more, so that others may get it.
            if !self.wound(now, woken) {
                break;
            }
            changed = None;
        }
    }

    /// Goes through those who wait, in order, and grants what the rule of [`Room`] allows. True when that was something.
    fn serve_queue(&mut self, changed: Option<&Amounts>, woken: &mut Vec<Waker>) -> bool {
        let mut left = std::mem::take(&mut self.room);
        left.clone_from(&self.free);
        let mut room = Room::new(&mut left);
        self.serve_growing(&mut room, woken);
        let mut served = Vec::new();
        if self.accounts.is_some() {
            // A grant changes its owner's place among the others at once, so that it is done on the way.
            let queue = std::mem::take(&mut self.queue);
            let mut walk = queue.walk(|group, since| self.key(group, since));
            while !room.is_empty()
                && let Some((ticket, waiter)) = walk.next(|group, since| self.key(group, since))
            {
                if room.fits(&waiter.amounts) {
                    if let Some(accounts) = &mut self.accounts {
                        accounts.add(ticket.group, &waiter.amounts);
                    }
                    served.push(*ticket);
                }
                room.keep(&waiter.amounts);
            }
            self.queue = queue;
        } else {
            let mut walk = self.queue.walk(|_, _| 0);
            // Only those can be granted something that want a resource of which there is more than before.
            while !changed.map_or(room.is_empty(), |changed| room.has_none_of(changed))
                && let Some((ticket, waiter)) = walk.next(|_, _| 0)
            {
                if room.fits(&waiter.amounts) {
                    served.push(*ticket);
                }
                room.keep(&waiter.amounts);
            }
        }
        self.room = left;
        self.outcomes.reserve(served.len());
        woken.reserve(served.len());
        let mut queue = std::mem::take(&mut self.queue);
        queue.take(&served, |ticket, waiter| {
            let id = self.hold(waiter.owner, waiter.priority, &waiter.amounts, ticket.group, ticket.number);
            self.outcomes.insert(ticket.number, Outcome::Granted(id));
            woken.push(waiter.waker);
        });
        self.queue = queue;
        !served.is_empty()
    }

    /// Those in the queue, in order.
    pub(crate) fn each_waiting(&self, mut each: impl FnMut(&Waiter)) {
        let key = |group, since| self.key(group, since);
        let mut walk = self.queue.walk(key);
        while let Some((_, waiter)) = walk.next(key) {
            each(waiter);
        }
    }

    fn key(&self, group: u32, since: Tick) -> u64 {
        let share = self.accounts.as_ref().map_or(0.0, |accounts| accounts.share(group));
        self.policy.key(share, since)
    }

    fn grant_waiting(&mut self, ticket: Ticket) -> Option<GrantId> {
        let waiter = self.queue.remove(&ticket)?;
        if let Some(accounts) = &mut self.accounts {
            accounts.add(ticket.group, &waiter.amounts);
        }
        Some(self.hold(waiter.owner, waiter.priority, &waiter.amounts, ticket.group, ticket.number))
    }

    /// Takes a claim out of the queue.
    fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.queue.remove(&ticket)?;
        if let Some(accounts) = &mut self.accounts {
            accounts.close(ticket.group);
        }
        Some(waiter)
    }

    /// Makes it a grant; in its owner's account it stands already.
    #[inline]
    fn hold(
        &mut self,
        owner: OwnerId,
        priority: Priority,
        amounts: &Amounts,
        account: u32,
        born: u64,
    ) -> GrantId {
        for (place, units) in amounts.places() {
            // INVARIANT: the caller has seen that it fits.
            self.free[place] -= units;
        }
        self.grants.insert(Held { owner, account, priority, born, amounts: *amounts })
    }
}
