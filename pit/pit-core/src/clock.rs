//! Monotonic time as a number, from a clock that tests can move by hand.
//!
//! Decisions about time take a [`Tick`] as an argument; only the edges ask a [`Clock`]. Nothing here knows calendar time,
//! sleeps, or wakes anybody.

use std::{
    fmt,
    // Not from the facade: the hand-moved clock is a tool of tests, and a model has no interest in its interleavings.
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A moment on a [`Clock`]: nanoseconds since that clock's origin.
///
/// Ticks of different clocks must not be compared. 64 bits of nanoseconds last for 584 years.
///
/// ```
/// use std::time::Duration;
/// use pit_core::clock::Tick;
///
/// let start = Tick::from_nanos(1_000);
/// let deadline = start.after(Duration::from_micros(2));
/// assert_eq!(deadline.as_nanos(), 3_000);
/// assert_eq!(deadline.since(start), Duration::from_nanos(2_000));
/// assert_eq!(start.since(deadline), Duration::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);
    /// Later than anything that happens: "no deadline".
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This moment plus `duration`; [`Tick::NEVER`] when that is out of range.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NEVER => f.write_str("never"),
            Self(nanos) => write!(f, "{:?}", Duration::from_nanos(nanos)),
        }
    }
}

/// A source of monotonic time.
///
/// # Concurrency
/// `now` may be called from any thread; what one thread has read, no thread reads earlier values than afterwards.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Tick;
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Tick {
        (**self).now()
    }
}

/// The system's monotonic clock; its origin is the moment of its creation.
///
/// Reading it costs 20 to 25 ns, so hot paths read it once and pass the tick on.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        Tick::ZERO.after(self.origin.elapsed())
    }
}

/// A clock that stands still until it is moved; for tests and simulations.
///
/// ```
/// use std::time::Duration;
/// use pit_core::clock::{Clock, ManualClock, Tick};
///
/// let clock = ManualClock::new();
/// assert_eq!(clock.now(), Tick::ZERO);
/// clock.advance(Duration::from_secs(3));
/// assert_eq!(clock.now().as_nanos(), 3_000_000_000);
/// ```
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at [`Tick::ZERO`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward, at most to [`Tick::NEVER`].
    pub fn advance(&self, by: Duration) {
        let forward = |nanos| Some(Tick(nanos).after(by).0);
        // ORDERING(manual-clock): AcqRel on success, so that who reads the new time also sees what the mover did before;
        // Acquire on failure, because the value read is the base of the next attempt.
        let moved = self.nanos.fetch_update(Ordering::AcqRel, Ordering::Acquire, forward);
        debug_assert!(moved.is_ok(), "the update never refuses");
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tick {
        // ORDERING(manual-clock): Acquire, pairs with the Release half in `advance`.
        Tick(self.nanos.load(Ordering::Acquire))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn deadline_out_of_range_is_never() {
        assert_eq!(Tick::from_nanos(5).after(Duration::MAX), Tick::NEVER);
        assert_eq!(Tick::NEVER.after(Duration::from_nanos(1)), Tick::NEVER);
        assert_eq!(format!("{:?}", Tick::NEVER), "never");
    }

    #[test]
    fn system_clock_does_not_go_back() {
        let clock = SystemClock::new();
        let mut before = clock.now();
        for _ in 0..1_000 {
            let now = clock.now();
            assert!(now >= before);
            before = now;
        }
    }

    #[test]
    fn manual_clock_moves_for_all_its_holders() {
        let clock = std::sync::Arc::new(ManualClock::new());
        let seen: std::sync::Arc<dyn Clock> = clock.clone();
        clock.advance(Duration::from_millis(2));
        clock.advance(Duration::from_millis(3));
        assert_eq!(seen.now().since(Tick::ZERO), Duration::from_millis(5));
        clock.advance(Duration::MAX);
        assert_eq!(seen.now(), Tick::NEVER);
    }
}
