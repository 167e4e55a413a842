//! What holders want in addition, and who is told to give back for it: wound-wait.
//!
//! A holder wants more as a part of its grant or as another grant beside it, which has the same age; all that it holds in
//! this way counts as one.
//!
//! A holder that waits for more could deadlock with another. So the older one *wounds* the younger ones that hold what it
//! lacks: they are told to give back. The younger one waits. Whoever is told wants nothing more: its own extension fails.
//! Those who wait therefore wait for older ones only, or for those who were told and whose time is limited: there is no
//! cycle. Age is the number of a grant's first claim, so that a holder becomes the oldest some time.
//!
//! Extensions go before claims of those who hold nothing: a claim that waits for what a holder has must not keep
//! anything from that holder.

use std::{collections::BTreeSet, task::Waker};

use pit_core::{clock::Tick, priority::Priority};

use crate::{
    claim::{Amounts, GrantId},
    grants::{Held, Notice, Reason},
    preempt::expected,
    room::Room,
    state::{Outcome, State, hold},
    victims::{Candidate, choose},
};

/// The order of those who want more: the age of the holder, then the number of what it wants.
pub(crate) type Age = (u64, u64);

/// What a holder wants in addition and waits for.
pub(crate) struct Growing {
    pub(crate) grant: GrantId,
    pub(crate) amounts: Amounts,
    pub(crate) since: Tick,
    pub(crate) waker: Waker,
    /// It becomes a grant by itself.
    pub(crate) is_beside: bool,
}

/// What a holder wants in addition.
#[derive(Clone, Copy)]
pub(crate) struct Wants<'s> {
    pub(crate) grant: GrantId,
    /// With what is lacking to a whole not resolved.
    pub(crate) amounts: &'s Amounts,
    /// As a grant by itself, not as a part of that one.
    pub(crate) is_beside: bool,
}

/// What became of it at first.
pub(crate) enum Growth {
    Extended,
    /// As a grant by itself.
    Granted(GrantId),
    Waiting(Waits),
    /// The holder was told to give back.
    Told(Notice),
    /// The grant was revoked.
    Revoked,
    /// Together they name too many resources.
    TooMany,
    /// Together they want more of this resource than there is.
    Exceeds(usize, u64),
}

/// Where a holder stands among those who want more, and what that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    pub(crate) age: Age,
    amounts: Amounts,
}

impl State {
    /// Gives a holder more, or lets it wait if there is a waker.
    pub(crate) fn grow(
        &mut self,
        wants: Wants<'_>,
        capacity: impl Fn(usize) -> u64,
        waker: Option<Waker>,
        now: Tick,
        woken: &mut Vec<Waker>,
    ) -> Option<Growth> {
        let Some(held) = self.grants.get(wants.grant).copied() else { return Some(Growth::Revoked) };
        if let Some(notice) = self.grants.notice_of_holder(wants.grant, &held) {
            return Some(Growth::Told(notice));
        }
        let of_holder = |place| self.of_holder(&held, place);
        let lacking = |place| capacity(place).max(1).saturating_sub(of_holder(place));
        let amounts = wants.amounts.resolved(lacking);
        if !wants.is_beside && held.amounts.plus(&amounts).is_none() {
            return Some(Growth::TooMany);
        }
        for (place, units) in amounts.places() {
            let together = units.saturating_add(of_holder(place));
            if together > capacity(place) {
                return Some(Growth::Exceeds(place, together));
            }
        }
        let age = (held.born, self.number());
        let mut left = std::mem::take(&mut self.room);
        left.clone_from(&self.free);
        let mut room = Room::new(&mut left);
        self.growing.range(..age).for_each(|(_, older)| room.keep(&older.amounts));
        let fits = room.fits(&amounts);
        self.room = left;
        if fits {
            let growth = match self.give(wants.grant, &amounts, wants.is_beside) {
                Some(beside) => Growth::Granted(beside),
                None => Growth::Extended,
            };
            // What it took a younger holder may have waited for, which has to find it elsewhere now.
            if self.wound(now, woken) {
                self.serve(None, now, woken);
            }
            self.serve_moved(true, now, woken);
            return Some(growth);
        }
        let Wants { grant, is_beside, .. } = wants;
        self.growing.insert(age, Growing { grant, amounts, since: now, waker: waker?, is_beside });
        if self.wound(now, woken) {
            self.serve(None, now, woken);
        }
        Some(Growth::Waiting(Waits { age, amounts }))
    }

