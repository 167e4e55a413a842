//! The calling side of a test over a real channel: blocking, a thread that reads, no runtime.
//!
//! What serves at the other end is a thread of this process, or a process of its own.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipc_protocol::handshake::{FEATURE_WINCODE, Hello, MethodEntry, Ready, Welcome};
use ipc_protocol::limits::{MESSAGE_BYTES_DEFAULT, READY_TIMEOUT_MS, WELCOME_TIMEOUT_MS};
use ipc_protocol::{Fault, FaultCode, Flags, Header, Kind, Origin};
use ipc_transport::framing::{Frame, FrameBuffer, Violation, append_frame, append_message};
use ipc_transport::{CallError, CallResult, Caller, Cause, ProgressSink, Reply, Request};
use parking_lot::Mutex;
use rustix::net::{SendFlags, send};
use serde::Serialize;

use super::{answer, encode_config, find, means_the_same};
use crate::definition::Extension;
use crate::serve::{Embedding, serve};

/// An extension behind a real channel. It ends when the last clone is dropped.
#[derive(Clone)]
pub struct OverSocket(Arc<Connection>);

impl fmt::Debug for OverSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OverSocket").field(&self.0.shared.channel).finish()
    }
}

impl OverSocket {
    /// The process's id, if a process of its own serves: for a test that sends it a signal.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        match &self.0.peer {
            Peer::Process(child) => Some(child.id()),
            Peer::Thread(_) => None,
        }
    }
}

/// Serves `T` without a `[config]` table over a pair of sockets.
///
/// # Errors
///
/// What the extension's start says, or that sockets or threads are not to be had.
pub fn over_socket<T: Extension>() -> Result<OverSocket, Fault> {
    start_thread::<T>(Vec::new())
}

/// Serves `T` with `config` as its `[config]` table over a pair of sockets.
///
/// # Errors
///
/// What the extension's start says, or that sockets or threads are not to be had.
pub fn over_socket_with<T: Extension>(config: &impl Serialize) -> Result<OverSocket, Fault> {
    start_thread::<T>(encode_config(config)?)
}

/// Runs the extension whose binary is `program` as a process of its own, without a `[config]` table.
///
/// In an integration test of the extension's package: `process(env!("CARGO_BIN_EXE_NAME"))`.
///
/// # Errors
///
/// What the extension's start says, or that there is no such program.
pub fn process(program: impl AsRef<Path>) -> Result<OverSocket, Fault> {
    start_process(program.as_ref(), Vec::new())
}

/// As [`process`], with `config` as the `[config]` table.
///
/// # Errors
///
/// As [`process`].
pub fn process_with(program: impl AsRef<Path>, config: &impl Serialize) -> Result<OverSocket, Fault> {
    start_process(program.as_ref(), encode_config(config)?)
}

/// The epoch of every extension under test.
const EPOCH: u32 = 1;

/// LIMIT: how long a process may take to end once its channel is closed; then it is killed.
const EXIT_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often unanswered calls are looked at, while nothing comes.
const EXPIRY_TICK: Duration = Duration::from_millis(100);

/// How long an answer may be late: the extension itself is to notice a deadline first.
const LATE_MAX: Duration = Duration::from_secs(2);

struct Connection {
    shared: Arc<Shared>,
    methods: Vec<MethodEntry>,
    has_wincode: bool,
    next_id: AtomicU64,
    reader: Option<JoinHandle<()>>,
    peer: Peer,
}

/// What serves at the other end.
enum Peer {
    Thread(Option<JoinHandle<()>>),
    Process(Child),
}

struct Shared {
    channel: UnixStream,
    waiting: Mutex<Waiting>,
    /// Held while a frame is written, so that frames do not mix.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, Slot>,
    /// Why no answer can come any more.
    ended: Option<String>,
}

struct Slot {
    deadline: Instant,
    hears: Option<ProgressSink>,
    result: Option<CallResult>,
    waker: Option<Waker>,
}

