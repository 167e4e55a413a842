//! Many threads that claim and release: nobody is lost, nothing is granted twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use arbitration::{Arbiter, ClaimError, ClaimSpec, Options, OwnerId};
use pit_core::{
    clock::{SystemClock, Tick},
    priority::Priority,
};

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

#[test]
fn threads_that_take_one_thing_after_the_other_in_any_order_all_get_on() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 300;
    const THINGS: u64 = 3;
    // Nobody is so slow that it is revoked.
    let options = Options { wound_notice: Duration::from_secs(3_600), ..Options::default() };
    let clock = Arc::new(SystemClock::new());
    let arbiter = Arbiter::with_options([("a", 1), ("b", 1), ("c", 1)], options, clock).unwrap();
    let things = ["a", "b", "c"].map(|name| arbiter.resource(name).unwrap());
    let holders = [const { AtomicU64::new(0) }; 3];
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (arbiter, holders) = (&arbiter, &holders);
            scope.spawn(move || {
                let one = |place: u64| {
                    let thing = things[usize::try_from(place % THINGS).unwrap()];
                    ClaimSpec::new(OwnerId::new(number), Priority::NORMAL).with(thing, 1)
                };
                for round in 0..ROUNDS {
                    // Forwards or backwards: without wounds two that meet would wait for each other for ever.
                    let (first, step) =
                        (number + round, if (number + round / 3) % 2 == 0 { 1 } else { THINGS - 1 });
                    'again: loop {
                        let mut grant = arbiter.claim_wait(&one(first), Tick::NEVER).unwrap();
                        for more in 1..THINGS {
                            match grant.extend_wait(&one(first + more * step), Tick::NEVER) {
                                Ok(()) => {}
                                Err(ClaimError::Told(_)) => continue 'again,
                                Err(error) => panic!("{error}"),
                            }
                        }
                        holders
                            .iter()
                            .for_each(|holder| assert_eq!(holder.fetch_add(1, Ordering::SeqCst), 0));
                        holders
                            .iter()
                            .for_each(|holder| assert_eq!(holder.fetch_sub(1, Ordering::SeqCst), 1));
                        break;
                    }
                }
            });
        }
    });
    let snapshot = arbiter.snapshot();
    assert!(snapshot.grants.is_empty() && snapshot.waiters.is_empty() && arbiter.next_deadline().is_none());
    assert!(snapshot.resources.iter().all(|resource| resource.free == resource.capacity));
}
