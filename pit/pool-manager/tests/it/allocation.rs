//! Leases of one model: capacity, order of those who wait, what a dropped future leaves behind.

use std::{sync::Arc, task::Poll, time::Duration};

use pit_core::{
    clock::{Clock, Tick},
    priority::{Ageing, Priority},
};
use pool_manager::{AllocateError, ModelId, PoolManager, Request};

use crate::support::{Woken, counts, leased, poll, poll_with, pools};

#[test]
fn capacity_bounds_the_leases_at_once() {
    let pools = PoolManager::new();
    let model = pools.declare("m", 3).unwrap();
    let mut leases: Vec<_> = (0..3).map(|_| pools.allocate(model).unwrap()).collect();
    assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Busy(model));
    assert_eq!(counts(&pools, model), (3, 0));
    leases.pop();
    assert_eq!(counts(&pools, model), (2, 0));
    assert!(leases.iter().all(|lease| lease.is_current() && lease.model() == model));
}

#[test]
fn waiters_are_served_by_priority_then_in_order_of_coming() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 1).unwrap();
    let mut current = Some(pools.allocate(model).unwrap());
    let levels = [1_u8, 3, 2, 3, 1];
    let request = |level| Request::new(model).with_priority(Priority::new(level));
    let mut waiting: Vec<_> =
        levels.iter().map(|level| Some(pools.allocate_async(request(*level)))).collect();
    let woken = Arc::new(Woken::default());
    for allocating in waiting.iter_mut().flatten() {
        assert!(poll_with(allocating, &woken).is_pending());
    }
    assert_eq!(counts(&pools, model), (1, 5));
    let mut order = Vec::new();
    while order.len() < levels.len() {
        drop(current.take());
        assert_eq!(usize::try_from(woken.count()).unwrap(), order.len() + 1, "one wake-up for one lease");
        for (index, allocating) in waiting.iter_mut().enumerate() {
            if let Some(Poll::Ready(lease)) = allocating.as_mut().map(poll_again(&woken)) {
                assert!(current.is_none(), "one at a time");
                current = Some(lease.unwrap());
                order.push(index);
                *allocating = None;
            }
        }
    }
    assert_eq!(order, [1, 3, 2, 0, 4]);
    drop(current);
    assert_eq!(counts(&pools, model), (0, 0));
}

fn poll_again<F: Future + Unpin>(woken: &Arc<Woken>) -> impl FnMut(&mut F) -> Poll<F::Output> {
    move |future| poll_with(future, woken)
}

#[test]
fn waiting_long_enough_outweighs_priority() {
    for (waited_ms, old_goes_first) in [(9_999, false), (10_001, true)] {
        let (pools, clock) = pools(Ageing { step: Duration::from_secs(1) });
        let model = pools.declare("m", 1).unwrap();
        let holding = pools.allocate(model).unwrap();
        let mut old = pools.allocate_async(Request::new(model).with_priority(Priority::new(10)));
        assert!(poll(&mut old).is_pending());
        clock.advance(Duration::from_millis(waited_ms));
        let mut urgent = pools.allocate_async(Request::new(model).with_priority(Priority::new(20)));
        assert!(poll(&mut urgent).is_pending());
        drop(holding);
        let (old, urgent) = (poll(&mut old), poll(&mut urgent));
        assert_eq!(old.is_ready(), old_goes_first, "after {waited_ms} ms");
        assert_eq!(urgent.is_ready(), !old_goes_first, "after {waited_ms} ms");
    }
}

#[test]
fn nobody_overtakes_a_lease_that_was_handed_over() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 1).unwrap();
    let holding = pools.allocate(model).unwrap();
    let mut waiting = pools.allocate_async(model);
    assert!(poll(&mut waiting).is_pending());
    drop(holding);
    assert_eq!(counts(&pools, model), (1, 0), "it counts before it is fetched");
    assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Busy(model));
    drop(leased(poll(&mut waiting)));
    assert!(pools.allocate(model).is_ok());
}

#[test]
fn dropped_future_leaves_no_waiter_and_passes_on_what_it_was_given() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 1).unwrap();
    let holding = pools.allocate(model).unwrap();
    let (mut first, mut second, mut third) =
        (pools.allocate_async(model), pools.allocate_async(model), pools.allocate_async(model));
    for allocating in [&mut first, &mut second, &mut third] {
        assert!(poll(allocating).is_pending());
    }
    drop(second);
    assert_eq!(counts(&pools, model), (1, 2));
    drop(holding);
    drop(first);
    drop(leased(poll(&mut third)));
    assert_eq!(counts(&pools, model), (0, 0));
    drop(pools.allocate_async(model));
    assert!(pools.allocate(model).is_ok(), "a future that was never polled has taken nothing");
}

#[test]
fn latest_waker_is_the_one_that_is_woken() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 1).unwrap();
    let holding = pools.allocate(model).unwrap();
    let (earlier, later) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let mut allocating = pools.allocate_async(model);
    assert!(poll_with(&mut allocating, &earlier).is_pending());
    assert!(poll_with(&mut allocating, &later).is_pending());
    drop(holding);
    assert_eq!((earlier.count(), later.count()), (0, 1));
}

#[test]
fn blocking_allocation_gives_up_at_its_deadline() {
    let pools = PoolManager::new();
    let model = pools.declare("m", 1).unwrap();
    let holding = pools.allocate_wait(model, Tick::ZERO).unwrap();
    let deadline = Tick::from_nanos(1_000_000);
    let error = pools.allocate_wait(model, deadline).unwrap_err();
    assert_eq!(error, AllocateError::DeadlinePassed { model, deadline });
    assert_eq!(counts(&pools, model), (1, 0));
    drop(holding);
    assert!(pools.allocate_wait(model, Tick::ZERO).is_ok(), "a passed deadline is one try");
}

#[test]
fn id_of_another_manager_is_unknown() {
    let (pools, clock) = pools(Ageing::default());
    let foreign = ModelId::new(7, 0);
    let unknown = AllocateError::UnknownModel(foreign);
    assert_eq!(pools.allocate(foreign).unwrap_err(), unknown);
    assert_eq!(pools.allocate_wait(foreign, clock.now()).unwrap_err(), unknown);
    assert_eq!(pools.state(foreign).unwrap_err(), unknown);
    assert!(!pools.retire_model(foreign));
    assert_eq!(unknown.to_string(), "model:7@0 is unknown to this manager");
}
