//! What a peer asks of its host within a call: answered once, bounded, given up with the call; and who lies is ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ipc_protocol::control::DescriptorGrant;
use ipc_protocol::handshake::{FEATURE_DESCRIPTORS, FEATURE_HOST_CALLS, FEATURE_RINGS, Hello, MethodEntry};
use ipc_protocol::limits::HOST_CALLS_IN_FLIGHT_MAX;
use ipc_protocol::{Codec, Fault, FaultCode, Header, Kind, Origin};
use ipc_testkit::Peer;
use ipc_testkit::peer::PATIENCE;
use ipc_transport::connection::{
    CloseReason, ConnectOptions, Connection, HostAnswer, HostCall, HostCallFuture, HostCalls, HostGrant,
    connect,
};
use ipc_transport::descriptors;
use ipc_transport::framing::{Frame, FrameBuffer, append_message};
use ipc_transport::{CallError, Caller, Cause, Encoded, Payload, Request};

use super::OFFERS_RINGS;
use super::connected::{EPOCH, call};

const ECHO: u32 = 0;
const HOLD: u32 = 1;
const PANIC: u32 = 2;
const DEPTH: u32 = 3;

/// A host with some methods; counts those of `hold` that are neither answered nor dropped.
#[derive(Clone, Debug, Default)]
struct Methods {
    held: Arc<AtomicU32>,
}

struct Held(Arc<AtomicU32>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl HostCalls for Methods {
    fn methods(&self) -> Vec<String> {
        ["echo", "hold", "panic", "depth"].map(str::to_owned).to_vec()
    }

    fn run(&self, call: HostCall) -> HostCallFuture {
        let held = Arc::clone(&self.held);
        Box::pin(async move {
            match call.method {
                HOLD => {
                    held.fetch_add(1, Ordering::SeqCst);
                    let _held = Held(held);
                    std::future::pending().await
                }
                PANIC => panic!("as told"),
                DEPTH => Ok(Encoded::from_value(&call.depth).expect("a number is encoded").into()),
                _ => Ok(Encoded::message_pack(call.arguments).into()),
            }
        })
    }
}

async fn connect_to<T: Send + 'static>(
    methods: &Methods,
    script: impl FnOnce(Peer) -> T + Send + 'static,
) -> (Connection, JoinHandle<T>) {
    let (socket, peer) = Peer::run(|mut peer| {
        peer.accept_with(&[FEATURE_RINGS, FEATURE_HOST_CALLS], vec![MethodEntry::new("echo", 0)]);
        assert_eq!(peer.hello.host_methods, ["echo", "hold", "panic", "depth"]);
        script(peer)
    });
    let options = ConnectOptions {
        queued_bytes_max: 1 << 20,
        offers_rings: OFFERS_RINGS,
        host_calls: Some(Arc::new(methods.clone())),
        ..ConnectOptions::new(Hello::new("test", EPOCH, 99))
    };
    (connect(socket, options, Arc::new(())).await.expect("the peer is good"), peer)
}

fn ask(peer: &mut Peer, id: u64, serves: u64, method: u32, body: &[u8]) {
    let header = Header { method, aux: serves, ..peer.header(Kind::HostCall, id) };
    peer.send(header, body);
}

fn fault(frame: &Frame, id: u64) -> Fault {
    assert_eq!((frame.header.kind, frame.header.id), (Kind::HostFault, id), "{frame:?}");
    let fault: Fault = frame.decode().expect("it is one");
    assert_eq!(fault.origin, Origin::Host);
    fault
}

/// The next frame of this kind, whatever comes before it; that is kept in `come`.
fn next(peer: &mut Peer, come: &mut Vec<Frame>, kind: Kind) -> Frame {
    loop {
        if let Some(at) = come.iter().position(|frame| frame.header.kind == kind) {
            return come.remove(at);
        }
        come.push(peer.receive().expect("the host is there"));
    }
}

