//! A peer that breaks the protocol costs its own calls and nothing else.

use std::sync::Arc;

use ipc_protocol::control::DescriptorGrant;
use ipc_protocol::handshake::Ready;
use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, Kind, Origin};
use ipc_testkit::Peer;
use ipc_transport::connection::CloseReason;
use ipc_transport::{CallError, Cause};

use crate::connected::{EPOCH, call, connect_to};

/// What the host says of a peer that does this after its first call.
async fn violation(then: impl FnOnce(&mut Peer, u64) + Send + 'static) -> String {
    let script = |mut peer: Peer| {
        let id = peer.expect(Kind::Call).header.id;
        then(&mut peer, id);
        // The host ends the channel, whether the peer likes it or not.
        while peer.receive().is_some() {}
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let reply = call(&connection, "echo", vec![0xc0]);
    let CloseReason::Violation(what) = connection.closed().await else { panic!("no violation was seen") };
    connection.fail_all(Cause::ProtocolViolation(what.clone()));
    let result = reply.await;
    assert!(
        matches!(&result, Err(CallError::Unknown(Cause::ProtocolViolation(cause))) if *cause == what)
            || result.is_ok(),
        "{result:?}"
    );
    peer.join().expect("the script sees the end");
    what
}

#[tokio::test]
async fn what_is_malformed_ends_the_peer() {
    let gibberish = violation(|peer, _| peer.raw(&[0xee; 40])).await;
    assert_eq!(gibberish, "frame kind 238 is not known to protocol version 1");
    let oversize = violation(|peer, id| {
        let header = Header { length: u32::MAX, ..peer.header(Kind::Reply, id) };
        peer.raw(&header.encode());
    })
    .await;
    assert_eq!(oversize, "a Reply frame announces 4294967295 bytes, above the limit of 1048576");
    let body = violation(|peer, id| peer.send(peer.header(Kind::Fault, id), b"\x93")).await;
    assert_eq!(body, "the body of a Fault frame cannot be read: the value is cut off after 1 bytes");
    let deep = violation(|peer, id| peer.send(peer.header(Kind::Fault, id), &vec![0x91; 200_000])).await;
    assert_eq!(deep, "the body of a Fault frame cannot be read: the value nests deeper than 128 at byte 128");
}

#[tokio::test]
async fn what_may_not_come_ends_the_peer() {
    let call_id = |id: u64| id;
    let twice = violation(move |peer, id| {
        let answer = peer.header(Kind::Reply, call_id(id));
        peer.send(answer, b"\xc0");
        peer.send(answer, b"\xc0");
    })
    .await;
    assert!(twice.ends_with("came, where every call is answered once, and this one was"), "{twice}");
    let unknown = violation(|peer, _| peer.send(peer.header(Kind::Reply, 77 << 32), b"\xc0")).await;
    assert!(unknown.ends_with("came, where no call has this id"), "{unknown}");
    let welcome = violation(|peer, _| peer.say(Kind::Ready, 0, &Ready::default())).await;
    assert!(welcome.ends_with("came, where the handshake is over"), "{welcome}");
    for kind in [Kind::Hello, Kind::Call, Kind::Cancel, Kind::HostReply, Kind::HostFault, Kind::Drain] {
        let from_host = violation(move |peer, _| peer.send(peer.header(kind, 0), b"")).await;
        assert!(from_host.ends_with("came, where only the host sends it"), "{from_host}");
    }
    let after = violation(|peer, id| {
        peer.say(Kind::Goodbye, 0, &ipc_protocol::control::Goodbye::new(""));
        peer.send(peer.header(Kind::Reply, id), b"\xc0");
    })
    .await;
    assert!(after.ends_with("came, where goodbye is a side's last frame"), "{after}");
    let codec = violation(|peer, id| {
        peer.send(Header { codec: Codec::Wincode, ..peer.header(Kind::Reply, id) }, b"\xc0");
    })
    .await;
    assert!(codec.ends_with("has a codec that was not agreed on"), "{codec}");
    for flags in [Flags::SEGMENT, Flags::METADATA] {
        for (kind, body) in [(Kind::Reply, b"\xc0"), (Kind::Goodbye, b"\x80")] {
            let what =
                violation(move |peer, id| peer.send(Header { flags, ..peer.header(kind, id) }, body)).await;
            assert!(what.ends_with("has flags that were not agreed on"), "{what}");
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_call_was_sent_ends_the_peer() {
    let script = |mut peer: Peer| {
        // The ids of a fresh connection are known: the second call's, which is still queued behind the first.
        peer.send(peer.header(Kind::Reply, 1 << 32 | 1), b"\xc0");
        while peer.receive().is_some() {}
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let replies = [call(&connection, "echo", vec![1; 3 << 20]), call(&connection, "echo", vec![1; 100])];
    let reason = connection.closed().await;
    connection.close("seen");
    assert!(matches!(reason, CloseReason::Violation(_)), "{reason:?}");
    drop(replies);
    peer.join().expect("the script sees the end");
}

#[tokio::test]
async fn frames_of_another_incarnation_are_dropped_and_counted() {
    let script = |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        let stale = Header { epoch: EPOCH - 1, ..peer.header(Kind::Reply, call.header.id) };
        peer.send(stale, b"\x01");
        peer.reply(&call, b"\x02");
    };
    let (connection, _) = connect_to(script, Arc::new(())).await;
    let answer = call(&connection, "echo", vec![0xc0]).await.expect("the right one answers");
    assert_eq!(answer.decode::<u8>().expect("it is 2"), 2);
    assert_eq!(connection.statistics().stale, 1);
}

#[tokio::test]
async fn what_is_defined_but_not_built_is_refused_in_its_own_terms() {
    let script = |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        peer.send(Header { aux: call.header.id, ..peer.header(Kind::HostCall, 41) }, &vec![0xc0; 2 << 20]);
        peer.send(peer.header(Kind::StreamData, 42), b"\xc0");
        peer.send(peer.header(Kind::StreamCredit, 43), b"");
        let grant = DescriptorGrant::new("artifact", 0, 10);
        peer.say(Kind::Descriptor, 44, &grant);
        peer.send(peer.header(Kind::StreamEnd, 45), b"");
        peer.send(Header { codec: Codec::None, ..peer.header(Kind::Ping, 46) }, b"");
        let answers: Vec<_> = (0..5).map(|_| peer.receive().expect("the host answers")).collect();
        peer.reply(&call, b"\xc0");
        answers
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    call(&connection, "echo", vec![0xc0]).await.expect("nobody else notices");
    let answers = peer.join().expect("the script goes through");
    let kinds: Vec<_> = answers.iter().map(|frame| (frame.header.kind, frame.header.id)).collect();
    assert_eq!(
        kinds,
        [
            (Kind::HostFault, 41),
            (Kind::StreamDrop, 42),
            (Kind::StreamEnd, 43),
            (Kind::HostFault, 44),
            (Kind::Pong, 46),
        ]
    );
    for frame in answers.iter().filter(|frame| !frame.body.is_empty()) {
        let fault: Fault = frame.decode().expect("a fault is decoded");
        assert_eq!((fault.code, fault.origin), (FaultCode::Unsupported, Origin::Host));
    }
}

#[tokio::test]
async fn a_peer_that_asks_and_does_not_read_is_ended() {
    let script = |mut peer: Peer| {
        let ping = Header { codec: Codec::None, ..peer.header(Kind::Ping, 1) }.encode().repeat(1000);
        // Until the host has enough of it, which it must have long before this.
        for _ in 0..1000 {
            if std::io::Write::write_all(&mut peer.socket, &ping).is_err() {
                return;
            }
        }
        panic!("the host goes on and on");
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let reason = connection.closed().await;
    let CloseReason::Violation(what) = reason else { panic!("{reason:?}") };
    assert!(what.ends_with("the peer must first read the answers to what it asked for"), "{what}");
    peer.join().expect("the script sees the end");
}
