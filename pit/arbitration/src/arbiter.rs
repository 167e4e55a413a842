//! The arbiter: the bookkeeping behind one mutex, and grants that give back what they hold when they are dropped.
//!
//! The mutex is the plain version that a cleverer one has to beat: a claim touches several counters at once and must see
//! the whole queue, and the lock is held for tens of nanoseconds. Wakers are foreign code and run outside it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use pit_core::{
    clock::{Clock, SystemClock, Tick},
    priority::Ageing,
    wait::block_until,
};

use crate::{
    claim::{CLAIM_RESOURCES_MAX, ClaimSpec, GrantId, ResourceId},
    snapshot::Snapshot,
    state::State,
    wait::Claiming,
};

/// LIMIT: resources of one arbiter. Every look at the queue copies one number for each.
pub const RESOURCES_MAX: usize = 256;

/// LIMIT: claims that wait at one arbiter. A release looks at each of them, so that a longer queue would make every
/// release slow; who is refused here must hold back its own work.
pub const WAITERS_MAX: usize = 100_000;

/// Why an arbiter could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArbiterError {
    /// Two resources have one name. Give each a name of its own.
    #[error("resource `{name}` is declared twice")]
    DeclaredTwice {
        /// The name.
        name: String,
    },
    /// More than [`RESOURCES_MAX`] resources. Claim coarser things.
    #[error("{count} resources are more than {RESOURCES_MAX}")]
    TooManyResources {
        /// How many were declared.
        count: usize,
    },
}

/// Why a claim was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// More than there is when nobody else holds anything: no waiting would help. Claim less.
    #[error("{wanted} of `{resource}` are claimed, its capacity is {capacity}")]
    ExceedsCapacity {
        /// The resource's name.
        resource: Arc<str>,
        /// Units claimed.
        wanted: u64,
        /// Units that there are.
        capacity: u64,
    },
    /// The resource is not one of this arbiter. Take ids from [`Arbiter::resource`].
    #[error("{0} is unknown to this arbiter")]
    UnknownResource(ResourceId),
    /// The claim names more than [`CLAIM_RESOURCES_MAX`] resources. Merge or split it.
    #[error("a claim of more than {CLAIM_RESOURCES_MAX} resources")]
    TooManyResources,
    /// [`WAITERS_MAX`] claims wait already. Try again later.
    #[error("{WAITERS_MAX} claims wait already")]
    TooManyWaiters,
    /// The deadline passed before the claim could be granted; it does not wait any more. Try again, or give up.
    #[error("not granted before the deadline at {deadline:?}")]
    DeadlinePassed {
        /// The deadline, on the arbiter's clock.
        deadline: Tick,
    },
}

/// Grants claims on a fixed set of counted resources. A clone is another handle of the same arbiter.
///
/// # Concurrency
/// All methods may be called from any thread. Grants and waiting claims keep the arbiter alive.
#[derive(Clone)]
pub struct Arbiter {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    resources: Vec<Resource>,
    by_name: HashMap<Arc<str>, ResourceId>,
    ageing: Ageing,
    pub(crate) clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct Resource {
    name: Arc<str>,
    capacity: u64,
}

impl Arbiter {
    /// An arbiter of `resources`, each a name and how many units there are, with the default [`Ageing`] and a clock of
    /// its own.
    ///
    /// # Errors
    /// [`ArbiterError`]: a name twice, or too many resources.
    pub fn new<N: Into<Arc<str>>>(
        resources: impl IntoIterator<Item = (N, u64)>,
    ) -> Result<Self, ArbiterError> {
        Self::with_ageing(resources, Ageing::default(), Arc::new(SystemClock::new()))
    }

    /// As [`new`](Self::new), with a given ageing and the clock on which deadlines are.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_ageing<N: Into<Arc<str>>>(
        resources: impl IntoIterator<Item = (N, u64)>,
        ageing: Ageing,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ArbiterError> {
        let resources: Vec<Resource> =
            resources.into_iter().map(|(name, capacity)| Resource { name: name.into(), capacity }).collect();
        if resources.len() > RESOURCES_MAX {
            return Err(ArbiterError::TooManyResources { count: resources.len() });
        }
        let mut by_name = HashMap::new();
        for (resource, index) in resources.iter().zip(0..) {
            if by_name.insert(Arc::clone(&resource.name), ResourceId::new(index, 0)).is_some() {
                return Err(ArbiterError::DeclaredTwice { name: resource.name.to_string() });
            }
        }
        let state = Mutex::new(State::new(resources.iter().map(|resource| resource.capacity).collect()));
        Ok(Self { shared: Arc::new(Shared { resources, by_name, ageing, clock, state }) })
    }

