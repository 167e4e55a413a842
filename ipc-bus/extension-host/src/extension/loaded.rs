//! One incarnation without a process: from the decision to start a library to the report of its end.
//!
//! ```text
//! gate -> load, once -> start -> ready: publish the endpoint, wait for an end
//!   \        \           \                 | idle, order, hang, host stops
//!    +--------+-----------+----------------+--> take the endpoint away -> drain -> fail what is left -> stop
//! ```
//!
//! There is nothing to kill. What a handler does not give back is left alone, and reported as a hang.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ipc_protocol::handshake::MethodEntry;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::incarnation::{Ended, GATE_HELD_MAX, Incarnation, cause_of};
use super::ladder::{Deadlines, host_closes, passes};
use super::{Callee, Endpoint, Order};
use crate::events::{EventKind, InstanceId};
use crate::exit::{ExitClass, ExitReport, ProcessEnd};
use crate::hang::{Hang, HangLimits, HangWatch, Look};
use crate::in_process::{InProcess, Library, LibrarySource, StartError, StartOptions};
use crate::logs::InstanceLog;
use crate::snapshot::{InstanceState, StartTimes};

/// Why an incarnation is over.
enum Reason {
    Stop(String),
    Hung(Hang),
    HostCloses,
}

impl Incarnation<'_> {
    pub(super) async fn live_loaded(mut self, source: &LibrarySource) -> Ended {
        let extension = Arc::clone(self.extension);
        self.phase(InstanceState::Starting);
        extension.tell(self.epoch, EventKind::Created);
        let began = Instant::now();
        let started = async {
            // Closed never: the gate lives as long as the host.
            let gate = extension.host.gate.acquire().await.ok();
            let queued = began.elapsed();
            let library = self.library(source).await?;
            let spawned = began.elapsed() - queued;
            extension.memory.lock().starts += 1;
            let mut starting = pin!(InProcess::start(&library, self.start_options()));
            let instance = timeout(GATE_HELD_MAX, &mut starting).await;
            drop(gate);
            let instance = match instance {
                Ok(instance) => instance,
                Err(_) => starting.await,
            };
            let instance = instance.map_err(failed_start)?;
            let times = StartTimes { queued, spawned, handshake: began.elapsed() - queued - spawned };
            Ok((instance, times))
        };
        let mut closing = self.closing.clone();
        let started = tokio::select! {
            started = started => started,
            () = host_closes(&mut closing) => Err(ExitClass::HostShutdown),
        };
        let (instance, times) = match started {
            Ok(started) => started,
            Err(class) => return self.never_ran(class),
        };
        let ready_at = Instant::now();
        let expired = Arc::new(Notify::new());
        let methods = methods_of(instance.library());
        let endpoint =
            self.publish_ready(Callee::InProcess(instance.clone()), &methods, None, &expired, times);
        let (reason, answer) = self.serve_loaded(&instance, &endpoint, &expired).await;
        // Routes wait from here on, for the next incarnation.
        extension.shut(self.epoch, true);
        self.phase(InstanceState::Stopping);
        let ended = self.end_loaded(instance, reason, ready_at).await;
        if let Some(done) = answer {
            let _ = done.send(());
        }
        ended
    }

    /// The extension's library, loaded when it is first needed.
    async fn library(&self, source: &LibrarySource) -> Result<Library, ExitClass> {
        if let Some(library) = &*self.extension.library.lock() {
            return Ok(library.clone());
        }
        let library = match source {
            LibrarySource::Table(table) => Library::of_table(table).map_err(|error| unusable(&error))?,
            LibrarySource::File(path) => {
                // Loading runs the library's code: not on a thread of the runtime, nor on one that it waits for.
                let (done, loaded) = oneshot::channel();
                let path = path.clone();
                let load = move || {
                    let _ = done.send(Library::load(&path));
                };
                std::thread::Builder::new()
                    .name("load".into())
                    .spawn(load)
                    .map_err(|error| no_thread(&error))?;
                let within = self.extension.host.welcome_timeout;
                match timeout(within, loaded).await {
                    Ok(Ok(loaded)) => loaded.map_err(|error| unusable(&error))?,
                    Ok(Err(_)) => return Err(unusable(&StartError::Panicked)),
                    Err(_) => {
                        let what = format!("its library is not loaded after {within:?}");
                        return Err(ExitClass::StartTimeout { what });
                    }
                }
            }
        };
        library.check_name(&self.extension.name).map_err(|error| unusable(&error))?;
        *self.extension.library.lock() = Some(library.clone());
        Ok(library)
    }

    fn start_options(&self) -> StartOptions {
        let (manifest, host) = (&self.extension.manifest, &self.extension.host);
        let log = InstanceLog::new(
            Arc::clone(&host.log),
            Arc::clone(&self.extension.name),
            InstanceId::new(0, self.epoch),
            Arc::clone(&self.extension.dropped),
        );
        let options = StartOptions::new();
        StartOptions {
            config: manifest.config.clone(),
            in_flight_max: manifest.limits.in_flight_max.unwrap_or(options.in_flight_max),
            ready_timeout: host.ready_timeout,
            log: Arc::new(move |record| log.record(record)),
        }
    }

    /// Waits for whatever ends this incarnation; also who is to be told when it has ended.
    async fn serve_loaded(
        &mut self,
        instance: &InProcess,
        endpoint: &Arc<Endpoint>,
        expired: &Arc<Notify>,
    ) -> (Reason, Option<oneshot::Sender<()>>) {
        let mut hung = pin!(hangs(instance, self.extension.host.hang_limits));
        loop {
            tokio::select! {
                biased;
                () = host_closes(self.closing) => return (Reason::HostCloses, None),
                order = self.orders.recv() => match order {
                    Some(Order::Stop { why, done }) => return (Reason::Stop(why), Some(done)),
                    Some(Order::Reset { done }) => {
                        self.history.reset();
                        let _ = done.send(());
                    }
                    None => return (Reason::HostCloses, None),
                },
                hang = &mut hung => return (Reason::Hung(hang), None),
                () = expired.notified() => {
                    // A long call is use, though nobody touches anything meanwhile.
                    if instance.in_flight() == 0 {
                        return (Reason::Stop("idle".to_owned()), None);
                    }
                    self.watch_idleness(endpoint, expired);
                }
            }
        }
    }

    async fn end_loaded(&mut self, instance: InProcess, reason: Reason, ready_at: Instant) -> Ended {
        let now = Instant::now();
        let times = self.extension.host.stop_times;
        let deadlines = match &reason {
            Reason::HostCloses => {
                self.closing.borrow().unwrap_or_else(|| Deadlines::of_budget(now, Duration::ZERO))
            }
            Reason::Stop(_) | Reason::Hung(_) => Deadlines::of_times(now, times),
        };
        instance.drain();
        tokio::select! {
            biased;
            () = instance.idle() => {}
            () = passes(deadlines, self.closing, |deadlines| deadlines.drain) => {}
        }
        let on_request = !matches!(reason, Reason::Hung(_));
        let class = match reason {
            Reason::Stop(why) => ExitClass::Stopped { why },
            Reason::Hung(hang) => ExitClass::Hang { what: hang.what },
            Reason::HostCloses => ExitClass::HostShutdown,
        };
        let report = |class: ExitClass| ExitReport {
            class,
            end: ProcessEnd::Unknown,
            ready_for: ready_at.elapsed(),
            stderr_tail: String::new(),
        };
        let cause = cause_of(&report(class.clone()));
        {
            let mut memory = self.extension.memory.lock();
            memory.past = instance.statistics().with_earlier(&memory.past);
        }
        let left = {
            let until = deadlines.earlier(*self.closing.borrow()).terminate;
            until.saturating_duration_since(Instant::now())
        };
        let is_gone = instance.stop(&cause, left).await;
        let class = match class {
            // What has a reason of its own keeps it.
            ExitClass::Stopped { .. } if !is_gone => {
                ExitClass::Hang { what: "a call did not return; its thread is left alone".to_owned() }
            }
            class => class,
        };
        self.report(report(class), on_request)
    }
}