    /// What the holder of a grant has of the resource in `place`, or waits for.
    fn of_holder(&self, held: &Held, place: usize) -> u64 {
        if !held.has_kin {
            return held.amounts.of(place);
        }
        let kin = self.grants.iter().filter(|(_, other)| other.born == held.born);
        let has: u64 = kin.map(|(_, other)| other.amounts.of(place)).sum();
        let wants: u64 = self.of_age(held.born).map(|(_, growing)| growing.amounts.of(place)).sum();
        has.saturating_add(wants)
    }

    /// What the holder of that age waits for.
    fn of_age(&self, born: u64) -> impl Iterator<Item = (&Age, &Growing)> {
        self.growing.range((born, 0)..=(born, u64::MAX))
    }

    /// Takes back what a holder wanted in addition: out of the queue, or what it has been given.
    pub(crate) fn shrink(
        &mut self,
        grant: GrantId,
        waits: &Waits,
        now: Tick,
        woken: &mut Vec<Waker>,
    ) -> Option<Waker> {
        let Waits { age, amounts } = waits;
        let waker = self.growing.remove(age).map(|growing| growing.waker);
        match self.fetch(age.1) {
            Some(Outcome::Granted(beside)) => {
                self.release(beside, now, woken);
                return None;
            }
            Some(Outcome::Extended) => {
                let held = self.grants.get_mut(grant)?;
                let (before, priority, account) = (held.amounts, held.priority, held.account);
                held.amounts = held.amounts.minus(amounts);
                let after = held.amounts;
                self.change_level(grant, priority, &before, &after);
                if let Some(accounts) = &mut self.accounts {
                    accounts.take(account, amounts);
                }
                for (place, units) in amounts.places() {
                    self.free[place] += units;
                }
            }
            Some(Outcome::Told(_)) | None => {}
        }
        self.serve(Some(amounts), now, woken);
        waker
    }

    /// Fetches what became of what a holder waited for.
    pub(crate) fn fetch(&mut self, number: u64) -> Option<Outcome> {
        self.outcomes.remove(&number)
    }

    /// Leaves `waker` to be woken for what a holder waits for; the one before it comes back.
    pub(crate) fn renew_waker(&mut self, age: &Age, waker: Waker) -> Option<Waker> {
        let growing = self.growing.get_mut(age);
        debug_assert!(growing.is_some(), "it waits or something has become of it");
        growing.map(|growing| std::mem::replace(&mut growing.waker, waker))
    }

    /// Serves those who want more, the oldest holder first.
    pub(crate) fn serve_growing(&mut self, room: &mut Room<'_>, woken: &mut Vec<Waker>) {
        let mut served = Vec::new();
        for (age, growing) in &self.growing {
            if room.fits(&growing.amounts) {
                served.push(*age);
            }
            room.keep(&growing.amounts);
        }
        for age in served {
            let Some(growing) = self.growing.remove(&age) else { continue };
            let beside = self.give(growing.grant, &growing.amounts, growing.is_beside);
            self.outcomes.insert(age.1, beside.map_or(Outcome::Extended, Outcome::Granted));
            woken.push(growing.waker);
        }
    }

    /// Gives a holder more: as a part of its grant, or as one beside it.
    fn give(&mut self, grant: GrantId, amounts: &Amounts, is_beside: bool) -> Option<GrantId> {
        let held = self.grants.get_mut(grant)?;
        let before = held.amounts;
        if is_beside {
            held.has_kin = true;
            let beside = Held { amounts: *amounts, ..*held };
            if let Some(accounts) = &mut self.accounts {
                accounts.open(beside.owner);
                accounts.add(beside.account, amounts);
            }
            return Some(hold(&mut self.free, &mut self.grants, &mut self.levels, beside));
        }
        // INVARIANT: the caller has seen that it fits, and that they name few enough resources together.
        if let Some(together) = held.amounts.plus(amounts) {
            held.amounts = together;
        }
        let (account, priority, after) = (held.account, held.priority, held.amounts);
        self.change_level(grant, priority, &before, &after);
        if let Some(accounts) = &mut self.accounts {
            accounts.add(account, amounts);
        }
        for (place, units) in amounts.places() {
            self.free[place] -= units;
        }
        None
    }

