//! One extension: what its routes, its supervisor and the host share.
//!
//! INVARIANT: only the supervisor changes the phase and the endpoint. Everybody else reads, asks for a start
//! by waiting, or sends an order.

mod callee;
mod incarnation;
mod kept;
mod ladder;
mod loaded;
mod queue;
mod supervisor;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use ipc_protocol::handshake::MethodEntry;
use ipc_protocol::limits::QUEUED_BYTES_DEFAULT;
use ipc_transport::CallError;
use ipc_transport::connection::ConnectionStatistics;
use parking_lot::Mutex;
use pit_core::ring::EventRing;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::events::{EventKind, HostEvent, InstanceId};
use crate::exit::ExitReport;
use crate::expiry::{Expiry, ExpiryHandle};
use crate::hang::HangLimits;
use crate::host::{StopTimes, Table};
use crate::in_process::{Library, LibrarySource};
use crate::limits::{Backend, HeldBy, Limited, Usage, has_any};
use crate::logs::{DropCounter, LogSink};
use crate::manifest::{Manifest, Tier};
use crate::snapshot::{ExtensionSnapshot, InstanceState, PAST_ENDS_MAX, PastEnd, StartTimes};
use crate::storage::Storage;
use crate::supervised::LauncherProgram;

pub(crate) use callee::Callee;
pub(crate) use ladder::Deadlines;
use queue::Queue;
pub(crate) use queue::{Arguments, Outgoing, Place, Sent, Waiting};
pub(crate) use supervisor::supervise;

/// LIMIT: orders that wait for one supervisor; further ones are refused.
pub(crate) const ORDERS_MAX: usize = 16;

/// LIMIT: bytes of arguments that are kept for calls of one extension, to send them when it is ready, or again.
/// Above it, calls that must wait for a start are rejected, and others are made once, whatever becomes of them.
const KEPT_BYTES_MAX: u64 = QUEUED_BYTES_DEFAULT;

/// Arguments up to this length are not counted: they weigh no more than the reply that their caller holds.
const UNCOUNTED_BYTES_MAX: u64 = 1 << 10;

/// What a caller should wait before it tries again, if there was no room.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// What all extensions of a host share.
pub(crate) struct HostShared {
    pub(crate) launcher: LauncherProgram,
    /// The host's own, for as long as there is a host.
    pub(crate) table: Weak<ArcSwap<Table>>,
    pub(crate) storage: Option<Arc<dyn Storage>>,
    pub(crate) expiry: Arc<dyn Expiry>,
    pub(crate) log: Arc<dyn LogSink>,
    pub(crate) events: EventRing<Arc<HostEvent>>,
    /// The start gate: how many may start at once.
    pub(crate) gate: Semaphore,
    pub(crate) welcome_timeout: Duration,
    pub(crate) ready_timeout: Duration,
    pub(crate) stop_times: StopTimes,
    pub(crate) hang_limits: HangLimits,
    /// Who holds limits: looked for when the first extension has some.
    pub(crate) limits: OnceLock<Backend>,
    pub(crate) uses_control_groups: bool,
    pub(crate) began: Instant,
    /// When the host stops, by what times; `None` while it runs. Only ever becomes earlier.
    pub(crate) closing: watch::Sender<Option<Deadlines>>,
}

impl HostShared {
    pub(crate) fn since_began(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn limits(&self) -> &Backend {
        self.limits.get_or_init(|| Backend::probe(self.uses_control_groups))
    }
}

/// Where calls go while an incarnation is ready.
pub(crate) struct Endpoint {
    pub(crate) callee: Callee,
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
    pub(crate) broken: Option<Broken>,
}

/// Why an extension is left alone.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) reason: Arc<str>,
    /// When a call may have it tried again.
    pub(crate) until: Instant,
    /// Whether its own end made it so, or its program, which cannot be executed; else the host could not start it.
    pub(crate) by_itself: bool,
    /// Whether trying it again without changing anything is pointless.
    pub(crate) is_permanent: bool,
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
    /// Of the present incarnation, while it runs.
    limited: Option<Arc<Limited>>,
    /// From a failure until a start after it succeeds, or none follows.
    last_failure: Option<Arc<ExitReport>>,
    /// Of incarnations that have ended.
    past: ConnectionStatistics,
    /// What the last incarnation that became ready can do.
    methods: Vec<MethodEntry>,
}

/// LIMIT: fallbacks of fallbacks that are followed.
pub(crate) const FALLBACKS_MAX: usize = 8;

/// What an extension is made of: what runs where is for whoever registers it to say, and not for its manifest.
pub(crate) enum Code {
    /// A process of its own.
    Program(PathBuf),
    /// Code in this process.
    Library(LibrarySource),
}

impl Code {
    const fn tier(&self) -> Tier {
        match self {
            Self::Program(_) => Tier::Process,
            Self::Library(_) => Tier::InProcess,
        }
    }
}

pub(crate) struct Extension {
    pub(crate) name: Arc<str>,
    pub(crate) manifest: Manifest,
    pub(crate) code: Code,
    /// What [`Code::Library`] names, once it is loaded: it stays for all incarnations.
    library: Mutex<Option<Library>>,
    pub(crate) host: Arc<HostShared>,
    pub(crate) endpoint: ArcSwapOption<Endpoint>,
    phase: watch::Sender<Phase>,
    orders: mpsc::Sender<Order>,
    /// Calls that wait for an endpoint: as long as there is one, the supervisor starts.
    queue: Mutex<Queue>,
    wanted: Notify,
    retries: AtomicU64,
    /// Of the arguments of all calls that may have to be made again.
    kept_bytes: AtomicU64,
    dropped: Arc<DropCounter>,
    memory: Mutex<Memory>,
}

