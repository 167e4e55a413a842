//! What a connection does beside calls: draining, leaving, ending; and what the extension hears of a call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc_protocol::control::{Event, Goodbye, Heartbeat, LogRecord, Progress};
use ipc_protocol::handshake::Hello;
use ipc_protocol::limits::FRAME_BODY_BYTES_MAX;
use ipc_protocol::{Codec, Fault, FaultCode, Kind};
use ipc_testkit::Peer;
use ipc_testkit::peer::PATIENCE;
use ipc_transport::connection::{CloseReason, ConnectOptions, Connection, PeerEvents, connect};
use ipc_transport::{CallError, Caller, Cause, Encoded, Payload, ProgressSink, Reply, Request};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::OFFERS_RINGS;

pub(crate) const EPOCH: u32 = 3;

pub(crate) async fn connect_to<T: Send + 'static>(
    script: impl FnOnce(Peer) -> T + Send + 'static,
    events: Arc<dyn PeerEvents>,
) -> (Connection, std::thread::JoinHandle<T>) {
    let (socket, peer) = Peer::run(|mut peer| {
        peer.accept(&["echo", "other"]);
        script(peer)
    });
    let hello = Hello::new("test", EPOCH, 99);
    let options = ConnectOptions {
        queued_bytes_max: 4 << 20,
        offers_rings: OFFERS_RINGS,
        ..ConnectOptions::new(hello)
    };
    (connect(socket, options, events).await.expect("the peer is good"), peer)
}

pub(crate) fn call(connection: &Connection, method: &str, body: Vec<u8>) -> Reply {
    call_within(connection, method, body, PATIENCE)
}

fn call_within(connection: &Connection, method: &str, body: Vec<u8>, timeout: Duration) -> Reply {
    connection.call(Request::new(method, Payload::Encoded(Encoded::message_pack(body)), timeout))
}

#[tokio::test]
async fn a_call_says_method_epoch_codec_and_time_left() {
    let script = |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        peer.reply(&call, b"\xc3");
        call
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let answer = call_within(&connection, "other", vec![0xc2], Duration::from_secs(5)).await;
    assert!(answer.expect("the peer answers").decode::<bool>().expect("the answer is true"));
    let header = peer.join().expect("the script goes through").header;
    assert_eq!((header.method, header.epoch, header.codec), (1, EPOCH, Codec::MessagePack));
    assert!((1..=5_000_000).contains(&header.aux), "{} us left", header.aux);
    assert!(header.id != 0, "0 means that there is no call");
}

#[tokio::test]
async fn an_extension_that_ends_a_call_as_cancelled_tells_whoever_still_waits() {
    let script = |mut peer: Peer| {
        for code in [FaultCode::Cancelled, FaultCode::Failed] {
            let call = peer.expect(Kind::Call);
            peer.say(Kind::Fault, call.header.id, &Fault::new(code, "the caller cancelled the call"));
        }
    };
    let (connection, _) = connect_to(script, Arc::new(())).await;
    let cancelled = call(&connection, "echo", vec![0xc0]).await;
    assert!(matches!(cancelled, Err(CallError::Cancelled)), "{cancelled:?}");
    let failed = call(&connection, "echo", vec![0xc0]).await;
    assert!(matches!(failed, Err(CallError::Fault(_))), "{failed:?}");
}

#[tokio::test]
async fn a_call_that_the_peer_never_read_is_withdrawn_at_its_deadline() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let script = move |mut peer: Peer| {
        gone.recv().expect("the test says when");
        let mut first_bytes = Vec::new();
        while let Some(frame) = peer.receive() {
            if frame.header.kind == Kind::Call {
                first_bytes.push(frame.body[0]);
                peer.reply(&frame, b"\xc0");
            }
        }
        first_bytes
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    // Fills the socket, so that all that follows stays here: among it a body that is queued as it is.
    let large = vec![1; 3 * FRAME_BODY_BYTES_MAX as usize];
    let stuck = call(&connection, "echo", large);
    let short = Duration::from_millis(30);
    let unseen = call_within(&connection, "echo", vec![2; 100], short);
    let unseen_large = call_within(&connection, "echo", vec![2; 100_000], short);
    let kept = call(&connection, "echo", vec![3; 20_000]);
    let also_kept = call(&connection, "echo", vec![4; 10]);
    for reply in [unseen, unseen_large] {
        let result = reply.await;
        assert!(matches!(result, Err(CallError::NotDelivered(Cause::Deadline))), "{result:?}");
    }
    assert_eq!(connection.in_flight(), 3);
    go.send(()).expect("the script waits");
    for reply in [stuck, kept, also_kept] {
        reply.await.expect("the peer answers");
    }
    drop(connection);
    assert_eq!(peer.join().expect("the script goes through"), [1, 3, 4]);
}

