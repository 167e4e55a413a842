//! An extension in this process: a [`ipc_transport::Caller`] over the table of a loaded library.
//!
//! ```text
//! call() --> books (one lock) --> table.call, on the caller's thread --> library
//!   ^            |   ^                                                     |
//!   +--- wakes --+   +------------- complete, from any thread -------------+      tender: deadlines, room
//! ```
//!
//! A call is handed over on its caller's thread, so that calls of one caller arrive in order; the library runs it
//! there, where its method has proven fast, or on a thread of its own. Either way there is one outcome: a deadline
//! ends a call for its caller, though its handler never return.
//!
//! **What is not kept here.** The library is code of this process. It can write where it likes, exit, or overrun its
//! stack; no limit of a manifest holds it, and it cannot be ended, only left alone. A method that has proven fast and
//! then does not return keeps its caller's thread. Only what is trusted as the program itself belongs here.
//!
//! Reading order: `library`, `table`, `callbacks`, `books`, this file, `call`, `tender`, `life`. This
//! must not know manifests, nor when an extension is started.

mod books;
mod call;
mod callbacks;
mod library;
mod life;
mod table;
mod tender;

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipc_protocol::control::{LogRecord, Progress};
use ipc_protocol::limits::{
    IN_FLIGHT_CALLS_DEFAULT, IN_FLIGHT_CALLS_MAX, MESSAGE_BYTES_DEFAULT, QUEUED_BYTES_DEFAULT,
    READY_TIMEOUT_MS,
};
use ipc_protocol::{Codec, Fault, FaultCode, Origin};
use ipc_transport::connection::ConnectionStatistics;
use ipc_transport::scan::scan;
use ipc_transport::{Answer, CallError, CallResult, Cause, Encoded};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use books::{Books, Limits};
pub use library::{Library, LibraryError, LibrarySource};
pub use table::TableError;
use table::{Checked, Instance};

/// Who hears the records of a library.
type LogFunction = Arc<dyn Fn(&LogRecord) + Send + Sync>;

/// How an instance is started.
#[derive(Clone)]
pub struct StartOptions {
    /// The extension's configuration, a MessagePack map, or nothing.
    pub config: Vec<u8>,
    /// Calls in flight at most: 1 to [`IN_FLIGHT_CALLS_MAX`].
    pub in_flight_max: u32,
    /// Time for the extension's own start.
    pub ready_timeout: Duration,
    /// Where its log records go; called on any of its threads.
    pub log: LogFunction,
}

impl std::fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartOptions").field("in_flight_max", &self.in_flight_max).finish_non_exhaustive()
    }
}

impl StartOptions {
    /// The limits of the protocol, no configuration, records dropped.
    #[must_use]
    pub fn new() -> Self {
        Self {
            config: Vec::new(),
            in_flight_max: IN_FLIGHT_CALLS_DEFAULT,
            ready_timeout: Duration::from_millis(READY_TIMEOUT_MS.into()),
            log: Arc::new(|_| {}),
        }
    }
}

impl Default for StartOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The extension says that it cannot.
    #[error("it refused to start: {}", .0.message)]
    Refused(Fault),
    /// Its start panicked outside of its author's code.
    #[error("its start panicked")]
    Panicked,
    /// It did not start in time. Its start is left alone; an instance that comes of it later is stopped.
    #[error("its start is not over after {within:?}")]
    Silent {
        /// The time that it had.
        within: Duration,
    },
    /// There is no thread to start it on.
    #[error("there is no thread for its start")]
    Thread(#[source] std::io::Error),
}

/// The host's side of an instance. Made once and kept as long as the process lives: the library may come back to it
/// at any time.
pub(super) struct Shared {
    table: Checked,
    /// Indices of the methods, sorted by name.
    by_name: Vec<(String, u32)>,
    books: Mutex<Books>,
    log: Mutex<LogFunction>,
    tender: Notify,
    settled: Notify,
}

/// A [`Shared`] and the table of C functions that leads to it.
#[derive(Clone, Copy)]
pub(super) struct Seat {
    shared: &'static Shared,
    host: &'static extension_abi::Host,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seat")
    }
}

impl Seat {
    /// LIMIT: one for each instance of a library that runs, or was left alone with a call that never returned; the
    /// others are used again.
    fn new(library: &Library) -> Self {
        let methods = library.description().interfaces.iter().flat_map(|interface| &interface.methods);
        let mut by_name: Vec<(String, u32)> = methods.map(|method| method.name.clone()).zip(0..).collect();
        by_name.sort_unstable();
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            table: library.table,
            by_name,
            books: Mutex::new(Books::new(limits(1))),
            log: Mutex::new(Arc::new(|_| {})),
            tender: Notify::new(),
            settled: Notify::new(),
        }));
        Self { shared, host: Box::leak(Box::new(callbacks::host_of(shared))) }
    }
}

