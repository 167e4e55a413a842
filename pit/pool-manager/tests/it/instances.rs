//! Instances that fail, rest and end; leases whose time is over.

use std::{sync::Arc, time::Duration};

use pit_core::{
    clock::{Clock, Tick},
    priority::Ageing,
};
use pool_manager::{AllocateError, ErrorClass, Holder, ModelSpec, PoolManager, Request};

use crate::support::{Woken, counts, leased, poll, poll_with, pools, refused};

const REST: Duration = Duration::from_secs(30);

fn resting() -> ModelSpec {
    ModelSpec::new(2).with_concurrency(2).with_cool_down(ErrorClass::Overloaded, REST)
}

#[test]
fn failed_instance_gives_no_lease_until_its_rest_is_over() {
    let (pools, clock) = pools(Ageing::default());
    let model = pools.declare("m", resting()).unwrap();
    let mut leases: Vec<_> = (0..4).map(|_| pools.allocate(model).unwrap()).collect();
    let failed = leases[0].instance();
    leases.remove(0).fail(ErrorClass::Overloaded);
    let state = pools.state(model).unwrap();
    assert_eq!((state.leased, state.ready, state.resting), (3, 1, 1));
    assert!(leases.iter().all(|lease| lease.is_current()), "the others go on");
    leases.clear();
    let others: Vec<_> = (0..2).map(|_| pools.allocate(model).unwrap()).collect();
    assert!(others.iter().all(|lease| lease.instance() != failed));
    assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Busy(model));
    let woken = Arc::new(Woken::default());
    let mut waiting = pools.allocate_async(model);
    assert!(poll_with(&mut waiting, &woken).is_pending());
    let until = clock.now().after(REST);
    assert_eq!(pools.turn(clock.now()), until);
    clock.advance(REST);
    assert_eq!((pools.turn(clock.now()), woken.count()), (Tick::NEVER, 1));
    assert_eq!(leased(poll(&mut waiting)).instance(), failed);
    assert_eq!(pools.state(model).unwrap().resting, 0);
}

#[test]
fn failure_of_a_class_without_rest_is_a_return() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", resting()).unwrap();
    pools.allocate(model).unwrap().fail(ErrorClass::Faulty);
    assert_eq!((counts(&pools, model), pools.state(model).unwrap().ready), ((0, 0), 2));
}

#[test]
fn when_all_rest_the_deadline_decides_between_waiting_and_failing_now() {
    let (pools, clock) = pools(Ageing::default());
    let model = pools.declare("m", resting()).unwrap();
    let (first, second) = (pools.allocate(model).unwrap(), pools.allocate(model).unwrap());
    let mut third = Some(pools.allocate(model).unwrap());
    let held = pools.allocate(model).unwrap();
    let at = |seconds| Tick::ZERO.after(Duration::from_secs(seconds));
    let request = |seconds| pool_manager::Request::new(model).with_deadline(at(seconds));
    let (mut early, mut late) = (pools.allocate_async(request(20)), pools.allocate_async(request(40)));
    assert!(poll(&mut early).is_pending() && poll(&mut late).is_pending());
    let instance = first.instance();
    first.fail(ErrorClass::Overloaded);
    clock.advance(Duration::from_secs(1));
    let other = if second.instance() == instance { third.take() } else { None };
    let error = AllocateError::CoolingDown { model, until: at(30) };
    other.unwrap_or(second).fail(ErrorClass::Overloaded);
    assert_eq!(refused(poll(&mut early)), error);
    assert!(poll(&mut late).is_pending());
    assert_eq!(refused(poll(&mut pools.allocate_async(request(29)))), error);
    assert_eq!(pools.allocate_wait(model, at(29)).unwrap_err(), error);
    assert_eq!(pools.allocate(model).unwrap_err(), error);
    drop((third, held));
    assert!(poll(&mut late).is_pending(), "what comes back from one that rests is not given on");
    clock.advance(Duration::from_secs(29));
    pools.turn(clock.now());
    assert_eq!(leased(poll(&mut late)).instance(), instance);
}

#[test]
fn thread_that_blocks_wakes_up_at_the_end_of_a_rest_by_itself() {
    let pools = PoolManager::new();
    let rest = Duration::from_millis(20);
    let spec = ModelSpec::new(1).with_cool_down(ErrorClass::Overloaded, rest);
    let model = pools.declare("m", spec).unwrap();
    let lease = pools.allocate(model).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pools.allocate_wait(model, Tick::NEVER).map(drop));
        while pools.state(model).unwrap().waiting == 0 {
            std::thread::yield_now();
        }
        lease.fail(ErrorClass::Overloaded);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
}