#[tokio::test]
async fn calls_that_were_never_written_are_known_to_be_undelivered_when_the_peer_dies() {
    let (connection, peer) = connect_to(drop, Arc::new(())).await;
    peer.join().expect("the script goes through");
    connection.closed().await;
    let result = call(&connection, "echo", vec![0xc0]);
    connection.fail_all(Cause::Died("killed by signal 9".into()));
    let result = result.await;
    assert!(
        matches!(&result, Err(CallError::NotDelivered(Cause::Died(how))) if how == "killed by signal 9"),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_cause_given_before_the_end_was_seen_waits_for_what_was_sent_before() {
    let (sent, was_sent) = oneshot::channel();
    let script = |mut peer: Peer| {
        let first = peer.expect(Kind::Call);
        peer.expect(Kind::Call);
        peer.reply(&first, b"\x01");
        sent.send(()).expect("the test waits");
        // Held open, as by a child of a dead extension.
        while peer.receive().is_some() {}
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let answered = call(&connection, "echo", vec![0xc0]);
    let lost = call(&connection, "echo", vec![0xc0]);
    was_sent.await.expect("the script says so");
    connection.fail_all(Cause::Died("exit 1".into()));
    connection.fail_all(Cause::Died("a second word does not count".into()));
    assert_eq!(answered.await.expect("the answer was sent").decode::<u8>().expect("it is 1"), 1);
    let result = lost.await;
    assert!(matches!(&result, Err(CallError::Unknown(Cause::Died(how))) if how == "exit 1"), "{result:?}");
    peer.join().expect("the script goes through");
}

#[tokio::test]
async fn without_a_cause_calls_end_with_what_is_known() {
    let script = |mut peer: Peer| {
        peer.expect(Kind::Call);
    };
    let (connection, _) = connect_to(script, Arc::new(())).await;
    let result = call(&connection, "echo", vec![0xc0]).await;
    assert!(matches!(result, Err(CallError::Unknown(Cause::Died(_)))), "{result:?}");
    assert_eq!(connection.closed().await, CloseReason::Eof);
}

#[tokio::test]
async fn draining_lets_running_calls_finish_and_takes_no_more() {
    let script = |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        peer.expect(Kind::Drain);
        peer.reply(&call, b"\xc0");
        let goodbye: Goodbye = peer.expect(Kind::Goodbye).decode().expect("a goodbye is decoded");
        assert!(peer.receive().is_none());
        peer.say(Kind::Log, 0, &LogRecord::new(3, "t", "last words"));
        goodbye.reason
    };
    let heard = Arc::new(Heard::default());
    let (connection, peer) = connect_to(script, Arc::clone(&heard) as Arc<dyn PeerEvents>).await;
    let running = call(&connection, "echo", vec![0xc0]);
    connection.drain();
    let result = call(&connection, "echo", vec![0xc0]).await;
    assert!(matches!(result, Err(CallError::NotDelivered(Cause::Closed(_)))), "{result:?}");
    connection.idle().await;
    running.await.expect("the call was running");
    connection.goodbye("reload");
    let result = call(&connection, "echo", vec![0xc0]).await;
    assert!(matches!(result, Err(CallError::NotDelivered(Cause::Closed(_)))), "{result:?}");
    assert_eq!(connection.closed().await, CloseReason::Eof);
    assert_eq!(peer.join().expect("the script goes through"), "reload");
    assert_eq!(heard.0.lock()[0], "log last words");
}

#[tokio::test]
async fn closing_ends_calls_with_the_reason() {
    let script = |mut peer: Peer| while peer.receive().is_some() {};
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let running = call(&connection, "echo", vec![0xc0]);
    connection.close("the budget is used up");
    let result = running.await;
    assert!(matches!(&result, Err(CallError::Unknown(Cause::Closed(why))) if why == "the budget is used up"));
    peer.join().expect("the script goes through");
}

#[tokio::test]
async fn the_last_handle_closes_the_connection_but_a_reply_keeps_it() {
    let script = |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        peer.reply(&call, b"\x07");
        while peer.receive().is_some() {}
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let reply = call(&connection, "echo", vec![0xc0]);
    drop(connection);
    assert_eq!(reply.await.expect("the reply is a handle too").decode::<u8>().expect("it is 7"), 7);
    peer.join().expect("the script sees the end");
}

#[test]
fn a_runtime_that_ends_ends_its_calls() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let first = runtime();
    let script = |mut peer: Peer| while peer.receive().is_some() {};
    let (reply, peer) = first.block_on(async {
        let (connection, peer) = connect_to(script, Arc::new(())).await;
        (call(&connection, "echo", vec![0xc0]), peer)
    });
    drop(first);
    let bounded = async { tokio::time::timeout(PATIENCE, reply).await };
    let result = runtime().block_on(bounded).expect("the call ends with its runtime");
    assert!(matches!(result, Err(CallError::Unknown(Cause::Closed(_)))), "{result:?}");
    peer.join().expect("the script goes through");
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl PeerEvents for Heard {
    fn log(&self, record: LogRecord) {
        self.0.lock().push(format!("log {}", record.message));
    }
    fn heartbeat(&self, heartbeat: Heartbeat) {
        self.0.lock().push(format!("heartbeat {}", heartbeat.running));
    }
    fn event(&self, event: Event) {
        self.0.lock().push(format!("event {}", event.name));
    }
    fn goodbye(&self, goodbye: Goodbye) {
        self.0.lock().push(format!("goodbye {}", goodbye.reason));
    }
    fn closed(&self, reason: &CloseReason) {
        self.0.lock().push(format!("closed {reason:?}"));
    }
}

#[tokio::test]
async fn what_an_extension_says_beside_answers_is_heard_in_order() {
    let script = |mut peer: Peer| {
        let call = peer.expect(Kind::Call);
        peer.say(Kind::Heartbeat, 0, &Heartbeat::new(1, 10));
        peer.say(Kind::Progress, call.header.id, &Progress::new(5, None, ""));
        peer.say(Kind::Log, 0, &LogRecord::new(3, "t", "line"));
        peer.reply(&call, b"\xc0");
        peer.say(Kind::Progress, call.header.id, &Progress::new(6, None, "too late"));
        peer.say(Kind::Goodbye, 0, &Goodbye::new("done"));
    };
    let heard = Arc::new(Heard::default());
    let (connection, _) = connect_to(script, Arc::clone(&heard) as Arc<dyn PeerEvents>).await;
    let hears = Arc::clone(&heard);
    let sink = ProgressSink::new(move |progress| hears.0.lock().push(format!("progress {}", progress.done)));
    let nil = Payload::Encoded(Encoded::message_pack(vec![0xc0]));
    let reply = connection.call(Request::new("echo", nil, PATIENCE).with_progress(sink));
    reply.await.expect("the peer answers");
    connection.closed().await;
    // `closed` is told to the events by the reader, which then waits for the cause.
    connection.fail_all(Cause::Died("exit 0".into()));
    while heard.0.lock().len() < 5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*heard.0.lock(), ["heartbeat 1", "progress 5", "log line", "goodbye done", "closed Eof"]);
}

#[tokio::test]
async fn what_is_owed_and_no_longer_wanted_is_known_with_its_age() {
    let (go, told) = std::sync::mpsc::channel::<()>();
    let script = move |mut peer: Peer| {
        let calls = [(); 2].map(|()| {
            let call = peer.expect(Kind::Call);
            peer.expect(Kind::Cancel);
            call
        });
        for call in calls {
            told.recv().expect("the test says when");
            peer.reply(&call, b"\xc0");
        }
        while peer.receive().is_some() {}
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let known = || (connection.statistics().unanswered, connection.oldest_unanswered());
    let dropped = call(&connection, "echo", vec![0xc0]);
    assert_eq!(known(), (0, None), "it is wanted");
    let before = Instant::now();
    drop(dropped);
    let (count, first) = known();
    assert!(count == 1 && first.is_some_and(|since| since >= before && since <= Instant::now()), "{first:?}");
    // One whose deadline passed counts from then on, and its outcome is there all the while.
    let expired = call_within(&connection, "echo", vec![0xc0], Duration::from_millis(200)).await;
    assert!(matches!(expired, Err(CallError::Unknown(Cause::Deadline))), "{expired:?}");
    assert_eq!(known(), (2, first), "the oldest is still the first");
    for left in [1, 0] {
        go.send(()).expect("the script waits");
        while connection.statistics().unanswered > left {
            tokio::task::yield_now().await;
        }
        assert_ne!(known().1, first, "it was answered");
    }
    assert_eq!(known(), (0, None));
    drop(connection);
    peer.join().expect("the script goes through");
}

#[tokio::test]
async fn progress_is_heard_only_while_somebody_waits_for_the_call() {
    let script = |mut peer: Peer| {
        let (kept, dropped) = (peer.expect(Kind::Call), peer.expect(Kind::Call));
        peer.expect(Kind::Cancel);
        for call in [&dropped, &kept] {
            peer.say(Kind::Progress, call.header.id, &Progress::new(1, Some(2), "m"));
        }
        for call in [&dropped, &kept] {
            peer.reply(call, b"\xc0");
        }
        while peer.receive().is_some() {}
    };
    let (connection, peer) = connect_to(script, Arc::new(())).await;
    let heard = Arc::new(Heard::default());
    let start = |name: &'static str| {
        let hears = Arc::clone(&heard);
        let sink = ProgressSink::new(move |progress: Progress| {
            let Progress { done, total, message, .. } = progress;
            hears.0.lock().push(format!("{name} {done} {total:?} {message}"));
        });
        let nil = Payload::Encoded(Encoded::message_pack(vec![0xc0]));
        connection.call(Request::new("echo", nil, PATIENCE).with_progress(sink))
    };
    let (kept, dropped) = (start("kept"), start("dropped"));
    drop(dropped);
    kept.await.expect("the peer answers");
    assert_eq!(*heard.0.lock(), ["kept 1 Some(2) m"]);
    assert_eq!(Arc::strong_count(&heard), 1, "both sinks are gone with their calls");
    drop(connection);
    peer.join().expect("the script sees the end");
}