async fn until(level: impl Fn() -> bool) {
    let waits = async {
        while !level() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("it comes about");
}

#[tokio::test]
async fn each_is_answered_once_and_in_any_order() {
    let script = |mut peer: Peer| {
        let called = peer.expect(Kind::Call);
        let serves = called.header.id;
        ask(&mut peer, 7, serves, HOLD, b"");
        // Longer than a frame, and one of nothing.
        let long: Vec<u8> = vec![0xa5; 3 << 20];
        ask(&mut peer, 8, serves, ECHO, &long);
        let came = peer.expect(Kind::HostReply);
        assert_eq!((came.header.id, came.header.codec, came.body.len()), (8, Codec::MessagePack, long.len()));
        assert!(came.body == long);
        let empty = Header { codec: Codec::None, aux: serves, ..peer.header(Kind::HostCall, 9) };
        peer.send(empty, b"");
        assert_eq!(peer.expect(Kind::HostReply).header.id, 9);
        // An id that was answered may come again.
        ask(&mut peer, 8, serves, ECHO, b"\xc3");
        assert_eq!(peer.expect(Kind::HostReply).body, b"\xc3"[..]);
        ask(&mut peer, 10, serves, PANIC, b"");
        assert_eq!(fault(&peer.expect(Kind::HostFault), 10).code, FaultCode::Failed);
        ask(&mut peer, 11, serves, 4, b"");
        assert_eq!(fault(&peer.expect(Kind::HostFault), 11).code, FaultCode::UnknownMethod);
        let fast = Header { codec: Codec::Wincode, aux: serves, ..peer.header(Kind::HostCall, 12) };
        peer.send(fast, b"\x00");
        assert_eq!(fault(&peer.expect(Kind::HostFault), 12).code, FaultCode::Unsupported);
        // Given up by the peer; and what was given up or answered before means nothing.
        for _ in 0..2 {
            let cancel = Header { codec: Codec::None, ..peer.header(Kind::Cancel, 7) };
            peer.send(cancel, b"");
        }
        assert_eq!(fault(&peer.expect(Kind::HostFault), 7).code, FaultCode::Cancelled);
        peer.reply(&called, b"\xc0");
        while peer.receive().is_some() {}
    };
    let methods = Methods::default();
    let (connection, peer) = connect_to(&methods, script).await;
    call(&connection, "echo", vec![0xc0]).await.expect("it is answered");
    until(|| methods.held.load(Ordering::SeqCst) == 0).await;
    assert_eq!(connection.statistics().host_calls, 7);
    connection.close("the test is over");
    peer.join().expect("the script goes through");
}

#[tokio::test]
async fn they_end_with_the_call_that_they_serve_and_none_begins_after_it() {
    let script = |mut peer: Peer| {
        // Frames of calls and of host calls come in any order.
        let mut come = Vec::new();
        // Answered while it asks.
        let first = next(&mut peer, &mut come, Kind::Call);
        ask(&mut peer, 1, first.header.id, HOLD, b"");
        peer.reply(&first, b"\xc0");
        let given_up = next(&mut peer, &mut come, Kind::HostFault);
        assert_eq!(fault(&given_up, 1).code, FaultCode::Cancelled);
        ask(&mut peer, 2, first.header.id, ECHO, b"");
        let refused = next(&mut peer, &mut come, Kind::HostFault);
        assert_eq!(fault(&refused, 2).code, FaultCode::Cancelled);
        // Cancelled while it asks: the peer still owes the answer.
        let second = next(&mut peer, &mut come, Kind::Call);
        ask(&mut peer, 3, second.header.id, HOLD, b"");
        let given_up = next(&mut peer, &mut come, Kind::HostFault);
        assert_eq!(fault(&given_up, 3).code, FaultCode::Cancelled);
        assert_eq!(next(&mut peer, &mut come, Kind::Cancel).header.id, second.header.id);
        ask(&mut peer, 4, second.header.id, ECHO, b"");
        let refused = next(&mut peer, &mut come, Kind::HostFault);
        assert_eq!(fault(&refused, 4).code, FaultCode::Cancelled);
        peer.reply(&second, b"\xc0");
        // The deadline passes.
        let third = next(&mut peer, &mut come, Kind::Call);
        ask(&mut peer, 5, third.header.id, HOLD, b"");
        let late = next(&mut peer, &mut come, Kind::HostFault);
        assert_eq!(fault(&late, 5).code, FaultCode::DeadlineExceeded);
        assert_eq!(next(&mut peer, &mut come, Kind::Cancel).header.id, third.header.id);
        peer.reply(&third, b"\xc0");
        // The peer dies.
        let fourth = next(&mut peer, &mut come, Kind::Call);
        ask(&mut peer, 6, fourth.header.id, HOLD, b"");
        peer
    };
    let methods = Methods::default();
    let held = Arc::clone(&methods.held);
    let (connection, peer) = connect_to(&methods, script).await;
    call(&connection, "echo", vec![0xc0]).await.expect("it is answered");
    let mut second = Box::pin(call(&connection, "echo", vec![0xc0]));
    tokio::select! {
        biased;
        () = until(|| held.load(Ordering::SeqCst) == 1) => {}
        result = &mut second => panic!("{result:?}"),
    }
    drop(second);
    until(|| held.load(Ordering::SeqCst) == 0).await;
    let third = connection.call(Request::new(
        "echo",
        Payload::Encoded(Encoded::message_pack(vec![0xc0])),
        Duration::from_millis(50),
    ));
    assert!(matches!(third.await, Err(CallError::Unknown(Cause::Deadline))));
    let mut fourth = Box::pin(call(&connection, "echo", vec![0xc0]));
    tokio::select! {
        biased;
        () = until(|| held.load(Ordering::SeqCst) == 1) => {}
        result = &mut fourth => panic!("{result:?}"),
    }
    drop(peer.join().expect("the script goes through"));
    connection.fail_all(Cause::Died("as told".to_owned()));
    assert!(matches!(fourth.await, Err(CallError::Unknown(Cause::Died(_)))));
    until(|| held.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_call_says_how_many_others_it_serves() {
    let script = |mut peer: Peer| {
        for depth in [0, 5] {
            let called = peer.expect(Kind::Call);
            ask(&mut peer, 1, called.header.id, DEPTH, b"");
            assert_eq!(peer.expect(Kind::HostReply).body[0], depth);
            peer.reply(&called, b"\xc0");
        }
    };
    let (connection, peer) = connect_to(&Methods::default(), script).await;
    for depth in [0, 5] {
        let payload = Payload::Encoded(Encoded::message_pack(vec![0xc0]));
        let mut request = Request::new("echo", payload, PATIENCE);
        request.depth = depth;
        connection.call(request).await.expect("it is answered");
    }
    peer.join().expect("the script goes through");
}

#[tokio::test]
async fn more_than_may_be_in_flight_are_refused_as_busy() {
    let script = |mut peer: Peer| {
        let called = peer.expect(Kind::Call);
        for id in 1..=u64::from(HOST_CALLS_IN_FLIGHT_MAX) {
            ask(&mut peer, id, called.header.id, HOLD, b"");
        }
        let one_more = u64::from(HOST_CALLS_IN_FLIGHT_MAX) + 1;
        ask(&mut peer, one_more, called.header.id, ECHO, b"");
        let refused = peer.expect(Kind::HostFault);
        assert_eq!((fault(&refused, one_more).code, refused.header.aux), (FaultCode::Busy, 10));
        peer.reply(&called, b"\xc0");
        for _ in 0..HOST_CALLS_IN_FLIGHT_MAX {
            let given_up = peer.expect(Kind::HostFault);
            assert_eq!(given_up.decode::<Fault>().expect("it is one").code, FaultCode::Cancelled);
        }
        // Arguments are bounded in bytes as well.
        let called = peer.expect(Kind::Call);
        ask(&mut peer, 1, called.header.id, HOLD, &vec![0; 17 << 20]);
        ask(&mut peer, 2, called.header.id, ECHO, &[0]);
        assert_eq!(fault(&peer.expect(Kind::HostFault), 2).code, FaultCode::Busy);
        peer.reply(&called, b"\xc0");
        assert_eq!(fault(&peer.expect(Kind::HostFault), 1).code, FaultCode::Cancelled);
    };
    let (connection, peer) = connect_to(&Methods::default(), script).await;
    for _ in 0..2 {
        call(&connection, "echo", vec![0xc0]).await.expect("it is answered");
    }
    peer.join().expect("the script goes through");
}

/// What the host says of a peer that does this within its first call.
async fn violation(then: impl FnOnce(&mut Peer, u64) + Send + 'static) -> String {
    let script = |mut peer: Peer| {
        let id = peer.expect(Kind::Call).header.id;
        then(&mut peer, id);
        while peer.receive().is_some() {}
    };
    let methods = Methods::default();
    let (connection, peer) = connect_to(&methods, script).await;
    let reply = call(&connection, "echo", vec![0xc0]);
    let CloseReason::Violation(what) = connection.closed().await else { panic!("no violation was seen") };
    connection.fail_all(Cause::ProtocolViolation(what.clone()));
    assert!(matches!(reply.await, Err(CallError::Unknown(Cause::ProtocolViolation(_)))));
    until(|| methods.held.load(Ordering::SeqCst) == 0).await;
    peer.join().expect("the script sees the end");
    what
}

#[tokio::test]
async fn who_lies_about_them_is_ended() {
    let zero = violation(|peer, id| ask(peer, 0, id, ECHO, b"")).await;
    assert!(zero.ends_with("came, where a host call has an id of its own, which is not 0"), "{zero}");
    let twice = violation(|peer, id| {
        ask(peer, 5, id, HOLD, b"");
        ask(peer, 5, id, ECHO, b"");
    })
    .await;
    assert!(
        twice.ends_with("where the id of a host call that is not answered may not be used again"),
        "{twice}"
    );
    for serves in [0, 1, 77 << 32, u64::MAX] {
        let made_up = violation(move |peer, _| ask(peer, 5, serves, ECHO, b"")).await;
        assert!(made_up.ends_with("came, where the call that a host call serves was sent"), "{made_up}");
    }
    let descriptors = violation(|peer, id| {
        let header = Header { descriptors: 1, aux: id, ..peer.header(Kind::HostCall, 5) };
        peer.send(header, b"\xc0");
    })
    .await;
    assert!(descriptors.ends_with("brings descriptors that were not agreed on"), "{descriptors}");
}

#[tokio::test]
async fn who_never_reads_the_answers_is_ended() {
    let what = violation(|peer, id| {
        let header = Header { aux: id, ..peer.header(Kind::HostCall, 0) };
        let mut bytes = Vec::new();
        // An answer of 64 KiB each, until there is no room for more; then a fault each.
        for id in 1.. {
            bytes.clear();
            let header = Header { id, ..header };
            ipc_transport::framing::append_frame(&mut bytes, header, &vec![0; 64 << 10]);
            if !peer.try_raw(&bytes) {
                break;
            }
        }
    })
    .await;
    assert!(what.ends_with("the peer must first read the answers to what it asked for"), "{what}");
}

/// Grants a file with each answer.
#[derive(Debug)]
struct Grants;

impl HostCalls for Grants {
    fn methods(&self) -> Vec<String> {
        vec!["grant".to_owned()]
    }

    fn run(&self, _: HostCall) -> HostCallFuture {
        Box::pin(async {
            let descriptor = File::open("Cargo.toml").expect("it is there").into();
            let grant = Some(HostGrant { descriptor, grant: DescriptorGrant::new("artifact", 0, 1) });
            Ok(HostAnswer { result: Encoded::message_pack(vec![0xc0]), grant })
        })
    }
}

async fn connect_to_granting<T: Send + 'static>(
    grants_descriptors: bool,
    features: &'static [&str],
    script: impl FnOnce(Peer) -> T + Send + 'static,
) -> (Connection, JoinHandle<T>) {
    let (socket, peer) = Peer::run(|mut peer| {
        peer.accept_with(features, vec![MethodEntry::new("echo", 0)]);
        script(peer)
    });
    let options = ConnectOptions {
        offers_rings: OFFERS_RINGS,
        host_calls: Some(Arc::new(Grants)),
        grants_descriptors,
        ..ConnectOptions::new(Hello::new("test", EPOCH, 99))
    };
    (connect(socket, options, Arc::new(())).await.expect("the peer is good"), peer)
}

const ALL: &[&str] = &[FEATURE_RINGS, FEATURE_HOST_CALLS, FEATURE_DESCRIPTORS];

#[tokio::test]
async fn descriptors_come_before_their_answers_and_only_to_those_who_agreed() {
    let not_agreed: [(bool, &'static [&str]); 2] = [(false, ALL), (true, &ALL[..2])];
    for (grants, features) in not_agreed {
        let script = move |mut peer: Peer| {
            assert_eq!(peer.hello.features.iter().any(|one| one == FEATURE_DESCRIPTORS), grants);
            let called = peer.expect(Kind::Call);
            ask(&mut peer, 1, called.header.id, 0, b"");
            assert_eq!(fault(&peer.expect(Kind::HostFault), 1).code, FaultCode::Unsupported);
            peer.reply(&called, b"\xc0");
        };
        let (connection, peer) = connect_to_granting(grants, features, script).await;
        call(&connection, "echo", vec![0xc0]).await.expect("it is answered");
        peer.join().expect("the script goes through");
    }
    let script = |mut peer: Peer| {
        let called = peer.expect(Kind::Call);
        let (mut come, mut frames) = (VecDeque::new(), FrameBuffer::new(1 << 20));
        for id in 1..=20 {
            ask(&mut peer, id, called.header.id, 0, b"");
            // Over the socket, whether or not the answer comes through the ring.
            let granted = next_over_socket(&peer, &mut frames, &mut come);
            assert_eq!((granted.header.kind, granted.header.id), (Kind::Descriptor, id), "{granted:?}");
            assert_eq!((granted.header.descriptors, granted.header.aux), (1, 1));
            let said: DescriptorGrant = granted.decode().expect("it is one");
            assert_eq!(said, DescriptorGrant::new("artifact", 0, 1));
            let mut text = String::new();
            File::from(come.pop_front().expect("it lies beside the frame"))
                .read_to_string(&mut text)
                .expect("text");
            assert!(text.contains("ipc-transport"));
            let reply = match peer.rings {
                Some(_) => peer.expect(Kind::HostReply),
                None => next_over_socket(&peer, &mut frames, &mut come),
            };
            assert_eq!((reply.header.kind, reply.header.id), (Kind::HostReply, id));
            assert!(come.is_empty());
        }
        peer.reply(&called, b"\xc0");
    };
    let (connection, peer) = connect_to_granting(true, ALL, script).await;
    call(&connection, "echo", vec![0xc0]).await.expect("it is answered");
    peer.join().expect("the script goes through");
}

/// The next frame over the socket but for bells, with the descriptors that lie beside it.
fn next_over_socket(peer: &Peer, frames: &mut FrameBuffer, come: &mut VecDeque<OwnedFd>) -> Frame {
    peer.socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time limit");
    loop {
        match frames.next_frame().expect("the host keeps the protocol") {
            Some(frame) if frame.header.kind == Kind::Wake => {}
            Some(frame) => return frame,
            None => {
                let flags = rustix::net::RecvFlags::empty();
                let read = frames.read_from(|room| descriptors::receive(&peer.socket, room, flags, come));
                assert!(read.expect("the host sends") > 0);
            }
        }
    }
}

#[tokio::test]
async fn who_takes_no_descriptors_does_not_use_up_those_of_the_host() {
    const ASKED: u64 = 5000;
    let script = |mut peer: Peer| {
        let called = peer.expect(Kind::Call);
        for id in 1..=ASKED {
            ask(&mut peer, id, called.header.id, 0, b"");
        }
        peer.reply(&called, b"\xc0");
        peer
    };
    let (connection, peer) = connect_to_granting(true, ALL, script).await;
    call(&connection, "echo", vec![0xc0]).await.expect("it is answered");
    let open = std::fs::read_dir("/proc/self/fd").expect("it can be listed").count();
    assert!(open < 4000, "{open} descriptors are open");
    drop(connection);
    drop(peer.join().expect("the script goes through"));
}

#[tokio::test]
async fn an_extension_grants_nothing() {
    let script = |mut peer: Peer| {
        let called = peer.expect(Kind::Call);
        let header = Header { descriptors: 1, ..peer.header(Kind::Descriptor, called.header.id) };
        let mut bytes = Vec::new();
        append_message(&mut bytes, header, &DescriptorGrant::new("artifact", 0, 1)).expect("it is encoded");
        let file = File::open("Cargo.toml").expect("it is there");
        if peer.rings.is_none() {
            descriptors::send(&peer.socket, &bytes, &file).expect("the host reads");
        } else {
            peer.raw(&bytes);
        }
        while peer.receive().is_some() {}
    };
    let (connection, peer) = connect_to_granting(true, ALL, script).await;
    let reply = call(&connection, "echo", vec![0xc0]);
    let CloseReason::Violation(what) = connection.closed().await else { panic!("no violation was seen") };
    assert!(what.ends_with("came, where descriptors go from the host to the extension"), "{what}");
    connection.fail_all(Cause::ProtocolViolation(what));
    assert!(matches!(reply.await, Err(CallError::Unknown(Cause::ProtocolViolation(_)))));
    peer.join().expect("the script sees the end");
}
