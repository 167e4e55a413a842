//! Shared and exclusive claims, preemption, notices, and grants that are revoked.

use std::{sync::Arc, task::Poll, time::Duration};

use arbitration::{Arbiter, ClaimSpec, Notice, OwnerId, Reason};
use pit_core::{
    clock::{Clock, Tick},
    priority::{Ageing, Priority},
};

use crate::support::{Woken, arbiter, poll, poll_with, spec};

const NOTICE: Duration = Duration::from_millis(20);

fn free(arbiter: &Arbiter) -> Vec<u64> {
    arbiter.snapshot().resources.iter().map(|resource| resource.free).collect()
}

#[test]
fn shares_exclude_the_whole_and_the_whole_excludes_shares() {
    let (arbiter, _) = arbiter(&[("index", 3)], Ageing::default());
    let index = arbiter.resource("index").unwrap();
    let reading = ClaimSpec::new(OwnerId::new(1), Priority::NORMAL).shared(index);
    let writing = ClaimSpec::new(OwnerId::new(2), Priority::NORMAL).exclusive(index);
    let readers: Vec<_> = (0..3).map(|_| arbiter.try_claim(&reading).unwrap().unwrap()).collect();
    assert!(arbiter.try_claim(&reading).unwrap().is_none(), "as many as it has units");
    let mut writer = arbiter.claim(&writing);
    assert!(poll(&mut writer).is_pending());
    let mut late_reader = arbiter.claim(&reading);
    drop(readers);
    let Poll::Ready(Ok(written)) = poll(&mut writer) else { panic!("nobody reads") };
    assert!(poll(&mut late_reader).is_pending());
    assert_eq!(arbiter.snapshot().grants[0].amounts, [(index, 3)]);
    drop(written);
    assert!(poll(&mut late_reader).is_ready());
}

#[test]
fn urgent_claim_tells_the_least_urgent_and_of_those_the_youngest() {
    let (arbiter, clock) = arbiter(&[("cores", 4)], Ageing::default());
    clock.advance(Duration::from_secs(1));
    let held = [5_u8, 2, 2, 9]
        .map(|level| arbiter.try_claim(&spec(&arbiter, level, &[("cores", 1)])).unwrap().unwrap());
    let told = || held.iter().map(|grant| grant.notice().is_some()).collect::<Vec<_>>();
    let cases = [
        // level, cores, who is told by then
        (2, 1, [false, false, false, false]),
        (9, 4, [false, false, false, false]),
        (9, 1, [false, false, true, false]),
        (9, 2, [true, true, true, false]),
    ];
    let mut waiting = Vec::new();
    for (level, cores, expected) in cases {
        let mut claim = arbiter.claim(&spec(&arbiter, level, &[("cores", cores)]).preempting(NOTICE));
        assert!(poll(&mut claim).is_pending());
        assert_eq!(told(), expected, "{cores} at {level}");
        if expected != [false; 4] {
            waiting.push(claim);
        }
    }
    let by = clock.now().after(NOTICE);
    assert_eq!(held[2].notice(), Some(Notice { by, reason: Reason::Preempted }));
    assert_eq!(arbiter.next_deadline(), Some(by));
    let [high, low, youngest, highest] = held;
    drop(youngest);
    assert!(poll(&mut waiting[0]).is_ready() && poll(&mut waiting[1]).is_pending());
    drop((high, low));
    assert!(poll(&mut waiting[1]).is_ready());
    assert_eq!((highest.notice(), arbiter.next_deadline()), (None, None));
}

#[test]
fn holder_is_told_by_a_future_and_by_asking() {
    let (arbiter, clock) = arbiter(&[("cores", 1)], Ageing::default());
    let grant = arbiter.try_claim(&spec(&arbiter, 1, &[("cores", 1)])).unwrap().unwrap();
    let (earlier, later) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let mut told = grant.told();
    assert!(poll_with(&mut told, &earlier).is_pending());
    assert!(poll_with(&mut told, &later).is_pending());
    assert!(arbiter.preempt(grant.id(), NOTICE));
    let notice = Notice { by: clock.now().after(NOTICE), reason: Reason::Asked };
    assert_eq!((earlier.count(), later.count()), (0, 1));
    assert_eq!((poll(&mut told), grant.notice()), (Poll::Ready(Some(notice)), Some(notice)));
    assert!(arbiter.preempt(grant.id(), NOTICE * 2));
    assert_eq!(grant.notice(), Some(notice), "the earlier deadline stays");
    assert!(arbiter.preempt(grant.id(), NOTICE / 2));
    assert_eq!(arbiter.next_deadline(), Some(clock.now().after(NOTICE / 2)));
    assert!(grant.is_valid(), "until then");
    drop(grant);
    assert_eq!(arbiter.next_deadline(), None, "nobody is told any more");
}

#[test]
fn what_is_not_given_back_is_revoked_at_the_deadline_and_not_before() {
    let (arbiter, clock) = arbiter(&[("cores", 2)], Ageing::default());
    let both = spec(&arbiter, 1, &[("cores", 2)]);
    let grant = arbiter.try_claim(&both).unwrap().unwrap();
    let (listening, waiting) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let mut claim = arbiter.claim(&spec(&arbiter, 7, &[("cores", 1)]).preempting(NOTICE));
    assert!(poll_with(&mut claim, &waiting).is_pending());
    let mut told = grant.told();
    assert!(poll_with(&mut told, &listening).is_ready());
    clock.advance(NOTICE - Duration::from_nanos(1));
    assert_eq!((arbiter.revoke_due(), grant.is_valid()), (0, true));
    assert_eq!(free(&arbiter), [0], "it is not free before");
    clock.advance(Duration::from_nanos(1));
    assert_eq!((arbiter.revoke_due(), grant.is_valid(), grant.notice()), (1, false, None));
    assert_eq!((waiting.count(), poll(&mut grant.told())), (1, Poll::Ready(None)));
    assert_eq!((free(&arbiter), arbiter.next_deadline()), (vec![1], None));
    let Poll::Ready(Ok(successor)) = poll(&mut claim) else { panic!("a core is free") };
    assert_eq!(successor.id().index(), grant.id().index(), "in the same place");
    assert!(!arbiter.preempt(grant.id(), NOTICE), "a late word about the one before does not reach it");
    drop(grant);
    assert!(successor.is_valid() && successor.notice().is_none());
    assert_eq!(free(&arbiter), [1], "and gives nothing back");
}

#[test]
fn listener_of_a_revoked_grant_is_woken() {
    let (arbiter, clock) = arbiter(&[("cores", 1)], Ageing::default());
    let grant = arbiter.try_claim(&spec(&arbiter, 1, &[("cores", 1)])).unwrap().unwrap();
    let woken = Arc::new(Woken::default());
    let mut told = grant.told();
    assert!(poll_with(&mut told, &woken).is_pending());
    arbiter.preempt(grant.id(), Duration::ZERO);
    clock.advance(Duration::from_nanos(1));
    arbiter.revoke_due();
    assert_eq!((woken.count(), poll(&mut told)), (1, Poll::Ready(None)));
}

#[test]
fn blocking_claim_takes_from_who_does_not_give_back() {
    let arbiter = Arbiter::new([("cores", 1)]).unwrap();
    let grant = arbiter.try_claim(&spec(&arbiter, 1, &[("cores", 1)])).unwrap().unwrap();
    let urgent = spec(&arbiter, 2, &[("cores", 1)]).preempting(Duration::from_millis(2));
    let successor = arbiter.claim_wait(&urgent, Tick::NEVER).unwrap();
    assert!(successor.is_valid() && !grant.is_valid());
}
