//! One extension: what its routes, its supervisor and the host share.
//!
//! INVARIANT: only the supervisor changes the phase and the endpoint. Everybody else reads, asks for a start
//! by waiting, or sends an order.

mod incarnation;
mod ladder;
mod queue;
mod supervisor;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ipc_protocol::handshake::MethodEntry;
use ipc_transport::connection::Connection;
use parking_lot::Mutex;
use pit_core::ring::EventRing;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::events::{EventKind, HostEvent, InstanceId};
use crate::exit::ExitReport;
use crate::expiry::{Expiry, ExpiryHandle};
use crate::host::StopTimes;
use crate::logs::{DropCounter, LogSink};
use crate::manifest::Manifest;
use crate::snapshot::{ExtensionSnapshot, InstanceState, PAST_ENDS_MAX, PastEnd, StartTimes};
use crate::supervised::LauncherProgram;

pub(crate) use ladder::Deadlines;
use queue::Queue;
pub(crate) use queue::{Outgoing, Place, Sent};
pub(crate) use supervisor::supervise;

/// LIMIT: orders that wait for one supervisor; further ones are refused.
pub(crate) const ORDERS_MAX: usize = 16;

/// What all extensions of a host share.
pub(crate) struct HostShared {
    pub(crate) launcher: LauncherProgram,
    pub(crate) expiry: Arc<dyn Expiry>,
    pub(crate) log: Arc<dyn LogSink>,
    pub(crate) events: EventRing<Arc<HostEvent>>,
    /// The start gate: how many may start at once.
    pub(crate) gate: Semaphore,
    pub(crate) welcome_timeout: Duration,
    pub(crate) ready_timeout: Duration,
    pub(crate) stop_times: StopTimes,
    pub(crate) began: Instant,
    /// When the host stops, by what times; `None` while it runs. Only ever becomes earlier.
    pub(crate) closing: watch::Sender<Option<Deadlines>>,
}

impl HostShared {
    pub(crate) fn since_began(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Where calls go while an incarnation is ready.
pub(crate) struct Endpoint {
    pub(crate) connection: Connection,
    pub(crate) epoch: u32,
    /// Replaced when it expired and the instance turned out to be in use.
    pub(crate) expiry: ArcSwapOption<Box<dyn ExpiryHandle>>,
}

impl Endpoint {
    pub(crate) fn touch(&self) {
        if let Some(expiry) = &*self.expiry.load() {
            expiry.touch();
        }
    }
}

/// What the supervisor tells the routes.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) state: InstanceState,
    /// Of the present or last incarnation; 0 before the first.
    pub(crate) epoch: u32,
    /// Why it is broken, and when it is tried again by itself.
    pub(crate) broken: Option<(Arc<str>, Instant)>,
}

/// What others ask of the supervisor.
#[derive(Debug)]
pub(crate) enum Order {
    /// End the instance; it starts again when it is called. Answered when it has ended.
    Stop { why: String, done: oneshot::Sender<()> },
    /// Forget the failures. Answered when that is done.
    Reset { done: oneshot::Sender<()> },
}

/// What is remembered for people.
#[derive(Default)]
struct Memory {
    starts: u64,
    restarts: u64,
    past_ends: Vec<PastEnd>,
    last_start: Option<StartTimes>,
    pid: Option<u32>,
    launcher_pid: Option<u32>,
    /// From a failure until a start after it succeeds, or none follows.
    last_failure: Option<Arc<ExitReport>>,
    /// Calls of incarnations that have ended.
    past_calls: u64,
    /// What the last incarnation that became ready can do.
    methods: Vec<MethodEntry>,
}

pub(crate) struct Extension {
    pub(crate) name: Arc<str>,
    pub(crate) manifest: Manifest,
    pub(crate) program: PathBuf,
    pub(crate) host: Arc<HostShared>,
    pub(crate) endpoint: ArcSwapOption<Endpoint>,
    phase: watch::Sender<Phase>,
    orders: mpsc::Sender<Order>,
    /// Calls that wait for an endpoint: as long as there is one, the supervisor starts.
    queue: Mutex<Queue>,
    wanted: Notify,
    retries: AtomicU64,
    dropped: Arc<DropCounter>,
    memory: Mutex<Memory>,
}

impl Extension {
    pub(crate) fn new(
        manifest: Manifest,
        program: PathBuf,
        host: Arc<HostShared>,
    ) -> (Arc<Self>, mpsc::Receiver<Order>) {
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let phase = Phase { state: InstanceState::Stopped, epoch: 0, broken: None };
        let extension = Arc::new(Self {
            name: manifest.name.as_str().into(),
            manifest,
            program,
            host,
            endpoint: ArcSwapOption::empty(),
            phase: watch::Sender::new(phase),
            orders,
            queue: Mutex::default(),
            wanted: Notify::new(),
            retries: AtomicU64::new(0),
            dropped: Arc::default(),
            memory: Mutex::default(),
        });
        (extension, received)
    }

    pub(crate) fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn publish(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    fn tell(&self, epoch: u32, kind: EventKind) {
        let (extension, at) = (Arc::clone(&self.name), self.host.since_began());
        let instance = InstanceId::new(0, epoch);
        self.host.events.publish(Arc::new(HostEvent { extension, instance, at, kind }));
    }

    /// Sends an order; `false` if the supervisor has too many, or is gone.
    pub(crate) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// How the last incarnation ended, if calls wait for the start that follows its failure.
    pub(crate) fn last_failure(&self) -> Option<Arc<ExitReport>> {
        self.memory.lock().last_failure.clone()
    }

    /// Whether the extension says that `method` may be called again after an unknown outcome.
    pub(crate) fn is_idempotent(&self, method: &str) -> bool {
        self.memory.lock().methods.iter().any(|entry| entry.name == method && entry.idempotent)
    }

    pub(crate) fn tell_retry(&self, epoch: u32, method: &str, cause: &ipc_transport::Cause) {
        // ORDERING(retries): Relaxed suffices: a statistic.
        self.retries.fetch_add(1, Ordering::Relaxed);
        self.tell(epoch, EventKind::Retried { method: method.to_owned(), cause: cause.clone() });
    }

    fn remember_end(&self, end: PastEnd) {
        let mut memory = self.memory.lock();
        if memory.past_ends.len() >= PAST_ENDS_MAX {
            memory.past_ends.remove(0);
        }
        memory.past_ends.push(end);
        (memory.pid, memory.launcher_pid) = (None, None);
    }

    pub(crate) fn snapshot(&self) -> ExtensionSnapshot {
        let phase = self.phase.borrow().clone();
        let connection = self.endpoint.load().as_ref().map(|endpoint| endpoint.connection.statistics());
        let memory = self.memory.lock();
        ExtensionSnapshot {
            name: self.name.as_ref().to_owned(),
            version: self.manifest.version.to_string(),
            state: phase.state,
            instance: InstanceId::new(0, phase.epoch),
            pid: memory.pid,
            launcher_pid: memory.launcher_pid,
            starts: memory.starts,
            restarts: memory.restarts,
            calls: memory.past_calls + connection.map_or(0, |statistics| statistics.calls),
            // ORDERING(retries): Relaxed suffices: a statistic.
            retries: self.retries.load(Ordering::Relaxed),
            log_lines_dropped: self.dropped.get(),
            last_start: memory.last_start,
            past_ends: memory.past_ends.clone(),
            broken: phase.broken.map(|(reason, _)| reason.as_ref().to_owned()),
            connection,
        }
    }
}
