//! An owner that notes what it was asked and does something in the middle of it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use pit_core::clock::Tick;
use stale_manager::{Budget, Evict, Eviction, OwnerId, StaleManager, ThingId};

type Act = Box<dyn FnMut(u64) + Send>;

/// Lets go of everything but what is `busy`.
#[derive(Default)]
pub(crate) struct Owner {
    pub(crate) asked: Mutex<Vec<u64>>,
    pub(crate) busy: Mutex<BTreeSet<u64>>,
    pub(crate) meanwhile: Mutex<Option<Act>>,
}

impl Owner {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// What it was asked since the last time.
    pub(crate) fn take_asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Evict for Owner {
    fn evict(&self, key: u64) -> Eviction {
        self.asked.lock().unwrap().push(key);
        if let Some(act) = &mut *self.meanwhile.lock().unwrap() {
            act(key);
        }
        if self.busy.lock().unwrap().contains(&key) { Eviction::Refused } else { Eviction::Evicted }
    }
}

pub(crate) fn at(ms: u64) -> Tick {
    Tick::ZERO.after(Duration::from_millis(ms))
}

pub(crate) fn register(stale: &StaleManager, owner: OwnerId, key: u64, ttl_ms: u64, now: Tick) -> ThingId {
    stale.register(owner, key, Duration::from_millis(ttl_ms), now).unwrap()
}

/// A manager with one owner.
pub(crate) fn manager() -> (StaleManager, Arc<Owner>, OwnerId) {
    let (stale, owner) = (StaleManager::new(), Owner::new());
    let id = stale.add_owner(&owner).unwrap();
    (stale, owner, id)
}

/// All slices of a sweep.
pub(crate) fn sweep(stale: &StaleManager, now: Tick, budget: Budget) -> (u32, u32) {
    let (mut evicted, mut refused) = (0, 0);
    loop {
        let swept = stale.sweep(now, budget);
        evicted += swept.evicted;
        refused += swept.refused;
        if !swept.is_unfinished {
            return (evicted, refused);
        }
    }
}