    fn change_level(&mut self, grant: GrantId, priority: Priority, before: &Amounts, after: &Amounts) {
        if self.grants.notice(grant).is_none()
            && let Some(levels) = &mut self.levels
        {
            levels.take(priority, before);
            levels.add(priority, after);
        }
    }

    /// Tells those who are younger than a holder that waits, and hold what it lacks. True when one of those wanted more
    /// itself.
    pub(crate) fn wound(&mut self, now: Tick, woken: &mut Vec<Waker>) -> bool {
        if self.growing.is_empty() {
            return false;
        }
        let mut expected = expected(&self.free, &self.grants);
        let (mut chosen, mut ages_told) = (Vec::new(), BTreeSet::new());
        // Those who may be told, the youngest first; put together when the first is needed.
        let mut youngest: Option<Vec<(u64, Candidate)>> = None;
        // Resources of which a holder lacks something and no younger one holds any: nor does one who is younger still.
        let mut held_by_none = vec![false; expected.len()];
        for ((born, _), growing) in &self.growing {
            if ages_told.contains(born) {
                continue;
            }
            let wanted = &growing.amounts;
            if wanted.places().any(|(place, units)| units > expected[place] && !held_by_none[place]) {
                let youngest = youngest.get_or_insert_with(|| self.youngest());
                let younger = youngest.iter().take_while(|(other, _)| other > born);
                let left = younger.filter(|(_, candidate)| !chosen.contains(&candidate.id));
                for id in choose(wanted, &mut expected, left.map(|(_, candidate)| *candidate)).0 {
                    chosen.push(id);
                    ages_told.extend(self.grants.get(id).map(|held| held.born));
                }
                for (place, units) in wanted.places() {
                    held_by_none[place] |= units > expected[place];
                }
            }
            for (place, units) in wanted.places() {
                expected[place] = expected[place].saturating_sub(units);
            }
        }
        let notice = Notice { by: now.after(self.wound_notice), reason: Reason::Wounded };
        let mut has_ended = false;
        for id in chosen {
            has_ended |= self.tell(id, notice, woken);
        }
        has_ended
    }

    /// Grants that were not told, with their ages, the youngest first.
    fn youngest(&self) -> Vec<(u64, Candidate)> {
        let untold = self.grants.iter().filter(|(id, _)| self.grants.notice(*id).is_none());
        let mut all: Vec<_> =
            untold.map(|(id, held)| (held.born, Candidate { id, amounts: held.amounts })).collect();
        all.sort_by_key(|(born, _)| std::cmp::Reverse(*born));
        all
    }

    /// Tells a holder to give back. What it waits for in addition, beside any of its grants, it does not get: it hears of
    /// the notice instead. True when there was something.
    pub(crate) fn tell(&mut self, id: GrantId, notice: Notice, woken: &mut Vec<Waker>) -> bool {
        let Some(held) = self.grants.get(id).copied() else { return false };
        if !self.grants.tell(id, notice, woken) {
            return false;
        }
        if let Some(levels) = &mut self.levels {
            levels.take(held.priority, &held.amounts);
        }
        let ended: Vec<Age> = self.of_age(held.born).map(|(age, _)| *age).collect();
        for age in &ended {
            let Some(growing) = self.growing.remove(age) else { continue };
            self.outcomes.insert(age.1, Outcome::Told(notice));
            woken.push(growing.waker);
        }
        !ended.is_empty()
    }

    /// Ends the grants whose notice has run out.
    pub(crate) fn revoke_due(&mut self, now: Tick, woken: &mut Vec<Waker>) -> usize {
        let mut revoked = 0;
        while let Some((_, id)) = self.grants.next_deadline().filter(|(by, _)| *by <= now) {
            self.release(id, now, woken);
            revoked += 1;
        }
        revoked
    }
}
