//! The manager: declared models by name and id, and the ways to a lease.
//!
//! Declaring is rare and takes a lock; allocating, giving back and looking do not.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc as StdArc, PoisonError},
};

use pit_core::{
    clock::{Clock, SystemClock, Tick},
    priority::Ageing,
    sync::{Arc, Mutex, MutexGuard},
    wait::block_until,
};

use crate::{
    ModelId,
    cell::{ModelCell, ModelState, Redeclared, Standing, Taken, WAITERS_PER_MODEL_MAX},
    lease::Lease,
    request::Request,
    table::{MODELS_MAX, Table},
    wait::{self, Allocating},
    word::CAPACITY_MAX,
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
    /// The capacity is not within its limits. Declare one that is.
    #[error("capacity {capacity} is not within 1 to {CAPACITY_MAX}")]
    CapacityOutOfRange {
        /// The capacity that was declared.
        capacity: u32,
    },
    /// [`MODELS_MAX`] names are declared or were. Use a name again.
    #[error("{MODELS_MAX} models are declared already")]
    TooManyModels,
    /// The name was declared so often that its epochs are used up. Choose another one.
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
    /// As many leases as the model's capacity are held. Wait, or try again later.
    #[error("no lease of {0} is free")]
    Busy(ModelId),
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

/// Declared models and their leases. A clone is another handle of the same manager. See the crate's example.
///
/// # Concurrency
/// All methods may be called from any thread. `allocate`, giving back while nobody waits, `state` and `snapshot` take no
/// lock.
#[derive(Clone)]
pub struct PoolManager {
    shared: StdArc<Shared>,
}

struct Shared {
    table: Table,
    /// Every name that was ever declared. Its lock is also the right to add to the table.
    names: Mutex<HashMap<Box<str>, u32>>,
    ageing: Ageing,
    clock: StdArc<dyn Clock>,
}

impl PoolManager {
    /// A manager of no models yet, with the default [`Ageing`] and a clock of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::with_ageing(Ageing::default(), StdArc::new(SystemClock::new()))
    }

    /// As [`new`](Self::new), with a given ageing and the clock on which deadlines are.
    #[must_use]
    pub fn with_ageing(ageing: Ageing, clock: StdArc<dyn Clock>) -> Self {
        let names = Mutex::new(HashMap::new());
        Self { shared: StdArc::new(Shared { table: Table::default(), names, ageing, clock }) }
    }

    /// Declares a model: its name, and how many leases of it there may be at once.
    ///
    /// # Errors
    /// [`DeclareError`], each but [`DeclareError::ModelRetired`].
    pub fn declare(&self, name: &str, capacity: u32) -> Result<ModelId, DeclareError> {
        check(capacity)?;
        let mut names = self.names();
        let known = names.get(name).and_then(|place| self.shared.table.get(*place));
        if let Some(cell) = known {
            let last = cell.standing();
            if last.is_declared {
                return Err(DeclareError::DeclaredAlready { name: name.into(), model: last.model });
            }
            return begin_epoch(cell, last, capacity);
        }
        let place = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let cell = Arc::new(ModelCell::new(place, name, capacity));
        let id = cell.standing().model;
        self.shared.table.set(place, cell).ok_or(DeclareError::TooManyModels)?;
        names.insert(name.into(), place);
        Ok(id)
    }

    /// Declares a model anew, with another capacity and nothing leased: what served the old leases is gone.
    ///
    /// The leases of before end and change nothing any more; who waits for the old model is refused.
    ///
    /// # Errors
    /// [`DeclareError::CapacityOutOfRange`], [`DeclareError::ModelRetired`], [`DeclareError::EpochsUsedUp`].
    pub fn redeclare(&self, model: ModelId, capacity: u32) -> Result<ModelId, DeclareError> {
        check(capacity)?;
        let cell = self.shared.table.get(model.index()).ok_or(DeclareError::ModelRetired(model))?;
        begin_epoch(cell, Standing { model, is_declared: true }, capacity)
    }

    /// Ends a model: its leases change nothing any more, who waits is refused. False when it had ended before.
    pub fn retire_model(&self, model: ModelId) -> bool {
        self.shared.table.get(model.index()).is_some_and(|cell| cell.retire(model.generation()))
    }

    /// The model that is declared under `name` now.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ModelId> {
        let place = *self.names().get(name)?;
        let cell = self.shared.table.get(place)?;
        let standing = cell.standing();
        standing.is_declared.then_some(standing.model)
    }

    /// A lease, if one is free. While somebody waits none is.
    ///
    /// # Errors
    /// [`AllocateError::Busy`]: none is free. [`AllocateError::ModelRetired`], [`AllocateError::UnknownModel`],
    /// [`AllocateError::HolderRetired`]: there is no use in trying again.
    pub fn allocate(&self, request: impl Into<Request>) -> Result<Lease, AllocateError> {
        let request = request.into();
        let model = request.model;
        let cell = self.shared.table.get(model.index()).ok_or(AllocateError::UnknownModel(model))?;
        match cell.take(model.generation()) {
            Taken::Leased => wait::lease(cell, &request),
            Taken::NoneFree => Err(AllocateError::Busy(model)),
            Taken::ModelRetired => Err(AllocateError::ModelRetired(model)),
        }
    }

    /// Waits for a lease, as a future that works in any runtime. The place in the queue is taken at its first poll.
    ///
    /// # Errors
    /// The future fails with [`AllocateError::ModelRetired`] or [`AllocateError::HolderRetired`], also when that happens
    /// while it waits, with [`AllocateError::UnknownModel`] or [`AllocateError::TooManyWaiters`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue; a lease that was on its way goes to the next.
    pub fn allocate_async(&self, request: impl Into<Request>) -> Allocating {
        let request = request.into();
        let cell = self.shared.table.get(request.model.index()).cloned();
        Allocating::new(cell, request, self.shared.ageing, StdArc::clone(&self.shared.clock))
    }

    /// Blocks this thread until there is a lease, or `deadline` (a tick of the manager's clock) has passed.
    ///
    /// With a deadline that has passed already it is one try. [`Tick::NEVER`] waits without end.
    ///
    /// # Errors
    /// As [`allocate_async`](Self::allocate_async), or [`AllocateError::DeadlinePassed`].
    pub fn allocate_wait(&self, request: impl Into<Request>, deadline: Tick) -> Result<Lease, AllocateError> {
        let request = request.into();
        let model = request.model;
        block_until(self.allocate_async(request), deadline, &*self.shared.clock)
            .unwrap_or(Err(AllocateError::DeadlinePassed { model, deadline }))
    }

    /// What the model looks like now.
    ///
    /// # Errors
    /// [`AllocateError::ModelRetired`], [`AllocateError::UnknownModel`].
    pub fn state(&self, model: ModelId) -> Result<ModelState, AllocateError> {
        let cell = self.shared.table.get(model.index()).ok_or(AllocateError::UnknownModel(model))?;
        let state = cell.state();
        if state.id == model && state.capacity > 0 {
            Ok(state)
        } else {
            Err(AllocateError::ModelRetired(model))
        }
    }

    /// All declared models, in the order in which their names came first.
    ///
    /// # Concurrency
    /// Takes no lock. Each model is seen at one moment, but not all at the same.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ModelState> {
        self.shared.table.iter().map(|cell| cell.state()).filter(|state| state.capacity > 0).collect()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Box<str>, u32>> {
        // Nothing under this lock can panic half-way.
        self.shared.names.lock().unwrap_or_else(PoisonError::into_inner)
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

const fn check(capacity: u32) -> Result<(), DeclareError> {
    if capacity == 0 || capacity > CAPACITY_MAX {
        return Err(DeclareError::CapacityOutOfRange { capacity });
    }
    Ok(())
}

fn begin_epoch(cell: &ModelCell, last: Standing, capacity: u32) -> Result<ModelId, DeclareError> {
    match cell.begin_epoch(last, capacity) {
        Redeclared::As(model) => Ok(model),
        Redeclared::ModelRetired => Err(DeclareError::ModelRetired(last.model)),
        Redeclared::EpochsUsedUp => Err(DeclareError::EpochsUsedUp(last.model)),
    }
}
