//! Declarations and instances under the model's lock: loading, resting, unloading, ending.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use pit_core::{clock::Tick, unwind::Calls};

use super::{Locked, State};
use crate::{
    InstanceId, ModelId,
    budget::Reserved,
    cell::Standing,
    instance::{Asking, Instances, Stage},
    loader::{Load, Unload},
    slot::Slot,
    spec::{ErrorClass, ModelSpec},
    word::{EPOCH_MAX, SlotWord},
};

/// So long an instance is left alone after it could not be loaded, whatever its model says: nothing is loaded in a
/// tight loop.
pub const LOAD_RETRY_TIME_MIN: Duration = Duration::from_millis(10);

/// So often a model that waits for memory looks whether something has fallen idle that can be unloaded.
pub const MEMORY_RETRY_TIME: Duration = Duration::from_millis(10);

/// What came of a redeclaration.
pub(crate) enum Redeclared {
    As(ModelId),
    /// Somebody else has retired it or declared it anew.
    ModelRetired,
    EpochsUsedUp,
}

impl<'c> Locked<'c> {
    /// Begins the next epoch, if the last one still stands as the caller has seen it.
    pub(crate) fn declare(mut self, last: Standing, spec: ModelSpec) -> Redeclared {
        if self.cell.standing() != last {
            return Redeclared::ModelRetired;
        }
        let Some(generation) = self.fresh_epoch() else { return Redeclared::EpochsUsedUp };
        self.cell.set_standing(generation, Some(spec.capacity()));
        self.end_declaration(generation);
        self.state.generation = generation;
        self.state.is_declared = true;
        let stage = if spec.loader.is_some() { Stage::Absent(Tick::ZERO) } else { Stage::Ready };
        self.state.instances = Instances::new(spec.instances, spec.concurrency, stage, generation);
        self.state.spec = spec;
        let model = self.model();
        self.finish().end();
        Redeclared::As(model)
    }

    /// Ends this epoch; false when it has ended before.
    pub(crate) fn retire(mut self, generation: u32) -> bool {
        let is_current = self.is_current(generation);
        if is_current {
            self.cell.set_standing(generation, None);
            let epoch = self.fresh_epoch().unwrap_or(EPOCH_MAX);
            self.end_declaration(epoch);
            self.state.is_declared = false;
        }
        self.finish().end();
        is_current
    }

    /// Closes everything with `epoch`, refuses whoever waits, and lets go of what is loaded.
    fn end_declaration(&mut self, epoch: u32) {
        let model = self.model();
        let unloads = self.state.let_go_of_all(model);
        self.after.unloads.extend(unloads);
        let old = std::mem::take(&mut self.state.instances);
        self.after.unwatched.extend(old.into_watches());
        for slot in self.slots() {
            slot.close(epoch);
        }
        let State { closed, slots, .. } = &mut *self.state;
        closed.clear();
        if epoch < EPOCH_MAX {
            closed.extend((0..*slots).map(Reverse));
        }
        self.state.timed.clear();
        let woken = self.state.queue.refuse_all();
        self.after.woken.extend(woken);
    }

    /// Begins to load what those who wait, and `more` others, can use.
    pub(super) fn load_wanted(&mut self, more: usize, now: Tick) {
        let is_admitted = self.load(more, now, false);
        if !is_admitted {
            self.after.wanted_bytes = Some(self.state.spec.memory.peak_bytes());
        }
    }

    /// It is this model's turn to get memory. False when there is not enough yet.
    pub(crate) fn load_next_in_line(mut self) -> (bool, Calls) {
        self.state.wants_memory = false;
        let now = self.now();
        let is_admitted = self.load(0, now, true);
        (is_admitted, self.finish())
    }

    /// False when there is not enough memory for what is wanted; whoever waits then has a place in the line for it.
    fn load(&mut self, more: usize, now: Tick, is_next: bool) -> bool {
        let (Some(loader), Some(core)) = (self.state.spec.loader.clone(), self.core().cloned()) else {
            return true;
        };
        while self.state.is_declared
            && let Some(index) = self.state.instances.to_be_loaded(self.state.queue.len() + more, now)
        {
            let Some(reserved) = Reserved::new(&core, self.state.spec.memory.peak_bytes(), is_next) else {
                // Who was first in the line still is.
                if !self.state.queue.is_empty()
                    && !std::mem::replace(&mut self.state.wants_memory, true)
                    && !is_next
                {
                    core.budget.want(self.cell.me.clone());
                }
                if !self.state.queue.is_empty() {
                    // Nobody says when something that is loaded falls idle.
                    self.arm(now.after(MEMORY_RETRY_TIME));
                }
                return false;
            };
            let Some(epoch) = self.fresh_epoch() else { return true };
            self.state.instances.set_epoch(index, epoch);
            self.state.instances.set_stage(index, Stage::Loading);
            self.after.loads.push(Load {
                cell: self.cell.me.clone(),
                loader: Arc::clone(&loader),
                model: self.model(),
                instance: InstanceId::new(index, epoch),
                reserved,
                is_open: true,
            });
        }
        true
    }

