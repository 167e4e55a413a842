//! What everybody may read of a run while its owner goes on: states, tallies, causes.
//!
//! The owner publishes each change by one store of a state word; a reader loads words and takes no lock. It knows the
//! states but not how they come about.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use pit_core::sync::atomic::{AtomicU8, Ordering};

use crate::{
    budget::RetryClass,
    error::TaskError,
    graph::{Graph, StepId},
    items::Items,
    segments::Segments,
    snapshot::Snapshot,
    state::State,
    tally::{Counts, Tally},
    task::Task,
    why::Why,
    word::{Slot, Word},
};

/// How a run stands as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RunState {
    /// Some step has not ended.
    Running,
    /// All have ended, and none has failed (but such whose failure is tolerated) or was cancelled.
    Succeeded,
    /// All have ended, and one has failed whose failure is not tolerated.
    Failed,
    /// All have ended, none has failed as above, and one was cancelled.
    Cancelled,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

/// What a state is due to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The step's own condition was false.
    Condition,
    /// This step was skipped, on which it depends directly or not.
    SkippedStep(StepId),
    /// This step has failed, on which it depends directly or not, or which has stopped the run.
    FailedStep(StepId),
    /// This step was cancelled, for which a finally-step has waited.
    CancelledStep(StepId),
    /// This item of the step's fan-out has failed.
    FailedItem(u32),
    /// The budget of retries for failures of this class is used up.
    RetriesSpent(RetryClass),
    /// The run was cancelled by its owner.
    Request,
}

/// The state of a step or item, read at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// How many attempts have been begun.
    pub attempts: u32,
    /// Why a step was skipped, blocked or cancelled, or which item has failed. Items have none; their step's tells it.
    pub cause: Option<Cause>,
}

/// The part of a run that the owner writes and all read. A step costs 8 bytes; an item 8, nested ones up to 16.
pub(crate) struct Shared {
    pub(crate) graph: Arc<Graph>,
    pub(crate) slots: Arc<[Slot]>,
    pub(crate) counts: Counts,
    /// Of each step that has been expanded, in the order of expansion; its word says where.
    items: Segments<OnceLock<Box<Items>>>,
    state: AtomicU8,
}

impl Shared {
    /// Makes a place for the items of one more step.
    pub(crate) fn add_items(&self, index: usize) {
        self.items.reserve(index + 1, OnceLock::new);
        if let Some(place) = self.items.get(index) {
            place.get_or_init(|| Box::new(Items::new()));
        }
    }

    pub(crate) fn items_at(&self, index: u32) -> Option<&Items> {
        self.items.get(index as usize)?.get().map(|items| &**items)
    }

    /// The items of the step of which this is the word.
    pub(crate) fn items_of(&self, word: Word) -> Option<&Items> {
        if word.is_expanded() { self.items_at(word.rest()) } else { None }
    }

    pub(crate) fn items(&self, step: StepId) -> Option<&Items> {
        self.items_of(self.slots.get(step.index())?.read())
    }

    /// The place of a task's state, and the counts that it takes part in.
    #[inline]
    pub(crate) fn slot(&self, task: Task) -> Result<(&Slot, &Counts), TaskError> {
        let slot = match task.item {
            None => self.slots.get(task.step.index()).map(|slot| (slot, &self.counts)),
            Some(item) => self.items(task.step).and_then(|items| Some((items.get(item)?, &items.counts))),
        };
        slot.ok_or(TaskError::UnknownTask { task })
    }

    /// What a step's word says, as others are to read it.
    pub(crate) fn status_of(&self, step: StepId, word: Word) -> Status {
        let items = self.items_of(word);
        let cause = match word.state() {
            State::Skipped if word.rest() == step.0 => Some(Cause::Condition),
            State::Skipped => Some(Cause::SkippedStep(StepId(word.rest()))),
            State::Blocked | State::Cancelling | State::Cancelled => {
                match items.map_or(word.rest(), Items::stop_cause) {
                    Word::NO_CAUSE => Some(Cause::Request),
                    // It has ended before this step did, so that its state is final.
                    cause if self.slots[cause as usize].read().state() == State::Cancelled => {
                        Some(Cause::CancelledStep(StepId(cause)))
                    }
                    cause => Some(Cause::FailedStep(StepId(cause))),
                }
            }
            State::Failed => match items {
                Some(items) => Some(Cause::FailedItem(items.failed_item())),
                None => u8::try_from(word.rest()).ok().and_then(RetryClass::new).map(Cause::RetriesSpent),
            },
            _ => None,
        };
        Status { state: word.state(), attempts: word.attempts_begun(), cause }
    }

