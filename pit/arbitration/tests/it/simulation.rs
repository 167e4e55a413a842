//! Random histories, held against a slow and obvious reference that sorts and goes through everything anew each time.

use std::{task::Poll, time::Duration};

use arbitration::{Arbiter, Claiming, Grant};
use pit_core::priority::Ageing;
use proptest::prelude::*;

use crate::support::{arbiter, poll, spec};

const NAMES: [&str; 3] = ["a", "b", "c"];
const CAPACITIES: [u64; 3] = [5, 3, 1];
const STEP_MS: u64 = 10;

#[derive(Clone, Debug)]
enum Op {
    Claim {
        level: u8,
        amounts: [u64; 3],
    },
    Try {
        level: u8,
        amounts: [u64; 3],
    },
    /// Give back the grant, or withdraw the claim, at this place modulo the number of them.
    Release(usize),
    Withdraw(usize),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let amounts =
        || (0..=CAPACITIES[0], 0..=CAPACITIES[1], 0..=CAPACITIES[2]).prop_map(|(a, b, c)| [a, b, c]);
    prop_oneof![
        4 => (0..4_u8, amounts()).prop_map(|(level, amounts)| Op::Claim { level, amounts }),
        2 => (0..4_u8, amounts()).prop_map(|(level, amounts)| Op::Try { level, amounts }),
        4 => any::<usize>().prop_map(Op::Release),
        1 => any::<usize>().prop_map(Op::Withdraw),
        1 => (1..30_u64).prop_map(Op::Advance),
    ]
}

/// One claim, in both worlds: numbered in order of coming.
#[derive(Clone, Debug)]
struct Entry {
    number: usize,
    level: u8,
    since_ms: u64,
    amounts: [u64; 3],
}

#[derive(Default)]
struct Reference {
    now_ms: u64,
    waiting: Vec<Entry>,
    granted: Vec<Entry>,
}

impl Reference {
    fn free(&self) -> [i64; 3] {
        let mut free = CAPACITIES.map(|units| i64::try_from(units).unwrap());
        for entry in &self.granted {
            for (free, amount) in free.iter_mut().zip(entry.amounts) {
                *free -= i64::try_from(amount).unwrap();
            }
        }
        free
    }

    /// Ages everybody at this moment, sorts, and grants one at a time from the front, starting over after each.
    fn settle(&mut self) {
        loop {
            let now = self.now_ms;
            // What each has gained by waiting, in milliseconds: a level of priority is worth `STEP_MS` of them.
            let worth = |entry: &Entry| u64::from(entry.level) * STEP_MS + (now - entry.since_ms);
            self.waiting.sort_by_key(|entry| (std::cmp::Reverse(worth(entry)), entry.number));
            let mut kept = self.free();
            let next = self.waiting.iter().position(|entry| {
                let wanted = entry.amounts.map(|units| i64::try_from(units).unwrap());
                let fits = (0..3).all(|place| wanted[place] == 0 || wanted[place] <= kept[place]);
                (0..3).for_each(|place| kept[place] -= wanted[place]);
                fits
            });
            match next {
                Some(place) => {
                    let entry = self.waiting.remove(place);
                    self.granted.push(entry);
                }
                None => break,
            }
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
    /// Fetches what was granted, and compares.
    fn compare(&mut self) -> Result<(), TestCaseError> {
        let mut still_waiting = Vec::new();
        for (number, mut claim) in self.waiting.drain(..) {
            match poll(&mut claim) {
                Poll::Ready(grant) => self.granted.push((number, grant.unwrap())),
                Poll::Pending => still_waiting.push((number, claim)),
            }
        }
        self.waiting = still_waiting;
        let sorted = |mut numbers: Vec<usize>| {
            numbers.sort_unstable();
            numbers
        };
        let granted = sorted(self.granted.iter().map(|(number, _)| *number).collect());
        let expected = sorted(self.reference.granted.iter().map(|entry| entry.number).collect());
        prop_assert_eq!(granted, expected);
        let waiting = sorted(self.waiting.iter().map(|(number, _)| *number).collect());
        let expected = sorted(self.reference.waiting.iter().map(|entry| entry.number).collect());
        prop_assert_eq!(waiting, expected);

        let snapshot = self.arbiter.snapshot();
        for (place, free) in self.reference.free().into_iter().enumerate() {
            prop_assert!(free >= 0);
            prop_assert_eq!(i64::try_from(snapshot.resources[place].free).unwrap(), free);
        }
        let order: Vec<u8> = snapshot.waiters.iter().map(|waiter| waiter.priority.level()).collect();
        let expected: Vec<u8> = self.reference.waiting.iter().map(|entry| entry.level).collect();
        prop_assert_eq!(order, expected, "the queue is in the reference's order");
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
    fn arbiter_agrees_with_the_reference_and_serves_everybody(ops in prop::collection::vec(op(), 1..60)) {
        let resources: Vec<_> = NAMES.into_iter().zip(CAPACITIES).collect();
        let (arbiter, clock) = arbiter(&resources, Ageing { step: Duration::from_millis(STEP_MS) });
        let mut both = Both { reference: Reference::default(), arbiter, waiting: vec![], granted: vec![] };
        for (number, op) in ops.into_iter().enumerate() {
            match op {
                Op::Claim { level, amounts } => {
                    let amounts_by_name: Vec<_> = NAMES.into_iter().zip(amounts).collect();
                    let mut claim = both.arbiter.claim(&spec(&both.arbiter, level, &amounts_by_name));
                    match poll(&mut claim) {
                        Poll::Ready(grant) => both.granted.push((number, grant.unwrap())),
                        Poll::Pending => both.waiting.push((number, claim)),
                    }
                    let since_ms = both.reference.now_ms;
                    both.reference.waiting.push(Entry { number, level, since_ms, amounts });
                    both.reference.settle();
                }
                Op::Try { level, amounts } => {
                    let amounts_by_name: Vec<_> = NAMES.into_iter().zip(amounts).collect();
                    let grant = both.arbiter.try_claim(&spec(&both.arbiter, level, &amounts_by_name)).unwrap();
                    both.granted.extend(grant.map(|grant| (number, grant)));
                    let since_ms = both.reference.now_ms;
                    both.reference.waiting.push(Entry { number, level, since_ms, amounts });
                    both.reference.settle();
                    both.reference.waiting.retain(|entry| entry.number != number);
                }
                Op::Release(which) if !both.granted.is_empty() => {
                    let place = which % both.granted.len();
                    both.release(place);
                }
                Op::Withdraw(which) if !both.waiting.is_empty() => {
                    let place = which % both.waiting.len();
                    let (number, claim) = both.waiting.swap_remove(place);
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
        // Whoever still waits is served when the others are done.
        while !both.granted.is_empty() {
            both.release(0);
            both.compare()?;
        }
        prop_assert!(both.waiting.is_empty());
        prop_assert!(both.arbiter.snapshot().waiters.is_empty());
    }
}
