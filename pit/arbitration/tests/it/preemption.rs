//! Preemption of those who hold, by those who wait: decided anew whenever something changes, also by time alone.

use std::{sync::Arc, task::Poll, thread, time::Duration};

use arbitration::{Arbiter, Claiming, Grant, Notice, Options, Policy, Reason, Snapshot};
use pit_core::{
    clock::{Clock, SystemClock, Tick},
    priority::{Ageing, Priority},
};
use proptest::prelude::*;

use crate::support::{Woken, arbiter, poll, poll_with, spec, until_waiting};

const NOTICE: Duration = Duration::from_millis(20);
const STEP: Duration = Duration::from_millis(10);

fn take(arbiter: &Arbiter, level: u8, cores: u64) -> Grant {
    arbiter.try_claim(&spec(arbiter, level, &[("cores", cores)])).unwrap().expect("it is free")
}

fn urgent(arbiter: &Arbiter, level: u8, cores: u64) -> Claiming {
    let mut claim = arbiter.claim(&spec(arbiter, level, &[("cores", cores)]).preempting(NOTICE));
    assert!(poll(&mut claim).is_pending());
    claim
}

#[test]
fn claim_that_waits_preempts_as_soon_as_that_is_enough() {
    let (arbiter, _) = arbiter(&[("cores", 2)], Ageing { step: Duration::MAX });
    let (high, low) = (take(&arbiter, 9, 1), take(&arbiter, 1, 1));
    let woken = Arc::new(Woken::default());
    let mut told = low.told();
    assert!(poll_with(&mut told, &woken).is_pending());
    let mut waiting = urgent(&arbiter, 5, 2);
    assert!(poll_with(&mut told, &woken).is_pending(), "the other core would be lacking");
    drop(high);
    assert_eq!(woken.count(), 1, "a grant has gone, and the holder is told");
    assert!(matches!(poll(&mut told), Poll::Ready(Some(Notice { reason: Reason::Preempted, .. }))));
    drop(low);
    assert!(poll(&mut waiting).is_ready());
}

#[test]
fn grant_that_comes_later_is_preempted_too() {
    let (arbiter, _) = arbiter(&[("cores", 3)], Ageing { step: Duration::MAX });
    let (two, one) = (take(&arbiter, 9, 2), take(&arbiter, 9, 1));
    let mut low = take(&arbiter, 1, 0);
    let mut waiting = urgent(&arbiter, 5, 3);
    let mut wanting = low.extend(&spec(&arbiter, 0, &[("cores", 1)]));
    assert!(poll(&mut wanting).is_pending());
    drop(one);
    assert!(poll(&mut wanting).is_ready(), "who holds goes before");
    drop(wanting);
    assert_eq!(low.notice(), None, "two cores would be lacking");
    drop(two);
    assert!(low.notice().is_some());
    drop(low);
    assert!(poll(&mut waiting).is_ready());
}

#[test]
fn those_who_come_before_get_what_is_given_back_first() {
    let (arbiter, _) = arbiter(&[("cores", 3)], Ageing { step: Duration::MAX });
    let (_high, low, lower) = (take(&arbiter, 9, 1), take(&arbiter, 2, 1), take(&arbiter, 1, 1));
    let mut first = arbiter.claim(&spec(&arbiter, 8, &[("cores", 1)]));
    assert!(poll(&mut first).is_pending());
    let mut second = urgent(&arbiter, 2, 1);
    assert_eq!(lower.notice(), None, "its core would be the first one's");
    let mut third = urgent(&arbiter, 5, 1);
    assert!(lower.notice().is_some() && low.notice().is_some(), "one for each of the two before");
    drop((low, lower));
    let served = [&mut first, &mut third, &mut second].map(poll);
    assert_eq!(served.each_ref().map(Poll::is_ready), [true, true, false]);
}

#[test]
fn withdrawal_of_one_before_lets_another_preempt() {
    let (arbiter, _) = arbiter(&[("cores", 2)], Ageing { step: Duration::MAX });
    let (_high, low) = (take(&arbiter, 9, 1), take(&arbiter, 1, 1));
    let mut first = arbiter.claim(&spec(&arbiter, 8, &[("cores", 1)]));
    assert!(poll(&mut first).is_pending());
    let _waiting = urgent(&arbiter, 5, 1);
    assert_eq!(low.notice(), None);
    drop(first);
    assert!(low.notice().is_some());
}

