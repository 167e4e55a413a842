//! The serving loop as its host sees it: frames by hand over a real channel.

mod panics;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipc_protocol::control::{DescriptorGrant, Goodbye, LogRecord, Metadata, Progress};
use ipc_protocol::handshake::{Hello, MethodEntry, Ready, Welcome};
use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, Kind};
use ipc_transport::framing::{Frame, FrameBuffer, append_frame, append_message};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;

use super::calls::Calls;
use super::host_calls::HostCalls;
use super::keeper::Keeper;
use super::pace::Pace;
use super::reader::Reading;
use super::ring_input::Descriptors;
use super::role::Role;
use super::streams::Streams;
use super::workers::Workers;
use super::{Embedding, End, Method, Output, ServeError, Server, serve};
use crate::context::Context;
use crate::definition::{Extension, Setup};
use crate::service::{MethodTraits, Service};
use crate::{Blob, logging};

#[crate::interface]
trait Probe {
    /// Adds.
    fn add(&self, numbers: Vec<u64>) -> Result<u64, Fault>;
    /// Waits until it is cancelled, or not at all.
    fn hold(&self, cx: &Context, is_held: bool) -> Result<u8, Fault>;
    fn explode(&self, #[serde(default)] explodes_again: bool) -> Result<(), Fault>;
    fn report(&self, cx: &Context) -> Result<(), Fault>;
    async fn later(&self, text: String) -> Result<String, Fault>;
    fn large(&self, bytes: usize) -> Result<Blob, Fault>;
}

const ADD: u32 = 0;
const HOLD: u32 = 1;
const EXPLODE: u32 = 2;
const REPORT: u32 = 3;
const LATER: u32 = 4;
const LARGE: u32 = 5;

#[crate::message]
struct Settings {
    #[serde(default)]
    start_fails: bool,
    #[serde(default)]
    start_panics: bool,
}

struct Subject;

/// A panic's payload that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload, too");
    }
}

impl Subject {
    fn start(setup: &Setup<Settings>) -> Result<Self, Fault> {
        tracing::info!(answer = 42, "started");
        assert!(!setup.config().start_panics, "as configured");
        match setup.config().start_fails {
            true => Err(Fault::new(FaultCode::Failed, "as configured")),
            false => Ok(Self),
        }
    }
}

impl Probe for Subject {
    fn add(&self, numbers: Vec<u64>) -> Result<u64, Fault> {
        Ok(numbers.iter().sum())
    }

    fn hold(&self, cx: &Context, is_held: bool) -> Result<u8, Fault> {
        if !is_held {
            return Ok(1);
        }
        loop {
            cx.check()?;
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn explode(&self, explodes_again: bool) -> Result<(), Fault> {
        if explodes_again {
            std::panic::panic_any(Bomb);
        }
        panic!("so that it is seen")
    }

    fn report(&self, cx: &Context) -> Result<(), Fault> {
        cx.progress(1, Some(2), "half");
        cx.progress(2, Some(2), "all");
        Ok(())
    }

    async fn later(&self, text: String) -> Result<String, Fault> {
        let mut is_woken = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut is_woken, true) {
                return std::task::Poll::Ready(());
            }
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake());
            std::task::Poll::Pending
        })
        .await;
        Ok(text)
    }

    fn large(&self, bytes: usize) -> Result<Blob, Fault> {
        Ok(Blob(vec![7; bytes]))
    }
}

mod exported {
    use super::{Probe, Subject};
    crate::export!(Subject as Probe, start = Subject::start);
    const _: fn() -> std::process::ExitCode = main;
}

