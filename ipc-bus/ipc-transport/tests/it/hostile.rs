//! A peer that breaks the protocol costs its own calls and nothing else.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipc_protocol::control::DescriptorGrant;
use ipc_protocol::handshake::Ready;
use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, Kind, Origin, Retry};
use ipc_testkit::Peer;
use ipc_testkit::peer::PATIENCE;
use ipc_transport::connection::CloseReason;
use ipc_transport::framing::append_frame;
use ipc_transport::{CallError, Cause};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::connected::{EPOCH, call, connect_to};

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

/// What nobody wants is skipped as it comes. It must not be taken for an answer when somebody wants it at its end.
#[tokio::test]
async fn an_answer_that_began_before_its_call_was_sent_ends_the_peer() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let script = move |mut peer: Peer| {
        told.recv().expect("the handshake is over");
        // The ids of a fresh connection are known: this is the first call's.
        let header = peer.header(Kind::Reply, 1 << 32);
        let begin = Header { flags: Flags::MORE, length: 100, ..header };
        peer.raw(&[&begin.encode()[..], &[0xc0; 100]].concat());
        peer.expect(Kind::Call);
        peer.send(header, b"\xc0");
        while peer.receive().is_some() {}
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    tell.send(()).expect("the script waits");
    while connection.statistics().bytes_read < 132 {
        tokio::task::yield_now().await;
    }
    let reply = call(&connection, "echo", vec![0xc0]);
    let CloseReason::Violation(what) = connection.closed().await else { panic!("no violation was seen") };
    assert!(what.ends_with("this call was not sent yet when its answer began"), "{what}");
    connection.fail_all(Cause::ProtocolViolation(what));
    let result = reply.await;
    assert!(matches!(result, Err(CallError::Unknown(Cause::ProtocolViolation(_)))), "{result:?}");
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
            if !peer.try_raw(&ping) {
                return;
            }
        }
        panic!("the host goes on and on");
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let reason = connection.closed().await;
    let CloseReason::Violation(what) = reason else { panic!("{reason:?}") };
    assert!(what.starts_with("a Ping frame for id 1 came"), "{what}");
    assert!(what.ends_with("the peer must first read the answers to what it asked for"), "{what}");
    peer.join().expect("the script sees the end");
}

#[tokio::test]
async fn a_peer_may_ask_while_a_message_longer_than_the_queue_is_written_to_it() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let script = move |mut peer: Peer| {
        told.recv().expect("the call is queued");
        peer.send(Header { codec: Codec::None, ..peer.header(Kind::Ping, 1) }, b"");
        told.recv().expect("the host has heard it");
        let call = peer.expect(Kind::Call);
        peer.expect(Kind::Pong);
        peer.reply(&call, b"\xc0");
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let reply = call(&connection, "echo", vec![1; 6 << 20]);
    tell.send(()).expect("the script waits");
    while connection.statistics().bytes_read == 0 {
        tokio::task::yield_now().await;
    }
    tell.send(()).expect("the script waits");
    reply.await.expect("the peer did nothing wrong");
    peer.join().expect("the script goes through");
}

