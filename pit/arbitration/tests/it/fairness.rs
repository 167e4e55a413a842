//! Dominant-resource fairness: the classic example, random histories against a slow reference, and the fairness index.

use std::{sync::Arc, task::Poll, time::Duration};

use arbitration::{Arbiter, ClaimSpec, Claiming, Grant, Options, OwnerId, Policy};
use pit_core::{
    clock::{Clock, ManualClock},
    priority::{Ageing, Priority},
};
use proptest::prelude::*;

use crate::support::poll;

const STEP_MS: u64 = 10;
const PATIENCE_MS: u64 = 200;

fn fair(resources: &[(&'static str, u64)], policy: Policy) -> (Arbiter, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let options = Options { policy, ..Options::default() };
    let arbiter = Arbiter::with_options(resources.iter().copied(), options, clock.clone()).unwrap();
    (arbiter, clock)
}

fn by_share() -> Policy {
    let ageing = Ageing { step: Duration::from_millis(STEP_MS) };
    Policy::DominantShare { ageing, patience: Duration::from_millis(PATIENCE_MS) }
}

fn spec(arbiter: &Arbiter, owner: u64, level: u8, amounts: &[u64]) -> ClaimSpec {
    let spec = ClaimSpec::new(OwnerId::new(owner), Priority::new(level));
    let named = ["a", "b", "c"].into_iter().zip(amounts);
    named.fold(spec, |spec, (name, units)| spec.with(arbiter.resource(name).unwrap(), *units))
}

#[test]
fn dominant_shares_are_equalised_where_demands_differ() {
    // 9 cores and 18 GiB; one owner's tasks want (1, 4), the other's (3, 1): three and two of them, two thirds each.
    let (arbiter, _) = fair(&[("a", 9), ("b", 18)], by_share());
    let all = arbiter.try_claim(&spec(&arbiter, 9, 0, &[9, 18])).unwrap();
    let demands = [[1, 4], [3, 1]];
    let mut waiting: Vec<(u64, Claiming)> = (0..20)
        .map(|number| {
            (
                number % 2,
                arbiter.claim(&spec(&arbiter, number % 2, 0, &demands[usize::from(number % 2 == 1)])),
            )
        })
        .collect();
    assert!(waiting.iter_mut().all(|(_, claim)| poll(claim).is_pending()));
    drop(all);
    let mut counts = [0, 0];
    let mut held = Vec::new();
    for (owner, claim) in &mut waiting {
        if let Poll::Ready(grant) = poll(claim) {
            counts[usize::from(*owner == 1)] += 1;
            held.push(grant.unwrap());
        }
    }
    assert_eq!(counts, [3, 2]);
    let mut shares = arbiter.snapshot().shares;
    shares.sort_by_key(|(owner, _)| *owner);
    assert_eq!(shares.iter().map(|(owner, _)| owner.get()).collect::<Vec<_>>(), [0, 1]);
    assert!(shares.iter().all(|(_, share)| (share - 2.0 / 3.0).abs() < 1e-9), "{shares:?}");
}

#[test]
fn owner_that_is_granted_something_moves_back_at_once_with_all_its_claims() {
    let (arbiter, _) = fair(&[("a", 5), ("b", 3)], by_share());
    let mut hold = [(8, [2, 0]), (9, [0, 3])]
        .map(|(owner, units)| arbiter.try_claim(&spec(&arbiter, owner, 0, &units)).unwrap());
    let claims = [(0, [5, 0]), (0, [0, 3]), (1, [2, 0])];
    let mut claims = claims.map(|(owner, units)| arbiter.claim(&spec(&arbiter, owner, 0, &units)));
    assert!(
        claims.iter_mut().all(|claim| poll(claim).is_pending()),
        "the first keeps the units that are free"
    );
    drop(hold[1].take());
    assert_eq!(claims.each_mut().map(|claim| poll(claim).is_ready()), [false, true, true]);
}

#[test]
fn extension_counts_as_a_share_as_long_as_it_is_held() {
    let (arbiter, _) = fair(&[("a", 8), ("b", 4)], by_share());
    let share =
        || arbiter.snapshot().shares.iter().find(|(owner, _)| owner.get() == 0).map(|(_, share)| *share);
    let mut grant = arbiter.try_claim(&spec(&arbiter, 0, 0, &[1, 0])).unwrap().unwrap();
    assert!(grant.try_extend(&spec(&arbiter, 7, 0, &[1, 1])).unwrap());
    assert_eq!(share(), Some(0.25), "two of eight, one of four");
    let other = arbiter.try_claim(&spec(&arbiter, 1, 0, &[6, 0])).unwrap();
    let more = spec(&arbiter, 0, 0, &[4, 0]);
    let mut extending = grant.extend(&more);
    assert!(poll(&mut extending).is_pending());
    drop(other);
    assert_eq!(share(), Some(0.75));
    drop(extending);
    assert_eq!(share(), Some(0.25), "it was never fetched");
    drop(grant);
    assert_eq!(share(), None);
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const CAPACITIES: [u64; 3] = [5, 3, 2];

#[derive(Clone, Debug)]
enum Op {
    Claim { owner: u64, level: u8, amounts: [u64; 3], is_try: bool },
    Release(usize),
    Withdraw(usize),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let amounts = (0..=CAPACITIES[0], 0..=CAPACITIES[1], 0..=CAPACITIES[2]).prop_map(|(a, b, c)| [a, b, c]);
    prop_oneof![
        6 => (0..4_u64, 0..3_u8, amounts, prop::bool::weighted(0.3))
            .prop_map(|(owner, level, amounts, is_try)| Op::Claim { owner, level, amounts, is_try }),
        4 => any::<usize>().prop_map(Op::Release),
        1 => any::<usize>().prop_map(Op::Withdraw),
        1 => (1..60_u64).prop_map(Op::Advance),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: usize,
    owner: u64,
    level: u8,
    since_ms: u64,
    amounts: [u64; 3],
}

/// Everything is computed anew at every step.
#[derive(Default)]
struct Reference {
    now_ms: u64,
    waiting: Vec<Entry>,
    granted: Vec<Entry>,
}

impl Reference {
    fn share(&self, owner: u64) -> f64 {
        let of_place = |place: usize| {
            let held = self.granted.iter().filter(|entry| entry.owner == owner);
            let units: u64 = held.map(|entry| entry.amounts[place]).sum();
            units as f64 * (1.0 / CAPACITIES[place] as f64)
        };
        (0..3).map(of_place).fold(0.0, f64::max)
    }

    /// The next of those that were not looked at: each owner's first by rank, of these the one with the smallest key.
    fn next(&self, looked_at: &[usize]) -> Option<Entry> {
        let unseen = || self.waiting.iter().filter(|entry| !looked_at.contains(&entry.number));
        let rank = |entry: &Entry| (entry.since_ms + (255 - u64::from(entry.level)) * STEP_MS, entry.number);
        let firsts = unseen().filter(|entry| {
            unseen().filter(|other| other.owner == entry.owner).all(|other| rank(entry) <= rank(other))
        });
        let key = |entry: &Entry| {
            let since = Duration::from_millis(entry.since_ms);
            let bonus = Duration::from_secs_f64(PATIENCE_MS as f64 / 1e3 * self.share(entry.owner));
            (since + bonus, entry.number)
        };
        firsts.min_by_key(|entry| key(entry)).copied()
    }

    /// One pass in order, which grants what it can, or nothing but `only`. True when something was granted.
    fn pass(&mut self, only: Option<usize>) -> bool {
        let mut left = CAPACITIES;
        for entry in &self.granted {
            (0..3).for_each(|place| left[place] -= entry.amounts[place]);
        }
        let (mut looked_at, mut has_granted) = (Vec::new(), false);
        while let Some(entry) = self.next(&looked_at) {
            looked_at.push(entry.number);
            let fits = (0..3).all(|place| entry.amounts[place] <= left[place]);
            (0..3).for_each(|place| left[place] = left[place].saturating_sub(entry.amounts[place]));
            if fits && only.is_none_or(|only| only == entry.number) {
                self.waiting.retain(|other| other.number != entry.number);
                self.granted.push(entry);
                has_granted = true;
            }
        }
        has_granted
    }

    fn settle(&mut self) {
        while self.pass(None) {}
    }

    fn claim(&mut self, entry: Entry, is_try: bool) {
        self.waiting.push(entry);
        self.pass(Some(entry.number));
        let is_waiting = self.waiting.iter().any(|other| other.number == entry.number);
        if is_waiting && is_try {
            self.waiting.retain(|other| other.number != entry.number);
        } else {
            self.settle();
        }
    }
}

struct Both {
    reference: Reference,
    arbiter: Arbiter,
    waiting: Vec<(usize, Claiming)>,
    granted: Vec<(usize, Grant)>,
}

impl Both {
    fn compare(&mut self) -> Result<(), TestCaseError> {
        for (number, mut claim) in std::mem::take(&mut self.waiting) {
            match poll(&mut claim) {
                Poll::Ready(grant) => self.granted.push((number, grant.unwrap())),
                Poll::Pending => self.waiting.push((number, claim)),
            }
        }
        let sorted = |mut numbers: Vec<usize>| {
            numbers.sort_unstable();
            numbers
        };
        let granted = sorted(self.granted.iter().map(|(number, _)| *number).collect());
        let expected = sorted(self.reference.granted.iter().map(|entry| entry.number).collect());
        prop_assert_eq!(granted, expected);
        let snapshot = self.arbiter.snapshot();
        for (owner, share) in &snapshot.shares {
            prop_assert!((share - self.reference.share(owner.get())).abs() < 1e-9);
        }
        let (mut order, mut looked_at) = (Vec::new(), Vec::new());
        while let Some(entry) = self.reference.next(&looked_at) {
            looked_at.push(entry.number);
            order.push((entry.owner, entry.level));
        }
        let of_arbiter: Vec<_> =
            snapshot.waiters.iter().map(|waiter| (waiter.owner.get(), waiter.priority.level())).collect();
        prop_assert_eq!(of_arbiter, order, "the queue is in the reference's order");
        Ok(())
    }

    fn release(&mut self, place: usize) {
        let (number, grant) = self.granted.swap_remove(place);
        drop(grant);
        self.reference.granted.retain(|entry| entry.number != number);
        self.reference.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbiter_agrees_with_the_reference_under_fairness(ops in prop::collection::vec(op(), 1..60)) {
        let resources: Vec<_> = NAMES.into_iter().zip(CAPACITIES).collect();
        let (arbiter, clock) = fair(&resources, by_share());
        let mut both = Both { reference: Reference::default(), arbiter, waiting: vec![], granted: vec![] };
        for (number, op) in ops.into_iter().enumerate() {
            match op {
                Op::Claim { owner, level, amounts, is_try } => {
                    let spec = spec(&both.arbiter, owner, level, &amounts);
                    if is_try {
                        let grant = both.arbiter.try_claim(&spec).unwrap();
                        both.granted.extend(grant.map(|grant| (number, grant)));
                    } else {
                        let mut claim = both.arbiter.claim(&spec);
                        match poll(&mut claim) {
                            Poll::Ready(grant) => both.granted.push((number, grant.unwrap())),
                            Poll::Pending => both.waiting.push((number, claim)),
                        }
                    }
                    let since_ms = both.reference.now_ms;
                    both.reference.claim(Entry { number, owner, level, since_ms, amounts }, is_try);
                }
                Op::Release(which) if !both.granted.is_empty() => both.release(which % both.granted.len()),
                Op::Withdraw(which) if !both.waiting.is_empty() => {
                    let (number, claim) = both.waiting.swap_remove(which % both.waiting.len());
                    drop(claim);
                    both.reference.waiting.retain(|entry| entry.number != number);
                    both.reference.settle();
                }
                Op::Release(_) | Op::Withdraw(_) => {}
                Op::Advance(ms) => {
                    clock.advance(Duration::from_millis(ms));
                    both.reference.now_ms += ms;
                }
            }
            both.compare()?;
        }
        while !both.granted.is_empty() {
            both.release(0);
            both.compare()?;
        }
        prop_assert!(both.waiting.is_empty() && both.arbiter.snapshot().shares.is_empty());
    }
}

/// Jain's index of what the owners held on average: 1 when all held the same, 1 / owners when one held everything.
fn fairness_index(policy: Policy) -> f64 {
    // Equal demands, but the first owner asks with six times as many claims at once.
    const CLAIMS: [usize; 4] = [24, 4, 4, 4];
    let (arbiter, clock) = fair(&[("a", 12), ("b", 6)], policy);
    let mut held = [0_u64; CLAIMS.len()];
    type Slot = (usize, Claiming, Option<(Grant, u64)>);
    let mut slots: Vec<Slot> = Vec::new();
    for (owner, count) in CLAIMS.into_iter().enumerate() {
        slots.extend(
            (0..count).map(|_| (owner, arbiter.claim(&spec(&arbiter, owner as u64, 5, &[2, 1])), None)),
        );
    }
    let mut seed = 7_u64;
    for now_ms in 0..20_000_u64 {
        clock.advance(Duration::from_millis(1));
        for (owner, claim, granted) in &mut slots {
            if granted.as_ref().is_some_and(|(_, until)| *until <= now_ms) {
                *granted = None;
                *claim = arbiter.claim(&spec(&arbiter, *owner as u64, 5, &[2, 1]));
            }
            if granted.is_none()
                && let Poll::Ready(grant) = poll(claim)
            {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *granted = Some((grant.unwrap(), now_ms + 5 + (seed >> 33) % 20));
            }
            held[*owner] += u64::from(granted.is_some());
        }
    }
    let (sum, squares) = held.iter().fold((0.0, 0.0), |(sum, squares), held| {
        let held = *held as f64;
        (sum + held, squares + held * held)
    });
    assert!(clock.now().as_nanos() > 0);
    sum * sum / (held.len() as f64 * squares)
}

#[test]
fn owners_with_equal_demands_get_equal_shares_however_many_claims_they_make() {
    let index = fairness_index(Policy::dominant_share());
    assert!(index >= 0.95, "{index}");
    let unfair = fairness_index(Policy::default());
    assert!(unfair < 0.7, "the measure tells the policies apart: {unfair}");
}
