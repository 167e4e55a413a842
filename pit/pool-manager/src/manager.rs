//! The manager: declared models by name and id, and the ways to a lease.
//!
//! Declaring is rare and takes a lock; allocating what is free, giving it back and looking do not.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError},
};

use pit_core::{
    clock::{Clock, SystemClock, Tick},
    limit::Limit,
    priority::Ageing,
    sync::{Mutex, MutexGuard},
};

use crate::{
    InstanceId, ModelId,
    cell::{ModelCell, ModelState, Standing},
    holder::Holder,
    lease::Lease,
    loader::IdleWatch,
    locked::{Redeclared, WAITERS_PER_MODEL_MAX},
    request::Request,
    shared::{Core, MODELS_MAX},
    spec::{ErrorClass, ModelSpec},
    wait::{self, Allocating},
};

/// Why a model could not be declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// A model of this name is declared. Use it, redeclare it or choose another name.
    #[error("model `{name}` is declared already, as {model}")]
    DeclaredAlready {
        /// The name.
        name: Box<str>,
        /// What it stands for.
        model: ModelId,
    },
    /// A number is not within its limits. Declare one that is.
    #[error("{value} is not within the limit of {limit}")]
    OutOfRange {
        /// What is limited.
        limit: Limit,
        /// What was declared.
        value: u64,
    },
    /// One instance takes more memory than there may be for all. Raise the budget, or do not load it.
    #[error("an instance takes {bytes} bytes, beyond the budget of {budget_bytes}")]
    BeyondBudget {
        /// What it takes, at load or in use.
        bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// [`MODELS_MAX`] names are declared or were. Use a name again.
    #[error("{MODELS_MAX} models are declared already")]
    TooManyModels,
    /// The name was declared so often, or its leases revoked, that its epochs are used up. Choose another one.
    #[error("{0} was redeclared too often")]
    EpochsUsedUp(ModelId),
    /// The model to be redeclared is not declared any more. Declare it anew.
    #[error("{0} is not declared any more")]
    ModelRetired(ModelId),
}

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// As many leases as the model's capacity are held, or all of what is loaded, and there is no memory for more. Wait, or
    /// try again later.
    #[error("no lease of {0} is free")]
    Busy(ModelId),
    /// Nothing is free, and an instance is being loaded. Wait, or try again later.
    #[error("{0} is being loaded")]
    Loading(ModelId),
    /// Every instance rests after a failure, for longer than the request allows. Try again then, or elsewhere.
    #[error("every instance of {model} rests, until {until:?}")]
    CoolingDown {
        /// The model.
        model: ModelId,
        /// When the first of them comes back, on the manager's clock.
        until: Tick,
    },
    /// The model was retired or redeclared. Look the name up again.
    #[error("{0} is not declared any more")]
    ModelRetired(ModelId),
    /// The id is not one of this manager. Take ids from [`PoolManager::declare`] or [`PoolManager::find`].
    #[error("{0} is unknown to this manager")]
    UnknownModel(ModelId),
    /// The holder in whose name the lease was to be was retired. Nothing is to be done: it is dead.
    #[error("the holder that asked for {0} was retired")]
    HolderRetired(ModelId),
    /// [`WAITERS_PER_MODEL_MAX`] wait already. Try again later.
    #[error("{WAITERS_PER_MODEL_MAX} wait for {0} already")]
    TooManyWaiters(ModelId),
    /// The deadline passed first. Try again, or give up.
    #[error("no lease of {model} before the deadline at {deadline:?}")]
    DeadlinePassed {
        /// The model.
        model: ModelId,
        /// The deadline, on the manager's clock.
        deadline: Tick,
    },
}

/// Why an instance may not take another amount of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// It is not loaded, or not any more. Nothing is to be done: it counts for nothing.
    #[error("{instance} of {model} is not loaded")]
    NotLoaded {
        /// The model.
        model: ModelId,
        /// The instance.
        instance: InstanceId,
    },
    /// There is not so much, though all that is idle was unloaded. Do with what it has, try again later, or end it.
    #[error("{bytes} bytes for {instance} of {model} are not to be had within the budget of {budget_bytes}")]
    OutOfMemory {
        /// The model.
        model: ModelId,
        /// The instance.
        instance: InstanceId,
        /// What it would take.
        bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
}

