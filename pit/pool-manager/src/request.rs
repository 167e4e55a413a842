//! What is asked for: a lease of which model, how urgently, in whose name.

use pit_core::priority::Priority;

use crate::{ModelId, holder::Holder};

/// A lease to be allocated. A [`ModelId`] alone is a request of normal priority without a holder.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) model: ModelId,
    pub(crate) priority: Priority,
    pub(crate) holder: Option<Holder>,
}

impl Request {
    /// A lease of `model`, of normal priority, without a holder.
    #[must_use]
    pub const fn new(model: ModelId) -> Self {
        Self { model, priority: Priority::NORMAL, holder: None }
    }

    /// Of this priority. It counts among those who wait; who does not wait gets what is free or nothing.
    #[must_use]
    pub const fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// In the name of `holder`: the lease ends with it.
    #[must_use]
    pub fn held_by(mut self, holder: &Holder) -> Self {
        self.holder = Some(holder.clone());
        self
    }
}

impl From<ModelId> for Request {
    fn from(model: ModelId) -> Self {
        Self::new(model)
    }
}
