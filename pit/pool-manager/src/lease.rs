//! A lease: the right to use a model once at a time, given back when it is dropped.
//!
//! It carries the epoch in which it was given, so that it can tell, and so that giving it back can tell, whether the
//! model is still the same.

use std::fmt;

use pit_core::sync::Arc;

use crate::{ModelId, cell::ModelCell, holder::Holder};

/// The right to use a model, until this is dropped.
///
/// # Concurrency
/// May be sent to and dropped on any thread. It keeps the model's place alive, not the model's declaration.
#[must_use = "a lease that is dropped is given back"]
pub struct Lease {
    cell: Arc<ModelCell>,
    epoch: u32,
    holder: Option<Holder>,
}

impl Lease {
    /// Makes a lease of one that was taken; gives it back and returns `None` when its holder was retired meanwhile.
    pub(crate) fn of_taken(cell: &Arc<ModelCell>, epoch: u32, holder: Option<&Holder>) -> Option<Self> {
        if let Some(holder) = holder
            && !holder.enter(cell, epoch)
        {
            cell.give_back(epoch);
            return None;
        }
        Some(Self { cell: Arc::clone(cell), epoch, holder: holder.cloned() })
    }

    /// The model, as it was declared when the lease was given.
    #[must_use]
    pub fn model(&self) -> ModelId {
        ModelId::new(self.cell.place(), self.epoch)
    }

    /// Whether the lease is still worth something: neither its model was retired or redeclared, nor its holder retired.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.cell.word().is_current(self.epoch) && !self.holder.as_ref().is_some_and(Holder::is_retired)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let is_own = self.holder.as_ref().is_none_or(|holder| holder.strike_out(&self.cell, self.epoch));
        if is_own {
            self.cell.give_back(self.epoch);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("model", &self.model()).field("holder", &self.holder).finish()
    }
}
