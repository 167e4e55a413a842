//! Starts that fail, in every way: tried again as the manifest says, then refused with the reason.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use extension_host::{EventKind, HostOptions, InstanceState, LauncherProgram, Manifest};
use ipc_transport::{CallError, Cause};

use crate::support::{
    Collected, call, call_within, death, event, host, manifest, on_both_runtimes, options, register,
    snapshot, until, until_state,
};

/// Two failures and it is broken.
const TWICE: &str = "[restart]\nbackoff = [\"1ms\", \"1ms\"]\nlimit = { count = 2, within = \"1h\" }\n";

/// The refusal of an extension that ended too often: its own fault.
fn refusal(error: CallError) -> String {
    match error {
        CallError::NotDelivered(Cause::Broken { reason, retry_after: Some(_) }) => reason,
        other => panic!("the call should be refused: {other:?}"),
    }
}

/// The refusal of what the host could not start.
fn rejection(error: CallError) -> String {
    match error {
        CallError::Rejected { reason, .. } => reason,
        other => panic!("the call should be rejected: {other:?}"),
    }
}

#[test]
fn a_start_that_fails_is_tried_again_and_then_refused_with_its_reason() {
    on_both_runtimes(async || {
        for (mode, class, reason) in [
            ("no-hello", "start-timeout", "sent no Welcome frame within 150 ms"),
            ("never-ready", "start-timeout", "sent no Ready frame within 150 ms"),
            ("wrong-version", "protocol-violation", "protocol version is 99"),
            ("wrong-name", "protocol-violation", "name is \"somebody-else\""),
            (
                "exit-at-start",
                "fault",
                "it exited with code 3 before it was ready; its last output: hostile: exiting",
            ),
            ("exit-before-ready", "fault", "it exited with code 4 before it was ready"),
            ("refuse-start", "start-refused", "no start today, as told"),
        ] {
            let mut short = options();
            (short.welcome_timeout, short.ready_timeout) =
                (Duration::from_millis(150), Duration::from_millis(150));
            // A busy machine may take longer than that for a start that is none of the two.
            if class != "start-timeout" {
                (short.welcome_timeout, short.ready_timeout) =
                    (Duration::from_secs(60), Duration::from_secs(60));
            }
            let host = host(short);
            let mut events = host.subscribe();
            let route = register(&host, "wrong", mode, TWICE);
            let refused = refusal(call(&route, "echo", "x").await.expect_err("it never starts"));
            assert!(
                refused.contains("`wrong` is broken: it failed 2 times within 3600s ("),
                "{mode}: {refused}"
            );
            assert!(refused.contains(reason), "{mode}: {refused}");
            // At once from now on, without another start.
            assert_eq!(refusal(call(&route, "echo", "x").await.expect_err("it is broken")), refused);
            let broken = snapshot(&host, "wrong");
            assert_eq!((broken.state, broken.starts, broken.restarts), (InstanceState::Broken, 2, 1));
            let classes: Vec<_> = broken.past_ends.iter().map(|end| end.report.class.name()).collect();
            assert_eq!(classes, [class, class], "{mode}");
            event(&mut events, "wrong", |kind| matches!(kind, EventKind::Broken { .. }).then_some(())).await;
            // By hand it gets another chance.
            host.reset("wrong").await.expect("it is registered");
            until_state(&host, "wrong", InstanceState::Stopped).await;
            refusal(call(&route, "echo", "x").await.expect_err("it is still wrong"));
            assert_eq!(snapshot(&host, "wrong").starts, 4);
            host.shutdown(Duration::ZERO).await;
        }
    });
}

