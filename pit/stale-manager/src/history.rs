//! When the last sweeps were, to say of a touch by when it happened at the latest. Pure.
//!
//! A touch carries the tick that stood when it was made: the moment of the sweep before it. The sweep after it is the
//! bound: whatever saw the older tick happened before the newer one stood.

use std::time::Duration;

use pit_core::clock::Tick;

/// LIMIT: ticks that are remembered. An older touch is taken for one of the oldest tick here: later than it was.
const TICKS_KEPT: usize = if cfg!(test) { 4 } else { 64 };

/// Slices of one pass share a tick when they follow each other faster than that.
pub(crate) const TICK_DISTANCE_MIN: Duration = Duration::from_millis(10);

/// The mark of a thing that was not touched since it was looked at.
pub(crate) const UNTOUCHED: u64 = 0;

/// The moments of the last sweeps, ascending.
pub(crate) struct History {
    /// INVARIANT: not empty, strictly ascending, none is [`UNTOUCHED`].
    ticks: Vec<u64>,
}

impl History {
    pub(crate) fn new() -> Self {
        // Before all sweeps. A clock may well begin at 0, so that 1 stands for it.
        Self { ticks: vec![1] }
    }

    /// The mark that a touch makes from now on.
    pub(crate) fn mark(&self) -> u64 {
        self.ticks.last().copied().unwrap_or(1)
    }

    /// Notes a sweep, unless the last tick was so recent that it serves as well.
    pub(crate) fn note(&mut self, now: Tick) {
        if now.since(Tick::from_nanos(self.mark())) < TICK_DISTANCE_MIN {
            return;
        }
        if self.ticks.len() == TICKS_KEPT {
            self.ticks.remove(0);
        }
        self.ticks.push(now.as_nanos());
    }

    /// The moment before which a touch that left `mark` has happened; `None` when it may have happened just now.
    pub(crate) fn latest(&self, mark: u64) -> Option<Tick> {
        let after = self.ticks.partition_point(|tick| *tick <= mark);
        self.ticks.get(after).copied().map(Tick::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touch_happened_before_the_tick_after_its_own() {
        let ms = |count: u64| Tick::from_nanos(count * 1_000_000);
        let mut history = History::new();
        assert_eq!((history.mark(), history.latest(1)), (1, None));
        history.note(ms(9));
        assert_eq!(history.mark(), 1, "too soon for a tick of its own");
        for at in [20, 25, 40, 60] {
            history.note(ms(at));
        }
        assert_eq!(history.mark(), ms(60).as_nanos());
        assert_eq!(history.latest(1), Some(ms(20)));
        assert_eq!(history.latest(ms(20).as_nanos()), Some(ms(40)));
        assert_eq!(history.latest(ms(40).as_nanos()), Some(ms(60)));
        assert_eq!(history.latest(ms(60).as_nanos()), None);
        history.note(ms(80));
        history.note(ms(70));
        assert_eq!(history.mark(), ms(80).as_nanos(), "time does not go back");
        history.note(ms(100));
        assert_eq!(history.latest(1), Some(ms(40)), "forgotten ticks make a touch later than it was");
    }
}
