//! Extensions: what is added, who is waited for, who is told to give back, and that nobody waits in a circle.

use std::{sync::Arc, task::Poll, time::Duration};

use arbitration::{Arbiter, ClaimError, Grant, Notice, Reason};
use pit_core::{clock::Tick, priority::Ageing};

use crate::support::{Woken, arbiter, poll, poll_with, spec};

fn take(arbiter: &Arbiter, level: u8, amounts: &[(&str, u64)]) -> Grant {
    arbiter.try_claim(&spec(arbiter, level, amounts)).unwrap().expect("it is free")
}

fn free(arbiter: &Arbiter) -> Vec<u64> {
    arbiter.snapshot().resources.iter().map(|resource| resource.free).collect()
}

fn wounded() -> Notice {
    // 100 ms after the beginning.
    Notice { by: Tick::from_nanos(100_000_000), reason: Reason::Wounded }
}

#[test]
fn extension_is_part_of_the_grant() {
    let (arbiter, _) = arbiter(&[("cores", 4), ("disks", 1)], Ageing::default());
    let mut grant = take(&arbiter, 5, &[("cores", 1)]);
    assert!(grant.try_extend(&spec(&arbiter, 0, &[("cores", 2), ("disks", 1)])).unwrap());
    assert_eq!(free(&arbiter), [1, 0]);
    assert!(!grant.try_extend(&spec(&arbiter, 0, &[("disks", 1)])).is_ok_and(|is_extended| is_extended));
    let of_grant = &arbiter.snapshot().grants[0];
    assert_eq!(of_grant.amounts.iter().map(|(_, units)| *units).collect::<Vec<_>>(), [3, 1]);
    drop(grant);
    assert_eq!(free(&arbiter), [4, 1]);
}

#[test]
fn extension_beyond_what_there_is_is_refused_with_what_is_held() {
    let (arbiter, _) = arbiter(&[("cores", 4)], Ageing::default());
    let mut grant = take(&arbiter, 5, &[("cores", 3)]);
    let two = spec(&arbiter, 0, &[("cores", 2)]);
    let message = "5 of `cores` are claimed, its capacity is 4";
    assert_eq!(grant.try_extend(&two).unwrap_err().to_string(), message);
    assert_eq!(grant.extend_wait(&two, Tick::NEVER).unwrap_err().to_string(), message);
}

#[test]
fn older_holder_wounds_the_younger_and_the_younger_waits() {
    let (arbiter, _) = arbiter(&[("a", 1), ("b", 1)], Ageing::default());
    let (mut old, mut young) = (take(&arbiter, 5, &[("a", 1)]), take(&arbiter, 9, &[("b", 1)]));
    let (old_id, young_id) = (old.id(), young.id());
    let (wants_a, wants_b) = (spec(&arbiter, 0, &[("a", 1)]), spec(&arbiter, 0, &[("b", 1)]));
    {
        let told = Arc::new(Woken::default());
        let mut waiting = young.extend(&wants_a);
        assert!(poll_with(&mut waiting, &told).is_pending());
        assert!(
            arbiter.snapshot().grants.iter().all(|grant| grant.notice.is_none()),
            "the younger one waits"
        );
        let mut wanting = old.extend(&wants_b);
        assert!(poll(&mut wanting).is_pending());
        assert_eq!(told.count(), 1, "the extension of the one that is told fails at once");
        assert!(
            matches!(poll(&mut waiting), Poll::Ready(Err(ClaimError::Told(notice))) if notice == wounded())
        );
        let views = arbiter.snapshot().grants;
        assert_eq!(
            views.iter().map(|view| (view.id, view.notice)).collect::<Vec<_>>(),
            [(old_id, None), (young_id, Some(wounded()))]
        );
        assert_eq!(arbiter.snapshot().waiters[0].extends, Some(old_id));
        drop(waiting);
        assert_eq!(young.notice(), Some(wounded()));
        assert_eq!(young.try_extend(&wants_a).unwrap_err(), ClaimError::Told(wounded()));
        drop(young);
        assert!(matches!(poll(&mut wanting), Poll::Ready(Ok(()))));
    }
    assert_eq!(free(&arbiter), [0, 0]);
    drop(old);
    assert_eq!(free(&arbiter), [1, 1]);
}

#[test]
fn no_more_holders_are_wounded_than_needed_the_youngest_first() {
    let (arbiter, _) = arbiter(&[("cores", 6), ("disks", 3)], Ageing::default());
    let mut oldest = take(&arbiter, 1, &[("disks", 3)]);
    let held: Vec<Grant> =
        [1, 2, 2, 1].map(|units| take(&arbiter, 1, &[("cores", units)])).into_iter().collect();
    let three = spec(&arbiter, 0, &[("cores", 3)]);
    let mut wanting = oldest.extend(&three);
    assert!(poll(&mut wanting).is_pending());
    let told: Vec<bool> = held.iter().map(|grant| grant.notice().is_some()).collect();
    assert_eq!(told, [false, false, true, true]);
    let mut held = held;
    drop(held.pop());
    assert!(poll(&mut wanting).is_pending());
    assert_eq!(held.iter().filter(|grant| grant.notice().is_some()).count(), 1, "what was asked back counts");
    drop(held.pop());
    assert!(poll(&mut wanting).is_ready());
}

