//! One incarnation: from the decision to start a process to the report of its end.
//!
//! ```text
//! gate -> spawn -> handshake -> ready: publish the endpoint, wait for an end
//!   \        \         \                  | process ended, channel closed, violation, idle, order, host stops
//!    \        \         \                 v
//!     +--------+---------+--> take the endpoint away -> let what was received be delivered -> classify
//!                             -> fail what is left with that cause -> report
//! ```

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipc_protocol::control::{Goodbye, Heartbeat, LogRecord};
use ipc_protocol::handshake::{Hello, MethodEntry};
use ipc_transport::Cause;
use ipc_transport::connection::{CloseReason, ConnectError, ConnectOptions, Connection, PeerEvents, connect};
use tokio::sync::{Notify, SemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::ladder::{Deadlines, host_closes, stop};
use super::{Callee, Code, Endpoint, Extension, Order, Phase};
use crate::events::{EventKind, InstanceId};
use crate::exit::{During, ExitClass, ExitReport, HostAct, ProcessEnd, classify};
use crate::hang::{Hang, HangLimits, HangWatch, Look};
use crate::host::StopTimes;
use crate::host_calls::HostMethods;
use crate::limits::{Exceeded, Limited, has_any};
use crate::logs::{InstanceLog, LogOrigin};
use crate::manifest::{Artifacts, Reaction, Transport};
use crate::processor::processor_time;
use crate::random::Random;
use crate::restart::RestartHistory;
use crate::snapshot::{InstanceState, PastEnd, StartTimes};
use crate::supervised::{Program, SpawnError, Supervised, spawn};

/// LIMIT: how long a process may live on after it closed its channel. Shorter than what calls wait for the
/// cause of their end.
const OUTLIVES_CHANNEL_MAX: Duration = Duration::from_millis(500);

/// LIMIT: how long a start keeps its place in the gate. One that takes longer waits rather than works, and must
/// not hold up the starts of others.
pub(super) const GATE_HELD_MAX: Duration = Duration::from_millis(200);

/// LIMIT: how long what a dead process had sent may take to be read.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// Starts one process and stays with it to its end.
pub(super) struct Incarnation<'a> {
    pub(super) extension: &'a Arc<Extension>,
    pub(super) epoch: u32,
    pub(super) orders: &'a mut mpsc::Receiver<Order>,
    pub(super) closing: &'a mut watch::Receiver<Option<Deadlines>>,
    /// The supervisor's; only ever reset here.
    pub(super) history: &'a mut RestartHistory,
}

/// How an incarnation ended.
pub(super) struct Ended {
    pub(super) report: Arc<ExitReport>,
    /// Whether it ended because it was asked to.
    pub(super) on_request: bool,
}

struct Running {
    process: Supervised,
    limited: Arc<Limited>,
    log: Arc<InstanceLog>,
    pumps: Vec<JoinHandle<()>>,
    /// Whether it has said goodbye.
    has_left: watch::Sender<bool>,
    /// Whether it has sent a heartbeat.
    has_heart: Arc<AtomicBool>,
}

/// Why an incarnation is over, before its process is.
enum Reason {
    ProcessEnded(ProcessEnd),
    /// End it by force: it does not deserve, or cannot take, a ladder.
    Kill(HostAct),
    Stop {
        why: String,
        deadlines: Deadlines,
    },
    /// It said goodbye, unasked: nothing more comes from it.
    Left,
    Hung(Hang),
    HostCloses,
}

struct Events {
    log: Arc<InstanceLog>,
    has_left: watch::Sender<bool>,
    has_heart: Arc<AtomicBool>,
}

impl PeerEvents for Events {
    fn log(&self, record: LogRecord) {
        self.log.record(&record);
    }

    fn heartbeat(&self, _: Heartbeat) {
        // ORDERING(heart): Relaxed suffices: a flag on its own, looked at from time to time.
        self.has_heart.store(true, Ordering::Relaxed);
    }

