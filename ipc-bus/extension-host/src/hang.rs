//! Whether an instance hangs: a pure decision over what is seen of it from time to time.
//!
//! Busy is not hung. A call may take as long as its deadline allows, and nobody judges it before. Two things show
//! a hang:
//!
//! - **An answer that is owed.** A call was cancelled, or its deadline passed; the extension was told, and has
//!   still not answered after [`HangLimits::unanswered`]. Its place among the calls in flight is lost until then.
//! - **Silence.** The extension has sent a heartbeat before, owes an answer, and then nothing at all came from it
//!   for [`HangLimits::silent`]. Heartbeats come from a thread of their own, so that no handler delays them. An
//!   extension that never sent one is not judged by this, nor one that computes: what holds a lock of its whole
//!   runtime (Python's) for long cannot beat, but uses the processor, as nobody does who is stopped or waits.
//!
//! ```text
//! look --> owes an answer that nobody wants? --for `unanswered`--> Hang (silent all the while, or not)
//!     \--> has a heart, owes an answer, said nothing? --for `silent`--> computes? --no--> Hang (silent)
//!                                                      ^------yes: the time begins anew------/
//! ```
//!
//! Time in which this process itself did not run (stopped, or starved) counts for no more than two looks, so that
//! what came meanwhile is read first. It must not know connections, processes or timers.

use std::time::{Duration, Instant};

use ipc_protocol::limits::HEARTBEAT_INTERVAL_MS;

/// How often an instance is looked at within the shorter of its limits.
const LOOKS_PER_LIMIT: u32 = 4;

/// The share of a silent time, as one in so many, that is used of one processor by who computes. Far more than a
/// process that waits uses, and little enough for one that shares a loaded machine.
const COMPUTES_ONE_IN: u32 = 10;

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
    /// The part of it since it was last seen to compute.
    still: Duration,
    /// What `still` was when it was measured, and the processor time that had been used by then.
    measured: Option<(Duration, Duration)>,
}

impl HangWatch {
    pub(crate) fn new(limits: HangLimits, now: Instant) -> Self {
        Self {
            limits,
            looked_at: now,
            bytes_read: 0,
            unanswered: Duration::ZERO,
            silent: Duration::ZERO,
            still: Duration::ZERO,
            measured: None,
        }
    }

    /// Judges after another look. `processor_time`: what the instance has used so far, if that is known. Asked for
    /// only when silence is about to be judged: twice in a time of [`HangLimits::silent`].
    pub(crate) fn look(
        &mut self,
        now: Instant,
        seen: Look,
        processor_time: impl FnOnce() -> Option<Duration>,
    ) -> Option<Hang> {
        let counts = now.saturating_duration_since(self.looked_at).min(2 * self.limits.look_every());
        self.looked_at = now;
        let has_spoken = seen.bytes_read != self.bytes_read;
        self.bytes_read = seen.bytes_read;
        let is_silent = !has_spoken && seen.owes;
        self.silent = if is_silent { self.silent + counts } else { Duration::ZERO };
        self.still = if is_silent { self.still + counts } else { Duration::ZERO };
        self.unanswered = match seen.oldest_unanswered {
            // The oldest may be a younger one than at the last look.
            Some(since) => (self.unanswered + counts).min(now.saturating_duration_since(since)),
            None => Duration::ZERO,
        };
        if self.unanswered >= self.limits.unanswered {
            let what = format!("it left a call unanswered for {:.1?} after its cancel", self.unanswered);
            return Some(Hang { what, is_silent: self.silent >= self.unanswered });
        }
        if seen.has_heart && self.is_still_for_too_long(processor_time) {
            let what = format!("it said nothing for {:.1?}, not even a heartbeat", self.silent);
            return Some(Hang { what, is_silent: true });
        }
        None
    }

