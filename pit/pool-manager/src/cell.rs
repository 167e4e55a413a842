//! One model: the slots that its leases are taken from, and the way to them that takes no lock.
//!
//! As long as something is free, taking and giving back is one compare-and-swap each, on one slot, in lines that nobody
//! else writes. A thread begins its search at home and moves when it meets somebody there. Whatever finds nothing free,
//! or finds its slot guarded, goes on under the model's lock (see [`locked`](crate::locked)).

use std::sync::{Arc, PoisonError, Weak};

use pit_core::{
    clock::{Clock, Tick},
    shard::{Padded, home, move_home},
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    table::Table,
    unwind::Calls,
};

use crate::{
    ModelId,
    locked::{Locked, State},
    shared::Core,
    slot::Slot,
    word::SlotWord,
};

/// Slots by index; as many as were ever leased at once.
pub(crate) type Slots = Table<&'static Slot, 4, 18>;

/// What a model looks like: each number is true by itself at the moment when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelState {
    /// Its id.
    pub id: ModelId,
    /// Its name.
    pub name: Box<str>,
    /// How many leases there may be at once; 0 when the model is retired.
    pub capacity: u32,
    /// How many leases there are.
    pub leased: u32,
    /// How many wait for one.
    pub waiting: u32,
    /// Instances that give leases.
    pub ready: u32,
    /// Instances that are being loaded.
    pub loading: u32,
    /// Instances that rest after a failure.
    pub resting: u32,
    /// Leases that were given since the name was first declared.
    pub leases_total: u64,
}

/// The last declaration in a place, and whether it still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) model: ModelId,
    pub(crate) is_declared: bool,
}

/// How an attempt to take a lease without a lock ended.
pub(crate) enum Taken {
    Leased(&'static Slot, SlotWord),
    NoneFree,
    ModelRetired,
}

/// Numbers for people and hints, written under the lock only.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) waiting: AtomicU32,
    pub(crate) ready: AtomicU32,
    pub(crate) loading: AtomicU32,
    pub(crate) resting: AtomicU32,
}

// The first lines are read by everybody and hardly ever written.
#[repr(align(128))]
pub(crate) struct ModelCell {
    /// The generation of the last declaration, doubled, plus one while it holds.
    standing: AtomicU64,
    /// The slots below this index may be open.
    end: AtomicU32,
    /// Not 0: who finds nothing free may find something under the lock.
    spare: AtomicU32,
    capacity: AtomicU32,
    place: u32,
    slots: Slots,
    name: Box<str>,
    pub(crate) me: Weak<Self>,
    /// A model is of no more use than its manager.
    pub(crate) core: Weak<Core>,
    pub(crate) published: Padded<Published>,
    state: Padded<Mutex<State>>,
}