#[test]
fn what_cannot_be_executed_is_refused_at_once_as_its_own_fault() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let script = place.path().join("script");
    // Made by another process: one that is forked here meanwhile would hold the file open.
    let make = "printf '#!/no/such/interpreter\\n' >\"$0\" && chmod 755 \"$0\"";
    let made = Command::new("/bin/sh").args(["-c", make]).arg(&script).status();
    assert!(made.expect("a shell starts").success());
    let script = script.to_str().expect("the temporary folder has a printable name");
    on_both_runtimes(async || {
        for (program, reason) in [
            ("/no/such/program", "program /no/such/program cannot be executed: No such file"),
            ("/etc/passwd", "(os error 13); make it executable with chmod +x"),
            (
                script,
                "(os error 2); the interpreter of its `#!` line, or the loader that it needs, is missing",
            ),
        ] {
            let host = host(options());
            host.register(manifest("absent", "echo", ""), PathBuf::from(program)).expect("the name is free");
            let route = host.extension("absent").expect("it is registered");
            let error = call(&route, "echo", "x").await.expect_err("it cannot start");
            let CallError::NotDelivered(Cause::Broken { reason: refused, retry_after: None }) = error else {
                panic!("the call should be refused for good: {error:?}");
            };
            assert!(refused.contains(reason), "{refused}");
            let broken = snapshot(&host, "absent");
            assert_eq!((broken.starts, broken.past_ends[0].report.class.name()), (1, "launcher-failed"));
            host.shutdown(Duration::from_secs(10)).await;
        }
    });
}

