//! Whether a failed attempt is made again, and when: a pure decision.
//!
//! The host has retried already what was safe to retry by itself. What comes here is what remains, and the
//! melody's own rule decides. This file must not know clocks, tasks or extensions.

use std::time::Duration;

use ipc_protocol::fault::Retry;
use ipc_transport::{CallError, Cause};

use crate::melody::{RetryCause, RetryRule};

/// What happens after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Another attempt after this time.
    Again(Duration),
    /// No other attempt: the step or the item has failed.
    GiveUp,
}

/// Decides after the attempt number `attempt` (from 1) ended with `error`.
///
/// `jitter` is a random number from 0 to 1: half of the waiting time is left to it, so that the items of a
/// fan-out that failed together do not come back together.
#[must_use]
pub(super) fn decide_retry(
    rule: Option<&RetryRule>,
    attempt: u32,
    error: &CallError,
    jitter: f64,
) -> Decision {
    let Some(rule) = rule else { return Decision::GiveUp };
    let Some(cause) = RetryCause::of(error) else { return Decision::GiveUp };
    if attempt > rule.times || !rule.on.contains(&cause) {
        return Decision::GiveUp;
    }
    let wished = match error {
        // No rule is retried on faults unless it names them. Whoever writes that knows more than an extension
        // which says "never", all the more as this is also what one says that gives no advice.
        CallError::Fault(fault) => match fault.retry {
            Retry::AfterMs(milliseconds) => Duration::from_millis(u64::from(milliseconds)),
            _ => Duration::ZERO,
        },
        CallError::Rejected { retry_after, .. }
        | CallError::NotDelivered(Cause::Broken { retry_after, .. }) => retry_after.unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let doublings = attempt.saturating_sub(1).min(31);
    let backoff = rule.backoff_first.saturating_mul(1 << doublings).min(rule.backoff_max);
    let backoff = backoff.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    Decision::Again(backoff.max(wished))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_protocol::{Fault, FaultCode};

    fn rule(times: u32) -> RetryRule {
        RetryRule {
            times,
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            on: vec![RetryCause::Crashed, RetryCause::Fault],
        }
    }

    fn crash() -> CallError {
        CallError::Unknown(Cause::Died("signal 9".to_owned()))
    }

    #[test]
    fn attempts_end_with_the_rule_and_backoff_doubles_up_to_its_bound() {
        let waits: Vec<_> =
            (1..=7).map(|attempt| decide_retry(Some(&rule(6)), attempt, &crash(), 1.0)).collect();
        let again = |milliseconds| Decision::Again(Duration::from_millis(milliseconds));
        let expected = [again(100), again(200), again(400), again(800), again(1000), again(1000)];
        assert_eq!(waits[..6], expected);
        assert_eq!(waits[6], Decision::GiveUp);
        assert_eq!(decide_retry(Some(&rule(6)), 1, &crash(), 0.0), again(50));
        assert_eq!(decide_retry(None, 1, &crash(), 0.5), Decision::GiveUp);
        assert_ne!(decide_retry(Some(&rule(u32::MAX)), u32::MAX, &crash(), 0.5), Decision::GiveUp);
    }

    #[test]
    fn only_the_named_causes_are_retried() {
        let timeout = CallError::Unknown(Cause::Deadline);
        assert_eq!(decide_retry(Some(&rule(3)), 1, &timeout, 0.5), Decision::GiveUp);
        assert_eq!(decide_retry(Some(&rule(3)), 1, &CallError::Cancelled, 0.5), Decision::GiveUp);
    }

    #[test]
    fn a_rule_that_names_faults_wins_over_a_fault_that_says_never() {
        let fault = Fault::new(FaultCode::Failed, "no");
        assert_eq!(fault.retry, Retry::Never, "what an extension says that gives no advice");
        let error = CallError::from(fault);
        let expected = Decision::Again(Duration::from_millis(100));
        assert_eq!(decide_retry(Some(&rule(3)), 1, &error, 1.0), expected);
        assert_eq!(decide_retry(Some(&rule(3)), 4, &error, 1.0), Decision::GiveUp);
        let unnamed = RetryRule { on: vec![RetryCause::Crashed], ..rule(3) };
        assert_eq!(decide_retry(Some(&unnamed), 1, &error, 1.0), Decision::GiveUp);
    }

    #[test]
    fn a_fault_that_says_when_is_believed() {
        let mut fault = Fault::new(FaultCode::Failed, "no");
        fault.retry = Retry::AfterMs(5_000);
        let expected = Decision::Again(Duration::from_secs(5));
        assert_eq!(decide_retry(Some(&rule(3)), 1, &fault.into(), 0.5), expected);
    }
}
