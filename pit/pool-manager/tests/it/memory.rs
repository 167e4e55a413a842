//! The memory budget: reserved for loading and for use, changed in use, counted until what had it is gone.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use pit_core::clock::{Clock, Tick};
use pool_manager::{
    AllocateError, ErrorClass, InstanceId, Load, Loader, MEMORY_RETRY_TIME, Memory, MemoryError, ModelId,
    ModelSpec, PoolManager, PoolOptions, Unload,
};

use crate::loading::{Shelf, pools_of};
use crate::support::{leased, poll};

fn memory(at_load_bytes: u64, in_use_bytes: u64) -> Memory {
    Memory { at_load_bytes, in_use_bytes }
}

/// Declares a model of one instance.
fn declare(pools: &PoolManager, shelf: &Arc<Shelf>, name: &str, memory: Memory) -> ModelId {
    pools.declare(name, ModelSpec::new(1).loaded_by(shelf.clone(), memory)).unwrap()
}

/// Asks without waiting, and makes ready what is loaded then.
fn load(pools: &PoolManager, shelf: &Shelf, model: ModelId) -> InstanceId {
    assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Loading(model));
    shelf.ready()
}

#[test]
fn what_it_takes_in_use_is_there_before_it_is_loaded() {
    let (pools, shelf, clock) = pools_of(100);
    let small_at_load = memory(10, 60);
    let [first, second] = ["first", "second"].map(|name| declare(&pools, &shelf, name, small_at_load));
    assert_eq!(pools.allocate(first).unwrap_err(), AllocateError::Loading(first));
    assert_eq!(pools.totals().memory_bytes, 60, "the larger of the two, while it is loaded");
    let mut waiting = pools.allocate_async(second);
    assert!(poll(&mut waiting).is_pending());
    shelf.ready();
    let lease = pools.allocate(first).unwrap();
    assert_eq!((shelf.count(), pools.totals().memory_bytes), (0, 60), "both in use would take 120");

    // And the other way round: what loading took more comes back when it is loaded.
    drop(lease);
    clock.advance(MEMORY_RETRY_TIME);
    pools.turn(clock.now());
    shelf.ready();
    drop(leased(poll(&mut waiting)));
    let large_at_load = declare(&pools, &shelf, "large at load", memory(90, 40));
    load(&pools, &shelf, large_at_load);
    assert_eq!(pools.totals().memory_bytes, 40);
}

#[test]
fn who_does_not_wait_is_not_refused_for_memory_that_something_idle_has() {
    let (pools, shelf, _) = pools_of(100);
    let [idle, wanted] = ["idle", "wanted"].map(|name| declare(&pools, &shelf, name, memory(60, 60)));
    let instance = load(&pools, &shelf, idle);
    let held = pools.allocate(idle).unwrap();
    assert_eq!(pools.allocate(wanted).unwrap_err(), AllocateError::Busy(wanted), "nothing is idle");
    drop(held);
    assert_eq!(pools.allocate(wanted).unwrap_err(), AllocateError::Loading(wanted));
    assert_eq!(shelf.unloaded(), [(idle, instance)]);
}

#[test]
fn only_as_much_is_unloaded_as_is_wanted() {
    let (pools, shelf, _) = pools_of(100);
    let many = pools.declare("many", ModelSpec::new(4).loaded_by(shelf.clone(), memory(25, 25))).unwrap();
    let mut waiting: Vec<_> = (0..4).map(|_| pools.allocate_async(many)).collect();
    assert!(waiting.iter_mut().all(|allocating| poll(allocating).is_pending()));
    (0..4).for_each(|_| assert!(shelf.ready().generation() > 0));
    drop(waiting);
    let wanted = declare(&pools, &shelf, "wanted", memory(30, 30));
    load(&pools, &shelf, wanted);
    assert_eq!((pools.state(many).unwrap().ready, pools.totals().memory_bytes), (2, 80));
}

