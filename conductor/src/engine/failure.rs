//! Why a step failed: what happened, whose fault it is, whether retrying helps, what to do.
//!
//! Pure: from typed errors to the words of the result document. This file must not know how a step runs.

use std::time::Duration;

use ipc_protocol::FaultCode;
use ipc_protocol::fault::{Origin, Retry};
use ipc_transport::{CallError, Cause};

use crate::bridge::StoreError;
use crate::document::ErrorReport;
use crate::exit::chain;
use crate::melody::{EvaluationError, Malformed};

/// LIMIT: what is rejected for want of room may be sent again within this time; a longer one is that of an
/// extension which is left alone.
const ROOM_TIME_MAX: Duration = Duration::from_secs(1);

/// Why a step, or one item of its fan-out, failed for good.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A template or a condition could not be evaluated.
    #[error("a value of the melody could not be made")]
    Evaluation(#[from] EvaluationError),
    /// The call failed.
    #[error("the call of {method} failed")]
    Call {
        /// `extension.method`.
        method: String,
        /// How long it was allowed to take.
        timeout: Duration,
        /// How it failed.
        #[source]
        source: CallError,
    },
    /// The extension answered with something that is no value.
    #[error("{method} answered with something that is no value")]
    Malformed {
        /// `extension.method`.
        method: String,
        /// What is wrong with it.
        #[source]
        source: Malformed,
    },
    /// The results of a fan-out are more than can be kept.
    #[error("the results of {method} cannot be kept")]
    Results {
        /// `extension.method`.
        method: String,
        /// Why.
        #[source]
        source: crate::melody::value::ItemError,
    },
    /// The step's claim or lease can never be granted, or was refused.
    #[error("the step was not admitted")]
    Admission(#[source] crate::bridge::AdmissionError),
    /// The output could not be stored.
    #[error("the output `{name}` could not be stored")]
    Store {
        /// The artifact's name.
        name: String,
        /// Why.
        #[source]
        source: crate::bridge::StoreError,
    },
}

/// Where a failure happened.
#[derive(Clone, Copy, Debug)]
pub struct Where<'a> {
    /// The step's id; `None`: a call by hand.
    pub step: Option<&'a str>,
    /// The extension that it calls.
    pub extension: &'a str,
    /// The item of its fan-out that is to blame.
    pub item: Option<FailedItem<'a>>,
    /// Whether the method says of itself that running it twice is as good as running it once.
    pub is_idempotent: bool,
    /// The manifest's `limits.call`, which ends a call whatever its caller allows.
    pub call_time_max: Option<Duration>,
}

/// The item of a fan-out that a failure is the matter of.
#[derive(Clone, Copy, Debug)]
pub struct FailedItem<'a> {
    /// Its place among the items, from 0.
    pub index: u32,
    /// What it is, as short JSON.
    pub value: &'a str,
}

/// The failure as the document says it.
#[must_use]
pub fn report(error: &StepError, place: Where<'_>) -> ErrorReport {
    let (origin, retry, help) = match error {
        StepError::Evaluation(_) => {
            ("melody", Retry::Never, "correct the melody's template or its input".to_owned())
        }
        StepError::Call { source, timeout, .. } => explain_call(source, place, *timeout),
        StepError::Malformed { .. } | StepError::Results { .. } => {
            ("extension", Retry::Never, format!("report it to the author of `{}`", place.extension))
        }
        StepError::Admission(_) => {
            ("melody", Retry::Never, "lower the step's claims or leases, or raise what there is".to_owned())
        }
        StepError::Store { source, .. } => {
            let (origin, retry) = explain_store(source);
            (origin, retry, source.help())
        }
    };
    let step = match (place.step, place.item) {
        (None, _) => String::new(),
        (Some(step), Some(FailedItem { index, value })) => format!("step `{step}`, item {index} ({value}): "),
        (Some(step), None) => format!("step `{step}`: "),
    };
    ErrorReport {
        message: format!("{step}{}", chain(error)),
        step: place.step.map(str::to_owned),
        item: place.item.map(|item| u64::from(item.index)),
        item_value: place.item.map(|item| item.value.to_owned()),
        extension: Some(place.extension.to_owned()),
        origin: origin.to_owned(),
        retry: match retry {
            Retry::Never => "never".to_owned(),
            Retry::AfterMs(milliseconds) => format!("after {milliseconds} ms"),
            _ => "now".to_owned(),
        },
        help,
    }
}

