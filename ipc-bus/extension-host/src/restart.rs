//! Whether and when an instance that ended is started again: a pure decision over its history.
//!
//! It must not know processes, clocks or timers: time comes in as a number, randomness as a seed.
//!
//! ```text
//! ended --> on purpose (clean, and the policy does not want it back) ---> Stop
//!       \-> LIMIT failures within the window, or policy `never` --------> Broken
//!       \-> else -------------------------------------------------------> After(backoff)
//!                first, 2 x first, 4 x first ... cap; first again after HEALTHY_AFTER of health
//! ```

use std::time::Duration;

use crate::random::Random;

/// An instance that was ready for this long is healthy: its next failure is a first one. A start is no success.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// LIMIT: failures that a policy can count, and with it the ends that a history keeps.
pub const FAILURES_MAX: u32 = 64;

/// How much a delay varies: a fifth either way, so that what failed together does not come back together.
const JITTER_PERCENT: u64 = 20;

/// When to start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartWhen {
    /// After a failure. The default.
    OnFailure,
    /// After every end that the host did not ask for.
    Always,
    /// Not at all: a failure leaves the extension broken until it is reset.
    Never,
}

/// The manifest's `[restart]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// `policy`.
    pub when: RestartWhen,
    /// `backoff`, its first value: the delay after the first failure.
    pub backoff_first: Duration,
    /// `backoff`, its second value: no delay is longer.
    pub backoff_cap: Duration,
    /// `limit.count`: with as many failures within the window the extension is broken. 1 to [`FAILURES_MAX`].
    pub limit_count: u32,
    /// `limit.within`: the window.
    pub limit_window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            when: RestartWhen::OnFailure,
            backoff_first: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(30),
            limit_count: 5,
            limit_window: Duration::from_secs(300),
        }
    }
}

/// One end of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When, as time since the host began.
    pub at: Duration,
    /// Whether it was a failure; false: it ended cleanly, by itself.
    pub failed: bool,
    /// How long it had been ready; zero if it never was.
    pub ready_for: Duration,
}

/// The last ends of one instance, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartHistory {
    ends: Vec<End>,
}

impl RestartHistory {
    /// Adds the newest end and forgets those that no decision can need.
    pub fn record(&mut self, end: End) {
        if self.ends.len() >= FAILURES_MAX as usize {
            self.ends.remove(0);
        }
        self.ends.push(end);
    }

    /// Forgets everything: somebody reset the extension by hand.
    pub fn reset(&mut self) {
        self.ends.clear();
    }
}

/// What to do after the newest end of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start again after this delay.
    After(Duration),
    /// Do not start again: it fails too often, or must not be restarted.
    Broken,
    /// It ended as it should: start again when it is needed.
    Stop,
}

/// Decides what follows the newest end in `history`, at the time `now` (since the host began). `seed` varies
/// the delay; the same arguments give the same decision.
///
/// ```
/// use std::time::Duration;
/// use extension_host::restart::{Decision, End, RestartHistory, RestartPolicy, decide_restart};
///
/// let mut history = RestartHistory::default();
/// history.record(End { at: Duration::from_secs(3), failed: true, ready_for: Duration::ZERO });
/// let decision = decide_restart(&RestartPolicy::default(), &history, Duration::from_secs(3), 7);
/// let Decision::After(delay) = decision else { panic!("the first failure is not the last") };
/// assert!((80..=120).contains(&delay.as_millis()));
/// ```
#[must_use]
pub fn decide_restart(
    policy: &RestartPolicy,
    history: &RestartHistory,
    now: Duration,
    seed: u64,
) -> Decision {
    let Some(newest) = history.ends.last() else { return Decision::Stop };
    // Under `always` a clean end is as unwanted as a failure, and a loop of them as expensive.
    let unwanted = |end: &&End| end.failed || policy.when == RestartWhen::Always;
    if !unwanted(&newest) {
        return Decision::Stop;
    }
    if policy.when == RestartWhen::Never {
        return Decision::Broken;
    }
    let recent = |end: &&End| now.saturating_sub(end.at) < policy.limit_window;
    let failures = history.ends.iter().filter(unwanted).filter(recent).count();
    if failures >= policy.limit_count as usize {
        return Decision::Broken;
    }
    // The newest failure, and those before it back to the last healthy time (which the one that ended it began
    // anew).
    let mut consecutive = 0;
    for end in history.ends.iter().rev().filter(unwanted) {
        consecutive += 1;
        if end.ready_for >= HEALTHY_AFTER {
            break;
        }
    }
    Decision::After(backoff(policy, consecutive, seed))
}