#[test]
fn waiting_makes_a_claim_urgent_enough_to_preempt() {
    let (arbiter, clock) = arbiter(&[("cores", 2)], Ageing { step: STEP });
    let (highest, holder) = (take(&arbiter, 255, 1), take(&arbiter, 5, 1));
    let waiting = urgent(&arbiter, 3, 1);
    let more_urgent = Tick::ZERO.after(STEP * 3);
    assert_eq!(arbiter.next_deadline(), Some(more_urgent), "a level above the holder's");
    clock.advance(STEP * 3 - Duration::from_nanos(1));
    assert_eq!((arbiter.revoke_due(), holder.notice()), (0, None));
    clock.advance(Duration::from_nanos(1));
    assert_eq!(arbiter.revoke_due(), 0);
    let notice = Notice { by: more_urgent.after(NOTICE), reason: Reason::Preempted };
    assert_eq!((holder.notice(), arbiter.next_deadline()), (Some(notice), Some(notice.by)));
    clock.advance(NOTICE);
    assert_eq!(arbiter.revoke_due(), 1);
    drop((waiting, holder));
    let _both = urgent(&arbiter, 3, 2);
    assert_eq!((highest.notice(), arbiter.next_deadline()), (None, None), "nobody becomes more urgent");
}

fn with_real_time(cores: u64, step: Duration) -> Arbiter {
    let options = Options { policy: Policy::Priority(Ageing { step }), ..Options::default() };
    Arbiter::with_options([("cores", cores)], options, Arc::new(SystemClock::new())).unwrap()
}

#[test]
fn blocked_claim_preempts_by_its_age_without_anybody_else() {
    let arbiter = with_real_time(1, Duration::from_millis(1));
    let holder = take(&arbiter, 2, 1);
    let wanted = spec(&arbiter, 0, &[("cores", 1)]).preempting(Duration::from_millis(1));
    let successor = arbiter.claim_wait(&wanted, Tick::NEVER).unwrap();
    assert!(successor.is_valid() && !holder.is_valid());
}

#[test]
fn blocked_claim_revokes_at_the_deadline_of_a_notice_that_is_given_later() {
    let arbiter = with_real_time(1, Duration::MAX);
    let holder = take(&arbiter, 9, 1);
    thread::scope(|scope| {
        let blocked =
            scope.spawn(|| arbiter.claim_wait(&spec(&arbiter, 1, &[("cores", 1)]), Tick::NEVER).unwrap());
        until_waiting(&arbiter, 1);
        // Nobody but the blocked one looks at the time.
        assert!(arbiter.preempt(holder.id(), Duration::from_secs(3_000)));
        assert!(arbiter.preempt(holder.id(), Duration::from_millis(1)));
        assert!(blocked.join().unwrap().is_valid());
    });
    assert!(!holder.is_valid());
}

#[test]
fn who_sleeps_until_the_next_deadline_hears_of_an_earlier_one() {
    let (arbiter, clock) = arbiter(&[("cores", 2)], Ageing { step: Duration::MAX });
    let grants = [take(&arbiter, 1, 1), take(&arbiter, 1, 1)];
    let woken = Arc::new(Woken::default());
    let mut earlier = arbiter.earlier_deadline(Tick::NEVER);
    assert!(poll_with(&mut earlier, &woken).is_pending());
    arbiter.preempt(grants[0].id(), NOTICE * 2);
    let first = clock.now().after(NOTICE * 2);
    assert_eq!((woken.count(), poll(&mut earlier)), (1, Poll::Ready(first)));
    let mut earlier = arbiter.earlier_deadline(first);
    assert!(poll_with(&mut earlier, &woken).is_pending());
    arbiter.preempt(grants[1].id(), NOTICE * 3);
    assert_eq!((woken.count(), poll_with(&mut earlier, &woken)), (1, Poll::Pending), "that one is later");
    arbiter.preempt(grants[1].id(), NOTICE);
    assert_eq!((woken.count(), poll(&mut earlier)), (2, Poll::Ready(clock.now().after(NOTICE))));
    drop(grants);
    let mut earlier = arbiter.earlier_deadline(first);
    assert!(poll_with(&mut earlier, &woken).is_pending());
    drop(earlier);
    let other = take(&arbiter, 1, 1);
    arbiter.preempt(other.id(), Duration::ZERO);
    assert_eq!(woken.count(), 2, "who has gone is not woken");
}

#[derive(Clone, Debug)]
enum Op {
    Claim { level: u8, amounts: [u64; 2], preempts: bool },
    Release(usize),
    Withdraw(usize),
    Advance(u64),
}

const CAPACITIES: [u64; 2] = [4, 2];

fn op() -> impl Strategy<Value = Op> {
    let amounts = (0..=CAPACITIES[0], 0..=CAPACITIES[1]).prop_map(|(a, b)| [a, b]);
    prop_oneof![
        5 => (0..5_u8, amounts, any::<bool>())
            .prop_map(|(level, amounts, preempts)| Op::Claim { level, amounts, preempts }),
        3 => any::<usize>().prop_map(Op::Release),
        1 => any::<usize>().prop_map(Op::Withdraw),
        2 => (1..25_u64).prop_map(Op::Advance),
    ]
}

/// Claims that wait, and whether they preempt.
type Waiting = Vec<(bool, Claiming)>;