/// Sends one frame, with a descriptor beside it.
fn send_with_descriptor(peer: &Peer, header: Header, body: &[u8]) {
    let mut bytes = Vec::new();
    append_frame(&mut bytes, header, body);
    let descriptors = [peer.socket.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    assert!(beside.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is room for one");
    let sent = sendmsg(&peer.socket, &[IoSlice::new(&bytes)], &mut beside, SendFlags::empty());
    assert_eq!(sent.expect("the host reads"), bytes.len());
}

/// A read of a Unix socket ends behind each message that brings descriptors, though more is there.
#[tokio::test]
async fn descriptors_do_not_hide_the_answer_behind_them() {
    let (sent, all_sent) = std::sync::mpsc::channel();
    let script = move |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        for id in 0..20 {
            send_with_descriptor(
                &peer,
                Header { codec: Codec::None, ..peer.header(Kind::Descriptor, id) },
                b"",
            );
        }
        peer.reply(&call, b"\xc0");
        sent.send(()).expect("the test waits");
        while peer.receive().is_some() {}
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let reply = call(&connection, "echo", vec![0xc0]);
    // Blocks the whole runtime, so that all bytes are there and no edge comes after the first read.
    all_sent.recv().expect("the script says so");
    reply.await.expect("the answer was sent");
    drop(connection);
    peer.join().expect("the script sees the end");
}

#[tokio::test]
async fn events_that_come_too_fast_are_dropped_and_counted_and_answers_are_not() {
    let enough = Arc::new(AtomicBool::new(false));
    let is_enough = Arc::clone(&enough);
    let script = move |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        // One value of 200 KB that costs nothing to look at.
        let value = ipc_testkit::reference::bin(200_000);
        let body = [b"\x83\xa7running\x00\xa9oldest_ms\x00\xa1x".as_slice(), &value].concat();
        // ORDERING(enough): Relaxed: a flag on its own.
        while !is_enough.load(Ordering::Relaxed) {
            peer.send(peer.header(Kind::Heartbeat, 0), &body);
        }
        peer.reply(&call, b"\xc0");
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let reply = call(&connection, "echo", vec![0xc0]);
    while connection.statistics().dropped == 0 {
        tokio::task::yield_now().await;
    }
    // ORDERING(enough): as above.
    enough.store(true, Ordering::Relaxed);
    reply.await.expect("an answer is never dropped");
    peer.join().expect("the script goes through");
}

#[tokio::test]
async fn a_late_answer_of_any_size_is_not_kept() {
    let script = |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        peer.expect(Kind::Cancel);
        peer.reply(&call, &vec![0xc0; 3 << 20]);
        let next = peer.expect(Kind::Call);
        peer.reply(&next, b"\xc0");
    };
    let (connection, _) = connect_to(script, Arc::new(())).await;
    drop(call(&connection, "echo", vec![0xc0]));
    call(&connection, "echo", vec![0xc0]).await.expect("nobody else notices");
    assert_eq!((connection.statistics().late, connection.in_flight()), (1, 0));
}

#[tokio::test]
async fn a_fault_speaks_for_its_extension_and_the_header_says_when_to_retry() {
    let rows = [
        (Origin::Host, 0, Origin::Extension, Retry::Never),
        (Origin::Transport, 0, Origin::Transport, Retry::Never),
        (Origin::Extension, 50, Origin::Extension, Retry::AfterMs(50)),
        (Origin::Extension, u64::MAX, Origin::Extension, Retry::AfterMs(u32::MAX)),
    ];
    let script = move |mut peer: Peer| {
        for (origin, aux, ..) in rows {
            let call = peer.expect(Kind::Call);
            let fault = Fault::new(FaultCode::Busy, "m").with_origin(origin);
            let body = ipc_transport::Encoded::from_value(&fault).expect("a fault is encoded");
            peer.send(Header { aux, ..peer.header(Kind::Fault, call.header.id) }, &body.bytes);
        }
    };
    let (connection, _) = connect_to(script, Arc::new(())).await;
    for (.., origin, retry) in rows {
        let result = call(&connection, "echo", vec![0xc0]).await;
        let Err(CallError::Fault(fault)) = result else { panic!("{result:?}") };
        assert_eq!((fault.origin, fault.retry), (origin, retry));
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_answers_that_nobody_wants() {
    let script = |mut peer: Peer| while peer.receive().is_some() {};
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let abandoned = call(&connection, "echo", vec![0xc0]);
    connection.drain();
    let idle = tokio::time::timeout(PATIENCE, connection.idle());
    let (idle, ()) = futures_util::future::join(idle, async { drop(abandoned) }).await;
    idle.expect("nobody waits for an outcome");
    assert_eq!(connection.in_flight(), 1, "the extension still owes its answer");
    drop(connection);
    peer.join().expect("the script sees the end");
}

#[tokio::test]
async fn the_bodies_of_waiting_calls_are_bounded() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let script = move |mut peer: Peer| {
        gone.recv().expect("the test says when");
        while let Some(frame) = peer.receive() {
            if frame.header.kind == Kind::Call {
                peer.reply(&frame, b"\xc0");
            }
        }
    };
    // The queue takes 4 MiB, and as much may wait.
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let large = || call(&connection, "echo", vec![1; 3 << 20]);
    let (queued, waiting) = (large(), large());
    let result = large().await;
    assert!(matches!(result, Err(CallError::Rejected { retry_after: Some(_), .. })), "{result:?}");
    drop(waiting);
    let waits_instead = large();
    go.send(()).expect("the script waits");
    queued.await.expect("the peer answers");
    waits_instead.await.expect("there was room again");
    drop(connection);
    peer.join().expect("the script sees the end");
}
