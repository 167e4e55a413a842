//! Calls find their way: through starts, deaths and restarts, once and only once where that is asked.

use std::sync::Arc;
use std::time::Duration;

use extension_host::{EventKind, InstanceState, Route};
use ipc_transport::{CallError, Caller, Cause, Encoded, Payload, ProgressSink, Reply, Request, RetryLog};
use parking_lot::Mutex;
use tokio::runtime::RuntimeFlavor;

use crate::support::{
    BOUND, call, call_within, event, host, kill, on_both_runtimes, options, register, snapshot, until,
    until_state,
};

#[test]
fn concurrent_first_calls_start_one_process() {
    on_both_runtimes(async || {
        let host = host(options());
        let echo = register(&host, "echo", "echo", "");
        assert_eq!(snapshot(&host, "echo").state, InstanceState::Stopped);
        let calls: Vec<_> = (0..200)
            .map(|number| {
                let echo = echo.clone();
                tokio::spawn(async move { call(&echo, "echo", &number.to_string()).await })
            })
            .collect();
        for (number, answered) in calls.into_iter().enumerate() {
            let answer = answered.await.expect("the call does not panic").expect("the call is answered");
            assert_eq!(answer, number.to_string());
        }
        let after = snapshot(&host, "echo");
        assert_eq!((after.starts, after.restarts, after.calls), (1, 0, 200));
        assert_eq!(after.instance.generation(), 1);
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn killed_in_the_middle_an_idempotent_call_is_made_again_and_another_is_not() {
    on_both_runtimes(async || {
        for (method, again) in [("hold", true), ("hold-once", false)] {
            let host = host(options());
            let mut events = host.subscribe();
            let held = register(&host, "held", "echo", "[restart]\nbackoff = [\"1ms\", \"1ms\"]\n");
            let log = Arc::new(RetryLog::default());
            let arguments = Payload::Encoded(Encoded::from_value("held").expect("text"));
            let request =
                Request::new(method, arguments, Duration::from_secs(60)).with_retry_log(Arc::clone(&log));
            let answer = tokio::spawn(held.call(request));
            let running =
                until(&host, "held", |held| held.connection.is_some_and(|c| c.in_flight == 1)).await;
            kill(running.pid.expect("this kernel tells the pid"));
            let answer = answer.await.expect("the call does not panic");
            let died = "it ended: SIGKILL ended it with a call in flight";
            if again {
                let text: String = answer.expect("the second attempt is answered").decode().expect("text");
                assert_eq!(text, "held");
                let causes = log.causes();
                assert!(matches!(&causes[..], [Cause::Died(how)] if died.ends_with(how)), "{causes:?}");
                let retried = |kind: &EventKind| match kind {
                    EventKind::Retried { method, .. } => Some(method.clone()),
                    _ => None,
                };
                assert_eq!(event(&mut events, "held", retried).await, method);
            } else {
                let error = answer.expect_err("it may have run");
                assert!(
                    matches!(&error, CallError::Unknown(Cause::Died(how)) if died.ends_with(how)),
                    "{error:?}"
                );
                assert_eq!(log.causes(), []);
            }
            // Whatever became of the call: the extension is back by itself.
            let back =
                until(&host, "held", |held| held.state == InstanceState::Ready && held.starts == 2).await;
            assert_eq!((back.restarts, back.retries), (1, u64::from(again)));
            assert_eq!(back.past_ends[0].report.class.name(), "signal");
            host.shutdown(Duration::from_secs(10)).await;
        }
    });
}

#[test]
fn a_call_that_was_not_delivered_is_made_again_whatever_its_method() {
    on_both_runtimes(async || {
        let host = host(options());
        let echo = register(&host, "echo", "echo", "");
        for round in 0..20 {
            // Stopping and calling at the same time: whichever comes first, the call is answered.
            let (stopped, answer) = tokio::join!(host.stop("echo", "for the test"), call(&echo, "once", "x"));
            stopped.expect("it is registered");
            assert_eq!(answer.expect("it is answered"), "x", "round {round}");
        }
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn a_deadline_holds_while_the_extension_starts_and_while_it_runs() {
    on_both_runtimes(async || {
        let mut slow = options();
        slow.welcome_timeout = Duration::from_secs(600);
        let host = host(slow);
        let silent = register(&host, "silent", "no-hello", "");
        let error =
            call_within(&silent, "echo", "x", Duration::from_millis(50)).await.expect_err("nobody answers");
        assert!(matches!(error, CallError::NotDelivered(Cause::DeadlineAtStart(_))), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the call was not delivered: the deadline passed while `silent` was starting"
        );

        // The manifest's limit holds whatever the caller allows.
        let stalled = register(&host, "stalled", "stall", "[limits]\ncall = \"50ms\"\n");
        let error = call(&stalled, "misbehave", "x").await.expect_err("nobody answers");
        assert!(
            matches!(error, CallError::Unknown(Cause::Deadline) | CallError::NotDelivered(Cause::Deadline)),
            "{error:?}"
        );
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn an_idle_instance_is_stopped_and_started_again_by_a_call() {
    on_both_runtimes(async || {
        let host = host(options());
        let mut events = host.subscribe();
        let echo = register(&host, "echo", "echo", "[activation]\nidle-timeout = \"40ms\"\n");
        for round in 1..=3 {
            assert_eq!(call(&echo, "once", "x").await.expect("it is answered"), "x");
            event(&mut events, "echo", |kind| matches!(kind, EventKind::Stopped).then_some(())).await;
            let stopped = until_state(&host, "echo", InstanceState::Stopped).await;
            assert_eq!((stopped.starts, stopped.restarts), (round, 0));
            assert_eq!(stopped.past_ends[0].report.class.name(), "stopped");
        }
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn a_call_in_flight_is_use_however_long_it_takes() {
    on_both_runtimes(async || {
        let host = host(options());
        let stalled = register(&host, "stalled", "stall", "[activation]\nidle-timeout = \"40ms\"\n");
        let several_idle_times = Duration::from_millis(400);
        let error =
            call_within(&stalled, "misbehave", "x", several_idle_times).await.expect_err("no answer comes");
        assert!(matches!(error, CallError::Unknown(Cause::Deadline)), "{error:?}");
        let after = snapshot(&host, "stalled");
        assert_eq!((after.state, after.starts), (InstanceState::Ready, 1));
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn an_unknown_method_and_an_unknown_extension_are_named() {
    on_both_runtimes(async || {
        let host = host(options());
        let echo = register(&host, "echo", "echo", "");
        let error = call(&echo, "no-such", "x").await.expect_err("there is no such method");
        assert!(matches!(&error, CallError::Fault(fault) if fault.message.contains("no-such")), "{error:?}");
        let error = host.extension("other").expect_err("there is no such extension");
        assert_eq!(error.to_string(), "there is no extension `other`");
        host.shutdown(Duration::from_secs(10)).await;
    });
}

/// Has it misbehave, and does not look at the reply.
fn misbehave(route: &Route) -> Reply {
    let arguments = Payload::Encoded(Encoded::from_value("x").expect("text"));
    route.call(Request::new("misbehave", arguments, BOUND))
}

#[test]
fn calls_are_delivered_in_the_order_in_which_they_were_made_over_a_start() {
    on_both_runtimes(async || {
        let host = host(options());
        let counting = register(&host, "counting", "count", "");
        // Made while nothing runs, and not looked at before others are made that need not wait.
        let mut replies: Vec<_> = (0..100).map(|_| misbehave(&counting)).collect();
        until_state(&host, "counting", InstanceState::Ready).await;
        replies.extend((0..100).map(|_| misbehave(&counting)));
        for (number, reply) in replies.into_iter().enumerate().rev() {
            let before: usize = reply.await.expect("it is answered").decode().expect("a number");
            assert_eq!(before, number);
        }
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn calls_that_are_given_up_while_nothing_runs_start_nothing_and_are_never_sent() {
    on_both_runtimes(async || {
        let host = host(options());
        let counting = register(&host, "counting", "count", "");
        for _ in 0..1_000 {
            drop(misbehave(&counting));
        }
        let before: u32 = misbehave(&counting).await.expect("it is answered").decode().expect("a number");
        let calls = snapshot(&host, "counting").calls;
        assert_eq!(calls, u64::from(before) + 1, "none is sent that does not arrive");
        // On several threads one may be seen in the moment that it waits, and start the instance while others are made.
        if tokio::runtime::Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            assert_eq!(before, 0);
        }
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn progress_reaches_whoever_made_the_call() {
    on_both_runtimes(async || {
        let host = host(options());
        let route = register(&host, "x", "progress", "");
        // Once over a start, once without.
        for _ in 0..2 {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let hears = Arc::clone(&heard);
            let sink = ProgressSink::new(move |progress| hears.lock().push((progress.done, progress.total)));
            let arguments = Payload::Encoded(Encoded::from_value("x").expect("text"));
            let request = Request::new("misbehave", arguments, BOUND).with_progress(sink);
            route.call(request).await.expect("it is answered");
            assert_eq!(*heard.lock(), [(1, Some(3)), (2, Some(3)), (3, Some(3))]);
            // Whoever has sent what waited for the start lets go of it on a thread of his own, a moment after the
            // answer.
            until(&host, "x", |_| Arc::strong_count(&heard) == 1).await;
        }
        host.shutdown(Duration::from_secs(10)).await;
    });
}
