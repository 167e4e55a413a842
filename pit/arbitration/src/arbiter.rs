//! The arbiter: the bookkeeping behind one mutex, and what can be asked of it.
//!
//! The mutex is the plain version that a cleverer one has to beat: a claim touches several counters at once and must see
//! the whole queue, and the lock is held for tens of nanoseconds. It is parking_lot's, which hands that short a lock from
//! core to core in less than half the time that the standard library's takes. Wakers are foreign code and run outside it.

use std::{collections::HashMap, fmt, sync::Arc, task::Waker, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use pit_core::clock::{Clock, SystemClock, Tick};

use crate::{
    claim::{Amounts, CLAIM_RESOURCES_MAX, ClaimSpec, GrantId, ResourceId},
    grant::Grant,
    grants::{Notice, Reason},
    policy::Policy,
    snapshot::Snapshot,
    state::{State, Wanted},
    wait::{Claiming, EarlierDeadline, wait},
    wakers::wake_all,
};

/// LIMIT: resources of one arbiter. Every look at the queue copies one number for each.
pub const RESOURCES_MAX: usize = 256;

/// LIMIT: claims and extensions that wait at one arbiter. A release may have to look at each of them, so that a longer
/// queue would make every release slow; who is refused here must hold back its own work.
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
    /// More than there is when nobody else holds anything: no waiting would help. Claim less. The whole of a resource that
    /// has no units counts as one.
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
    /// The grant that was to be extended has been told to give back, or another one that its holder claimed beside it. Give
    /// it back, and claim again.
    #[error("the grant is to be given back by {:?}", .0.by)]
    Told(Notice),
    /// The grant that was to be extended has been revoked, because it was not given back in time. Claim again.
    #[error("the grant was revoked")]
    Revoked,
}

/// How an arbiter arbitrates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Who goes first.
    pub policy: Policy,
    /// How long a holder has to give back what an older holder waits for.
    pub wound_notice: Duration,
}

impl Default for Options {
    /// Strict priority with ageing; 100 ms of notice.
    fn default() -> Self {
        Self { policy: Policy::default(), wound_notice: Duration::from_millis(100) }
    }
}

/// Grants claims on a fixed set of counted resources. A clone is another handle of the same arbiter.
///
/// # Concurrency
/// All methods may be called from any thread. Grants and waiting claims keep the arbiter alive. There is no thread inside:
/// where holders are told to give back, somebody has to see that the time of those who do not runs out, and that a claim
/// that may preempt becomes more urgent. Those who wait by blocking do; beside them, sleep until
/// [`next_deadline`](Self::next_deadline), or until there is [an earlier one](Self::earlier_deadline), and call
/// [`revoke_due`](Self::revoke_due).
#[derive(Clone)]
pub struct Arbiter {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    resources: Vec<Resource>,
    by_name: HashMap<Arc<str>, ResourceId>,
    pub(crate) clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct Resource {
    name: Arc<str>,
    capacity: u64,
}

impl Arbiter {
    /// An arbiter of `resources`, each a name and how many units there are, with the default [`Options`] and a clock of
    /// its own.
    ///
    /// # Errors
    /// [`ArbiterError`]: a name twice, or too many resources.
    pub fn new<N: Into<Arc<str>>>(
        resources: impl IntoIterator<Item = (N, u64)>,
    ) -> Result<Self, ArbiterError> {
        Self::with_options(resources, Options::default(), Arc::new(SystemClock::new()))
    }

    /// As [`new`](Self::new), with a given policy and the clock on which deadlines are.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options<N: Into<Arc<str>>>(
        resources: impl IntoIterator<Item = (N, u64)>,
        options: Options,
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
        let capacities = resources.iter().map(|resource| resource.capacity).collect();
        let state = Mutex::new(State::new(capacities, options.policy, options.wound_notice));
        Ok(Self { shared: Arc::new(Shared { resources, by_name, clock, state }) })
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
        let shared = &self.shared;
        let mut resolved = None;
        let wanted = Wanted::of(spec, shared.check(spec, &mut resolved)?);
        let alone = shared.lock().try_alone(wanted);
        let id =
            alone.or_else(|| shared.change(|state, now, woken| state.try_among_others(wanted, now, woken)));
        Ok(id.map(|id| Grant::new(id, Arc::clone(shared))))
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
        wait(&self.shared, self.claim(spec), deadline)
    }

