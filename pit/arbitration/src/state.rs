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
    grants::{Grants, Held, Notice},
    growth::{Age, Growing},
    numbers::NumberMap,
    policy::{Policy, key},
    preempt::Levels,
    queue::{At, Queue, Ticket, Waiter},
    room::Room,
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

/// What became of what a holder wanted in addition and waited for, and was not fetched yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// What it adds is part of the grant.
    Extended,
    /// What it adds is a grant by itself.
    Granted(GrantId),
    /// Its holder was told to give back.
    Told(Notice),
}

pub(crate) struct State {
    pub(crate) policy: Policy,
    pub(crate) patience_ns: f64,
    /// What the wounded are given.
    pub(crate) wound_notice: Duration,
    pub(crate) free: Vec<u64>,
    pub(crate) grants: Grants,
    /// Kept under fairness between owners only.
    pub(crate) accounts: Option<Accounts>,
    pub(crate) queue: Queue,
    /// What holders want in addition, the oldest holder first.
    pub(crate) growing: BTreeMap<Age, Growing>,
    /// Of what holders wanted in addition, by its number.
    pub(crate) outcomes: NumberMap<u64, Outcome>,
    /// Claims in the queue that preempt.
    pub(crate) preempting: usize,
    /// Kept as long as there are such.
    pub(crate) levels: Option<Levels>,
    /// When one of them may find one more holder less urgent than itself.
    pub(crate) next_ageing: Tick,
    /// Who is to be woken when the next deadline is brought forward.
    pub(crate) watchers: NumberMap<u64, Waker>,
    /// INVARIANT: no watcher waits for a deadline earlier than one that is later.
    pub(crate) watched: Tick,
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
            patience_ns: policy.patience_ns(),
            policy,
            free: capacities,
            grants: Grants::default(),
            queue: Queue::default(),
            growing: BTreeMap::new(),
            outcomes: NumberMap::default(),
            preempting: 0,
            levels: None,
            next_ageing: Tick::NEVER,
            watchers: NumberMap::default(),
            watched: Tick::ZERO,
            numbers: 0,
        }
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.queue.len() + self.growing.len()
    }

    fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.growing.is_empty()
    }

    /// A number that no claim, extension or watcher had before.
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
        let Wanted { owner, priority, amounts } = wanted;
        let held = Held { owner, account, priority, born, has_kin: false, amounts: *amounts };
        Some(hold(&mut self.free, &mut self.grants, &mut self.levels, held))
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
        let ticket = self.enqueue(wanted, None, now, Waker::noop().clone());
        let granted = self.grant_if_next(ticket, now, woken);
        if granted.is_none() {
            // It was there for this look only, so that nobody else is served by its going.
            self.remove(&ticket);
        }
        granted
    }

    /// Puts a claim into the queue.
    pub(crate) fn enqueue(
        &mut self,
        wanted: Wanted<'_>,
        preempts: Option<Duration>,
        now: Tick,
        waker: Waker,
    ) -> Ticket {
        let group = self.accounts.as_mut().map_or(0, |accounts| accounts.open(wanted.owner));
        let at = At { rank: self.policy.ageing().rank(wanted.priority, now), number: self.number() };
        let Wanted { owner, priority, amounts } = wanted;
        if preempts.is_some() {
            self.preempting += 1;
            self.levels.get_or_insert_with(|| Levels::of(&self.grants, self.free.len()));
        }
        let waker = Some(waker);
        let waiter =
            Waiter { owner, priority, amounts: *amounts, since: now, preempts, waker, granted: None };
        self.queue.insert(at, group, waiter)
    }

    /// Grants a claim in the queue, if those before it leave enough.
    pub(crate) fn grant_if_next(
        &mut self,
        ticket: Ticket,
        now: Tick,
        woken: &mut Vec<Waker>,
    ) -> Option<GrantId> {
        let amounts = self.queue.get_mut(&ticket).amounts;
        let mut left = std::mem::take(&mut self.room);
        left.clone_from(&self.free);
        let fits = self.is_left_for(&ticket, &amounts, &mut left);
        self.room = left;
        let granted = fits.then(|| self.grant_waiting(&ticket));
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

    /// Whether those before the claim leave enough of `left` for it.
    fn is_left_for(&self, ticket: &Ticket, amounts: &Amounts, left: &mut [u64]) -> bool {
        let mut room = Room::new(left);
        self.growing.values().for_each(|growing| room.keep(&growing.amounts));
        let key = |group, since| self.key(group, since);
        let mut walk = self.queue.order.walk(key);
        while let Some((before, _, entry)) = walk.next(key) {
            if before == ticket.at || !room.fits(amounts) {
                break;
            }
            room.keep(&self.queue.waiter(entry).amounts);
        }
        room.fits(amounts)
    }

    /// Takes back a claim that waited: out of the queue, or its grant released. The waker of the claim itself comes
    /// back, to be dropped outside the lock.
    pub(crate) fn withdraw(&mut self, ticket: &Ticket, now: Tick, woken: &mut Vec<Waker>) -> Option<Waker> {
        if let Some(grant) = self.queue.fetch(ticket) {
            self.release(grant, now, woken);
            return None;
        }
        let amounts = self.queue.get_mut(ticket).amounts;
        let waker = self.remove(ticket);
        // What it kept from the claims behind it is theirs now.
        self.serve(Some(&amounts), now, woken);
        waker
    }

    /// Ends every operation: tells who has become less urgent than one who waits, and that there is something to do
    /// earlier than those know who wait for it.
    pub(crate) fn conclude(&mut self, now: Tick, woken: &mut Vec<Waker>) {
        self.preempt(now, woken);
        if self.next_deadline().is_some_and(|next| next < self.watched) {
            self.watched = Tick::ZERO;
            woken.extend(self.watchers.drain().map(|(_, waker)| waker));
        }
    }

    /// When there is something to do without anybody's word.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        let by = self.grants.next_deadline().map_or(Tick::NEVER, |(by, _)| by);
        Some(by.min(self.next_ageing)).filter(|next| *next < Tick::NEVER)
    }

    /// Ends a grant, if it is valid. `now` counts only if [`needs_time`](Self::needs_time).
    pub(crate) fn release(&mut self, grant: GrantId, now: Tick, woken: &mut Vec<Waker>) {
        let Some((held, aside)) = self.grants.remove(grant) else { return };
        if let Some(levels) = &mut self.levels
            && aside.as_ref().is_none_or(|aside| aside.notice.is_none())
        {
            levels.take(held.priority, &held.amounts);
        }
        woken.extend(aside.and_then(|aside| aside.listener));
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
        !self.growing.is_empty() || self.levels.is_some()
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
        // Under priority only those can be granted something that want a resource of which there is more than before.
        // Under fairness somebody may have moved.
        let changed = changed.filter(|_| self.accounts.is_none());
        let order = std::mem::take(&mut self.queue.order);
        let mut walk = order.walk(|group, since| self.key(group, since));
        let mut has_served = false;
        while !changed.map_or(room.is_empty(), |changed| room.has_none_of(changed))
            && let Some((at, group, entry)) = walk.next(|group, since| self.key(group, since))
        {
            let waiter = self.queue.waiter_mut(entry);
            if room.fits(&waiter.amounts) {
                // A grant changes its owner's place among the others at once.
                if let Some(accounts) = &mut self.accounts {
                    accounts.add(group, &waiter.amounts);
                }
                waiter.granted =
                    Some(hold(&mut self.free, &mut self.grants, &mut self.levels, waiter.held(group, at)));
                woken.extend(waiter.waker.take());
                self.preempting -= usize::from(waiter.preempts.is_some());
                walk.note_served(at);
                has_served = true;
            }
            room.keep(&waiter.amounts);
        }
        let served = walk.into_served();
        self.room = left;
        self.queue.put_back(order, served);
        self.forget_levels();
        has_served
    }

    /// Those in the queue, in order.
    pub(crate) fn each_waiting(&self, mut each: impl FnMut(&Waiter)) {
        let key = |group, since| self.key(group, since);
        let mut walk = self.queue.order.walk(key);
        while let Some((.., entry)) = walk.next(key) {
            each(self.queue.waiter(entry));
        }
    }

    #[inline]
    fn key(&self, group: u32, since: Tick) -> u64 {
        self.accounts.as_ref().map_or(0, |accounts| key(self.patience_ns, accounts.share(group), since))
    }

    fn grant_waiting(&mut self, ticket: &Ticket) -> GrantId {
        let _own_waker = self.queue.remove(ticket);
        let waiter = self.queue.get_mut(ticket);
        self.preempting -= usize::from(waiter.preempts.is_some());
        if let Some(accounts) = &mut self.accounts {
            accounts.add(ticket.group, &waiter.amounts);
        }
        let held = waiter.held(ticket.group, ticket.at);
        let id = hold(&mut self.free, &mut self.grants, &mut self.levels, held);
        self.forget_levels();
        id
    }

    /// Takes a claim out of the queue; its waker.
    fn remove(&mut self, ticket: &Ticket) -> Option<Waker> {
        let waker = self.queue.remove(ticket);
        self.preempting -= usize::from(self.queue.get_mut(ticket).preempts.is_some());
        self.forget_levels();
        if let Some(accounts) = &mut self.accounts {
            accounts.close(ticket.group);
        }
        waker
    }

    fn forget_levels(&mut self) {
        if self.preempting == 0 && self.levels.is_some() {
            self.levels = None;
            self.next_ageing = Tick::NEVER;
        }
    }
}

/// Makes it a grant; in its owner's account it stands already.
#[inline]
pub(crate) fn hold(
    free: &mut [u64],
    grants: &mut Grants,
    levels: &mut Option<Levels>,
    held: Held,
) -> GrantId {
    for (place, units) in held.amounts.places() {
        // INVARIANT: the caller has seen that it fits.
        free[place] -= units;
    }
    if let Some(levels) = levels {
        levels.add(held.priority, &held.amounts);
    }
    grants.insert(held)
}
