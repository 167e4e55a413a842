//! All extensions together: who there is, where their routes are, how everything ends.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipc_protocol::limits::{READY_TIMEOUT_MS, WELCOME_TIMEOUT_MS};
use parking_lot::Mutex;
use pit_core::ring::EventRing;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::events::{EVENTS_KEPT_MAX, EventReader, HostEvent};
use crate::expiry::{Expiry, TimerExpiry};
use crate::extension::{Code, Deadlines, Extension, HostShared, Order, supervise};
use crate::hang::HangLimits;
use crate::in_process::LibrarySource;
use crate::limits::has_any;
use crate::logs::{LogSink, TracingLog};
use crate::manifest::Manifest;
use crate::route::Route;
use crate::snapshot::ExtensionSnapshot;
use crate::storage::Storage;
use crate::supervised::LauncherProgram;

/// LIMIT: extensions of one host.
const EXTENSIONS_MAX: usize = 1024;

/// How a host works.
#[derive(Clone)]
pub struct HostOptions {
    /// Where the launcher is.
    pub launcher: LauncherProgram,
    /// Who keeps time for what is idle; `None`: a timer for each instance.
    pub expiry: Option<Arc<dyn Expiry>>,
    /// Who keeps what extensions want kept; `None`: nobody, and they are told so.
    pub storage: Option<Arc<dyn Storage>>,
    /// Where extensions' lines go.
    pub log: Arc<dyn LogSink>,
    /// How many extensions may start at the same time, at least 1.
    pub starts_at_once_max: u32,
    /// Time for an extension's first answer.
    pub welcome_timeout: Duration,
    /// Time for an extension's own start after that.
    pub ready_timeout: Duration,
    /// How long each step of stopping one extension may take.
    pub stop_times: StopTimes,
    /// How long an instance may be as if it hung; then it is ended, and started again as after any failure.
    pub hang_limits: HangLimits,
    /// Whether limits are held by control groups where they can be used; else by looking from time to time.
    pub uses_control_groups: bool,
}

/// How long each step of a stop may take; then comes the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopTimes {
    /// Calls in flight finish.
    pub drain: Duration,
    /// It has been told goodbye, and exits by itself.
    pub goodbye: Duration,
    /// It has got SIGTERM. Then everything is killed.
    pub terminate: Duration,
}

impl HostOptions {
    /// The defaults, with the launcher there.
    #[must_use]
    pub fn new(launcher: LauncherProgram) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            launcher,
            expiry: None,
            storage: None,
            log: Arc::new(TracingLog),
            starts_at_once_max: u32::try_from(cores).unwrap_or(1),
            welcome_timeout: Duration::from_millis(WELCOME_TIMEOUT_MS.into()),
            ready_timeout: Duration::from_millis(READY_TIMEOUT_MS.into()),
            stop_times: StopTimes {
                drain: Duration::from_secs(30),
                goodbye: Duration::from_secs(5),
                terminate: Duration::from_secs(3),
            },
            hang_limits: HangLimits::default(),
            uses_control_groups: true,
        }
    }
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions").field("launcher", &self.launcher).finish_non_exhaustive()
    }
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Called outside a tokio runtime. Either flavour will do.
    #[error("a host needs a tokio runtime")]
    NoRuntime(#[source] tokio::runtime::TryCurrentError),
}

/// Why an extension was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// There is one with this name.
    #[error("extension `{name}` is registered already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There are 1024.
    #[error("more than {EXTENSIONS_MAX} extensions cannot be registered")]
    TooMany,
    /// The host stops.
    #[error("the host stops")]
    Closing,
}

/// There is no extension with this name. Register it, or mend the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no extension `{name}`")]
pub struct UnknownExtension {
    /// The name asked for.
    pub name: String,
}

/// Every extension, by name. Replaced as a whole, so that readers take no lock.
pub(crate) type Table = BTreeMap<Arc<str>, Arc<Extension>>;

/// The host of a set of extensions. Dropping it kills them; [`Host::shutdown`] stops them.
pub struct Host {
    shared: Arc<HostShared>,
    runtime: Handle,
    table: Arc<ArcSwap<Table>>,
    /// One for each extension. Also what keeps changes of the table apart.
    supervisors: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("extensions", &self.table.load().keys().collect::<Vec<_>>()).finish()
    }
}