#[test]
fn instance_that_needs_more_gets_what_is_idle_and_is_refused_what_is_not_there() {
    let (pools, shelf, _) = pools_of(100);
    let [growing, other] = ["growing", "other"].map(|name| declare(&pools, &shelf, name, memory(40, 40)));
    let (instance, idle) = (load(&pools, &shelf, growing), load(&pools, &shelf, other));
    pools.set_memory_in_use(growing, instance, 60).unwrap();
    assert!(shelf.unloaded().is_empty(), "there was enough");
    let held = pools.allocate(other).unwrap();
    let refused = MemoryError::OutOfMemory { model: growing, instance, bytes: 61, budget_bytes: 100 };
    assert_eq!(pools.set_memory_in_use(growing, instance, 61), Err(refused));
    assert_eq!(pools.totals().memory_bytes, 100, "as before");
    drop(held);
    pools.set_memory_in_use(growing, instance, 61).unwrap();
    assert_eq!((shelf.unloaded(), pools.totals().memory_bytes), (vec![(other, idle)], 61));
    assert_eq!(pools.state(growing).unwrap().ready, 1, "idle as it is, it does not make room for itself");

    // Who stands in line is let in by what somebody gives back, and is not before who is in use.
    let mut waiting = pools.allocate_async(other);
    let _held = pools.allocate(growing).unwrap();
    assert!(poll(&mut waiting).is_pending() && shelf.count() == 0);
    pools.set_memory_in_use(growing, instance, 100).unwrap();
    assert_eq!(shelf.count(), 0);
    pools.set_memory_in_use(growing, instance, 60).unwrap();
    assert_eq!((shelf.count(), pools.totals().memory_bytes), (1, 100));
    shelf.ready();
    drop(leased(poll(&mut waiting)));

    assert!(pools.end_instance(growing, instance, ErrorClass::Faulty));
    let gone = MemoryError::NotLoaded { model: growing, instance };
    assert_eq!(pools.set_memory_in_use(growing, instance, 1), Err(gone));
    assert_eq!(pools.totals().memory_bytes, 40);
}

#[test]
fn what_is_unloaded_for_one_that_grows_is_not_given_to_those_in_line() {
    let (pools, shelf, _) = pools_of(100);
    let [growing, other] = ["growing", "other"].map(|name| declare(&pools, &shelf, name, memory(40, 40)));
    let waited_for = declare(&pools, &shelf, "waited for", memory(30, 30));
    let (instance, idle) = (load(&pools, &shelf, growing), load(&pools, &shelf, other));
    let held = [growing, other].map(|model| pools.allocate(model).unwrap());
    let mut waiting = pools.allocate_async(waited_for);
    assert!(poll(&mut waiting).is_pending());
    let [_growing, other_held] = held;
    drop(other_held);
    pools.set_memory_in_use(growing, instance, 80).unwrap();
    assert_eq!((shelf.unloaded(), shelf.count()), (vec![(other, idle)], 0));
    pools.set_memory_in_use(growing, instance, 70).unwrap();
    assert_eq!(shelf.count(), 1, "now there is enough for it");
}

#[test]
fn nobody_overtakes_those_who_stand_in_line_for_memory() {
    let (pools, shelf, _) = pools_of(100);
    let used = declare(&pools, &shelf, "used", memory(60, 60));
    let instance = load(&pools, &shelf, used);
    let held = pools.allocate(used).unwrap();
    let [large, small] = [("large", 50), ("small", 10)]
        .map(|(name, bytes)| declare(&pools, &shelf, name, memory(bytes, bytes)));
    let mut waiting = [large, small].map(|model| pools.allocate_async(model));
    assert!(waiting.iter_mut().all(|allocating| poll(allocating).is_pending()));
    assert_eq!(pools.allocate(small).unwrap_err(), AllocateError::Busy(small));
    assert_eq!(shelf.count(), 0, "the small one would fit, and the large one would wait for ever");
    assert!(held.is_current() && pools.end_instance(used, instance, ErrorClass::Faulty));
    assert_eq!([shelf.next(), shelf.next()].map(|load| load.unwrap().model()), [large, small]);
}

#[test]
fn memory_counts_until_what_had_it_is_gone() {
    let (pools, shelf, _) = pools_of(100);
    let [first, second] = ["first", "second"].map(|name| declare(&pools, &shelf, name, memory(60, 60)));
    // Retired while it is loaded: it is loaded all the same, and let go of then.
    assert!(pools.allocate(first).is_err() && pools.retire_model(first));
    let mut waiting = pools.allocate_async(second);
    assert!(poll(&mut waiting).is_pending());
    assert_eq!((shelf.count(), pools.totals().memory_bytes), (1, 60));
    shelf.keep_unloads();
    let instance = shelf.ready();
    assert_eq!((shelf.unloaded(), pools.totals().memory_bytes), (vec![(first, instance)], 60));
    assert_eq!(shelf.count(), 0, "it is not gone yet");
    shelf.drop_unloads();
    assert_eq!((shelf.count(), pools.totals().memory_bytes), (1, 60), "the other one");
    shelf.ready();
    drop(leased(poll(&mut waiting)));
}

