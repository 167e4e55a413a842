//! What a peer can do with shared memory: to itself alone.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipc_protocol::handshake::Hello;
use ipc_protocol::{Header, Kind};
use ipc_testkit::Peer;
use ipc_testkit::peer::PATIENCE;
use ipc_transport::connection::{CloseReason, ConnectOptions, Connection, connect};
use ipc_transport::framing::append_frame;
use ipc_transport::ring::Latency;
use ipc_transport::{CallError, Caller, Cause, Encoded, Payload, Reply, Request};
use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};

/// Where the words of a region lie: `docs/protocol.md`.
const TAIL: u64 = 0;
const HEAD: u64 = 128;
const ASLEEP: u64 = 256;
const WANTS_ROOM: u64 = 384;

/// Calls of a bystander that must go through beside a hostile peer.
const BESIDE: u32 = 50;

async fn connect_to<T: Send + 'static>(
    latency: Latency,
    script: impl FnOnce(Peer) -> T + Send + 'static,
) -> (Connection, std::thread::JoinHandle<T>) {
    let (socket, peer) = Peer::run(|mut peer| {
        peer.accept(&["echo"]);
        assert!(peer.rings.is_some(), "the host offers rings");
        script(peer)
    });
    let options = ConnectOptions { latency, ..ConnectOptions::new(Hello::new("test", 3, 99)) };
    (connect(socket, options, Arc::new(())).await.expect("the peer is good"), peer)
}

fn call(connection: &Connection, timeout: Duration) -> Reply {
    let arguments = Payload::Encoded(Encoded::message_pack(vec![0xc0]));
    connection.call(Request::new("echo", arguments, timeout))
}

fn echo(mut peer: Peer) {
    while let Some(frame) = peer.receive() {
        if frame.header.kind == Kind::Call {
            peer.reply(&frame, &frame.body);
        }
    }
}

/// The peer's own region, as a file: it may write what it likes there.
fn own_region(peer: &Peer) -> File {
    let own = &peer.granted.as_ref().expect("rings were granted").own;
    File::from(own.try_clone().expect("a descriptor can be copied"))
}

fn is_unknown(result: &Result<ipc_transport::Answer, CallError>) -> bool {
    matches!(result, Err(CallError::Unknown(Cause::ProtocolViolation(_))))
}

/// What the host says of a peer that writes `value` where its own word is, after its first call.
async fn lie(latency: Latency, place: u64, value: u64) -> String {
    let (connection, peer) = connect_to(latency, move |mut peer: Peer| {
        peer.expect(Kind::Call);
        own_region(&peer).write_all_at(&value.to_le_bytes(), place).expect("its own region can be written");
        peer.ring_the_bell();
        while peer.receive().is_some() {}
    })
    .await;
    let reply = call(&connection, PATIENCE);
    // Whoever waits may find it; whoever does not wait is told as well.
    let mut reply = std::pin::pin!(reply);
    let reason = tokio::select! {
        reason = connection.closed() => reason,
        result = &mut reply => panic!("{result:?}"),
    };
    let CloseReason::Violation(what) = reason else { panic!("{reason:?}") };
    connection.fail_all(Cause::ProtocolViolation(what.clone()));
    let result = reply.await;
    assert!(is_unknown(&result), "{result:?}");
    peer.join().expect("the script sees the end");
    what
}

#[tokio::test]
async fn a_lying_tail_ends_the_peer() {
    for latency in [Latency::Balanced, Latency::Efficient] {
        for tail in [u64::MAX, 1 << 63, (256 << 10) + 1] {
            let what = lie(latency, TAIL, tail).await;
            assert!(
                what.ends_with("it says that it has written more than fits, or less than before"),
                "{what}"
            );
        }
    }
}

