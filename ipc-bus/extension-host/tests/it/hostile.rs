//! Each misbehaviour costs its own calls and nothing else: a bystander answers all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use extension_host::{InstanceState, Route, StopTimes};
use ipc_protocol::FaultCode;
use ipc_transport::{CallError, Cause};

use crate::support::{call, call_within, death, host, on_both_runtimes, options, register, snapshot};

/// Calls the bystander without pause until it is told to stop; how many answers there were.
pub(crate) fn keep_calling(route: Route) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let calling = tokio::spawn(async move {
        let mut answers = 0;
        loop {
            // Once more after that: what went wrong meanwhile shows then, however soon it was over.
            let is_last = seen.load(Ordering::SeqCst);
            let text = answers.to_string();
            assert_eq!(call(&route, "once", &text).await.expect("the bystander answers"), text);
            answers += 1;
            if is_last {
                return answers;
            }
        }
    });
    (stop, calling)
}

/// What becomes of the call that has it misbehave.
#[derive(Debug, PartialEq)]
enum Outcome {
    Answered,
    Deadline,
    Died,
    Violation,
}

fn outcome(result: Result<String, CallError>) -> Outcome {
    match result {
        Ok(text) if text == "misbehave" => Outcome::Answered,
        Err(CallError::Unknown(Cause::Deadline)) => Outcome::Deadline,
        Err(CallError::Unknown(Cause::Died(_))) => Outcome::Died,
        Err(CallError::Unknown(Cause::ProtocolViolation(_))) => Outcome::Violation,
        other => panic!("unexpected outcome: {other:?}"),
    }
}

#[test]
fn each_misbehaviour_costs_its_own_calls_and_nothing_else() {
    on_both_runtimes(async || {
        for (mode, expected, class) in [
            ("reply-twice", Outcome::Answered, Some("protocol-violation")),
            ("stale-epoch", Outcome::Answered, None),
            ("flood", Outcome::Answered, None),
            ("stall", Outcome::Deadline, None),
            ("deaf", Outcome::Deadline, None),
            ("half-frame", Outcome::Died, Some("fault")),
            ("exit-inside-reply", Outcome::Died, Some("fault")),
            ("crash-abort", Outcome::Died, Some("signal")),
            ("crash-segv", Outcome::Died, Some("signal")),
            ("crash-panic", Outcome::Died, Some("panic")),
            ("crash-exit", Outcome::Died, Some("fault")),
            ("crash-clean", Outcome::Died, Some("fault")),
            ("close-channel", Outcome::Died, Some("killed-by-host")),
            ("oversize-frame", Outcome::Violation, Some("protocol-violation")),
            ("garbage", Outcome::Violation, Some("protocol-violation")),
            ("garbage-exit", Outcome::Violation, Some("protocol-violation")),
            ("unasked-reply", Outcome::Violation, Some("protocol-violation")),
            ("ask-zero", Outcome::Violation, Some("protocol-violation")),
            ("ask-unserved", Outcome::Violation, Some("protocol-violation")),
            ("ask-descriptors", Outcome::Violation, Some("protocol-violation")),
            ("ask-unknown", Outcome::Answered, None),
            ("ask-gibberish", Outcome::Answered, None),
            ("ask-late", Outcome::Answered, None),
            ("ask-nobody", Outcome::Answered, None),
        ] {
            let host = host(options());
            let mut events = host.subscribe();
            let bystander = register(&host, "bystander", "echo", "");
            let culprit = register(&host, "culprit", mode, "[restart]\nbackoff = [\"1ms\", \"1ms\"]\n");
            assert_eq!(call(&bystander, "echo", "up").await.expect("it is answered"), "up");
            assert_eq!(call(&culprit, "echo", "up").await.expect("it is answered"), "up");
            let (stop, calling) = keep_calling(bystander);

            let timeout = Duration::from_millis(if expected == Outcome::Deadline { 200 } else { 60_000 });
            let result = call_within(&culprit, "misbehave", "misbehave", timeout).await;
            assert_eq!(outcome(result), expected, "{mode}");
            if let Some(class) = class {
                assert_eq!(death(&mut events, "culprit").await.0, class, "{mode}");
            }
            if mode != "deaf" {
                // The same incarnation or the next: it is of use again.
                assert_eq!(call(&culprit, "once", "again").await.expect("it is answered"), "again", "{mode}");
            }
            stop.store(true, Ordering::SeqCst);
            assert!(calling.await.expect("the bystander answers all the while") > 0, "{mode}");

            let bystander = snapshot(&host, "bystander");
            assert_eq!((bystander.starts, bystander.state), (1, InstanceState::Ready), "{mode}");
            let culprit = snapshot(&host, "culprit");
            assert_eq!(culprit.starts, 1 + u64::from(class.is_some()), "{mode}");
            host.shutdown(Duration::from_millis(200)).await;
        }
    });
}