impl Host {
    /// A host without extensions. Its tasks live on the runtime that this is called in.
    ///
    /// # Errors
    ///
    /// [`HostError::NoRuntime`]: call it inside one.
    pub fn new(options: HostOptions) -> Result<Arc<Self>, HostError> {
        let runtime = Handle::try_current().map_err(HostError::NoRuntime)?;
        let table = Arc::<ArcSwap<Table>>::default();
        let shared = HostShared {
            table: Arc::downgrade(&table),
            storage: options.storage,
            launcher: options.launcher,
            expiry: options.expiry.unwrap_or_else(|| Arc::new(TimerExpiry)),
            log: options.log,
            events: EventRing::new(EVENTS_KEPT_MAX),
            gate: Semaphore::new(options.starts_at_once_max.max(1) as usize),
            welcome_timeout: options.welcome_timeout,
            ready_timeout: options.ready_timeout,
            stop_times: options.stop_times,
            hang_limits: options.hang_limits,
            limits: OnceLock::new(),
            uses_control_groups: options.uses_control_groups,
            began: Instant::now(),
            closing: watch::Sender::new(None),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared), runtime, table, supervisors: Mutex::default() }))
    }

    /// Adds an extension whose program is `program`, to run as a process of its own whatever its manifest wishes; an
    /// eager one is started at once.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing changes then. Whether the program can be executed shows at its start.
    pub fn register(&self, manifest: Manifest, program: PathBuf) -> Result<(), RegisterError> {
        self.add(manifest, Code::Program(program))
    }

    /// Adds an extension that runs in this process, whatever its manifest wishes: its library becomes a part of this
    /// program, with all its rights and no limit, for as long as the process lives. Only for what is trusted so. What
    /// its manifest asks for and cannot get is logged, once.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing changes then. Whether the library can be loaded shows at the first start.
    pub fn register_in_process(
        &self,
        manifest: Manifest,
        library: LibrarySource,
    ) -> Result<(), RegisterError> {
        let unenforced = manifest.unenforced_in_process();
        let name = manifest.name.clone();
        self.add(manifest, Code::Library(library))?;
        if !unenforced.is_empty() {
            tracing::warn!(
                extension = name,
                "it runs in this process, where these keys of its manifest mean nothing: {}",
                unenforced.join(", ")
            );
        }
        Ok(())
    }

    fn add(&self, manifest: Manifest, code: Code) -> Result<(), RegisterError> {
        let mut supervisors = self.supervisors.lock();
        if self.shared.closing.borrow().is_some() {
            return Err(RegisterError::Closing);
        }
        let table = self.table.load_full();
        if table.contains_key(manifest.name.as_str()) {
            return Err(RegisterError::NameTaken { name: manifest.name });
        }
        if table.len() >= EXTENSIONS_MAX {
            return Err(RegisterError::TooMany);
        }
        if let Code::Program(_) = code
            && has_any(&manifest.limits)
            && let Some(warning) = self.shared.limits().warning()
        {
            tracing::warn!(extension = manifest.name, "{warning}");
        }
        let (extension, orders) = Extension::new(manifest, code, Arc::clone(&self.shared));
        let mut table = Table::clone(&table);
        table.insert(Arc::clone(&extension.name), Arc::clone(&extension));
        supervisors.push(self.runtime.spawn(supervise(extension, orders)));
        self.table.store(Arc::new(table));
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Arc<Extension>, UnknownExtension> {
        let table = self.table.load();
        table.get(name).cloned().ok_or_else(|| UnknownExtension { name: name.to_owned() })
    }

    /// The way to the extension `name`. Keep it: it stays right over restarts.
    ///
    /// # Errors
    ///
    /// [`UnknownExtension`].
    pub fn extension(&self, name: &str) -> Result<Route, UnknownExtension> {
        self.find(name).map(Route::new)
    }

    /// What happens from now on, numbered. Who wants a state and its changes subscribes first and takes the
    /// snapshot then.
    #[must_use]
    pub fn subscribe(&self) -> EventReader<Arc<HostEvent>> {
        self.shared.events.subscribe()
    }

    /// The last events that are kept, and what happens from now on.
    #[must_use]
    pub fn subscribe_from_oldest(&self) -> EventReader<Arc<HostEvent>> {
        self.shared.events.subscribe_from_oldest()
    }

    /// The present state of every extension, by name.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ExtensionSnapshot> {
        self.table.load().values().map(|extension| extension.snapshot()).collect()
    }

    /// Stops the extension's instance, for the reason `why`; its next call starts another.
    ///
    /// # Errors
    ///
    /// [`UnknownExtension`].
    pub async fn stop(&self, name: &str, why: &str) -> Result<(), UnknownExtension> {
        let why = why.to_owned();
        self.order(name, |done| Order::Stop { why, done }).await
    }

    /// Forgets the extension's failures: if it is broken, its next call starts it.
    ///
    /// # Errors
    ///
    /// [`UnknownExtension`].
    pub async fn reset(&self, name: &str) -> Result<(), UnknownExtension> {
        self.order(name, |done| Order::Reset { done }).await
    }

    async fn order(
        &self,
        name: &str,
        make: impl FnOnce(oneshot::Sender<()>) -> Order,
    ) -> Result<(), UnknownExtension> {
        let extension = self.find(name)?;
        let (done, answered) = oneshot::channel();
        if extension.order(make(done)) {
            // Dropped without an answer when the host stops meanwhile: then it ends in any case.
            let _ = answered.await;
        }
        Ok(())
    }

    /// Stops everything within `budget`: half of it for calls in flight, then goodbye, SIGTERM, and what is
    /// left is killed. With a budget of zero it is killed at once. Returns when nothing is left. Called again
    /// meanwhile, the earlier of the deadlines holds.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops waiting, not stopping.
    pub async fn shutdown(&self, budget: Duration) {
        self.close(budget);
        let supervisors = std::mem::take(&mut *self.supervisors.lock());
        for supervisor in supervisors {
            // A supervisor that panicked has dropped, and so killed, what it had.
            let _ = supervisor.await;
        }
        // Another call may have taken the handles: the phases tell.
        for extension in self.table.load_full().values() {
            let mut phases = extension.watch_phase();
            let _ = phases.wait_for(|phase| phase.state == crate::InstanceState::Closed).await;
        }
    }

    fn close(&self, budget: Duration) {
        let deadlines = Deadlines::of_budget(Instant::now(), budget);
        // Under the lock that registering takes: nobody comes in behind.
        let _supervisors = self.supervisors.lock();
        self.shared.closing.send_modify(|closing| *closing = Some(deadlines.earlier(*closing)));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}