impl Extension {
    pub(crate) fn new(
        manifest: Manifest,
        code: Code,
        host: Arc<HostShared>,
    ) -> (Arc<Self>, mpsc::Receiver<Order>) {
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let phase = Phase { state: InstanceState::Stopped, epoch: 0, broken: None };
        let extension = Arc::new(Self {
            name: manifest.name.as_str().into(),
            manifest,
            code,
            library: Mutex::new(None),
            host,
            endpoint: ArcSwapOption::empty(),
            phase: watch::Sender::new(phase),
            orders,
            queue: Mutex::default(),
            wanted: Notify::new(),
            retries: AtomicU64::new(0),
            kept_bytes: AtomicU64::new(0),
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

    /// Whether an incarnation is on its way to be ready.
    pub(crate) fn is_starting(&self) -> bool {
        self.phase.borrow().state == InstanceState::Starting
    }

    /// Sends an order; `false` if the supervisor has too many, or is gone.
    pub(crate) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Who answers in its place while it is broken: its fallback, or that one's, and so on, the first that is not broken.
    pub(crate) fn stand_in(&self) -> Option<Arc<Self>> {
        let mut other = self.fallback()?;
        for _ in 1..FALLBACKS_MAX {
            match other.fallback() {
                Some(next) => other = next,
                None if other.is_broken() => return None,
                None => return Some(other),
            }
        }
        // In a circle.
        None
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.phase.borrow().state == InstanceState::Broken
    }

    /// The next one of [`Self::stand_in`], if this one is broken.
    fn fallback(&self) -> Option<Arc<Self>> {
        let name = self.manifest.activation.fallback.as_deref().filter(|_| self.is_broken())?;
        self.host.table.upgrade()?.load().get(name).cloned()
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

    /// Counts `length` bytes that are kept. Returns whether they may be: one call may have more than the bound, if
    /// it is the only one.
    pub(crate) fn keep(&self, length: u64) -> bool {
        if length <= UNCOUNTED_BYTES_MAX {
            return true;
        }
        // ORDERING(kept): Relaxed suffices: a bound on memory, and nothing is read because of it.
        let before = self.kept_bytes.fetch_add(length, Ordering::Relaxed);
        let may_keep = before == 0 || before.saturating_add(length) <= KEPT_BYTES_MAX;
        if !may_keep {
            self.give_back(length);
        }
        may_keep
    }

    /// Refuses a call that must wait, and for whose arguments there is no room.
    pub(crate) fn keeps_enough(&self) -> CallError {
        // ORDERING(kept): Relaxed suffices: for people.
        let kept = self.kept_bytes.load(Ordering::Relaxed);
        let reason =
            format!("{kept} bytes of arguments are kept already for calls of extension `{}`", self.name);
        CallError::Rejected { reason, retry_after: Some(RETRY_AFTER) }
    }

    /// Takes back what [`Self::keep`] counted.
    pub(crate) fn give_back(&self, length: u64) {
        if length > UNCOUNTED_BYTES_MAX {
            // ORDERING(kept): as above.
            self.kept_bytes.fetch_sub(length, Ordering::Relaxed);
        }
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
        // Under the lock, so that nobody who has an answer already, of a call that waited, misses it here.
        let endpoint = {
            let _queue = self.queue.lock();
            self.endpoint.load_full()
        };
        let connection = endpoint.as_ref().map(|endpoint| endpoint.callee.statistics());
        let oldest = endpoint.and_then(|endpoint| endpoint.callee.oldest_unanswered());
        let usage = self.usage();
        let held_by = match &self.code {
            Code::Program(_) if has_any(&self.manifest.limits) => {
                self.host.limits().held_by(&self.manifest.limits)
            }
            Code::Program(_) | Code::Library(_) => HeldBy::Nobody,
        };
        let memory = self.memory.lock();
        let totals = connection.unwrap_or_default().with_earlier(&memory.past);
        ExtensionSnapshot {
            name: self.name.as_ref().to_owned(),
            version: self.manifest.version.to_string(),
            tier: self.code.tier(),
            state: phase.state,
            instance: InstanceId::new(0, phase.epoch),
            pid: memory.pid,
            launcher_pid: memory.launcher_pid,
            starts: memory.starts,
            restarts: memory.restarts,
            calls: totals.calls,
            totals,
            oldest_unanswered: oldest.map(|since| since.elapsed()),
            // ORDERING(kept): Relaxed suffices: a statistic.
            kept_bytes: self.kept_bytes.load(Ordering::Relaxed),
            // ORDERING(retries): Relaxed suffices: a statistic.
            retries: self.retries.load(Ordering::Relaxed),
            log_lines_dropped: self.dropped.get(),
            last_start: memory.last_start,
            past_ends: memory.past_ends.clone(),
            broken: phase.broken.map(|broken| broken.reason.as_ref().to_owned()),
            connection,
            held_by,
            usage,
        }
    }

    /// What the present incarnation uses, if it has a process.
    fn usage(&self) -> Option<Usage> {
        let (limited, launcher_pid) = {
            let memory = self.memory.lock();
            (memory.limited.clone()?, memory.launcher_pid?)
        };
        Some(limited.usage(launcher_pid))
    }
}