fn explain_call(error: &CallError, place: Where<'_>, timeout: Duration) -> (&'static str, Retry, String) {
    let extension = place.extension;
    let author = || format!("report it to the author of `{extension}`");
    match error {
        CallError::Fault(fault) => {
            let origin = match (fault.origin, fault.code) {
                (Origin::Transport, _) => "transport",
                // The extension did its part: what was asked for was wrong.
                (
                    _,
                    FaultCode::InvalidArgument
                    | FaultCode::NotFound
                    | FaultCode::PermissionDenied
                    | FaultCode::UnknownMethod,
                ) => "caller",
                (Origin::Host, _) => "host",
                _ => "extension",
            };
            let help = match fault.code {
                FaultCode::NotFound | FaultCode::PermissionDenied | FaultCode::Io => {
                    "correct what is missing or not allowed and run again".to_owned()
                }
                FaultCode::TooLarge if origin != "caller" => {
                    format!("ask `{extension}` for less at once")
                }
                FaultCode::InvalidArgument | FaultCode::TooLarge => match place.step {
                    Some(_) => "correct the input or the step's `with` and run again".to_owned(),
                    None => "correct the arguments and call again".to_owned(),
                },
                FaultCode::UnknownMethod => {
                    format!("see which methods it has: conductor extensions show {extension}")
                }
                FaultCode::DeadlineExceeded => raise_timeout(place, timeout),
                FaultCode::Panicked => author(),
                _ => format!("the message is that of `{extension}`; run with --log info for its log"),
            };
            (origin, fault.retry, help)
        }
        CallError::NotDelivered(cause) => explain_cause(cause, place, true, timeout),
        CallError::Unknown(cause) => {
            let (origin, retry, help) = explain_cause(cause, place, place.is_idempotent, timeout);
            let help = if place.is_idempotent {
                help
            } else {
                format!("the call may have run: try again only if the method may run twice; {help}")
            };
            (origin, retry, help)
        }
        // Reported at the end of a command: the host that would have waited ends with it.
        CallError::Rejected { retry_after: Some(after), .. } if *after > ROOM_TIME_MAX => {
            ("host", Retry::Never, left_alone().2)
        }
        CallError::Rejected { retry_after, .. } => {
            let retry = retry_after.map_or(Retry::Never, |_| Retry::Now);
            ("host", retry, format!("run with --log info to see why `{extension}` is not to be had"))
        }
        CallError::Cancelled => ("caller", Retry::Now, "run again".to_owned()),
        CallError::Encode(_) => match place.step {
            Some(_) => ("melody", Retry::Never, "correct the step's `with`".to_owned()),
            None => ("caller", Retry::Never, "correct the arguments".to_owned()),
        },
        CallError::Decode(_) => ("extension", Retry::Never, author()),
    }
}

/// Whose fault the end of a call was, and what to do about it; `may_repeat`: it did not run, or it may run
/// twice.
fn explain_cause(
    cause: &Cause,
    place: Where<'_>,
    may_repeat: bool,
    timeout: Duration,
) -> (&'static str, Retry, String) {
    let extension = place.extension;
    let retry = if may_repeat { Retry::Now } else { Retry::Never };
    match cause {
        Cause::Deadline | Cause::DeadlineAtStart(_) => ("extension", retry, raise_timeout(place, timeout)),
        Cause::Died(_) => {
            let rule = if may_repeat && place.step.is_some() { ", or give the step a `retry`" } else { "" };
            let help = format!("run with --log info to see what `{extension}` said before{rule}");
            ("extension", retry, help)
        }
        Cause::Hung(_) => {
            let help =
                format!("run with --log info to see what `{extension}` did last, or report it to its author");
            ("extension", retry, help)
        }
        Cause::Broken { .. } => left_alone(),
        // It would break it again.
        Cause::ProtocolViolation(_) => {
            ("extension", Retry::Never, format!("report it to the author of `{extension}`"))
        }
        _ if may_repeat => ("host", retry, "run again".to_owned()),
        _ => ("host", retry, "run with --log info to see why it ended".to_owned()),
    }
}

