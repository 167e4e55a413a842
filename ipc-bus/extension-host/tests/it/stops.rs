//! Stopping: in order where that works, by force where it does not, and nothing is left behind.

use std::time::Duration;

use extension_host::{InstanceState, RegisterError, StopTimes};
use ipc_transport::{CallError, Caller, Encoded, Payload, Request};
use rustix::process::Signal;

use crate::support::{
    call, host, is_running, manifest, on_both_runtimes, options, register, signal, snapshot, until,
    until_state,
};

#[test]
fn the_ladder_ends_those_that_do_not_want_to_end() {
    on_both_runtimes(async || {
        for (mode, class) in [("echo", "stopped"), ("ignore-stop", "killed-by-host")] {
            let mut short = options();
            let step = Duration::from_millis(if mode == "echo" { 60_000 } else { 30 });
            short.stop_times = StopTimes { drain: step, goodbye: step, terminate: step };
            let host = host(short);
            let route = register(&host, "x", mode, "");
            call(&route, "echo", "x").await.expect("it is answered");
            let running = snapshot(&host, "x");
            host.stop("x", "for the test").await.expect("it is registered");
            let stopped = until_state(&host, "x", InstanceState::Stopped).await;
            assert_eq!(stopped.past_ends[0].report.class.name(), class);
            for pid in [running.pid, running.launcher_pid] {
                assert!(!is_running(pid.expect("it ran")), "{mode}");
            }
            assert_eq!(call(&route, "echo", "again").await.expect("it starts again"), "again");
            host.shutdown(Duration::ZERO).await;
        }
    });
}

#[test]
fn draining_waits_for_calls_in_flight() {
    on_both_runtimes(async || {
        let host = host(options());
        let route = register(&host, "x", "stall", "");
        call(&route, "echo", "x").await.expect("it is answered");
        let arguments = Payload::Encoded(Encoded::from_value("x").expect("text"));
        let reply = route.call(Request::new("misbehave", arguments, Duration::from_millis(300)));
        let stalled = tokio::spawn(reply);
        until(&host, "x", |x| x.connection.is_some_and(|connection| connection.in_flight == 1)).await;
        host.shutdown(Duration::from_secs(4)).await;
        // It had its whole deadline, though the host was stopping all the while.
        let error = stalled.await.expect("the call does not panic").expect_err("it is never answered");
        assert_eq!(error.to_string(), "the outcome is unknown: the deadline passed");
    });
}

#[test]
fn shutdown_leaves_nothing_whatever_its_budget() {
    on_both_runtimes(async || {
        for budget in [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(20)] {
            let host = host(options());
            let mut pids = Vec::new();
            let modes: &[_] = if budget > Duration::from_secs(1) {
                &["echo", "runaways"]
            } else {
                &["echo", "runaways", "ignore-stop"]
            };
            for mode in modes {
                let route = register(&host, mode, mode, "");
                call(&route, "echo", "x").await.expect("it is answered");
                let running = snapshot(&host, mode);
                pids.extend([running.pid.expect("it runs"), running.launcher_pid.expect("it runs")]);
                if *mode == "runaways" {
                    let arguments = Payload::Encoded(Encoded::from_value("x").expect("text"));
                    let request = Request::new("misbehave", arguments, Duration::from_secs(60));
                    let answer = route.call(request).await.expect("it is answered");
                    pids.extend(answer.decode::<Vec<u32>>().expect("two pids"));
                }
            }
            assert!(pids.iter().all(|pid| is_running(*pid)), "{pids:?}");
            if budget.is_zero() {
                // Stopped launchers kill as well as running ones.
                for extension in host.snapshot() {
                    signal(extension.launcher_pid.expect("it runs"), Signal::STOP);
                }
            }
            host.shutdown(budget).await;
            let left: Vec<_> = pids.iter().filter(|pid| is_running(**pid)).collect();
            assert!(left.is_empty(), "{left:?} of {pids:?}");
            for extension in host.snapshot() {
                assert_eq!(extension.state, InstanceState::Closed);
                assert_eq!(extension.past_ends[0].report.class.name(), "host-shutdown");
            }
        }
    });
}

#[test]
fn a_second_shutdown_makes_the_first_one_shorter() {
    on_both_runtimes(async || {
        let host = host(options());
        let route = register(&host, "x", "ignore-stop", "");
        call(&route, "echo", "x").await.expect("it is answered");
        let patient = tokio::spawn({
            let host = host.clone();
            async move { host.shutdown(Duration::from_secs(3_600)).await }
        });
        until_state(&host, "x", InstanceState::Stopping).await;
        tokio::time::timeout(crate::support::BOUND, host.shutdown(Duration::ZERO))
            .await
            .expect("it ends now");
        patient.await.expect("the first shutdown ends too");
    });
}

#[test]
fn a_host_that_stops_takes_no_calls_and_no_extensions() {
    on_both_runtimes(async || {
        let host = host(options());
        let route = register(&host, "x", "echo", "");
        host.shutdown(Duration::from_secs(1)).await;
        let error = call(&route, "echo", "x").await.expect_err("the host has stopped");
        assert!(
            matches!(&error, CallError::Rejected { reason, .. } if reason == "the host stops"),
            "{error:?}"
        );
        let refused = host.register(manifest("y", "echo", ""), "/bin/true".into());
        assert_eq!(refused, Err(RegisterError::Closing));
        assert_eq!(snapshot(&host, "x").starts, 0);
    });
}

#[test]
fn a_dropped_host_and_a_dropped_runtime_leave_nothing() {
    for drop_host_first in [true, false] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (host, pids) = runtime.block_on(async {
            let host = host(options());
            let route = register(&host, "x", "ignore-stop", "");
            call(&route, "echo", "x").await.expect("it is answered");
            let running = snapshot(&host, "x");
            (host, [running.pid.expect("it runs"), running.launcher_pid.expect("it runs")])
        });
        if drop_host_first {
            drop(host);
            let gone = async {
                while pids.iter().any(|pid| is_running(*pid)) {
                    tokio::task::yield_now().await;
                }
            };
            let bounded = async { tokio::time::timeout(crate::support::BOUND, gone).await };
            runtime.block_on(bounded).expect("they end");
        } else {
            drop(runtime);
            let give_up = std::time::Instant::now() + crate::support::BOUND;
            while pids.iter().any(|pid| is_running(*pid)) {
                assert!(std::time::Instant::now() < give_up, "they still run");
                std::thread::yield_now();
            }
        }
    }
}
