//! In which codec calls and answers go: the fast one where both sides mean the same, MessagePack elsewhere.

use std::sync::Arc;

use ipc_protocol::handshake::{FEATURE_WINCODE, Hello, MethodEntry};
use ipc_protocol::{Codec, Header, Kind};
use ipc_testkit::Peer;
use ipc_testkit::peer::PATIENCE;
use ipc_transport::codec::{self, FastSlot};
use ipc_transport::connection::{ConnectOptions, Connection, connect};
use ipc_transport::{CallError, Caller, Cause, Encoded, Payload, Reply, Request};

const HASH: u64 = 0x5eed;

async fn connect_to<T: Send + 'static>(
    features: &'static [&'static str],
    schema_hash: u64,
    script: impl FnOnce(Peer) -> T + Send + 'static,
) -> (Connection, std::thread::JoinHandle<T>) {
    let (socket, peer) = Peer::run(move |mut peer| {
        peer.accept_with(features, vec![MethodEntry::new("other", 1), MethodEntry::new("echo", schema_hash)]);
        script(peer)
    });
    let mut hello = Hello::new("test", 3, 99);
    hello.message_bytes_max = 200;
    (connect(socket, ConnectOptions::new(hello), Arc::new(())).await.expect("the peer is good"), peer)
}

/// Answers every call with its own bytes; returns the codecs that came.
fn echo(mut peer: Peer) -> Vec<Codec> {
    let mut codecs = Vec::new();
    while let Some(call) = peer.receive() {
        if call.header.kind == Kind::Call {
            codecs.push(call.header.codec);
            let header = Header { codec: call.header.codec, ..peer.header(Kind::Reply, call.header.id) };
            peer.send(header, &call.body);
        }
    }
    codecs
}

fn call(connection: &Connection, schema_hash: u64, text: &str) -> Reply {
    let mut slot = FastSlot::new(text.to_owned(), schema_hash);
    connection.call(Request::new("echo", Payload::Typed(&mut slot), PATIENCE))
}

async fn text(reply: Reply) -> String {
    reply.await.expect("the peer answers").decode_fast().expect("it answers text")
}

#[tokio::test]
async fn calls_go_fast_only_where_both_sides_mean_the_same() {
    for (features, theirs, ours, codec) in [
        (&[FEATURE_WINCODE][..], HASH, HASH, Codec::Wincode),
        (&["later", FEATURE_WINCODE], HASH, HASH, Codec::Wincode),
        (&[], HASH, HASH, Codec::MessagePack),
        (&["later"], HASH, HASH, Codec::MessagePack),
        (&[FEATURE_WINCODE], HASH + 1, HASH, Codec::MessagePack),
        (&[FEATURE_WINCODE], 0, HASH, Codec::MessagePack),
        (&[FEATURE_WINCODE], 0, 0, Codec::MessagePack),
        (&[FEATURE_WINCODE], 1, 0, Codec::MessagePack),
    ] {
        let (connection, peer) = connect_to(features, theirs, echo).await;
        assert_eq!(connection.is_fast("echo", ours), codec == Codec::Wincode);
        assert!(!connection.is_fast("other", HASH) && !connection.is_fast("nothing", HASH));
        assert_eq!(text(call(&connection, ours, "a text")).await, "a text");
        assert_eq!(connection.statistics().calls_fast, u64::from(codec == Codec::Wincode));
        // What is encoded already is MessagePack, whatever the method takes.
        let encoded = Encoded::from_value("b").expect("text is encoded");
        let reply = connection.call(Request::new("echo", Payload::Encoded(encoded), PATIENCE));
        assert_eq!(reply.await.expect("it answers").decode::<String>().expect("it is text"), "b");
        drop(connection);
        assert_eq!(
            peer.join().expect("the script goes through"),
            [codec, Codec::MessagePack],
            "{features:?}"
        );
    }
}

#[tokio::test]
async fn a_call_too_long_for_the_peer_goes_in_the_shorter_codec() {
    let (connection, peer) = connect_to(&[FEATURE_WINCODE], HASH, echo).await;
    let mut slot = FastSlot::new(vec![1_u64; 100], HASH);
    let reply = connection.call(Request::new("echo", Payload::Typed(&mut slot), PATIENCE));
    assert_eq!(reply.await.expect("it answers").decode_fast::<Vec<u64>>().expect("numbers").len(), 100);
    drop(connection);
    assert_eq!(peer.join().expect("the script goes through"), [Codec::MessagePack]);
}

#[tokio::test]
async fn calls_that_wait_for_room_keep_their_codec() {
    let script = |mut peer: Peer| {
        let first = peer.expect(Kind::Call);
        peer.reply(&first, b"\xa0");
        let second = peer.expect(Kind::Call);
        peer.send(
            Header { codec: Codec::Wincode, ..peer.header(Kind::Reply, second.header.id) },
            &second.body,
        );
        (first.header.codec, second.header.codec)
    };
    let (socket, peer) = Peer::run(move |mut peer| {
        peer.accept_with(&[FEATURE_WINCODE], vec![MethodEntry::new("echo", HASH)]);
        script(peer)
    });
    let options = ConnectOptions { in_flight_max: 1, ..ConnectOptions::new(Hello::new("test", 3, 99)) };
    let connection = connect(socket, options, Arc::new(())).await.expect("the peer is good");
    let (first, second) = (call(&connection, 0, "first"), call(&connection, HASH, "second"));
    assert_eq!((text(first).await, text(second).await), (String::new(), "second".to_owned()));
    assert_eq!(peer.join().expect("the script goes through"), (Codec::MessagePack, Codec::Wincode));
}

#[tokio::test]
async fn a_fast_call_may_be_answered_in_either_codec_and_a_plain_one_may_not() {
    let script = |mut peer: Peer| {
        let mut fast = Vec::new();
        codec::encode(&"in the other".to_owned(), &mut fast).expect("it is small");
        let first = peer.expect(Kind::Call);
        peer.reply(&first, b"\xa2mp");
        let second = peer.expect(Kind::Call);
        peer.send(Header { codec: Codec::Wincode, ..peer.header(Kind::Reply, second.header.id) }, &fast);
    };
    let (connection, _peer) = connect_to(&[FEATURE_WINCODE], HASH, script).await;
    assert_eq!(text(call(&connection, HASH, "x")).await, "mp");
    let refused = call(&connection, 0, "x").await;
    let Err(CallError::Unknown(Cause::ProtocolViolation(what))) = refused else { panic!("{refused:?}") };
    assert!(what.ends_with("has a codec that was not agreed on"), "{what}");
}

#[tokio::test]
async fn bytes_in_a_codec_that_was_not_agreed_on_are_not_sent() {
    let (connection, peer) = connect_to(&[], HASH, echo).await;
    for codec in [Codec::Wincode, Codec::None] {
        let payload = Payload::Encoded(Encoded { codec, bytes: b"\xc0"[..].into() });
        let refused = connection.call(Request::new("echo", payload, PATIENCE)).await;
        assert!(matches!(refused, Err(CallError::Rejected { .. })), "{refused:?}");
    }
    drop(connection);
    assert_eq!(peer.join().expect("the script goes through"), []);
}