    /// An instance is loaded, with what was reserved for it; that comes back when it is not wanted any more.
    pub(crate) fn loaded(mut self, instance: InstanceId, reserved: Reserved) -> Result<(), Reserved> {
        let is_wanted = self.is_in(instance, |stage| stage == Stage::Loading);
        let mut unwanted = Some(reserved);
        if is_wanted && let Some(mut reserved) = unwanted.take() {
            self.state.instances.set_stage(instance.index(), Stage::Ready);
            self.resize(&mut reserved, self.state.spec.memory.in_use_bytes);
            if let Some(it) = self.state.instances.get_mut(instance.index(), instance.generation()) {
                it.reserved = reserved;
            }
            if let Some(idle) = self.state.spec.idle.filter(|_| !self.state.spec.is_pinned) {
                self.after.watches.push((self.model(), instance, idle));
            }
            self.serve_waiting();
        }
        self.finish().end();
        unwanted.map_or(Ok(()), Err)
    }

    /// An instance could not be loaded.
    pub(crate) fn load_failed(mut self, instance: InstanceId, class: ErrorClass) {
        if self.is_in(instance, |stage| stage == Stage::Loading) {
            let rest = self.state.spec.cool_down(class).max(LOAD_RETRY_TIME_MIN);
            let until = self.now().after(rest);
            self.state.instances.set_stage(instance.index(), Stage::Absent(until));
            self.rest_begins(until);
        }
        self.finish().end();
    }

    /// An instance has failed in this way, and rests.
    pub(crate) fn rest(mut self, instance: InstanceId, class: ErrorClass) {
        let rest = self.state.spec.cool_down(class);
        if !rest.is_zero() && self.is_in(instance, |stage| stage == Stage::Ready) {
            let until = self.now().after(rest);
            self.state.instances.set_stage(instance.index(), Stage::Resting(until));
            for slot in self.slots_of(instance) {
                let mut seen = slot.look();
                while seen.is_free() || (seen.is_held() && !seen.is_guarded()) {
                    let next = if seen.is_free() { SlotWord::closed(seen.epoch()) } else { seen.guarded() };
                    match slot.change(seen, next) {
                        Ok(()) if next.is_closed() => {
                            self.note_closed(slot, instance.index(), instance.generation());
                            break;
                        }
                        Ok(()) => break,
                        Err(now) => seen = now,
                    }
                }
            }
            self.rest_begins(until);
        }
        self.finish().end();
    }

    /// Whoever cannot wait for the end of the rest is told, if nobody else gives leases; the others wait for another
    /// moment than before.
    fn rest_begins(&mut self, until: Tick) {
        let now = self.now();
        self.load_wanted(0, now);
        self.arm(until);
        if let Some(until) = self.state.instances.all_rest_until(now) {
            let woken = self.state.queue.cool_down(until);
            self.after.woken.extend(woken);
            if self.state.queue.is_empty() {
                self.lift_guards();
            }
        }
    }

    /// An instance is no more: its leases end now. False when it had ended before.
    pub(crate) fn end_instance(mut self, instance: InstanceId, class: ErrorClass) -> bool {
        let is_there = self.is_in(instance, |stage| matches!(stage, Stage::Ready | Stage::Resting(_)));
        if is_there {
            let until = self.now().after(self.state.spec.cool_down(class));
            let mut reserved = self.take_reserved(instance);
            self.resize(&mut reserved, 0);
            self.remove(instance, until);
            self.rest_begins(until);
        }
        self.finish().end();
        is_there
    }

    /// An instance takes another amount from now on; `None` when it is not loaded. False when there is not so much.
    pub(crate) fn set_memory(mut self, instance: InstanceId, bytes: u64) -> Option<bool> {
        let is_there = self.is_in(instance, |stage| matches!(stage, Stage::Ready | Stage::Resting(_)));
        let is_there = is_there && self.state.spec.loader.is_some();
        let answer = is_there.then(|| {
            let mut reserved = self.take_reserved(instance);
            let is_done = self.resize(&mut reserved, bytes);
            if let Some(it) = self.state.instances.get_mut(instance.index(), instance.generation()) {
                it.reserved = reserved;
            }
            is_done
        });
        self.finish().end();
        answer
    }

    /// What an instance takes now.
    pub(crate) fn memory_of(&self, instance: InstanceId) -> u64 {
        let found = self.state.instances.get(instance.index(), instance.generation());
        found.map_or(0, |instance| instance.reserved.bytes())
    }

    fn resize(&mut self, reserved: &mut Reserved, bytes: u64) -> bool {
        self.after.is_memory_freed |= bytes < reserved.bytes();
        reserved.resize(bytes)
    }

