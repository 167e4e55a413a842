//! A model under its lock: everything that is rare, or touches many of its slots at once.
//!
//! ```text
//!              take, give back: CAS on a slot               give back, leave the queue: under the lock
//!  nobody waits ------------------------ first waiter -----> every held slot is guarded ---------+
//!       ^                                                                                        |
//!       +-------------------------- the queue is empty again: guards are lifted -----------------+
//! ```
//!
//! INVARIANT: while somebody waits no slot is free, and every held one is guarded; so nobody overtakes.
//! INVARIANT: the held slots of an instance that rests are guarded, and those of a model with a maximum time always are;
//! given back, they are closed.
//! INVARIANT: a word that is closed or guarded changes under the lock only.

mod instances;
mod waiting;

use std::{
    cell::OnceCell,
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    sync::Arc,
};

use pit_core::{
    clock::Tick,
    sync::{MutexGuard, atomic::Ordering},
    unwind::Calls,
};

use crate::{
    InstanceId, ModelId,
    after::After,
    cell::{ModelCell, Published},
    instance::{Instances, Stage},
    loader::{Loader, Unload},
    queue::{Queue, Settled},
    shared::{Core, Count},
    slot::Slot,
    spec::ModelSpec,
    word::{EPOCH_MAX, NOBODY, SlotWord},
};

pub use instances::{LOAD_RETRY_TIME_MIN, MEMORY_RETRY_TIME};
pub use waiting::WAITERS_PER_MODEL_MAX;

pub(crate) use instances::Redeclared;
pub(crate) use waiting::{Queued, Refused};

/// What a model's lock protects.
pub(crate) struct State {
    spec: ModelSpec,
    generation: u32,
    is_declared: bool,
    /// INVARIANT: no slot, instance or declaration of this place has had a later epoch.
    last_epoch: u32,
    instances: Instances,
    queue: Queue,
    /// Closed slots to be opened again, the lowest first, so that the open ones lie close together.
    closed: BinaryHeap<Reverse<u32>>,
    /// Slots that there are.
    slots: u32,
    /// Leases with a maximum time: when it is over, slot and epoch.
    timed: BTreeSet<(Tick, u32, u32)>,
    /// The earliest timer that is set for this model.
    armed: Tick,
    /// The model stands in the line of those who want memory.
    wants_memory: bool,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            spec: ModelSpec::new(1),
            generation: 0,
            is_declared: false,
            last_epoch: 0,
            instances: Instances::default(),
            queue: Queue::default(),
            closed: BinaryHeap::new(),
            slots: 0,
            timed: BTreeSet::new(),
            armed: Tick::NEVER,
            wants_memory: false,
        }
    }

    /// Everything that is loaded, to be unloaded by whom it was loaded. What is being loaded is not: it is unloaded when it
    /// says that it is ready, and has its memory until then.
    pub(crate) fn let_go_of_all(&mut self, model: ModelId) -> Vec<(Arc<dyn Loader>, Unload)> {
        let Some(loader) = &self.spec.loader else { return Vec::new() };
        let all = self.instances.iter_mut();
        let loaded = all.filter(|(_, instance)| matches!(instance.stage, Stage::Ready | Stage::Resting(_)));
        loaded
            .map(|(index, instance)| {
                let reserved = std::mem::take(&mut instance.reserved);
                let instance = InstanceId::new(index, instance.epoch);
                (Arc::clone(loader), Unload::new(model, instance, reserved))
            })
            .collect()
    }
}

/// A model and its lock. What is done ends with [`finish`](Self::finish).
pub(crate) struct Locked<'c> {
    cell: &'c ModelCell,
    state: MutexGuard<'c, State>,
    after: After,
    /// `None` when the manager is gone: then nothing is loaded, and no clock goes. Looked for when it is needed: whoever
    /// only hands a lease over does without.
    core: OnceCell<Option<Arc<Core>>>,
}

