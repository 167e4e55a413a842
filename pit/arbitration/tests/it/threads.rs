//! Many threads that claim and release: nobody is lost, nothing is granted twice.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use arbitration::{Arbiter, ClaimSpec, OwnerId};
use pit_core::{clock::Tick, priority::Priority};

#[test]
fn threads_never_hold_more_than_there_is_and_all_are_served() {
    const THREADS: u64 = 6;
    const ROUNDS: u64 = 2_000;
    let capacities = [3_u64, 2];
    let arbiter = Arbiter::new([("a", capacities[0]), ("b", capacities[1])]).unwrap();
    let resources = [arbiter.resource("a").unwrap(), arbiter.resource("b").unwrap()];
    let used = [AtomicU64::new(0), AtomicU64::new(0)];
    let served = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (arbiter, used, served) = (&arbiter, &used, &served);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let amounts = [(number + round) % (capacities[0] + 1), round % (capacities[1] + 1)];
                    let priority = Priority::new(u8::try_from(number).unwrap());
                    let spec = ClaimSpec::new(OwnerId::new(number), priority)
                        .with(resources[0], amounts[0])
                        .with(resources[1], amounts[1]);
                    let grant = arbiter.claim_wait(&spec, Tick::NEVER).unwrap();
                    for place in 0..2 {
                        let before = used[place].fetch_add(amounts[place], Ordering::SeqCst);
                        assert!(before + amounts[place] <= capacities[place]);
                    }
                    for place in 0..2 {
                        used[place].fetch_sub(amounts[place], Ordering::SeqCst);
                    }
                    drop(grant);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(served.load(Ordering::SeqCst), THREADS * ROUNDS);
    let snapshot = arbiter.snapshot();
    assert!(snapshot.grants.is_empty() && snapshot.waiters.is_empty());
    assert!(snapshot.resources.iter().all(|resource| resource.free == resource.capacity));
}
