//! What holders want in addition, and who is told to give back for it: wound-wait.
//!
//! A holder that waits for more could deadlock with another. So the older one *wounds* the younger ones that hold what it
//! lacks: they are told to give back. The younger one waits. Whoever is told wants nothing more: its own extension fails.
//! Those who wait therefore wait for older ones only, or for those who were told and whose time is limited: there is no
//! cycle. Age is the number of a grant's first claim, so that a holder becomes the oldest some time.
//!
//! Extensions go before claims of those who hold nothing: a claim that waits for what a holder has must not keep
//! anything from that holder.

use std::task::Waker;

use pit_core::clock::Tick;

use crate::{
    claim::{Amounts, GrantId},
    grants::{Held, Notice, Reason},
    room::Room,
    state::{Outcome, State},
    victims::{Candidate, choose},
};

/// An extension that waits.
pub(crate) struct Growing {
    pub(crate) grant: GrantId,
    pub(crate) number: u64,
    pub(crate) amounts: Amounts,
    pub(crate) since: Tick,
    pub(crate) waker: Waker,
}

/// What became of an extension at first.
pub(crate) enum Growth {
    Extended,
    Waiting(u64),
    /// The grant was told to give back.
    Told(Notice),
    /// The grant was revoked.
    Revoked,
    /// Together they name too many resources.
    TooMany,
    /// Together they want more of this resource than there is.
    Exceeds(usize, u64),
}

impl State {
    /// Extends a grant, or lets it wait if there is a waker. A grant has one extension at a time.
    pub(crate) fn grow(
        &mut self,
        grant: GrantId,
        amounts: &Amounts,
        capacity: impl Fn(usize) -> u64,
        waker: Option<Waker>,
        now: Tick,
        woken: &mut Vec<Waker>,
    ) -> Option<Growth> {
        let Some(held) = self.grants.get(grant) else { return Some(Growth::Revoked) };
        if let Some(notice) = self.grants.notice(grant) {
            return Some(Growth::Told(notice));
        }
        let Some(together) = held.amounts.plus(amounts) else { return Some(Growth::TooMany) };
        if let Some((place, units)) = together.places().find(|(place, units)| *units > capacity(*place)) {
            return Some(Growth::Exceeds(place, units));
        }
        let born = held.born;
        let mut left = std::mem::take(&mut self.room);
        left.clone_from(&self.free);
        let mut room = Room::new(&mut left);
        self.growing.range(..born).for_each(|(_, older)| room.keep(&older.amounts));
        let fits = room.fits(amounts);
        self.room = left;
        if fits {
            self.extend(grant, amounts);
            // What it took a younger holder may have waited for, which has to find it elsewhere now.
            if self.wound(now, woken) {
                self.serve(None, now, woken);
            }
            self.serve_moved(true, now, woken);
            return Some(Growth::Extended);
        }
        let number = self.number();
        let growing = Growing { grant, number, amounts: *amounts, since: now, waker: waker? };
        self.growing.insert(born, growing);
        if self.wound(now, woken) {
            self.serve(None, now, woken);
        }
        Some(Growth::Waiting(number))
    }

    /// Takes back an extension: out of the queue, or what it added.
    pub(crate) fn shrink(
        &mut self,
        grant: GrantId,
        number: u64,
        amounts: &Amounts,
        now: Tick,
        woken: &mut Vec<Waker>,
    ) -> Option<Waker> {
        let outcome = self.fetch(number);
        let held = self.grants.get_mut(grant)?;
        if matches!(outcome, Some(Outcome::Extended)) {
            held.amounts = held.amounts.minus(amounts);
            let account = held.account;
            if let Some(accounts) = &mut self.accounts {
                accounts.take(account, amounts);
            }
            for (place, units) in amounts.places() {
                self.free[place] += units;
            }
        }
        let born = held_born(self.grants.get(grant));
        let waker = match self.growing.get(&born) {
            Some(growing) if growing.number == number => {
                self.growing.remove(&born).map(|growing| growing.waker)
            }
            _ => None,
        };
        self.serve(Some(amounts), now, woken);
        waker
    }