    fn goodbye(&self, _: Goodbye) {
        self.has_left.send_replace(true);
    }
}

impl Incarnation<'_> {
    pub(super) async fn live(mut self) -> Ended {
        let extension = Arc::clone(self.extension);
        let program = match &extension.code {
            Code::Program(program) => program,
            Code::Library(source) => return self.live_loaded(source).await,
        };
        self.phase(InstanceState::Starting);
        extension.tell(self.epoch, EventKind::Created);
        let began = Instant::now();
        let gate = tokio::select! {
            // Closed never: the gate lives as long as the host.
            gate = extension.host.gate.acquire() => gate.ok(),
            () = host_closes(self.closing) => {
                return self.over(None, ProcessEnd::Exited(0), Some(HostAct::Ended(ExitClass::HostShutdown)), During::Start, Duration::ZERO).await;
            }
        };
        let queued = began.elapsed();
        let (mut running, socket) = match self.spawn(program) {
            Ok(started) => started,
            Err(class) => return self.never_ran(class),
        };
        let spawned = began.elapsed() - queued;
        let connection = match self.greet(&mut running, socket, gate).await {
            Ok(connection) => connection,
            Err((end, act)) => {
                return self.over(Some(running), end, act, During::Start, Duration::ZERO).await;
            }
        };
        let handshake = began.elapsed() - queued - spawned;
        let ready_at = Instant::now();
        let expired = Arc::new(Notify::new());
        let times = StartTimes { queued, spawned, handshake };
        let (methods, pid) = (&connection.welcome().methods, running.process.program_pid());
        let endpoint = self.publish_ready(Callee::Process(connection.clone()), methods, pid, &expired, times);

        let (reason, answer) = self.serve(&mut running, &connection, &endpoint, &expired).await;
        // Routes wait from here on, for the next incarnation.
        let drains =
            matches!(reason, Reason::Stop { .. } | Reason::Left | Reason::Hung(_) | Reason::HostCloses);
        extension.shut(self.epoch, drains);
        self.phase(InstanceState::Stopping);
        // After its goodbye it answers nothing more: what it owes may be failed before its process has ended.
        let owed = if matches!(reason, Reason::Left) { connection.in_flight() } else { 0 };
        let (end, act) = self.end(&mut running, &connection, reason).await;
        // What it sent before its end is delivered; then how it ended is told to the calls that are left.
        let act = match (act, timeout(LAST_WORDS_MAX, connection.closed()).await) {
            // The channel was closed for it, and it ended of that before it was ended.
            (None, Ok(CloseReason::Violation(what))) => {
                Some(HostAct::Ended(ExitClass::ProtocolViolation { what }))
            }
            (act, _) => act,
        };
        let during = match connection.in_flight().max(owed) {
            0 => During::Idle,
            calls => During::Calls(calls),
        };
        {
            let mut memory = extension.memory.lock();
            memory.past = connection.statistics().with_earlier(&memory.past);
        }
        let ended = self.over(Some(running), end, act, during, ready_at.elapsed()).await;
        connection.fail_all(cause_of(&ended.report));
        if let Some(done) = answer {
            let _ = done.send(());
        }
        ended
    }

    pub(super) fn phase(&self, state: InstanceState) {
        self.extension.publish(Phase { state, epoch: self.epoch, broken: None });
    }

    fn spawn(&self, program: &Path) -> Result<(Running, UnixStream), ExitClass> {
        let (own_end, channel) = UnixStream::pair().map_err(|error| ExitClass::LauncherFailed {
            message: format!("its channel cannot be made: {error}"),
            permanent: false,
            of_program: false,
        })?;
        let limited = Arc::new(self.limit()?);
        let program = Program {
            channel: Some(OwnedFd::from(channel)),
            groups: limited.joins(),
            ..Program::of_manifest(&self.extension.manifest, program)
        };
        let mut process = spawn(&self.extension.host.launcher, program).map_err(failed_spawn)?;
        let log = Arc::new(InstanceLog::new(
            Arc::clone(&self.extension.host.log),
            Arc::clone(&self.extension.name),
            InstanceId::new(0, self.epoch),
            Arc::clone(&self.extension.dropped),
        ));
        let pumped = [(process.take_stdout(), LogOrigin::Stdout), (process.take_stderr(), LogOrigin::Stderr)];
        let pump = |(pipe, origin): (Option<_>, _)| {
            let (log, pipe) = (Arc::clone(&log), pipe?);
            Some(tokio::spawn(async move { log.pump(pipe, origin).await }))
        };
        let pumps = pumped.into_iter().filter_map(pump).collect();
        let mut memory = self.extension.memory.lock();
        memory.starts += 1;
        memory.launcher_pid = Some(process.launcher_pid());
        memory.limited = Some(Arc::clone(&limited));
        drop(memory);
        let (has_left, has_heart) = (watch::Sender::new(false), Arc::default());
        Ok((Running { process, limited, log, pumps, has_left, has_heart }, own_end))
    }

    fn limit(&self) -> Result<Limited, ExitClass> {
        let limits = &self.extension.manifest.limits;
        if !has_any(limits) {
            return Ok(Limited::unlimited());
        }
        let name = format!("{}-{}", self.extension.name, self.epoch);
        self.extension.host.limits().prepare(&name, limits).map_err(|message| ExitClass::LauncherFailed {
            message: format!("its limits cannot be set: {message}"),
            permanent: false,
            of_program: false,
        })
    }

    /// The handshake; on failure, how the process ended and what the host did.
    async fn greet(
        &mut self,
        running: &mut Running,
        socket: UnixStream,
        gate: Option<SemaphorePermit<'_>>,
    ) -> Result<Connection, (ProcessEnd, Option<HostAct>)> {
        let manifest = &self.extension.manifest;
        let mut hello = Hello::new(manifest.name.as_str(), self.epoch, Random::from_system().next());
        hello.config.clone_from(&manifest.config);
        let mut options = ConnectOptions::new(hello);
        options.welcome_timeout = self.extension.host.welcome_timeout;
        options.ready_timeout = self.extension.host.ready_timeout;
        options.offers_rings = manifest.transport == Transport::SharedMemory;
        options.latency = manifest.latency;
        options.grants_descriptors = manifest.permissions.artifacts != Artifacts::None;
        options.host_calls = Some(Arc::new(HostMethods::new(self.extension)));
        options.in_flight_max = manifest.limits.in_flight_max.unwrap_or(options.in_flight_max);
        let (has_left, has_heart) = (running.has_left.clone(), Arc::clone(&running.has_heart));
        let events = Arc::new(Events { log: Arc::clone(&running.log), has_left, has_heart });
        let connecting = async {
            let mut connecting = pin!(connect(socket, options, events));
            let connected = timeout(GATE_HELD_MAX, &mut connecting).await;
            drop(gate);
            match connected {
                Ok(connected) => connected,
                Err(_) => connecting.await,
            }
        };
        let act = tokio::select! {
            connected = connecting => match connected {
                Ok(connection) => return Ok(connection),
                Err(error) => match failed_start(&error) {
                    // It is ending: how it ends says more than that the channel closed.
                    None => match timeout(OUTLIVES_CHANNEL_MAX, running.process.wait()).await {
                        Ok(end) => return Err((end, None)),
                        Err(_) => HostAct::Ended(ExitClass::ProtocolViolation { what: error.to_string() }),
                    },
                    Some(act) => act,
                },
            },
            () = host_closes(self.closing) => HostAct::Ended(ExitClass::HostShutdown),
        };
        Err((running.process.end(Duration::ZERO).await, Some(act)))
    }

    /// Lets everybody call. `pid`: of its process, if it has one and that is known.
    pub(super) fn publish_ready(
        &self,
        callee: Callee,
        methods: &[MethodEntry],
        pid: Option<u32>,
        expired: &Arc<Notify>,
        times: StartTimes,
    ) -> Arc<Endpoint> {
        let extension = self.extension;
        let endpoint = Arc::new(Endpoint { callee, epoch: self.epoch, expiry: Default::default() });
        self.watch_idleness(&endpoint, expired);
        let mut memory = extension.memory.lock();
        memory.methods = methods.to_vec();
        (memory.last_start, memory.last_failure) = (Some(times), None);
        memory.pid = pid;
        drop(memory);
        extension.open(Arc::clone(&endpoint));
        self.phase(InstanceState::Ready);
        let start_time = times.queued + times.spawned + times.handshake;
        extension.tell(self.epoch, EventKind::Ready { start_time });
        endpoint
    }

    pub(super) fn watch_idleness(&self, endpoint: &Endpoint, expired: &Arc<Notify>) {
        let Some(ttl) = self.extension.manifest.activation.idle_timeout else { return };
        let expired = Arc::clone(expired);
        let name = format!("extension {} {}", self.extension.name, InstanceId::new(0, self.epoch));
        let handle = self.extension.host.expiry.register(&name, ttl, Box::new(move || expired.notify_one()));
        endpoint.expiry.store(Some(Arc::new(handle)));
    }

    /// Waits for whatever ends this incarnation; also who is to be told when it has ended.
    async fn serve(
        &mut self,
        running: &mut Running,
        connection: &Connection,
        endpoint: &Arc<Endpoint>,
        expired: &Arc<Notify>,
    ) -> (Reason, Option<oneshot::Sender<()>>) {
        let times = self.extension.host.stop_times;
        let stopping = |why: &str| {
            let deadlines = Deadlines::of_times(Instant::now(), times);
            Reason::Stop { why: why.to_owned(), deadlines }
        };
        let mut has_left = running.has_left.subscribe();
        let mut left = pin!(async move {
            // The sender outlives this function.
            let _ = has_left.wait_for(|has_left| *has_left).await;
        });
        let has_heart = Arc::clone(&running.has_heart);
        let launcher_pid = running.process.launcher_pid();
        let hang_limits = self.extension.host.hang_limits;
        let mut hung = pin!(hangs(connection, &has_heart, hang_limits, launcher_pid));
        let (limited, name, epoch) =
            (Arc::clone(&running.limited), Arc::clone(&self.extension.name), self.epoch);
        let warn = |what: &str| tracing::warn!(extension = &*name, generation = epoch, "{what}");
        let mut exceeded = pin!(limited.exceeded(launcher_pid, warn));
        loop {
            tokio::select! {
                biased;
                end = running.process.wait() => return (Reason::ProcessEnded(end), None),
                () = &mut left => return (Reason::Left, None),
                reason = connection.closed() => {
                    return (channel_closed(running, reason).await, None);
                }
                () = host_closes(self.closing) => return (Reason::HostCloses, None),
                order = self.orders.recv() => match order {
                    Some(Order::Stop { why, done }) => return (stopping(&why), Some(done)),
                    Some(Order::Reset { done }) => {
                        self.history.reset();
                        let _ = done.send(());
                    }
                    None => return (Reason::HostCloses, None),
                },
                hang = &mut hung => return (Reason::Hung(hang), None),
                exceeded = &mut exceeded => return (Reason::Kill(HostAct::Ended(over_limit(exceeded))), None),
                () = expired.notified() => {
                    // A long call is use, though nobody touches anything meanwhile.
                    if connection.in_flight() == 0 && connection.open_streams() == 0 {
                        return (stopping("idle"), None);
                    }
                    self.watch_idleness(endpoint, expired);
                }
            }
        }
    }

    async fn end(
        &mut self,
        running: &mut Running,
        connection: &Connection,
        reason: Reason,
    ) -> (ProcessEnd, Option<HostAct>) {
        let process = &mut running.process;
        match reason {
            Reason::ProcessEnded(end) => (end, None),
            Reason::Kill(act) => (process.end(Duration::ZERO).await, Some(act)),
            Reason::Stop { why, deadlines } => {
                let stopped = stop(process, connection, &why, deadlines, self.closing).await;
                (stopped.end, Some(HostAct::Stop { why, forced: stopped.forced }))
            }
            Reason::Left => {
                // Most likely it is ending: how it ends says more.
                if let Ok(end) = timeout(OUTLIVES_CHANNEL_MAX, process.wait()).await {
                    return (end, None);
                }
                let why = "it said goodbye and lived on";
                connection.fail_all(Cause::Died(why.to_owned()));
                let times = StopTimes { drain: Duration::ZERO, ..self.extension.host.stop_times };
                let deadlines = Deadlines::of_times(Instant::now(), times);
                let stopped = stop(process, connection, why, deadlines, self.closing).await;
                let by_host = matches!(stopped.end, ProcessEnd::Signaled(_));
                (
                    stopped.end,
                    by_host.then(|| HostAct::Ended(ExitClass::KilledByHost { why: why.to_owned() })),
                )
            }
            Reason::Hung(Hang { what, is_silent }) => {
                let mut times = self.extension.host.stop_times;
                if is_silent {
                    // It answers nothing more. SIGTERM comes with SIGCONT: it may have been stopped.
                    connection.fail_all(Cause::Hung(what.clone()));
                    (times.drain, times.goodbye) = (Duration::ZERO, Duration::ZERO);
                }
                let deadlines = Deadlines::of_times(Instant::now(), times);
                let stopped = stop(process, connection, &what, deadlines, self.closing).await;
                (stopped.end, Some(HostAct::Ended(ExitClass::Hang { what })))
            }
            Reason::HostCloses => {
                let now = Instant::now();
                let deadlines =
                    self.closing.borrow().unwrap_or_else(|| Deadlines::of_budget(now, Duration::ZERO));
                let stopped = stop(process, connection, "the host stops", deadlines, self.closing).await;
                (stopped.end, Some(HostAct::Ended(ExitClass::HostShutdown)))
            }
        }
    }

    /// Everything after the process's end: its last words, its class, the report.
    async fn over(
        &self,
        running: Option<Running>,
        end: ProcessEnd,
        act: Option<HostAct>,
        during: During,
        ready_for: Duration,
    ) -> Ended {
        let (mut stderr_tail, mut has_left) = (String::new(), false);
        let mut act = act;
        if let Some(mut running) = running {
            // The kernel has killed it, or what it did without its memory has.
            if act.is_none()
                && !end.is_success()
                && let Some(exceeded) = running.limited.killed_by()
            {
                act = Some(HostAct::Ended(over_limit(exceeded)));
            }
            self.extension.memory.lock().limited = None;
            // Whoever is still in its group is killed, which may take a while.
            let _ = tokio::task::spawn_blocking(move || drop(running.limited)).await;
            for pump in &mut running.pumps {
                // Nobody is left to write, so that the pumps end; a flood may not take for ever to be read.
                if timeout(LAST_WORDS_MAX, &mut *pump).await.is_err() {
                    pump.abort();
                }
            }
            stderr_tail = running.log.stderr_tail();
            has_left = *running.has_left.borrow();
        }
        let on_request = matches!(act, Some(HostAct::Stop { .. } | HostAct::Ended(ExitClass::HostShutdown)));
        let class = classify(end, act, during, has_left, &stderr_tail);
        self.report(ExitReport { class, end, ready_for, stderr_tail }, on_request)
    }

    pub(super) fn never_ran(&self, class: ExitClass) -> Ended {
        let (ready_for, stderr_tail) = (Duration::ZERO, String::new());
        self.report(ExitReport { class, end: ProcessEnd::Unknown, ready_for, stderr_tail }, false)
    }

    pub(super) fn report(&self, report: ExitReport, on_request: bool) -> Ended {
        let report = Arc::new(report);
        let (instance, at) = (InstanceId::new(0, self.epoch), self.extension.host.since_began());
        self.extension.remember_end(PastEnd { instance, at, report: Arc::clone(&report) });
        self.extension.tell(self.epoch, EventKind::Died { report: Arc::clone(&report) });
        Ended { report, on_request }
    }
}

