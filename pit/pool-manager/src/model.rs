//! The models that loom runs: every interleaving of two or three threads at one pool of one lease.
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
    clock::ManualClock,
    priority::Ageing,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{AllocateError, Holder, ModelId, ModelState, PoolManager, Request};

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
