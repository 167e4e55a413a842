//! The models that loom runs: every interleaving of two or three threads at one pool of one or two leases.
//!
//! Nothing in here is about the models that are leased. A lost wake-up shows as a deadlock, a count that goes wrong as a
//! failed assertion, and a missing ordering as a lost increment of a number that only a lease protects.

use std::{
    pin::pin,
    sync::Arc as StdArc,
    task::{Context, Waker},
};

use loom::{future::block_on, thread};
use pit_core::{
    clock::{Clock, ManualClock},
    priority::Ageing,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    AllocateError, ErrorClass, Holder, Load, Loader, Memory, ModelId, ModelSpec, ModelState, PoolManager,
    Request, Unload,
};

/// LIMIT: three threads are tried with at most two preemptions each way; without a bound that takes hours.
fn three_threads(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

fn pools(capacity: u32) -> (PoolManager, ModelId) {
    let pools = PoolManager::with_ageing(Ageing::default(), StdArc::new(ManualClock::new()));
    let model = pools.declare("m", capacity).unwrap();
    (pools, model)
}

fn counts(pools: &PoolManager, model: ModelId) -> (u32, u32) {
    let ModelState { leased, waiting, .. } = pools.state(model).unwrap();
    (leased, waiting)
}

#[test]
fn waiter_is_never_left_asleep_by_a_lease_given_back() {
    loom::model(|| {
        let (pools, model) = pools(1);
        let lease = pools.allocate(model).unwrap();
        let giver = thread::spawn(move || drop(lease));
        let mine = block_on(pools.allocate_async(model)).unwrap();
        assert_eq!(counts(&pools, model), (1, 0));
        drop(mine);
        giver.join().unwrap();
        assert_eq!(counts(&pools, model), (0, 0));
    });
}

#[test]
fn one_lease_protects_what_three_threads_change() {
    three_threads(|| {
        let (pools, model) = pools(1);
        let protected = Arc::new(AtomicU32::new(0));
        let change = {
            let (pools, protected) = (pools.clone(), Arc::clone(&protected));
            move || {
                let lease = block_on(pools.allocate_async(model)).unwrap();
                // A load and a store: an increment is lost when the lease does not order them.
                let before = protected.load(Ordering::Relaxed);
                protected.store(before + 1, Ordering::Relaxed);
                drop(lease);
            }
        };
        let others = [thread::spawn(change.clone()), thread::spawn(change.clone())];
        change();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(protected.load(Ordering::Relaxed), 3);
        assert_eq!(counts(&pools, model), (0, 0));
    });
}

#[test]
fn fast_path_of_two_threads_orders_what_a_lease_protects() {
    loom::model(|| {
        let (pools, model) = pools(1);
        let protected = Arc::new(AtomicU32::new(0));
        let change = {
            let (pools, protected) = (pools.clone(), Arc::clone(&protected));
            move || match pools.allocate(model) {
                Ok(_lease) => {
                    let before = protected.load(Ordering::Relaxed);
                    protected.store(before + 1, Ordering::Relaxed);
                    1
                }
                Err(error) => {
                    assert_eq!(error, AllocateError::Busy(model));
                    0
                }
            }
        };
        let other = thread::spawn(change.clone());
        let done = change() + other.join().unwrap();
        assert!(done >= 1, "one of two always finds a lease");
        assert_eq!(protected.load(Ordering::Relaxed), done);
        assert_eq!(counts(&pools, model), (0, 0));
    });
}

#[test]
fn lease_handed_to_a_waiter_that_goes_away_is_not_lost() {
    loom::model(|| {
        let (pools, model) = pools(1);
        let lease = pools.allocate(model).unwrap();
        let giver = thread::spawn(move || drop(lease));
        {
            let mut leaving = pin!(pools.allocate_async(model));
            let _ = leaving.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        giver.join().unwrap();
        assert_eq!(counts(&pools, model), (0, 0));
        assert!(pools.allocate(model).is_ok());
    });
}

#[test]
fn waiter_behind_one_that_goes_away_is_served() {
    three_threads(|| {
        let (pools, model) = pools(1);
        let lease = pools.allocate(model).unwrap();
        let mut leaving = Box::pin(pools.allocate_async(model));
        assert!(leaving.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let giver = thread::spawn(move || drop(lease));
        let leaver = thread::spawn(move || drop(leaving));
        drop(block_on(pools.allocate_async(model)).unwrap());
        giver.join().unwrap();
        leaver.join().unwrap();
        assert_eq!(counts(&pools, model), (0, 0));
    });
}

#[test]
fn lease_of_before_a_redeclaration_changes_nothing_after_it() {
    three_threads(|| {
        let (pools, model) = pools(1);
        let lease = pools.allocate(model).unwrap();
        let giver = thread::spawn(move || drop(lease));
        let redeclaring = {
            let pools = pools.clone();
            thread::spawn(move || pools.redeclare(model, 2).unwrap())
        };
        match block_on(pools.allocate_async(model)) {
            Ok(old) => drop(old),
            Err(error) => assert_eq!(error, AllocateError::ModelRetired(model)),
        }
        let successor = redeclaring.join().unwrap();
        giver.join().unwrap();
        assert_eq!(counts(&pools, successor), (0, 0));
    });
}

#[test]
fn lease_of_a_holder_that_dies_is_given_back_once() {
    loom::model(|| {
        let (pools, model) = pools(2);
        let holder = Holder::new("h");
        let lease = pools.allocate(Request::new(model).held_by(&holder)).unwrap();
        let other = pools.allocate(model).unwrap();
        let giver = thread::spawn(move || drop(lease));
        holder.retire();
        giver.join().unwrap();
        assert_eq!(counts(&pools, model), (1, 0));
        drop(other);
    });
}

#[test]
fn holder_that_dies_while_it_waits_is_told_and_leaves_no_lease_behind() {
    three_threads(|| {
        let (pools, model) = pools(1);
        let holder = Holder::new("h");
        let lease = pools.allocate(model).unwrap();
        let giver = thread::spawn(move || drop(lease));
        let dying = {
            let holder = holder.clone();
            thread::spawn(move || holder.retire())
        };
        match block_on(pools.allocate_async(Request::new(model).held_by(&holder))) {
            Ok(lease) => drop(lease),
            Err(error) => assert_eq!(error, AllocateError::HolderRetired(model)),
        }
        giver.join().unwrap();
        dying.join().unwrap();
        assert_eq!(counts(&pools, model), (0, 0));
        assert_eq!(holder.leases(), 0);
    });
}

#[test]
fn name_that_is_redeclared_is_found_all_the_time() {
    loom::model(|| {
        let (pools, model) = pools(1);
        let redeclaring = {
            let pools = pools.clone();
            thread::spawn(move || pools.redeclare(model, 2).unwrap())
        };
        let found = pools.find("m").unwrap();
        let successor = redeclaring.join().unwrap();
        assert!(found == model || found == successor);
        assert_eq!(pools.find("m"), Some(successor));
    });
}

#[test]
fn lease_taken_while_its_holder_dies_ends_with_it() {
    loom::model(|| {
        let (pools, model) = pools(2);
        let holder = Holder::new("h");
        // The holder is known at the model, and the slot is open: nothing but the slot's word is left to decide.
        drop(pools.allocate(Request::new(model).held_by(&holder)).unwrap());
        let taking = {
            let (pools, holder) = (pools.clone(), holder.clone());
            thread::spawn(move || pools.allocate(Request::new(model).held_by(&holder)).ok())
        };
        holder.retire();
        let lease = taking.join().unwrap();
        assert!(lease.as_ref().is_none_or(|lease| !lease.is_current()));
        assert_eq!(counts(&pools, model), (0, 0), "while the lease is still there");
        drop(lease);
        assert_eq!(counts(&pools, model), (0, 0));
    });
}

#[test]
fn who_asks_for_the_old_model_never_holds_a_lease_of_the_new_one() {
    loom::model(|| {
        let (pools, model) = pools(1);
        drop(pools.allocate(model).unwrap());
        let taking = {
            let pools = pools.clone();
            thread::spawn(move || pools.allocate(model))
        };
        let successor = pools.redeclare(model, 1).unwrap();
        // Opens the slot anew, so that the one who takes may find it free.
        let opened = pools.allocate(successor).map(drop);
        let taken = taking.join().unwrap();
        match &taken {
            Ok(lease) => assert!(!lease.is_current()),
            Err(error) => assert_eq!(*error, AllocateError::ModelRetired(model)),
        }
        assert_eq!((opened, counts(&pools, successor)), (Ok(()), (0, 0)));
        drop(taken);
        assert_eq!(counts(&pools, successor), (0, 0));
    });
}

#[test]
fn lease_given_back_while_its_holder_is_forgotten_is_given_back_once() {
    loom::model(|| {
        let (pools, model) = pools(1);
        let holder = Holder::new("h");
        let lease = pools.allocate(Request::new(model).held_by(&holder)).unwrap();
        let giver = thread::spawn(move || drop(lease));
        drop(holder);
        giver.join().unwrap();
        assert_eq!(counts(&pools, model), (0, 0));
        assert!(pools.allocate(model).is_ok());
    });
}

#[test]
fn two_threads_at_two_leases_never_find_none() {
    loom::model(|| {
        let (pools, model) = pools(2);
        let take = {
            let pools = pools.clone();
            move || drop(pools.allocate(model).expect("there are two for two"))
        };
        let other = thread::spawn(take.clone());
        take();
        other.join().unwrap();
        assert_eq!(counts(&pools, model), (0, 0));
    });
}

/// Is ready at once, and counts.
struct Quick {
    loads: AtomicU32,
    unloads: AtomicU32,
}

impl Quick {
    fn new() -> StdArc<Self> {
        StdArc::new(Self { loads: AtomicU32::new(0), unloads: AtomicU32::new(0) })
    }

    fn pool(self: &StdArc<Self>) -> (PoolManager, ModelId) {
        let pools = PoolManager::with_ageing(Ageing::default(), StdArc::new(ManualClock::new()));
        let spec = ModelSpec::new(1).with_concurrency(2).loaded_by(self.clone(), Memory::default());
        let model = pools.declare("m", spec).unwrap();
        (pools, model)
    }
}

impl Loader for Quick {
    fn load(&self, load: Load) {
        self.loads.fetch_add(1, Ordering::Relaxed);
        load.ready();
    }

    fn unload(&self, _unload: Unload) {
        self.unloads.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn two_who_ask_at_once_have_it_loaded_once() {
    three_threads(|| {
        let loader = Quick::new();
        let (pools, model) = loader.pool();
        let ask = {
            let pools = pools.clone();
            move || drop(block_on(pools.allocate_async(model)).unwrap())
        };
        let other = thread::spawn(ask.clone());
        ask();
        other.join().unwrap();
        assert_eq!(loader.loads.load(Ordering::Relaxed), 1);
        assert_eq!(counts(&pools, model), (0, 0));
    });
}

#[test]
fn instance_is_not_unloaded_under_a_lease() {
    three_threads(|| {
        let loader = Quick::new();
        let (pools, model) = loader.pool();
        let lease = block_on(pools.allocate_async(model)).unwrap();
        let instance = lease.instance();
        drop(lease);
        assert!(!pools.unload_idle(model, instance), "it was used");
        let taking = {
            let pools = pools.clone();
            thread::spawn(move || pools.allocate(model).ok())
        };
        let is_gone = pools.unload_idle(model, instance);
        let lease = taking.join().unwrap();
        if let Some(lease) = &lease {
            assert!(lease.is_current());
            assert_eq!(lease.instance() != instance, is_gone);
        }
        assert_eq!(loader.unloads.load(Ordering::Relaxed), u32::from(is_gone));
        drop(lease);
        assert_eq!(counts(&pools, model), (0, 0));
    });
}

#[test]
fn nothing_is_given_out_of_an_instance_that_rests() {
    loom::model(|| {
        let pools = PoolManager::with_ageing(Ageing::default(), StdArc::new(ManualClock::new()));
        let rest = std::time::Duration::from_secs(1);
        let spec = ModelSpec::new(1).with_concurrency(2).with_cool_down(ErrorClass::Faulty, rest);
        let model = pools.declare("m", spec).unwrap();
        let (failing, other) = (pools.allocate(model).unwrap(), pools.allocate(model).unwrap());
        let giver = thread::spawn(move || drop(other));
        failing.fail(ErrorClass::Faulty);
        assert!(matches!(pools.allocate(model), Err(AllocateError::CoolingDown { .. })));
        giver.join().unwrap();
        assert!(matches!(pools.allocate(model), Err(AllocateError::CoolingDown { .. })));
        assert_eq!(counts(&pools, model), (0, 0));
    });
}

#[test]
fn what_was_done_under_a_lease_is_seen_after_a_rest_too() {
    three_threads(|| {
        let clock = StdArc::new(ManualClock::new());
        let pools = PoolManager::with_ageing(Ageing::default(), clock.clone());
        let rest = std::time::Duration::from_secs(1);
        let spec = ModelSpec::new(1).with_concurrency(2).with_cool_down(ErrorClass::Faulty, rest);
        let model = pools.declare("m", spec).unwrap();
        let (free, failing) = (pools.allocate(model).unwrap(), pools.allocate(model).unwrap());
        drop(free);
        let protected = Arc::new(AtomicU32::new(0));
        let change = |protected: &AtomicU32| {
            // A load and a store: an increment is lost when the leases do not order them.
            let before = protected.load(Ordering::Relaxed);
            protected.store(before + 1, Ordering::Relaxed);
            1
        };
        let other = {
            let (pools, protected) = (pools.clone(), Arc::clone(&protected));
            thread::spawn(move || pools.allocate(model).map_or(0, |_lease| change(&protected)))
        };
        // Closes the free slot, maybe just after the other thread has used it; then both are opened again.
        failing.fail(ErrorClass::Faulty);
        clock.advance(rest);
        pools.turn(clock.now());
        let both = (pools.allocate(model), pools.allocate(model));
        let done = if both.0.is_ok() && both.1.is_ok() { change(&protected) } else { 0 };
        drop(both);
        let done = done + other.join().unwrap();
        assert_eq!(protected.load(Ordering::Relaxed), done);
        assert_eq!(counts(&pools, model), (0, 0));
    });
}
