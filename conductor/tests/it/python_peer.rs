//! An extension in Python, standard library only, written from `docs/protocol.md`: its whole life, first with the test
//! as its host, then under the real one. It is the one that `new extension --language python` writes.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use extension_host::{EventKind, Host, HostOptions, LauncherProgram, Manifest, Read};
use ipc_protocol::FaultCode;
use ipc_protocol::control::{Goodbye, Heartbeat, Progress};
use ipc_protocol::handshake::Hello;
use ipc_transport::connection::{CloseReason, ConnectOptions, Connection, PeerEvents, connect};
use ipc_transport::{CallError, CallResult, Caller, Encoded, Payload, ProgressSink, Reply, Request};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::new_extension::{authors, has_python};
use crate::support::{BOUND, Ended, Place};

/// What the extension said beside its answers.
#[derive(Debug)]
enum Said {
    Progress(Progress),
    Heartbeat,
    Goodbye(Goodbye),
}

type Mouth = mpsc::UnboundedSender<Said>;

struct Ears(Mouth);

impl PeerEvents for Ears {
    fn heartbeat(&self, _: Heartbeat) {
        // Nobody listens any more once the test is over.
        let _ = self.0.send(Said::Heartbeat);
    }

    fn goodbye(&self, goodbye: Goodbye) {
        let _ = self.0.send(Said::Goodbye(goodbye));
    }
}

/// Waits for something that it says.
async fn heard<T>(ears: &mut mpsc::UnboundedReceiver<Said>, mut is: impl FnMut(Said) -> Option<T>) -> T {
    let listening = async {
        loop {
            let said = ears.recv().await.expect("it says so before it ends");
            if let Some(found) = is(said) {
                return found;
            }
        }
    };
    tokio::time::timeout(BOUND, listening).await.expect("it is said in time")
}

fn scaffolded(place: &Place, name: &str) -> PathBuf {
    let mut command = authors(place, &place.path(""), env!("CARGO_BIN_EXE_conductor"));
    command.args(["new", "extension", name, "--language", "python"]);
    Ended::of(command.output().expect("the conductor runs")).with_code(0);
    place.path(name)
}

/// The extension's process, its connection, and both ends of what it says.
async fn connected(place: &Place) -> (Child, Connection, Mouth, mpsc::UnboundedReceiver<Said>) {
    let program = scaffolded(place, "peer").join("extension.py");
    let (ours, theirs) = UnixStream::pair().expect("a socket pair is to be had");
    let child = Command::new(program).stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).spawn();
    let child = child.expect("it is executable");
    let mut hello = Hello::new("peer", 12, 34);
    hello.message_bytes_max = 16 << 20;
    let mut options = ConnectOptions::new(hello);
    (options.welcome_timeout, options.ready_timeout) = (BOUND, BOUND);
    let (mouth, ears) = mpsc::unbounded_channel();
    let connection =
        connect(ours, options, Arc::new(Ears(mouth.clone()))).await.expect("it does the handshake");
    (child, connection, mouth, ears)
}

fn request<'a>(method: &'a str, arguments: &Value, timeout: Duration) -> Request<'a> {
    let payload = Payload::Encoded(Encoded::from_value(arguments).expect("the arguments are encoded"));
    Request::new(method, payload, timeout)
}

fn call(caller: &dyn Caller, method: &str, arguments: &Value, timeout: Duration) -> Reply {
    caller.call(request(method, arguments, timeout))
}

fn text(result: CallResult) -> String {
    result.expect("it answers").decode().expect("it is text")
}

