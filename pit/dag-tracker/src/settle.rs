//! What the end of a step means for the others: joins, stops, and the end of the run.
//!
//! ```text
//!   a report ends a step                                     settle: each step that has ended is
//!      |                                                     joined into its dependents, which may
//!      `-> steps that ended --> a failure that counts? ----. become ready, skipped or blocked
//!              ^      ^--- those that end by a join        |
//!              |                                           |
//!              `---- stop: all but finally-steps <---------'  (OnFailure::Stop)
//!
//!   no ordinary step is left --> the finally-steps that wait for all of them are ready
//!   no step is left          --> the run has ended
//! ```
//!
//! It is the owner's, and knows nothing of reports and attempts.

use crate::{
    graph::StepId,
    join::{Ending, Joined},
    news::News,
    run::{OnFailure, Run},
    state::State,
    task::Task,
    view::{RunState, Shared},
    word::{AfterSuccess, Slot, Word},
};

/// What of a run will not be started any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stopped {
    No,
    /// All but finally-steps.
    Ordinary,
    All,
}

impl Run {
    /// Draws the consequences of a task having ended.
    #[inline]
    pub(crate) fn after(&mut self, task: Task) {
        match task.item {
            None => self.news.end(task.step, &self.view.shared.graph),
            Some(item) => {
                let index = self.view.shared.slots[task.step.index()].own().rest();
                let Some(items) = self.view.shared.items_at(index) else { return };
                let end = self.fan_outs[index as usize].item_ended(items, item, &mut self.news.cancelling);
                match end {
                    // Most items are not the last.
                    None => return,
                    end => self.end_expanded(task.step, end),
                }
            }
        }
        self.settle();
    }

    /// Ends a step with its items, if they have ended.
    pub(crate) fn end_expanded(&mut self, step: StepId, end: Option<State>) {
        if let Some(state) = end {
            must_change(&self.view.shared, step, state, None);
            self.news.end(step, &self.view.shared.graph);
        }
    }

    /// Joins each step that has ended into its dependents, and those that end by that into theirs, until nothing follows any
    /// more.
    pub(crate) fn settle(&mut self) {
        self.settle_from(0);
    }

    /// The same, when the consequences of the first so many that have ended are drawn already.
    #[inline(never)]
    pub(crate) fn settle_from(&mut self, mut settled: usize) {
        loop {
            let mut failed = None;
            while let Some(&step) = self.news.ended.get(settled) {
                settled += 1;
                let state = self.view.shared.slots[step.index()].own().state();
                let ending = match state {
                    State::Succeeded => Ending::Succeeded,
                    State::Skipped => Ending::Skipped,
                    _ => Ending::Failed,
                };
                if state == State::Failed && !self.view.shared.graph.failure_is_tolerated(step) {
                    self.news.has_failed = true;
                    failed = failed.or(Some(step));
                }
                self.join_dependents(step, ending);
            }
            match failed {
                Some(step) if self.on_failure == OnFailure::Stop => self.stop(Stopped::Ordinary, step.0),
                _ => break,
            }
        }
        self.close_if_done();
    }

    /// Joins a success into all dependents: by far the most frequent ending.
    // Always: it is the body of `Run::complete`, and its other caller is rare.
    #[inline(always)]
    pub(crate) fn join_success(&mut self, step: StepId) {
        let shared = &*self.view.shared;
        let slots = &*self.slots;
        let mut ready_count = 0;
        for &dependent in self.dependents.of(step) {
            let slot = &slots[dependent.index()];
            let word = slot.own();
            if !word.is_waiting() {
                continue;
            }
            match word.after_success() {
                AfterSuccess::Waits(next) => slot.write_waiting(next),
                AfterSuccess::Ready => {
                    slot.write_ready();
                    ready_count += 1;
                    self.news.ready.push(Task { step: dependent, item: None, attempt: 1 });
                }
                AfterSuccess::Open => join(shared, dependent, Ending::Succeeded, &mut self.news),
            }
        }
        if ready_count > 0 {
            shared.counts.shift_many(State::Waiting, State::Ready, ready_count);
        }
    }

    fn join_dependents(&mut self, step: StepId, ending: Ending) {
        if ending == Ending::Succeeded {
            return self.join_success(step);
        }
        let shared = &*self.view.shared;
        for &dependent in shared.graph.dependents(step) {
            join(shared, dependent, ending, &mut self.news);
        }
    }

