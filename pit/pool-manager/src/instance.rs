//! The instances of a model: which are there, which come, which rest. Pure data and decisions; the diagram is in
//! [`loader`](crate::loader).

use pit_core::clock::Tick;

use crate::budget::Reserved;

/// Who asks whether an instance was used; each since it last asked itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asking {
    /// Whoever unloads what is idle.
    Watch,
    /// Whoever wants memory.
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not loaded; to be loaded from this moment on.
    Absent(Tick),
    Loading,
    Ready,
    /// Loaded, and left alone until this moment.
    Resting(Tick),
}

pub(crate) struct Instance {
    pub(crate) stage: Stage,
    /// Which of the successive occupants of this place.
    pub(crate) epoch: u32,
    /// Slots that are open for it.
    pub(crate) open: u32,
    /// What its slots had counted when each who asks whether it was used last did.
    pub(crate) uses_seen: [u64; 2],
    /// What it takes, from when it is loaded until it is gone.
    pub(crate) reserved: Reserved,
    /// Whoever watches whether it is idle.
    pub(crate) watch: Option<Box<dyn Send>>,
}

impl Instance {
    /// When it can be used or loaded again.
    const fn back(&self) -> Option<Tick> {
        match self.stage {
            Stage::Resting(until) | Stage::Absent(until) => Some(until),
            Stage::Loading | Stage::Ready => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Instances {
    all: Vec<Instance>,
    pub(crate) concurrency: u32,
    pub(crate) ready: u32,
    pub(crate) loading: u32,
    pub(crate) resting: u32,
    /// Slots that are open for instances that give leases.
    pub(crate) open: u32,
}

impl Instances {
    pub(crate) fn new(count: u32, concurrency: u32, stage: Stage, epoch: u32) -> Self {
        let instance = |_| Instance {
            stage,
            epoch,
            open: 0,
            uses_seen: [0; 2],
            reserved: Reserved::default(),
            watch: None,
        };
        let mut instances = Self { all: (0..count).map(instance).collect(), concurrency, ..Self::default() };
        *instances.tally(stage).unwrap_or(&mut 0) = count;
        instances
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Instance)> {
        (0..).zip(&self.all)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Instance)> {
        (0..).zip(&mut self.all)
    }

    /// Whoever watches them, to be dropped.
    pub(crate) fn into_watches(self) -> impl Iterator<Item = Box<dyn Send>> {
        self.all.into_iter().filter_map(|instance| instance.watch)
    }

    pub(crate) fn get(&self, index: u32, epoch: u32) -> Option<&Instance> {
        self.all.get(index as usize).filter(|instance| instance.epoch == epoch)
    }

    pub(crate) fn get_mut(&mut self, index: u32, epoch: u32) -> Option<&mut Instance> {
        self.all.get_mut(index as usize).filter(|instance| instance.epoch == epoch)
    }

    /// Whether the instance is there and gives leases.
    pub(crate) fn is_ready(&self, index: u32, epoch: u32) -> bool {
        self.get(index, epoch).is_some_and(|instance| instance.stage == Stage::Ready)
    }

    pub(crate) fn set_stage(&mut self, index: u32, stage: Stage) {
        let instance = &mut self.all[index as usize];
        let (before, open) = (std::mem::replace(&mut instance.stage, stage), instance.open);
        if let Some(count) = self.tally(before) {
            *count -= 1;
        }
        if let Some(count) = self.tally(stage) {
            *count += 1;
        }
        self.open -= if before == Stage::Ready { open } else { 0 };
        self.open += if stage == Stage::Ready { open } else { 0 };
    }

    fn tally(&mut self, stage: Stage) -> Option<&mut u32> {
        match stage {
            Stage::Absent(_) => None,
            Stage::Loading => Some(&mut self.loading),
            Stage::Ready => Some(&mut self.ready),
            Stage::Resting(_) => Some(&mut self.resting),
        }
    }

    pub(crate) fn set_epoch(&mut self, index: u32, epoch: u32) {
        self.all[index as usize].epoch = epoch;
    }

    pub(crate) fn count_open(&mut self, index: u32, is_opened: bool) {
        let instance = &mut self.all[index as usize];
        let change = |open: u32| if is_opened { open + 1 } else { open - 1 };
        instance.open = change(instance.open);
        if instance.stage == Stage::Ready {
            self.open = change(self.open);
        }
    }

    fn absent(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX) - self.ready - self.loading - self.resting
    }

    /// Whether a look under the lock may find a lease, or begin to load one, when no slot is free.
    pub(crate) fn have_spare(&self) -> bool {
        let not_ready = self.absent() + self.loading + self.resting;
        not_ready > 0 || self.open < self.ready.saturating_mul(self.concurrency)
    }

    /// An instance that gives leases and has not as many slots open as it may.
    pub(crate) fn with_room(&self) -> Option<(u32, u32)> {
        if self.open >= self.ready.saturating_mul(self.concurrency) {
            return None;
        }
        let has_room =
            |instance: &Instance| instance.stage == Stage::Ready && instance.open < self.concurrency;
        self.iter().find(|(_, instance)| has_room(instance)).map(|(index, instance)| (index, instance.epoch))
    }

    /// An instance that can be loaded at `now`, if `wanted` leases are more than what is being loaded gives.
    pub(crate) fn to_be_loaded(&self, wanted: usize, now: Tick) -> Option<u32> {
        let coming = u64::from(self.loading) * u64::from(self.concurrency);
        if wanted as u64 <= coming || self.absent() == 0 {
            return None;
        }
        let can_be = |instance: &Instance| matches!(instance.stage, Stage::Absent(from) if from <= now);
        self.iter().find(|(_, instance)| can_be(instance)).map(|(index, _)| index)
    }

    /// When the first comes back, if all of them rest at `now` (or have failed to load, and are not tried again yet).
    pub(crate) fn all_rest_until(&self, now: Tick) -> Option<Tick> {
        let is_there_now = self.ready + self.loading > 0 || self.iter().any(|(_, it)| it.back() <= Some(now));
        if is_there_now { None } else { self.first_back(now) }
    }

    /// The first end of a rest after `now`.
    pub(crate) fn first_back(&self, now: Tick) -> Option<Tick> {
        if self.resting + self.absent() == 0 {
            return None;
        }
        self.iter().filter_map(|(_, instance)| instance.back()).filter(|back| *back > now).min()
    }

    /// Instances whose rest is over at `now`.
    pub(crate) fn rested(&self, now: Tick) -> Vec<u32> {
        if self.resting == 0 {
            return Vec::new();
        }
        let is_over = |instance: &Instance| matches!(instance.stage, Stage::Resting(until) if until <= now);
        self.iter().filter(|(_, instance)| is_over(instance)).map(|(index, _)| index).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_loaded_than_those_who_wait_can_use() {
        let at = Tick::from_nanos;
        let mut instances = Instances::new(3, 4, Stage::Absent(Tick::ZERO), 1);
        assert_eq!(instances.to_be_loaded(0, at(5)), None);
        assert_eq!(instances.to_be_loaded(1, at(5)), Some(0));
        instances.set_stage(0, Stage::Loading);
        for (wanted, next) in [(1, None), (4, None), (5, Some(1)), (100, Some(1))] {
            assert_eq!(instances.to_be_loaded(wanted, at(5)), next, "{wanted} wait");
        }
        instances.set_stage(1, Stage::Absent(at(9)));
        assert_eq!(instances.to_be_loaded(5, at(5)), Some(2), "the other one is not tried again yet");
        instances.set_stage(2, Stage::Ready);
        assert_eq!((instances.to_be_loaded(5, at(5)), instances.to_be_loaded(5, at(9))), (None, Some(1)));
    }

    #[test]
    fn slots_of_those_that_rest_are_nobodys_room() {
        let mut instances = Instances::new(2, 2, Stage::Ready, 1);
        instances.count_open(0, true);
        instances.count_open(0, true);
        instances.set_stage(0, Stage::Resting(Tick::NEVER));
        instances.count_open(0, false);
        assert_eq!((instances.open, instances.with_room()), (0, Some((1, 1))));
        instances.count_open(1, true);
        assert_eq!(instances.with_room(), Some((1, 1)));
        instances.count_open(1, true);
        assert_eq!((instances.with_room(), instances.have_spare()), (None, true));
        instances.set_stage(0, Stage::Ready);
        assert_eq!((instances.open, instances.with_room()), (3, Some((0, 1))));
        instances.count_open(0, true);
        assert!(!instances.have_spare());
    }

    #[test]
    fn all_rest_only_when_none_gives_or_will_give_a_lease_sooner() {
        let at = Tick::from_nanos;
        let mut instances = Instances::new(2, 1, Stage::Ready, 1);
        instances.set_stage(0, Stage::Resting(at(20)));
        assert_eq!((instances.all_rest_until(at(5)), instances.resting), (None, 1));
        instances.set_stage(1, Stage::Absent(at(10)));
        assert_eq!(instances.all_rest_until(at(5)), Some(at(10)));
        assert_eq!(instances.all_rest_until(at(10)), None, "it can be loaded now");
        instances.set_stage(1, Stage::Loading);
        assert_eq!(instances.all_rest_until(at(5)), None);
        assert_eq!((instances.rested(at(19)), instances.rested(at(20))), (vec![], vec![0]));
    }
}