/// The host looks at it when it has something to write and no room that it knows of.
#[tokio::test]
async fn a_lying_head_ends_the_peer() {
    let (connection, peer) = connect_to(Latency::Balanced, |peer: Peer| {
        own_region(&peer).write_all_at(&u64::MAX.to_le_bytes(), HEAD).expect("its own region can be written");
        // The host may have filled the ring before, and wait.
        peer.ring_the_bell();
        // It never reads the ring, which would write the word anew.
        let _ = std::io::copy(&mut &peer.socket, &mut std::io::sink());
    })
    .await;
    let large = Encoded::message_pack(vec![0xc0; 1 << 20]);
    let reply = connection.call(Request::new("echo", Payload::Encoded(large), PATIENCE));
    let CloseReason::Violation(what) = connection.closed().await else { panic!("no violation was seen") };
    assert!(what.ends_with("it says that it has read what was never written, or less than before"), "{what}");
    connection.fail_all(Cause::ProtocolViolation(what));
    let result = reply.await;
    assert!(is_unknown(&result), "{result:?}");
    peer.join().expect("the script sees the end");
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_the_peer() {
    let (connection, peer) = connect_to(Latency::Balanced, |mut peer: Peer| {
        peer.expect(Kind::Call);
        // Its ring is empty: the tail alone says that there are frames, of zeros.
        own_region(&peer).write_all_at(&4096_u64.to_le_bytes(), TAIL).expect("its own region can be written");
        peer.ring_the_bell();
        while peer.receive().is_some() {}
    })
    .await;
    let reply = call(&connection, PATIENCE);
    let CloseReason::Violation(what) = connection.closed().await else { panic!("no violation was seen") };
    assert_eq!(what, "frame kind 0 is not known to protocol version 1");
    drop(reply);
    peer.join().expect("the script sees the end");
}

/// All of its words, at full speed, while the host calls.
#[tokio::test]
async fn words_rewritten_all_the_time_end_the_peer_or_do_nothing() {
    for place in [TAIL, HEAD, ASLEEP, WANTS_ROOM] {
        let (innocent, bystander) = connect_to(Latency::Balanced, echo).await;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (connection, peer) = connect_to(Latency::Balanced, move |peer: Peer| {
            let region = own_region(&peer);
            let mut number = 0x9e37_79b9_7f4a_7c15_u64;
            while !stopped.load(Ordering::Relaxed) {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let value = if number >> 60 == 0 { number } else { number >> 44 };
                region.write_all_at(&value.to_le_bytes(), place).expect("its own region can be written");
            }
        })
        .await;
        for _ in 0..50 {
            let guilty = call(&connection, Duration::from_millis(5)).await;
            assert!(guilty.is_err(), "nobody answers");
            call(&innocent, PATIENCE).await.expect("the bystander notices nothing");
        }
        stop.store(true, Ordering::Relaxed);
        connection.close("seen");
        peer.join().expect("the script ends");
        innocent.close("seen");
        bystander.join().expect("the script ends");
    }
}

#[tokio::test]
async fn the_memory_can_be_neither_shrunk_nor_written_by_the_other_side() {
    let (connection, peer) = connect_to(Latency::Balanced, |peer: Peer| {
        let granted = peer.granted.as_ref().expect("rings were granted");
        for memory in [&granted.host, &granted.own] {
            for length in [0, 100, 1 << 30] {
                assert!(ftruncate(memory, length).is_err(), "{length}");
            }
            assert!(fcntl_add_seals(memory, SealFlags::WRITE).is_err(), "no further seals");
        }
        let write = |memory: &OwnedFd| {
            let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory.as_fd()));
            let file = std::fs::OpenOptions::new().read(true).write(true).open(again)?;
            file.write_all_at(&[1], 0)
        };
        assert!(write(&granted.host).is_err(), "the host's region is its own");
        echo(peer);
    })
    .await;
    call(&connection, PATIENCE).await.expect("nothing has happened");
    connection.close("seen");
    peer.join().expect("the script ends");
}

/// It answers and does not wake who sleeps: its own calls end at their deadline, and nobody else notices.
#[tokio::test]
async fn a_peer_that_never_rings_is_late() {
    let (connection, peer) = connect_to(Latency::Efficient, |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        let mut answer = Vec::new();
        append_frame(&mut answer, peer.header(Kind::Reply, call.header.id), b"\xc0");
        let writer = &mut peer.rings.as_mut().expect("there are rings").writer;
        writer.write(&answer).expect("there is room");
        assert!(writer.publish(), "the host sleeps");
        while peer.receive().is_some() {}
    })
    .await;
    let (innocent, bystander) = connect_to(Latency::Balanced, echo).await;
    let late = call(&connection, Duration::from_millis(100));
    call(&innocent, PATIENCE).await.expect("the bystander notices nothing");
    let result = late.await;
    assert!(matches!(result, Err(CallError::Unknown(Cause::Deadline))), "{result:?}");
    connection.close("seen");
    innocent.close("seen");
    peer.join().expect("the script sees the end");
    bystander.join().expect("the script sees the end");
}

