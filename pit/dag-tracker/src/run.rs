//! A run of a graph: its owner reports what happens to tasks, and is told what follows from it.
//!
//! It starts nothing itself and knows no time: when a failed task is due again, what its condition says and how many run
//! at once is decided by the owner. All states are in the shared part of [`RunView`]; what only the owner needs is here.
//!
//! ```text
//!   start, complete, fail, resume, skip, expand, cancel
//!      |                                                    settle: each step that has ended is
//!      `-> one task changes --> steps that ended ---------> joined into its dependents, which may
//!                 ^                    |      ^--- end too - become ready, skipped or blocked
//!                 |                    v
//!                 `---- stop <--- first failure (OnFailure::Stop)
//! ```

use std::{fmt, sync::Arc};

use crate::{
    error::TaskError,
    graph::{Graph, StepId},
    join::{Ending, Joined, decide_all},
    state::{ATTEMPTS_MAX, Counts, Slot, State, Word},
    task::Task,
    view::{FanOut, RunState, RunView, Shared},
};

/// LIMIT: items of one fan-out.
pub const ITEMS_MAX: u32 = 1 << 24;

/// What the final failure of one does to the others: of a step to the run, of an item to its fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// What has not been started is cancelled at once, what runs is told to stop.
    Stop,
    /// The others are executed as if nothing had happened; the whole fails at its end.
    CarryOn,
}

/// What is to follow a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the failure is final.
    End,
    /// Another attempt, when the owner says so by [`Run::resume`].
    Again,
}

/// What a report has changed. The lists are valid until the next report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Steps that may be started now, in their first attempt.
    pub ready: &'a [Task],
    /// The next attempt of the task that was reported as failed; it is to be resumed when it is due.
    pub backing_off: Option<Task>,
    /// Tasks that run and must be told to stop; each has still to be reported as completed or failed.
    pub cancelling: &'a [Task],
    /// Steps that have ended, in whatever way. Items of a fan-out are not listed, but their step is when it ends.
    pub ended: &'a [StepId],
    /// The state of the run afterwards.
    pub run: RunState,
}

/// One execution of a [`Graph`].
///
/// A step whose dependencies have all succeeded is ready. One that depends on a failed step is blocked at once; one that
/// depends on a skipped step is skipped when its other dependencies have ended.
///
/// # Concurrency
/// The owner changes the run through `&mut`; readers look on through clones of [`Run::view`] and never hold it up.
pub struct Run {
    view: RunView,
    on_failure: OnFailure,
    /// No step is ever ready again after this.
    is_stopped: bool,
    /// For each step, how many of its dependencies have not ended.
    pending: Box<[u32]>,
    news: News,
}

/// What the present report has changed so far, and how many steps are left.
#[derive(Default)]
struct News {
    ready: Vec<Task>,
    backing_off: Option<Task>,
    cancelling: Vec<Task>,
    ended: Vec<StepId>,
    unfinished: u32,
}

impl News {
    fn forget(&mut self) {
        self.ready.clear();
        self.backing_off = None;
        self.cancelling.clear();
        self.ended.clear();
    }

    fn end(&mut self, step: StepId) {
        self.ended.push(step);
        self.unfinished -= 1;
    }
}

impl Run {
    /// A new run: steps without dependencies are ready, all others wait. A graph without steps has succeeded already.
    #[must_use]
    pub fn new(graph: Arc<Graph>, on_failure: OnFailure) -> Self {
        let pending = graph
            .steps()
            .map(|step| u32::try_from(graph.dependencies(step).len()).unwrap_or(u32::MAX))
            .collect();
        let news = News { unfinished: graph.len(), ..News::default() };
        let run = Self { view: RunView::new(graph), on_failure, is_stopped: false, pending, news };
        run.close_if_done();
        run
    }

    /// The states, for reading; to be cloned for other threads.
    #[must_use]
    pub fn view(&self) -> &RunView {
        &self.view
    }

