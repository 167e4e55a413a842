//! The extension in its host's own process: the same service behind a table of C functions.
//!
//! ```text
//! host's thread -> table -> Instance::take --fast--> run here ------+--> host.complete
//!                                |                                 |
//!                                +--not proven fast--> workers ----+
//! ```
//!
//! As in a process of its own, a method that has proven fast is run at once on the thread that brings the call, and
//! any other on one of the instance's own threads, so that nobody's thread waits for a handler that may never return.
//! Everything that the author's code does wrong ends here as a fault.
//!
//! Reading order: [`host`] (what the host gives), [`workers`], this file (one call), [`table`](mod@table) (the C
//! functions). This module must not know how the library came into the process.

mod host;
mod table;
mod workers;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ipc_protocol::control::Progress;
use ipc_protocol::{Codec, Fault, FaultCode, Retry};

use crate::context::{CallState, Context, ProgressSink};
use crate::definition::Definition;
use crate::logging;
use crate::serve::pace::Pace;
use crate::service::{self, Service, as_guest, unknown_method};
use host::HostRef;
pub use table::table;
use workers::{Job, Workers};

/// LIMIT: bytes that a thread keeps for its next result.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// One call of [`MEASURED_EVERY`] of a method that has proven fast is measured: reading the clock costs as much as
/// half of such a call.
const MEASURED_EVERY: u64 = 8;

/// A started extension that its host calls directly.
struct Instance {
    host: HostRef,
    service: Box<dyn Service>,
    methods: Vec<Pace>,
    workers: Workers,
    is_draining: AtomicBool,
}

/// A call as the host gives it.
struct Given<'a> {
    id: u64,
    method: usize,
    left: Duration,
    cancelled: Option<&'static AtomicU64>,
    codec: u32,
    arguments: &'a [u8],
}

thread_local! {
    /// For results. Taken while a call runs, which may make another.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Instance {
    /// Starts the extension of `definition`.
    ///
    /// # Errors
    ///
    /// The start's own fault, or what is wrong with the definition.
    fn start<T: Send + Sync + 'static>(
        definition: Definition<T>,
        config: &[u8],
        host: HostRef,
    ) -> Result<Arc<Self>, Fault> {
        let methods = service::method_table(&definition)?;
        host.remember();
        logging::install_loaded(host::Log);
        let service = as_guest(|| service::start(definition, config))?;
        Ok(Arc::new(Self {
            host,
            service,
            methods: methods.iter().map(|_| Pace::default()).collect(),
            workers: Workers::default(),
            is_draining: AtomicBool::new(false),
        }))
    }

    /// Takes a call on: it is completed before this returns, or by a thread of the instance.
    fn take(self: &Arc<Self>, given: &Given<'_>) {
        let now = Instant::now();
        let call = CallState::new(given.id, now, now.checked_add(given.left)).cancelled_by(given.cancelled);
        if let Err(fault) = self.admit(given) {
            self.host.fault(given.id, &fault);
            return;
        }
        let call = Arc::new(call);
        if self.methods[given.method].is_fast() {
            self.run(&call, given.method, given.arguments, Some(now));
        } else {
            let body = given.arguments.into();
            workers::submit(self, Job { call, method: given.method, body });
        }
    }

    /// What is wrong with a call before its arguments are looked into.
    fn admit(&self, given: &Given<'_>) -> Result<(), Fault> {
        // ORDERING(draining): Relaxed, a flag that guards no other data; the host takes no calls on anyway.
        if self.is_draining.load(Ordering::Relaxed) {
            let text = "the extension was told to finish and takes no new calls";
            return Err(Fault::new(FaultCode::Draining, text).with_retry(Retry::Now));
        }
        if given.codec != u32::from(Codec::MessagePack.to_wire()) {
            let text = "this extension reads arguments as MessagePack only";
            return Err(Fault::new(FaultCode::Unsupported, text));
        }
        if given.method >= self.methods.len() {
            return Err(unknown_method(given.method));
        }
        Ok(())
    }

    /// Runs a call and completes it. `began`: when it was brought, if it is run on the thread that brought it.
    fn run(self: &Arc<Self>, call: &Arc<CallState>, method: usize, body: &[u8], began: Option<Instant>) {
        let pace = &self.methods[method];
        let from = began.unwrap_or_else(Instant::now);
        let mut scratch = SCRATCH.take();
        scratch.clear();
        let result = call.check(|| from).and_then(|()| {
            let cx = Context::new(Arc::clone(call), Arc::clone(self) as _);
            as_guest(|| self.service.run(method, &cx, body, &mut scratch))
        });
        // Before it is completed: whoever waits for the answer may drop all that there is.
        if began.is_none() || (call.id >> 32).is_multiple_of(MEASURED_EVERY) {
            pace.record(from.elapsed());
        }
        match result {
            Ok(()) => self.host.result(call.id, &scratch),
            Err(fault) => self.host.fault(call.id, &fault),
        }
        scratch.clear();
        scratch.shrink_to(SCRATCH_BYTES_MAX);
        SCRATCH.set(scratch);
    }

    /// Completes a call that waits for a thread and whose caller is gone: it makes room for others.
    fn cancel(&self, id: u64) {
        if let Some(job) = self.workers.take_out(id) {
            self.host.fault(job.call.id, &cancelled());
        }
    }

    fn drain(&self) {
        // ORDERING(draining): Relaxed, as in `admit`.
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Ends every thread that is not in a handler; what waits for one is completed as cancelled.
    fn stop(&self) {
        self.drain();
        for job in self.workers.close() {
            self.host.fault(job.call.id, &cancelled());
        }
    }
}

impl ProgressSink for Instance {
    fn progress(&self, call: u64, progress: Progress) {
        self.host.progress(call, &progress);
    }
}

fn cancelled() -> Fault {
    Fault::new(FaultCode::Cancelled, "the caller cancelled the call")
}