#[test]
fn a_missing_launcher_is_named() {
    on_both_runtimes(async || {
        let mut without = options();
        without.launcher = LauncherProgram::Path("/no/such/launcher".into());
        let host = host(without);
        let route = register(&host, "any", "echo", "");
        let refused = rejection(call(&route, "echo", "x").await.expect_err("there is no launcher"));
        assert!(refused.contains("the launcher /no/such/launcher cannot be executed"), "{refused}");
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn an_eager_extension_starts_without_a_call() {
    on_both_runtimes(async || {
        let host = host(options());
        register(&host, "eager", "echo", "[activation]\nstart = \"eager\"\n");
        let ready = until_state(&host, "eager", InstanceState::Ready).await;
        assert_eq!(ready.starts, 1);
        assert!(ready.last_start.is_some());
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn the_environment_is_clean_but_for_what_the_manifest_says() {
    on_both_runtimes(async || {
        let log = Arc::new(Collected::default());
        let host = host(HostOptions { log: log.clone(), ..options() });
        let text = "name = \"printer\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"env\"]\nenvironment = { OWN = \"1\" }\n\
                    [restart]\npolicy = \"never\"\n[permissions]\nenvironment = [\"PATH\", \"NO_SUCH_VARIABLE\"]\n";
        let printer = Manifest::parse(text, Path::new("extension.toml")).expect("the manifest is right");
        host.register(printer, "/usr/bin/env".into()).expect("the name is free");
        let route = host.extension("printer").expect("it is registered");
        let refused = refusal(call(&route, "echo", "x").await.expect_err("it is no extension"));
        assert!(
            refused.contains("must not be restarted, and it exited with code 0 before it was ready"),
            "{refused}"
        );
        let mut lines: Vec<String> = log.lines.lock().iter().map(|(_, text)| text.clone()).collect();
        lines.sort();
        let path = std::env::var("PATH").expect("a test has a PATH");
        // And the mark by which it is known when its launcher is killed.
        assert!(lines.pop().is_some_and(|last| last.starts_with("SYMPHONY_INSTANCE=")), "{lines:?}");
        assert_eq!(lines, ["OWN=1".to_owned(), format!("PATH={path}")]);
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_start_that_hangs_does_not_hold_up_others() {
    on_both_runtimes(async || {
        let mut slow = options();
        (slow.starts_at_once_max, slow.welcome_timeout) = (1, Duration::from_secs(3_600));
        let host = host(slow);
        register(&host, "silent", "no-hello", "[activation]\nstart = \"eager\"\n");
        until(&host, "silent", |silent| silent.starts == 1).await;
        let echo = register(&host, "echo", "echo", "");
        assert_eq!(call(&echo, "echo", "x").await.expect("it is answered"), "x");
        assert_eq!(snapshot(&host, "silent").state, InstanceState::Starting);
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_call_that_waits_for_a_failing_start_learns_how_it_failed() {
    on_both_runtimes(async || {
        let host = host(options());
        let patient = "[activation]\nstart = \"eager\"\n[restart]\nbackoff = [\"30s\", \"30s\"]\n";
        let route = register(&host, "wrong", "exit-at-start", patient);
        until_state(&host, "wrong", InstanceState::Backoff).await;
        let error =
            call_within(&route, "echo", "x", Duration::from_millis(20)).await.expect_err("nothing runs");
        let CallError::NotDelivered(Cause::Died(how)) = &error else { panic!("{error:?}") };
        assert!(how.contains("it exited with code 3 before it was ready"), "{how}");
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_reset_of_a_running_extension_forgets_its_failures() {
    on_both_runtimes(async || {
        let host = host(options());
        let mut events = host.subscribe();
        let route = register(&host, "x", "crash-exit", TWICE);
        for starts in 1..=4 {
            call(&route, "echo", "x").await.expect("it is answered");
            host.reset("x").await.expect("it is registered");
            let running = until_state(&host, "x", InstanceState::Ready).await;
            assert_eq!(running.starts, starts);
            call(&route, "misbehave", "x").await.expect_err("it ends");
            assert_eq!(death(&mut events, "x").await.0, "fault");
        }
        host.shutdown(Duration::ZERO).await;
    });
}

/// One that cannot start, and is left alone after its first failure.
fn register_broken(host: &extension_host::Host, name: &str, fallback: &str) -> extension_host::Route {
    let activation = if fallback.is_empty() {
        String::new()
    } else {
        format!("[activation]\nfallback = \"{fallback}\"\n")
    };
    let rest = format!("{activation}[restart]\npolicy = \"never\"\n");
    register(host, name, "exit-at-start", &rest)
}

#[test]
fn while_one_is_broken_its_fallback_answers() {
    on_both_runtimes(async || {
        let host = host(options());
        let fancy = register_broken(&host, "fancy", "middling");
        register_broken(&host, "middling", "plain");
        register(&host, "plain", "echo", "");
        // It waits for a start that fails, and is answered all the same; so are those that come later.
        assert_eq!(call(&fancy, "once", "first").await.expect("it is answered"), "first");
        until_state(&host, "fancy", InstanceState::Broken).await;
        for _ in 0..3 {
            assert_eq!(call(&fancy, "once", "later").await.expect("it is answered"), "later");
        }
        assert_eq!(snapshot(&host, "plain").calls, 4);
        assert_eq!(snapshot(&host, "fancy").calls, 0);
        // Reset, it is tried again itself.
        host.reset("fancy").await.expect("it is registered");
        assert_eq!(call(&fancy, "once", "again").await.expect("it is answered"), "again");
        assert_eq!(snapshot(&host, "fancy").starts, 2);
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn without_anybody_who_could_stand_in_the_refusal_is_its_own() {
    on_both_runtimes(async || {
        for (first, second) in [("second", ""), ("second", "first"), ("first", ""), ("nobody", "")] {
            let host = host(options());
            let route = register_broken(&host, "first", first);
            let other = register_broken(&host, "second", second);
            for route in [&other, &route, &route, &other] {
                let error = call(route, "echo", "x").await.expect_err("nobody is there");
                let CallError::NotDelivered(cause) = &error else { panic!("{error:?}") };
                assert_eq!(cause.class(), "broken", "{first} {second}: {error}");
            }
            until_state(&host, "first", InstanceState::Broken).await;
            let error = call(&route, "echo", "x").await.expect_err("nobody is there");
            assert!(error.to_string().contains("extension `first` is broken"), "{error}");
            host.shutdown(Duration::ZERO).await;
        }
    });
}
