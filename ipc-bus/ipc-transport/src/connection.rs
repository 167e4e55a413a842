//! The calling side of a stream socket: many calls in flight over one connection, on tokio.
//!
//! A lone call is written by its caller at once; what comes meanwhile is left to the writer task, which
//! writes everything with one system call. Reading never waits for writing. This module must not know who
//! started the extension, what a method means, and when a call may be tried again.
//!
//! ```text
//!  call() --> state (one lock) --> writer task --> socket
//!    ^            |   ^                              |
//!    +--- wakes --+   +---------- reader task <------+        timer task: deadlines
//! ```

mod allowance;
mod call;
mod greet;
mod host_calls;
mod incoming;
mod options;
mod socket;
mod state;
mod statistics;
mod streams;
mod tasks;
mod through_ring;

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use ipc_protocol::control::Goodbye;
use ipc_protocol::handshake::{
    FEATURE_DESCRIPTORS, FEATURE_HOST_CALLS, FEATURE_RINGS, FEATURE_STREAMS, FEATURE_WINCODE, MethodEntry,
    Welcome,
};
use ipc_protocol::limits::IN_FLIGHT_CALLS_MAX;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::handshake::HandshakeError;
use crate::in_flight::CallId;
use crate::outcome::{CallError, Cause};
use crate::payload::encode_into;
use crate::ring::Offer;
use host_calls::Hosted;
use socket::Socket;
use state::{Flushed, Limits, NewCall, Phase, State};
use through_ring::ThroughRing;

pub(crate) use call::InFlightReply;
pub use host_calls::{HostAnswer, HostCall, HostCallFuture, HostCalls, HostGrant};
pub use options::{CloseReason, ConnectOptions, PeerEvents};
pub use statistics::ConnectionStatistics;

/// Why two sides did not come together.
pub type ConnectError = HandshakeError;

/// LIMIT: how long calls wait for the host's word on how the peer ended.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Shared {
    socket: Socket,
    welcome: Welcome,
    /// Whether both sides have the fast codec.
    has_wincode: bool,
    /// Whether results may name streams.
    has_streams: bool,
    /// Indices of the methods, sorted by name.
    by_name: Vec<u32>,
    epoch: u32,
    message_bytes_max: u64,
    state: Mutex<State>,
    /// Where frames go if not through the socket.
    through_ring: Option<ThroughRing>,
    /// What the peer asks of this side, if that was agreed on.
    hosted: Option<Hosted>,
    /// Whether answers to that may bring descriptors.
    grants_descriptors: bool,
    timer: Notify,
    closed: Notify,
    cause_given: Notify,
    idle: Notify,
}

impl Shared {
    fn method(&self, name: &str) -> Option<u32> {
        let entry = |index: &u32| self.welcome.methods[*index as usize].name.as_str();
        self.by_name.binary_search_by(|index| entry(index).cmp(name)).ok().map(|at| self.by_name[at])
    }

    /// Whether a method takes the fast codec from a caller whose interface says `schema_hash` of it.
    fn is_fast(&self, method: u32, schema_hash: u64) -> bool {
        let theirs = || self.welcome.methods.get(method as usize).map(|entry| entry.schema_hash);
        self.has_wincode && schema_hash != 0 && theirs() == Some(schema_hash)
    }

    /// Unlocks, and tells whoever must hear of what was done under the lock.
    fn finish(&self, mut state: MutexGuard<'_, State>, wake: &mut Vec<Waker>) {
        let flushed = state.flush_to_ring();
        let writer = state.signal_writer();
        let timer_moved = state.take_timer_moved();
        let is_idle = state.is_watched() && state.is_idle();
        let over_hosting = state.take_over_hosting();
        drop(state);
        if flushed != Flushed::default() {
            self.tell_of(flushed);
        }
        if let Some(writer) = writer {
            writer.wake();
        }
        if timer_moved {
            self.timer.notify_one();
        }
        if is_idle {
            self.idle.notify_waiters();
        }
        for waker in wake.drain(..) {
            waker.wake();
        }
        if !over_hosting.is_empty() {
            self.give_up_host_calls(&over_hosting);
        }
    }

    /// What came of writing to the ring, to be told without the lock.
    fn tell_of(&self, flushed: Flushed) {
        let Some(through) = &self.through_ring else { return };
        if flushed.is_end_of_stream {
            // That wakes, too.
            self.socket.shut_down_writes();
        } else if flushed.must_wake {
            self.ring_the_bell();
        }
        match flushed.lie {
            Some(violation) => through.fail(violation),
            None if flushed.has_more => through.wake_task(),
            None => {}
        }
    }

