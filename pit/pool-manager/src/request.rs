//! What is asked for: a lease of which model, how urgently, in whose name.

use pit_core::{clock::Tick, priority::Priority};

use crate::{ModelId, holder::Holder};

/// A lease to be allocated. A [`ModelId`] alone is a request of normal priority without a holder or a deadline.
#[derive(Clone, Copy, Debug)]
pub struct Request<'h> {
    pub(crate) model: ModelId,
    pub(crate) priority: Priority,
    pub(crate) holder: Option<&'h Holder>,
    pub(crate) deadline: Tick,
}

impl<'h> Request<'h> {
    /// A lease of `model`, of normal priority, without a holder or a deadline.
    #[must_use]
    pub const fn new(model: ModelId) -> Self {
        Self { model, priority: Priority::NORMAL, holder: None, deadline: Tick::NEVER }
    }

    /// Of this priority. It counts among those who wait; who does not wait gets what is free or nothing.
    #[must_use]
    pub const fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// In the name of `holder`: the lease ends with it.
    #[must_use]
    pub const fn held_by(mut self, holder: &'h Holder) -> Self {
        self.holder = Some(holder);
        self
    }

    /// Of no use after `deadline`, a tick of the manager's clock. A future that waits does not wake up at it (its
    /// runtime has timers for that), but fails at once when every instance rests for longer.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Tick) -> Self {
        self.deadline = deadline;
        self
    }
}

impl From<ModelId> for Request<'_> {
    fn from(model: ModelId) -> Self {
        Self::new(model)
    }
}