/// The message says how it ended, or why it cannot be started: both stay so until somebody changes it.
fn left_alone() -> (&'static str, Retry, String) {
    ("extension", Retry::Never, "correct what the message names and run again".to_owned())
}

/// Whose matter it is that an output could not be stored.
const fn explain_store(error: &StoreError) -> (&'static str, Retry) {
    match error {
        _ if error.disk().is_some() => ("environment", Retry::Never),
        StoreError::Write(_) => ("extension", Retry::Never),
        StoreError::Interrupted => ("conductor", Retry::Now),
        _ => ("conductor", Retry::Never),
    }
}

fn raise_timeout(place: Where<'_>, timeout: Duration) -> String {
    // More time from the caller would change nothing.
    if let Some(limit) = place.call_time_max.filter(|limit| *limit <= timeout) {
        let extension = place.extension;
        return format!(
            "`limits.call` = {limit:?} in the extension.toml of `{extension}` ended it: raise it there, or give it less to do"
        );
    }
    match place.step {
        Some(_) => format!("give the step a `timeout` of more than {timeout:?}, or less to do"),
        None => format!("give the call a --timeout of more than {timeout:?}, or less to do"),
    }
}

#[cfg(test)]
mod tests {
    use ipc_protocol::Fault;

    use super::*;