#[tokio::test]
async fn a_peer_that_always_rings_holds_up_nobody() {
    let has_enough = Arc::new(AtomicBool::new(false));
    let enough = Arc::clone(&has_enough);
    let (connection, peer) = connect_to(Latency::Balanced, move |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        let bell = Header::new(Kind::Wake, peer.hello.epoch, 0).encode().repeat(500);
        while !enough.load(Ordering::Relaxed) {
            std::io::Write::write_all(&mut peer.socket, &bell).expect("the host reads");
        }
        peer.reply(&call, &call.body);
        while peer.receive().is_some() {}
    })
    .await;
    let (innocent, bystander) = connect_to(Latency::Balanced, echo).await;
    let guilty = call(&connection, PATIENCE);
    for _ in 0..BESIDE {
        call(&innocent, PATIENCE).await.expect("the bystander notices nothing");
    }
    has_enough.store(true, Ordering::Relaxed);
    guilty.await.expect("bells are no offence");
    connection.close("seen");
    innocent.close("seen");
    peer.join().expect("the script sees the end");
    bystander.join().expect("the script sees the end");
}

/// Whoever waits reads the ring himself: what comes for others, or for nobody, must not keep him there.
#[tokio::test]
async fn a_peer_that_always_talks_holds_up_nobody() {
    let has_enough = Arc::new(AtomicBool::new(false));
    let enough = Arc::clone(&has_enough);
    let (connection, peer) = connect_to(Latency::Low, move |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        let pongs = Header::new(Kind::Pong, peer.hello.epoch, 7).encode().repeat(100);
        while !enough.load(Ordering::Relaxed) {
            peer.raw(&pongs);
        }
        peer.reply(&call, &call.body);
        while peer.receive().is_some() {}
    })
    .await;
    let (innocent, bystander) = connect_to(Latency::Balanced, echo).await;
    let others = async {
        for _ in 0..BESIDE {
            call(&innocent, PATIENCE).await.expect("the bystander notices nothing");
        }
        has_enough.store(true, Ordering::Relaxed);
    };
    let (guilty, ()) = tokio::join!(call(&connection, PATIENCE), others);
    guilty.expect("to talk is no offence");
    connection.close("seen");
    innocent.close("seen");
    peer.join().expect("the script sees the end");
    bystander.join().expect("the script sees the end");
}

#[tokio::test]
async fn frames_beside_the_ring_end_the_peer() {
    for kind in [Kind::Reply, Kind::Descriptor, Kind::Heartbeat, Kind::Ping] {
        let (connection, peer) = connect_to(Latency::Balanced, move |mut peer: Peer| {
            let call = peer.expect(Kind::Call);
            let mut bytes = Vec::new();
            append_frame(&mut bytes, peer.header(kind, call.header.id), b"\xc0");
            std::io::Write::write_all(&mut peer.socket, &bytes).expect("the host reads");
            while peer.receive().is_some() {}
        })
        .await;
        let reply = call(&connection, PATIENCE);
        let CloseReason::Violation(what) = connection.closed().await else { panic!("no violation was seen") };
        assert!(what.ends_with("came, where everything but Wake goes through the ring"), "{what}");
        drop(reply);
        peer.join().expect("the script sees the end");
    }
}

/// It is at its end, says its socket; its ring says that there is more and more.
#[tokio::test]
async fn a_peer_that_goes_on_after_its_end_is_not_listened_to() {
    let has_enough = Arc::new(AtomicBool::new(false));
    let enough = Arc::clone(&has_enough);
    let (connection, peer) = connect_to(Latency::Balanced, move |mut peer: Peer| {
        peer.expect(Kind::Call);
        let pongs = Header::new(Kind::Pong, peer.hello.epoch, 7).encode().repeat(8192);
        peer.raw(&pongs);
        peer.socket.shutdown(std::net::Shutdown::Write).expect("it is open");
        let region = own_region(&peer);
        let mut tail = pongs.len() as u64;
        while !enough.load(Ordering::Relaxed) {
            // As much as there is room for, of frames that are there already; a lie if the host does not read.
            tail += 32;
            region.write_all_at(&tail.to_le_bytes(), TAIL).expect("its own region can be written");
        }
    })
    .await;
    let reply = call(&connection, PATIENCE);
    let reason = connection.closed().await;
    assert!(matches!(reason, CloseReason::Eof | CloseReason::Violation(_)), "{reason:?}");
    has_enough.store(true, Ordering::Relaxed);
    connection.fail_all(Cause::Died("it is gone".to_owned()));
    assert!(reply.await.is_err());
    peer.join().expect("the script ends");
}

