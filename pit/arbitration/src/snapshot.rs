//! What an arbiter looks like at one moment, for people and for `why does this wait`.
//!
//! Copies, with nothing of the arbiter kept.

use std::sync::Arc;

use pit_core::{clock::Tick, priority::Priority};

use crate::{
    claim::{GrantId, OwnerId, ResourceId},
    state::State,
};

/// Resources, grants and waiting claims of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// In the order in which they were declared; the place is the [`ResourceId`]'s index.
    pub resources: Vec<ResourceView>,
    /// What is held. Claims that are granted but not yet fetched are among them.
    pub grants: Vec<GrantView>,
    /// Who waits, the next to be served first.
    pub waiters: Vec<WaiterView>,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceView {
    /// Its name.
    pub name: Arc<str>,
    /// Units that there are.
    pub capacity: u64,
    /// Units that nobody holds.
    pub free: u64,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantView {
    /// Its name.
    pub id: GrantId,
    /// Who it is for.
    pub owner: OwnerId,
    /// How urgent its claim was.
    pub priority: Priority,
    /// What it holds: resources and units.
    pub amounts: Vec<(ResourceId, u64)>,
}

/// A claim that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiterView {
    /// Who it is for.
    pub owner: OwnerId,
    /// How urgent it is, without what it gained by waiting.
    pub priority: Priority,
    /// What it wants: resources and units.
    pub amounts: Vec<(ResourceId, u64)>,
    /// Since when it waits.
    pub since: Tick,
}

impl Snapshot {
    pub(crate) fn of<'a>(resources: impl Iterator<Item = (&'a Arc<str>, u64)>, state: &State) -> Self {
        let resources = resources.zip(state.free()).map(|((name, capacity), free)| ResourceView {
            name: Arc::clone(name),
            capacity,
            free: *free,
        });
        let grants = state.grants().map(|(id, held)| GrantView {
            id,
            owner: held.owner,
            priority: held.priority,
            amounts: held.amounts.iter().collect(),
        });
        let waiters = state.waiters().map(|waiter| WaiterView {
            owner: waiter.owner,
            priority: waiter.priority,
            amounts: waiter.amounts.iter().collect(),
            since: waiter.since,
        });
        Self { resources: resources.collect(), grants: grants.collect(), waiters: waiters.collect() }
    }
}