    /// Cancels what has not ended: all but finally-steps, or all.
    pub(crate) fn stop(&mut self, what: Stopped, cause: u32) {
        if self.stopped >= what {
            return;
        }
        self.stopped = what;
        let shared = std::sync::Arc::clone(&self.view.shared);
        for step in shared.graph.steps() {
            if what == Stopped::Ordinary && shared.graph.is_finally(step) {
                continue;
            }
            let word = shared.slots[step.index()].own();
            match word.state() {
                State::Waiting | State::Ready | State::BackingOff => {
                    must_change(&shared, step, State::Cancelled, Some(cause));
                    self.news.end(step, &shared.graph);
                }
                State::Running => match shared.items_of(word) {
                    None => {
                        must_change(&shared, step, State::Cancelling, Some(cause));
                        self.news.cancelling.push(Task { step, item: None, attempt: word.attempt() });
                    }
                    Some(items) => {
                        items.set_stop_cause(cause);
                        must_change(&shared, step, State::Cancelling, None);
                        let fan_out = &mut self.fan_outs[word.rest() as usize];
                        let end = fan_out.stop(items, &mut self.news.cancelling);
                        self.end_expanded(step, end);
                    }
                },
                _ => {}
            }
        }
        // What became ready by this very report may have been cancelled by it.
        self.news.ready.retain(|task| shared.slots[task.step.index()].own().state() == State::Ready);
    }

    /// Releases the steps that wait for all others, and ends the run.
    #[inline]
    pub(crate) fn close_if_done(&mut self) {
        if self.news.unfinished == self.news.finally_unfinished {
            self.close();
        }
    }

    #[cold]
    fn close(&mut self) {
        let shared = &*self.view.shared;
        let last =
            if std::mem::replace(&mut self.last_are_released, true) { &[] } else { &*shared.graph.last };
        for &step in last {
            if shared.slots[step.index()].own().is_waiting() {
                must_change(shared, step, State::Ready, None);
                self.news.ready.push(Task { step, item: None, attempt: 1 });
            }
        }
        if self.news.unfinished == 0 {
            shared.close(if self.news.has_failed {
                RunState::Failed
            } else if self.view.tally().of(State::Cancelled) > 0 {
                RunState::Cancelled
            } else {
                RunState::Succeeded
            });
        }
    }
}

/// Joins the end of one dependency into a dependent, by the rule.
#[inline(never)]
fn join(shared: &Shared, dependent: StepId, ending: Ending, news: &mut News) {
    let slot = &shared.slots[dependent.index()];
    let word = slot.own();
    if !word.is_waiting() {
        return;
    }
    match word.joining().after(ending) {
        Joined::Waits(joining) => slot.write_waiting(Word::waiting(joining)),
        Joined::Ready => {
            must_change(shared, dependent, State::Ready, None);
            news.ready.push(Task { step: dependent, item: None, attempt: 1 });
        }
        Joined::Skipped => {
            must_change(shared, dependent, State::Skipped, Some(cause_of_skip(shared, dependent)));
            news.end(dependent, &shared.graph);
        }
        Joined::Blocked => {
            must_change(shared, dependent, State::Blocked, Some(cause_of_block(shared, dependent)));
            news.end(dependent, &shared.graph);
        }
    }
}

/// The first failed dependency, or the one to which its own block is due.
fn cause_of_block(shared: &Shared, step: StepId) -> u32 {
    let cause = |other: &StepId| {
        let word = shared.slots[other.index()].own();
        match word.state() {
            State::Failed | State::Cancelled => Some(other.0),
            State::Blocked => Some(word.rest()),
            _ => None,
        }
    };
    shared.graph.dependencies(step).iter().find_map(cause).unwrap_or(Word::NO_CAUSE)
}

/// The step whose false condition has made the first skipped dependency be skipped.
fn cause_of_skip(shared: &Shared, step: StepId) -> u32 {
    let cause = |other: &StepId| {
        let word = shared.slots[other.index()].own();
        (word.state() == State::Skipped).then(|| word.rest())
    };
    shared.graph.dependencies(step).iter().find_map(cause).unwrap_or(Word::NO_CAUSE)
}

/// Changes the state of a step as a consequence of another change.
#[inline]
fn must_change(shared: &Shared, step: StepId, to: State, rest: Option<u32>) {
    let slot: &Slot = &shared.slots[step.index()];
    // INVARIANT: consequences are drawn only from states that the caller has just looked at, and which allow them.
    let changed = slot.change(&shared.counts, to, rest);
    debug_assert!(changed.is_ok(), "{to} after {changed:?}");
}