/// It makes room a byte at a time while a long message waits: others still get to run.
#[tokio::test]
async fn a_peer_that_reads_byte_by_byte_holds_up_nobody() {
    let has_enough = Arc::new(AtomicBool::new(false));
    let enough = Arc::clone(&has_enough);
    let (connection, peer) = connect_to(Latency::Balanced, move |peer: Peer| {
        let region = own_region(&peer);
        let mut head = 0_u64;
        while !enough.load(Ordering::Relaxed) {
            head += 1;
            region.write_all_at(&head.to_le_bytes(), HEAD).expect("its own region can be written");
        }
    })
    .await;
    let (innocent, bystander) = connect_to(Latency::Balanced, echo).await;
    let long = Encoded::message_pack(ipc_testkit::reference::bin(32 << 20));
    let slow = connection.call(Request::new("echo", Payload::Encoded(long), PATIENCE));
    for _ in 0..BESIDE {
        call(&innocent, PATIENCE).await.expect("the bystander notices nothing");
    }
    drop(slow);
    connection.close("seen");
    has_enough.store(true, Ordering::Relaxed);
    peer.join().expect("the script ends");
    innocent.close("seen");
    bystander.join().expect("the script ends");
}

/// A call that waited for room is sent when there is some, though nothing else comes or goes.
#[tokio::test]
async fn a_call_that_waited_behind_a_long_one_is_sent() {
    let (socket, peer) = Peer::run(|mut peer| {
        peer.accept(&["echo"]);
        // Answers neither before it has both.
        let calls = [peer.expect(Kind::Call), peer.expect(Kind::Call)];
        for call in &calls {
            peer.reply(call, b"\xc0");
        }
        while peer.receive().is_some() {}
    });
    let options = ConnectOptions {
        latency: Latency::Efficient,
        queued_bytes_max: 1 << 20,
        ..ConnectOptions::new(Hello::new("test", 3, 99))
    };
    let connection = connect(socket, options, Arc::new(())).await.expect("the peer is good");
    let long = || Payload::Encoded(Encoded::message_pack(ipc_testkit::reference::bin(900_000)));
    let replies = [
        connection.call(Request::new("echo", long(), PATIENCE)),
        connection.call(Request::new("echo", long(), PATIENCE)),
    ];
    for reply in replies {
        reply.await.expect("it is sent and answered");
    }
    connection.close("seen");
    peer.join().expect("the script ends");
}

/// Whoever is answered at once every time lets others run all the same.
#[tokio::test]
async fn a_caller_without_a_pause_lets_others_run() {
    let (connection, peer) = connect_to(Latency::Low, echo).await;
    let others_ran = Arc::new(AtomicBool::new(false));
    let ran = Arc::clone(&others_ran);
    tokio::spawn(async move { ran.store(true, Ordering::Relaxed) });
    let mut calls = 0;
    while !others_ran.load(Ordering::Relaxed) {
        call(&connection, PATIENCE).await.expect("it is answered");
        calls += 1;
        assert!(calls < 1_000_000, "nobody else gets to run");
    }
    connection.close("seen");
    peer.join().expect("the script ends");
}

/// Calls that are many go to the ring together, whether or not anybody polls their replies.
#[tokio::test]
async fn calls_that_are_kept_back_go_out_by_themselves_and_before_anybody_waits() {
    const BEFORE: u64 = 20;
    for latency in [Latency::Low, Latency::Balanced, Latency::Efficient] {
        let (connection, peer) = connect_to(latency, |mut peer: Peer| {
            let calls: Vec<_> = (0..BEFORE).map(|_| peer.expect(Kind::Call)).collect();
            peer.say(Kind::Event, 0, &ipc_protocol::control::Event::new("all", Vec::new()));
            // The one that is waited for.
            let awaited = peer.expect(Kind::Call);
            peer.reply(&awaited, &awaited.body);
            for call in &calls {
                peer.reply(call, &call.body);
            }
            while peer.receive().is_some() {}
        })
        .await;
        let replies: Vec<Reply> = (0..BEFORE).map(|_| call(&connection, PATIENCE)).collect();
        // Nobody polls, and all of them are there: this waits for what the peer says of it.
        while connection.statistics().bytes_read == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(connection.statistics().bytes_queued, 0);
        call(&connection, PATIENCE).await.expect("the peer answers it first");
        for reply in replies {
            reply.await.expect("the peer answers all");
        }
        drop(connection);
        peer.join().expect("the script sees the end");
    }
}