#[test]
fn what_ends_it_is_told_to_its_calls_with_its_last_output() {
    on_both_runtimes(async || {
        for (mode, clause) in [
            (
                "crash-exit",
                "it exited with code 9 with a call in flight; its last output: hostile: exiting with code 9",
            ),
            ("crash-panic", "it panicked: panicking, as told (at "),
            ("crash-segv", "SIGSEGV ended it with a call in flight"),
        ] {
            let host = host(options());
            let culprit = register(&host, "culprit", mode, "");
            let error = call(&culprit, "misbehave", "x").await.expect_err("it ends");
            let CallError::Unknown(cause) = &error else { panic!("{error:?}") };
            assert!(cause.to_string().contains(clause), "{cause}");
            host.shutdown(Duration::ZERO).await;
        }
    });
}

#[test]
fn a_refusal_as_by_one_who_drains_is_an_answer_unless_it_was_told_to_drain() {
    on_both_runtimes(async || {
        let host = host(options());
        let culprit = register(&host, "culprit", "draining-fault", "");
        let error = call(&culprit, "misbehave", "x").await.expect_err("it refuses");
        assert!(matches!(&error, CallError::Fault(fault) if fault.code == FaultCode::Draining), "{error:?}");
        assert_eq!(snapshot(&host, "culprit").starts, 1);
        host.shutdown(Duration::from_millis(200)).await;
    });
}

#[test]
fn who_says_goodbye_unasked_is_stopped_and_its_calls_need_not_wait() {
    on_both_runtimes(async || {
        let mut short = options();
        let step = Duration::from_millis(100);
        short.stop_times = StopTimes { drain: step, goodbye: step, terminate: step };
        let host = host(short);
        let mut events = host.subscribe();
        let culprit = register(&host, "culprit", "goodbye", "[restart]\nbackoff = [\"1ms\", \"1ms\"]\n");
        let error = call(&culprit, "misbehave", "x").await.expect_err("it answers nothing more");
        assert!(
            matches!(&error, CallError::Unknown(Cause::Died(how)) if how == "it said goodbye and lived on")
        );
        assert_eq!(call(&culprit, "once", "again").await.expect("the next one answers"), "again");
        assert_eq!(death(&mut events, "culprit").await.0, "killed-by-host");
        host.shutdown(Duration::from_millis(200)).await;
    });
}

#[test]
fn an_exit_with_code_0_is_no_failure_only_after_a_goodbye() {
    on_both_runtimes(async || {
        for (mode, class, restarts) in [("goodbye-exit", "clean", 0), ("exit-idle", "fault", 1)] {
            let host = host(options());
            let mut events = host.subscribe();
            let culprit = register(&host, "culprit", mode, "");
            assert_eq!(call(&culprit, "misbehave", "x").await.expect("it is answered"), "x");
            assert_eq!(death(&mut events, "culprit").await.0, class);
            assert_eq!(call(&culprit, "once", "again").await.expect("the next one answers"), "again");
            let after = snapshot(&host, "culprit");
            assert_eq!((after.starts, after.restarts), (2, restarts), "{mode}");
            host.shutdown(Duration::from_millis(200)).await;
        }
    });
}