    /// Tells a holder to give back within `notice`, whatever it holds it for. False when the grant is not valid any more.
    ///
    /// Who was told already has the earlier of the two deadlines.
    pub fn preempt(&self, grant: GrantId, notice: Duration) -> bool {
        self.shared.change(|state, now, woken| {
            let is_valid = state.grants.get(grant).is_some();
            let notice = Notice { by: now.after(notice), reason: Reason::Asked };
            if state.tell(grant, notice, woken) {
                state.serve(None, now, woken);
            }
            is_valid
        })
    }

    /// Whether the grant is held: neither given back nor revoked.
    #[must_use]
    pub fn is_valid(&self, grant: GrantId) -> bool {
        self.shared.lock().grants.get(grant).is_some()
    }

    /// When there is something to do for [`revoke_due`](Self::revoke_due): the time of a holder that was told to give back
    /// runs out, or a claim that may preempt has waited so long that it is more urgent than one more holder. `None` when
    /// there is nothing to wait for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.shared.next_deadline()
    }

    /// Waits until [`next_deadline`](Self::next_deadline) is earlier than `than`; it is the future's output. For who sleeps
    /// until then: a notice that is given meanwhile may be due before.
    pub fn earlier_deadline(&self, than: Tick) -> EarlierDeadline<'_> {
        EarlierDeadline::new(&self.shared, than)
    }

    /// Revokes the grants whose time to be given back has run out, and serves those who wait with what they held. How many
    /// grants that were. Tells those holders who have become less urgent than a claim that waits and may preempt.
    ///
    /// The holders go on holding a [`Grant`] that is worth nothing: [`Grant::is_valid`] says so, and dropping it does
    /// nothing.
    pub fn revoke_due(&self) -> usize {
        self.shared.revoke_due()
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
        self.state.lock()
    }

    /// Changes something at the present moment, and wakes whom it concerns.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut State, Tick, &mut Vec<Waker>) -> R) -> R {
        let now = self.clock.now();
        let mut woken = Vec::new();
        let mut state = self.lock();
        let result = change(&mut state, now, &mut woken);
        state.conclude(now, &mut woken);
        drop(state);
        wake_all(woken);
        result
    }

    pub(crate) fn release(&self, grant: GrantId) {
        let mut woken = Vec::new();
        let mut state = self.lock();
        let needs_time = state.needs_time();
        let now = if needs_time { self.clock.now() } else { Tick::ZERO };
        state.release(grant, now, &mut woken);
        if needs_time {
            state.conclude(now, &mut woken);
        }
        drop(state);
        if !woken.is_empty() {
            wake_all(woken);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        self.lock().next_deadline()
    }

    pub(crate) fn revoke_due(&self) -> usize {
        self.change(|state, now, woken| state.revoke_due(now, woken))
    }

    /// The amounts of a claim that can be granted some time; `resolved` is where they are kept if they are not the ones
    /// that stand in it.
    #[inline]
    pub(crate) fn check<'s>(
        &self,
        spec: &'s ClaimSpec,
        resolved: &'s mut Option<Amounts>,
    ) -> Result<&'s Amounts, ClaimError> {
        if spec.names_too_many() {
            return Err(ClaimError::TooManyResources);
        }
        let mut amounts = spec.inline_amounts();
        if spec.has_whole() {
            // The whole of nothing would be granted to any number of them.
            amounts = resolved.insert(amounts.resolved(|place| self.capacity(place).max(1)));
        }
        for (place, wanted) in amounts.places() {
            if self.resources.get(place).is_none_or(|resource| wanted > resource.capacity) {
                return Err(self.refusal(place, wanted));
            }
        }
        Ok(amounts)
    }

    /// The amounts of a claim of which all resources are known. How much can be had is to be seen beside what is held.
    pub(crate) fn check_names<'s>(&self, spec: &'s ClaimSpec) -> Result<&'s Amounts, ClaimError> {
        let amounts = spec.inline_amounts();
        if spec.names_too_many() {
            return Err(ClaimError::TooManyResources);
        }
        match amounts.places().find(|(place, _)| *place >= self.resources.len()) {
            Some((place, units)) => Err(self.refusal(place, units)),
            None => Ok(amounts),
        }
    }

    pub(crate) fn capacity(&self, place: usize) -> u64 {
        self.resources.get(place).map_or(0, |resource| resource.capacity)
    }

    /// Why `wanted` units of the resource in `place` can never be had.
    #[cold]
    pub(crate) fn refusal(&self, place: usize, wanted: u64) -> ClaimError {
        match self.resources.get(place) {
            Some(Resource { name, capacity }) => {
                let resource = Arc::clone(name);
                ClaimError::ExceedsCapacity { resource, wanted, capacity: *capacity }
            }
            None => ClaimError::UnknownResource(ResourceId::new(u32::try_from(place).unwrap_or(u32::MAX), 0)),
        }
    }
}
