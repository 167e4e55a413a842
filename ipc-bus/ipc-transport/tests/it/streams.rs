//! Streams against a peer that writes them by hand, well or not.

use std::sync::Arc;

use ipc_protocol::handshake::{FEATURE_RINGS, FEATURE_STREAMS, Hello, MethodEntry};
use ipc_protocol::limits::STREAM_WINDOW_BYTES;
use ipc_protocol::stream::{EXTENSION_TYPE, ITEM_OVERHEAD_BYTES, OF_EXTENSION};
use ipc_protocol::{Codec, Fault, FaultCode, Header, Kind};
use ipc_testkit::Peer;
use ipc_testkit::peer::PATIENCE;
use ipc_transport::connection::{CloseReason, ConnectOptions, Connection, connect};
use ipc_transport::stream::IncomingStream;
use ipc_transport::{Answer, CallError, CallResult, Caller, Cause, Payload, Reply, Request};

/// The name of a stream, as a result.
fn name(id: u64) -> Vec<u8> {
    let mut name = vec![0xd7, EXTENSION_TYPE.to_be_bytes()[0]];
    name.extend(id.to_le_bytes());
    name
}

fn id(number: u64) -> u64 {
    OF_EXTENSION | number
}

async fn connect_to<T: Send + 'static>(
    script: impl FnOnce(Peer) -> T + Send + 'static,
) -> (Connection, std::thread::JoinHandle<T>) {
    let (socket, peer) = Peer::run(move |mut peer| {
        let features: &[&str] =
            if super::OFFERS_RINGS { &[FEATURE_RINGS, FEATURE_STREAMS] } else { &[FEATURE_STREAMS] };
        let mut streaming = MethodEntry::new("stream", 0);
        streaming.streams = true;
        peer.accept_with(features, vec![streaming, MethodEntry::new("plain", 0)]);
        script(peer)
    });
    let mut options = ConnectOptions::new(Hello::new("test", 3, 99));
    options.offers_rings = super::OFFERS_RINGS;
    (connect(socket, options, Arc::new(())).await.expect("the peer is good"), peer)
}

fn call(connection: &Connection, method: &str) -> Reply {
    connection.call(Request::new(method, Payload::Typed(&mut Some(())), PATIENCE))
}

/// The streams of a result, whatever it says.
struct Streams(Vec<IncomingStream>);

impl<'de> serde::Deserialize<'de> for Streams {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer)?;
        let claimed = (0..1000).chain(OF_EXTENSION..OF_EXTENSION + 1000);
        Ok(Self(claimed.filter_map(ipc_transport::stream::claim).collect()))
    }
}

