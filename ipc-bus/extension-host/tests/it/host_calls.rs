//! Extensions that ask: each other through the host, and the host for what it keeps. Real processes, over shared memory
//! and over the socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use extension_host::{Host, InstanceState, Manifest, NewArtifact, OpenedArtifact, Route, Storage};
use extension_sdk::{Context, Fault, FaultCode, Origin};
use ipc_protocol::limits::STATE_BYTES_MAX;
use ipc_transport::CallError;
use parking_lot::Mutex;

use crate::programs::programs;
use crate::support::{BOUND, call, host, kill, on_both_runtimes, options, snapshot, until, until_state};

#[extension_sdk::interface]
pub(crate) trait Asks {
    #[method(idempotent)]
    fn pass_on(&self, cx: &Context, path: Vec<String>, text: String) -> Result<String, Fault>;
    async fn pass_on_later(&self, cx: &Context, path: Vec<String>, text: String) -> Result<String, Fault>;
    fn ask_at_once(&self, cx: &Context, other: String, times: u32) -> Result<u32, Fault>;
    fn circle(&self, cx: &Context, others: Vec<String>) -> Result<(), Fault>;
    fn hold(&self, cx: &Context) -> Result<(), Fault>;
    fn wait_for(&self, cx: &Context, other: String, timeout_ms: u64) -> Result<(), Fault>;
    fn misbehave(&self, cx: &Context, other: String) -> Result<String, Fault>;
    fn count(&self, cx: &Context) -> Result<u64, Fault>;
    fn keep(&self, cx: &Context, bytes: usize) -> Result<(), Fault>;
    fn fill(&self, cx: &Context, bytes: u64, name: Option<String>) -> Result<String, Fault>;
    fn sum(&self, cx: &Context, artifact: String) -> Result<u64, Fault>;
    fn waste(&self, cx: &Context, artifacts: u32) -> Result<(), Fault>;
}

const TRANSPORTS: [&str; 2] = ["shared-memory", "socket"];

/// The example `asks` under this name, which may call these.
pub(crate) fn register(
    host: &Host,
    transport: &str,
    name: &str,
    calls: &[&str],
    rest: &str,
) -> (Route, AsksClient) {
    let text = format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\ntransport = \"{transport}\"\n[run]\ncommand = [\"asks\"]\n\
         environment = {{ ASKS_NAME = \"{name}\" }}\n[permissions]\ncalls = {calls:?}\n{rest}"
    );
    let manifest =
        Manifest::parse(&text, Path::new("extension.toml")).unwrap_or_else(|found| panic!("{found}"));
    host.register(manifest, programs().asks.clone()).expect("the name is free");
    let route = host.extension(name).expect("it is registered");
    (route.clone(), AsksClient::new(route).with_timeout(BOUND))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

