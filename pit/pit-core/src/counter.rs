//! Counters for statistics: many threads count, each in a cache line of its own; a snapshot adds the lines up.
//!
//! What is counted is not known here; the owner numbers its counters. Counting never blocks and never fails.

use std::{
    cell::Cell,
    fmt,
    sync::atomic::{AtomicUsize as StaticAtomicUsize, Ordering as StaticOrdering},
};

use crate::sync::atomic::{AtomicU64, Ordering};

/// LIMIT: copies of each counter. Threads beyond that share; 8 copies of 12 counters are one KiB, and at more threads
/// than that the counted work itself is spread over more sockets and pools.
const SHARDS: usize = if cfg!(loom) { 2 } else { 8 };

/// Two cache lines, because the prefetcher of x86-64 fetches lines in pairs.
#[repr(align(128))]
struct Shard<const N: usize>([AtomicU64; N]);

/// `N` counters that only grow, numbered by their owner.
///
/// Numbers are usually constants or the discriminants of an enum.
///
/// # Concurrency
/// `add` is one relaxed read-modify-write on a line that few threads share. A snapshot is not a cut through time: it
/// contains everything that happened before it (in the sense of the memory model) and perhaps something of what happens
/// meanwhile, so differences of two of its values must be taken saturating. No counter is ever seen to shrink.
///
/// ```
/// use pit_core::counter::Counters;
///
/// const CALLS: usize = 0;
/// const FAULTS: usize = 1;
/// let statistics = Counters::<2>::new();
/// statistics.add(CALLS, 3);
/// statistics.add(FAULTS, 1);
/// assert_eq!(statistics.snapshot(), [3, 1]);
/// ```
pub struct Counters<const N: usize> {
    shards: [Shard<N>; SHARDS],
}

impl<const N: usize> Counters<N> {
    /// All counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Shard(std::array::from_fn(|_| AtomicU64::new(0)))) }
    }

    /// Adds `amount` to counter `which`; wraps after 2^64.
    ///
    /// # Panics
    /// If `which` is not below `N`: the numbers are the owner's constants, never input.
    pub fn add(&self, which: usize, amount: u64) {
        self.add_in(shard_of_this_thread(), which, amount);
    }

    fn add_in(&self, shard: usize, which: usize, amount: u64) {
        // ORDERING(counter): Relaxed suffices: the sum is the only thing read, and no other data is published by it.
        self.shards[shard].0[which].fetch_add(amount, Ordering::Relaxed);
    }

    /// All counters, summed over the threads.
    #[must_use]
    pub fn snapshot(&self) -> [u64; N] {
        std::array::from_fn(|which| {
            let sum = |sum: u64, shard: &Shard<N>| {
                // ORDERING(counter): Relaxed suffices: each location only grows, so coherence alone keeps sums monotonic.
                sum.wrapping_add(shard.0[which].load(Ordering::Relaxed))
            };
            self.shards.iter().fold(0, sum)
        })
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Counters<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counters").field(&self.snapshot()).finish()
    }
}

/// Threads are dealt to shards in turn at their first count, for all counters alike.
fn shard_of_this_thread() -> usize {
    static NEXT: StaticAtomicUsize = StaticAtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // A thread that is ending has lost its thread-locals; any shard is right for it.
    SHARD
        .try_with(|shard| {
            if shard.get() == usize::MAX {
                // ORDERING(shard-deal): Relaxed suffices: only the number itself matters, and a repeated one does no harm.
                shard.set(NEXT.fetch_add(1, StaticOrdering::Relaxed) % SHARDS);
            }
            shard.get()
        })
        .unwrap_or(0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_are_in_the_snapshot() {
        let counters = Counters::<3>::new();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        counters.add(0, 1);
                        counters.add(2, 5);
                    }
                });
            }
        });
        let threads = 2 * SHARDS as u64;
        assert_eq!(counters.snapshot(), [threads * 1_000, 0, threads * 5_000]);
        assert_eq!(format!("{counters:?}"), "Counters([16000, 0, 80000])");
    }

    #[test]
    fn shards_do_not_share_cache_lines() {
        assert_eq!(align_of::<Shard<1>>(), 128);
        assert_eq!(size_of::<Counters<1>>(), 128 * SHARDS);
        assert_eq!(size_of::<Counters<16>>(), 128 * SHARDS);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::Arc;

    #[test]
    fn concurrent_counts_are_neither_lost_nor_seen_to_shrink() {
        loom::model(|| {
            let counters = Arc::new(Counters::<1>::new());
            // Both contend for one shard; the reader looks at an idle one besides.
            let adders = [(0, 1), (0, 10)].map(|(shard, amount)| {
                let counters = Arc::clone(&counters);
                loom::thread::spawn(move || counters.add_in(shard, 0, amount))
            });
            let [earlier] = counters.snapshot();
            let [later] = counters.snapshot();
            assert!(earlier <= later);
            for adder in adders {
                adder.join().unwrap();
            }
            assert_eq!(counters.snapshot(), [11]);
        });
    }
}