/// How a manager is made. The default has no memory budget, a clock of its own, and nobody who watches what is idle.
#[derive(Clone)]
pub struct PoolOptions {
    /// How waiting counts against priority.
    pub ageing: Ageing,
    /// The clock on which deadlines are.
    pub clock: Arc<dyn Clock>,
    /// Bytes that all loaded instances may take together.
    pub memory_budget_bytes: u64,
    /// Who watches what is idle.
    pub idle_watch: Option<Arc<dyn IdleWatch>>,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            ageing: Ageing::default(),
            clock: Arc::new(SystemClock::new()),
            memory_budget_bytes: u64::MAX,
            idle_watch: None,
        }
    }
}

impl fmt::Debug for PoolOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolOptions")
            .field("ageing", &self.ageing)
            .field("memory_budget_bytes", &self.memory_budget_bytes)
            .finish_non_exhaustive()
    }
}

/// What all models of a manager have done and take; each number is true by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolTotals {
    /// Leases that were handed to somebody who waited.
    pub handed_over: u64,
    /// Asks that were refused after a look under a model's lock: nothing was free, loaded or awake.
    pub refused: u64,
    /// Leases that ended with their holder or when their time was over.
    pub revoked: u64,
    /// Instances that were begun to be loaded.
    pub loads: u64,
    /// Instances that were unloaded.
    pub unloads: u64,
    /// Bytes that are reserved for instances now: loading, in use, or not gone yet.
    pub memory_bytes: u64,
    /// Bytes that they may take.
    pub memory_budget_bytes: u64,
}

/// Declared models and their leases. A clone is another handle of the same manager. See the crate's example.
///
/// # Concurrency
/// All methods may be called from any thread. `allocate` of what is free, giving it back while nobody waits, `state`,
/// `snapshot` and `totals` take no lock but, in `totals`, that of the memory budget.
#[derive(Clone)]
pub struct PoolManager {
    core: Arc<Core>,
    /// Every name that was ever declared. Its lock is also the right to add to the table.
    names: Arc<Mutex<HashMap<Box<str>, u32>>>,
}