/// Looks at a ready instance from time to time, until it hangs.
async fn hangs(
    connection: &Connection,
    has_heart: &AtomicBool,
    limits: HangLimits,
    launcher_pid: u32,
) -> Hang {
    let now = || Instant::now().into_std();
    let mut watch = HangWatch::new(limits, now());
    loop {
        tokio::time::sleep(limits.look_every()).await;
        let statistics = connection.statistics();
        let seen = Look {
            oldest_unanswered: connection.oldest_unanswered(),
            owes: statistics.in_flight > 0,
            bytes_read: statistics.bytes_read,
            // ORDERING(heart): Relaxed suffices: as where it is set.
            has_heart: has_heart.load(Ordering::Relaxed),
        };
        if let Some(hang) = watch.look(now(), seen, || processor_time(launcher_pid)) {
            return hang;
        }
    }
}

fn over_limit(Exceeded { limit, what, reaction }: Exceeded) -> ExitClass {
    ExitClass::OverLimit { limit, what, stays_down: reaction == Reaction::Stop }
}

async fn channel_closed(running: &mut Running, reason: CloseReason) -> Reason {
    match reason {
        CloseReason::Violation(what) => Reason::Kill(HostAct::Ended(ExitClass::ProtocolViolation { what })),
        CloseReason::Eof => match timeout(OUTLIVES_CHANNEL_MAX, running.process.wait()).await {
            Ok(end) => Reason::ProcessEnded(end),
            Err(_) => Reason::Kill(HostAct::Ended(ExitClass::KilledByHost {
                why: "it closed its channel and lived on".into(),
            })),
        },
        CloseReason::ClosedHere(why) => Reason::Kill(HostAct::Ended(ExitClass::KilledByHost { why })),
    }
}