pub(crate) fn fault<T: std::fmt::Debug>(result: Result<T, CallError>) -> Fault {
    match result {
        Err(CallError::Fault(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

/// On both runtimes, over both transports.
pub(crate) fn everywhere(test: impl AsyncFn(&str)) {
    on_both_runtimes(async || {
        for transport in TRANSPORTS {
            test(transport).await;
        }
    });
}

#[test]
fn one_calls_another_through_the_host_which_starts_it() {
    everywhere(async |transport| {
        let host = host(options());
        let (_, a) = register(&host, transport, "a", &["b", "c"], "");
        let (_, _b) = register(&host, transport, "b", &["c"], "");
        let (_, _c) = register(&host, transport, "c", &[], "");
        let long = "x".repeat(200_000);
        for text in ["hello", long.as_str()] {
            let answer = a.pass_on(names(&["b", "c"]), text.to_owned()).await.expect("it is passed on");
            assert_eq!(answer, text);
            let answer = a.pass_on_later(names(&["c"]), text.to_owned()).await.expect("it is passed on");
            assert_eq!(answer, text);
        }
        assert_eq!(a.ask_at_once("b".to_owned(), 100).await.expect("all are answered"), 100);
        let calls = |name| snapshot(&host, name).totals;
        assert_eq!((calls("a").host_calls, calls("b").host_calls, calls("c").host_calls), (104, 2, 0));
        assert_eq!((calls("a").calls, calls("b").calls, calls("c").calls), (5, 102, 4));
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn nobody_calls_whom_his_manifest_does_not_name() {
    everywhere(async |transport| {
        let host = host(options());
        let (_, a) = register(&host, transport, "a", &["file-explorre"], "");
        let (_, _b) = register(&host, transport, "file-explorer", &[], "");
        let denied = fault(a.pass_on(names(&["file-explorer"]), "x".to_owned()).await);
        assert_eq!(denied.code, FaultCode::PermissionDenied);
        assert_eq!(
            denied.message,
            "extension `a` may not call `file-explorer`: name it in `permissions.calls` of extension.toml"
        );
        let absent = fault(a.pass_on(names(&["file-explorre"]), "x".to_owned()).await);
        assert_eq!(absent.code, FaultCode::NotFound);
        assert_eq!(absent.message, "there is no extension `file-explorre`; did you mean `file-explorer`?");
        assert_eq!(snapshot(&host, "file-explorer").starts, 0);
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn a_circle_ends_with_a_fault_and_holds_nobody_up() {
    everywhere(async |transport| {
        let host = host(options());
        let (_, a) = register(&host, transport, "a", &["a", "b"], "");
        let (_, b) = register(&host, transport, "b", &["a"], "");
        for others in [names(&["b", "a"]), names(&["a"])] {
            let circles: Vec<_> = (0..16).map(|_| a.circle(others.clone())).collect();
            for circle in circles {
                let deep = fault(circle.await);
                assert_eq!(deep.code, FaultCode::TooDeep, "{deep}");
                assert!(deep.message.contains("within 8 calls of extensions"), "{deep}");
            }
        }
        for extension in [a, b] {
            assert_eq!(extension.pass_on(Vec::new(), "x".to_owned()).await.expect("it answers"), "x");
        }
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn whoever_waits_for_another_lets_others_be_read_and_run() {
    everywhere(async |transport| {
        let host = host(options());
        let (_, a) = register(&host, transport, "a", &["a", "b"], "");
        let (b_route, _b) = register(&host, transport, "b", &[], "");
        // So often that it proves fast, and runs on the thread that reads; which then must read on while it waits.
        for _ in 0..20 {
            a.pass_on(Vec::new(), "x".to_owned()).await.expect("it answers");
        }
        assert_eq!(a.pass_on(names(&["b"]), "x".to_owned()).await.expect("it answers"), "x");
        // More at once, each several times within itself, than there are threads to run them.
        let nested: Vec<_> = (0..60).map(|_| a.pass_on(names(&["a", "a", "a"]), "x".to_owned())).collect();
        for answer in nested {
            assert_eq!(answer.await.expect("it answers"), "x");
        }
        // As many wait as there are threads for work, and others are answered all the same.
        let held: Vec<_> = (0..100).map(|_| a.wait_for("b".to_owned(), 0)).collect();
        let holding = until(&host, "b", |b| b.connection.is_some_and(|c| c.in_flight >= 32)).await;
        assert_eq!(holding.state, InstanceState::Ready);
        for _ in 0..20 {
            assert_eq!(a.pass_on(Vec::new(), "y".to_owned()).await.expect("it answers"), "y");
        }
        drop(held);
        until(&host, "b", |b| b.connection.is_some_and(|c| c.in_flight == 0)).await;
        assert_eq!(b_route.name(), "b");
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn deadline_and_cancel_pass_on_along_the_chain() {
    everywhere(async |transport| {
        let host = host(options());
        let (a_route, a) = register(&host, transport, "a", &["b"], "");
        let (_, b) = register(&host, transport, "b", &["a"], "");
        b.pass_on(Vec::new(), "x".to_owned()).await.expect("it answers");
        let idle = |name| {
            let host = &host;
            async move {
                until(host, name, |one| one.connection.is_some_and(|c| c.in_flight == 0)).await;
            }
        };
        // The client's own time limit.
        let late = fault(a.wait_for("b".to_owned(), 50).await);
        // Whoever sees it first: the host, or the one that is called.
        match late.code {
            FaultCode::OutcomeUnknown => assert_eq!(late.message, "extension `b`: the deadline passed"),
            code => assert_eq!(code, FaultCode::DeadlineExceeded, "{late}"),
        }
        idle("b").await;
        // That of the call which is served.
        let short = AsksClient::new(a_route.clone()).with_timeout(Duration::from_millis(100));
        let error = short.wait_for("b".to_owned(), 0).await.expect_err("nobody answers");
        assert!(matches!(&error, CallError::Unknown(_) | CallError::Fault(_)), "{error:?}");
        idle("b").await;
        idle("a").await;
        // Given up.
        let held = a.wait_for("b".to_owned(), 0);
        until(&host, "b", |b| b.connection.is_some_and(|c| c.in_flight == 1)).await;
        drop(held);
        idle("b").await;
        idle("a").await;
        assert_eq!((snapshot(&host, "a").starts, snapshot(&host, "b").starts), (1, 1));
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn who_dies_on_the_way_is_told_to_the_caller_and_takes_nobody_along() {
    everywhere(async |transport| {
        let host = host(options());
        let (_, a) = register(&host, transport, "a", &["b", "culprit"], "");
        let (_, _b) = register(&host, transport, "b", &[], "");
        crate::support::register(&host, "culprit", "crash-exit", "[restart]\nbackoff = [\"1ms\", \"1ms\"]\n");
        // The one that is called.
        let died = fault(a.misbehave("culprit".to_owned()).await);
        assert_eq!((died.code, died.origin), (FaultCode::OutcomeUnknown, Origin::Transport));
        assert!(died.message.contains("it exited with code 9"), "{died}");
        // The one that calls.
        let held = a.wait_for("b".to_owned(), 0);
        let held = tokio::spawn(held);
        until(&host, "b", |b| b.connection.is_some_and(|c| c.in_flight == 1)).await;
        kill(snapshot(&host, "a").pid.expect("this kernel tells the pid"));
        let error = held.await.expect("it does not panic").expect_err("its extension died");
        assert!(matches!(&error, CallError::Unknown(_)), "{error:?}");
        until(&host, "b", |b| b.connection.is_some_and(|c| c.in_flight == 0)).await;
        assert_eq!(snapshot(&host, "b").starts, 1);
        host.shutdown(Duration::from_secs(10)).await;
    });
}

/// Keeps in memory.
#[derive(Debug, Default)]
struct Kept(Mutex<BTreeMap<String, Vec<u8>>>);

impl Storage for Kept {
    fn state(&self, extension: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.0.lock().get(extension).cloned())
    }

    fn put_state(&self, extension: &str, state: &[u8]) -> Result<(), Fault> {
        self.0.lock().insert(extension.to_owned(), state.to_vec());
        Ok(())
    }

    fn open_artifact(&self, _: &str, _: &str) -> Result<OpenedArtifact, Fault> {
        Err(Fault::new(FaultCode::Unsupported, "only state"))
    }

    fn create_artifact(&self, _: &str, _: u64) -> Result<Box<dyn NewArtifact>, Fault> {
        Err(Fault::new(FaultCode::Unsupported, "only state"))
    }
}

#[test]
fn state_is_kept_over_restarts_for_each_extension_on_its_own() {
    everywhere(async |transport| {
        let kept = Arc::new(Kept::default());
        let mut keeps = options();
        keeps.storage = Some(kept.clone());
        let host = host(keeps);
        let (_, a) = register(&host, transport, "a", &[], "");
        let (_, b) = register(&host, transport, "b", &[], "");
        for expected in 1..=4 {
            assert_eq!(a.count().await.expect("it counts"), expected);
            host.stop("a", "for the test").await.expect("it is registered");
            until_state(&host, "a", InstanceState::Stopped).await;
        }
        assert_eq!(b.count().await.expect("it counts"), 1);
        assert_eq!(kept.0.lock().keys().collect::<Vec<_>>(), ["a", "b"]);
        let most = usize::try_from(STATE_BYTES_MAX).expect("it fits");
        for bytes in [0, 1, most] {
            b.keep(bytes).await.expect("it is kept");
        }
        assert_eq!(fault(b.keep(most + 1).await).code, FaultCode::TooLarge);
        assert_eq!(kept.0.lock()["b"].len(), most);
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn a_host_that_keeps_nothing_says_so() {
    everywhere(async |transport| {
        let host = host(options());
        let (_, a) = register(&host, transport, "a", &[], "");
        let refused = fault(a.count().await);
        assert_eq!(refused.code, FaultCode::Unsupported);
        assert_eq!(refused.message, "this host keeps nothing for extensions");
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn an_extension_that_asks_for_nothing_is_none_the_worse() {
    on_both_runtimes(async || {
        let host = host(options());
        let plain = crate::support::register(&host, "plain", "echo", "");
        assert_eq!(call(&plain, "echo", "x").await.expect("it answers"), "x");
        assert_eq!(snapshot(&host, "plain").totals.host_calls, 0);
        host.shutdown(Duration::from_secs(10)).await;
    });
}
