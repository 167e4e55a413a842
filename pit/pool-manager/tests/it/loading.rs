//! Instances that are loaded when they are asked for: once, within the budget, unloaded when nobody uses them.

use std::{
    sync::{Arc, Mutex},
    task::Poll,
    thread,
    time::Duration,
};

use pit_core::clock::{Clock, ManualClock, Tick};
use pool_manager::{
    AllocateError, DeclareError, ErrorClass, IdleWatch, InstanceId, LOAD_RETRY_TIME_MIN, Load, Loader,
    Memory, ModelId, ModelSpec, PoolManager, PoolOptions, Unload,
};

use crate::support::{counts, leased, poll, refused};

/// Keeps what it was told to load, so that the test says what becomes of it.
#[derive(Default)]
pub(crate) struct Shelf {
    loads: Mutex<Vec<Load>>,
    unloaded: Mutex<Vec<(ModelId, InstanceId)>>,
    /// `None`: what is unloaded is gone at once.
    unloads: Mutex<Option<Vec<Unload>>>,
    watched: Mutex<Vec<(ModelId, InstanceId, Duration)>>,
}

impl Shelf {
    pub(crate) fn next(&self) -> Option<Load> {
        let mut loads = self.loads.lock().unwrap();
        if loads.is_empty() { None } else { Some(loads.remove(0)) }
    }

    pub(crate) fn count(&self) -> usize {
        self.loads.lock().unwrap().len()
    }

    pub(crate) fn unloaded(&self) -> Vec<(ModelId, InstanceId)> {
        self.unloaded.lock().unwrap().clone()
    }

    /// From now on unloading takes until [`drop_unloads`](Self::drop_unloads).
    pub(crate) fn keep_unloads(&self) {
        *self.unloads.lock().unwrap() = Some(Vec::new());
    }

    pub(crate) fn drop_unloads(&self) {
        let gone = self.unloads.lock().unwrap().take();
        drop(gone);
    }

    pub(crate) fn ready(&self) -> InstanceId {
        let load = self.next().unwrap();
        let instance = load.instance();
        load.ready();
        instance
    }
}

impl Loader for Shelf {
    fn load(&self, load: Load) {
        self.loads.lock().unwrap().push(load);
    }

    fn unload(&self, unload: Unload) {
        self.unloaded.lock().unwrap().push((unload.model(), unload.instance()));
        let gone = match &mut *self.unloads.lock().unwrap() {
            Some(kept) => {
                kept.push(unload);
                None
            }
            None => Some(unload),
        };
        // Not under the lock: it lets others in.
        drop(gone);
    }
}

impl IdleWatch for Shelf {
    fn watch(&self, model: ModelId, instance: InstanceId, idle: Duration) -> Box<dyn Send> {
        self.watched.lock().unwrap().push((model, instance, idle));
        Box::new(())
    }
}

fn memory(bytes: u64) -> Memory {
    Memory { at_load_bytes: bytes, in_use_bytes: bytes }
}

pub(crate) fn pools_of(memory_budget_bytes: u64) -> (PoolManager, Arc<Shelf>, Arc<ManualClock>) {
    let shelf = Arc::new(Shelf::default());
    let clock = Arc::new(ManualClock::new());
    let options = PoolOptions {
        clock: clock.clone(),
        memory_budget_bytes,
        idle_watch: Some(shelf.clone()),
        ..PoolOptions::default()
    };
    (PoolManager::with_options(options), shelf, clock)
}

#[test]
fn hundred_who_ask_at_once_have_it_loaded_once() {
    const ASKING: u32 = 100;
    let (pools, shelf, _) = pools_of(u64::MAX);
    let spec = ModelSpec::new(1).with_concurrency(ASKING).loaded_by(shelf.clone(), memory(1));
    let model = pools.declare("m", spec).unwrap();
    thread::scope(|scope| {
        for _ in 0..ASKING {
            scope.spawn(|| {
                let lease = pools.allocate_wait(model, Tick::NEVER).unwrap();
                assert!(lease.is_current() && lease.model() == model);
                lease
            });
        }
        while pools.state(model).unwrap().waiting < ASKING {
            thread::yield_now();
        }
        assert_eq!((shelf.count(), pools.state(model).unwrap().loading), (1, 1));
        shelf.ready();
    });
    assert_eq!((shelf.count(), pools.totals().loads), (0, 1));
    assert_eq!(pools.state(model).unwrap().leases_total, u64::from(ASKING));
}