    /// A ready task is being executed from now on. A step that is to be expanded is started first, too.
    ///
    /// # Errors
    /// [`TaskError`]; in particular `Illegal` when it was cancelled since it became ready: it is not to be executed then.
    pub fn start(&mut self, task: Task) -> Result<(), TaskError> {
        change(&self.view.shared, task, State::Running)
    }

    /// A task has a result. This holds also for one that was told to stop and was faster.
    ///
    /// # Errors
    /// [`TaskError`]; the result of a stale attempt is to be dropped.
    pub fn complete(&mut self, task: Task) -> Result<Changes<'_>, TaskError> {
        self.news.forget();
        change(&self.view.shared, task, State::Succeeded)?;
        self.after(task);
        Ok(self.changes())
    }

    /// An attempt has failed, for good or to be made again. If the task had been told to stop, that is its answer: it is
    /// cancelled, whatever was to follow.
    ///
    /// # Errors
    /// [`TaskError`]; the failure of a stale attempt is to be dropped.
    pub fn fail(&mut self, task: Task, then: Then) -> Result<Changes<'_>, TaskError> {
        self.news.forget();
        let shared = &*self.view.shared;
        let state = shared.slot(task)?.0.own().state();
        match (state, then) {
            (State::Cancelling, _) => change(shared, task, State::Cancelled)?,
            (_, Then::End) => change(shared, task, State::Failed)?,
            (_, Then::Again) if task.attempt >= ATTEMPTS_MAX => {
                return Err(TaskError::TooManyAttempts { task });
            }
            (_, Then::Again) => {
                change(shared, task, State::BackingOff)?;
                self.news.backing_off = Some(Task { attempt: task.attempt + 1, ..task });
                return Ok(self.changes());
            }
        }
        self.after(task);
        Ok(self.changes())
    }

    /// The next attempt of a task that backs off is due: it is ready again.
    ///
    /// # Errors
    /// [`TaskError`]; in particular `Illegal` when it was cancelled meanwhile.
    pub fn resume(&mut self, task: Task) -> Result<(), TaskError> {
        // A step that waits for its dependencies is none of the owner's business, although the table knows the change.
        match self.view.shared.slot(task)?.0.own().state() {
            from @ State::Waiting => Err(TaskError::Illegal { task, from, to: State::Ready }),
            _ => change(&self.view.shared, task, State::Ready),
        }
    }

    /// A ready step is not to be executed, because its condition is false.
    ///
    /// # Errors
    /// [`TaskError`]; items cannot be skipped, and neither can steps that still wait.
    pub fn skip(&mut self, task: Task) -> Result<Changes<'_>, TaskError> {
        self.news.forget();
        match self.view.shared.slot(task)?.0.own().state() {
            from if from == State::Waiting || task.item.is_some() => {
                return Err(TaskError::Illegal { task, from, to: State::Skipped });
            }
            _ => change(&self.view.shared, task, State::Skipped)?,
        }
        self.after(task);
        Ok(self.changes())
    }

    /// Makes a running step a fan-out of `count` items, all of them ready in their first attempt (they are not listed in
    /// [`Changes::ready`]). The step ends with its items: failed if one has failed, else cancelled if one was, else
    /// succeeded; without items it succeeds at once.
    ///
    /// # Errors
    /// [`TaskError`]; the step is still running then, and can be reported as failed.
    pub fn expand(
        &mut self,
        task: Task,
        count: u32,
        on_failure: OnFailure,
    ) -> Result<Changes<'_>, TaskError> {
        self.news.forget();
        if task.item.is_some() {
            return Err(TaskError::NestedFanOut { task });
        }
        let shared = &*self.view.shared;
        let (slot, _) = shared.slot(task)?;
        let word = check(task, slot, State::Running)?;
        if word.state() != State::Running {
            return Err(TaskError::NotRunning { task, state: word.state() });
        }
        if count > ITEMS_MAX {
            return Err(TaskError::TooManyItems { task, count });
        }
        let fan_out =
            shared.fan_outs[task.step.index()].get_or_init(|| Box::new(FanOut::new(count, on_failure)));
        slot.mark_expanded();
        end_fan_out_if_done(shared, task.step, fan_out, &mut self.news);
        self.settle();
        Ok(self.changes())
    }

    /// Cancels the run: what has not been started is cancelled now, what runs is told to stop and listed in
    /// [`Changes::cancelling`]. A second call changes nothing.
    pub fn cancel(&mut self) -> Changes<'_> {
        self.news.forget();
        self.stop(Word::NO_CAUSE);
        self.close_if_done();
        self.changes()
    }

    fn changes(&self) -> Changes<'_> {
        Changes {
            ready: &self.news.ready,
            backing_off: self.news.backing_off,
            cancelling: &self.news.cancelling,
            ended: &self.news.ended,
            run: self.view.state(),
        }
    }

    /// Draws the consequences of a task having ended.
    fn after(&mut self, task: Task) {
        match task.item {
            None => self.news.end(task.step),
            Some(item) => {
                let shared = &*self.view.shared;
                let Some(fan_out) = shared.fan_out(task.step) else { return };
                let has_failed = fan_out.slots[item as usize].own().state() == State::Failed;
                if has_failed && fan_out.on_failure == OnFailure::Stop {
                    stop_items(task.step, fan_out, &mut self.news);
                }
                end_fan_out_if_done(shared, task.step, fan_out, &mut self.news);
            }
        }
        self.settle();
    }

    /// Joins each step that has ended into its dependents, and those that end by that into theirs.
    fn settle(&mut self) {
        let shared = &*self.view.shared;
        let mut failed = None;
        let mut settled = 0;
        while let Some(&step) = self.news.ended.get(settled) {
            settled += 1;
            let word = shared.slots[step.index()].own();
            let (ending, root) = match word.state() {
                State::Succeeded => (Ending::Succeeded, Word::NO_CAUSE),
                State::Skipped => (Ending::Skipped, word.cause()),
                State::Blocked => (Ending::Failed, word.cause()),
                State::Failed => {
                    failed = failed.or(Some(step));
                    (Ending::Failed, step.0)
                }
                _ => (Ending::Cancelled, Word::NO_CAUSE),
            };
            for &dependent in shared.graph.dependents(step) {
                self.pending[dependent.index()] -= 1;
                let pending = self.pending[dependent.index()];
                if pending > 0 && ending == Ending::Succeeded {
                    // Nothing is decided by it, and this is by far the most frequent case.
                    continue;
                }
                join(shared, dependent, ending, root, pending, &mut self.news);
            }
        }
        if let (Some(step), OnFailure::Stop) = (failed, self.on_failure) {
            self.stop(step.0);
        }
        self.close_if_done();
    }

    /// Cancels all that has not ended. What ends by that has no consequences left to draw.
    fn stop(&mut self, cause: u32) {
        if std::mem::replace(&mut self.is_stopped, true) {
            return;
        }
        let shared = &*self.view.shared;
        for step in shared.graph.steps() {
            let slot = &shared.slots[step.index()];
            let word = slot.own();
            match word.state() {
                State::Waiting | State::Ready | State::BackingOff => {
                    must_change(slot, &shared.counts, State::Cancelled, cause);
                    self.news.end(step);
                }
                State::Running => {
                    must_change(slot, &shared.counts, State::Cancelling, cause);
                    match shared.fan_out(step) {
                        None => {
                            self.news.cancelling.push(Task { step, item: None, attempt: word.attempt() });
                        }
                        Some(fan_out) => {
                            stop_items(step, fan_out, &mut self.news);
                            end_fan_out_if_done(shared, step, fan_out, &mut self.news);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn close_if_done(&self) {
        if self.news.unfinished > 0 {
            return;
        }
        let tally = self.view.tally();
        self.view.shared.close(if tally.of(State::Failed) > 0 {
            RunState::Failed
        } else if tally.of(State::Cancelled) > 0 {
            RunState::Cancelled
        } else {
            RunState::Succeeded
        });
    }
}

/// Decides about one dependent of a step that has ended; `root` is the step to which that ending is due.
fn join(shared: &Shared, dependent: StepId, ending: Ending, root: u32, pending: u32, news: &mut News) {
    let slot = &shared.slots[dependent.index()];
    let word = slot.own();
    if word.state() != State::Waiting {
        return;
    }
    // While it waits, the cause notes the first skipped dependency.
    let skipped = match (word.cause(), ending) {
        (Word::NO_CAUSE, Ending::Skipped) => {
            slot.note_cause(root);
            root
        }
        (noted, _) => noted,
    };
    match decide_all(ending, pending, skipped != Word::NO_CAUSE) {
        Joined::Waits => {}
        Joined::Ready => {
            must_change(slot, &shared.counts, State::Ready, Word::NO_CAUSE);
            news.ready.push(Task { step: dependent, item: None, attempt: word.attempt() });
        }
        Joined::Skipped => {
            must_change(slot, &shared.counts, State::Skipped, skipped);
            news.end(dependent);
        }
        Joined::Blocked => {
            must_change(slot, &shared.counts, State::Blocked, root);
            news.end(dependent);
        }
    }
}

/// Checks that a report is about the present attempt of a task that is not a fan-out.
fn check(task: Task, slot: &Slot, to: State) -> Result<Word, TaskError> {
    let word = slot.own();
    if word.is_expanded() {
        return Err(TaskError::Expanded { task });
    }
    if task.attempt != word.attempt() {
        let from = word.state();
        // One that ended before its attempt was begun has given up that attempt's number, but is the one meant.
        return Err(if from.is_ended() && task.attempt > word.attempt() {
            TaskError::Illegal { task, from, to }
        } else {
            TaskError::StaleAttempt { task, current: word.attempt() }
        });
    }
    Ok(word)
}

/// Changes the state of a task on the owner's word.
fn change(shared: &Shared, task: Task, to: State) -> Result<(), TaskError> {
    let (slot, counts) = shared.slot(task)?;
    let word = check(task, slot, to)?;
    let cause = match to {
        State::Skipped => task.step.0,
        // The cause for which it was told to stop.
        State::Cancelled => word.cause(),
        _ => Word::NO_CAUSE,
    };
    slot.change(counts, to, cause).map_err(|from| TaskError::Illegal { task, from, to })
}

/// Changes a state as a consequence of another change.
fn must_change(slot: &Slot, counts: &Counts, to: State, cause: u32) {
    // INVARIANT: consequences are drawn only from states that the caller has just looked at, and which allow them.
    let changed = slot.change(counts, to, cause);
    debug_assert!(changed.is_ok(), "{to} after {changed:?}");
}

/// Cancels the items of a fan-out that have not ended.
fn stop_items(step: StepId, fan_out: &FanOut, news: &mut News) {
    for (item, slot) in (0..).zip(&fan_out.slots) {
        let word = slot.own();
        match word.state() {
            State::Ready | State::BackingOff => {
                must_change(slot, &fan_out.counts, State::Cancelled, Word::NO_CAUSE);
            }
            State::Running => {
                must_change(slot, &fan_out.counts, State::Cancelling, Word::NO_CAUSE);
                news.cancelling.push(Task { step, item: Some(item), attempt: word.attempt() });
            }
            _ => {}
        }
    }
}

/// Ends an expanded step if all its items have ended.
fn end_fan_out_if_done(shared: &Shared, step: StepId, fan_out: &FanOut, news: &mut News) {
    let tally = fan_out.counts.read();
    if (tally.ended() as usize) < fan_out.slots.len() {
        return;
    }
    let slot = &shared.slots[step.index()];
    let (state, cause) = if tally.of(State::Failed) > 0 {
        (State::Failed, fan_out.first_in(State::Failed))
    } else if tally.of(State::Cancelled) > 0 {
        (State::Cancelled, slot.own().cause())
    } else {
        (State::Succeeded, Word::NO_CAUSE)
    };
    must_change(slot, &shared.counts, state, cause);
    news.end(step);
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("state", &self.view.state())
            .field("unfinished", &self.news.unfinished)
            .field("on_failure", &self.on_failure)
            .finish_non_exhaustive()
    }
}
