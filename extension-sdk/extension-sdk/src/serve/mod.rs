//! The running extension: one channel, some threads, no runtime.
//!
//! ```text
//!               frames in                       answers, log, progress out
//!   channel -> reading role --fast--> run here --+--> output -> channel
//!                  |                             |       ^
//!                  +--not proven fast--> workers +       |
//!   keeper (the thread that serves): heartbeat, what nobody else writes, the end
//!   watch: passes the reading role on when its holder is stuck in a handler
//! ```
//!
//! A hand-over between threads costs a wake-up, which is as much as a whole round trip; so the thread that reads
//! a call runs it at once where its method has proven fast ([`pace`]), and the answers to all calls of one read
//! leave with one write ([`output`]).
//!
//! Reading order: [`calls`], [`pace`], [`output`], [`answer`] (one call), [`host_calls`] (what it asks of the
//! host), [`streams`] (what follows its answer), [`workers`], [`role`] (who reads),
//! [`reader`], [`keeper`]. This module must not know how the process came by its channel.

mod answer;
mod calls;
mod host_calls;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod keeper;
mod output;
pub(crate) mod pace;
mod reader;
mod ring_input;
mod role;
mod streams;
#[cfg(test)]
mod tests;
mod workers;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipc_protocol::control::{Goodbye, LogRecord};
use ipc_protocol::handshake::{
    FEATURE_DESCRIPTORS, FEATURE_HOST_CALLS, FEATURE_RINGS, FEATURE_STREAMS, FEATURE_WINCODE, Ready,
};
use ipc_protocol::limits::WELCOME_TIMEOUT_MS;
use ipc_protocol::{Fault, Kind};
use ipc_transport::framing::{FrameBuffer, Violation};
use ipc_transport::handshake::{HandshakeError, accept};
use ipc_transport::ring::{Halves, Latency, grant};
use parking_lot::Mutex;

use crate::definition::Definition;
use crate::service::{self, MethodTraits, Service};
use calls::Calls;
use host_calls::HostCalls;
pub(crate) use host_calls::unsupported;
use keeper::Keeper;
pub(crate) use output::Output;
use pace::Pace;
use reader::Reading;
use ring_input::{Descriptors, RingInput};
use role::Role;
use streams::Streams;
use workers::Workers;

/// How long the host may take to grant shared memory that it has offered.
const GRANT_TIMEOUT: Duration = Duration::from_secs(5);

/// How serving ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The host asked to drain, everything is answered, goodbye is said.
    Drained,
    /// The host closed the channel or died.
    HostGone,
}

