//! Memory that loaded instances may take, what is taken, and who stands in line for some.
//!
//! ```text
//!  free --reserve: the most it takes until it is loaded--> loading --loaded: what it takes in use--> in use --+
//!    ^                                                        | failed                  grows, shrinks ^--+   |
//!    +--------------------------------------------------------+------------- leaving <------------------------+
//! ```
//!
//! A reservation is an object, held by whoever has the memory: the load, the instance, the unloading. So what a model
//! that was retired still loads, or what is still being let go of, counts until it is gone.
//!
//! INVARIANT: the bytes of all reservations are at most the budget.
//!
//! The line is let in by one thread at a time, in its order; whoever frees memory meanwhile says so and goes on.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, Weak},
};

use pit_core::sync::{Mutex, MutexGuard};

use crate::{cell::ModelCell, shared::Core};

pub(crate) struct Budget {
    bytes: u64,
    state: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    bytes: u64,
    /// Those of them that come back without anybody's doing: what is being unloaded.
    leaving_bytes: u64,
    wanting: VecDeque<Weak<ModelCell>>,
    /// So many are letting the line in, or keep it from coming in.
    pauses: u32,
    /// Something was freed meanwhile.
    is_due: bool,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, state: Mutex::default() }
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Whether `bytes` fit, now or when what is being unloaded is gone.
    pub(crate) fn will_have_room(&self, bytes: u64) -> bool {
        let used = self.lock();
        (used.bytes - used.leaving_bytes).saturating_add(bytes) <= self.bytes
    }

    fn take(&self, bytes: u64, may_overtake: bool) -> bool {
        let mut used = self.lock();
        let sum = used.bytes.saturating_add(bytes);
        let fits = sum <= self.bytes && (may_overtake || used.wanting.is_empty());
        if fits {
            used.bytes = sum;
        }
        fits
    }

    fn give_back(&self, bytes: u64, leaving_bytes: u64) {
        let mut used = self.lock();
        used.bytes -= bytes;
        used.leaving_bytes -= leaving_bytes;
    }

    /// Takes the last place in the line of those who want memory.
    pub(crate) fn want(&self, cell: Weak<ModelCell>) {
        self.lock().wanting.push_back(cell);
    }

    /// Who is first in the line, and stays there until [`first_is_in`](Self::first_is_in).
    pub(crate) fn first_wanting(&self) -> Option<Arc<ModelCell>> {
        let wanting = &mut self.lock().wanting;
        while let Some(first) = wanting.front() {
            let cell = first.upgrade();
            if cell.is_some() {
                return cell;
            }
            wanting.pop_front();
        }
        None
    }

    /// Whoever was first leaves the line. For who lets it in.
    pub(crate) fn first_is_in(&self) {
        self.lock().wanting.pop_front();
    }

    /// Keeps the line from coming in until this is dropped.
    pub(crate) fn pause(&self) -> Pause<'_> {
        self.lock().pauses += 1;
        Pause { budget: self }
    }

    /// The right to let the line in; `None` when somebody else has it, who is told to look again.
    pub(crate) fn admitting(&self) -> Option<Pause<'_>> {
        let mut used = self.lock();
        if used.pauses > 0 {
            used.is_due = true;
            return None;
        }
        used.pauses = 1;
        used.is_due = false;
        Some(Pause { budget: self })
    }

    /// Whether nobody lets the line in, and somebody should.
    pub(crate) fn is_due(&self) -> bool {
        let used = self.lock();
        used.is_due && used.pauses == 0
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Budget::pause`] and [`Budget::admitting`]. Who drops it looks whether the line [is due](Budget::is_due).
pub(crate) struct Pause<'b> {
    budget: &'b Budget,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.budget.lock().pauses -= 1;
    }
}

/// So many bytes of the budget, given back when this is dropped. Nobody is let in then: see
/// [`is_anything`](Self::is_anything).
#[derive(Default)]
pub(crate) struct Reserved {
    /// Of no more use than the manager.
    core: Weak<Core>,
    bytes: u64,
    is_leaving: bool,
}

impl Reserved {
    /// `bytes`, if they fit, and unless somebody stands in line who must not be overtaken.
    pub(crate) fn new(core: &Arc<Core>, bytes: u64, may_overtake: bool) -> Option<Self> {
        let is_taken = bytes == 0 || core.budget.take(bytes, may_overtake);
        is_taken.then(|| Self { core: Arc::downgrade(core), bytes, is_leaving: false })
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether somebody else can have something when this is dropped, and where.
    pub(crate) fn is_anything(&self) -> Option<Arc<Core>> {
        self.core.upgrade().filter(|_| self.bytes > 0)
    }

    /// Makes it another amount. More may not be had, and then everything is as before; nobody stands before one who has
    /// memory already and needs more to come to an end.
    pub(crate) fn resize(&mut self, bytes: u64) -> bool {
        debug_assert!(!self.is_leaving, "what is unloaded does not grow");
        if let Some(core) = self.core.upgrade() {
            if bytes < self.bytes {
                core.budget.give_back(self.bytes - bytes, 0);
            } else if !core.budget.take(bytes - self.bytes, true) {
                return false;
            }
        }
        self.bytes = bytes;
        true
    }

    /// It is being let go of.
    pub(crate) fn leaving(mut self) -> Self {
        if let Some(core) = self.core.upgrade() {
            core.budget.lock().leaving_bytes += self.bytes;
            self.is_leaving = true;
        }
        self
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(core) = self.is_anything() {
            core.budget.give_back(self.bytes, if self.is_leaving { self.bytes } else { 0 });
        }
    }
}
