//! What is held by whom: grants in their places, each with its epoch, and the notices that some were given.
//!
//! ```text
//!  granted --tell--> told, by when --given back--> gone
//!     +--given back--> gone   +--deadline--> revoked: gone, and the holder's words find another epoch
//! ```
//!
//! Nothing here decides who is told, or knows what is free.

use std::{
    collections::{BTreeSet, HashMap},
    task::Waker,
};

use pit_core::{clock::Tick, priority::Priority};

use crate::claim::{Amounts, GrantId, OwnerId};

/// Why a holder is to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// An older holder wants more, and waits for what this one holds.
    Wounded,
    /// A more urgent claim waits for what this one holds.
    Preempted,
    /// Whoever runs the arbiter asked for it.
    Asked,
}

/// What a holder is told: to give back, and by when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// After this moment of the arbiter's clock the grant is revoked.
    pub by: Tick,
    /// Why.
    pub reason: Reason,
}

/// A grant, as long as it is valid.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub(crate) owner: OwnerId,
    /// Under fairness between owners: the owner's account.
    pub(crate) account: u32,
    pub(crate) priority: Priority,
    /// The how-manieth claim it was: the smaller is the older.
    ///
    /// Grants that one holder claimed beside each other have one number.
    pub(crate) born: u64,
    /// There may be such others.
    pub(crate) has_kin: bool,
    pub(crate) amounts: Amounts,
}

struct Slot {
    epoch: u32,
    /// It has an entry in `asides`.
    has_aside: bool,
    is_held: bool,
    /// Of the last one, if it is not held any more.
    held: Held,
}

/// What few grants have.
#[derive(Default)]
pub(crate) struct Aside {
    pub(crate) notice: Option<Notice>,
    /// Who waits for a notice.
    pub(crate) listener: Option<Waker>,
}

/// All grants.
#[derive(Default)]
pub(crate) struct Grants {
    slots: Vec<Slot>,
    empty: Vec<u32>,
    /// Boxed, so that the end of a grant that has none moves nothing.
    asides: HashMap<u32, Box<Aside>>,
    /// INVARIANT: the deadlines of all notices of valid grants.
    deadlines: BTreeSet<(Tick, GrantId)>,
}

impl Grants {
    pub(crate) fn insert(&mut self, held: Held) -> GrantId {
        if let Some(index) = self.empty.pop() {
            let slot = &mut self.slots[index as usize];
            slot.held = held;
            slot.is_held = true;
            return GrantId::new(index, slot.epoch);
        }
        // LIMIT: a grant is a value in somebody's hands; memory ends long before 2^32 of them.
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { epoch: 0, has_aside: false, is_held: true, held });
        GrantId::new(index, 0)
    }

    /// The grant, if it is valid.
    pub(crate) fn get(&self, id: GrantId) -> Option<&Held> {
        self.slot(id).map(|slot| &slot.held)
    }

    pub(crate) fn get_mut(&mut self, id: GrantId) -> Option<&mut Held> {
        let slot = self.slots.get_mut(id.index() as usize)?;
        (slot.epoch == id.generation() && slot.is_held).then_some(&mut slot.held)
    }

    /// Ends the grant, if it is valid. What few have comes back; who listened is to be woken.
    pub(crate) fn remove(&mut self, id: GrantId) -> Option<(&Held, Option<Box<Aside>>)> {
        let slot = self.slots.get_mut(id.index() as usize)?;
        if slot.epoch != id.generation() || !std::mem::take(&mut slot.is_held) {
            return None;
        }
        slot.epoch = slot.epoch.wrapping_add(1);
        self.empty.push(id.index());
        let mut aside = None;
        if std::mem::take(&mut slot.has_aside) {
            aside = self.asides.remove(&id.index());
            if let Some(notice) = aside.as_ref().and_then(|aside| aside.notice) {
                self.deadlines.remove(&(notice.by, id));
            }
        }
        Some((&slot.held, aside))
    }

    /// Gives the notice, unless there is one already; of two the earlier deadline counts. True when it is the first one.
    /// Who listens is to be woken.
    pub(crate) fn tell(&mut self, id: GrantId, notice: Notice, woken: &mut Vec<Waker>) -> bool {
        if self.get(id).is_none() {
            return false;
        }
        let aside = self.aside(id);
        let before = aside.notice;
        if before.is_some_and(|before| before.by <= notice.by) {
            return false;
        }
        aside.notice = Some(notice);
        woken.extend(aside.listener.take());
        if let Some(before) = before {
            self.deadlines.remove(&(before.by, id));
        }
        self.deadlines.insert((notice.by, id));
        before.is_none()
    }

    /// Leaves `waker` to be woken when the grant is told or revoked; the one before it comes back.
    pub(crate) fn listen(&mut self, id: GrantId, waker: Waker) -> Option<Waker> {
        self.aside(id).listener.replace(waker)
    }

    pub(crate) fn notice(&self, id: GrantId) -> Option<Notice> {
        self.slot(id).filter(|slot| slot.has_aside)?;
        self.asides.get(&id.index())?.notice
    }

    /// The earliest deadline of a notice.
    pub(crate) fn next_deadline(&self) -> Option<(Tick, GrantId)> {
        self.deadlines.first().copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GrantId, &Held)> {
        self.slots
            .iter()
            .zip(0_u32..)
            .filter_map(|(slot, index)| slot.is_held.then_some((GrantId::new(index, slot.epoch), &slot.held)))
    }

    /// Grants that have been told to give back.
    pub(crate) fn told(&self) -> impl Iterator<Item = &Held> {
        self.deadlines.iter().filter_map(|(_, id)| self.get(*id))
    }

    /// The notice that the grant was given, or another one of its holder.
    pub(crate) fn notice_of_holder(&self, id: GrantId, held: &Held) -> Option<Notice> {
        let own = self.notice(id);
        if own.is_some() || !held.has_kin {
            return own;
        }
        let is_kin = |id: &GrantId| self.get(*id).is_some_and(|other| other.born == held.born);
        self.deadlines.iter().find(|(_, id)| is_kin(id)).and_then(|(_, id)| self.notice(*id))
    }

    fn slot(&self, id: GrantId) -> Option<&Slot> {
        self.slots.get(id.index() as usize).filter(|slot| slot.epoch == id.generation() && slot.is_held)
    }

    /// Of a valid grant.
    fn aside(&mut self, id: GrantId) -> &mut Aside {
        self.slots[id.index() as usize].has_aside = true;
        self.asides.entry(id.index()).or_default()
    }
}