/// What the threads share, without any thread.
pub(super) fn server(channel: UnixStream, service: impl Service + 'static) -> Arc<Server> {
    let keeper = Arc::new(Keeper::default());
    let traits = MethodTraits { entry: MethodEntry::new("only", 0), is_async: false, is_fast: false };
    Arc::new(Server {
        embedding: Embedding::Process,
        epoch: 1,
        message_bytes_max: 1 << 20,
        has_wincode: false,
        service: Box::new(service),
        methods: vec![Method { traits, pace: Pace::default() }],
        output: Arc::new(Output::new(channel, 1, Arc::clone(&keeper))),
        calls: Calls::new(1000),
        host_calls: HostCalls::new(vec!["call".to_owned()]),
        streams: Streams::new(true),
        workers: Workers::default(),
        role: Role::default(),
        reading: Mutex::new(Reading::new(FrameBuffer::new(1 << 20), None, Descriptors::new(false))),
        keeper,
    })
}

const EPOCH: u32 = 9;

/// A bound for every wait below; no test comes near it unless it fails.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The host's side.
struct Host {
    channel: UnixStream,
    frames: FrameBuffer,
    server: Option<JoinHandle<Result<End, ServeError>>>,
}

impl Host {
    fn greet(change: impl FnOnce(&mut Hello)) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(WAIT_MAX)).unwrap();
        let server = thread::spawn(|| serve(theirs, Subject::definition(), Embedding::Process, |_| {}));
        let host = Self { channel: ours, frames: FrameBuffer::new(u64::MAX), server: Some(server) };
        let mut hello = Hello::new(env!("CARGO_PKG_NAME"), EPOCH, 77);
        change(&mut hello);
        host.send_message(Header::new(Kind::Hello, EPOCH, 0), &hello);
        host
    }

    fn open() -> Self {
        Self::open_with(|_| {})
    }

    fn open_with(change: impl FnOnce(&mut Hello)) -> Self {
        let mut host = Self::greet(change);
        let welcome: Welcome = host.next().decode().unwrap();
        assert_eq!((welcome.epoch, welcome.nonce, welcome.methods.len()), (EPOCH, 77, 6));
        let ready: Ready = host.next().decode().unwrap();
        assert_eq!(ready.fault, None);
        host
    }

    fn send(&self, bytes: &[u8]) {
        std::io::Write::write_all(&mut &self.channel, bytes).unwrap();
    }

    fn send_message(&self, header: Header, message: &impl Serialize) {
        let mut bytes = Vec::new();
        append_message(&mut bytes, header, message).unwrap();
        self.send(&bytes);
    }

    fn call(&self, id: u64, method: u32, arguments: &impl Serialize) {
        self.send_message(Header { method, ..Header::new(Kind::Call, EPOCH, id) }, arguments);
    }

    fn bare(&self, kind: Kind, id: u64) {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, Header::new(kind, EPOCH, id), &[]);
        self.send(&bytes);
    }

    /// The next frame, or `None` at the end of the channel.
    fn try_next(&mut self) -> Option<Frame> {
        // Heartbeats must not keep a test waiting for what never comes.
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            assert!(Instant::now() < deadline, "nothing but heartbeats came");
            match self.frames.next_frame().unwrap() {
                Some(frame) if frame.header.kind == Kind::Heartbeat => {}
                Some(frame) => {
                    assert_eq!(frame.header.epoch, EPOCH);
                    return Some(frame);
                }
                None => {
                    let channel = &mut &self.channel;
                    if self.frames.read_from(|room| std::io::Read::read(channel, room)).unwrap() == 0 {
                        return None;
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Frame {
        self.try_next().expect("the channel is open")
    }

    /// The next frame must be the result of this call.
    fn result<T: serde::de::DeserializeOwned>(&mut self, id: u64) -> T {
        let frame = self.next();
        assert_eq!((frame.header.kind, frame.header.id), (Kind::Reply, id), "{frame:?}");
        rmp_serde::from_slice(&frame.body).unwrap()
    }

    /// The next frame must be the failure of this call.
    fn fault(&mut self, id: u64) -> Fault {
        let frame = self.next();
        assert_eq!((frame.header.kind, frame.header.id), (Kind::Fault, id), "{frame:?}");
        frame.decode().unwrap()
    }

    /// Calls until the method has proven fast, with answers in between.
    fn prove_fast(&mut self, method: u32, arguments: &impl Serialize) {
        for id in 1_000_000..1_000_064 {
            self.call(id, method, arguments);
            assert_eq!(self.next().header.kind, Kind::Reply);
        }
    }

    fn end(mut self) -> Result<End, ServeError> {
        let server = self.server.take().unwrap();
        drop(self);
        server.join().unwrap()
    }
}

#[test]
fn calls_are_answered_and_the_end_of_the_channel_ends_serving() {
    let mut host = Host::open();
    host.call(1, ADD, &json!({"numbers": [1, 2, 3]}));
    assert_eq!(host.result::<u64>(1), 6);
    host.call(2, LATER, &json!({"text": "x"}));
    assert_eq!(host.result::<String>(2), "x");
    assert!(matches!(host.end(), Ok(End::HostGone)));
}

#[test]
fn many_calls_in_one_write_are_all_answered_once() {
    const CALLS: u64 = 5000;
    let mut host = Host::open_with(|hello| hello.in_flight_max = 65_536);
    let mut bytes = Vec::new();
    for id in 0..CALLS {
        let header = Header { method: ADD, ..Header::new(Kind::Call, EPOCH, id) };
        append_message(&mut bytes, header, &json!({"numbers": [id, 1]})).unwrap();
    }
    // Never write all before reading: somebody else writes.
    let mut channel = host.channel.try_clone().unwrap();
    let writer = thread::spawn(move || std::io::Write::write_all(&mut channel, &bytes).unwrap());
    let mut answered = vec![false; usize::try_from(CALLS).unwrap()];
    for _ in 0..CALLS {
        let frame = host.next();
        assert_eq!(frame.header.kind, Kind::Reply);
        assert_eq!(rmp_serde::from_slice::<u64>(&frame.body).unwrap(), frame.header.id + 1);
        assert!(!std::mem::replace(&mut answered[usize::try_from(frame.header.id).unwrap()], true));
    }
    writer.join().unwrap();
    host.bare(Kind::Ping, 4);
    assert_eq!(host.next().header, Header::new(Kind::Pong, EPOCH, 4));
}

#[test]
fn a_cancelled_call_is_still_answered_once() {
    let mut host = Host::open();
    host.call(1, HOLD, &json!({"is_held": true}));
    host.bare(Kind::Cancel, 1);
    assert_eq!(host.fault(1).code, FaultCode::Cancelled);
    // Too late, and of no call at all: nothing happens.
    host.bare(Kind::Cancel, 1);
    host.bare(Kind::Cancel, 99);
    host.call(2, ADD, &json!({"numbers": []}));
    assert_eq!(host.result::<u64>(2), 0);
}

#[test]
fn a_stuck_method_that_was_fast_does_not_stop_the_others() {
    let mut host = Host::open();
    host.prove_fast(HOLD, &json!({"is_held": false}));
    host.prove_fast(ADD, &json!({"numbers": []}));
    // Twice, so that a reader that took over is itself taken over from.
    for id in [10, 20] {
        host.call(id, HOLD, &json!({"is_held": true}));
        host.call(id + 1, ADD, &json!({"numbers": [1, 1]}));
        host.bare(Kind::Ping, 5);
        assert_eq!(host.result::<u64>(id + 1), 2);
        assert_eq!(host.next().header.kind, Kind::Pong);
        host.bare(Kind::Cancel, id);
        assert_eq!(host.fault(id).code, FaultCode::Cancelled);
        host.prove_fast(HOLD, &json!({"is_held": false}));
    }
}

#[test]
fn a_call_ends_with_its_deadline() {
    let mut host = Host::open();
    let header = Header { method: HOLD, aux: 20_000, ..Header::new(Kind::Call, EPOCH, 1) };
    host.send_message(header, &json!({"is_held": true}));
    assert_eq!(host.fault(1).code, FaultCode::DeadlineExceeded);
}

#[test]
fn a_call_that_waited_beyond_its_deadline_is_not_run() {
    let mut host = Host::open();
    let held: u64 = super::workers::WORKERS_MAX as u64;
    for id in 0..held {
        host.call(id, HOLD, &json!({"is_held": true}));
    }
    // Every worker is taken. The method would explode if it ran.
    let header = Header { method: EXPLODE, aux: 1, ..Header::new(Kind::Call, EPOCH, 100) };
    host.send_message(header, &json!({}));
    host.bare(Kind::Ping, 1);
    assert_eq!(host.next().header.kind, Kind::Pong);
    for id in 0..held {
        host.bare(Kind::Cancel, id);
    }
    let late = (0..=held).map(|_| host.next()).find(|frame| frame.header.id == 100).unwrap();
    assert_eq!(late.decode::<Fault>().unwrap().code, FaultCode::DeadlineExceeded);
}

#[test]
fn progress_comes_before_the_answer() {
    let mut host = Host::open();
    host.call(3, REPORT, &json!({}));
    for done in [1, 2] {
        let frame = host.next();
        assert_eq!((frame.header.kind, frame.header.id), (Kind::Progress, 3));
        assert_eq!(frame.decode::<Progress>().unwrap().done, done);
    }
    host.result::<()>(3);
}

#[test]
fn a_large_result_comes_whole_and_a_too_large_one_is_a_fault() {
    let mut host = Host::open_with(|hello| hello.message_bytes_max = 4 << 20);
    host.call(1, LARGE, &json!({"bytes": 3 << 20}));
    assert_eq!(host.result::<Blob>(1).len(), 3 << 20);
    host.call(2, LARGE, &json!({"bytes": 5 << 20}));
    assert_eq!(host.fault(2).code, FaultCode::TooLarge);
}

#[test]
fn what_cannot_be_called_is_a_fault_of_that_call() {
    let mut host = Host::open();
    let call = Header { method: ADD, codec: Codec::MessagePack, ..Header::new(Kind::Call, EPOCH, 1) };
    let cases = [
        (Header { method: 6, ..call }, &b"\x80"[..], FaultCode::UnknownMethod),
        (Header { codec: Codec::Wincode, ..call }, b"\x80", FaultCode::Unsupported),
        (Header { flags: Flags::SEGMENT, ..call }, b"\x80", FaultCode::Unsupported),
        (Header { flags: Flags::SEGMENT.union(Flags::METADATA), ..call }, b"\x80", FaultCode::Unsupported),
        (Header { descriptors: 1, ..call }, b"\x80", FaultCode::Unsupported),
        (call, b"\x80", FaultCode::InvalidArgument),
        (call, b"\x81\xa1", FaultCode::InvalidArgument),
        (call, b"\x80\x80", FaultCode::InvalidArgument),
    ];
    for (header, body, code) in cases {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, header, body);
        host.send(&bytes);
        assert_eq!(host.fault(1).code, code, "{header:?} {body:?}");
    }
}

#[test]
fn features_that_are_not_built_are_answered_or_ignored_as_the_protocol_says() {
    let mut host = Host::open();
    for kind in [Kind::StreamEnd, Kind::StreamDrop, Kind::HostReply, Kind::SegmentReturn, Kind::StreamData] {
        host.bare(kind, 3);
    }
    assert_eq!(host.next().header, Header::new(Kind::StreamDrop, EPOCH, 3));
    host.bare(Kind::StreamCredit, 4);
    let frame = host.next();
    assert_eq!((frame.header.kind, frame.header.id), (Kind::StreamEnd, 4));
    assert_eq!(frame.decode::<Fault>().unwrap().code, FaultCode::Unsupported);
}

#[test]
fn a_call_whose_descriptors_came_before_it_is_refused_and_no_other() {
    let mut host = Host::open();
    host.send_message(
        Header { descriptors: 1, ..Header::new(Kind::Descriptor, EPOCH, 1) },
        &DescriptorGrant::new("artifact", 0, 10),
    );
    host.bare(Kind::Descriptor, 0);
    host.call(2, ADD, &json!({"numbers": [2]}));
    assert_eq!(host.result::<u64>(2), 2);
    host.call(1, ADD, &json!({"numbers": [1]}));
    let fault = host.fault(1);
    assert_eq!(
        (fault.code, &*fault.message),
        (FaultCode::Unsupported, "this extension takes no file descriptors")
    );
    // A host may send as many as it likes: the oldest are forgotten.
    for id in 10..2000 {
        host.bare(Kind::Descriptor, id);
    }
    host.call(1999, ADD, &json!({"numbers": []}));
    assert_eq!(host.fault(1999).code, FaultCode::Unsupported);
    host.call(10, ADD, &json!({"numbers": []}));
    assert_eq!(host.result::<u64>(10), 0);
}

#[test]
fn frames_for_another_epoch_are_dropped_and_counted() {
    let mut host = Host::open();
    let mut bytes = Vec::new();
    // Nothing of them is looked at, not even what would end serving.
    for kind in [Kind::Call, Kind::Drain, Kind::Ping, Kind::Cancel, Kind::StreamData, Kind::Reply] {
        append_frame(&mut bytes, Header::new(kind, EPOCH + 1, 1), &[]);
    }
    host.send(&bytes);
    host.call(1, ADD, &json!({"numbers": [1]}));
    assert_eq!(host.result::<u64>(1), 1);
    host.bare(Kind::Drain, 0);
    let record: LogRecord = host.next().decode().unwrap();
    assert_eq!((record.level, &*record.message), (2, "6 frames of another epoch were dropped"));
    assert_eq!(host.next().header.kind, Kind::Goodbye);
}

#[test]
fn metadata_before_the_arguments_is_skipped() {
    let mut host = Host::open();
    let metadata = rmp_serde::to_vec_named(&Metadata::default()).unwrap();
    let mut body = Vec::from(u32::try_from(metadata.len()).unwrap().to_le_bytes());
    body.extend(metadata);
    body.extend(rmp_serde::to_vec_named(&json!({"numbers": [5]})).unwrap());
    let header =
        Header { codec: Codec::MessagePack, flags: Flags::METADATA, ..Header::new(Kind::Call, EPOCH, 1) };
    let mut bytes = Vec::new();
    append_frame(&mut bytes, header, &body);
    host.send(&bytes);
    assert_eq!(host.result::<u64>(1), 5);
}

#[test]
fn a_drain_finishes_what_is_under_way_and_says_goodbye() {
    let mut host = Host::open();
    host.call(1, HOLD, &json!({"is_held": true}));
    host.bare(Kind::Drain, 0);
    host.call(2, ADD, &json!({"numbers": []}));
    assert_eq!(host.fault(2).code, FaultCode::Draining);
    host.bare(Kind::Cancel, 1);
    assert_eq!(host.fault(1).code, FaultCode::Cancelled);
    assert_eq!(host.next().header.kind, Kind::Goodbye);
    assert!(host.try_next().is_none());
    assert!(matches!(host.end(), Ok(End::Drained)));
}

#[test]
fn what_a_host_may_not_send_ends_serving_with_a_reason() {
    let frame = |header: Header| {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, header, &[]);
        bytes
    };
    let mut no_kind = frame(Header::new(Kind::Ping, EPOCH, 1));
    no_kind[4] = 200;
    for bytes in
        [frame(Header::new(Kind::Reply, EPOCH, 1)), frame(Header::new(Kind::Hello, EPOCH, 1)), no_kind]
    {
        let mut host = Host::open();
        host.send(&bytes);
        let goodbye: Goodbye = host.next().decode().unwrap();
        assert!(goodbye.reason.contains("broke the protocol"), "{}", goodbye.reason);
        assert!(host.try_next().is_none());
        assert!(matches!(host.end(), Err(ServeError::Violation(_))));
    }
    let host = Host::open();
    host.call(1, HOLD, &json!({"is_held": true}));
    host.call(1, HOLD, &json!({"is_held": true}));
    assert!(matches!(host.server.unwrap().join().unwrap(), Err(ServeError::Violation(_))));
}

#[test]
fn more_calls_than_announced_are_told_to_come_later() {
    let mut host = Host::open_with(|hello| hello.in_flight_max = 1);
    let held = 1 + super::workers::WORKERS_MAX as u64 + super::role::READERS_MAX as u64;
    for id in 0..held {
        host.call(id, HOLD, &json!({"is_held": true}));
    }
    host.call(held, HOLD, &json!({"is_held": true}));
    assert_eq!(host.fault(held).code, FaultCode::Busy);
}

#[test]
fn a_start_that_fails_is_said_before_the_goodbye() {
    for (config, code) in [
        (json!({"start_fails": true}), FaultCode::Failed),
        (json!({"start_panics": true}), FaultCode::Panicked),
        (json!({"start_fails": "yes"}), FaultCode::InvalidArgument),
    ] {
        let mut host = Host::greet(|hello| hello.config = rmp_serde::to_vec_named(&config).unwrap());
        host.next().decode::<Welcome>().unwrap();
        let fault = host.next().decode::<Ready>().unwrap().fault.unwrap();
        assert_eq!(fault.code, code, "{}", fault.message);
        if code == FaultCode::InvalidArgument {
            assert!(fault.message.contains("[config] table: key `start_fails`"), "{}", fault.message);
        }
        assert_eq!(host.next().header.kind, Kind::Goodbye);
        assert!(matches!(host.end(), Err(ServeError::Start(_))));
    }
}

#[test]
fn log_records_carry_level_target_and_fields() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let server = thread::spawn(|| {
        let mut guard = None;
        let prepare = |output: &Arc<Output>| guard = Some(logging::capture_this_thread(output));
        drop(serve(theirs, Subject::definition(), Embedding::Process, prepare));
    });
    let mut host = Host { channel: ours, frames: FrameBuffer::new(u64::MAX), server: None };
    host.send_message(Header::new(Kind::Hello, EPOCH, 0), &Hello::new(env!("CARGO_PKG_NAME"), EPOCH, 77));
    assert_eq!(host.next().header.kind, Kind::Welcome);
    let record: LogRecord = host.next().decode().unwrap();
    assert_eq!(record, LogRecord::new(3, module_path!(), "started answer=42"));
    assert_eq!(host.next().header.kind, Kind::Ready);
    drop(host);
    server.join().unwrap();
}

#[test]
fn a_host_that_does_not_read_loses_log_records_and_nothing_else() {
    const RECORDS: usize = 100_000;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let output = Output::new(theirs, EPOCH, Arc::default());
    let log = |text: String| output.log(&LogRecord::new(3, "here", text));
    (0..RECORDS).for_each(|index| log(format!("record {index}")));
    let reader = thread::spawn(move || {
        let mut host = Host { channel: ours, frames: FrameBuffer::new(u64::MAX), server: None };
        let mut messages = Vec::new();
        while messages.last().is_none_or(|last| last != "the last") {
            messages.push(host.next().decode::<LogRecord>().unwrap().message);
        }
        messages
    });
    output.flush_whole();
    log("the last".into());
    output.flush_whole();
    let messages = reader.join().unwrap();
    let kept = messages.len() - 2;
    assert!((1..RECORDS).contains(&kept));
    assert_eq!(messages[kept - 1], format!("record {}", kept - 1));
    let lost = RECORDS - kept;
    assert_eq!(
        messages[kept],
        format!("{lost} log records were dropped because the host did not read them in time")
    );
}