impl PoolManager {
    /// A manager of no models yet, made by default.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(PoolOptions::default())
    }

    /// As [`new`](Self::new), with a given ageing and the clock on which deadlines are.
    #[must_use]
    pub fn with_ageing(ageing: Ageing, clock: Arc<dyn Clock>) -> Self {
        Self::with_options(PoolOptions { ageing, clock, ..PoolOptions::default() })
    }

    /// A manager of no models yet.
    #[must_use]
    pub fn with_options(options: PoolOptions) -> Self {
        let PoolOptions { ageing, clock, memory_budget_bytes, idle_watch } = options;
        let core = Core::new(ageing, clock, memory_budget_bytes, idle_watch);
        Self { core: Arc::new(core), names: Arc::new(Mutex::new(HashMap::new())) }
    }

    /// Declares a model: its name, and what it is. A number stands for so many leases at once.
    ///
    /// # Errors
    /// [`DeclareError`], each but [`DeclareError::ModelRetired`].
    pub fn declare(&self, name: &str, spec: impl Into<ModelSpec>) -> Result<ModelId, DeclareError> {
        let spec = spec.into();
        self.check(&spec)?;
        let mut names = self.names();
        let known = names.get(name).and_then(|place| self.core.models.get(*place));
        if let Some(cell) = known {
            let last = cell.standing();
            if last.is_declared {
                return Err(DeclareError::DeclaredAlready { name: name.into(), model: last.model });
            }
            return declare(cell, last, spec);
        }
        let place = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let cell = ModelCell::new(place, name, Arc::downgrade(&self.core));
        let model = declare(&cell, cell.standing(), spec)?;
        self.core.models.set(place, cell).map_err(|_| DeclareError::TooManyModels)?;
        names.insert(name.into(), place);
        Ok(model)
    }

    /// Declares a model anew, with nothing leased: what served the old leases is gone.
    ///
    /// The leases of before end and change nothing any more; who waits for the old model is refused.
    ///
    /// # Errors
    /// [`DeclareError::OutOfRange`], [`DeclareError::BeyondBudget`], [`DeclareError::ModelRetired`],
    /// [`DeclareError::EpochsUsedUp`].
    pub fn redeclare(&self, model: ModelId, spec: impl Into<ModelSpec>) -> Result<ModelId, DeclareError> {
        let spec = spec.into();
        self.check(&spec)?;
        let cell = self.core.models.get(model.index()).ok_or(DeclareError::ModelRetired(model))?;
        declare(cell, Standing { model, is_declared: true }, spec)
    }

    /// Ends a model: its leases change nothing any more, who waits is refused. False when it had ended before.
    pub fn retire_model(&self, model: ModelId) -> bool {
        self.core.models.get(model.index()).is_some_and(|cell| cell.locked().retire(model.generation()))
    }

    /// An instance is no more: its leases end at once. What takes its place rests first, as after a failure of this
    /// class. False when it had ended before.
    pub fn end_instance(&self, model: ModelId, instance: InstanceId, class: ErrorClass) -> bool {
        self.cell(model).is_ok_and(|cell| cell.locked().end_instance(instance, class))
    }

    /// Unloads an instance if there is no lease of it and there was none since this was last called. True when it is not
    /// loaded any more, false when it is to be watched on.
    pub fn unload_idle(&self, model: ModelId, instance: InstanceId) -> bool {
        self.cell(model).map_or(true, |cell| cell.locked().unload_idle(instance))
    }

    /// An instance takes so many bytes from now on, until this is said again or it is unloaded. To be asked before it
    /// takes more, and said after it takes less.
    ///
    /// For more, what is idle is unloaded where that is needed, and whoever waits to be loaded waits on: what is in use
    /// must come to its end.
    ///
    /// # Errors
    /// [`MemoryError`]; what was reserved before is then as it was.
    pub fn set_memory_in_use(
        &self,
        model: ModelId,
        instance: InstanceId,
        bytes: u64,
    ) -> Result<(), MemoryError> {
        let Ok(cell) = self.cell(model) else { return Err(MemoryError::NotLoaded { model, instance }) };
        let set = || cell.locked().set_memory(instance, bytes);
        let is_done = self.core.before_the_line(|| {
            let is_done = set()?;
            if is_done {
                return Some(true);
            }
            let more = bytes.saturating_sub(cell.locked().memory_of(instance));
            self.core.make_room(more, Some((model, instance)));
            set()
        });
        let budget_bytes = self.core.budget.bytes();
        match is_done {
            None => Err(MemoryError::NotLoaded { model, instance }),
            Some(false) => Err(MemoryError::OutOfMemory { model, instance, bytes, budget_bytes }),
            Some(true) => Ok(()),
        }
    }

    /// The model that is declared under `name` now.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ModelId> {
        let place = *self.names().get(name)?;
        let standing = self.core.models.get(place)?.standing();
        standing.is_declared.then_some(standing.model)
    }

    /// A lease, if one is free. While somebody waits none is.
    ///
    /// "Free" is looked for slot by slot: where leases come and go meanwhile, each was seen in use, but not all at one
    /// moment. Who must have the next one waits for it.
    ///
    /// # Errors
    /// [`AllocateError::Busy`], [`AllocateError::Loading`], [`AllocateError::CoolingDown`]: none is free.
    /// [`AllocateError::ModelRetired`], [`AllocateError::UnknownModel`], [`AllocateError::HolderRetired`]: there is no
    /// use in trying again.
    #[inline(always)]
    pub fn allocate<'h>(&self, request: impl Into<Request<'h>>) -> Result<Lease, AllocateError> {
        // Always inlined, so that a request is passed in registers: through memory it costs as much as the lease.
        let Request { model, holder, .. } = request.into();
        self.allocate_now(model, holder)
    }

    fn allocate_now(&self, model: ModelId, holder: Option<&Holder>) -> Result<Lease, AllocateError> {
        wait::now(self.cell(model)?, model, holder)
    }

    /// Waits for a lease, as a future that works in any runtime. The place in the queue is taken at its first poll.
    ///
    /// A future has no clock: somebody must call [`turn`](Self::turn) when rests end.
    ///
    /// # Errors
    /// The future fails with [`AllocateError::ModelRetired`], [`AllocateError::HolderRetired`] or
    /// [`AllocateError::CoolingDown`], also when that happens while it waits, with [`AllocateError::UnknownModel`] or
    /// [`AllocateError::TooManyWaiters`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue; a lease that was on its way goes to the next.
    pub fn allocate_async<'h>(&self, request: impl Into<Request<'h>>) -> Allocating {
        let request = request.into();
        Allocating::new(self.core.models.get(request.model.index()).cloned(), &request, self.core.ageing)
    }

    /// Blocks this thread until there is a lease, or `deadline` (a tick of the manager's clock) has passed.
    ///
    /// With a deadline that has passed already it is one try. [`Tick::NEVER`] waits without end.
    ///
    /// # Errors
    /// As [`allocate_async`](Self::allocate_async), or [`AllocateError::DeadlinePassed`]. When every instance rests for
    /// longer than the deadline allows it fails at once.
    pub fn allocate_wait<'h>(
        &self,
        request: impl Into<Request<'h>>,
        deadline: Tick,
    ) -> Result<Lease, AllocateError> {
        let request = request.into().with_deadline(deadline);
        wait::blocking(self.allocate_async(request), deadline, &self.core)
    }

    /// Does what is due at `now`, a tick of the manager's clock: ends rests, and leases whose maximum time is over.
    ///
    /// Gives the moment at which there is something to do next ([`Tick::NEVER`]: nothing). Something that happens
    /// meanwhile can bring it forward; who sleeps until then must look again.
    pub fn turn(&self, now: Tick) -> Tick {
        self.core.turn(now);
        self.core.timers.next()
    }

    /// What the model looks like now.
    ///
    /// # Errors
    /// [`AllocateError::ModelRetired`], [`AllocateError::UnknownModel`].
    pub fn state(&self, model: ModelId) -> Result<ModelState, AllocateError> {
        let state = self.cell(model)?.state();
        if state.id == model && state.capacity > 0 {
            Ok(state)
        } else {
            Err(AllocateError::ModelRetired(model))
        }
    }

    /// All declared models, in the order in which their names came first.
    ///
    /// # Concurrency
    /// Takes no lock and stops nobody. Each number is true by itself, but not all are of one moment.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ModelState> {
        self.core.models.iter().map(|cell| cell.state()).filter(|state| state.capacity > 0).collect()
    }

    /// What all models have done and take.
    #[must_use]
    pub fn totals(&self) -> PoolTotals {
        let [handed_over, refused, revoked, loads, unloads] = self.core.counters.snapshot();
        let (memory_bytes, memory_budget_bytes) = (self.core.budget.used_bytes(), self.core.budget.bytes());
        PoolTotals { handed_over, refused, revoked, loads, unloads, memory_bytes, memory_budget_bytes }
    }

    #[inline]
    pub(crate) fn cell(&self, model: ModelId) -> Result<&Arc<ModelCell>, AllocateError> {
        self.core.models.get(model.index()).ok_or(AllocateError::UnknownModel(model))
    }

    fn check(&self, spec: &ModelSpec) -> Result<(), DeclareError> {
        if let Some((limit, value)) = spec.beyond() {
            return Err(DeclareError::OutOfRange { limit, value });
        }
        let bytes = spec.memory.peak_bytes();
        let budget_bytes = self.core.budget.bytes();
        if bytes > budget_bytes {
            return Err(DeclareError::BeyondBudget { bytes, budget_bytes });
        }
        Ok(())
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Box<str>, u32>> {
        // Nothing under this lock can panic half-way.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for PoolManager {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PoolManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolManager").field("models", &self.snapshot()).finish_non_exhaustive()
    }
}

fn declare(cell: &ModelCell, last: Standing, spec: ModelSpec) -> Result<ModelId, DeclareError> {
    match cell.locked().declare(last, spec) {
        Redeclared::As(model) => Ok(model),
        Redeclared::ModelRetired => Err(DeclareError::ModelRetired(last.model)),
        Redeclared::EpochsUsedUp => Err(DeclareError::EpochsUsedUp(last.model)),
    }
}