impl Slot {
    fn complete(&mut self, result: CallResult) {
        self.result = Some(result);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn io_fault(error: io::Error) -> Fault {
    Fault::new(FaultCode::Io, format!("no extension for the test: {error}"))
}

fn start_thread<T: Extension>(config: Vec<u8>) -> Result<OverSocket, Fault> {
    let (ours, theirs) = UnixStream::pair().map_err(io_fault)?;
    let definition = T::definition();
    let name = definition.name;
    let server = thread::Builder::new().name("extension under test".into());
    let server = server
        .spawn(move || drop(serve(theirs, definition, Embedding::Process, |_| {})))
        .map_err(io_fault)?;
    connect(ours, name, config, Peer::Thread(Some(server)))
}

fn start_process(program: &Path, config: Vec<u8>) -> Result<OverSocket, Fault> {
    let name = program.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let (ours, theirs) = UnixStream::pair().map_err(io_fault)?;
    let child = Command::new(program).stdin(OwnedFd::from(theirs)).spawn().map_err(io_fault)?;
    connect(ours, name, config, Peer::Process(child))
}

fn connect(channel: UnixStream, name: &str, config: Vec<u8>, peer: Peer) -> Result<OverSocket, Fault> {
    let shared = Arc::new(Shared { channel, waiting: Mutex::default(), writing: Mutex::default() });
    // From here on dropping it ends the other side.
    let mut connection = Connection {
        shared,
        methods: Vec::new(),
        has_wincode: false,
        next_id: AtomicU64::new(1),
        reader: None,
        peer,
    };
    let mut hello = Hello::new(name, EPOCH, 0);
    hello.config = config;
    hello.features = vec![FEATURE_WINCODE.to_owned()];
    let shared = Arc::clone(&connection.shared);
    shared.send(|bytes| drop(append_message(bytes, Header::new(Kind::Hello, EPOCH, 0), &hello)));
    let mut frames = FrameBuffer::new(u64::MAX);
    shared.channel.set_read_timeout(Some(EXPIRY_TICK)).map_err(io_fault)?;
    let deadline = Instant::now() + Duration::from_millis(u64::from(WELCOME_TIMEOUT_MS + READY_TIMEOUT_MS));
    loop {
        let Some(frame) = shared.read_frame(&mut frames, Some(deadline)) else {
            return Err(Fault::new(
                FaultCode::Failed,
                "the extension ended in its handshake, or took too long",
            ));
        };
        let wrong = |violation: Violation| Fault::new(FaultCode::ProtocolViolation, violation.to_string());
        match frame.header.kind {
            Kind::Welcome => {
                let welcome = frame.decode::<Welcome>().map_err(wrong)?;
                connection.has_wincode = welcome.features.iter().any(|feature| feature == FEATURE_WINCODE);
                connection.methods = welcome.methods;
            }
            Kind::Ready => match frame.decode::<Ready>().map_err(wrong)?.fault {
                Some(fault) => return Err(fault),
                None => break,
            },
            _ => {}
        }
    }
    let reader = thread::Builder::new().name("caller under test".into());
    connection.reader = Some(reader.spawn(move || read(&shared, frames)).map_err(io_fault)?);
    Ok(OverSocket(Arc::new(connection)))
}

impl Shared {
    fn send(&self, append: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        append(&mut bytes);
        let _one_at_a_time = self.writing.lock();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match send(&self.channel, rest, SendFlags::NOSIGNAL) {
                Ok(written) => rest = &rest[written..],
                Err(rustix::io::Errno::INTR) => {}
                // The reading side sees the end and fails the calls.
                Err(_) => return,
            }
        }
    }

    /// `None`: the channel ended, or nothing came until `deadline`.
    fn read_frame(&self, frames: &mut FrameBuffer, deadline: Option<Instant>) -> Option<Frame> {
        loop {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            match frames.next_frame() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(_) => return None,
            }
            match frames.read_from(|room| io::Read::read(&mut &self.channel, room)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.expire(),
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn complete(&self, id: u64, result: CallResult) {
        if let Some(slot) = self.waiting.lock().calls.get_mut(&id) {
            slot.complete(result);
        }
    }

    /// Ends the calls that the extension has not answered in time.
    fn expire(&self) {
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        let late = waiting.calls.values_mut().filter(|slot| slot.result.is_none() && now >= slot.deadline);
        late.for_each(|slot| slot.complete(Err(CallError::Unknown(Cause::Deadline))));
    }
}

fn read(shared: &Shared, mut frames: FrameBuffer) {
    while let Some(frame) = shared.read_frame(&mut frames, None) {
        let Header { kind, id, .. } = frame.header;
        match kind {
            Kind::Reply => shared.complete(id, answer(frame.header.codec, frame.body)),
            Kind::Fault => {
                let fault = frame.decode().unwrap_or_else(|violation| {
                    Fault::new(FaultCode::ProtocolViolation, violation.to_string())
                        .with_origin(Origin::Transport)
                });
                shared.complete(id, Err(fault.into()));
            }
            Kind::Progress => {
                // Told without the lock: it is the test's own code.
                let hears = shared.waiting.lock().calls.get(&id).and_then(|slot| slot.hears.clone());
                if let (Some(hears), Ok(progress)) = (hears, frame.decode()) {
                    hears.tell(progress);
                }
            }
            // Heartbeats and log records: nobody asks for them here.
            _ => {}
        }
    }
    let mut waiting = shared.waiting.lock();
    let why = "the extension under test ended".to_owned();
    for slot in waiting.calls.values_mut().filter(|slot| slot.result.is_none()) {
        slot.complete(Err(CallError::Unknown(Cause::Died(why.clone()))));
    }
    waiting.ended = Some(why);
}

impl Caller for OverSocket {
    fn call(&self, request: Request<'_>) -> Reply {
        let Connection { shared, methods, has_wincode, next_id, .. } = &*self.0;
        let (method, body) = match find(methods.iter(), request.method).and_then(|method| {
            let is_fast = *has_wincode && means_the_same(&methods[method], &request.payload);
            Ok((method, request.payload.into_encoded_for(is_fast, MESSAGE_BYTES_DEFAULT)?))
        }) {
            Ok(found) => found,
            Err(error) => return Reply::ready(Err(error)),
        };
        // ORDERING(id): Relaxed, only the number itself matters.
        let id = next_id.fetch_add(1, Ordering::Relaxed);
        {
            let mut waiting = shared.waiting.lock();
            if let Some(why) = &waiting.ended {
                return Reply::ready(Err(CallError::NotDelivered(Cause::Died(why.clone()))));
            }
            let deadline = request.deadline + LATE_MAX;
            let hears = request.progress;
            waiting.calls.insert(id, Slot { deadline, hears, result: None, waker: None });
        }
        let left = request.deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
        let mut header = Header::new(Kind::Call, EPOCH, id);
        header.codec = body.codec;
        header.flags = Flags::NONE;
        header.method = u32::try_from(method).unwrap_or(u32::MAX);
        header.aux = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
        shared.send(|bytes| append_frame(bytes, header, &body.bytes));
        Reply::from_future(Pending { connection: Arc::clone(&self.0), id })
    }
}

struct Pending {
    connection: Arc<Connection>,
    id: u64,
}

impl Future for Pending {
    type Output = CallResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult> {
        let mut waiting = self.connection.shared.waiting.lock();
        let Some(slot) = waiting.calls.get_mut(&self.id) else {
            return Poll::Ready(Err(CallError::Cancelled));
        };
        match slot.result.take() {
            Some(result) => {
                waiting.calls.remove(&self.id);
                Poll::Ready(result)
            }
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let shared = &self.connection.shared;
        let was_waiting =
            shared.waiting.lock().calls.remove(&self.id).is_some_and(|slot| slot.result.is_none());
        if was_waiting {
            shared.send(|bytes| append_frame(bytes, Header::new(Kind::Cancel, EPOCH, self.id), &[]));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // It fails where the extension is gone already, which is just as good.
        let _ = self.shared.channel.shutdown(std::net::Shutdown::Both);
        // A panic on a thread was printed there, and the test's own calls have failed from it.
        let _ = self.reader.take().map(JoinHandle::join);
        match &mut self.peer {
            Peer::Thread(server) => drop(server.take().map(JoinHandle::join)),
            Peer::Process(child) => end(child),
        }
    }
}

/// Waits for a process that has no channel any more.
fn end(child: &mut Child) {
    let deadline = Instant::now() + EXIT_WAIT_MAX;
    while let Ok(None) = child.try_wait() {
        if Instant::now() >= deadline {
            // It fails where the process ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