#[test]
fn leases_of_an_instance_that_ends_are_worth_nothing_and_those_of_others_go_on() {
    let (pools, clock) = pools(Ageing::default());
    let spec = resting().with_cool_down(ErrorClass::Unavailable, REST);
    let model = pools.declare("m", spec).unwrap();
    let leases: Vec<_> = (0..4).map(|_| pools.allocate(model).unwrap()).collect();
    let mut waiting = pools.allocate_async(model);
    assert!(poll(&mut waiting).is_pending());
    let ended = leases[0].instance();
    assert!(pools.end_instance(model, ended, ErrorClass::Unavailable));
    assert!(!pools.end_instance(model, ended, ErrorClass::Unavailable), "it is another one now");
    for lease in &leases {
        assert_eq!(lease.is_current(), lease.instance() != ended);
    }
    assert_eq!(counts(&pools, model), (2, 1));
    clock.advance(REST);
    pools.turn(clock.now());
    let successor = leased(poll(&mut waiting));
    assert_eq!((successor.instance().index(), successor.instance() == ended), (ended.index(), false));
    drop(leases);
    assert_eq!(counts(&pools, model), (1, 0), "the late returns change nothing");
    assert!(successor.is_current());
}

#[test]
fn lease_ends_when_its_maximum_time_is_over() {
    let (pools, clock) = pools(Ageing::default());
    let time = Duration::from_secs(10);
    let model = pools.declare("m", ModelSpec::new(1).with_lease_time_max(time)).unwrap();
    drop(pools.allocate(model).unwrap());
    let lease = pools.allocate(model).unwrap();
    let mut waiting = pools.allocate_async(model);
    assert!(poll(&mut waiting).is_pending());
    clock.advance(time - Duration::from_nanos(1));
    assert_eq!(pools.turn(clock.now()), Tick::ZERO.after(time));
    assert!(lease.is_current());
    clock.advance(Duration::from_nanos(1));
    pools.turn(clock.now());
    assert!(!lease.is_current());
    let next = leased(poll(&mut waiting));
    drop(lease);
    assert!(next.is_current() && counts(&pools, model) == (1, 0));
    assert_eq!(pools.totals().revoked, 1);
    clock.advance(time);
    pools.turn(clock.now());
    assert_eq!((next.is_current(), counts(&pools, model)), (false, (0, 0)), "handed over at the same time");
}

#[test]
fn lease_whose_time_is_over_is_worth_nothing_before_anybody_has_looked_at_the_clock() {
    let (pools, clock) = pools(Ageing::default());
    let time = Duration::from_secs(10);
    let spec = |time| ModelSpec::new(1).with_lease_time_max(time);
    let model = pools.declare("m", spec(time)).unwrap();
    let lease = pools.allocate(model).unwrap();
    clock.advance(time);
    assert!(!lease.is_current(), "no turn was done");
    lease.fail(ErrorClass::Overloaded);
    assert_eq!(counts(&pools, model), (0, 0));

    let none = pools.declare("none", spec(Duration::ZERO)).unwrap();
    let lease = pools.allocate(none).unwrap();
    assert!(!lease.is_current(), "it was given no time");
    assert!(pools.allocate(none).is_ok_and(|next| !next.is_current()), "and keeps nobody from the model");
    drop(lease);
    let untimed = pools.redeclare(none, 1).unwrap();
    assert!(pools.allocate(untimed).is_ok_and(|lease| lease.is_current()), "in the same slot");

    // The holder keeps the model, but no clock goes any more.
    let holder = Holder::new("h");
    let lease = pools.allocate(Request::new(model).held_by(&holder)).unwrap();
    assert!(lease.is_current());
    drop(pools);
    assert!(!lease.is_current(), "nobody knows how late it is");
}

#[test]
fn ten_thousand_models_are_leased_and_looked_at() {
    const MODELS: u32 = 10_000;
    let pools = PoolManager::new();
    let models: Vec<_> = (0..MODELS).map(|number| pools.declare(&number.to_string(), 4).unwrap()).collect();
    let leases: Vec<_> = models.iter().map(|model| pools.allocate(*model).unwrap()).collect();
    let leased = |pools: &PoolManager| pools.snapshot().iter().map(|state| state.leased).sum::<u32>();
    assert_eq!((pools.snapshot().len(), leased(&pools)), (10_000, MODELS));
    assert_eq!(pools.find("9999"), Some(models[9_999]));
    drop(leases);
    assert_eq!(leased(&pools), 0);
}

#[test]
fn lease_outlives_its_manager_without_harm() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 2).unwrap();
    let lease = pools.allocate(model).unwrap();
    drop(pools);
    assert!(!lease.is_current());
    let others = PoolManager::new();
    let other = others.declare("other", 64).unwrap();
    let leases: Vec<_> = (0..64).map(|_| others.allocate(other).unwrap()).collect();
    drop(lease);
    assert_eq!(counts(&others, other), (64, 0), "also where its slot may be in use again");
    drop(leases);
}
