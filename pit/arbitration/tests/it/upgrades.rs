//! Holders that want the whole of what they share, and grants beside each other.

use std::{sync::Arc, task::Poll, thread};

use arbitration::{Arbiter, ClaimError, ClaimSpec, Grant, OwnerId};
use pit_core::{
    clock::Tick,
    priority::{Ageing, Priority},
};

use crate::support::{Woken, arbiter, poll, poll_with, spec, until_waiting};

fn reading(arbiter: &Arbiter) -> ClaimSpec {
    ClaimSpec::new(OwnerId::new(1), Priority::NORMAL).shared(arbiter.resource("index").unwrap())
}

fn writing(arbiter: &Arbiter) -> ClaimSpec {
    ClaimSpec::new(OwnerId::new(1), Priority::NORMAL).exclusive(arbiter.resource("index").unwrap())
}

fn take(arbiter: &Arbiter, spec: &ClaimSpec) -> Grant {
    arbiter.try_claim(spec).unwrap().expect("it is free")
}

fn free(arbiter: &Arbiter) -> u64 {
    arbiter.snapshot().resources[0].free
}

#[test]
fn share_becomes_the_whole_when_the_others_have_gone() {
    let (arbiter, _) = arbiter(&[("index", 3)], Ageing::default());
    let older = take(&arbiter, &reading(&arbiter));
    let mut grant = take(&arbiter, &reading(&arbiter));
    assert!(!grant.try_extend(&writing(&arbiter)).unwrap());
    let mut late = arbiter.claim(&reading(&arbiter));
    {
        let woken = Arc::new(Woken::default());
        let mut upgrade = grant.extend(&writing(&arbiter));
        assert!(poll_with(&mut upgrade, &woken).is_pending());
        assert_eq!(older.notice(), None, "the older one is waited for");
        assert!(poll(&mut late).is_pending(), "no new share is given meanwhile");
        drop(older);
        assert_eq!((woken.count(), poll(&mut upgrade)), (1, Poll::Ready(Ok(()))));
    }
    assert_eq!(arbiter.snapshot().grants[0].amounts[0].1, 3);
    assert!(grant.try_extend(&writing(&arbiter)).unwrap(), "it has the whole");
    assert!(poll(&mut late).is_pending());
    drop(grant);
    assert!(poll(&mut late).is_ready());
}

#[test]
fn withdrawn_upgrade_leaves_the_share() {
    let (arbiter, _) = arbiter(&[("index", 3)], Ageing::default());
    let older = take(&arbiter, &reading(&arbiter));
    let mut grant = take(&arbiter, &reading(&arbiter));
    for is_served in [false, true] {
        let mut upgrade = grant.extend(&writing(&arbiter));
        assert!(poll(&mut upgrade).is_pending());
        if is_served {
            drop(older);
            assert_eq!(free(&arbiter), 0);
            drop(upgrade);
            assert_eq!(free(&arbiter), 2);
            break;
        }
        drop(upgrade);
        assert_eq!(free(&arbiter), 1);
    }
}

#[test]
fn of_two_that_share_and_want_the_whole_the_older_gets_it() {
    for older_begins in [true, false] {
        let (arbiter, _) = arbiter(&[("index", 2)], Ageing::default());
        let [mut older, mut younger] = [(); 2].map(|()| take(&arbiter, &reading(&arbiter)));
        {
            let writing = writing(&arbiter);
            let (mut of_older, mut of_younger) = (older.extend(&writing), younger.extend(&writing));
            if older_begins {
                assert!(poll(&mut of_older).is_pending());
            } else {
                assert!(poll(&mut of_younger).is_pending(), "it waits for the older one");
                assert!(poll(&mut of_older).is_pending());
            }
            assert!(matches!(poll(&mut of_younger), Poll::Ready(Err(ClaimError::Told(_)))));
            drop(of_younger);
            drop(younger);
            assert!(matches!(poll(&mut of_older), Poll::Ready(Ok(()))));
        }
        assert_eq!(free(&arbiter), 0);
    }
}