    fn take_reserved(&mut self, instance: InstanceId) -> Reserved {
        let instance = self.state.instances.get_mut(instance.index(), instance.generation());
        instance.map(|instance| std::mem::take(&mut instance.reserved)).unwrap_or_default()
    }

    /// Closes the slots of an instance that is no more, and makes its place ready for the next.
    fn remove(&mut self, instance: InstanceId, until: Tick) {
        let epoch = self.fresh_epoch().unwrap_or(EPOCH_MAX);
        for slot in self.slots_of(instance) {
            if !slot.look().is_closed() {
                slot.close(epoch);
                self.note_closed(slot, instance.index(), instance.generation());
            }
        }
        let index = instance.index();
        let watch = self.state.instances.get_mut(index, instance.generation());
        self.after.unwatched.extend(watch.and_then(|instance| instance.watch.take()));
        // What nobody loads is there again by itself.
        let next = self.fresh_epoch().unwrap_or(EPOCH_MAX);
        self.state.instances.set_epoch(index, next);
        let comes_by_itself = self.state.spec.loader.is_none();
        let stage = if comes_by_itself { Stage::Resting(until) } else { Stage::Absent(until) };
        self.state.instances.set_stage(index, stage);
        let now = self.now();
        self.advance(now);
    }

    /// Unloads an instance if it was not used since this was last asked. True when it is not loaded any more.
    pub(crate) fn unload_idle(mut self, instance: InstanceId) -> bool {
        let is_there = self.is_in(instance, |stage| matches!(stage, Stage::Ready | Stage::Resting(_)));
        let is_gone = !is_there || (!self.was_used(instance, Asking::Watch) && self.unload(instance));
        self.finish().end();
        is_gone
    }

    /// Others want memory: unloads what is not used, if it was not used since this was last asked either, until there
    /// is or will be enough.
    pub(crate) fn unload_for_memory(mut self, bytes: u64, spared: Option<InstanceId>) {
        let idle: Vec<_> = self
            .state
            .instances
            .iter()
            .filter(|(_, instance)| matches!(instance.stage, Stage::Ready | Stage::Resting(_)))
            .map(|(index, instance)| InstanceId::new(index, instance.epoch))
            .filter(|instance| Some(*instance) != spared)
            .collect();
        for instance in idle {
            let is_enough = self.core().is_none_or(|core| core.budget.will_have_room(bytes));
            if !is_enough && self.state.queue.is_empty() && !self.was_used(instance, Asking::Memory) {
                self.unload(instance);
            }
        }
        self.finish().end();
    }

    /// Whether an instance was used since this was last asked for the same reason.
    fn was_used(&mut self, instance: InstanceId, asking: Asking) -> bool {
        let uses: u64 = self.slots_of(instance).map(|slot| slot.uses()).fold(0, u64::wrapping_add);
        let instance = self.state.instances.get_mut(instance.index(), instance.generation());
        instance.is_some_and(|it| std::mem::replace(&mut it.uses_seen[asking as usize], uses) != uses)
    }

    /// Unloads an instance of which there is no lease; false when it stays.
    fn unload(&mut self, instance: InstanceId) -> bool {
        if self.state.spec.is_pinned || self.state.spec.loader.is_none() {
            return false;
        }
        for slot in self.slots_of(instance) {
            let mut seen = slot.look();
            while seen.is_free() {
                match slot.change(seen, SlotWord::closed(seen.epoch())) {
                    Ok(()) => {
                        self.note_closed(slot, instance.index(), instance.generation());
                        break;
                    }
                    Err(now) => seen = now,
                }
            }
            // What was closed until here is opened again when it is asked for.
            if seen.is_held() {
                return false;
            }
        }
        let Some(loader) = self.state.spec.loader.clone() else { return false };
        let unload = Unload::new(self.model(), instance, self.take_reserved(instance));
        self.after.unloads.push((loader, unload));
        self.remove(instance, Tick::ZERO);
        true
    }

    /// Keeps whoever watches an instance; gives it back when there is nothing to watch any more.
    pub(crate) fn set_watch(mut self, instance: InstanceId, watch: Box<dyn Send>) -> Option<Box<dyn Send>> {
        match self.state.instances.get_mut(instance.index(), instance.generation()) {
            Some(instance) => instance.watch.replace(watch),
            None => Some(watch),
        }
    }

    fn is_in(&self, instance: InstanceId, is: impl FnOnce(Stage) -> bool) -> bool {
        let found = self.state.instances.get(instance.index(), instance.generation());
        found.is_some_and(|instance| is(instance.stage))
    }

    fn slots_of(&self, instance: InstanceId) -> impl Iterator<Item = &'static Slot> + use<'c> {
        self.slots().filter(move |slot| slot.instance() == (instance.index(), instance.generation()))
    }
}