    /// The resource called `name`.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<ResourceId> {
        self.shared.by_name.get(name).copied()
    }

    /// How many units of `resource` there are in all; `None` when it is not one of this arbiter.
    #[must_use]
    pub fn capacity(&self, resource: ResourceId) -> Option<u64> {
        self.shared.resources.get(resource.index() as usize).map(|resource| resource.capacity)
    }

    /// Grants the claim now, or returns `None` when it would have to wait.
    ///
    /// It would also have to wait when it fits, but a claim before it in the queue waits for the same units.
    ///
    /// # Errors
    /// [`ClaimError::ExceedsCapacity`], [`ClaimError::UnknownResource`], [`ClaimError::TooManyResources`]: the claim can
    /// never be granted.
    pub fn try_claim(&self, spec: &ClaimSpec) -> Result<Option<Grant>, ClaimError> {
        self.shared.check(spec)?;
        Ok(Shared::try_grant(&self.shared, &mut self.shared.lock(), spec, || self.shared.clock.now()))
    }

    /// Waits for the claim, as a future that works in any runtime. The place in the queue is taken at its first poll.
    ///
    /// ```
    /// # async fn admit(arbiter: &arbitration::Arbiter, spec: &arbitration::ClaimSpec)
    /// #     -> Result<(), arbitration::ClaimError> {
    /// let grant = arbiter.claim(spec).await?;
    /// // ... work with what was claimed ...
    /// drop(grant);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The future fails as [`try_claim`](Self::try_claim) does, or with [`ClaimError::TooManyWaiters`].
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the claim; a grant that was on its way goes to the next.
    pub fn claim(&self, spec: &ClaimSpec) -> Claiming {
        Claiming::new(Arc::clone(&self.shared), spec.clone())
    }

    /// Blocks this thread until the claim is granted, or `deadline` (a tick of the arbiter's clock) has passed.
    ///
    /// With a deadline that has passed already it is one try. [`Tick::NEVER`] waits without end.
    ///
    /// # Errors
    /// As [`claim`](Self::claim), or [`ClaimError::DeadlinePassed`].
    pub fn claim_wait(&self, spec: &ClaimSpec, deadline: Tick) -> Result<Grant, ClaimError> {
        block_until(self.claim(spec), deadline, &*self.shared.clock)
            .unwrap_or(Err(ClaimError::DeadlinePassed { deadline }))
    }

    /// Everything at one moment: resources, grants, and who waits, in order.
    ///
    /// # Concurrency
    /// Takes the arbiter's lock while it copies.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let resources = self.shared.resources.iter().map(|resource| (&resource.name, resource.capacity));
        Snapshot::of(resources, &self.shared.lock())
    }
}

impl fmt::Debug for Arbiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arbiter").field("resources", &self.snapshot().resources).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check(&self, spec: &ClaimSpec) -> Result<(), ClaimError> {
        if spec.names_too_many() {
            return Err(ClaimError::TooManyResources);
        }
        for (id, wanted) in spec.amounts() {
            let Some(Resource { name, capacity }) = self.resources.get(id.index() as usize) else {
                return Err(ClaimError::UnknownResource(id));
            };
            if wanted > *capacity {
                let resource = Arc::clone(name);
                return Err(ClaimError::ExceedsCapacity { resource, wanted, capacity: *capacity });
            }
        }
        Ok(())
    }

    /// `now` is asked for only when somebody waits.
    pub(crate) fn try_grant(
        self: &Arc<Self>,
        state: &mut State,
        spec: &ClaimSpec,
        now: impl FnOnce() -> Tick,
    ) -> Option<Grant> {
        let id = state.try_grant(spec, || self.ageing.rank(spec.priority(), now()))?;
        Some(Grant { id, shared: Arc::clone(self) })
    }

    pub(crate) const fn ageing(&self) -> Ageing {
        self.ageing
    }
}

/// What was claimed, held until this is dropped.
#[must_use = "a grant that is dropped gives back what was claimed"]
pub struct Grant {
    id: GrantId,
    shared: Arc<Shared>,
}

impl Grant {
    pub(crate) const fn new(id: GrantId, shared: Arc<Shared>) -> Self {
        Self { id, shared }
    }

    /// The grant's name in snapshots.
    #[must_use]
    pub const fn id(&self) -> GrantId {
        self.id
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut woken = Vec::new();
        self.shared.lock().release(self.id, &mut woken);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grant").field(&self.id).finish()
    }
}
