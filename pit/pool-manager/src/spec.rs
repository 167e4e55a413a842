//! What a model is declared to be: how many instances, how many leases of each, what memory, what rest after which error.

use std::{fmt, sync::Arc, time::Duration};

use pit_core::limit::Limit;

use crate::loader::Loader;

/// LIMIT: instances of one model.
pub const INSTANCES: Limit = Limit { name: "instances of a model", min: 1, max: 4_096 };

/// LIMIT: leases of one model at once, over all its instances: each needs a slot.
pub const CAPACITY: Limit = Limit { name: "leases of a model at once", min: 1, max: 1_000_000 };

/// What kind of failure it was. Each has its own time of rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// It asked to be left alone for a while.
    Overloaded,
    /// It could not be reached, or broke down.
    Unavailable,
    /// It answered, and the answer was wrong.
    Faulty,
    /// It could not be loaded.
    NotLoaded,
}

/// What an instance takes of the memory budget.
///
/// Whichever is more is reserved while it is loaded, so that there is enough for both; from then on what it takes in use,
/// until [`PoolManager::set_memory_in_use`](crate::PoolManager::set_memory_in_use) says another amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that it takes at most from the beginning of loading to its end.
    pub at_load_bytes: u64,
    /// Bytes from then on.
    pub in_use_bytes: u64,
}

impl Memory {
    /// What must be free before an instance is begun to be loaded.
    pub(crate) fn peak_bytes(self) -> u64 {
        self.at_load_bytes.max(self.in_use_bytes)
    }
}

/// How a model is declared. A number alone is one instance that is always there and gives so many leases at once.
///
/// ```
/// use std::time::Duration;
/// use pool_manager::{ErrorClass, ModelSpec};
///
/// let spec = ModelSpec::new(4)
///     .with_concurrency(16)
///     .with_cool_down(ErrorClass::Overloaded, Duration::from_secs(30))
///     .with_lease_time_max(Duration::from_secs(600));
/// assert_eq!(spec.capacity(), 64);
/// ```
#[derive(Clone)]
pub struct ModelSpec {
    pub(crate) instances: u32,
    pub(crate) concurrency: u32,
    pub(crate) memory: Memory,
    pub(crate) is_pinned: bool,
    pub(crate) idle: Option<Duration>,
    pub(crate) lease_time_max: Option<Duration>,
    pub(crate) cool_downs: [Duration; 4],
    pub(crate) loader: Option<Arc<dyn Loader>>,
}

impl ModelSpec {
    /// Up to `instances` of it, one lease of each at once, always loaded, without rest after failures.
    #[must_use]
    pub const fn new(instances: u32) -> Self {
        Self {
            instances,
            concurrency: 1,
            memory: Memory { at_load_bytes: 0, in_use_bytes: 0 },
            is_pinned: false,
            idle: None,
            lease_time_max: None,
            cool_downs: [Duration::ZERO; 4],
            loader: None,
        }
    }

    /// So many leases of each instance at once.
    #[must_use]
    pub const fn with_concurrency(mut self, concurrency: u32) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Instances are loaded when they are asked for, by `loader`, which takes `memory`.
    #[must_use]
    pub fn loaded_by(mut self, loader: Arc<dyn Loader>, memory: Memory) -> Self {
        self.loader = Some(loader);
        self.memory = memory;
        self
    }

    /// What is loaded stays loaded: neither idleness nor others' want of memory unloads it.
    #[must_use]
    pub const fn pinned(mut self) -> Self {
        self.is_pinned = true;
        self
    }

    /// An instance that is not used for so long is unloaded, if somebody watches (see
    /// [`IdleWatch`](crate::IdleWatch)).
    #[must_use]
    pub const fn with_idle_time(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// An instance that has failed in this way is left alone for so long.
    #[must_use]
    pub const fn with_cool_down(mut self, class: ErrorClass, rest: Duration) -> Self {
        self.cool_downs[class as usize] = rest;
        self
    }

    /// A lease ends by itself after so long; with no time at all it is over before it can be used. This costs every lease of the model a lock and a clock read.
    #[must_use]
    pub const fn with_lease_time_max(mut self, time: Duration) -> Self {
        self.lease_time_max = Some(time);
        self
    }

    /// Leases at once.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.instances.saturating_mul(self.concurrency)
    }

    pub(crate) const fn cool_down(&self, class: ErrorClass) -> Duration {
        self.cool_downs[class as usize]
    }

    /// The first limit that this does not keep, and the value that is beyond it.
    pub(crate) fn beyond(&self) -> Option<(Limit, u64)> {
        let (instances, concurrency) = (u64::from(self.instances), u64::from(self.concurrency));
        [(INSTANCES, instances), (CAPACITY, instances.saturating_mul(concurrency))]
            .into_iter()
            .find(|(limit, value)| !limit.admits(*value))
    }
}

impl From<u32> for ModelSpec {
    fn from(capacity: u32) -> Self {
        Self::new(1).with_concurrency(capacity)
    }
}

impl fmt::Debug for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSpec")
            .field("instances", &self.instances)
            .field("concurrency", &self.concurrency)
            .field("memory", &self.memory)
            .field("is_pinned", &self.is_pinned)
            .finish_non_exhaustive()
    }
}
