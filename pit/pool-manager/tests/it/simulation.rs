//! Random histories, held against a slow and obvious reference: lists that are searched and sorted anew each time.

use std::{collections::BTreeSet, task::Poll, time::Duration};

use pit_core::clock::Clock;
use pit_core::priority::{Ageing, Priority};
use pool_manager::{
    AllocateError, Allocating, ErrorClass, Holder, Lease, ModelId, ModelSpec, PoolManager, Request,
};
use proptest::prelude::*;

use crate::support::{poll, pools};

const STEP_MS: u64 = 10;
const HOLDERS: usize = 3;
const REST_MS: u64 = 15;

#[derive(Clone, Debug)]
enum Op {
    Allocate {
        level: u8,
        holder: Option<usize>,
        waits: bool,
    },
    /// What lies at this place, modulo the number of them.
    GiveBack(usize),
    /// The lease's instance has failed, and rests.
    Fail(usize),
    /// The lease's instance ends; another one takes its place at once.
    EndInstance(usize),
    Leave(usize),
    /// So many instances, with so many leases of each.
    Redeclare(u32, u32),
    RetireHolder(usize),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let holder = || prop::option::of(0..HOLDERS);
    prop_oneof![
        6 => (0..4_u8, holder(), any::<bool>())
            .prop_map(|(level, holder, waits)| Op::Allocate { level, holder, waits }),
        5 => any::<usize>().prop_map(Op::GiveBack),
        2 => any::<usize>().prop_map(Op::Leave),
        1 => any::<usize>().prop_map(Op::Fail),
        1 => any::<usize>().prop_map(Op::EndInstance),
        1 => (1..4_u32, 1..3_u32).prop_map(|(instances, concurrency)| Op::Redeclare(instances, concurrency)),
        1 => (0..HOLDERS).prop_map(Op::RetireHolder),
        1 => (1..30_u64).prop_map(Op::Advance),
    ]
}

/// One lease or one who waits, numbered in order of coming. `holder` is the how-manieth life of which holder.
#[derive(Clone, Debug)]
struct Entry {
    number: usize,
    level: u8,
    since_ms: u64,
    holder: Option<(usize, u32)>,
    /// Known when the lease was looked at: which one it is, is not for the reference to say.
    instance: Option<u32>,
}

#[derive(Default)]
struct Reference {
    now_ms: u64,
    concurrency: usize,
    /// Until when each instance rests.
    rests_ms: Vec<u64>,
    /// Of the model as it is declared now, and of holders that live.
    leased: Vec<Entry>,
    waiting: Vec<Entry>,
}

impl Reference {
    fn of(instances: u32, concurrency: u32, now_ms: u64) -> Self {
        let rests_ms = vec![0; instances as usize];
        Self { now_ms, concurrency: concurrency as usize, rests_ms, ..Self::default() }
    }

    fn rests(&self, instance: u32) -> bool {
        self.rests_ms[instance as usize] > self.now_ms
    }

    /// Leases that can be had now.
    fn free(&self) -> usize {
        let awake = self.rests_ms.iter().filter(|until| **until <= self.now_ms).count();
        let held = |entry: &&Entry| entry.instance.is_none_or(|instance| !self.rests(instance));
        awake * self.concurrency - self.leased.iter().filter(held).count()
    }

    fn settle(&mut self) {
        while self.free() > 0 && !self.waiting.is_empty() {
            let now = self.now_ms;
            let worth = |entry: &Entry| u64::from(entry.level) * STEP_MS + (now - entry.since_ms);
            self.waiting.sort_by_key(|entry| (std::cmp::Reverse(worth(entry)), entry.number));
            let first = self.waiting.remove(0);
            self.leased.push(first);
        }
    }
}

struct Both {
    reference: Reference,
    pools: PoolManager,
    model: ModelId,
    waiting: Vec<(usize, Allocating)>,
    /// Those too that are worth nothing any more.
    leases: Vec<(usize, Lease)>,
}