/// A slot that was taken, and the word that it is held with.
pub(crate) type Got = (&'static Slot, SlotWord);

impl<'c> Locked<'c> {
    pub(crate) fn new(cell: &'c ModelCell, state: MutexGuard<'c, State>) -> Self {
        Self { cell, state, after: After::default(), core: OnceCell::new() }
    }

    /// Publishes the numbers, releases the lock, and does what must be done without it. Whoever has got something makes
    /// it safe before it ends the calls.
    fn finish(self) -> Calls {
        let Self { cell, state, after, core } = self;
        let Published { waiting, ready, loading, resting } = &cell.published.0;
        let numbers = [
            (waiting, u32::try_from(state.queue.len()).unwrap_or(u32::MAX)),
            (ready, state.instances.ready),
            (loading, state.instances.loading),
            (resting, state.instances.resting),
        ];
        for (published, number) in numbers {
            // ORDERING(published): Relaxed suffices: numbers for people, and no data is published by them.
            published.store(number, Ordering::Relaxed);
        }
        let has_spare = state.spec.lease_time_max.is_some() || state.instances.have_spare();
        cell.set_hints(state.slots, has_spare);
        drop(state);
        drop(core);
        after.run(cell)
    }

    fn core(&self) -> Option<&Arc<Core>> {
        self.core.get_or_init(|| self.cell.core.upgrade()).as_ref()
    }

    fn is_current(&self, generation: u32) -> bool {
        self.state.is_declared && self.state.generation == generation
    }

    fn model(&self) -> ModelId {
        ModelId::new(self.cell.place(), self.state.generation)
    }

    fn now(&self) -> Tick {
        self.core().map_or(Tick::ZERO, |core| core.clock.now())
    }

    fn count(&self, what: Count) {
        if let Some(core) = self.core() {
            core.count(what);
        }
    }

    /// An epoch that nothing here has had; `None` when they are used up.
    fn fresh_epoch(&mut self) -> Option<u32> {
        let fresh = self.state.last_epoch.checked_add(1).filter(|epoch| *epoch < EPOCH_MAX)?;
        self.state.last_epoch = fresh;
        Some(fresh)
    }

    fn slots(&self) -> impl Iterator<Item = &'static Slot> + use<'c> {
        self.cell.slots().iter().copied()
    }

    /// Looks at the model again at `at`, or earlier.
    fn arm(&mut self, at: Tick) {
        if at < self.state.armed
            && let Some(core) = self.core()
        {
            core.timers.arm(at, self.cell.place());
            self.state.armed = at;
        }
    }

    /// Gives a slot that is held as `seen` to whom it is due: to the first who waits, to everybody, or to nobody. It has
    /// `epoch` from now on.
    fn release(&mut self, slot: &Slot, seen: SlotWord, epoch: u32) -> Result<(), SlotWord> {
        let (instance, instance_epoch) = slot.instance();
        let is_ready = self.state.instances.is_ready(instance, instance_epoch) && epoch < EPOCH_MAX;
        if is_ready && let Some(owner) = self.state.queue.first_owner() {
            debug_assert!(seen.is_guarded() || seen.is_closed(), "somebody waits");
            // While somebody waits nobody else changes the word, so that this cannot fail.
            slot.change(seen, SlotWord::held(epoch, owner).guarded())?;
            self.hand_over(slot, epoch);
        } else if is_ready && self.state.spec.lease_time_max.is_none() {
            slot.change(seen, SlotWord::free(epoch))?;
        } else {
            slot.change(seen, SlotWord::closed(epoch))?;
            self.note_closed(slot, instance, instance_epoch);
        }
        Ok(())
    }

    /// The slot is held in the name of the first who waits: tells it so.
    fn hand_over(&mut self, slot: &Slot, epoch: u32) {
        let Some((ticket, waiter)) = self.state.queue.pop_first() else { return };
        slot.count_use();
        let word = SlotWord::held(epoch, waiter.owner);
        self.state.queue.settle(ticket, Settled::Leased { index: slot.index(), word });
        self.note_timed(slot, epoch);
        self.after.wake(waiter.waker);
        self.after.handed_over += 1;
        if self.state.queue.is_empty() {
            self.lift_guards();
        }
    }

    fn note_closed(&mut self, slot: &Slot, instance: u32, instance_epoch: u32) {
        if self.state.instances.get(instance, instance_epoch).is_some() {
            self.state.instances.count_open(instance, false);
        }
        if slot.peek().epoch() < EPOCH_MAX {
            self.state.closed.push(Reverse(slot.index()));
        }
    }

    /// A lease with a maximum time begins.
    fn note_timed(&mut self, slot: &Slot, epoch: u32) {
        if let Some(time) = self.state.spec.lease_time_max {
            let until = self.now().after(time);
            slot.set_until(until);
            self.state.timed.insert((until, slot.index(), epoch));
            self.arm(until);
        }
    }

    /// Opens one more slot, held in the name of `owner`, if an instance has room.
    fn take_new(&mut self, owner: u32, is_guarded: bool) -> Option<Got> {
        let (instance, instance_epoch) = self.state.instances.with_room()?;
        let slot = self.closed_slot()?;
        let Some(epoch) = self.fresh_epoch() else {
            self.state.closed.push(Reverse(slot.index()));
            return None;
        };
        slot.set_instance(instance, instance_epoch);
        slot.set_until(Tick::NEVER);
        self.state.instances.count_open(instance, true);
        let held = SlotWord::held(epoch, owner);
        let is_guarded = is_guarded || self.state.spec.lease_time_max.is_some();
        slot.put(if is_guarded { held.guarded() } else { held });
        Some((slot, held))
    }

    fn closed_slot(&mut self) -> Option<&'static Slot> {
        if let Some(Reverse(index)) = self.state.closed.pop() {
            return self.cell.slots().get(index).copied();
        }
        let index = self.state.slots;
        let slot = Slot::of_model(index, self.cell.me.clone());
        self.cell.slots().set(index, slot).ok()?;
        self.state.slots += 1;
        // It may have been another model's.
        self.state.last_epoch = self.state.last_epoch.max(slot.peek().epoch());
        Some(slot)
    }

    /// Takes what is free or can be opened, for one who does not wait, while nobody waits.
    fn take_any(&mut self, owner: u32) -> Option<Got> {
        debug_assert!(self.state.queue.is_empty());
        for slot in self.slots() {
            let mut seen = slot.look();
            while seen.is_free() {
                match slot.take(seen, owner) {
                    Ok(held) => return Some((slot, held)),
                    Err(now) => seen = now,
                }
            }
        }
        let (slot, held) = self.take_new(owner, false)?;
        slot.count_use();
        self.note_timed(slot, held.epoch());
        Some((slot, held))
    }

    /// Guards every held slot, so that nothing is given back without the lock. Unless a slot is found free: that one is
    /// taken, and everything is as before.
    fn guard_all(&mut self, owner: u32) -> Option<Got> {
        for slot in self.slots() {
            let mut seen = slot.look();
            loop {
                if seen.is_closed() || seen.is_guarded() {
                    break;
                }
                let changed = if seen.is_free() {
                    slot.take(seen, owner).map(Some)
                } else {
                    slot.change(seen, seen.guarded()).map(|()| None)
                };
                match changed {
                    Ok(Some(held)) => {
                        self.lift_guards();
                        return Some((slot, held));
                    }
                    Ok(None) => break,
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    /// Lifts the guards that are there only because somebody waited.
    fn lift_guards(&mut self) {
        if self.state.spec.lease_time_max.is_some() {
            return;
        }
        for slot in self.slots() {
            let seen = slot.look();
            let (instance, epoch) = slot.instance();
            if seen.is_guarded() && self.state.instances.is_ready(instance, epoch) {
                slot.put(seen.unguarded());
            }
        }
    }

    /// Gives back a lease that was held as `held`; nothing if it was revoked.
    pub(crate) fn give_back(mut self, slot: &Slot, held: SlotWord) {
        self.give_up(slot, held);
        self.finish().end();
    }

    fn give_up(&mut self, slot: &Slot, held: SlotWord) {
        let mut seen = slot.look();
        while seen.is_held() && seen.epoch() == held.epoch() {
            match self.release(slot, seen, seen.epoch()) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Ends the lease that the slot is held for as `seen`: it is worth nothing from now on.
    fn revoke(&mut self, slot: &Slot, mut seen: SlotWord) {
        let epoch = self.fresh_epoch().unwrap_or(EPOCH_MAX);
        let revoked = seen.epoch();
        while seen.is_held() && seen.epoch() == revoked {
            match self.release(slot, seen, epoch) {
                Ok(()) => return self.count(Count::Revoked),
                Err(now) => seen = now,
            }
        }
    }

    /// Ends all leases of a holder that has ended.
    pub(crate) fn revoke_owner(mut self, owner: u32) {
        for slot in self.slots() {
            let seen = slot.pass_by();
            if seen.is_held() && seen.owner() == owner {
                self.revoke(slot, seen);
            }
        }
        self.finish().end();
    }

    /// Makes the leases of a holder that nobody knows any more nobody's.
    pub(crate) fn disown(self, owner: u32) {
        for slot in self.slots() {
            let mut seen = slot.look();
            while seen.is_held() && seen.owner() == owner {
                let nobodys = SlotWord::held(seen.epoch(), NOBODY);
                let nobodys = if seen.is_guarded() { nobodys.guarded() } else { nobodys };
                match slot.change(seen, nobodys) {
                    Ok(()) => break,
                    Err(now) => seen = now,
                }
            }
        }
        self.finish().end();
    }

    /// Does what is due at `now`.
    pub(crate) fn turn(mut self, now: Tick) {
        if self.state.armed <= now {
            self.state.armed = Tick::NEVER;
        }
        self.advance(now);
        self.arm_rests(now);
        self.finish().end();
    }

    /// Looks again when the next rest is over.
    fn arm_rests(&mut self, now: Tick) {
        if let Some(back) = self.state.instances.first_back(now) {
            self.arm(back);
        }
    }

    /// Ends rests and leases whose time is over, and loads what is wanted.
    fn advance(&mut self, now: Tick) {
        while let Some((until, index, epoch)) = self.state.timed.first().copied() {
            if until > now {
                self.arm(until);
                break;
            }
            self.state.timed.pop_first();
            let slot = self.cell.slots().get(index);
            if let Some(slot) = slot.filter(|slot| slot.peek().epoch() == epoch && slot.peek().is_held()) {
                self.revoke(slot, slot.look());
            }
        }
        for index in self.state.instances.rested(now) {
            self.state.instances.set_stage(index, Stage::Ready);
            if self.state.queue.is_empty() {
                self.lift_guards();
            }
        }
        self.serve_waiting();
        self.load_wanted(0, now);
    }

    /// Opens slots for those who wait.
    fn serve_waiting(&mut self) {
        while let Some(owner) = self.state.queue.first_owner() {
            let Some((slot, held)) = self.take_new(owner, true) else { return };
            self.hand_over(slot, held.epoch());
        }
    }
}