    /// Measures in the middle of the time and at its end. What was measured then begins anew if it computed.
    fn is_still_for_too_long(&mut self, processor_time: impl FnOnce() -> Option<Duration>) -> bool {
        if self.still < self.limits.silent / 2 {
            self.measured = None;
            return false;
        }
        let Some((since, used_before)) = self.measured else {
            self.measured = Some((self.still, processor_time().unwrap_or_default()));
            return false;
        };
        if self.still < self.limits.silent {
            return false;
        }
        // What cannot be measured is not known to compute.
        let used = processor_time().unwrap_or_default().saturating_sub(used_before);
        let computes = !used.is_zero() && used >= (self.still - since) / COMPUTES_ONE_IN;
        if computes {
            (self.still, self.measured) = (Duration::ZERO, None);
        }
        !computes
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
        judged_computing(seconds, seen, |_| Some(7_000))
    }

    /// The same, with the processor time in milliseconds that was used until a second.
    fn judged_computing(
        seconds: impl IntoIterator<Item = u64>,
        seen: impl Fn(u64) -> Seen,
        used_ms: impl Fn(u64) -> Option<u64>,
    ) -> Option<(u64, bool)> {
        let began = Instant::now();
        let at = |second| began + Duration::from_secs(second);
        let mut watch = HangWatch::new(LIMITS, began);
        seconds.into_iter().find_map(|second| {
            let (since, owes, bytes_read, has_heart) = seen(second);
            let look = Look { oldest_unanswered: since.map(at), owes, bytes_read, has_heart };
            watch
                .look(at(second), look, || used_ms(second).map(Duration::from_millis))
                .map(|hang| (second, hang.is_silent))
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
    fn silence_of_one_that_computes_is_no_hang_until_it_stops() {
        let hour = 1..=3_600;
        let silent = |_| (None, true, 0, true);
        let computes_until = |end: u64, ms: u64| move |second: u64| Some(second.min(end) * ms);
        assert_eq!(judged_computing(hour.clone(), silent, computes_until(3_600, 1_000)), None);
        assert_eq!(judged_computing(hour.clone(), silent, computes_until(3_600, 100)), None, "a tenth");
        assert_eq!(judged_computing(hour.clone(), silent, computes_until(3_600, 99)), Some((20, true)));
        assert_eq!(judged_computing(hour.clone(), silent, |_| None), Some((20, true)), "not to be measured");
        // Stopped at once after it was measured, it has two times.
        assert_eq!(judged_computing(hour.clone(), silent, computes_until(120, 1_000)), Some((140, true)));
        // What it computed before it was silent is no excuse, nor is computing one for an answer that is owed.
        let asked = |second| (None, second > 100, 0, true);
        assert_eq!(judged_computing(hour.clone(), asked, computes_until(105, 1_000)), Some((120, true)));
        let unwanted = |_| (Some(0), true, 0, true);
        assert_eq!(judged_computing(hour, unwanted, computes_until(3_600, 1_000)), Some((10, true)));
    }

    #[test]
    fn it_is_measured_only_when_silence_is_about_to_be_judged() {
        let measured = std::cell::RefCell::new(Vec::new());
        let judged = judged_computing(
            1..=3_600,
            |_| (None, true, 0, true),
            |second| {
                measured.borrow_mut().push(second);
                Some(0)
            },
        );
        assert_eq!((judged, measured.into_inner()), (Some((20, true)), vec![10, 20]));
        let never = |_| -> Option<u64> { panic!("it need not be measured") };
        assert_eq!(
            judged_computing(1..=3_600, |second| (None, true, second / 9, true), never),
            None,
            "beats"
        );
        assert_eq!(judged_computing(1..=3_600, |_| (None, false, 0, true), never), None, "idle");
        assert_eq!(judged_computing(1..=3_600, |_| (None, true, 0, false), never), None, "no heart");
    }

    #[test]
    fn time_in_which_this_process_was_stopped_hardly_counts() {
        // Looked at twice, with an hour between, which is worth five seconds. From then on as ever.
        assert_eq!(judged([1, 3_601], |_| (Some(0), true, 0, true)), None);
        let goes_on = [1].into_iter().chain(3_601..4_000);
        assert_eq!(judged(goes_on, |_| (Some(0), true, 0, true)), Some((3_605, true)));
    }
}
