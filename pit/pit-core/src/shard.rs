//! Keeping threads out of each other's cache lines: padding, a number for each thread, and counters in shards.
//!
//! It must not know what is counted. Numbers of threads only spread work; nothing may depend on who has which.

use std::cell::Cell;

use crate::sync::atomic::{AtomicU64, Ordering};

/// A value with two cache lines to itself; the prefetcher of x86-64 fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

#[cfg(not(loom))]
static THREADS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);

thread_local! {
    /// 0 stands for "none yet", so that reading it needs no check of an initialiser.
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

/// The present thread's place among `places` (at least 1): always the same until it [moves](move_home), and for
/// threads that follow each other different ones as far as there are enough.
#[inline]
#[must_use]
pub fn home(places: u32) -> u32 {
    let number = NUMBER.get();
    let number = if number == 0 { number_thread() } else { number };
    // Multiples of the golden ratio fall furthest from each other in whatever range they are scaled to.
    let spread = number.wrapping_mul(0x9E37_79B9);
    // The upper half of a product of 32-bit numbers fits 32 bits.
    u32::try_from((u64::from(spread) * u64::from(places)) >> 32).unwrap_or(0)
}

/// Gives the present thread another home, because it met somebody in its own.
#[cold]
pub fn move_home() {
    number_thread();
}

#[cold]
#[cfg(not(loom))]
fn number_thread() -> u32 {
    // ORDERING(thread-number): Relaxed suffices: only the spread of the numbers matters.
    let number = THREADS.fetch_add(1, std::sync::atomic::Ordering::Relaxed).max(1);
    NUMBER.set(number);
    number
}

/// In a model run all threads are at home in the same place: the run must be the same each time, and they shall meet.
#[cfg(loom)]
fn number_thread() -> u32 {
    1
}

const SHARDS: u32 = 8;

/// `N` counters that many threads add to without meeting; reading them costs a look at each shard.
///
/// ```
/// use pit_core::shard::Counters;
///
/// let counters = Counters::<2>::new();
/// counters.add(0, 1);
/// counters.add(1, 40);
/// counters.add(1, 2);
/// assert_eq!(counters.snapshot(), [1, 42]);
/// ```
#[derive(Debug)]
pub struct Counters<const N: usize> {
    shards: Box<[Padded<[AtomicU64; N]>]>,
}

impl<const N: usize> Counters<N> {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        let zeros = || Padded(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { shards: (0..SHARDS).map(|_| zeros()).collect() }
    }

    /// Adds to counter `which`, which is less than `N`.
    #[inline]
    pub fn add(&self, which: usize, by: u64) {
        // ORDERING(counters): Relaxed suffices here and in `snapshot`: numbers for people, no data is published by them.
        self.shards[home(SHARDS) as usize].0[which].fetch_add(by, Ordering::Relaxed);
    }

    /// All counters. Each is at least what it was when this began; together they are no cut through time.
    #[must_use]
    pub fn snapshot(&self) -> [u64; N] {
        // ORDERING(counters): Relaxed suffices, as in `add`.
        let sum = |which: usize| self.shards.iter().map(|shard| shard.0[which].load(Ordering::Relaxed)).sum();
        std::array::from_fn(sum)
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{collections::BTreeSet, thread};

    use super::*;

    #[test]
    fn nothing_that_threads_add_is_lost() {
        let counters = Counters::<2>::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|number| counters.add(number % 2, 1)));
            }
        });
        assert_eq!(counters.snapshot(), [20_000, 20_000]);
        assert!(align_of::<Padded<u8>>() == 128 && size_of::<Padded<[u64; 2]>>() == 128);
    }

    #[test]
    fn home_is_within_its_range_and_moving_reaches_every_place() {
        for places in [1, 2, 3, 8, 1_000] {
            let first = home(places);
            assert_eq!(home(places), first, "it stays");
            let mut seen = BTreeSet::new();
            for _ in 0..places * 20 {
                seen.insert(home(places));
                move_home();
            }
            assert!(seen.iter().all(|place| *place < places));
            assert_eq!(u32::try_from(seen.len()), Ok(places));
        }
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::Arc;

    #[test]
    fn counters_of_two_threads_add_up() {
        loom::model(|| {
            let counters = Arc::new(Counters::<1>::new());
            let other = {
                let counters = Arc::clone(&counters);
                loom::thread::spawn(move || counters.add(0, 2))
            };
            counters.add(0, 3);
            assert!([3, 5].contains(&counters.snapshot()[0]));
            other.join().unwrap();
            assert_eq!(counters.snapshot(), [5]);
        });
    }
}
