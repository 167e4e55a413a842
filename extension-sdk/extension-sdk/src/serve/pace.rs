//! Whether a method has proven fast: a moving average of how long its calls took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A method is fast whose calls take at most this long on average: as much as a hand-over costs. In tests it is
/// so long that a method is fast on a busy machine, too.
const FAST_AVERAGE_MAX: Duration =
    if cfg!(test) { Duration::from_millis(5) } else { Duration::from_micros(50) };

/// Calls that must be known before a method can be fast.
const CALLS_KNOWN_MIN: u64 = 8;

/// What a call counts that kept the reading role until it was passed on, before it is known how long it takes in
/// the end: enough that its method is not fast meanwhile. Decays below [`FAST_AVERAGE_MAX`] after some twelve
/// fast calls.
pub(super) const STUCK: Duration = if cfg!(test) { COUNTED_MAX } else { Duration::from_millis(2) };

/// LIMIT: the longest time that one call counts, so that one slow call is forgotten again.
const COUNTED_MAX: Duration = Duration::from_millis(50);

/// How long the calls of one method took lately: an average in nanoseconds in the upper bits, how many calls it
/// is of (as far as that matters) in the lowest four.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    pub(crate) fn is_fast(&self) -> bool {
        // ORDERING(pace): Relaxed, an estimate that guards no other data.
        decide_is_fast(self.0.load(Ordering::Relaxed))
    }

    /// Counts one call. Two at once may lose one of them: it is an estimate.
    pub(crate) fn record(&self, took: Duration) {
        // ORDERING(pace): Relaxed, as in `is_fast`.
        let word = self.0.load(Ordering::Relaxed);
        self.0.store(decide_next(word, took), Ordering::Relaxed);
    }
}

fn decide_is_fast(word: u64) -> bool {
    word & 0xf >= CALLS_KNOWN_MIN && u128::from(word >> 4) <= FAST_AVERAGE_MAX.as_nanos()
}

fn decide_next(word: u64, took: Duration) -> u64 {
    let (average, known) = (word >> 4, word & 0xf);
    // INVARIANT: COUNTED_MAX in nanoseconds fits.
    let took = u64::try_from(took.min(COUNTED_MAX).as_nanos()).unwrap_or(u64::MAX >> 4);
    let average = if known == 0 { took } else { (average * 7 + took) / 8 };
    (average << 4) | (known + 1).min(CALLS_KNOWN_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = FAST_AVERAGE_MAX.checked_div(10).unwrap();

    fn calls_until_fast(pace: &Pace) -> usize {
        let slow = std::iter::from_fn(|| {
            pace.record(FAST);
            (!pace.is_fast()).then_some(())
        });
        slow.take(1000).count()
    }

    #[test]
    fn a_method_is_fast_after_some_fast_calls_and_slow_after_a_slow_one() {
        let pace = Pace::default();
        assert!(!pace.is_fast());
        assert_eq!(calls_until_fast(&pace) as u64, CALLS_KNOWN_MIN - 1);
        pace.record(FAST_AVERAGE_MAX * 10);
        assert!(!pace.is_fast());
        assert!((1..20).contains(&calls_until_fast(&pace)));
    }

    #[test]
    fn a_stuck_call_is_forgotten_after_a_while() {
        let pace = Pace::default();
        calls_until_fast(&pace);
        pace.record(STUCK * 4);
        assert!(!pace.is_fast());
        assert!(calls_until_fast(&pace) < 100);
        // One that lasted for ever counts no more than a limit.
        pace.record(Duration::MAX);
        assert!(calls_until_fast(&pace) < 100);
    }
}
