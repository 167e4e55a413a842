//! Single claims: what is refused, what waits, who goes first, what a dropped future leaves behind.

use std::{sync::Arc, task::Poll, time::Duration};

use arbitration::{Arbiter, ArbiterError, ClaimError, ClaimSpec, Grant, OwnerId, RESOURCES_MAX, ResourceId};
use pit_core::{
    clock::{Clock, Tick},
    priority::{Ageing, Priority},
};

use crate::support::{Woken, arbiter, poll, poll_with, spec};

fn granted(poll: Poll<Result<Grant, ClaimError>>) -> Grant {
    match poll {
        Poll::Ready(Ok(grant)) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

fn free(arbiter: &Arbiter) -> Vec<u64> {
    arbiter.snapshot().resources.iter().map(|resource| resource.free).collect()
}

#[test]
fn declaration_twice_or_too_large_is_refused() {
    assert_eq!(
        Arbiter::new([("cores", 1), ("cores", 2)]).unwrap_err(),
        ArbiterError::DeclaredTwice { name: "cores".to_owned() }
    );
    let count = RESOURCES_MAX + 1;
    let many = (0..count).map(|index| (index.to_string(), 1));
    assert_eq!(Arbiter::new(many).unwrap_err(), ArbiterError::TooManyResources { count });
}

#[test]
fn claim_that_can_never_be_granted_is_refused_at_once() {
    let (arbiter, _) = arbiter(&[("cores", 4)], Ageing::default());
    let too_large = spec(&arbiter, 0, &[("cores", 5)]);
    let foreign = ClaimSpec::new(OwnerId::new(0), Priority::NORMAL).with(ResourceId::new(9, 0), 1);
    let far = ClaimSpec::new(OwnerId::new(0), Priority::NORMAL).with(ResourceId::new(1 << 16, 0), 1);
    let many = (0..9).fold(spec(&arbiter, 0, &[]), |spec, index| spec.with(ResourceId::new(index, 0), 1));
    let cases = [
        (too_large, "5 of `cores` are claimed, its capacity is 4"),
        (foreign, "resource:9@0 is unknown to this arbiter"),
        (far, "resource:65535@0 is unknown to this arbiter"),
        (many, "a claim of more than 8 resources"),
    ];
    for (spec, message) in cases {
        assert_eq!(arbiter.try_claim(&spec).unwrap_err().to_string(), message);
        assert_eq!(arbiter.claim_wait(&spec, Tick::NEVER).unwrap_err().to_string(), message);
        match poll(&mut arbiter.claim(&spec)) {
            Poll::Ready(Err(error)) => assert_eq!(error.to_string(), message),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(free(&arbiter), [4]);
}

#[test]
fn claim_is_granted_whole_or_not_at_all() {
    let (arbiter, _) = arbiter(&[("cores", 4), ("disks", 1)], Ageing::default());
    let disk = arbiter.try_claim(&spec(&arbiter, 0, &[("disks", 1)])).unwrap().unwrap();
    let both = spec(&arbiter, 0, &[("cores", 4), ("disks", 1)]);
    assert!(arbiter.try_claim(&both).unwrap().is_none());
    assert_eq!(free(&arbiter), [4, 0], "nothing is taken in part");
    let woken = Arc::new(Woken::default());
    let mut waiting = arbiter.claim(&both);
    assert!(poll_with(&mut waiting, &woken).is_pending());
    assert_eq!(free(&arbiter), [4, 0]);
    drop(disk);
    assert_eq!(woken.count(), 1);
    assert_eq!(free(&arbiter), [0, 0], "granted by the release, before it is fetched");
    drop(granted(poll(&mut waiting)));
    assert_eq!(free(&arbiter), [4, 1]);
}

#[test]
fn waiters_are_served_by_priority_then_in_order_of_coming() {
    let (arbiter, _) = arbiter(&[("cores", 1)], Ageing::default());
    let holding = arbiter.try_claim(&spec(&arbiter, 0, &[("cores", 1)])).unwrap();
    let levels = [1_u8, 3, 2, 3, 1];
    let mut waiting: Vec<_> =
        levels.iter().map(|level| Some(arbiter.claim(&spec(&arbiter, *level, &[("cores", 1)])))).collect();
    for claim in waiting.iter_mut().flatten() {
        assert!(poll(claim).is_pending());
    }
    let mut order = Vec::new();
    let mut current = holding;
    while order.len() < levels.len() {
        drop(current.take());
        for (index, claim) in waiting.iter_mut().enumerate() {
            if let Some(Poll::Ready(grant)) = claim.as_mut().map(poll) {
                assert!(current.is_none(), "one at a time");
                current = Some(grant.unwrap());
                order.push(index);
                *claim = None;
            }
        }
    }
    assert_eq!(order, [1, 3, 2, 0, 4]);
}

#[test]
fn waiting_long_enough_outweighs_priority() {
    let ageing = Ageing { step: Duration::from_secs(1) };
    for (waited_ms, old_goes_first) in [(9_999, false), (10_001, true)] {
        let (arbiter, clock) = arbiter(&[("cores", 1)], ageing);
        let holding = arbiter.try_claim(&spec(&arbiter, 0, &[("cores", 1)])).unwrap();
        let mut old = arbiter.claim(&spec(&arbiter, 10, &[("cores", 1)]));
        assert!(poll(&mut old).is_pending());
        clock.advance(Duration::from_millis(waited_ms));
        let mut urgent = arbiter.claim(&spec(&arbiter, 20, &[("cores", 1)]));
        assert!(poll(&mut urgent).is_pending());
        drop(holding);
        let (old, urgent) = (poll(&mut old), poll(&mut urgent));
        assert_eq!(old.is_ready(), old_goes_first, "after {waited_ms} ms");
        assert_eq!(urgent.is_ready(), !old_goes_first, "after {waited_ms} ms");
    }
}

#[test]
fn small_claims_do_not_overtake_a_large_one_that_waits() {
    let (arbiter, _) = arbiter(&[("cores", 4), ("disks", 1)], Ageing::default());
    let small = spec(&arbiter, 5, &[("cores", 1)]);
    let running: Vec<_> = (0..3).map(|_| arbiter.try_claim(&small).unwrap().unwrap()).collect();
    let mut large = arbiter.claim(&spec(&arbiter, 5, &[("cores", 4)]));
    assert!(poll(&mut large).is_pending());
    // One core is free, and it is kept for the large claim.
    for held in running {
        assert!(arbiter.try_claim(&small).unwrap().is_none());
        let disk = arbiter.try_claim(&spec(&arbiter, 5, &[("disks", 1)])).unwrap();
        assert!(disk.is_some(), "what the large claim does not name stays usable");
        drop(held);
    }
    drop(granted(poll(&mut large)));
    assert!(arbiter.try_claim(&small).unwrap().is_some());
}

#[test]
fn more_urgent_claim_takes_what_a_waiting_one_keeps() {
    let (arbiter, _) = arbiter(&[("cores", 4)], Ageing::default());
    let holding = arbiter.try_claim(&spec(&arbiter, 5, &[("cores", 2)])).unwrap();
    let mut large = arbiter.claim(&spec(&arbiter, 5, &[("cores", 4)]));
    assert!(poll(&mut large).is_pending());
    assert!(arbiter.try_claim(&spec(&arbiter, 5, &[("cores", 1)])).unwrap().is_none());
    assert!(arbiter.try_claim(&spec(&arbiter, 6, &[("cores", 1)])).unwrap().is_some());
    drop(holding);
}

#[test]
fn dropped_future_leaves_no_waiter_and_frees_those_behind_it() {
    let (arbiter, _) = arbiter(&[("cores", 4)], Ageing::default());
    let holding = arbiter.try_claim(&spec(&arbiter, 5, &[("cores", 2)])).unwrap();
    let mut large = arbiter.claim(&spec(&arbiter, 5, &[("cores", 4)]));
    assert!(poll(&mut large).is_pending());
    let woken = Arc::new(Woken::default());
    let mut small = arbiter.claim(&spec(&arbiter, 5, &[("cores", 2)]));
    assert!(poll_with(&mut small, &woken).is_pending(), "the large claim keeps the two that are free");
    assert_eq!(arbiter.snapshot().waiters.len(), 2);
    drop(large);
    assert_eq!(woken.count(), 1);
    assert_eq!(arbiter.snapshot().waiters.len(), 0);
    drop(granted(poll(&mut small)));
    drop(holding);
    assert_eq!(free(&arbiter), [4]);
}

#[test]
fn grant_that_was_never_fetched_goes_to_the_next() {
    let (arbiter, _) = arbiter(&[("cores", 1)], Ageing::default());
    let one = spec(&arbiter, 5, &[("cores", 1)]);
    let holding = arbiter.try_claim(&one).unwrap();
    let (mut first, mut second) = (arbiter.claim(&one), arbiter.claim(&one));
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_pending());
    drop(holding);
    drop(first);
    drop(granted(poll(&mut second)));
    assert_eq!(free(&arbiter), [1]);
}

#[test]
fn latest_waker_is_the_one_that_is_woken() {
    let (arbiter, _) = arbiter(&[("cores", 1)], Ageing::default());
    let one = spec(&arbiter, 5, &[("cores", 1)]);
    let holding = arbiter.try_claim(&one).unwrap();
    let (earlier, later) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let mut claim = arbiter.claim(&one);
    assert!(poll_with(&mut claim, &earlier).is_pending());
    assert!(poll_with(&mut claim, &later).is_pending());
    drop(holding);
    assert_eq!((earlier.count(), later.count()), (0, 1));
}

#[test]
fn blocking_claim_gives_up_at_its_deadline() {
    let arbiter = Arbiter::new([("cores", 1)]).unwrap();
    let one = spec(&arbiter, 5, &[("cores", 1)]);
    let holding = arbiter.claim_wait(&one, Tick::ZERO).unwrap();
    let deadline = Tick::from_nanos(1_000_000);
    assert_eq!(arbiter.claim_wait(&one, deadline).unwrap_err(), ClaimError::DeadlinePassed { deadline });
    assert!(arbiter.snapshot().waiters.is_empty());
    drop(holding);
    assert!(arbiter.claim_wait(&one, Tick::ZERO).is_ok(), "a passed deadline is one try");
}

#[test]
fn snapshot_names_holders_and_waiters_in_order() {
    let (arbiter, clock) = arbiter(&[("cores", 2)], Ageing::default());
    let cores = arbiter.resource("cores").unwrap();
    assert_eq!(arbiter.resource("disks"), None);
    assert_eq!(arbiter.capacity(cores), Some(2));
    let holding = arbiter.try_claim(&spec(&arbiter, 9, &[("cores", 2)])).unwrap().unwrap();
    let mut low = arbiter.claim(&spec(&arbiter, 1, &[("cores", 1)]));
    assert!(poll(&mut low).is_pending());
    clock.advance(Duration::from_millis(3));
    let mut high = arbiter.claim(&spec(&arbiter, 8, &[("cores", 2)]));
    assert!(poll(&mut high).is_pending());

    let snapshot = arbiter.snapshot();
    assert_eq!((snapshot.resources[0].capacity, snapshot.resources[0].free), (2, 0));
    assert_eq!(snapshot.grants.len(), 1);
    assert_eq!((snapshot.grants[0].id, snapshot.grants[0].owner), (holding.id(), OwnerId::new(9)));
    assert_eq!(snapshot.grants[0].amounts, [(cores, 2)]);
    let waiters: Vec<_> = snapshot.waiters.iter().map(|waiter| (waiter.owner.get(), waiter.since)).collect();
    assert_eq!(waiters, [(8, clock.now()), (1, Tick::ZERO)]);
}

#[test]
fn place_of_an_ended_grant_is_used_again_under_another_id() {
    let (arbiter, _) = arbiter(&[("cores", 1)], Ageing::default());
    let one = spec(&arbiter, 5, &[("cores", 1)]);
    let first = arbiter.try_claim(&one).unwrap().unwrap().id();
    let second = arbiter.try_claim(&one).unwrap().unwrap().id();
    assert_eq!(first.index(), second.index());
    assert_ne!(first, second);
}