#[test]
fn who_does_not_wait_is_told_that_it_is_being_loaded() {
    let (pools, shelf, _) = pools_of(u64::MAX);
    let model = pools.declare("m", ModelSpec::new(2).loaded_by(shelf.clone(), memory(1))).unwrap();
    for _ in 0..3 {
        assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Loading(model));
    }
    assert_eq!(shelf.count(), 1, "one who asks can use one");
    shelf.ready();
    let first = pools.allocate(model).unwrap();
    assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Loading(model));
    let second = shelf.ready();
    assert_ne!(pools.allocate(model).unwrap().instance(), first.instance());
    let held = pools.allocate(model).unwrap();
    assert_eq!(held.instance(), second);
    assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Busy(model), "there are no more than two");
}

#[test]
fn those_who_wait_are_served_in_order_as_instances_become_ready() {
    let (pools, shelf, _) = pools_of(u64::MAX);
    let spec = ModelSpec::new(3).with_concurrency(2).loaded_by(shelf.clone(), memory(1));
    let model = pools.declare("m", spec).unwrap();
    let mut waiting: Vec<_> = (0..5).map(|_| pools.allocate_async(model)).collect();
    assert!(waiting.iter_mut().all(|allocating| poll(allocating).is_pending()));
    assert_eq!(shelf.count(), 3, "two for each");
    let mut leases = Vec::new();
    for served in [2, 4, 5] {
        shelf.ready();
        while leases.len() < served {
            leases.push(leased(poll(&mut waiting.remove(0))));
        }
        assert!(waiting.iter_mut().all(|allocating| poll(allocating).is_pending()), "after {served}");
    }
    assert_eq!(counts(&pools, model), (5, 0));
    drop(leases);
    assert_eq!((counts(&pools, model), pools.state(model).unwrap().ready), ((0, 0), 3));
}

#[test]
fn load_that_fails_or_is_forgotten_is_tried_again_after_its_rest_only() {
    let (pools, shelf, clock) = pools_of(100);
    let rest = Duration::from_secs(5);
    let spec =
        ModelSpec::new(1).with_cool_down(ErrorClass::NotLoaded, rest).loaded_by(shelf.clone(), memory(60));
    let model = pools.declare("m", spec).unwrap();
    let mut waiting = pools.allocate_async(model);
    assert!(poll(&mut waiting).is_pending());
    drop(shelf.next().unwrap());
    let until = clock.now().after(rest);
    assert_eq!((shelf.count(), pools.totals().memory_bytes), (0, 0));
    let error = AllocateError::CoolingDown { model, until };
    assert_eq!(pools.allocate(model).unwrap_err(), error);
    assert!(poll(&mut waiting).is_pending(), "it has no deadline");
    assert_eq!(pools.turn(clock.now()), until);
    clock.advance(rest);
    pools.turn(clock.now());
    shelf.next().unwrap().failed(ErrorClass::Unavailable);
    assert_eq!(shelf.count(), 0, "without a rest of its own it is left alone for the shortest time");
    clock.advance(LOAD_RETRY_TIME_MIN);
    pools.turn(clock.now());
    shelf.ready();
    drop(leased(poll(&mut waiting)));
    assert_eq!((pools.totals().loads, pools.totals().memory_bytes), (3, 60));
}

