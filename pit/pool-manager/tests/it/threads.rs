//! Many threads at few leases: nobody is lost, the capacity holds, and the counts are right at the end.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use pit_core::{clock::Tick, priority::Priority};
use pool_manager::{AllocateError, Holder, PoolManager, Request};

use crate::support::counts;

#[test]
fn threads_that_wait_are_all_served_within_the_capacity() {
    const THREADS: u8 = 6;
    const ROUNDS: u32 = 3_000;
    for capacity in [1, 2, 4] {
        let pools = PoolManager::new();
        let model = pools.declare("m", capacity).unwrap();
        let used = AtomicU32::new(0);
        let served = AtomicU32::new(0);
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (pools, used, served) = (&pools, &used, &served);
                scope.spawn(move || {
                    let holder = Holder::new("thread");
                    for round in 0..ROUNDS {
                        let mut request = Request::new(model).with_priority(Priority::new(number));
                        if round % 2 == 0 {
                            request = request.held_by(&holder);
                        }
                        let lease = pools.allocate_wait(request, Tick::NEVER).unwrap();
                        assert!(used.fetch_add(1, Ordering::SeqCst) < capacity);
                        used.fetch_sub(1, Ordering::SeqCst);
                        drop(lease);
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(served.load(Ordering::SeqCst), u32::from(THREADS) * ROUNDS);
        assert_eq!(counts(&pools, model), (0, 0));
    }
}

#[test]
fn redeclaring_and_dying_under_load_leaves_the_counts_right() {
    const ROUNDS: u32 = 300;
    let pools = PoolManager::new();
    pools.declare("m", 2).unwrap();
    thread::scope(|scope| {
        let workers = [(); 3].map(|()| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let holder = Holder::new("worker");
                    for number in 0..5 {
                        let model = pools.find("m").unwrap();
                        match pools.allocate_wait(Request::new(model).held_by(&holder), Tick::NEVER) {
                            Ok(lease) if number == 3 => {
                                holder.retire();
                                drop(lease);
                            }
                            Ok(lease) => drop(lease),
                            Err(AllocateError::ModelRetired(_) | AllocateError::HolderRetired(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            })
        });
        while workers.iter().any(|worker| !worker.is_finished()) {
            let model = pools.find("m").unwrap();
            assert!(pools.state(model).unwrap().leased <= 2);
            pools.redeclare(model, 2).unwrap();
            thread::yield_now();
        }
    });
    let model = pools.find("m").unwrap();
    assert_eq!(counts(&pools, model), (0, 0));
}
