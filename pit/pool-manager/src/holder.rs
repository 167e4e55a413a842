//! Who holds leases, and what happens when it dies: everything it has is given back at once, and never again.
//!
//! A holder's ledger says what it has and where it waits. It lies behind a lock of its own that only the holder's own
//! leases take. No model's lock is ever taken while a ledger's is held, nor the other way round.

use std::{fmt, sync::PoisonError};

use pit_core::sync::{Arc, Mutex, MutexGuard};

use crate::{
    cell::ModelCell,
    queue::{Settled, Ticket},
};

/// One life of somebody who holds leases: a run, a session, an instance. Its successor is another holder, also under the
/// same name. A clone is another handle of the same holder.
///
/// ```
/// use pool_manager::{AllocateError, Holder, PoolManager, Request};
///
/// let pools = PoolManager::new();
/// let model = pools.declare("operators", 1)?;
/// let holder = Holder::new("run:1@0");
/// let lease = pools.allocate(Request::new(model).held_by(&holder))?;
/// holder.retire();
/// assert_eq!(pools.state(model)?.leased, 0);
///
/// let successor = pools.allocate(model)?;
/// drop(lease);
/// assert_eq!(pools.state(model)?.leased, 1, "the late return changes nothing");
/// # drop(successor);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Holder {
    shared: Arc<Shared>,
}

struct Shared {
    name: Box<str>,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    retired: bool,
    /// INVARIANT: counts every lease of this holder that is not given back; empty when retired.
    held: Vec<Held>,
    /// INVARIANT: each place in a queue that this holder has taken and not left; empty when retired.
    waiting: Vec<(Arc<ModelCell>, Ticket)>,
}

struct Held {
    cell: Arc<ModelCell>,
    epoch: u32,
    count: u32,
}

impl Held {
    fn is(&self, cell: &Arc<ModelCell>, epoch: u32) -> bool {
        Arc::ptr_eq(&self.cell, cell) && self.epoch == epoch
    }
}

impl Holder {
    /// A holder that has nothing yet. The name is for people.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let ledger = Mutex::new(Ledger::default());
        Self { shared: Arc::new(Shared { name: name.into(), ledger }) }
    }

    /// The name that it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// How many leases it has.
    #[must_use]
    pub fn leases(&self) -> u64 {
        self.ledger().held.iter().map(|held| u64::from(held.count)).sum()
    }

    /// Whether it was retired.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.ledger().retired
    }

    /// Ends this holder: its leases are given back now and whoever waits in its name is refused. When its leases are
    /// dropped later, nothing happens; new ones it does not get.
    pub fn retire(&self) {
        let (held, waiting) = {
            let mut ledger = self.ledger();
            ledger.retired = true;
            (std::mem::take(&mut ledger.held), std::mem::take(&mut ledger.waiting))
        };
        // First the places in queues, so that a lease that is given back is not handed to its own dead holder.
        for (cell, ticket) in waiting {
            cell.refuse(ticket, Settled::HolderRetired);
        }
        for Held { cell, epoch, count } in held {
            (0..count).for_each(|_| cell.give_back(epoch));
        }
    }

    /// Enters a lease that was taken; false when the holder is retired, and the lease is not its own.
    pub(crate) fn enter(&self, cell: &Arc<ModelCell>, epoch: u32) -> bool {
        let mut ledger = self.ledger();
        if ledger.retired {
            return false;
        }
        match ledger.held.iter_mut().find(|held| held.is(cell, epoch)) {
            Some(held) => held.count += 1,
            None => ledger.held.push(Held { cell: Arc::clone(cell), epoch, count: 1 }),
        }
        true
    }

    /// Strikes a lease out; false when the holder was retired, and the lease has been given back already.
    pub(crate) fn strike_out(&self, cell: &Arc<ModelCell>, epoch: u32) -> bool {
        let mut ledger = self.ledger();
        if ledger.retired {
            return false;
        }
        let place = ledger.held.iter().position(|held| held.is(cell, epoch));
        debug_assert!(place.is_some(), "a lease is struck out once");
        if let Some(place) = place {
            ledger.held[place].count -= 1;
            if ledger.held[place].count == 0 {
                ledger.held.swap_remove(place);
            }
        }
        true
    }

    /// Enters a place in a queue that was taken; false when the holder is retired, and must leave it.
    pub(crate) fn enter_waiting(&self, cell: &Arc<ModelCell>, ticket: Ticket) -> bool {
        let mut ledger = self.ledger();
        if !ledger.retired {
            ledger.waiting.push((Arc::clone(cell), ticket));
        }
        !ledger.retired
    }

    /// Strikes a place in a queue out.
    pub(crate) fn strike_out_waiting(&self, cell: &Arc<ModelCell>, ticket: Ticket) {
        self.ledger().waiting.retain(|(other, waiting)| !(*waiting == ticket && Arc::ptr_eq(other, cell)));
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Holder").field(&self.name()).finish()
    }
}