    fn begin(&self, call: &NewCall<'_>) -> Result<CallId, CallError> {
        let mut state = self.state.lock();
        let id = state.begin(call);
        if let Some(must_tell) = state.keep_back()
            && let Some(through) = &self.through_ring
        {
            let timer_moved = state.take_timer_moved();
            drop(state);
            if timer_moved {
                self.timer.notify_one();
            }
            if must_tell {
                through.wake_task();
            }
            return id;
        }
        if let Some(bytes) = state.direct_bytes() {
            // With nothing in flight nobody waits for the lock but callers who come to queue behind this call.
            // What cannot be written is left to the writer, who waits for room or learns that the peer is gone.
            if let Ok(count) = self.socket.send(bytes) {
                state.wrote_direct(count);
            }
        }
        self.finish(state, &mut Vec::new());
        id
    }
}

/// Speaks for all clones: the last one closes the connection.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        close(&self.shared, "nobody uses it any longer");
    }
}

fn close(shared: &Shared, reason: &str) {
    let mut state = shared.state.lock();
    let _ = state.lose(CloseReason::ClosedHere(reason.to_owned()));
    shared.finish(state, &mut Vec::new());
    shared.socket.shut_down();
}

/// One peer that can be called. Clones share the connection; when the last one and the last [`Reply`](crate::Reply) are
/// gone, it is closed.
#[derive(Clone, Debug)]
pub struct Connection {
    handle: Arc<Handle>,
}

/// Says hello over `socket` and waits until the extension is ready.
///
/// Must be called within a tokio runtime (either flavour) with I/O and time; the connection lives as long as
/// that runtime.
///
/// # Errors
///
/// [`ConnectError`]: the peer is silent, wrong, or could not start; it should be ended.
///
/// # Cancel safety
///
/// Dropping the future closes the socket.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use ipc_protocol::handshake::Hello;
/// use ipc_transport::connection::{ConnectOptions, connect};
/// use ipc_transport::{Caller, Payload, Request};
///
/// # async fn example(socket: std::os::unix::net::UnixStream) -> Result<(), Box<dyn std::error::Error>> {
/// let hello = Hello::new("greeter", 1, 0x5eed);
/// let greeter = connect(socket, ConnectOptions::new(hello), Arc::new(())).await?;
/// let name = &mut Some("World".to_owned());
/// let answer = greeter.call(Request::new("greet", Payload::Typed(name), Duration::from_secs(5))).await?;
/// assert_eq!(answer.decode::<String>()?, "Hello, World!");
/// # Ok(())
/// # }
/// ```
pub async fn connect(
    socket: std::os::unix::net::UnixStream,
    options: ConnectOptions,
    events: Arc<dyn PeerEvents>,
) -> Result<Connection, ConnectError> {
    let in_flight_max = options.in_flight_max.clamp(1, IN_FLIGHT_CALLS_MAX);
    let mut hello = options.hello;
    hello.in_flight_max = in_flight_max;
    // Without memory for them it is the socket.
    let offer = if options.offers_rings { Offer::new().ok() } else { None };
    if offer.is_some() {
        hello.features.push(FEATURE_RINGS.to_owned());
        options.latency.as_str().clone_into(&mut hello.latency);
    }
    for feature in [FEATURE_WINCODE, FEATURE_STREAMS] {
        if !hello.features.iter().any(|other| other == feature) {
            hello.features.push(feature.to_owned());
        }
    }
    if let Some(host_calls) = &options.host_calls {
        hello.features.push(FEATURE_HOST_CALLS.to_owned());
        hello.host_methods = host_calls.methods();
        if options.grants_descriptors {
            hello.features.push(FEATURE_DESCRIPTORS.to_owned());
        }
    }
    let timeouts = (options.welcome_timeout, options.ready_timeout);
    let greeted = greet::greet(socket, &hello, timeouts, offer, &*events).await?;

    let methods = &greeted.welcome.methods;
    let mut by_name: Vec<u32> = (0..).take(methods.len()).collect();
    by_name.sort_by(|a, b| methods[*a as usize].name.cmp(&methods[*b as usize].name));
    let limits = Limits {
        in_flight_max,
        queued_bytes_max: options.queued_bytes_max,
        message_bytes_max: hello.message_bytes_max,
    };
    let (writer, reader) = greeted.rings.map(|rings| (rings.writer, rings.reader)).unzip();
    let through_ring = reader.map(|reader| {
        let limits = (hello.epoch, hello.message_bytes_max);
        ThroughRing::new(reader, limits, options.latency, Arc::clone(&events))
    });
    let has = |feature: &str| greeted.welcome.features.iter().any(|other| other == feature);
    // This side always has it: whoever brings typed values encodes and decodes them.
    let (has_wincode, has_streams) = (has(FEATURE_WINCODE), has(FEATURE_STREAMS));
    let grants_descriptors = options.grants_descriptors && has(FEATURE_DESCRIPTORS);
    let host_calls = options.host_calls.filter(|_| has(FEATURE_HOST_CALLS));
    let shared = Arc::new_cyclic(|shared| Shared {
        socket: greeted.socket,
        has_wincode,
        has_streams,
        welcome: greeted.welcome,
        by_name,
        epoch: hello.epoch,
        message_bytes_max: hello.message_bytes_max,
        state: Mutex::new(State::new(hello.epoch, limits, writer)),
        through_ring,
        hosted: host_calls.map(|calls| Hosted::new(calls, hello.host_methods.len(), shared.clone())),
        grants_descriptors,
        timer: Notify::new(),
        closed: Notify::new(),
        cause_given: Notify::new(),
        idle: Notify::new(),
    });
    tasks::spawn(&shared, greeted.frames, events);
    Ok(Connection { handle: Arc::new(Handle { shared }) })
}