#[test]
fn younger_holder_does_not_take_what_an_older_one_waits_for() {
    let (arbiter, _) = arbiter(&[("cores", 4)], Ageing::default());
    let oldest = take(&arbiter, 1, &[("cores", 2)]);
    let mut middle = take(&arbiter, 1, &[]);
    let mut young = take(&arbiter, 1, &[]);
    let mut wanting = middle.extend(&spec(&arbiter, 0, &[("cores", 3)]));
    assert!(poll(&mut wanting).is_pending(), "it waits for the oldest, and two are free");
    assert!(!young.try_extend(&spec(&arbiter, 0, &[("cores", 1)])).unwrap());
    drop(oldest);
    assert!(poll(&mut wanting).is_ready());
    assert!(young.try_extend(&spec(&arbiter, 0, &[("cores", 1)])).unwrap());
}

#[test]
fn extension_goes_before_claims_that_hold_nothing() {
    let (arbiter, _) = arbiter(&[("cores", 4)], Ageing::default());
    let mut grant = take(&arbiter, 1, &[("cores", 2)]);
    let mut waiting = arbiter.claim(&spec(&arbiter, 255, &[("cores", 4)]));
    assert!(poll(&mut waiting).is_pending(), "it keeps the two cores that are free from other claims");
    assert!(
        grant.try_extend(&spec(&arbiter, 0, &[("cores", 2)])).unwrap(),
        "but not from one that it waits for"
    );
    drop(grant);
    assert!(poll(&mut waiting).is_ready());
}

#[test]
fn withdrawn_extension_leaves_the_grant_as_it_was() {
    let (arbiter, _) = arbiter(&[("cores", 4)], Ageing::default());
    let _other = take(&arbiter, 1, &[("cores", 2)]);
    let mut grant = take(&arbiter, 1, &[("cores", 1)]);
    let mut wanting = grant.extend(&spec(&arbiter, 0, &[("cores", 2)]));
    assert!(poll(&mut wanting).is_pending());
    let mut one = arbiter.claim(&spec(&arbiter, 0, &[("cores", 1)]));
    assert!(poll(&mut one).is_pending(), "what it lacks is kept from claims");
    drop(wanting);
    assert!(poll(&mut one).is_ready());
    let held: Vec<u64> = arbiter.snapshot().grants.iter().map(|view| view.amounts[0].1).collect();
    assert_eq!((held, free(&arbiter)), (vec![2, 1], vec![1]));
}

#[test]
fn extension_that_was_served_and_never_fetched_is_given_back() {
    let (arbiter, _) = arbiter(&[("cores", 2)], Ageing::default());
    let other = take(&arbiter, 1, &[("cores", 1)]);
    let mut grant = take(&arbiter, 1, &[("cores", 1)]);
    let one = spec(&arbiter, 0, &[("cores", 1)]);
    let woken = Arc::new(Woken::default());
    let mut wanting = grant.extend(&one);
    assert!(poll_with(&mut wanting, &woken).is_pending());
    let mut next = arbiter.claim(&one);
    assert!(poll(&mut next).is_pending());
    drop(other);
    assert_eq!((woken.count(), free(&arbiter)), (1, vec![0]));
    drop(wanting);
    assert!(poll(&mut next).is_ready(), "it goes to the next");
    assert_eq!(arbiter.snapshot().grants.len(), 1, "fetched and dropped");
    assert_eq!(free(&arbiter), [1]);
}

#[test]
fn blocked_extension_of_an_older_holder_takes_from_who_does_not_give_back() {
    let arbiter = Arbiter::new([("a", 1), ("b", 1)]).unwrap();
    let (mut old, young) = (take(&arbiter, 1, &[("a", 1)]), take(&arbiter, 1, &[("b", 1)]));
    // It revokes by itself while it waits: nobody else looks at the time.
    old.extend_wait(&spec(&arbiter, 0, &[("b", 1)]), Tick::NEVER).unwrap();
    assert!(old.is_valid() && !young.is_valid());
    let late = young.id();
    drop(young);
    assert_eq!(free(&arbiter), [0, 0], "the one that was revoked gives nothing back");
    assert!(!arbiter.is_valid(late));
    let give_up = Tick::ZERO.after(Duration::from_nanos(1));
    let mut third = arbiter.claim_wait(&spec(&arbiter, 0, &[]), give_up).unwrap();
    let error = third.extend_wait(&spec(&arbiter, 0, &[("a", 1)]), give_up).unwrap_err();
    assert_eq!(error, ClaimError::DeadlinePassed { deadline: give_up });
}