fn fault(result: CallResult) -> FaultCode {
    match result {
        Err(CallError::Fault(fault)) => fault.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_answers_tells_its_progress_is_cancelled_and_drains() {
    if !has_python("it_answers_tells_its_progress_is_cancelled_and_drains") {
        return;
    }
    let place = Place::new();
    let (mut child, peer, mouth, mut ears) = connected(&place).await;
    assert!(peer.method("greet").expect("it is in the table").idempotent);

    assert_eq!(text(call(&peer, "greet", &json!({"name": "World"}), BOUND).await), "Hello, World!");
    // Five frames there, five back, and others' in between.
    let long = "x".repeat(5 << 20);
    let calls: Vec<_> = [long.as_str(), "short", long.as_str()]
        .map(|name| (name, call(&peer, "greet", &json!({"name": name, "unknown": 1}), BOUND)))
        .into();
    for (name, reply) in calls {
        assert!(text(reply.await) == format!("Hello, {name}!"));
    }
    for wrong in [json!({}), json!({"name": 7}), json!({"name": ""}), json!([1])] {
        let code = fault(call(&peer, "greet", &wrong, BOUND).await);
        assert_eq!(code, FaultCode::InvalidArgument, "{wrong}");
    }
    heard(&mut ears, |said| matches!(said, Said::Heartbeat).then_some(())).await;

    let endless = json!({"below": u64::MAX >> 1});
    let told = ProgressSink::new(move |progress| {
        let _ = mouth.send(Said::Progress(progress));
    });
    let first = peer.call(request("count_primes", &endless, BOUND).with_progress(told));
    let progress = heard(&mut ears, |said| match said {
        Said::Progress(progress) => Some(progress),
        _ => None,
    })
    .await;
    let last = (u64::MAX >> 1) - 1;
    assert_eq!((progress.total, progress.message.as_str()), (Some(last), "looking for primes"));
    // A deadline ends the second one, by the extension's own clock or by the host's cancel.
    let late = call(&peer, "count_primes", &endless, Duration::from_millis(50)).await;
    assert!(matches!(late, Err(CallError::Unknown(_) | CallError::Fault(_))), "{late:?}");

    // What is in flight is finished before it goes: a drain ends because dropping the reply cancels the call.
    peer.drain();
    drop(first);
    let goodbye = heard(&mut ears, |said| match said {
        Said::Goodbye(goodbye) => Some(goodbye),
        _ => None,
    })
    .await;
    assert_eq!(goodbye.reason, "drained");
    assert_eq!(peer.closed().await, CloseReason::Eof);
    assert!(child.wait().expect("it is a child").success());
}

#[tokio::test]
async fn the_real_host_starts_it_starts_it_again_and_ends_it() {
    if !has_python("the_real_host_starts_it_starts_it_again_and_ends_it") {
        return;
    }
    let place = Place::new();
    let folder = scaffolded(&place, "peer");
    let launcher = LauncherProgram::Path(env!("CARGO_BIN_EXE_conductor").into());
    let host = Host::new(HostOptions::new(launcher)).expect("a host");
    let manifest = Manifest::load(&folder.join("extension.toml")).expect("the manifest is right");
    host.register(manifest, folder.join("extension.py")).expect("it is registered");
    let mut events = host.subscribe();
    let peer = host.extension("peer").expect("it is registered");
    assert_eq!(text(call(&peer, "greet", &json!({"name": "a"}), BOUND).await), "Hello, a!");

    // Gone in the middle of a call that may be made again: the host makes it again, in a new incarnation.
    let endless = call(&peer, "count_primes", &json!({"below": u64::MAX >> 1}), BOUND);
    let pid = host.snapshot()[0].pid.expect("it runs");
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::KILL).expect("it runs until it is killed");
    let mut ready = 0;
    while ready < 2 {
        match events.wait().await {
            Read::Event(_, event) => ready += u32::from(matches!(event.kind, EventKind::Ready { .. })),
            Read::Gap { lost } => panic!("{lost} events were missed"),
            Read::Empty => {}
        }
    }
    drop(endless);
    assert_eq!(text(call(&peer, "greet", &json!({"name": "b"}), BOUND).await), "Hello, b!");
    host.shutdown(Duration::from_secs(60)).await;
    let ends: Vec<_> = host.snapshot().into_iter().flat_map(|one| one.past_ends).collect();
    let failures: Vec<_> = ends.iter().map(|end| end.report.class.is_failure()).collect();
    assert_eq!(failures, [true, false], "{ends:?}");
}

#[test]
fn conductor_call_is_answered_and_tells_its_faults() {
    if !has_python("conductor_call_is_answered_and_tells_its_faults") {
        return;
    }
    let place = Place::new();
    let folder = scaffolded(&place, "peer");
    let conductor = |arguments: &[&str]| {
        let mut command = authors(&place, &folder, env!("CARGO_BIN_EXE_conductor"));
        Ended::of(command.args(arguments).output().expect("the conductor runs"))
    };
    let called = conductor(&["call", "peer.greet", r#"{"name": "you"}"#]).with_code(0);
    assert_eq!(called.document(), json!("Hello, you!"));
    assert_eq!(
        conductor(&["call", "peer.count_primes", r#"{"below": 100}"#]).with_code(0).document(),
        json!(25)
    );
    let told = conductor(&["call", "peer.greet", r#"{"name": ""}"#]).with_code(1).stderr;
    assert!(told.contains("`name` is empty") && told.contains("caller"), "{told}");
    let told = conductor(&["call", "peer.grete", r#"{"name": "you"}"#]).with_code(2).stderr;
    assert!(told.contains("did you mean `greet`?"), "{told}");
    let arguments = ["call", "peer.count_primes", r#"{"below": 9223372036854775807}"#, "--timeout", "300ms"];
    conductor(&arguments).with_code(1);
}
