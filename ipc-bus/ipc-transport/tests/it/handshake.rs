//! A wrong or silent peer gets a clear error that names what was expected and what came.

use std::error::Error;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ipc_protocol::control::{Goodbye, LogRecord};
use ipc_protocol::handshake::{Hello, MethodEntry, Ready, Welcome};
use ipc_protocol::limits::METHODS_MAX;
use ipc_protocol::{Fault, FaultCode, Kind};
use ipc_testkit::Peer;
use ipc_testkit::peer::PATIENCE;
use ipc_transport::connection::{ConnectOptions, Connection, PeerEvents, connect};
use ipc_transport::framing::{append_frame, append_message};
use ipc_transport::handshake::{HandshakeError, accept};
use parking_lot::Mutex;

fn options() -> ConnectOptions {
    ConnectOptions::new(Hello::new("test", 3, 99))
}

async fn connect_to(
    script: impl FnOnce(Peer) + Send + 'static,
    options: ConnectOptions,
) -> Result<Connection, HandshakeError> {
    let (socket, peer) = Peer::run(script);
    let connected = connect(socket, options, Arc::new(())).await;
    if connected.is_err() {
        peer.join().expect("the script goes through");
    }
    connected
}

/// The whole chain, as an edge prints it.
fn chain(error: &HandshakeError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn refusal(script: impl FnOnce(Peer) + Send + 'static, options: ConnectOptions) -> String {
    chain(&connect_to(script, options).await.expect_err("the peer is wrong"))
}

/// A peer that reads the hello and answers with a changed welcome.
async fn welcome_refusal(change: impl FnOnce(&mut Welcome) + Send + 'static) -> String {
    let script = |mut peer: Peer| {
        let hello: Hello = peer.expect(Kind::Hello).decode().expect("a hello is decoded");
        let mut welcome = Welcome::answering(&hello, 1, "test", "1.0.0", vec![MethodEntry::new("echo", 0)]);
        change(&mut welcome);
        peer.hello = hello;
        peer.say(Kind::Welcome, 0, &welcome);
    };
    refusal(script, options()).await
}

#[tokio::test]
async fn a_good_peer_is_known_afterwards() {
    let connection = connect_to(
        |mut peer| {
            peer.accept(&["b", "a"]);
            assert_eq!((peer.hello.in_flight_max, peer.hello.epoch), (7, 3));
        },
        ConnectOptions { in_flight_max: 7, ..options() },
    )
    .await
    .expect("the peer is good");
    assert_eq!(connection.welcome().extension_version, "1.0.0");
    assert_eq!(connection.method("a").map(|method| method.name.as_str()), Some("a"));
    assert_eq!(connection.method("c"), None);
}

#[tokio::test]
async fn a_silent_peer_is_named_with_what_was_expected() {
    let short = ConnectOptions { welcome_timeout: Duration::from_millis(20), ..options() };
    let text = refusal(|mut peer| while peer.receive().is_some() {}, short.clone()).await;
    assert_eq!(text, "the extension sent no Welcome frame within 20 ms");
    let half = |mut peer: Peer| {
        peer.raw(b"Ready.\n");
        while peer.receive().is_some() {}
    };
    let text = refusal(half, short).await;
    assert_eq!(text, "the extension sent no Welcome frame within 20 ms; it sent \"Ready.\\n\"");
    let no_ready = |mut peer: Peer| {
        let accepted = accept(&peer.socket, "test", PATIENCE).expect("the host says hello");
        accepted.welcome(&peer.socket, "1", vec![]).expect("the host reads");
        while peer.receive().is_some() {}
    };
    let short = ConnectOptions { ready_timeout: Duration::from_millis(20), ..options() };
    assert_eq!(refusal(no_ready, short).await, "the extension sent no Ready frame within 20 ms");
}

#[tokio::test]
async fn a_program_that_is_no_extension_is_shown_in_its_own_words() {
    let text = refusal(|mut peer| peer.raw(b"Usage: cat [OPTION]... [FILE]...\nTry --help"), options()).await;
    assert_eq!(
        text,
        "the extension sent something else than the expected Welcome frame; it sent \
         \"Usage: cat [OPTION]... [FILE]...\\nTry --help\": frame kind 101 is not known to protocol version 1"
    );
    let text = refusal(|mut peer| peer.raw(b"hello\n"), options()).await;
    assert_eq!(text, "the extension closed the channel before its Welcome frame; it sent \"hello\\n\"");
    let text = refusal(drop, options()).await;
    assert_eq!(text, "the extension closed the channel before its Welcome frame");
}

#[tokio::test]
async fn a_welcome_must_answer_the_hello() {
    type Case = (fn(&mut Welcome), &'static str);
    let cases: [Case; 8] = [
        (|w| w.version = 9, "the extension's protocol version is 9, where one of [1] was expected"),
        (|w| w.extension = "other".into(), "the extension's name is \"other\", where \"test\" was expected"),
        (|w| w.epoch = 4, "the extension's epoch is 4, where 3 was expected"),
        (|w| w.nonce = 0, "the extension's nonce is 0, where 99 was expected"),
        (
            |w| w.methods = vec![w.methods[0].clone(); 2],
            "the extension's method table is two \"echo\", where one entry per name was expected",
        ),
        (
            |w| w.methods[0].name = "n".repeat(65),
            "the extension's method or feature name's length is 65, where 1 to 64 bytes was expected",
        ),
        (
            |w| w.features = vec!["f".into(); 65],
            "the extension's number of features is 65, where at most 64 was expected",
        ),
        (
            |w| w.methods = vec![w.methods[0].clone(); METHODS_MAX + 1],
            "the extension's number of methods is 1025, where at most 1024 was expected",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(welcome_refusal(change).await, expected);
    }
}

#[tokio::test]
async fn another_frame_or_a_refusal_is_told() {
    let text = refusal(
        |mut peer| {
            peer.hello.epoch = 3;
            peer.say(Kind::Ready, 0, &Ready::default());
        },
        options(),
    )
    .await;
    assert_eq!(text, "the extension sent a Ready frame where Welcome was expected");
    let text = refusal(|mut peer| peer.say(Kind::Goodbye, 0, &Goodbye::new("not today")), options()).await;
    assert_eq!(text, "the extension said goodbye where its Welcome frame was expected: not today");
    let text = refusal(|mut peer| peer.say(Kind::Welcome, 0, &"what?"), options()).await;
    assert!(text.starts_with("the extension's epoch is 0"), "{text}");
    let text = refusal(
        |mut peer| {
            peer.hello.epoch = 3;
            peer.say(Kind::Welcome, 0, &"what?");
        },
        options(),
    )
    .await;
    assert!(text.contains("it sent \"\\xa5what?\": the body of a Welcome frame cannot be read"), "{text}");
}

#[tokio::test]
async fn a_failed_start_brings_the_extensions_fault() {
    let script = |peer: Peer| {
        let accepted = accept(&peer.socket, "test", PATIENCE).expect("the host says hello");
        accepted.welcome(&peer.socket, "1", vec![]).expect("the host reads");
        let fault = Fault::new(FaultCode::Io, "the database is locked");
        accepted.ready(&peer.socket, &Ready::failed(fault)).expect("the host reads");
    };
    assert_eq!(refusal(script, options()).await, "the extension could not start: the database is locked");
}

#[derive(Default)]
struct Logs(Mutex<Vec<String>>);

impl PeerEvents for Logs {
    fn log(&self, record: LogRecord) {
        self.0.lock().push(record.message);
    }
}

#[tokio::test]
async fn logs_of_the_start_are_passed_on_before_it_is_over() {
    let (socket, _peer) = Peer::run(|mut peer| {
        let accepted = accept(&peer.socket, "test", PATIENCE).expect("the host says hello");
        peer.hello = accepted.hello.clone();
        accepted.welcome(&peer.socket, "1", vec![]).expect("the host reads");
        peer.say(Kind::Log, 0, &LogRecord::new(3, "test", "warming up"));
        accepted.ready(&peer.socket, &Ready::default()).expect("the host reads");
    });
    let logs = Arc::new(Logs::default());
    connect(socket, options(), Arc::clone(&logs) as Arc<dyn PeerEvents>).await.expect("the peer is good");
    assert_eq!(*logs.0.lock(), ["warming up"]);
}

#[tokio::test]
async fn a_log_of_another_incarnation_ends_the_handshake() {
    let script = |mut peer: Peer| {
        let accepted = accept(&peer.socket, "test", PATIENCE).expect("the host says hello");
        peer.hello = accepted.hello.clone();
        accepted.welcome(&peer.socket, "1", vec![]).expect("the host reads");
        peer.hello.epoch = 2;
        peer.say(Kind::Log, 0, &LogRecord::new(3, "test", "from before"));
    };
    assert_eq!(refusal(script, options()).await, "the extension's epoch is 2, where 3 was expected");
}

#[test]
fn an_extension_that_is_started_by_hand_says_so() {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair is to be had");
    let error = accept(&theirs, "test", Duration::from_millis(10)).expect_err("nobody says hello");
    assert_eq!(chain(&error), "the host sent no Hello frame within 10 ms");
    ours.write_all(b"list\n").expect("the socket takes a few bytes");
    drop(ours);
    let error = accept(&theirs, "test", PATIENCE).expect_err("nobody says hello");
    assert_eq!(chain(&error), "the host closed the channel before its Hello frame; it sent \"list\\n\"");
}

#[tokio::test]
async fn a_host_for_another_extension_is_told_so() {
    let script = |peer: Peer| {
        let error = accept(&peer.socket, "other", PATIENCE).expect_err("the host means another");
        assert!(matches!(error, HandshakeError::Mismatch { .. }), "{error:?}");
    };
    assert_eq!(
        refusal(script, options()).await,
        "the extension said goodbye where its Welcome frame was expected: the host's name for this extension is \
         \"test\", where \"other\" was expected"
    );
}

#[tokio::test]
async fn a_configuration_above_the_limit_is_not_sent() {
    let mut options = options();
    options.hello.config = vec![0; 300_000];
    let text = refusal(|mut peer| assert!(peer.receive().is_none()), options).await;
    assert!(text.starts_with("the host's hello, with the configuration, is 300"), "{text}");
}

/// A peer that says so many heartbeats in one breath with its welcome and its ready.
fn breathless(heartbeats: usize, filler: usize) -> impl FnOnce(Peer) + Send + 'static {
    move |mut peer: Peer| {
        let hello: Hello = peer.expect(Kind::Hello).decode().expect("a hello is decoded");
        let welcome = Welcome::answering(&hello, 1, "test", "1.0.0", Vec::new());
        peer.hello = hello;
        let mut bytes = Vec::new();
        append_message(&mut bytes, peer.header(Kind::Welcome, 0), &welcome).expect("it is encoded");
        let value = ipc_testkit::reference::bin(filler);
        let body = [b"\x83\xa7running\x00\xa9oldest_ms\x00\xa1x".as_slice(), &value].concat();
        for _ in 0..heartbeats {
            append_frame(&mut bytes, peer.header(Kind::Heartbeat, 0), &body);
        }
        append_message(&mut bytes, peer.header(Kind::Ready, 0), &Ready::default()).expect("it is encoded");
        // The host may have had enough before the end.
        let _ = peer.socket.write_all(&bytes);
    }
}

#[tokio::test]
async fn what_precedes_ready_is_bounded_in_number_size_and_time() {
    connect_to(breathless(4096, 0), options()).await.expect("so many are allowed");
    for (heartbeats, filler) in [(4097, 0), (17, 250_000)] {
        let text = refusal(breathless(heartbeats, filler), options()).await;
        assert!(text.ends_with("at most 4096 frames and 4 MiB may precede Ready"), "{text}");
    }
    // What is here already does not wait for the clock, and must look at it all the same.
    let hurried = ConnectOptions { ready_timeout: Duration::ZERO, ..options() };
    let text = refusal(breathless(10, 0), hurried).await;
    assert!(text.starts_with("the extension sent no Ready frame within 0 ms"), "{text}");
}
