//! What an arbiter looks like at one moment, for people and for `why does this wait`.
//!
//! Copies, with nothing of the arbiter kept.

use std::sync::Arc;

use pit_core::{clock::Tick, priority::Priority};

use crate::{
    claim::{GrantId, OwnerId, ResourceId},
    grants::Notice,
    state::State,
};

/// Resources, grants and waiting claims of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// In the order in which they were declared; the place is the [`ResourceId`]'s index.
    pub resources: Vec<ResourceView>,
    /// What is held. Claims that are granted but not yet fetched are among them.
    pub grants: Vec<GrantView>,
    /// Who waits, the next to be served first; extensions before all others.
    pub waiters: Vec<WaiterView>,
    /// Under fairness between owners: who holds something, and the largest part that it holds of any resource.
    pub shares: Vec<(OwnerId, f64)>,
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
    /// The how-manieth claim it was: of two holders the one with the smaller number is the older. Grants that were claimed
    /// beside each other have one number.
    pub number: u64,
    /// By when it is to be given back, if it was told so.
    pub notice: Option<Notice>,
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
    /// The grant that it extends, or beside which it claims; a claim of its own extends none.
    pub extends: Option<GrantId>,
}

impl Snapshot {
    pub(crate) fn of<'a>(resources: impl Iterator<Item = (&'a Arc<str>, u64)>, state: &State) -> Self {
        let resources = resources.zip(&state.free).map(|((name, capacity), free)| ResourceView {
            name: Arc::clone(name),
            capacity,
            free: *free,
        });
        let grants = state.grants.iter().map(|(id, held)| GrantView {
            id,
            owner: held.owner,
            priority: held.priority,
            amounts: held.amounts.iter().collect(),
            number: held.born,
            notice: state.grants.notice(id),
        });
        let extensions = state.growing.values().filter_map(|growing| {
            let held = state.grants.get(growing.grant)?;
            Some(WaiterView {
                owner: held.owner,
                priority: held.priority,
                amounts: growing.amounts.iter().collect(),
                since: growing.since,
                extends: Some(growing.grant),
            })
        });
        let mut waiters: Vec<WaiterView> = extensions.collect();
        state.each_waiting(|waiter| {
            waiters.push(WaiterView {
                owner: waiter.owner,
                priority: waiter.priority,
                amounts: waiter.amounts.iter().collect(),
                since: waiter.since,
                extends: None,
            });
        });
        Self {
            resources: resources.collect(),
            grants: grants.collect(),
            waiters,
            shares: state.accounts.iter().flat_map(|accounts| accounts.shares()).collect(),
        }
    }
}
