//! Threads register, touch and cancel while another sweeps: what is touched all the time is never evicted, what is not
//! is evicted once.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use stale_manager::Budget;

use crate::support::{Owner, at, manager, register};

#[test]
fn things_in_use_survive_sweeps_that_run_beside_them() {
    const TTL_MS: u64 = 100;
    const SWEEPS: u64 = 2_000;
    let ((stale, used, used_id), idle) = (manager(), Owner::new());
    let idle_id = stale.add_owner(&idle).unwrap();
    let now_ms = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let registered = AtomicU64::new(0);
    // Touched once before each sweep, so that no sweep may find it unused for its whole time.
    let always_used: Vec<_> = (0..64).map(|key| register(&stale, used_id, key, TTL_MS, at(0))).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut kept = Vec::new();
                let mut key = 0;
                while !is_over.load(Ordering::SeqCst) {
                    kept.push(register(&stale, idle_id, key, TTL_MS, at(now_ms.load(Ordering::SeqCst))));
                    registered.fetch_add(1, Ordering::SeqCst);
                    key += 1;
                    if kept.len() == 300 {
                        kept.drain(..200).for_each(|thing| stale.cancel(thing));
                    }
                    thread::yield_now();
                }
                kept.into_iter().for_each(|thing| stale.cancel(thing));
            });
        }
        for sweep in 1..=SWEEPS {
            always_used.iter().for_each(|thing| stale.touch(*thing));
            now_ms.store(sweep * 20, Ordering::SeqCst);
            while stale.sweep(at(sweep * 20), Budget { looked_at_max: 100, asked_max: 8 }).is_unfinished {}
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(used.take_asked().is_empty());
    assert_eq!(stale.snapshot().evicted, idle.take_asked().len() as u64);
    assert_eq!(stale.snapshot().registered, always_used.len());
    always_used.into_iter().for_each(|thing| stale.cancel(thing));
    assert_eq!(stale.snapshot().registered, 0);
}
