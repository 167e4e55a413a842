//! An instance that hangs is replaced, whatever keeps it from answering; one that is only busy is not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use extension_host::{HangLimits, HostOptions, InstanceState, StopTimes};
use ipc_transport::{CallError, Cause};
use rustix::process::Signal;

use crate::hostile::keep_calling;
use crate::support::{
    call, call_within, death, host, is_running, on_both_runtimes, options, register, signal, snapshot, until,
    until_state,
};

const SOON: Duration = Duration::from_millis(100);
const NEVER: Duration = Duration::from_secs(3_600);

/// An answer that nobody wants may be owed for that long; silence is no matter.
fn unanswered(limit: Duration) -> HostOptions {
    HostOptions { hang_limits: HangLimits { unanswered: limit, silent: NEVER }, ..options() }
}

const AT_ONCE: &str = "[restart]\nbackoff = [\"1ms\", \"1ms\"]\n";

#[test]
fn a_call_that_is_never_answered_ends_its_instance_and_the_others_learn_why() {
    on_both_runtimes(async || {
        let host = host(unanswered(SOON));
        let mut events = host.subscribe();
        let stalled = register(&host, "stalled", "stall", AT_ONCE);
        let held = |method: &'static str| {
            let stalled = stalled.clone();
            tokio::spawn(async move { call(&stalled, method, "held").await })
        };
        let (once, again) = (held("hold-once"), held("hold"));
        until(&host, "stalled", |stalled| stalled.connection.is_some_and(|c| c.in_flight == 2)).await;
        let error = call_within(&stalled, "misbehave", "x", SOON).await.expect_err("it is never answered");
        assert!(matches!(error, CallError::Unknown(Cause::Deadline)), "{error:?}");

        let (class, clause) = death(&mut events, "stalled").await;
        assert_eq!(class, "hang");
        assert!(clause.starts_with("it hung: it left a call unanswered for "), "{clause}");
        let error = once.await.expect("the call does not panic").expect_err("it may have run");
        let CallError::Unknown(cause) = &error else { panic!("{error:?}") };
        assert_eq!(cause.class(), "hang");
        assert!(cause.to_string().starts_with("the extension hung: it left a call unanswered"), "{cause}");
        assert_eq!(again.await.expect("the call does not panic").expect("it is made again"), "held");
        let after = snapshot(&host, "stalled");
        assert_eq!((after.starts, after.restarts, after.state), (2, 1, InstanceState::Ready));
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_stopped_process_is_replaced_even_if_it_does_not_want_to_end() {
    on_both_runtimes(async || {
        for mode in ["echo", "ignore-stop"] {
            let stop_times = StopTimes { drain: NEVER, goodbye: NEVER, terminate: SOON };
            let host = host(HostOptions { stop_times, ..unanswered(SOON) });
            let mut events = host.subscribe();
            let route = register(&host, "x", mode, AT_ONCE);
            call(&route, "echo", "up").await.expect("it is answered");
            let first = until_state(&host, "x", InstanceState::Ready).await;
            signal(first.pid.expect("it runs"), Signal::STOP);
            let error = call_within(&route, "echo", "x", SOON).await.expect_err("it is stopped");
            assert!(matches!(error, CallError::Unknown(Cause::Deadline)), "{error:?}");
            assert_eq!(call(&route, "echo", "next").await.expect("the next one answers"), "next", "{mode}");
            assert_eq!(death(&mut events, "x").await.0, "hang", "{mode}");
            for pid in [first.pid, first.launcher_pid] {
                assert!(!is_running(pid.expect("it ran")), "{mode}");
            }
            assert_eq!(snapshot(&host, "x").starts, 2);
            host.shutdown(Duration::ZERO).await;
        }
    });
}

#[test]
fn one_call_that_hangs_costs_no_other_of_an_instance_that_lives() {
    on_both_runtimes(async || {
        // Long enough that a busy machine lets it speak in between.
        let host = host(unanswered(10 * SOON));
        let mut events = host.subscribe();
        let stalled = register(&host, "stalled", "stall", AT_ONCE);
        call(&stalled, "echo", "up").await.expect("it is answered");
        let (stop, calling) = keep_calling(stalled.clone());
        call_within(&stalled, "misbehave", "x", SOON).await.expect_err("it is never answered");
        assert_eq!(death(&mut events, "stalled").await.0, "hang");
        until(&host, "stalled", |stalled| stalled.starts == 2).await;
        stop.store(true, Ordering::SeqCst);
        assert!(calling.await.expect("every other call is answered, by this instance or the next") > 0);
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_long_call_is_no_hang_and_silence_is_one_only_after_a_heartbeat() {
    on_both_runtimes(async || {
        let hang_limits = HangLimits { unanswered: SOON, silent: SOON };
        let host = host(HostOptions { hang_limits, ..options() });
        // It never had a heart: it may be silent for as long as the call allows, here several limits.
        let silent = register(&host, "silent", "stall", AT_ONCE);
        let error = call_within(&silent, "misbehave", "x", 8 * SOON).await.expect_err("no answer comes");
        assert!(matches!(error, CallError::Unknown(Cause::Deadline)), "{error:?}");

        let beats = register(&host, "beats", "heartbeat", AT_ONCE);
        assert_eq!(call(&beats, "misbehave", "beat").await.expect("it is answered"), "beat");
        let error = call(&beats, "hold-once", "x").await.expect_err("no answer comes");
        let CallError::Unknown(Cause::Hung(what)) = &error else { panic!("{error:?}") };
        assert!(what.starts_with("it said nothing for ") && what.ends_with("not even a heartbeat"), "{what}");
        assert_eq!(call(&beats, "once", "next").await.expect("the next one answers"), "next");
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_long_computation_that_keeps_the_heart_from_beating_is_no_hang() {
    on_both_runtimes(async || {
        // It computes for two and a half of these.
        let hang_limits = HangLimits { unanswered: NEVER, silent: 10 * SOON };
        let host = host(HostOptions { hang_limits, ..options() });
        let busy = register(&host, "busy", "compute", AT_ONCE);
        assert_eq!(call(&busy, "misbehave", "computed").await.expect("it is answered"), "computed");
        assert_eq!(snapshot(&host, "busy").starts, 1);
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn an_idle_instance_is_silent_and_that_is_no_hang() {
    on_both_runtimes(async || {
        let hang_limits = HangLimits { unanswered: SOON / 10, silent: SOON / 10 };
        let host = host(HostOptions { hang_limits, ..options() });
        let (beats, clock) =
            (register(&host, "beats", "heartbeat", ""), register(&host, "clock", "stall", ""));
        assert_eq!(call(&beats, "misbehave", "beat").await.expect("it is answered"), "beat");
        // So long that it would have been judged many times.
        call_within(&clock, "misbehave", "x", 5 * SOON).await.expect_err("no answer comes");
        let idle = snapshot(&host, "beats");
        assert_eq!((idle.starts, idle.state), (1, InstanceState::Ready));
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn what_is_owed_and_what_came_wrongly_is_shown() {
    on_both_runtimes(async || {
        let host = host(unanswered(NEVER));
        let stalled = register(&host, "stalled", "stall", "");
        call_within(&stalled, "misbehave", "x", SOON).await.expect_err("it is never answered");
        let owes = snapshot(&host, "stalled");
        let connection = owes.connection.expect("it runs");
        assert_eq!((connection.in_flight, connection.unanswered, owes.totals.expired), (1, 1, 1));
        assert!(owes.oldest_unanswered.is_some());

        let twice = register(&host, "twice", "reply-twice", AT_ONCE);
        for restarts in 1..=2 {
            call(&twice, "misbehave", "x").await.expect("the first answer counts");
            until(&host, "twice", |twice| twice.restarts == restarts).await;
        }
        call(&twice, "echo", "x").await.expect("it is answered");
        let after = snapshot(&host, "twice");
        assert_eq!((after.totals.duplicates, after.totals.answers, after.calls), (2, 3, 3));
        assert_eq!(after.connection.map(|connection| connection.duplicates), Some(0), "this one is innocent");
        assert_eq!((after.oldest_unanswered, after.totals.in_flight), (None, 0));
        host.shutdown(Duration::ZERO).await;
    });
}
