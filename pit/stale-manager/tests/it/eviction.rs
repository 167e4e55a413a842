//! Single things: when they expire, what keeps them, and what may happen while their owner is asked.

use std::{sync::Arc, time::Duration};

use pit_core::clock::Tick;
use stale_manager::{Budget, Snapshot, StaleManager};

use crate::support::{Owner, at, register, sweep};

#[test]
fn untouched_thing_expires_at_its_deadline_and_not_before() {
    let (stale, owner) = (StaleManager::new(), Owner::new());
    let handle = register(&stale, &owner, 1, 100, at(5));
    assert_eq!(stale.next_deadline(), Some(at(105)));
    let before = Tick::from_nanos(at(105).as_nanos() - 1);
    assert_eq!(sweep(&stale, before, Budget::default()), (0, 0));
    assert!(!handle.is_evicted());
    assert_eq!(sweep(&stale, at(105), Budget::default()), (1, 0));
    assert!(handle.is_evicted());
    assert_eq!(stale.next_deadline(), None);
    handle.touch();
    assert_eq!(sweep(&stale, at(1_000), Budget::default()), (0, 0), "what is evicted stays evicted");
    assert_eq!(owner.take_asked(), [1]);
}

#[test]
fn touch_counts_from_the_sweep_after_it() {
    let (stale, owner) = (StaleManager::new(), Owner::new());
    let handle = register(&stale, &owner, 1, 100, at(0));
    handle.touch();
    assert_eq!(sweep(&stale, at(30), Budget::default()), (0, 0));
    assert_eq!(sweep(&stale, at(100), Budget::default()), (0, 0), "touched before 30");
    assert_eq!(stale.next_deadline(), Some(at(130)));
    handle.touch();
    assert_eq!(sweep(&stale, at(130), Budget::default()), (0, 0), "touched after 100");
    assert_eq!(stale.next_deadline(), Some(at(230)));
    assert_eq!(sweep(&stale, at(230), Budget::default()), (1, 0));
}

#[test]
fn thing_touched_between_scan_and_eviction_is_not_evicted() {
    let (stale, owner) = (StaleManager::new(), Owner::new());
    let handles: Vec<_> = (0..3).map(|key| Arc::new(register(&stale, &owner, key, 100, at(0)))).collect();
    let second = Arc::clone(&handles[1]);
    *owner.meanwhile.lock().unwrap() = Some(Box::new(move |key| {
        if key == 0 {
            second.touch();
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
    let (stale, owner) = (StaleManager::new(), Owner::new());
    let handle = register(&stale, &owner, 7, 100, at(0));
    owner.busy.lock().unwrap().insert(7);
    assert_eq!(sweep(&stale, at(150), Budget::default()), (0, 1));
    assert_eq!(stale.next_deadline(), Some(at(250)));
    owner.busy.lock().unwrap().clear();
    assert_eq!(sweep(&stale, at(249), Budget::default()), (0, 0));
    assert_eq!(sweep(&stale, at(250), Budget::default()), (1, 0));
    assert_eq!(owner.take_asked(), [7, 7]);
    let expected = Snapshot { registered: 1, evicted: 1, refused: 1, next_deadline: None };
    assert_eq!(stale.snapshot(), expected);
    drop(handle);
    assert_eq!(stale.snapshot().registered, 0);
}

#[test]
fn refusal_of_a_thing_without_time_to_live_does_not_go_on_for_ever() {
    let (stale, owner) = (StaleManager::new(), Owner::new());
    let _handle = register(&stale, &owner, 7, 0, at(0));
    owner.busy.lock().unwrap().insert(7);
    assert_eq!(sweep(&stale, at(50), Budget::default()), (0, 1));
    assert!(stale.next_deadline() > Some(at(50)));
}

#[test]
fn cancelled_thing_is_never_asked_about() {
    let (stale, owner) = (StaleManager::new(), Owner::new());
    let first = register(&stale, &owner, 1, 100, at(0));
    first.cancel();
    let successor = register(&stale, &owner, 2, 300, at(0));
    assert_eq!(stale.snapshot().registered, 1);
    assert_eq!(sweep(&stale, at(100), Budget::default()), (0, 0));
    assert_eq!(sweep(&stale, at(300), Budget::default()), (1, 0));
    assert_eq!(owner.take_asked(), [2]);
    drop(successor);
    assert_eq!(Arc::strong_count(&owner), 1, "nothing of the owner is kept");
}

#[test]
fn handle_may_go_away_while_its_owner_is_asked() {
    for busy in [false, true] {
        let (stale, owner) = (StaleManager::new(), Owner::new());
        let mut handle = Some(register(&stale, &owner, 1, 100, at(0)));
        if busy {
            owner.busy.lock().unwrap().insert(1);
        }
        let (manager, again) = (stale.clone(), Owner::new());
        let registered = Arc::clone(&again);
        let mut kept = Vec::new();
        *owner.meanwhile.lock().unwrap() = Some(Box::new(move |_| {
            drop(handle.take());
            kept.push(register(&manager, &registered, 2, 100, at(100)));
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
fn endless_time_to_live_never_expires() {
    let (stale, owner) = (StaleManager::new(), Owner::new());
    let handle = stale.register(owner.clone(), 1, Duration::MAX, at(5)).unwrap();
    assert_eq!(stale.next_deadline(), None);
    assert_eq!(sweep(&stale, Tick::from_nanos(u64::MAX - 1), Budget::default()), (0, 0));
    assert_eq!(sweep(&stale, Tick::NEVER, Budget::default()), (0, 0));
    assert!(!handle.is_evicted());
}
