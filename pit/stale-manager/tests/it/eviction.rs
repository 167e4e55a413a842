//! Single things: when they expire, what keeps them, and what may happen while their owner is asked.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use pit_core::clock::Tick;
use stale_manager::{Budget, Expiring, OWNERS_MAX, RegisterError, Snapshot, StaleManager};

use crate::support::{Owner, at, manager, register, sweep};

#[test]
fn untouched_thing_expires_at_its_deadline_and_not_before() {
    let (stale, owner, id) = manager();
    let thing = register(&stale, id, 1, 100, at(5));
    assert_eq!(stale.next_deadline(), Some(at(105)));
    let before = Tick::from_nanos(at(105).as_nanos() - 1);
    assert_eq!(sweep(&stale, before, Budget::default()), (0, 0));
    assert!(stale.is_registered(thing));
    assert_eq!(sweep(&stale, at(105), Budget::default()), (1, 0));
    assert!(!stale.is_registered(thing));
    assert_eq!(stale.next_deadline(), None);
    stale.touch(thing);
    assert_eq!(sweep(&stale, at(1_000), Budget::default()), (0, 0), "what is evicted stays evicted");
    assert_eq!(owner.take_asked(), [1]);
}

#[test]
fn touch_counts_from_the_sweep_after_it() {
    let (stale, _owner, id) = manager();
    let thing = register(&stale, id, 1, 100, at(0));
    stale.touch(thing);
    assert_eq!(sweep(&stale, at(30), Budget::default()), (0, 0));
    assert_eq!(sweep(&stale, at(100), Budget::default()), (0, 0), "touched before 30");
    assert_eq!(stale.next_deadline(), Some(at(130)));
    stale.touch(thing);
    assert_eq!(sweep(&stale, at(130), Budget::default()), (0, 0), "touched after 100");
    assert_eq!(stale.next_deadline(), Some(at(230)));
    assert_eq!(sweep(&stale, at(230), Budget::default()), (1, 0));
}

#[test]
fn thing_touched_between_scan_and_eviction_is_not_evicted() {
    let (stale, owner, id) = manager();
    let things: Vec<_> = (0..3).map(|key| register(&stale, id, key, 100, at(0))).collect();
    let (manager, second) = (stale.clone(), things[1]);
    *owner.meanwhile.lock().unwrap() = Some(Box::new(move |key| {
        if key == 0 {
            manager.touch(second);
        }
    }));
    assert_eq!(sweep(&stale, at(100), Budget::default()), (2, 0));
    assert_eq!(owner.take_asked(), [0, 2]);
    assert_eq!(sweep(&stale, at(199), Budget::default()), (0, 0));
    assert_eq!(stale.next_deadline(), Some(at(200)));
    assert_eq!(sweep(&stale, at(200), Budget::default()), (0, 0), "the touch was after 100, by 199");
    assert_eq!(stale.next_deadline(), Some(at(299)));
    assert_eq!(sweep(&stale, at(299), Budget::default()), (1, 0));
}

#[test]
fn refused_thing_gets_another_time_to_live() {
    let (stale, owner, id) = manager();
    register(&stale, id, 7, 100, at(0));
    owner.busy.lock().unwrap().insert(7);
    assert_eq!(sweep(&stale, at(150), Budget::default()), (0, 1));
    assert_eq!(stale.next_deadline(), Some(at(250)));
    owner.busy.lock().unwrap().clear();
    assert_eq!(sweep(&stale, at(249), Budget::default()), (0, 0));
    assert_eq!(sweep(&stale, at(250), Budget::default()), (1, 0));
    assert_eq!(owner.take_asked(), [7, 7]);
    let expected = Snapshot { registered: 0, evicted: 1, refused: 1, next_deadline: None };
    assert_eq!(stale.snapshot(), expected);
}

#[test]
fn refusal_of_a_thing_without_time_to_live_does_not_go_on_for_ever() {
    let (stale, owner, id) = manager();
    register(&stale, id, 7, 0, at(0));
    owner.busy.lock().unwrap().insert(7);
    assert_eq!(sweep(&stale, at(50), Budget::default()), (0, 1));
    assert!(stale.next_deadline() > Some(at(50)));
}

#[test]
fn cancelled_thing_is_never_asked_about() {
    let (stale, owner, id) = manager();
    let first = register(&stale, id, 1, 100, at(0));
    stale.cancel(first);
    assert!(!stale.is_registered(first));
    let successor = register(&stale, id, 2, 300, at(0));
    assert_eq!(successor.index(), first.index(), "it takes the same place");
    stale.cancel(first);
    assert!(stale.is_registered(successor), "a second cancel finds another thing there");
    assert_eq!(stale.snapshot().registered, 1);
    assert_eq!(sweep(&stale, at(100), Budget::default()), (0, 0));
    assert_eq!(sweep(&stale, at(300), Budget::default()), (1, 0));
    assert_eq!(owner.take_asked(), [2]);
}

#[test]
fn cancels_put_aside_count_as_cancels_however_many() {
    let (stale, owner, id) = manager();
    let things: Vec<_> = (0..1_000).map(|key| register(&stale, id, key, 100, at(0))).collect();
    for (place, thing) in things.iter().enumerate().filter(|(place, _)| place % 10 != 3) {
        stale.cancel(*thing);
        // Not each time: looking is what makes the manager forget them.
        assert!(place % 97 != 0 || !stale.is_registered(*thing));
    }
    assert_eq!(sweep(&stale, at(100), Budget::default()), (100, 0));
    assert!(owner.take_asked().iter().all(|key| key % 10 == 3));
    assert_eq!(stale.snapshot().registered, 0);
}