    /// Publishes the state of the run as a whole.
    pub(crate) fn close(&self, state: RunState) {
        // ORDERING(run-state): Release, pairs with Acquire in `RunView::state`: who sees the end sees all final states.
        self.state.store(state as u8, Ordering::Release);
    }
}

/// A reader's handle of a run, cheap to clone and safe to keep after the run.
///
/// # Concurrency
/// No method takes a lock or holds up the owner. Each state is read at an instant of its own; who sees a step ready sees,
/// when looking afterwards, the steps it waited for ended.
///
/// # Panics
/// Methods that take a [`StepId`] may panic if it comes from another graph.
#[derive(Clone)]
pub struct RunView {
    pub(crate) shared: Arc<Shared>,
}

impl RunView {
    pub(crate) fn new(graph: Arc<Graph>) -> Self {
        let slots = graph.initial.iter().map(|word| Slot::new(*word)).collect();
        let counts = Counts::new(graph.initial_tally);
        let state = AtomicU8::new(RunState::Running as u8);
        Self { shared: Arc::new(Shared { graph, slots, counts, items: Segments::new(), state }) }
    }

    /// The graph of the run.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.shared.graph
    }

    /// How the run stands as a whole.
    #[must_use]
    pub fn state(&self) -> RunState {
        // ORDERING(run-state): Acquire, pairs with Release in `Shared::close`.
        match self.shared.state.load(Ordering::Acquire) {
            0 => RunState::Running,
            1 => RunState::Succeeded,
            2 => RunState::Failed,
            // INVARIANT: only `close` writes it, so that this is 3.
            _ => RunState::Cancelled,
        }
    }

    /// How many steps are in each state.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.shared.counts.read()
    }

    /// How many items are in each state, nested ones included, if the step has been expanded.
    #[must_use]
    pub fn item_tally(&self, step: StepId) -> Option<Tally> {
        self.shared.items(step).map(|items| items.counts.read())
    }

    /// The state of a step.
    #[must_use]
    pub fn status(&self, step: StepId) -> Status {
        self.shared.status_of(step, self.shared.slots[step.index()].read())
    }

    /// The state of an item, if the step has been expanded and has that item.
    #[must_use]
    pub fn item_status(&self, step: StepId, item: u32) -> Option<Status> {
        let word = self.shared.items(step)?.get(item)?.read();
        Some(Status { state: word.state(), attempts: word.attempts_begun(), cause: None })
    }

    /// Where an item is: its place in its fan-out, before it that of the item that was expanded into this fan-out, and so on;
    /// the first is a place in the step's own fan-out. Empty if there is no such item.
    #[must_use]
    pub fn item_path(&self, step: StepId, item: u32) -> Vec<u32> {
        self.shared.items(step).map(|items| items.path(item)).unwrap_or_default()
    }

    /// All tasks in a state, in the order of steps and items. What has been expanded is represented by its items.
    pub fn tasks(&self, state: State) -> impl Iterator<Item = Task> + '_ {
        let in_state = move |step, item, word: Word| {
            let task = Task { step, item, attempt: word.attempt() };
            (word.state() == state && !word.is_expanded()).then_some(task)
        };
        self.graph().steps().flat_map(move |step| {
            let word = self.shared.slots[step.index()].read();
            let items = self.shared.items_of(word).into_iter().flat_map(Items::iter);
            let items = items.filter_map(move |(item, slot)| in_state(step, Some(item), slot.read()));
            in_state(step, None, word).into_iter().chain(items)
        })
    }

    /// The states of all steps, while the owner goes on.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self)
    }

    /// What a step waits for, or why it is as it is.
    #[must_use]
    pub fn why(&self, step: StepId) -> Why {
        Why::of(self, step)
    }
}

impl fmt::Debug for RunView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunView")
            .field("state", &self.state())
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}