#[test]
fn what_is_idle_makes_room_for_what_is_wanted_and_what_is_pinned_does_not() {
    let (pools, shelf, clock) = pools_of(100);
    let spec = |bytes| ModelSpec::new(1).loaded_by(shelf.clone(), memory(bytes));
    let too_large = DeclareError::BeyondBudget { bytes: 101, budget_bytes: 100 };
    assert_eq!(pools.declare("large", spec(101)).unwrap_err(), too_large);
    let [idle, used, wanted] = ["idle", "used", "wanted"].map(|name| pools.declare(name, spec(40)).unwrap());
    let pinned = pools.declare("pinned", spec(10).pinned()).unwrap();
    let load = |model| {
        assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Loading(model));
        shelf.ready()
    };
    let (unloaded, _, _) = (load(idle), load(used), load(pinned));
    let held = pools.allocate(used).unwrap();
    assert_eq!(pools.totals().memory_bytes, 90);

    let mut waiting = pools.allocate_async(wanted);
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(*shelf.unloaded.lock().unwrap(), [(idle, unloaded)]);
    assert_eq!(pools.totals().memory_bytes, 90);
    shelf.ready();
    let lease = leased(poll(&mut waiting));

    // Now everything is in use or pinned: the next one waits until something falls idle.
    let mut waiting = pools.allocate_async(idle);
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(shelf.count(), 0);
    drop(held);
    clock.advance(pool_manager::MEMORY_RETRY_TIME);
    pools.turn(clock.now());
    assert_eq!(shelf.unloaded.lock().unwrap().last().map(|(model, _)| *model), Some(used));
    shelf.ready();
    drop(leased(poll(&mut waiting)));
    assert!(lease.is_current() && pools.state(pinned).unwrap().ready == 1);
}

#[test]
fn instance_is_unloaded_when_it_was_not_used_for_its_idle_time() {
    let (pools, shelf, _) = pools_of(u64::MAX);
    let idle = Duration::from_secs(60);
    let spec = ModelSpec::new(1).with_idle_time(idle).loaded_by(shelf.clone(), memory(7));
    let model = pools.declare("m", spec).unwrap();
    assert!(pools.allocate(model).is_err());
    let instance = shelf.ready();
    assert_eq!(*shelf.watched.lock().unwrap(), [(model, instance, idle)]);
    let held = pools.allocate(model).unwrap();
    assert!(!pools.unload_idle(model, instance), "it was used");
    assert!(!pools.unload_idle(model, instance), "it is in use");
    drop(held);
    drop(pools.allocate(model).unwrap());
    assert!(!pools.unload_idle(model, instance), "it was used and given back since");
    assert!(pools.unload_idle(model, instance));
    assert!(pools.unload_idle(model, instance), "it is gone already");
    assert_eq!(*shelf.unloaded.lock().unwrap(), [(model, instance)]);
    assert_eq!((pools.totals().memory_bytes, pools.totals().unloads), (0, 1));
    assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Loading(model));
    let successor = shelf.ready();
    assert_ne!(successor, instance);
    assert!(pools.unload_idle(model, instance), "the old one's watch does not unload the new one");
    assert!(pools.allocate(model).is_ok_and(|lease| lease.instance() == successor));
}

#[test]
fn what_is_loaded_for_a_model_that_is_gone_is_unloaded() {
    let (pools, shelf, _) = pools_of(100);
    let spec = || ModelSpec::new(1).loaded_by(shelf.clone(), memory(100));
    let old = pools.declare("m", spec()).unwrap();
    let mut waiting = pools.allocate_async(old);
    assert!(poll(&mut waiting).is_pending());
    let late = shelf.next().unwrap();
    let new = pools.redeclare(old, spec()).unwrap();
    assert_eq!(refused(poll(&mut waiting)), AllocateError::ModelRetired(old));
    let too_late = late.instance();
    late.ready();
    assert_eq!(*shelf.unloaded.lock().unwrap(), [(old, too_late)]);
    assert_eq!(pools.allocate(new).unwrap_err(), AllocateError::Loading(new));
    let instance = shelf.ready();
    let lease = pools.allocate(new).unwrap();
    assert!(pools.retire_model(new) && !lease.is_current());
    assert_eq!(shelf.unloaded.lock().unwrap().last(), Some(&(new, instance)));
    assert_eq!(pools.totals().memory_bytes, 0);
    assert!(matches!(poll(&mut pools.allocate_async(new)), Poll::Ready(Err(_))));
}
