//! The states of all steps, taken while the owner goes on.
//!
//! Steps are read from the last to the first: each before all that it waits for. Whatever let a step become ready had
//! happened before it was read as ready, and so is seen when its dependencies are read after it. A snapshot is therefore no
//! single moment, but never shows an effect without its causes.

use std::fmt;

use crate::{
    graph::StepId,
    state::State,
    tally::Tally,
    view::{RunState, RunView, Status},
    word::Word,
};

/// The states of all steps of a run. No step in it is ahead of what it has waited for.
///
/// # Concurrency
/// Taking one loads each state word once, takes no lock, and holds up nobody.
#[derive(Clone)]
pub struct Snapshot {
    view: RunView,
    state: RunState,
    words: Box<[Word]>,
}

impl Snapshot {
    pub(crate) fn of(view: &RunView) -> Self {
        // Before the steps: if the run has ended, then so have all of them.
        let state = view.state();
        let slots = &view.shared.slots;
        let mut words: Box<[Word]> = vec![Word::READY; slots.len()].into();
        for step in view.graph().steps_backwards() {
            words[step.index()] = slots[step.index()].read();
        }
        Self { view: view.clone(), state, words }
    }

    /// The run, as it is now.
    #[must_use]
    pub fn view(&self) -> &RunView {
        &self.view
    }

    /// How the run stood as a whole, before the first step was read.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        self.state
    }

    /// The state of a step.
    ///
    /// # Panics
    /// May panic if the step comes from another graph.
    #[must_use]
    pub fn status(&self, step: StepId) -> Status {
        self.view.shared.status_of(step, self.words[step.index()])
    }

    /// How many steps of this snapshot are in each state. They are as many as the graph has.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.words.iter().fold(Tally::NOTHING, |tally, word| tally.with(word.state(), 1))
    }

    /// The steps in a state, in the order of declaration.
    pub fn steps(&self, state: State) -> impl Iterator<Item = StepId> + '_ {
        let in_state = move |step: &StepId| self.words[step.index()].state() == state;
        self.view.graph().steps().filter(in_state)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("state", &self.state)
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}