/// By the rule, from what is to be seen: those whom a claim that waits and preempts could tell, and that would be enough.
/// Claims that preempt are owned by 1, the others by 0.
fn can_be_preempted(snapshot: &Snapshot, now: Tick) -> bool {
    let mut coming = snapshot.resources.iter().map(|resource| i128::from(resource.free)).collect::<Vec<_>>();
    let add = |coming: &mut Vec<i128>, amounts: &[(arbitration::ResourceId, u64)], sign: i128| {
        amounts.iter().for_each(|(id, units)| coming[id.index() as usize] += sign * i128::from(*units));
    };
    snapshot
        .grants
        .iter()
        .filter(|grant| grant.notice.is_some())
        .for_each(|grant| add(&mut coming, &grant.amounts, 1));
    for waiter in &snapshot.waiters {
        add(&mut coming, &waiter.amounts, -1);
        let is_short = |coming: &[i128]| waiter.amounts.iter().any(|(id, _)| coming[id.index() as usize] < 0);
        if waiter.owner.get() == 1 && is_short(&coming) {
            let gained = now.since(waiter.since).as_millis() / STEP.as_millis();
            let urgency = u128::from(waiter.priority.level()) + gained;
            let lesser = snapshot.grants.iter().filter(|grant| grant.notice.is_none());
            let mut with_lesser = coming.clone();
            lesser
                .filter(|grant| u128::from(grant.priority.level()) < urgency)
                .for_each(|grant| add(&mut with_lesser, &grant.amounts, 1));
            if !is_short(&with_lesser) {
                return true;
            }
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_who_could_preempt_goes_on_waiting_without(ops in prop::collection::vec(op(), 1..50)) {
        let (arbiter, clock) = arbiter(&[("a", CAPACITIES[0]), ("b", CAPACITIES[1])], Ageing { step: STEP });
        let (mut waiting, mut granted): (Waiting, Vec<Grant>) = (vec![], vec![]);
        let mut told_before = 0;
        for op in ops {
            match op {
                Op::Claim { level, amounts, preempts } => {
                    let owner = arbitration::OwnerId::new(u64::from(preempts));
                    let spec = arbitration::ClaimSpec::new(owner, Priority::new(level));
                    let spec = spec.with(arbiter.resource("a").unwrap(), amounts[0]);
                    let spec = spec.with(arbiter.resource("b").unwrap(), amounts[1]);
                    let spec = if preempts { spec.preempting(NOTICE) } else { spec };
                    waiting.push((preempts, arbiter.claim(&spec)));
                }
                Op::Release(which) if !granted.is_empty() => {
                    drop(granted.swap_remove(which % granted.len()));
                }
                Op::Withdraw(which) if !waiting.is_empty() => {
                    drop(waiting.swap_remove(which % waiting.len()));
                }
                Op::Release(_) | Op::Withdraw(_) => {}
                Op::Advance(ms) => {
                    // At each deadline on the way, as who sleeps until it does.
                    let until = clock.now().after(Duration::from_millis(ms));
                    while let Some(next) = arbiter.next_deadline().filter(|next| *next <= until) {
                        clock.advance(next.since(clock.now()));
                        arbiter.revoke_due();
                        prop_assert!(!can_be_preempted(&arbiter.snapshot(), clock.now()));
                        prop_assert!(arbiter.next_deadline().is_none_or(|later| later > next));
                    }
                    clock.advance(until.since(clock.now()));
                }
            }
            for (preempts, mut claim) in std::mem::take(&mut waiting) {
                match poll(&mut claim) {
                    Poll::Ready(grant) => granted.push(grant.unwrap()),
                    Poll::Pending => waiting.push((preempts, claim)),
                }
            }
            granted.retain(Grant::is_valid);
            let snapshot = arbiter.snapshot();
            prop_assert!(!can_be_preempted(&snapshot, clock.now()), "{:#?}", snapshot);
            let told = snapshot.grants.iter().filter(|grant| grant.notice.is_some()).count();
            prop_assert!(told <= told_before || waiting.iter().any(|(preempts, _)| *preempts), "for somebody");
            told_before = told;
        }
        drop(waiting);
        drop(granted);
        let snapshot = arbiter.snapshot();
        prop_assert!(snapshot.resources.iter().all(|resource| resource.free == resource.capacity));
        prop_assert_eq!(arbiter.next_deadline(), None);
    }
}

#[test]
fn thousand_waiters_that_preempt_are_looked_at_together() {
    let (arbiter, _) = arbiter(&[("cores", 1_000)], Ageing { step: STEP });
    let held: Vec<Grant> = (0..1_000).map(|_| take(&arbiter, 9, 1)).collect();
    let mut waiting: Vec<Claiming> = (0..1_000).map(|_| urgent(&arbiter, 8, 1)).collect();
    assert!(held.iter().all(|grant| grant.notice().is_none()));
    let mut more = arbiter.claim(&spec(&arbiter, 10, &[("cores", 1_000)]).preempting(NOTICE));
    assert!(poll(&mut more).is_pending());
    assert!(held.iter().all(|grant| grant.notice().is_some()));
    drop(held);
    let all = poll(&mut more);
    assert!(all.is_ready());
    assert!(waiting.iter_mut().all(|claim| poll(claim).is_pending()));
}