fn backoff(policy: &RestartPolicy, consecutive_failures: u32, seed: u64) -> Duration {
    let doublings = consecutive_failures.saturating_sub(1).min(31);
    let delay = policy.backoff_first.saturating_mul(1 << doublings).min(policy.backoff_cap);
    let percent = 100 - JITTER_PERCENT + Random::new(seed).below(2 * JITTER_PERCENT + 1);
    let varied = delay.saturating_mul(u32::try_from(percent).unwrap_or(100)) / 100;
    varied.min(policy.backoff_cap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn history(ends: &[(u64, bool, u64)]) -> RestartHistory {
        let mut history = RestartHistory::default();
        for &(at, failed, ready_for) in ends {
            history.record(End { at: secs(at), failed, ready_for: secs(ready_for) });
        }
        history
    }

    /// The decision with the jitter taken out: the delay in milliseconds before it.
    fn decided(when: RestartWhen, ends: &[(u64, bool, u64)]) -> Result<u64, Decision> {
        let policy = RestartPolicy { when, ..RestartPolicy::default() };
        let now = secs(ends.last().map_or(0, |end| end.0));
        match decide_restart(&policy, &history(ends), now, 0) {
            Decision::After(delay) => {
                let ideal = [100, 200, 400, 800, 1_600].into_iter();
                let near = |ideal: &u64| {
                    (ideal * 8 / 10..=ideal * 12 / 10)
                        .contains(&u64::try_from(delay.as_millis()).expect("small"))
                };
                Ok(ideal.into_iter().find(near).expect("a delay of the schedule"))
            }
            other => Err(other),
        }
    }

    #[test]
    fn decisions_follow_policy_count_window_and_health() {
        use RestartWhen::{Always, Never, OnFailure};
        let failure = |at| (at, true, 1);
        for (when, ends, expected) in [
            (OnFailure, &[][..], Err(Decision::Stop)),
            (OnFailure, &[(1, false, 1)][..], Err(Decision::Stop)),
            (OnFailure, &[failure(1)][..], Ok(100)),
            (OnFailure, &[failure(1), failure(2)][..], Ok(200)),
            (OnFailure, &[failure(1), failure(2), failure(3), failure(4)][..], Ok(800)),
            (
                OnFailure,
                &[failure(1), failure(2), failure(3), failure(4), failure(5)][..],
                Err(Decision::Broken),
            ),
            // The first of the five is no longer in the window of five minutes.
            (OnFailure, &[failure(1), failure(2), failure(3), failure(4), failure(302)][..], Ok(1_600)),
            // A healthy minute before the newest failure starts the schedule anew, a shorter one does not.
            (OnFailure, &[failure(1), failure(2), (90, true, 60)][..], Ok(100)),
            (OnFailure, &[failure(1), failure(2), (90, true, 59)][..], Ok(400)),
            (OnFailure, &[failure(1), (90, true, 60), failure(92)][..], Ok(200)),
            // Healthy or not: five failures in five minutes are too many.
            (
                OnFailure,
                &[(61, true, 60), (122, true, 60), (183, true, 60), (244, true, 60), (305, true, 60)][..],
                Err(Decision::Broken),
            ),
            // Clean ends in between do not count.
            (OnFailure, &[failure(1), (2, false, 1), (3, false, 1), failure(4)][..], Ok(200)),
            (Always, &[(1, false, 1)][..], Ok(100)),
            (
                Always,
                &[(1, false, 1), (2, false, 1), (3, false, 1), (4, false, 1), (5, false, 1)][..],
                Err(Decision::Broken),
            ),
            (Never, &[failure(1)][..], Err(Decision::Broken)),
            (Never, &[(1, false, 1)][..], Err(Decision::Stop)),
        ] {
            assert_eq!(decided(when, ends), expected, "{when:?} {ends:?}");
        }
    }

    proptest! {
        #[test]
        fn delays_stay_within_the_cap_and_near_the_doubling(
            failures in 1_u32..63, seed: u64, first_ms in 1_u64..10_000, cap_ms in 1_u64..1_000_000,
        ) {
            let policy = RestartPolicy {
                backoff_first: Duration::from_millis(first_ms),
                backoff_cap: Duration::from_millis(cap_ms),
                limit_count: FAILURES_MAX,
                ..RestartPolicy::default()
            };
            let mut history = RestartHistory::default();
            for at in 0..failures {
                history.record(End { at: secs(at.into()), failed: true, ready_for: Duration::ZERO });
            }
            let decision = decide_restart(&policy, &history, secs(failures.into()), seed);
            let Decision::After(delay) = decision else { panic!("fewer failures than the limit: {decision:?}") };
            prop_assert!(delay <= policy.backoff_cap);
            let ideal = u128::from(first_ms) << (failures - 1).min(31);
            prop_assert!(delay.as_millis() >= ideal.min(cap_ms.into()) * 79 / 100);
            prop_assert!(delay.as_millis() <= ideal * 121 / 100 + 1);
            prop_assert_eq!(decision, decide_restart(&policy, &history, secs(failures.into()), seed));
        }

        #[test]
        fn the_limit_is_never_passed(count in 1_u32..=FAILURES_MAX, ends in proptest::collection::vec((0_u64..600, any::<bool>()), 1..200)) {
            let policy = RestartPolicy { limit_count: count, ..RestartPolicy::default() };
            let mut history = RestartHistory::default();
            let (mut now, mut failed_at) = (Duration::ZERO, Vec::new());
            for (gap, failed) in ends {
                now += secs(gap);
                history.record(End { at: now, failed, ready_for: Duration::ZERO });
                if failed {
                    failed_at.push(now);
                }
                let recent = failed_at.iter().filter(|at| now - **at < policy.limit_window).count();
                // Clean ends push failures out of the history only where those are old.
                if failed && recent < 30 {
                    let broken = decide_restart(&policy, &history, now, 1) == Decision::Broken;
                    prop_assert_eq!(broken, recent >= count as usize);
                }
            }
        }
    }
}
