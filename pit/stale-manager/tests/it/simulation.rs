//! Random histories, held against a slow and obvious reference: a touch counts as of the next sweep, and each sweep goes
//! through everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pit_core::clock::Tick;
use proptest::prelude::*;
use stale_manager::Budget;

use crate::support::{at, manager, register, sweep};

#[derive(Clone, Debug)]
enum Op {
    Register {
        ttl_ms: u64,
    },
    /// The thing at this place, modulo the number of them.
    Touch(usize),
    Cancel(usize),
    SetBusy(usize, bool),
    /// Time passes, then a sweep with such slices. Sweeps closer than 10 ms share a tick, so these are not.
    Sweep {
        after_ms: u64,
        looked_at_max: u32,
        asked_max: u32,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..300_u64).prop_map(|ttl_ms| Op::Register { ttl_ms }),
        5 => any::<usize>().prop_map(Op::Touch),
        2 => any::<usize>().prop_map(Op::Cancel),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, busy)| Op::SetBusy(which, busy)),
        4 => (10..120_u64, 1..2_000_u32, 1..5_u32)
            .prop_map(|(after_ms, looked_at_max, asked_max)| Op::Sweep { after_ms, looked_at_max, asked_max }),
    ]
}

#[derive(Debug)]
struct Thing {
    ttl_ms: u64,
    /// Its time to live is counted from here.
    since_ms: u64,
    is_touched: bool,
    is_evicted: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn manager_evicts_exactly_what_the_reference_does(ops in prop::collection::vec(op(), 1..60)) {
        let (stale, owner, id) = manager();
        // So that the things lie on both sides of the border between two blocks.
        const FILLER: usize = 1_020;
        for _ in 0..FILLER {
            stale.register(id, u64::MAX, Duration::MAX, Tick::ZERO).unwrap();
        }
        // Not 0: before all sweeps the tick is 1 ns, and a first sweep at 10 ms would be 1 ns too close to it, so that
        // a touch would count as of the second one. Late is allowed, but the reference knows nothing of it.
        let mut now_ms = 1;
        let mut handles = BTreeMap::new();
        let mut things: BTreeMap<u64, Thing> = BTreeMap::new();
        let mut busy = BTreeSet::new();
        for (key, op) in (0_u64..).zip(ops) {
            let pick = |which: usize| things.keys().nth(which % things.len().max(1)).copied();
            match op {
                Op::Register { ttl_ms } => {
                    handles.insert(key, register(&stale, id, key, ttl_ms, at(now_ms)));
                    let thing = Thing { ttl_ms, since_ms: now_ms, is_touched: false, is_evicted: false };
                    things.insert(key, thing);
                }
                Op::Touch(which) => {
                    if let Some(key) = pick(which) {
                        stale.touch(handles[&key]);
                        things.get_mut(&key).unwrap().is_touched = true;
                    }
                }
                Op::Cancel(which) => {
                    if let Some(key) = pick(which) {
                        stale.cancel(handles.remove(&key).unwrap());
                        things.remove(&key);
                    }
                }
                Op::SetBusy(which, is_busy) => {
                    if let Some(key) = pick(which) {
                        if is_busy { busy.insert(key) } else { busy.remove(&key) };
                        owner.busy.lock().unwrap().clone_from(&busy);
                    }
                }
                Op::Sweep { after_ms, looked_at_max, asked_max } => {
                    now_ms += after_ms;
                    let mut expected = (0, 0);
                    for (key, thing) in things.iter_mut().filter(|(_, thing)| !thing.is_evicted) {
                        if std::mem::take(&mut thing.is_touched) {
                            thing.since_ms = now_ms;
                        }
                        if thing.since_ms + thing.ttl_ms > now_ms {
                            continue;
                        }
                        if busy.contains(key) {
                            thing.since_ms = now_ms;
                            expected.1 += 1;
                        } else {
                            thing.is_evicted = true;
                            expected.0 += 1;
                        }
                    }
                    let swept = sweep(&stale, at(now_ms), Budget { looked_at_max, asked_max });
                    prop_assert_eq!(swept, expected);
                    let armed = things.values().filter(|thing| !thing.is_evicted);
                    let first = armed.map(|thing| at(thing.since_ms + thing.ttl_ms)).min();
                    let next = stale.next_deadline();
                    prop_assert!(next.is_none_or(|next| next > at(now_ms)), "nothing is left to do now");
                    prop_assert!(first.is_none_or(|first| next.is_some_and(|next| next <= first)));
                }
            }
            for (key, thing) in &things {
                prop_assert_eq!(stale.is_registered(handles[key]), !thing.is_evicted, "{} {:?}", key, thing);
            }
            prop_assert_eq!(stale.snapshot().registered, FILLER + things.values().filter(|thing| !thing.is_evicted).count());
        }
        let before = at(now_ms + 200);
        let mut soon: Vec<_> = stale.expiring(before, usize::MAX).into_iter().map(|thing| thing.key).collect();
        soon.sort_unstable();
        let of_reference = things.iter().filter(|(_, thing)| !thing.is_evicted);
        let of_reference = of_reference.filter(|(_, thing)| at(thing.since_ms + thing.ttl_ms) < before);
        prop_assert!(of_reference.map(|(key, _)| *key).all(|key| soon.contains(&key)));
        handles.into_values().for_each(|thing| stale.cancel(thing));
        sweep(&stale, at(now_ms + 10_000), Budget::default());
        prop_assert_eq!(stale.next_deadline(), None, "nothing to wake up for");
    }
}