impl Connection {
    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// What the extension said of itself.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.shared().welcome
    }

    /// The method with this name.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&MethodEntry> {
        self.shared().method(name).map(|index| &self.welcome().methods[index as usize])
    }

    /// Whether frames go through shared memory.
    #[must_use]
    pub fn uses_rings(&self) -> bool {
        self.shared().through_ring.is_some()
    }

    /// Whether `method` takes arguments in the fast codec from a caller whose interface says `schema_hash` of it.
    /// Only then may arguments be given as bytes in it.
    #[must_use]
    pub fn is_fast(&self, method: &str, schema_hash: u64) -> bool {
        let shared = self.shared();
        schema_hash != 0 && shared.method(method).is_some_and(|method| shared.is_fast(method, schema_hash))
    }

    /// Bytes of one message at most.
    #[must_use]
    pub fn message_bytes_max(&self) -> u64 {
        self.shared().message_bytes_max
    }

    /// Calls that the extension has and has not answered, cancelled and expired ones included.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.shared().state.lock().in_flight()
    }

    /// Streams that the extension writes, of results that may have been answered long ago.
    #[must_use]
    pub fn open_streams(&self) -> u32 {
        self.shared().state.lock().open_streams()
    }

    /// Since when the extension has owed the oldest answer that nobody waits for any longer: the time of the
    /// cancel that it was sent. `None`: it owes no such answer. How a hang shows: an extension that lives gives
    /// up what is cancelled.
    ///
    /// Looks through the calls in flight, if there is such an answer.
    #[must_use]
    pub fn oldest_unanswered(&self) -> Option<Instant> {
        self.shared().state.lock().oldest_unanswered()
    }

    /// Counters since the connection began.
    #[must_use]
    pub fn statistics(&self) -> ConnectionStatistics {
        self.shared().state.lock().statistics()
    }

    /// Waits until nothing more will be read, and says why.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn closed(&self) -> CloseReason {
        let shared = self.shared();
        loop {
            let closed = shared.closed.notified();
            if let Phase::Lost(reason) | Phase::Ended(reason, _) = shared.state.lock().phase() {
                return reason.clone();
            }
            closed.await;
        }
    }

    /// Says how the peer ended. What it sent before is delivered first; then every call that is left ends
    /// with `cause`. Only the first cause counts.
    pub fn fail_all(&self, cause: Cause) {
        let shared = self.shared();
        let is_first = shared.state.lock().give_cause(cause);
        if is_first {
            // The peer's children may still hold its end open: do not wait for them.
            shared.socket.shut_down();
            shared.cause_given.notify_one();
        }
    }

    /// Tells the extension that no new calls will come. Calls that wait for room end as not delivered.
    pub fn drain(&self) {
        let mut wake = Vec::new();
        let mut state = self.shared().state.lock();
        state.drain(&mut wake);
        self.shared().finish(state, &mut wake);
    }

    /// Waits until nobody waits for an outcome: no call waits for room, none is in flight but those that were
    /// cancelled or expired, and every stream has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn idle(&self) {
        let shared = self.shared();
        let watch = Watch::new(shared);
        loop {
            let idle = shared.idle.notified();
            if watch.shared.state.lock().is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Sends this side's last frame, and then the end of the stream: the extension ends what it does and
    /// exits. What it still says is taken.
    pub fn goodbye(&self, reason: &str) {
        let mut goodbye = Vec::new();
        // A struct of one string cannot fail to be encoded; an empty body would say as much.
        let _ = encode_into(&Goodbye::new(reason), &mut goodbye);
        let mut wake = Vec::new();
        let mut state = self.shared().state.lock();
        state.leave(&goodbye, &mut wake);
        self.shared().finish(state, &mut wake);
    }

    /// Closes the connection. What was received is still delivered; then the calls that are left end with
    /// [`Cause::Closed`].
    pub fn close(&self, reason: &str) {
        close(self.shared(), reason);
    }
}

/// Counts those who wait for an idle connection, so that busy ones need not tell anybody.
struct Watch<'a> {
    shared: &'a Shared,
}

impl<'a> Watch<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.state.lock().watch();
        Self { shared }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().unwatch();
    }
}
