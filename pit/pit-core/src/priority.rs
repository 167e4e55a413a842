//! Priorities, and the place in a queue that a priority and a time of waiting give: arithmetic on two numbers.
//!
//! There is no clock and no queue here, and no knowledge of what is waited for. Strict priority with ageing is a policy,
//! and this crate is to have none: the rank stands here because two queues compute the same one, and only as a pure
//! function. Whether a queue goes by it, and who may overtake whom, is for the queue's owner to decide; a queue that
//! wants another order (shares between owners) has no use for [`Ageing`], and brings its own.

use std::time::Duration;

use crate::clock::Tick;

/// How urgent something is; larger goes first. Each level is worth one step of [`Ageing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// After everything else.
    pub const LOWEST: Self = Self(0);
    /// For work that nobody gave a priority.
    pub const NORMAL: Self = Self(128);
    /// Before everything else.
    pub const HIGHEST: Self = Self(u8::MAX);

    /// Level 0 (last) to 255 (first).
    #[must_use]
    pub const fn new(level: u8) -> Self {
        Self(level)
    }

    /// Level 0 (last) to 255 (first).
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// Strict priority with ageing: who waits gains one level of priority in every step.
///
/// Of two who wait, the one a level higher goes first unless the other has waited for one step longer; so nobody waits
/// for ever behind more urgent ones. Within one priority the earlier goes first.
///
/// ```
/// use std::time::Duration;
/// use pit_core::{clock::Tick, priority::{Ageing, Priority}};
///
/// let ageing = Ageing { step: Duration::from_secs(1) };
/// let second = |seconds| Tick::ZERO.after(Duration::from_secs(seconds));
/// let waiting = ageing.rank(Priority::new(5), second(10));
/// assert!(ageing.rank(Priority::new(6), second(10)) < waiting, "the more urgent goes first");
/// assert!(waiting < ageing.rank(Priority::new(6), second(12)), "unless it came more than a step later");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ageing {
    /// Waiting so long is worth one level of priority. More than 2^55 ns (417 days) count as that, which is no ageing.
    pub step: Duration,
}

impl Default for Ageing {
    /// One level in 100 ms: from [`Priority::NORMAL`] to the highest in 12.7 s.
    fn default() -> Self {
        Self { step: Duration::from_millis(100) }
    }
}

/// LIMIT: so that ranks of all priorities stay apart within 64 bits.
const STEP_NS_MAX: u64 = 1 << 55;

/// Where somebody stands in a queue; the smaller goes first.
///
/// Everybody ages at the same pace, so who is ahead of whom never changes while both wait: a rank is computed once, and
/// nothing is sorted again when time passes. Ranks of different [`Ageing`]s must not be compared. Two who wait can have
/// the same rank; the queue's owner tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

impl Ageing {
    /// The rank of one who has waited since `since`: when one of the highest priority would have had to come to stand at
    /// the same place.
    #[must_use]
    pub fn rank(self, priority: Priority, since: Tick) -> Rank {
        let levels_below = u64::from(Priority::HIGHEST.level() - priority.level());
        Rank(since.as_nanos().saturating_add(levels_below * self.step_ns()))
    }

    /// What the priority of one who waits since `since` has become by `now`: a level more for each whole step, up to the
    /// highest.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pit_core::{clock::Tick, priority::{Ageing, Priority}};
    ///
    /// let ageing = Ageing { step: Duration::from_secs(10) };
    /// let (low, since) = (Priority::new(3), Tick::ZERO);
    /// let five = ageing.reaches(low, since, Priority::new(5));
    /// assert_eq!(five, since.after(Duration::from_secs(20)));
    /// assert_eq!(ageing.aged(low, since, five), Priority::new(5));
    /// assert_eq!(ageing.aged(low, since, Tick::from_nanos(five.as_nanos() - 1)), Priority::new(4));
    /// ```
    #[must_use]
    pub fn aged(self, priority: Priority, since: Tick, now: Tick) -> Priority {
        let waited_ns = now.as_nanos().saturating_sub(since.as_nanos());
        let steps = waited_ns.checked_div(self.step_ns()).unwrap_or(u64::MAX);
        let levels_above = u64::from(Priority::HIGHEST.level() - priority.level());
        let gained = u8::try_from(steps.min(levels_above)).unwrap_or(u8::MAX);
        Priority::new(priority.level().saturating_add(gained))
    }

    /// When one who waits since `since` has become as urgent as `target` by waiting: at once, if it was.
    #[must_use]
    pub fn reaches(self, priority: Priority, since: Tick, target: Priority) -> Tick {
        let levels = u64::from(target.level().saturating_sub(priority.level()));
        Tick::from_nanos(since.as_nanos().saturating_add(levels * self.step_ns()))
    }

    fn step_ns(self) -> u64 {
        u64::try_from(self.step.as_nanos()).unwrap_or(u64::MAX).min(STEP_NS_MAX)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn level_of_priority_is_worth_one_step_of_ageing() {
        let ageing = Ageing { step: Duration::from_secs(10) };
        let cases = [
            // (level, since) goes before (level, since)
            ((1, 0), (1, 1)),
            ((2, 9), (1, 0)),
            ((1, 0), (2, 11)),
            ((255, 2_549), (0, 0)),
            ((0, 0), (255, 2_551)),
        ];
        for ((level, since), (other_level, other_since)) in cases {
            let first = ageing.rank(Priority::new(level), at(since));
            let second = ageing.rank(Priority::new(other_level), at(other_since));
            assert!(first < second, "{level} since {since} before {other_level} since {other_since}");
        }
    }

    #[test]
    fn priority_grows_with_each_whole_step_up_to_the_highest() {
        let cases = [
            // step, level, waited, has become
            (10, 3, 0, 3),
            (10, 3, 9, 3),
            (10, 3, 10, 4),
            (10, 3, 2_519, 254),
            (10, 3, 1_000_000, 255),
            (0, 3, 0, 255),
            (u64::MAX, 3, 30_000_000, 3),
        ];
        for (step, level, waited, expected) in cases {
            let ageing = Ageing { step: Duration::from_secs(step) };
            let (priority, expected) = (Priority::new(level), Priority::new(expected));
            assert_eq!(ageing.aged(priority, at(7), at(7 + waited)), expected, "{level} after {waited}");
            assert!(ageing.reaches(priority, at(7), expected) <= at(7 + waited));
        }
    }

    #[test]
    fn endless_step_is_strict_priority() {
        let ageing = Ageing { step: Duration::MAX };
        for level in 1..=255 {
            let late_but_urgent = ageing.rank(Priority::new(level), at(30_000_000));
            assert!(late_but_urgent < ageing.rank(Priority::new(level - 1), at(0)), "level {level}");
        }
    }

    #[test]
    fn rank_at_the_end_of_time_does_not_wrap() {
        let ageing = Ageing { step: Duration::MAX };
        let last = ageing.rank(Priority::LOWEST, Tick::NEVER);
        assert_eq!(last, ageing.rank(Priority::HIGHEST, Tick::NEVER));
        assert!(ageing.rank(Priority::LOWEST, Tick::ZERO) < last);
    }
}
