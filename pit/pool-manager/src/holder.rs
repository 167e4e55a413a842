//! Who holds leases, and what happens when it dies: everything it has ends at once, and is never given back again.
//!
//! A lease bears its holder's number in its slot's word, so that taking one and entering it into the holder's books is
//! one and the same compare-and-swap. A holder only keeps in mind at which models it ever asked; when it dies, the slots
//! of these are looked through.
//!
//! Taking a lease and dying at once is decided by the slot's word: whoever dies first notes that, then passes by every
//! slot with a change that changes nothing; whoever takes first changes the word, then looks for the note. Either the
//! taker comes before the passer, which finds the lease, or after it, and then sees the note.

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use pit_core::{
    slot::Word,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    unwind::Calls,
};

use crate::{cell::ModelCell, queue::Ticket};

/// One life of somebody who holds leases: a run, a session, an instance. Its successor is another holder, also under the
/// same name. A clone is another handle of the same holder.
///
/// Leases outlive the last handle, and are given back as those without a holder.
///
/// ```
/// use pool_manager::{Holder, PoolManager, Request};
///
/// let pools = PoolManager::new();
/// let model = pools.declare("operators", 1)?;
/// let holder = Holder::new("run:1@0");
/// let lease = pools.allocate(Request::new(model).held_by(&holder))?;
/// holder.retire();
/// assert_eq!(pools.state(model)?.leased, 0);
/// assert!(!lease.is_current());
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

/// Models that a holder is known at without a look at its ledger.
const KNOWN: usize = 16;

struct Shared {
    name: Box<str>,
    owner: u32,
    retired: AtomicBool,
    /// Addresses of models that stand in the ledger, so that the ledger need not be asked again.
    known: [AtomicU64; KNOWN],
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    is_retired: bool,
    /// INVARIANT: every model with a lease of this holder; empty when retired.
    models: Vec<Arc<ModelCell>>,
    /// INVARIANT: each place in a queue that this holder has taken and not left; empty when retired.
    waiting: Vec<(Arc<ModelCell>, Ticket)>,
}

impl Holder {
    /// A holder that has nothing yet. The name is for people.
    ///
    /// There may be 2^24 - 2 of them in the process; one more is retired from the beginning.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let owner = owners::take();
        let ledger = Ledger { is_retired: owner.is_none(), ..Ledger::default() };
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                owner: owner.unwrap_or_default(),
                retired: AtomicBool::new(owner.is_none()),
                known: std::array::from_fn(|_| AtomicU64::new(0)),
                ledger: Mutex::new(ledger),
            }),
        }
    }

    /// The name that it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// How many leases it has.
    #[must_use]
    pub fn leases(&self) -> u64 {
        let models = self.ledger().models.clone();
        models.iter().map(|cell| cell.leases_of(self.shared.owner)).sum()
    }

    /// Whether it was retired.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        // ORDERING(holder-end): Relaxed suffices here, in `retire` and in `is_still_there`: the slot's word orders the
        // note before a taker's look at it (see `Slot::pass_by`), and otherwise the note says all there is to know.
        self.shared.retired.load(Ordering::Relaxed)
    }

    /// Ends this holder: its leases end now and whoever waits in its name is refused. When its leases are dropped later,
    /// nothing happens; new ones it does not get.
    pub fn retire(&self) {
        let (models, waiting) = {
            let mut ledger = self.ledger();
            ledger.is_retired = true;
            (std::mem::take(&mut ledger.models), std::mem::take(&mut ledger.waiting))
        };
        // ORDERING(holder-end): Relaxed suffices, as above.
        self.shared.retired.store(true, Ordering::Relaxed);
        // First the places in queues, so that a lease that ends is not handed to its own dead holder.
        let mut calls = Calls::new();
        for (cell, ticket) in waiting {
            calls.call(|| cell.locked().refuse(ticket));
        }
        for cell in models {
            calls.call(|| cell.locked().revoke_owner(self.shared.owner));
        }
        calls.end();
    }

    /// The number to take a lease of `cell` under; `None` when the holder is retired.
    #[inline]
    pub(crate) fn enter(&self, cell: &Arc<ModelCell>) -> Option<u32> {
        let address = Arc::as_ptr(cell) as usize as u64;
        // ORDERING(holder-known): Relaxed suffices: the address says that the model was put into the ledger under the
        // ledger's lock, where a holder that retires afterwards finds it.
        if self.known(cell).load(Ordering::Relaxed) == address || self.enter_ledger(cell, address) {
            Some(self.shared.owner)
        } else {
            None
        }
    }

    #[cold]
    fn enter_ledger(&self, cell: &Arc<ModelCell>, address: u64) -> bool {
        let mut ledger = self.ledger();
        if ledger.is_retired {
            return false;
        }
        if !ledger.models.iter().any(|known| Arc::ptr_eq(known, cell)) {
            // INVARIANT: kept until the holder retires, so that the address means this model and no other.
            ledger.models.push(Arc::clone(cell));
        }
        // ORDERING(holder-known): Relaxed suffices, as above.
        self.known(cell).store(address, Ordering::Relaxed);
        true
    }

    fn known(&self, cell: &ModelCell) -> &AtomicU64 {
        &self.shared.known[cell.place() as usize % KNOWN]
    }

    /// Enters a place in a queue that was taken; false when the holder is retired, and must leave it.
    pub(crate) fn enter_waiting(&self, cell: &Arc<ModelCell>, ticket: Ticket) -> bool {
        let mut ledger = self.ledger();
        if !ledger.is_retired {
            ledger.waiting.push((Arc::clone(cell), ticket));
        }
        !ledger.is_retired
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

impl Drop for Shared {
    fn drop(&mut self) {
        if self.owner == 0 {
            return;
        }
        // The number goes to somebody else, who must not end the leases that are left.
        let models = self.ledger.get_mut().map(|ledger| std::mem::take(&mut ledger.models));
        for cell in models.unwrap_or_default() {
            cell.locked().disown(self.owner);
        }
        owners::give_back(self.owner);
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Holder").field(&self.name()).finish()
    }
}

/// Numbers of holders that fit a slot's word. One row for the process, since a holder belongs to no manager.
mod owners {
    // Not from the facade: a static, and nothing that a model varies.
    use std::sync::{Mutex, PoisonError};

    use super::Word;

    struct Owners {
        /// Numbers below this were given out.
        next: u32,
        free: Vec<u32>,
    }

    static OWNERS: Mutex<Owners> = Mutex::new(Owners { next: 1, free: Vec::new() });

    pub(super) fn take() -> Option<u32> {
        let mut owners = OWNERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = owners.free.pop() {
            return Some(owner);
        }
        // LIMIT: holders at once in the process.
        if owners.next == Word::OWNER_MAX {
            return None;
        }
        owners.next += 1;
        Some(owners.next - 1)
    }

    pub(super) fn give_back(owner: u32) {
        OWNERS.lock().unwrap_or_else(PoisonError::into_inner).free.push(owner);
    }
}