#[test]
fn thing_may_be_cancelled_while_its_owner_is_asked() {
    for busy in [false, true] {
        let (stale, owner, id) = manager();
        let again = Owner::new();
        let again_id = stale.add_owner(&again).unwrap();
        let thing = register(&stale, id, 1, 100, at(0));
        if busy {
            owner.busy.lock().unwrap().insert(1);
        }
        let manager = stale.clone();
        *owner.meanwhile.lock().unwrap() = Some(Box::new(move |_| {
            manager.cancel(thing);
            register(&manager, again_id, 2, 100, at(100));
        }));
        sweep(&stale, at(100), Budget::default());
        assert_eq!(stale.snapshot().registered, 1);
        assert_eq!(sweep(&stale, at(1_000), Budget::default()), (1, 0));
        assert_eq!((owner.take_asked(), again.take_asked()), (vec![1], vec![2]));
        *owner.meanwhile.lock().unwrap() = None;
        assert_eq!(stale.snapshot().registered, 0);
    }
}

#[test]
fn thing_cancelled_while_its_slice_is_asked_about_is_not_asked_about() {
    for cancels_of_others in [0, 200] {
        let (stale, owner, id) = manager();
        let things: Vec<_> = (0..5).map(|key| register(&stale, id, key, 100, at(0))).collect();
        let others: Vec<_> = (0..cancels_of_others).map(|_| register(&stale, id, 99, 9_000, at(0))).collect();
        let manager = stale.clone();
        *owner.meanwhile.lock().unwrap() = Some(Box::new(move |key| {
            if key == 1 {
                others.iter().for_each(|thing| manager.cancel(*thing));
                manager.cancel(things[2]);
                manager.cancel(things[4]);
            }
        }));
        assert_eq!(sweep(&stale, at(100), Budget::default()), (3, 0));
        assert_eq!(owner.take_asked(), [0, 1, 3]);
        *owner.meanwhile.lock().unwrap() = None;
        assert_eq!(stale.snapshot().registered, 0);
        assert_eq!(sweep(&stale, at(10_000), Budget::default()), (0, 0));
        assert_eq!(stale.next_deadline(), None);
    }
}

#[test]
fn rest_of_a_slice_is_asked_about_although_an_owner_panics() {
    let (stale, owner, id) = manager();
    let other = Owner::new();
    let other_id = stale.add_owner(&other).unwrap();
    for key in 0..4 {
        register(&stale, if key % 2 == 0 { id } else { other_id }, key, 100, at(0));
    }
    *owner.meanwhile.lock().unwrap() = Some(Box::new(|key| panic!("panics at {key}")));
    let panic = catch_unwind(AssertUnwindSafe(|| stale.sweep(at(100), Budget::default()))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"panics at 0".to_owned()), "it goes on when all were asked about");
    assert_eq!(other.take_asked(), [1, 3]);
    let expected = Snapshot { registered: 2, evicted: 2, refused: 2, next_deadline: Some(at(200)) };
    assert_eq!(stale.snapshot(), expected, "what it panicked at has another time to live");
    owner.meanwhile.clear_poison();
    owner.asked.clear_poison();
    *owner.meanwhile.lock().unwrap() = None;
    owner.take_asked();
    assert_eq!(sweep(&stale, at(200), Budget::default()), (2, 0));
    assert_eq!(owner.take_asked(), [0, 2]);
}

#[test]
fn owner_that_is_gone_is_not_kept_and_its_things_go_when_their_time_comes() {
    let (stale, owner, id) = manager();
    register(&stale, id, 1, 100, at(0));
    assert_eq!(Arc::strong_count(&owner), 1);
    drop(owner);
    assert_eq!(sweep(&stale, at(100), Budget::default()), (1, 0));
    assert_eq!(stale.snapshot().registered, 0);
}

#[test]
fn owners_are_limited() {
    let (stale, owner) = (StaleManager::new(), Owner::new());
    for _ in 0..OWNERS_MAX {
        stale.add_owner(&owner).unwrap();
    }
    assert_eq!(stale.add_owner(&owner), Err(RegisterError::TooManyOwners));
}

#[test]
fn endless_time_to_live_never_expires() {
    let (stale, _owner, id) = manager();
    let thing = stale.register(id, 1, Duration::MAX, at(5)).unwrap();
    assert_eq!(stale.next_deadline(), None);
    assert_eq!(sweep(&stale, Tick::from_nanos(u64::MAX - 1), Budget::default()), (0, 0));
    assert_eq!(sweep(&stale, Tick::NEVER, Budget::default()), (0, 0));
    assert!(stale.is_registered(thing));
}

#[test]
fn what_is_about_to_expire_is_told_in_order() {
    let (stale, _owner, id) = manager();
    let things: Vec<_> = [300, 100, 200, 100]
        .into_iter()
        .zip(0..)
        .map(|(ttl_ms, key)| register(&stale, id, key, ttl_ms, at(0)))
        .collect();
    stale.cancel(things[3]);
    let expiring = |key, ms| Expiring { deadline: at(ms), owner: id, key };
    assert_eq!(stale.expiring(at(300), 9), [expiring(1, 100), expiring(2, 200)]);
    assert_eq!(stale.expiring(Tick::NEVER, 1), [expiring(1, 100)]);
}