impl Both {
    /// Fetches what was handed over or refused, and compares.
    fn compare(&mut self) -> Result<(), TestCaseError> {
        let mut still_waiting = Vec::new();
        for (number, mut allocating) in self.waiting.drain(..) {
            match poll(&mut allocating) {
                Poll::Ready(Ok(lease)) => self.leases.push((number, lease)),
                Poll::Ready(Err(AllocateError::ModelRetired(_) | AllocateError::HolderRetired(_))) => {}
                Poll::Ready(Err(other)) => return Err(TestCaseError::fail(other.to_string())),
                Poll::Pending => still_waiting.push((number, allocating)),
            }
        }
        self.waiting = still_waiting;
        let current = self.leases.iter().filter(|(_, lease)| lease.is_current());
        let numbers = |entries: &[Entry]| entries.iter().map(|entry| entry.number).collect::<BTreeSet<_>>();
        prop_assert_eq!(
            current.map(|(number, _)| *number).collect::<BTreeSet<_>>(),
            numbers(&self.reference.leased)
        );
        let waiting = self.waiting.iter().map(|(number, _)| *number).collect::<BTreeSet<_>>();
        prop_assert_eq!(waiting, numbers(&self.reference.waiting));
        let state = self.pools.state(self.model).unwrap();
        prop_assert_eq!(state.leased as usize, self.reference.leased.len());
        prop_assert_eq!(state.waiting as usize, self.reference.waiting.len());
        prop_assert_eq!(state.capacity as usize, self.reference.rests_ms.len() * self.reference.concurrency);
        let resting =
            (0..).zip(&self.reference.rests_ms).filter(|(index, _)| self.reference.rests(*index)).count();
        prop_assert_eq!(state.resting as usize, resting);
        for (number, lease) in self.leases.iter().filter(|(_, lease)| lease.is_current()) {
            let entry = self.reference.leased.iter_mut().find(|entry| entry.number == *number);
            let instance = lease.instance().index();
            prop_assert_eq!(*entry.unwrap().instance.get_or_insert(instance), instance);
        }
        for instance in 0..self.reference.rests_ms.len() {
            let held = |entry: &&Entry| entry.instance.is_some_and(|held| held as usize == instance);
            prop_assert!(self.reference.leased.iter().filter(held).count() <= self.reference.concurrency);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pools_agree_with_the_reference_and_serve_everybody(ops in prop::collection::vec(op(), 1..80)) {
        let (pools, clock) = pools(Ageing { step: Duration::from_millis(STEP_MS) });
        let spec = |instances, concurrency| {
            ModelSpec::new(instances)
                .with_concurrency(concurrency)
                .with_cool_down(ErrorClass::Overloaded, Duration::from_millis(REST_MS))
        };
        let model = pools.declare("m", spec(2, 1)).unwrap();
        let reference = Reference::of(2, 1, 0);
        let mut both = Both { reference, pools, model, waiting: vec![], leases: vec![] };
        let mut holders: Vec<_> = (0..HOLDERS).map(|_| (Holder::new("h"), 0)).collect();
        for (number, op) in ops.into_iter().enumerate() {
            let reference = &mut both.reference;
            match op {
                Op::Allocate { level, holder, waits } => {
                    let mut request = Request::new(both.model).with_priority(Priority::new(level));
                    if let Some(which) = holder {
                        request = request.held_by(&holders[which].0);
                    }
                    let holder = holder.map(|which| (which, holders[which].1));
                    let entry = Entry { number, level, since_ms: reference.now_ms, holder, instance: None };
                    if waits {
                        both.waiting.push((number, both.pools.allocate_async(request)));
                        reference.waiting.push(entry);
                        reference.settle();
                    } else if let Ok(lease) = both.pools.allocate(request) {
                        both.leases.push((number, lease));
                        reference.leased.push(entry);
                    } else {
                        prop_assert_eq!(reference.free(), 0);
                    }
                }
                Op::GiveBack(which) if !both.leases.is_empty() => {
                    let (number, lease) = both.leases.swap_remove(which % both.leases.len());
                    drop(lease);
                    reference.leased.retain(|entry| entry.number != number);
                    reference.settle();
                }
                Op::Leave(which) if !both.waiting.is_empty() => {
                    let (number, allocating) = both.waiting.swap_remove(which % both.waiting.len());
                    drop(allocating);
                    reference.waiting.retain(|entry| entry.number != number);
                }
                Op::Fail(which) if !both.leases.is_empty() => {
                    let (number, lease) = both.leases.swap_remove(which % both.leases.len());
                    let (is_current, instance) = (lease.is_current(), lease.instance().index());
                    lease.fail(ErrorClass::Overloaded);
                    reference.leased.retain(|entry| entry.number != number);
                    if is_current && !reference.rests(instance) {
                        reference.rests_ms[instance as usize] = reference.now_ms + REST_MS;
                    }
                    reference.settle();
                }
                Op::EndInstance(which) if !both.leases.is_empty() => {
                    let (_, lease) = &both.leases[which % both.leases.len()];
                    if lease.is_current() {
                        let instance = lease.instance();
                        prop_assert!(both.pools.end_instance(both.model, instance, ErrorClass::Faulty));
                        reference.leased.retain(|entry| entry.instance != Some(instance.index()));
                        reference.rests_ms[instance.index() as usize] = 0;
                        reference.settle();
                    }
                }
                Op::GiveBack(_) | Op::Leave(_) | Op::Fail(_) | Op::EndInstance(_) => {}
                Op::Redeclare(instances, concurrency) => {
                    both.model = both.pools.redeclare(both.model, spec(instances, concurrency)).unwrap();
                    *reference = Reference::of(instances, concurrency, reference.now_ms);
                }
                Op::RetireHolder(which) => {
                    let (holder, life) = &mut holders[which];
                    holder.retire();
                    let dead = Some((which, *life));
                    *holder = Holder::new("h");
                    *life += 1;
                    reference.leased.retain(|entry| entry.holder != dead);
                    reference.waiting.retain(|entry| entry.holder != dead);
                    reference.settle();
                }
                Op::Advance(ms) => {
                    clock.advance(Duration::from_millis(ms));
                    reference.now_ms += ms;
                    both.pools.turn(clock.now());
                    reference.settle();
                }
            }
            both.compare()?;
        }
        // Whoever still waits is served when the others are done and nothing rests any more.
        clock.advance(Duration::from_millis(REST_MS));
        both.reference.now_ms += REST_MS;
        both.pools.turn(clock.now());
        both.reference.settle();
        both.compare()?;
        while let Some((number, lease)) = both.leases.pop() {
            drop(lease);
            both.reference.leased.retain(|entry| entry.number != number);
            both.reference.settle();
            both.compare()?;
        }
        prop_assert!(both.waiting.is_empty());
    }
}