/// Why serving failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// No host on the other end.
    #[error("the handshake with the host failed")]
    Handshake(#[from] HandshakeError),
    /// The author's value did not start.
    #[error("the extension could not start")]
    Start(#[source] Fault),
    /// The host broke the protocol.
    #[error("the host broke the protocol")]
    Violation(#[source] Violation),
    /// The system gives no threads.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// Everything that the threads share.
struct Server {
    embedding: Embedding,
    epoch: u32,
    message_bytes_max: u64,
    /// Both sides have the fast codec.
    has_wincode: bool,
    service: Box<dyn Service>,
    methods: Vec<Method>,
    output: Arc<Output>,
    calls: Calls,
    host_calls: HostCalls,
    streams: Streams,
    workers: Workers,
    role: Role,
    reading: Mutex<Reading>,
    keeper: Arc<Keeper>,
}

/// What the program is beside this server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Embedding {
    /// Nothing: where the server cannot go on, the process ends, and the host starts another.
    Process,
    /// A program with other things to do: the channel ends, and nothing else.
    Program {
        /// LIMIT: calls at once, whatever the other side announces.
        in_flight_max: u32,
    },
}

impl Embedding {
    fn in_flight_max(self, announced: u32) -> u32 {
        match self {
            Self::Process => announced,
            Self::Program { in_flight_max } => announced.min(in_flight_max),
        }
    }
}

struct Method {
    traits: MethodTraits,
    pace: Pace,
}

/// Serves `definition` over `channel` until the host is done with it. `prepare` is told where log records go,
/// before the author's code runs.
///
/// # Errors
///
/// [`ServeError`]; the host was told, as far as it could be.
pub(crate) fn serve<T: Send + Sync + 'static>(
    channel: UnixStream,
    definition: Definition<T>,
    embedding: Embedding,
    prepare: impl FnOnce(&Arc<Output>),
) -> Result<End, ServeError> {
    let table = service::method_table(&definition).map_err(ServeError::Start)?;
    let mut accepted = accept(&channel, definition.name, Duration::from_millis(WELCOME_TIMEOUT_MS.into()))?;
    if table.iter().any(|method| method.is_fast) {
        accepted.features.push(FEATURE_WINCODE.to_owned());
    }
    if table.iter().any(|method| method.entry.streams) {
        accepted.features.push(FEATURE_STREAMS.to_owned());
    }
    let entries = table.iter().map(|method| method.entry.clone()).collect();
    // Every host that grants rings can do without them.
    accepted.features.extend([FEATURE_RINGS, FEATURE_HOST_CALLS, FEATURE_DESCRIPTORS].map(str::to_owned));
    accepted.welcome(&channel, definition.version, entries)?;
    let rings = accepted.is_agreed(FEATURE_RINGS).then(|| {
        grant::receive(&channel, &mut accepted.frames, GRANT_TIMEOUT).and_then(|granted| granted.map())
    });

    let keeper = Arc::new(Keeper::default());
    let hello = &accepted.hello;
    let output = Arc::new(Output::new(channel, hello.epoch, Arc::clone(&keeper)));
    prepare(&output);
    let rings = rings.and_then(|rings| match rings {
        Ok(rings) => Some(rings),
        Err(error) => {
            let text = format!("shared memory cannot be used, so everything goes over the socket: {error}");
            output.log(&LogRecord::new(2, "extension_sdk", text));
            None
        }
    });
    let service = match service::start(definition, &hello.config) {
        Ok(service) => service,
        Err(fault) => {
            output.append_control(Kind::Ready, 0, &Ready::failed(fault.clone()));
            output.append_control(Kind::Goodbye, 0, &Goodbye::new("the start failed"));
            output.flush();
            return Err(ServeError::Start(fault));
        }
    };
    let has_wincode = accepted.is_agreed(FEATURE_WINCODE);
    let streams = Streams::new(accepted.is_agreed(FEATURE_STREAMS));
    let descriptors = Descriptors::new(accepted.is_agreed(FEATURE_DESCRIPTORS));
    let asks_host = accepted.is_agreed(FEATURE_HOST_CALLS);
    let host_methods = if asks_host { hello.host_methods.clone() } else { Vec::new() };
    let (frames, ring) = match rings {
        None => {
            output.append_control(Kind::Ready, 0, &Ready::default());
            output.flush();
            (accepted.frames, None)
        }
        Some(Halves { writer, reader }) => {
            output.ready_with_ring(writer);
            let latency = Latency::from_name(&hello.latency).unwrap_or_default();
            let input = RingInput::new(reader, hello.epoch, accepted.frames, latency);
            (FrameBuffer::new(hello.message_bytes_max), Some(input))
        }
    };

    let server = Arc::new(Server {
        embedding,
        epoch: hello.epoch,
        message_bytes_max: hello.message_bytes_max,
        has_wincode,
        service,
        methods: table.into_iter().map(|traits| Method { traits, pace: Pace::default() }).collect(),
        output,
        calls: Calls::new(embedding.in_flight_max(hello.in_flight_max)),
        host_calls: HostCalls::new(host_methods),
        streams,
        workers: Workers::default(),
        role: Role::default(),
        reading: Mutex::new(Reading::new(frames, ring, descriptors)),
        keeper,
    });
    server.output.serves(&server);
    reader::start(&server).map_err(ServeError::Thread)?;
    role::watch(&server).map_err(ServeError::Thread)?;
    let end = keeper::keep(&server, Instant::now());
    server.close();
    if let Embedding::Program { .. } = embedding {
        // In a process of its own they end with it.
        server.calls.cancel_all();
    }
    end
}

/// Starts a thread that the channel depends on. Handlers' panics end in [`service`]; if `run` unwinds all the
/// same, calls would wait for answers that nobody gives, so the process ends and the host starts another.
fn start_thread(
    server: &Arc<Server>,
    name: &'static str,
    run: impl FnOnce(&Arc<Server>) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let server = Arc::clone(server);
    thread::Builder::new().name(name.into()).spawn(move || {
        match server.embedding {
            Embedding::Process => abort_on_panic(name, || run(&server)),
            Embedding::Program { .. } => {
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| run(&server))) {
                    // It may panic again while it is dropped.
                    std::mem::forget(payload);
                    server.keeper.end(Ok(End::HostGone));
                }
            }
        }
        // The last thread drops the author's value here, where its panic costs nothing any more.
        drop(server);
    })
}

fn abort_on_panic(name: &str, run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        // It may panic again while it is dropped.
        std::mem::forget(payload);
        let text = format!(
            "extension_sdk: thread `{name}` panicked outside of any method, so the process is aborted\n"
        );
        // Nowhere is left to say that even this failed.
        let _ = io::stderr().lock().write_all(text.as_bytes());
        std::process::abort();
    }
}

impl Server {
    /// Ends every thread that is not in a handler.
    fn close(&self) {
        self.output.close();
        self.host_calls.close();
        self.streams.close();
        self.workers.close();
        self.role.close();
    }
}