/// Looks at the instance from time to time, until it owes an answer for too long that nobody wants.
async fn hangs(instance: &InProcess, limits: HangLimits) -> Hang {
    let now = || Instant::now().into_std();
    let mut watch = HangWatch::new(limits, now());
    loop {
        tokio::time::sleep(limits.look_every()).await;
        let statistics = instance.statistics();
        let seen = Look {
            oldest_unanswered: instance.oldest_unanswered(),
            owes: statistics.in_flight > 0,
            bytes_read: statistics.bytes_read,
            // The heart that would beat is this process's own.
            has_heart: false,
        };
        if let Some(hang) = watch.look(now(), seen, || None) {
            return hang;
        }
    }
}

fn methods_of(library: &Library) -> Vec<MethodEntry> {
    let methods = library.description().interfaces.iter().flat_map(|interface| &interface.methods);
    let entry = |method: &ipc_protocol::describe::MethodDescription| {
        let mut entry = MethodEntry::new(method.name.as_str(), method.schema_hash);
        (entry.idempotent, entry.pure) = (method.idempotent, method.pure);
        entry
    };
    methods.map(entry).collect()
}

/// What is wrong with the library stays wrong until it is another one.
fn unusable(error: &dyn Error) -> ExitClass {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message.push_str(": ");
        message.push_str(&error.to_string());
        source = error.source();
    }
    ExitClass::LauncherFailed { message, permanent: true, of_program: true }
}

fn no_thread(error: &std::io::Error) -> ExitClass {
    let message = format!("there is no thread for it: {error}");
    ExitClass::LauncherFailed { message, permanent: false, of_program: false }
}

fn failed_start(error: StartError) -> ExitClass {
    match error {
        StartError::Refused(fault) => ExitClass::StartRefused { what: fault.message },
        StartError::Panicked => ExitClass::Panic { message: error.to_string() },
        StartError::Silent { .. } => ExitClass::StartTimeout { what: error.to_string() },
        StartError::Thread(source) => no_thread(&source),
    }
}