impl serde::Serialize for Streams {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

fn streams(result: CallResult) -> Vec<IncomingStream> {
    result.and_then(|answer| Ok(answer.decode::<Streams>()?)).expect("the call succeeds").0
}

async fn one(connection: &Connection) -> IncomingStream {
    let mut streams = streams(call(connection, "stream").await);
    assert_eq!(streams.len(), 1);
    streams.pop().expect("it is one")
}

/// An item of so many bytes in all.
fn item(bytes: usize) -> Vec<u8> {
    let mut item = vec![0xc6];
    item.extend(u32::try_from(bytes - 5).expect("it is short").to_be_bytes());
    item.resize(bytes, 7);
    item
}

/// Answers the next call with one stream; returns its credit.
fn begin(peer: &mut Peer, number: u64) -> u64 {
    let call = peer.expect(Kind::Call);
    peer.reply(&call, &name(id(number)));
    let credit = peer.expect(Kind::StreamCredit);
    assert_eq!(credit.header.id, id(number));
    credit.header.aux
}

#[tokio::test]
async fn credit_is_renewed_as_items_are_taken_and_never_beyond_a_window() {
    const ITEM: usize = 10_000;
    let cost = ITEM as u64 + ITEM_OVERHEAD_BYTES;
    let script = move |mut peer: Peer| {
        let mut granted = begin(&mut peer, 1);
        assert_eq!(granted, STREAM_WINDOW_BYTES);
        let mut sent = 0;
        for _ in 0..200 {
            while sent >= granted {
                let credit = peer.expect(Kind::StreamCredit).header.aux;
                assert!(
                    credit > granted && credit <= sent + STREAM_WINDOW_BYTES,
                    "{granted} {credit} {sent}"
                );
                granted = credit;
            }
            peer.send(peer.header(Kind::StreamData, id(1)), &item(ITEM));
            sent += cost;
        }
        peer.send(Header { codec: Codec::None, ..peer.header(Kind::StreamEnd, id(1)) }, b"");
        peer.receive()
    };
    let (connection, peer) = connect_to(script).await;
    let mut stream = one(&connection).await;
    for at in 0..200 {
        let next = stream.next().await.expect("an item").expect("a good one");
        assert_eq!(next.bytes.len(), ITEM, "{at}");
    }
    assert!(stream.next().await.is_none() && stream.next().await.is_none());
    assert_eq!(connection.open_streams(), 0);
    drop((stream, connection));
    let last = peer.join().expect("the script goes through");
    assert!(last.is_none_or(|frame| frame.header.kind == Kind::StreamCredit), "no drop: it has ended");
}

#[tokio::test]
async fn a_writer_that_takes_more_than_it_was_granted_breaks_the_protocol() {
    for (items, expected) in
        [(2, "waits for credit"), (1, "codec that was not agreed on"), (0, "above the limit")]
    {
        let is_first_large = items == 2;
        let script = move |mut peer: Peer| {
            begin(&mut peer, 1);
            let header = peer.header(Kind::StreamData, id(1));
            match items {
                // One beyond the window passes, a second does not.
                2 => (0..2).for_each(|_| {
                    peer.send(header, &item(2 * usize::try_from(STREAM_WINDOW_BYTES).expect("small")));
                }),
                1 => peer.send(Header { codec: Codec::Wincode, ..header }, b"\x01"),
                _ => peer.send(header, &item((1 << 20) + 1)),
            }
            peer.receive()
        };
        let (connection, peer) = connect_to(script).await;
        let mut stream = one(&connection).await;
        match connection.closed().await {
            CloseReason::Violation(what) => assert!(what.contains(expected), "{what}"),
            other => panic!("{other:?}"),
        }
        // What came before it counts.
        if is_first_large {
            assert!(stream.next().await.expect("an item").is_ok());
        }
        assert!(matches!(stream.next().await, Some(Err(CallError::Unknown(Cause::ProtocolViolation(_))))));
        assert!(stream.next().await.is_none());
        drop(connection);
        assert!(peer.join().expect("the script goes through").is_none());
    }
}

#[tokio::test]
async fn streams_that_nobody_wants_are_dropped_at_their_writer() {
    let script = |mut peer: Peer| {
        // Wanted by nobody: the answer comes after its caller has gone, the next is not looked at.
        let late = peer.expect(Kind::Call);
        assert_eq!(peer.expect(Kind::Cancel).header.id, late.header.id);
        let mut two = vec![0x92];
        two.extend([name(id(1)), name(id(2))].concat());
        peer.reply(&late, &two);
        assert_eq!(peer.expect(Kind::StreamDrop).header.id, id(1));
        assert_eq!(peer.expect(Kind::StreamDrop).header.id, id(2));
        begin(&mut peer, 3);
        assert_eq!(peer.expect(Kind::StreamDrop).header.id, id(3), "its result was dropped");
        begin(&mut peer, 4);
        // On their way while it is dropped.
        peer.send(peer.header(Kind::StreamData, id(4)), b"\x01");
        let call = peer.expect(Kind::Call);
        peer.reply(&call, b"\xc0");
        assert_eq!(peer.expect(Kind::StreamDrop).header.id, id(4));
        peer.send(peer.header(Kind::StreamData, id(4)), &item(2 << 20));
        peer.say(Kind::StreamEnd, id(4), &Fault::new(FaultCode::Failed, "as it was dropped"));
        // Never named, and not agreed on in this direction.
        for kind in [Kind::StreamData, Kind::StreamEnd, Kind::StreamCredit, Kind::StreamDrop] {
            peer.send(Header { codec: Codec::None, ..peer.header(kind, id(77)) }, b"");
        }
        // Named by a method that has none: not the host's to know.
        let call = peer.expect(Kind::Call);
        peer.reply(&call, &name(id(9)));
        peer.receive()
    };
    let (connection, peer) = connect_to(script).await;
    let reply = call(&connection, "stream");
    // Sent before it is given up.
    while connection.statistics().bytes_queued > 0 {
        tokio::task::yield_now().await;
    }
    drop(reply);
    while connection.statistics().late == 0 {
        tokio::task::yield_now().await;
    }
    drop(call(&connection, "stream").await.expect("it answers"));
    let stream = one(&connection).await;
    let answered: Answer = call(&connection, "plain").await.expect("it answers");
    assert!(!answered.has_streams());
    drop(stream);
    let plain = call(&connection, "plain").await.expect("it answers");
    assert!(!plain.has_streams(), "it is what it is");
    assert_eq!(connection.open_streams(), 0);
    drop(connection);
    assert!(peer.join().expect("the script goes through").is_none());
}

#[tokio::test]
async fn names_that_are_none_end_at_once_and_all_else_goes_on() {
    let script = |mut peer: Peer| {
        begin(&mut peer, 1);
        let call = peer.expect(Kind::Call);
        // Another's, one that is open, the same twice, and half a name.
        let mut names = vec![0x95];
        names.extend([name(5), name(id(1)), name(id(2)), name(id(2))].concat());
        names.push(0xc0);
        peer.reply(&call, &names);
        assert_eq!(peer.expect(Kind::StreamCredit).header.id, id(2));
        for number in [1, 2] {
            peer.send(peer.header(Kind::StreamData, id(number)), b"\x05");
            peer.send(Header { codec: Codec::None, ..peer.header(Kind::StreamEnd, id(number)) }, b"");
        }
        peer.receive()
    };
    let (connection, peer) = connect_to(script).await;
    let first = one(&connection).await;
    let named = streams(call(&connection, "stream").await);
    assert_eq!(named.len(), 3);
    let mut ends = Vec::new();
    for mut stream in named {
        match stream.next().await {
            Some(Err(CallError::Fault(fault))) => {
                assert_eq!(fault.code, FaultCode::ProtocolViolation);
                ends.push("none");
            }
            Some(Ok(_)) => ends.push("good"),
            other => panic!("{other:?}"),
        }
    }
    ends.sort_unstable();
    // The one that was open has two readers, which is its extension's doing: one of them gets the items.
    assert_eq!(ends, ["good", "good", "none"]);
    drop((first, connection));
    assert!(
        peer.join()
            .expect("the script goes through")
            .is_none_or(|frame| frame.header.kind == Kind::StreamDrop)
    );
}

#[tokio::test]
async fn the_end_of_the_peer_ends_its_streams_after_what_it_sent() {
    let script = |mut peer: Peer| {
        begin(&mut peer, 1);
        peer.send(peer.header(Kind::StreamData, id(1)), b"\x05");
    };
    let (connection, peer) = connect_to(script).await;
    let mut stream = one(&connection).await;
    connection.closed().await;
    peer.join().expect("the script goes through");
    connection.fail_all(Cause::Died("SIGKILL".to_owned()));
    assert_eq!(&stream.next().await.expect("an item").expect("a good one").bytes[..], b"\x05");
    assert!(matches!(stream.next().await, Some(Err(CallError::Unknown(Cause::Died(_))))));
}

#[tokio::test]
async fn a_result_that_names_more_streams_than_there_may_be_multiplies_nothing() {
    let script = |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        let mut many = vec![0xdd];
        many.extend(1_000_u32.to_be_bytes());
        (0..1_000).for_each(|number| many.extend(name(id(number))));
        peer.reply(&call, &many);
        let mut credits = 0;
        while let Some(frame) = peer.receive() {
            credits += u32::from(frame.header.kind == Kind::StreamCredit);
        }
        credits
    };
    let (connection, peer) = connect_to(script).await;
    assert_eq!(streams(call(&connection, "stream").await).len(), 256);
    assert_eq!(connection.open_streams(), 0, "they were read by nobody");
    while connection.statistics().bytes_queued > 0 {
        tokio::task::yield_now().await;
    }
    drop(connection);
    assert_eq!(peer.join().expect("the script goes through"), 256);
}