#[test]
fn threads_that_share_and_want_the_whole_all_get_it() {
    const THREADS: u64 = 4;
    const TURNS: u32 = 200;
    let arbiter = Arbiter::new([("index", THREADS)]).unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..TURNS {
                    // Who is told gives its share back and begins anew.
                    loop {
                        let mut grant = arbiter.claim_wait(&reading(&arbiter), Tick::NEVER).unwrap();
                        match grant.extend_wait(&writing(&arbiter), Tick::NEVER) {
                            Ok(()) => break assert_eq!(free(&arbiter), 0),
                            Err(ClaimError::Told(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(free(&arbiter), THREADS);
}

#[test]
fn nobody_has_the_whole_of_nothing() {
    let (arbiter, _) = arbiter(&[("index", 0), ("cores", 1)], Ageing::default());
    let message = "1 of `index` are claimed, its capacity is 0";
    assert_eq!(arbiter.try_claim(&writing(&arbiter)).unwrap_err().to_string(), message);
    assert_eq!(arbiter.claim_wait(&writing(&arbiter), Tick::NEVER).unwrap_err().to_string(), message);
    let mut grant = take(&arbiter, &spec(&arbiter, 1, &[("cores", 1)]));
    assert_eq!(grant.try_extend(&writing(&arbiter)).unwrap_err().to_string(), message);
}

#[test]
fn grant_beside_another_is_one_by_itself() {
    let (arbiter, _) = arbiter(&[("a", 2), ("b", 1)], Ageing::default());
    let first = take(&arbiter, &spec(&arbiter, 5, &[("a", 1)]));
    let second = first.claim_beside_wait(&spec(&arbiter, 0, &[("a", 1), ("b", 1)]), Tick::ZERO).unwrap();
    let views = arbiter.snapshot().grants;
    assert_eq!((views[0].number, views[0].priority), (views[1].number, views[1].priority));
    assert_eq!(free(&arbiter), 0);
    drop(first);
    assert_eq!(free(&arbiter), 1);
    assert!(second.is_valid());
    drop(second);
    assert_eq!(arbiter.snapshot().resources.iter().map(|view| view.free).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn holder_that_waits_beside_what_it_holds_hears_of_a_notice() {
    let (arbiter, _) = arbiter(&[("a", 1), ("b", 1)], Ageing::default());
    let _blocking = take(&arbiter, &spec(&arbiter, 9, &[("b", 1)]));
    let first = take(&arbiter, &spec(&arbiter, 1, &[("a", 1)]));
    let woken = Arc::new(Woken::default());
    let wanted = spec(&arbiter, 0, &[("b", 1)]);
    let mut waiting = first.claim_beside(&wanted);
    assert!(poll_with(&mut waiting, &woken).is_pending());
    let notice = std::time::Duration::from_millis(5);
    let mut urgent = arbiter.claim(&spec(&arbiter, 3, &[("a", 1)]).preempting(notice));
    assert!(poll(&mut urgent).is_pending());
    let told = first.notice().expect("it is preempted");
    assert_eq!(woken.count(), 1);
    assert!(matches!(poll(&mut waiting), Poll::Ready(Err(ClaimError::Told(notice))) if notice == told));
    let error = first.claim_beside_wait(&wanted, Tick::NEVER).unwrap_err();
    assert_eq!(error, ClaimError::Told(told), "and a later one hears of it at once");
    drop(waiting);
    drop(first);
    assert!(poll(&mut urgent).is_ready());
}

#[test]
fn blocked_holder_hears_of_a_notice_that_is_given_later() {
    let arbiter = Arbiter::new([("a", 1), ("b", 1)]).unwrap();
    let _blocking = take(&arbiter, &spec(&arbiter, 9, &[("b", 1)]));
    let mut first = take(&arbiter, &spec(&arbiter, 1, &[("a", 1)]));
    let id = first.id();
    let wanted = spec(&arbiter, 0, &[("b", 1)]);
    for extends in [false, true] {
        thread::scope(|scope| {
            let blocked = scope.spawn(|| match extends {
                false => first.claim_beside_wait(&wanted, Tick::NEVER).map(drop),
                true => first.extend_wait(&wanted, Tick::NEVER),
            });
            if !extends {
                until_waiting(&arbiter, 1);
                assert!(arbiter.preempt(id, std::time::Duration::from_secs(3_000)));
            }
            assert!(matches!(blocked.join().unwrap(), Err(ClaimError::Told(_))));
        });
    }
}

#[test]
fn notice_of_one_grant_reaches_its_holder_where_it_waits_beside_another() {
    let (arbiter, _) = arbiter(&[("a", 1), ("b", 1), ("c", 1)], Ageing::default());
    let _blocking = take(&arbiter, &spec(&arbiter, 9, &[("c", 1)]));
    let first = take(&arbiter, &spec(&arbiter, 1, &[("a", 1)]));
    let mut second = first.claim_beside_wait(&spec(&arbiter, 0, &[("b", 1)]), Tick::ZERO).unwrap();
    let wanted = spec(&arbiter, 0, &[("c", 1)]);
    let mut waiting = second.extend(&wanted);
    assert!(poll(&mut waiting).is_pending());
    assert!(arbiter.preempt(first.id(), std::time::Duration::from_secs(1)));
    assert!(matches!(poll(&mut waiting), Poll::Ready(Err(ClaimError::Told(_)))));
    drop(waiting);
    assert!(matches!(second.try_extend(&wanted), Err(ClaimError::Told(_))));
    assert_eq!(second.notice(), None, "it is the other one that is to be given back");
    drop(first);
    assert!(!second.try_extend(&wanted).unwrap());
}

#[test]
fn holders_that_claim_beside_what_they_hold_do_not_wait_in_a_circle() {
    let (arbiter, _) = arbiter(&[("a", 1), ("b", 1)], Ageing::default());
    let older = take(&arbiter, &spec(&arbiter, 1, &[("a", 1)]));
    let younger = take(&arbiter, &spec(&arbiter, 9, &[("b", 1)]));
    let (wants_a, wants_b) = (spec(&arbiter, 0, &[("a", 1)]), spec(&arbiter, 0, &[("b", 1)]));
    let mut of_younger = younger.claim_beside(&wants_a);
    assert!(poll(&mut of_younger).is_pending());
    let mut of_older = older.claim_beside(&wants_b);
    assert!(poll(&mut of_older).is_pending());
    assert!(matches!(poll(&mut of_younger), Poll::Ready(Err(ClaimError::Told(_)))));
    drop(of_younger);
    drop(younger);
    assert!(poll(&mut of_older).is_ready());
}

#[test]
fn holder_does_not_wait_for_itself() {
    let (arbiter, _) = arbiter(&[("index", 3)], Ageing::default());
    let other = take(&arbiter, &reading(&arbiter));
    let mut first = take(&arbiter, &reading(&arbiter));
    let second = first.claim_beside_wait(&reading(&arbiter), Tick::ZERO).unwrap();
    let two = spec(&arbiter, 0, &[("index", 2)]);
    let error = first.try_extend(&two).unwrap_err();
    assert_eq!(error.to_string(), "4 of `index` are claimed, its capacity is 3");
    let mut upgrade = first.extend(&writing(&arbiter));
    assert!(poll(&mut upgrade).is_pending());
    let mut same = second.claim_beside(&reading(&arbiter));
    assert!(
        matches!(poll(&mut same), Poll::Ready(Err(ClaimError::ExceedsCapacity { .. }))),
        "it waits for it"
    );
    drop(other);
    assert!(poll(&mut upgrade).is_ready(), "what it holds beside is its own");
    assert_eq!(free(&arbiter), 0);
}

#[test]
fn grant_beside_another_that_was_never_fetched_is_given_back() {
    let (arbiter, _) = arbiter(&[("index", 2)], Ageing::default());
    let other = take(&arbiter, &reading(&arbiter));
    let first = take(&arbiter, &reading(&arbiter));
    let mut waiting = first.claim_beside(&reading(&arbiter));
    assert!(poll(&mut waiting).is_pending());
    drop(other);
    assert_eq!((free(&arbiter), arbiter.snapshot().grants.len()), (0, 2));
    drop(waiting);
    assert_eq!((free(&arbiter), arbiter.snapshot().grants.len()), (1, 1));
}