fn limits(in_flight_max: u32) -> Limits {
    Limits {
        in_flight_max: in_flight_max.clamp(1, IN_FLIGHT_CALLS_MAX),
        queued_bytes_max: QUEUED_BYTES_DEFAULT,
        message_bytes_max: MESSAGE_BYTES_DEFAULT,
    }
}

/// A running instance of a library, to be called. Clones are the same one; it runs until [`InProcess::stop`].
#[derive(Clone)]
pub struct InProcess {
    seat: Seat,
    term: u32,
    instance: Instance,
    library: Library,
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InProcess").field(&self.library.description().extension).finish()
    }
}

impl InProcess {
    /// What the library says of itself.
    #[must_use]
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Calls that the library has and has not answered, cancelled and expired ones included.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.seat.shared.books.lock().in_flight()
    }

    /// Since when the library has owed the oldest answer that nobody waits for any longer.
    #[must_use]
    pub fn oldest_unanswered(&self) -> Option<Instant> {
        self.seat.shared.books.lock().oldest_unanswered()
    }

    /// Counters since the instance was started.
    #[must_use]
    pub fn statistics(&self) -> ConnectionStatistics {
        self.seat.shared.books.lock().statistics()
    }
}

impl Shared {
    fn method(&self, name: &str) -> Option<u32> {
        let found = self.by_name.binary_search_by(|(known, _)| known.as_str().cmp(name));
        found.ok().map(|at| self.by_name[at].1)
    }

    /// Unlocks, and wakes whoever waits for what was done under the lock.
    fn finish(&self, books: MutexGuard<'_, Books>, wake: Vec<Waker>) {
        let is_settled = books.is_watched() && (books.is_idle() || books.is_outside());
        drop(books);
        if is_settled {
            self.settled.notify_waiters();
        }
        for waker in wake {
            waker.wake();
        }
    }

    /// The library's word on a call.
    fn complete(&self, id: u64, status: u32, codec: u32, body: &[u8]) {
        let result = self.outcome(status, codec, body);
        let mut wake = Vec::new();
        let mut books = self.books.lock();
        let has_room = books.complete(id, result, body.len(), &mut wake);
        self.finish(books, wake);
        if has_room {
            self.tender.notify_one();
        }
    }

    fn outcome(&self, status: u32, codec: u32, body: &[u8]) -> CallResult {
        let broke = |what: String| Err(CallError::Unknown(Cause::ProtocolViolation(what)));
        let length = body.len() as u64;
        if length > MESSAGE_BYTES_DEFAULT {
            let text = format!("the result has {length} bytes, above the limit of {MESSAGE_BYTES_DEFAULT}");
            return Err(Fault::new(FaultCode::TooLarge, text).into());
        }
        if codec != u32::from(Codec::MessagePack.to_wire()) {
            return broke(format!("it completed a call in the codec {codec}, which was not agreed on"));
        }
        if let Err(error) = scan(body) {
            return broke(format!("what it completed a call with is no value: {error}"));
        }
        match status {
            extension_abi::RESULT => Ok(Answer::encoded(Encoded::message_pack(Bytes::copy_from_slice(body)))),
            extension_abi::FAULT => match rmp_serde::from_slice::<Fault>(body) {
                // It speaks for itself, and never for its host. `new` holds the message to its limit.
                Ok(Fault { code, retry, message, .. }) => {
                    let fault = Fault::new(code, message).with_origin(Origin::Extension);
                    Err(CallError::from(fault.with_retry(retry)))
                }
                Err(error) => broke(format!("its fault cannot be read: {error}")),
            },
            status => broke(format!("it completed a call with the status {status}")),
        }
    }

    fn progress(&self, id: u64, body: &[u8]) {
        let running = self.books.lock().running(id);
        // Outside the lock: it is foreign code, and it is dropped here if its call ends meanwhile.
        if let Some(sink) = running
            && scan(body).is_ok()
            && let Ok(progress) = rmp_serde::from_slice::<Progress>(body)
        {
            sink.tell(progress);
        }
    }

    fn log(&self, level: u32, target: &str, message: &str) {
        let log = Arc::clone(&*self.log.lock());
        log(&LogRecord::new(u8::try_from(level).unwrap_or(u8::MAX), target, message));
    }
}
