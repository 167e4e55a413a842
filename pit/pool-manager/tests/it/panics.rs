//! Foreign code that panics: wakers and loaders. Whoever comes after them gets what is due all the same.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Wake, Waker},
    time::Duration,
};

use pit_core::{
    clock::{Clock, Tick},
    priority::Ageing,
};
use pool_manager::{
    AllocateError, Allocating, ErrorClass, Holder, Load, Loader, Memory, ModelSpec, PoolManager, PoolOptions,
    Request, Unload,
};

use crate::support::{Woken, counts, leased, poll, poll_with, pools, refused};

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("the waker");
    }
}

/// Leaves a waker that panics.
fn wait_badly(allocating: &mut Allocating) {
    let waker = Waker::from(Arc::new(Panics));
    assert!(Pin::new(allocating).poll(&mut Context::from_waker(&waker)).is_pending());
}

/// Does it, and sees the waker's panic come out of it.
fn panics_with(what: &str, act: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(act)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&what));
}

#[test]
fn all_who_wait_for_a_model_that_ends_are_woken_though_the_first_waker_panics() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 1).unwrap();
    let _held = pools.allocate(model).unwrap();
    let woken = Arc::new(Woken::default());
    let mut waiting: Vec<_> = (0..4).map(|_| pools.allocate_async(model)).collect();
    for (number, allocating) in waiting.iter_mut().enumerate() {
        if number % 2 == 0 {
            wait_badly(allocating)
        } else {
            assert!(poll_with(allocating, &woken).is_pending())
        }
    }
    panics_with("the waker", || assert!(pools.retire_model(model)));
    assert_eq!(woken.count(), 2);
    for allocating in &mut waiting {
        assert_eq!(refused(poll(allocating)), AllocateError::ModelRetired(model));
    }
}

#[test]
fn lease_is_handed_over_though_the_waker_panics_and_can_be_given_back() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 1).unwrap();
    let lease = pools.allocate(model).unwrap();
    let mut waiting = pools.allocate_async(model);
    wait_badly(&mut waiting);
    panics_with("the waker", || drop(lease));
    assert_eq!(counts(&pools, model), (1, 0));
    drop(leased(poll(&mut waiting)));

    // Also by a thread that unwinds already: a second panic would end the process.
    let lease = pools.allocate(model).unwrap();
    let mut waiting = pools.allocate_async(model);
    wait_badly(&mut waiting);
    panics_with("the holder", || {
        let _lease = lease;
        panic!("the holder");
    });
    drop(leased(poll(&mut waiting)));
    assert_eq!(counts(&pools, model), (0, 0));
}

#[test]
fn dead_holder_leaves_every_queue_and_lease_though_a_waker_panics() {
    let (pools, _) = pools(Ageing::default());
    let [first, second] = ["first", "second"].map(|name| pools.declare(name, 1).unwrap());
    let holder = Holder::new("h");
    let _others = pools.allocate(first).unwrap();
    let _lease = pools.allocate(Request::new(second).held_by(&holder)).unwrap();
    let woken = Arc::new(Woken::default());
    let mut bad = pools.allocate_async(Request::new(first).held_by(&holder));
    wait_badly(&mut bad);
    let mut good = pools.allocate_async(Request::new(second).held_by(&holder));
    assert!(poll_with(&mut good, &woken).is_pending());
    panics_with("the waker", || holder.retire());
    assert_eq!((woken.count(), holder.leases()), (1, 0));
    assert_eq!((counts(&pools, first), counts(&pools, second)), ((1, 0), (0, 0)));
    assert_eq!(refused(poll(&mut good)), AllocateError::HolderRetired(second));
}

#[test]
fn all_that_is_due_is_done_in_one_turn_though_a_waker_panics() {
    let (pools, clock) = pools(Ageing::default());
    let rest = Duration::from_secs(1);
    let models = ["first", "second"]
        .map(|name| pools.declare(name, ModelSpec::new(1).with_cool_down(ErrorClass::Faulty, rest)).unwrap());
    let woken = Arc::new(Woken::default());
    let mut waiting = models.map(|model| {
        pools.allocate(model).unwrap().fail(ErrorClass::Faulty);
        pools.allocate_async(model)
    });
    wait_badly(&mut waiting[0]);
    assert!(poll_with(&mut waiting[1], &woken).is_pending());
    clock.advance(rest);
    panics_with("the waker", || assert_eq!(pools.turn(clock.now()), Tick::NEVER));
    assert_eq!(woken.count(), 1);
    assert_eq!(waiting.each_mut().map(|allocating| leased(poll(allocating)).model()), models);
}

/// Panics at the first instance.
struct Clumsy;

impl Loader for Clumsy {
    fn load(&self, load: Load) {
        assert_ne!(load.instance().index(), 0, "the loader");
        load.ready();
    }

    fn unload(&self, _unload: Unload) {}
}

#[test]
fn load_that_panics_has_failed_and_nobody_loses_the_place_in_the_queue() {
    let pools = PoolManager::with_options(PoolOptions { memory_budget_bytes: 20, ..PoolOptions::default() });
    let memory = Memory { at_load_bytes: 10, in_use_bytes: 10 };
    let model = pools.declare("m", ModelSpec::new(2).loaded_by(Arc::new(Clumsy), memory)).unwrap();
    let mut waiting = pools.allocate_async(model);
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut waiting).is_ready())).is_err());
    let state = pools.state(model).unwrap();
    assert_eq!(
        (state.ready, state.loading, pools.totals().memory_bytes),
        (1, 0, 10),
        "the other one is there"
    );
    assert_eq!(counts(&pools, model), (1, 0), "and was handed over");
    drop(waiting);
    assert_eq!(counts(&pools, model), (0, 0), "who goes away leaves it to the next");
}
