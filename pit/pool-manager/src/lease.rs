//! A lease: the right to use a model once at a time, given back when it is dropped.
//!
//! It carries the word that its slot had when it was given. Whatever ends a lease before its time changes the
//! generation in that word; so the lease can tell, and giving it back late changes nothing.

use std::fmt;

use crate::{InstanceId, ModelId, slot::Slot, spec::ErrorClass, word::SlotWord};

/// The right to use a model, until this is dropped.
///
/// # Concurrency
/// May be sent to and dropped on any thread.
#[must_use = "a lease that is dropped is given back"]
pub struct Lease {
    slot: &'static Slot,
    /// INVARIANT: held and not guarded, so that giving back without the lock fails while the slot is guarded.
    held: SlotWord,
    model: ModelId,
}

impl Lease {
    #[inline]
    pub(crate) const fn new(slot: &'static Slot, held: SlotWord, model: ModelId) -> Self {
        Self { slot, held: held.unguarded(), model }
    }

    /// The model, as it was declared when the lease was given.
    #[must_use]
    pub const fn model(&self) -> ModelId {
        self.model
    }

    /// The instance that is to be used.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        let (index, epoch) = self.slot.instance();
        InstanceId::new(index, epoch)
    }

    /// Whether the lease is still worth something: neither its model was retired or redeclared, nor did its instance or
    /// its holder end, nor is its time over. One that was given no time never is.
    ///
    /// A lease with a maximum time looks at the manager's clock.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.has_slot() && !self.slot.is_out_of_time()
    }

    /// Whether nobody has ended it yet; its time may be over all the same.
    fn has_slot(&self) -> bool {
        self.slot.peek().epoch() == self.held.epoch()
    }

    /// Gives the lease back and says that the instance has failed: it rests as long as the model's declaration says for
    /// this class. Other leases of the instance go on; nobody gets a new one meanwhile. Nothing happens when the lease is
    /// worth nothing any more.
    pub fn fail(self, class: ErrorClass) {
        if let Some(cell) = self.slot.cell()
            && self.is_current()
        {
            cell.locked().rest(self.instance(), class);
        }
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        if !self.slot.give_back(self.held) && self.has_slot() {
            give_back_under_lock(self.slot, self.held);
        }
    }
}

#[cold]
fn give_back_under_lock(slot: &Slot, held: SlotWord) {
    if let Some(cell) = slot.cell() {
        cell.locked().give_back(slot, held);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("model", &self.model).field("instance", &self.instance()).finish()
    }
}