fn failed_spawn(error: SpawnError) -> ExitClass {
    let (source, permanent) = match &error {
        SpawnError::Launcher { source, .. } => {
            (source, matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied))
        }
        SpawnError::Watch(source) => (source, false),
    };
    ExitClass::LauncherFailed { message: format!("{error}: {source}"), permanent, of_program: false }
}

/// What a failed handshake makes the host do; `None`: the channel closed, and the process is most likely
/// ending.
fn failed_start(error: &ConnectError) -> Option<HostAct> {
    let said = |what: &str| Some(HostAct::Ended(ExitClass::StartRefused { what: what.to_owned() }));
    match error {
        ConnectError::Ended { .. } | ConnectError::Io { .. } => None,
        ConnectError::Silent { .. } => {
            Some(HostAct::Ended(ExitClass::StartTimeout { what: error.to_string() }))
        }
        ConnectError::Start(fault) => said(&fault.message),
        ConnectError::Refused { reason, .. } => said(reason),
        ConnectError::NotProtocol { violation, .. } => {
            Some(HostAct::Ended(ExitClass::ProtocolViolation { what: format!("{error}: {violation}") }))
        }
        _ => Some(HostAct::Ended(ExitClass::ProtocolViolation { what: error.to_string() })),
    }
}

pub(super) fn cause_of(report: &ExitReport) -> Cause {
    match &report.class {
        ExitClass::Hang { what } => Cause::Hung(what.clone()),
        ExitClass::ProtocolViolation { what } => Cause::ProtocolViolation(what.clone()),
        ExitClass::HostShutdown => Cause::Closed("the host stops".to_owned()),
        ExitClass::Clean | ExitClass::Stopped { .. } => Cause::Closed(report.to_string()),
        _ => Cause::Died(report.to_string()),
    }
}