#[test]
fn looking_for_memory_does_not_shorten_the_time_to_be_idle() {
    let (pools, shelf, _) = pools_of(100);
    let [first, second, third] =
        ["first", "second", "third"].map(|name| declare(&pools, &shelf, name, memory(50, 50)));
    let instances = [first, second].map(|model| {
        let instance = load(&pools, &shelf, model);
        drop(pools.allocate(model).unwrap());
        (model, instance)
    });
    load(&pools, &shelf, third);
    let unloaded = shelf.unloaded();
    let (model, instance) = instances.into_iter().find(|one| !unloaded.contains(one)).unwrap();
    assert_eq!(unloaded.len(), 1);
    assert!(!pools.unload_idle(model, instance), "it was used since its watch last asked");
    assert!(pools.unload_idle(model, instance));
}

#[test]
fn what_is_loaded_is_let_go_of_with_its_manager() {
    let (pools, shelf, _) = pools_of(100);
    let [loaded, loading] = ["loaded", "loading"].map(|name| declare(&pools, &shelf, name, memory(1, 1)));
    let first = load(&pools, &shelf, loaded);
    assert!(pools.allocate(loading).is_err());
    drop(pools);
    assert_eq!(shelf.unloaded(), [(loaded, first)]);
    let second = shelf.ready();
    assert_eq!(shelf.unloaded(), [(loaded, first), (loading, second)]);
}

/// Loads at once, and keeps the books of what is really taken.
struct Books {
    bytes: AtomicU64,
    most: AtomicU64,
    memory: Memory,
    instances: Mutex<HashMap<(ModelId, InstanceId), u64>>,
}

impl Books {
    fn add(&self, bytes: u64) {
        let sum = self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.most.fetch_max(sum, Ordering::SeqCst);
    }

    fn subtract(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }
}

impl Loader for Books {
    fn load(&self, load: Load) {
        self.add(self.memory.at_load_bytes);
        let instance = (load.model(), load.instance());
        self.instances.lock().unwrap().insert(instance, self.memory.in_use_bytes);
        self.subtract(self.memory.at_load_bytes);
        self.add(self.memory.in_use_bytes);
        load.ready();
    }

    fn unload(&self, unload: Unload) {
        let bytes = self.instances.lock().unwrap().remove(&(unload.model(), unload.instance()));
        self.subtract(bytes.unwrap());
        drop(unload);
    }
}

#[test]
fn threads_that_load_grow_and_end_never_exceed_the_budget_and_are_all_served() {
    const BUDGET: u64 = 100;
    const ROUNDS: u64 = 2_000;
    let pools =
        PoolManager::with_options(PoolOptions { memory_budget_bytes: BUDGET, ..PoolOptions::default() });
    let books = Arc::new(Books {
        bytes: AtomicU64::new(0),
        most: AtomicU64::new(0),
        memory: memory(45, 30),
        instances: Mutex::default(),
    });
    let models: Vec<_> = (0..5)
        .map(|number| {
            let spec = ModelSpec::new(2).loaded_by(books.clone(), books.memory);
            pools.declare(&number.to_string(), spec).unwrap()
        })
        .collect();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (pools, books, models) = (&pools, &books, &models);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let model = models[usize::try_from((round * 7 + thread * 3) % 5).unwrap()];
                    let lease = pools.allocate_wait(model, Tick::NEVER).unwrap();
                    let key = (model, lease.instance());
                    match (round + thread) % 4 {
                        // It is in use, so that nobody unloads it meanwhile.
                        0 | 1 => {
                            let (before, after) = (books.instances.lock().unwrap()[&key], 10 + round % 60);
                            books.subtract(before.saturating_sub(after));
                            if pools.set_memory_in_use(model, key.1, after).is_ok() {
                                books.add(after.saturating_sub(before));
                                books.instances.lock().unwrap().insert(key, after);
                            }
                        }
                        2 => {
                            let bytes = books.instances.lock().unwrap().remove(&key).unwrap();
                            books.subtract(bytes);
                            assert!(pools.end_instance(model, key.1, ErrorClass::Faulty));
                        }
                        _ => {}
                    }
                    drop(lease);
                }
            });
        }
    });
    assert!(books.most.load(Ordering::SeqCst) <= BUDGET);
    let left: u64 = books.instances.lock().unwrap().values().sum();
    assert_eq!((pools.totals().memory_bytes, books.bytes.load(Ordering::SeqCst)), (left, left));
}