impl ModelCell {
    /// A place for models of this name. Nothing is declared yet.
    pub(crate) fn new(place: u32, name: &str, core: Weak<Core>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            standing: AtomicU64::new(0),
            end: AtomicU32::new(0),
            spare: AtomicU32::new(0),
            capacity: AtomicU32::new(0),
            place,
            slots: Slots::new(),
            name: name.into(),
            me: me.clone(),
            core,
            published: Padded::default(),
            state: Padded(Mutex::new(State::new())),
        })
    }

    pub(crate) const fn place(&self) -> u32 {
        self.place
    }

    /// What is or was declared here last. One load, so that both halves are of one moment.
    pub(crate) fn standing(&self) -> Standing {
        // ORDERING(standing): Relaxed suffices: it is judged by itself, or after an Acquire of a slot's word, and then
        // the one that belongs to the word or a later one is seen.
        let bits = self.standing.load(Ordering::Relaxed);
        let generation = u32::try_from(bits >> 1).unwrap_or(u32::MAX);
        Standing { model: ModelId::new(self.place, generation), is_declared: bits & 1 != 0 }
    }

    fn is_current(&self, generation: u32) -> bool {
        // ORDERING(standing): Relaxed suffices, as above.
        self.standing.load(Ordering::Relaxed) == u64::from(generation) << 1 | 1
    }

    /// Under the lock, before the slots' words are changed.
    pub(crate) fn set_standing(&self, generation: u32, capacity: Option<u32>) {
        let is_declared = u64::from(capacity.is_some());
        // ORDERING(standing): Relaxed suffices: the slots' words are put after this with Release, and who reads one of
        // them with Acquire sees this too.
        self.standing.store(u64::from(generation) << 1 | is_declared, Ordering::Relaxed);
        self.capacity.store(capacity.unwrap_or(0), Ordering::Relaxed);
    }

    /// Under the lock: hints to those who come without it.
    pub(crate) fn set_hints(&self, end: u32, spare: bool) {
        // ORDERING(hints): Relaxed suffices here and where they are read: a slot that is overlooked, or a look under the
        // lock that finds nothing, costs time only. Looking before storing leaves the line with its readers.
        if self.end.load(Ordering::Relaxed) != end {
            self.end.store(end, Ordering::Relaxed);
        }
        if self.spare.load(Ordering::Relaxed) != u32::from(spare) {
            self.spare.store(u32::from(spare), Ordering::Relaxed);
        }
    }

    /// Whether a look under the lock may find more than a look without it.
    pub(crate) fn has_spare(&self) -> bool {
        // ORDERING(hints): Relaxed suffices, as in `set_hints`.
        self.spare.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Takes a lease of the declaration `generation`, if one is free.
    #[inline]
    pub(crate) fn take(&self, generation: u32, owner: u32) -> Taken {
        // ORDERING(hints): Relaxed suffices, as in `set_hints`.
        let end = self.end.load(Ordering::Relaxed);
        let first = home(end.max(1));
        if let Some(taken) = self.take_slot(first, generation, owner) {
            return taken;
        }
        self.take_elsewhere(first, end, generation, owner)
    }

    fn take_elsewhere(&self, first: u32, end: u32, generation: u32, owner: u32) -> Taken {
        for index in (first + 1..end).chain(0..first) {
            if let Some(taken) = self.take_slot(index, generation, owner) {
                move_home();
                return taken;
            }
        }
        if self.is_current(generation) { Taken::NoneFree } else { Taken::ModelRetired }
    }

    #[inline]
    fn take_slot(&self, index: u32, generation: u32, owner: u32) -> Option<Taken> {
        let slot = *self.slots.get(index)?;
        let mut seen = slot.look();
        loop {
            // INVARIANT: epochs of slots only grow, over all declarations of a place. So a word is of this declaration if
            // it is not older, and if the declaration still holds after the word was read.
            if !seen.is_free() || seen.epoch() < generation {
                return None;
            }
            if !self.is_current(generation) {
                return Some(Taken::ModelRetired);
            }
            match slot.take(seen, owner) {
                Ok(held) => return Some(Taken::Leased(slot, held)),
                Err(now) => seen = now,
            }
        }
    }

    /// The moment on the manager's clock; `None` when the manager is gone.
    pub(crate) fn now(&self) -> Option<Tick> {
        Some(self.core.upgrade()?.clock.now())
    }

    pub(crate) fn locked(&self) -> Locked<'_> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        Locked::new(self, self.state.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leases that `owner` has.
    pub(crate) fn leases_of(&self, owner: u32) -> u64 {
        let is_held = |slot: &&&'static Slot| slot.peek().is_held() && slot.peek().owner() == owner;
        self.slots.iter().filter(is_held).count() as u64
    }

    pub(crate) fn state(&self) -> ModelState {
        let leased = self.slots.iter().filter(|slot| slot.peek().is_held()).count();
        // ORDERING(published): Relaxed suffices: numbers for people, and no data is published by them.
        let number = |number: &AtomicU32| number.load(Ordering::Relaxed);
        let Published { waiting, ready, loading, resting } = &self.published.0;
        ModelState {
            id: self.standing().model,
            name: self.name.clone(),
            capacity: number(&self.capacity),
            leased: u32::try_from(leased).unwrap_or(u32::MAX),
            waiting: number(waiting),
            ready: number(ready),
            loading: number(loading),
            resting: number(resting),
            leases_total: self.slots.iter().map(|slot| slot.uses()).sum(),
        }
    }
}

impl Drop for ModelCell {
    /// What is loaded is let go of, also where nobody said that it should be.
    fn drop(&mut self) {
        self.slots.iter().for_each(|slot| slot.retire());
        let model = self.standing().model;
        let state = self.state.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut calls = Calls::new();
        for (loader, unload) in state.let_go_of_all(model) {
            calls.call(|| loader.unload(unload));
        }
        calls.end();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::task::{Context, Waker};

    use crate::PoolManager;

    #[test]
    fn slots_are_guarded_as_long_as_somebody_waits_and_no_longer() {
        let pools = PoolManager::new();
        let model = pools.declare("m", 3).unwrap();
        let mut leases: Vec<_> = (0..3).map(|_| pools.allocate(model).unwrap()).collect();
        let cell = pools.cell(model).unwrap().clone();
        let guarded = || cell.slots().iter().filter(|slot| slot.peek().is_guarded()).count();
        let wait = || {
            let mut waiting = Box::pin(pools.allocate_async(model));
            assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            waiting
        };
        let served = wait();
        assert_eq!(guarded(), 3);
        let leaving = wait();
        leases.pop();
        assert_eq!(guarded(), 3, "one was served, one waits");
        drop(leaving);
        assert_eq!(guarded(), 0);
        drop(served);
        assert_eq!(cell.slots().iter().filter(|slot| slot.peek().is_free()).count(), 1, "it was not fetched");
    }
}
