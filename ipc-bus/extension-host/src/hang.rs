//! Whether an instance hangs: a pure decision over what is seen of it from time to time.
//!
//! Busy is not hung. A call may take as long as its deadline allows, and nobody judges it before. Two things show
//! a hang:
//!
//! - **An answer that is owed.** A call was cancelled, or its deadline passed; the extension was told, and has
//!   still not answered after [`HangLimits::unanswered`]. Its place among the calls in flight is lost until then.
//! - **Silence.** The extension has sent a heartbeat before, owes an answer, and then nothing at all came from it
//!   for [`HangLimits::silent`]. Heartbeats come from a thread of their own, so that no handler delays them. An
//!   extension that never sent one is not judged by this.
//!
//! ```text
//! look --> owes an answer that nobody wants? --for `unanswered`--> Hang (silent all the while, or not)
//!     \--> has a heart, owes an answer, said nothing? --for `silent`--> Hang (silent)
//! ```
//!
//! Time in which this process itself did not run (stopped, or starved) counts for no more than two looks, so that
//! what came meanwhile is read first. It must not know connections or timers.

use std::time::{Duration, Instant};

use ipc_protocol::limits::HEARTBEAT_INTERVAL_MS;

/// How often an instance is looked at within the shorter of its limits.
const LOOKS_PER_LIMIT: u32 = 4;

/// How long an instance may be as if it hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HangLimits {
    /// From the cancel of a call, which also comes when its deadline passes, until its answer.
    pub unanswered: Duration,
    /// Without a word, from an instance that has sent a heartbeat and owes an answer.
    pub silent: Duration,
}

impl Default for HangLimits {
    /// 10 s for an answer that nobody wants, and four heartbeats for silence.
    fn default() -> Self {
        Self {
            unanswered: Duration::from_secs(10),
            silent: 4 * Duration::from_millis(HEARTBEAT_INTERVAL_MS.into()),
        }
    }
}

impl HangLimits {
    /// The time from one look to the next.
    pub(crate) fn look_every(&self) -> Duration {
        (self.unanswered.min(self.silent) / LOOKS_PER_LIMIT).max(Duration::from_millis(1))
    }
}

/// What is seen of an instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Since when nobody has waited for the oldest answer that it owes.
    pub(crate) oldest_unanswered: Option<Instant>,
    /// Whether it owes any answer.
    pub(crate) owes: bool,
    /// Bytes that came from it so far.
    pub(crate) bytes_read: u64,
    /// Whether it has sent a heartbeat.
    pub(crate) has_heart: bool,
}

/// How an instance hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hang {
    /// As a clause.
    pub(crate) what: String,
    /// Whether it also said nothing while it was waited for: most likely it is stopped as a whole, and nothing
    /// that it still has will be answered.
    pub(crate) is_silent: bool,
}

/// What is remembered from look to look.
#[derive(Debug)]
pub(crate) struct HangWatch {
    limits: HangLimits,
    looked_at: Instant,
    /// As of the last look.
    bytes_read: u64,
    /// Time that counts, since an answer has been owed that nobody wants.
    unanswered: Duration,
    /// Time that counts, since anything came.
    silent: Duration,
}

impl HangWatch {
    pub(crate) fn new(limits: HangLimits, now: Instant) -> Self {
        Self { limits, looked_at: now, bytes_read: 0, unanswered: Duration::ZERO, silent: Duration::ZERO }
    }

    /// Judges after another look.
    pub(crate) fn look(&mut self, now: Instant, seen: Look) -> Option<Hang> {
        let counts = now.saturating_duration_since(self.looked_at).min(2 * self.limits.look_every());
        self.looked_at = now;
        let has_spoken = seen.bytes_read != self.bytes_read;
        self.bytes_read = seen.bytes_read;
        self.silent = if has_spoken || !seen.owes { Duration::ZERO } else { self.silent + counts };
        self.unanswered = match seen.oldest_unanswered {
            // The oldest may be a younger one than at the last look.
            Some(since) => (self.unanswered + counts).min(now.saturating_duration_since(since)),
            None => Duration::ZERO,
        };
        if self.unanswered >= self.limits.unanswered {
            let what = format!("it left a call unanswered for {:.1?} after its cancel", self.unanswered);
            return Some(Hang { what, is_silent: self.silent >= self.unanswered });
        }
        if seen.has_heart && self.silent >= self.limits.silent {
            let what = format!("it said nothing for {:.1?}, not even a heartbeat", self.silent);
            return Some(Hang { what, is_silent: true });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HangLimits =
        HangLimits { unanswered: Duration::from_secs(10), silent: Duration::from_secs(20) };

    /// What is seen at a second: the second of the oldest cancel, whether an answer is owed, bytes, heart.
    type Seen = (Option<u64>, bool, u64, bool);

    /// The second of the first look that judged, and whether the instance was silent.
    fn judged(seconds: impl IntoIterator<Item = u64>, seen: impl Fn(u64) -> Seen) -> Option<(u64, bool)> {
        let began = Instant::now();
        let at = |second| began + Duration::from_secs(second);
        let mut watch = HangWatch::new(LIMITS, began);
        seconds.into_iter().find_map(|second| {
            let (since, owes, bytes_read, has_heart) = seen(second);
            let look = Look { oldest_unanswered: since.map(at), owes, bytes_read, has_heart };
            watch.look(at(second), look).map(|hang| (second, hang.is_silent))
        })
    }

    #[test]
    fn an_answer_that_is_owed_for_too_long_is_a_hang_and_a_long_call_is_none() {
        let hour = 1..=3_600;
        assert_eq!(judged(hour.clone(), |_| (None, true, 0, false)), None, "it works on a call");
        assert_eq!(judged(hour.clone(), |_| (None, false, 0, true)), None, "it has nothing to do");
        assert_eq!(judged(hour.clone(), |_| (Some(0), true, 0, false)), Some((10, true)));
        assert_eq!(judged(hour.clone(), |second| (Some(0), true, second, false)), Some((10, false)));
        let late = |second| ((second >= 100).then_some(100), true, 0, false);
        assert_eq!(judged(hour.clone(), late), Some((110, true)));
        // Each is given up in time, though there is one at every look.
        assert_eq!(judged(hour.clone(), |second| (Some(second - second % 9), true, 0, false)), None);
        // Then one is not.
        let at_last = |second: u64| (Some(second.min(500) - second.min(500) % 9), true, 0, false);
        assert_eq!(judged(hour, at_last), Some((505, true)));
    }

    #[test]
    fn silence_is_a_hang_only_of_one_that_has_a_heart_and_owes_an_answer() {
        let hour = 1..=3_600;
        assert_eq!(judged(hour.clone(), |_| (None, true, 0, true)), Some((20, true)));
        assert_eq!(judged(hour.clone(), |second| (None, true, second / 19, true)), None, "it beats");
        assert_eq!(
            judged(hour.clone(), |second| (None, true, (second + 90).min(100), true)),
            Some((30, true))
        );
        // What it did not say before it was asked does not count.
        assert_eq!(judged(hour, |second| (None, second > 100, 0, true)), Some((120, true)));
    }

    #[test]
    fn time_in_which_this_process_was_stopped_hardly_counts() {
        // Looked at twice, with an hour between, which is worth five seconds. From then on as ever.
        assert_eq!(judged([1, 3_601], |_| (Some(0), true, 0, true)), None);
        let goes_on = [1].into_iter().chain(3_601..4_000);
        assert_eq!(judged(goes_on, |_| (Some(0), true, 0, true)), Some((3_605, true)));
    }
}