    /// Leaves `waker` to be woken for an extension that waits; the one before it comes back.
    pub(crate) fn renew_waker(&mut self, grant: GrantId, number: u64, waker: Waker) -> Option<Waker> {
        let born = held_born(self.grants.get(grant));
        let growing = self.growing.get_mut(&born).filter(|growing| growing.number == number);
        debug_assert!(growing.is_some(), "an extension waits or something has become of it");
        growing.map(|growing| std::mem::replace(&mut growing.waker, waker))
    }

    /// Serves extensions, the oldest holder first.
    pub(crate) fn serve_growing(&mut self, room: &mut Room<'_>, woken: &mut Vec<Waker>) {
        let mut served = Vec::new();
        for (born, growing) in &self.growing {
            if room.fits(&growing.amounts) {
                served.push(*born);
            }
            room.keep(&growing.amounts);
        }
        for born in served {
            let Some(growing) = self.growing.remove(&born) else { continue };
            self.extend(growing.grant, &growing.amounts);
            self.outcomes.insert(growing.number, Outcome::Extended);
            woken.push(growing.waker);
        }
    }

    fn extend(&mut self, grant: GrantId, amounts: &Amounts) {
        let Some(held) = self.grants.get_mut(grant) else { return };
        // INVARIANT: the caller has seen that it fits, and that they name few enough resources together.
        if let Some(together) = held.amounts.plus(amounts) {
            held.amounts = together;
        }
        let account = held.account;
        if let Some(accounts) = &mut self.accounts {
            accounts.add(account, amounts);
        }
        for (place, units) in amounts.places() {
            self.free[place] -= units;
        }
    }

    /// Tells those who are younger than a holder that waits, and hold what it lacks. True when one of those wanted more
    /// itself.
    pub(crate) fn wound(&mut self, now: Tick, woken: &mut Vec<Waker>) -> bool {
        if self.growing.is_empty() {
            return false;
        }
        let mut expected = self.expected();
        let mut chosen = Vec::new();
        for (born, growing) in &self.growing {
            if chosen.contains(&growing.grant) {
                continue;
            }
            let mut younger: Vec<(GrantId, &Held)> = self.grants.iter().collect();
            younger.retain(|(id, held)| {
                held.born > *born && self.grants.notice(*id).is_none() && !chosen.contains(id)
            });
            younger.sort_by_key(|(_, held)| std::cmp::Reverse(held.born));
            let younger = younger.into_iter().map(|(id, held)| Candidate { id, amounts: held.amounts });
            chosen.extend(choose(&growing.amounts, &mut expected, younger).0);
            for (place, units) in growing.amounts.places() {
                expected[place] = expected[place].saturating_sub(units);
            }
        }
        let notice = Notice { by: now.after(self.wound_notice), reason: Reason::Wounded };
        let before = self.growing.len();
        for id in chosen {
            self.tell(id, notice, woken);
        }
        self.growing.len() < before
    }

    /// Tells a holder to give back. Its extension fails, if it waits for one.
    pub(crate) fn tell(&mut self, id: GrantId, notice: Notice, woken: &mut Vec<Waker>) {
        woken.extend(self.grants.tell(id, notice));
        let born = held_born(self.grants.get(id));
        if self.growing.get(&born).is_some_and(|growing| growing.grant == id)
            && let Some(growing) = self.growing.remove(&born)
        {
            self.outcomes.insert(growing.number, Outcome::Told(notice));
            woken.push(growing.waker);
        }
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

/// Numbers begin at 1, so that nobody is as old as one that is gone.
fn held_born(held: Option<&Held>) -> u64 {
    held.map_or(0, |held| held.born)
}
