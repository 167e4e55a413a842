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
    error::TaskError,
    graph::{Graph, StepId},
    run::OnFailure,
    state::{Counts, Slot, State, Tally, Word},
    task::Task,
    why::Why,
};

/// How a run stands as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RunState {
    /// Some step has not ended.
    Running,
    /// All steps have succeeded or were skipped.
    Succeeded,
    /// All have ended, and one has failed.
    Failed,
    /// All have ended, none has failed, and one was cancelled.
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
    /// This item of the step's fan-out has failed.
    FailedItem(u32),
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

/// The part of a run that the owner writes and all read. Steps cost 28 bytes each, with the owner's 4; items 8.
pub(crate) struct Shared {
    pub(crate) graph: Arc<Graph>,
    pub(crate) slots: Box<[Slot]>,
    pub(crate) counts: Counts,
    pub(crate) fan_outs: Box<[OnceLock<Box<FanOut>>]>,
    state: AtomicU8,
}

/// The items of an expanded step.
pub(crate) struct FanOut {
    pub(crate) slots: Box<[Slot]>,
    pub(crate) counts: Counts,
    pub(crate) on_failure: OnFailure,
}

impl FanOut {
    pub(crate) fn new(count: u32, on_failure: OnFailure) -> Self {
        Self {
            slots: (0..count).map(|_| Slot::new(State::Ready)).collect(),
            counts: Counts::new(Tally::NOTHING.with(State::Ready, count)),
            on_failure,
        }
    }

    /// The first item in that state, as a cause.
    pub(crate) fn first_in(&self, state: State) -> u32 {
        (0..)
            .zip(&self.slots)
            .find(|(_, slot)| slot.own().state() == state)
            .map_or(Word::NO_CAUSE, |(i, _)| i)
    }
}

impl Shared {
    pub(crate) fn fan_out(&self, step: StepId) -> Option<&FanOut> {
        self.fan_outs[step.index()].get().map(|fan_out| &**fan_out)
    }

    /// The place of a task's state, and the counts that it takes part in.
    pub(crate) fn slot(&self, task: Task) -> Result<(&Slot, &Counts), TaskError> {
        let slot = self.slots.get(task.step.index()).map(|slot| (slot, &self.counts));
        let slot = match task.item {
            None => slot,
            Some(item) => slot
                .and_then(|_| self.fan_out(task.step))
                .and_then(|fan_out| Some((fan_out.slots.get(item as usize)?, &fan_out.counts))),
        };
        slot.ok_or(TaskError::UnknownTask { task })
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
        let mut tally = Tally::NOTHING;
        let slots = graph
            .steps()
            .map(|step| {
                let state = if graph.dependencies(step).is_empty() { State::Ready } else { State::Waiting };
                tally = tally.with(state, 1);
                Slot::new(state)
            })
            .collect();
        let fan_outs = graph.steps().map(|_| OnceLock::new()).collect();
        let state = AtomicU8::new(RunState::Running as u8);
        Self { shared: Arc::new(Shared { graph, slots, counts: Counts::new(tally), fan_outs, state }) }
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

    /// How many items are in each state, if the step has been expanded.
    #[must_use]
    pub fn item_tally(&self, step: StepId) -> Option<Tally> {
        self.shared.fan_out(step).map(|fan_out| fan_out.counts.read())
    }

    /// The state of a step.
    #[must_use]
    pub fn status(&self, step: StepId) -> Status {
        let word = self.shared.slots[step.index()].read();
        let due_to =
            |cause| if cause == Word::NO_CAUSE { Cause::Request } else { Cause::FailedStep(StepId(cause)) };
        let cause = match word.state() {
            State::Skipped if word.cause() == step.0 => Some(Cause::Condition),
            State::Skipped => Some(Cause::SkippedStep(StepId(word.cause()))),
            State::Blocked | State::Cancelling | State::Cancelled => Some(due_to(word.cause())),
            State::Failed if word.is_expanded() => Some(Cause::FailedItem(word.cause())),
            _ => None,
        };
        Status { state: word.state(), attempts: word.attempts_begun(), cause }
    }

    /// The state of an item, if the step has been expanded and has that item.
    #[must_use]
    pub fn item_status(&self, step: StepId, item: u32) -> Option<Status> {
        let word = self.shared.fan_out(step)?.slots.get(item as usize)?.read();
        Some(Status { state: word.state(), attempts: word.attempts_begun(), cause: None })
    }

    /// All tasks in a state, in the order of steps and items. An expanded step is represented by its items.
    pub fn tasks(&self, state: State) -> impl Iterator<Item = Task> + '_ {
        let in_state = move |step, item, word: Word| {
            let task = Task { step, item, attempt: word.attempt() };
            (word.state() == state).then_some(task)
        };
        self.graph().steps().flat_map(move |step| {
            let word = self.shared.slots[step.index()].read();
            // Steps that have not been expanded spare the look at the table of fan-outs.
            let fan_out = if word.is_expanded() { self.shared.fan_out(step) } else { None };
            let items = fan_out.map_or(&[][..], |fan_out| &fan_out.slots);
            let itself = if fan_out.is_none() { in_state(step, None, word) } else { None };
            itself.into_iter().chain(
                (0..).zip(items).filter_map(move |(item, slot)| in_state(step, Some(item), slot.read())),
            )
        })
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn step_costs_at_most_32_bytes_and_item_8() {
        let pending = size_of::<u32>();
        assert!(size_of::<Slot>() + size_of::<OnceLock<Box<FanOut>>>() + pending <= 32);
        assert_eq!(size_of::<Slot>(), 8);
    }
}

#[cfg(all(test, loom))]
mod model {
    use crate::{GraphBuilder, OnFailure, Run, RunState, State};

    /// Bounds the interleavings; a reader's race with the owner needs no more than two switches.
    fn bounded(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    #[test]
    fn reader_who_sees_a_step_ready_sees_its_dependency_ended() {
        bounded(|| {
            let mut builder = GraphBuilder::new();
            let (first, second) = (builder.step("first", []), builder.step("second", ["first"]));
            let mut run = Run::new(builder.build().unwrap(), OnFailure::Stop);
            let view = run.view().clone();
            let reader = loom::thread::spawn(move || {
                if view.status(second).state != State::Waiting {
                    assert_eq!(view.status(first).state, State::Succeeded);
                }
            });
            let task = run.view().tasks(State::Ready).next().unwrap();
            run.start(task).unwrap();
            run.complete(task).unwrap();
            reader.join().unwrap();
        });
    }

    #[test]
    fn reader_who_sees_the_run_ended_sees_all_final_states() {
        bounded(|| {
            let mut builder = GraphBuilder::new();
            let (first, second) = (builder.step("first", []), builder.step("second", ["first"]));
            let mut run = Run::new(builder.build().unwrap(), OnFailure::Stop);
            let view = run.view().clone();
            let reader = loom::thread::spawn(move || {
                if view.state() != RunState::Running {
                    assert_eq!(view.status(first).state, State::Cancelled);
                    assert_eq!(view.status(second).state, State::Cancelled);
                    assert_eq!(view.tally().ended(), 2);
                }
            });
            assert_eq!(run.cancel().run, RunState::Cancelled);
            reader.join().unwrap();
        });
    }
}