    const STEP: Where<'static> = Where {
        step: Some("list"),
        extension: "explorer",
        item: None,
        is_idempotent: false,
        call_time_max: None,
    };

    fn explained(source: CallError) -> ErrorReport {
        explained_at(STEP, source)
    }

    fn explained_at(place: Where<'_>, source: CallError) -> ErrorReport {
        let error =
            StepError::Call { method: "explorer.list".to_owned(), timeout: Duration::from_secs(30), source };
        report(&error, place)
    }

    #[test]
    fn what_may_have_run_is_tried_again_only_if_it_may_run_twice() {
        let died = || Cause::Died("signal 9".to_owned());
        let closed = || Cause::Closed("it stopped".to_owned());
        for cause in [Cause::Deadline, died(), closed()] {
            let told = explained(CallError::Unknown(cause.clone()));
            assert_eq!(told.retry, "never", "{told:?}");
            assert!(told.help.contains("may have run") && !told.help.contains("`retry`"), "{told:?}");
            let told = explained_at(Where { is_idempotent: true, ..STEP }, CallError::Unknown(cause.clone()));
            assert_eq!(told.retry, "now", "{told:?}");
            assert!(!told.help.contains("may have run"), "{told:?}");
            let told = explained(CallError::NotDelivered(cause));
            assert_eq!(told.retry, "now", "{told:?}");
            assert!(!told.help.contains("may have run"), "{told:?}");
        }
        assert!(explained(CallError::NotDelivered(died())).help.contains("`retry`"));
    }

    #[test]
    fn a_call_by_hand_is_not_told_of_steps() {
        let place = Where { step: None, ..STEP };
        for place in [place, Where { is_idempotent: true, ..place }] {
            for cause in [Cause::Deadline, Cause::Died("signal 9".to_owned())] {
                for error in [CallError::Unknown(cause.clone()), CallError::NotDelivered(cause)] {
                    let told = explained_at(place, error);
                    assert!(!told.help.contains("step") && !told.message.contains("step"), "{told:?}");
                }
            }
        }
        let told = explained_at(place, CallError::Unknown(Cause::Deadline));
        assert!(told.help.contains("--timeout"), "{told:?}");
    }

    #[test]
    fn a_limit_of_the_manifest_that_ended_a_call_is_named() {
        // The caller allowed 30 s.
        let at = |seconds| Where { call_time_max: Some(Duration::from_secs(seconds)), ..STEP };
        for place in [at(1), at(30), Where { step: None, ..at(1) }] {
            for error in [
                CallError::Unknown(Cause::Deadline),
                CallError::NotDelivered(Cause::DeadlineAtStart("explorer".to_owned())),
                Fault::new(FaultCode::DeadlineExceeded, "too late").into(),
            ] {
                let help = explained_at(place, error).help;
                assert!(help.contains("`limits.call`") && help.contains("`explorer`"), "{help}");
                assert!(!help.contains("timeout"), "{help}");
            }
        }
        let help = explained_at(at(31), CallError::Unknown(Cause::Deadline)).help;
        assert!(help.contains("`timeout` of more than 30s") && !help.contains("limits"), "{help}");
    }

    #[test]
    fn a_fault_is_told_with_its_origin_and_advice() {
        let fault = Fault::new(FaultCode::NotFound, "there is no folder /x");
        let told = explained(fault.into());
        assert_eq!(told.message, "step `list`: the call of explorer.list failed: there is no folder /x");
        assert_eq!((told.origin.as_str(), told.retry.as_str()), ("caller", "never"));
        assert!(!told.help.is_empty());
        let host = Fault::new(FaultCode::Busy, "b").with_origin(Origin::Host).with_retry(Retry::AfterMs(250));
        let told = explained(host.into());
        assert_eq!((told.origin.as_str(), told.retry.as_str()), ("host", "after 250 ms"));
    }

    #[test]
    fn a_result_that_is_too_large_is_not_mended_by_correcting_the_arguments() {
        let told = explained(Fault::new(FaultCode::TooLarge, "the result has 300000000 bytes").into());
        assert_eq!(told.origin, "extension", "{told:?}");
        assert!(told.help.contains("for less") && !told.help.contains("correct"), "{told:?}");
    }

    #[test]
    fn an_extension_that_is_left_alone_is_to_be_corrected_and_not_waited_for() {
        let minutes = Some(Duration::from_secs(300));
        let broken = |retry_after| Cause::Broken { reason: "it ended five times".to_owned(), retry_after };
        let rejected =
            |retry_after| CallError::Rejected { reason: "there is no launcher".to_owned(), retry_after };
        for (error, origin) in [
            (CallError::NotDelivered(broken(minutes)), "extension"),
            (CallError::NotDelivered(broken(None)), "extension"),
            // What the host itself could not do: without its launcher nothing is started.
            (rejected(minutes), "host"),
        ] {
            let told = explained(error);
            assert_eq!((told.origin.as_str(), told.retry.as_str()), (origin, "never"), "{told:?}");
            assert!(told.help.contains("correct") && !told.help.contains("--log"), "{told:?}");
        }
        let told = explained(rejected(Some(Duration::from_millis(10))));
        assert_eq!((told.origin.as_str(), told.retry.as_str()), ("host", "now"), "{told:?}");
        assert_eq!(explained(rejected(None)).retry, "never");
    }

    #[test]
    fn every_end_of_a_call_has_an_origin_and_a_remedy() {
        let ends = [
            CallError::Unknown(Cause::Deadline),
            CallError::NotDelivered(Cause::Died("signal 9".to_owned())),
            CallError::Unknown(Cause::Hung("no heartbeat".to_owned())),
            CallError::Unknown(Cause::ProtocolViolation("half a frame".to_owned())),
            CallError::Unknown(Cause::Closed("x".to_owned())),
            CallError::Rejected { reason: "broken".to_owned(), retry_after: None },
            CallError::Cancelled,
        ];
        for end in ends {
            let told = explained(end);
            assert!(!told.help.is_empty() && !told.origin.is_empty(), "{told:?}");
            assert_eq!(told.extension.as_deref(), Some("explorer"));
        }
    }
}
