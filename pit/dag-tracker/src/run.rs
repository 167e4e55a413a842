//! A run of a graph: its owner reports what happens to tasks, and is told what follows from it.
//!
//! It starts nothing itself and knows no time: when a failed task is due again, what its condition says and how many run
//! at once is decided by the owner. All states are in the shared part of [`RunView`]; what only the owner needs is here.
//! Here reports are checked; what follows from them is in `settle` (steps) and `fan_out` (items).

use std::{fmt, ops::Range, sync::Arc};

use crate::{
    budget::{RetryClass, Used},
    error::TaskError,
    fan_out::FanOut,
    graph::{Graph, Rows, StepId},
    items::{ITEMS_MAX, Items},
    news::News,
    settle::Stopped,
    state::State,
    task::Task,
    view::{RunState, RunView, Shared},
    word::{ATTEMPTS_MAX, Slot, Word},
};

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
    /// Another attempt, if the step's [`RetryBudget`](crate::RetryBudget) has one left for failures of this class; else the
    /// failure is final.
    AgainFor(RetryClass),
}

/// What a report has changed. The lists are valid until the next report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Steps that may be started now, in their first attempt.
    pub ready: &'a [Task],
    /// The next attempt of the task that was reported as failed; it is to be resumed when it is due.
    pub backing_off: Option<Task>,
    /// Tasks that run and must be told to stop; each has still to be reported as completed or failed.
    pub cancelling: &'a [Task],
    /// Steps that have ended, in whatever way. Items of a fan-out are not listed, but their step is when it ends.
    pub ended: &'a [StepId],
    /// The numbers of the items into which the task was expanded; all are ready, in their first attempt.
    pub items: Range<u32>,
    /// The state of the run afterwards.
    pub run: RunState,
}

/// One execution of a [`Graph`].
///
/// A step is ready, blocked or skipped by its [`Join`](crate::Join). When a step fails whose failure is not tolerated,
/// [`OnFailure`] says whether the others go on; finally-steps always do.
///
/// # Concurrency
/// The owner changes the run through `&mut`; readers look on through clones of [`Run::view`] and never hold it up.
pub struct Run {
    pub(crate) view: RunView,
    /// What the view has too, without the way through it: completing a step looks at nothing else.
    pub(crate) slots: Arc<[Slot]>,
    pub(crate) dependents: Rows,
    pub(crate) on_failure: OnFailure,
    pub(crate) stopped: Stopped,
    /// Whether the finally-steps that wait for all ordinary steps wait no more.
    pub(crate) last_are_released: bool,
    /// Of each step that has been expanded, in the order of expansion.
    pub(crate) fan_outs: Vec<FanOut>,
    pub(crate) news: News,
}

impl Run {
    /// A new run: steps without dependencies are ready, all others wait. A graph without steps has succeeded already.
    #[must_use]
    pub fn new(graph: Arc<Graph>, on_failure: OnFailure) -> Self {
        let news =
            News { unfinished: graph.len(), finally_unfinished: graph.finally_count, ..News::default() };
        let dependents = graph.dependents.clone();
        let view = RunView::new(graph);
        let slots = Arc::clone(&view.shared.slots);
        let mut run = Self {
            view,
            slots,
            dependents,
            on_failure,
            stopped: Stopped::No,
            last_are_released: false,
            fan_outs: Vec::new(),
            news,
        };
        run.close_if_done();
        run
    }

    /// The states, for reading; to be cloned for other threads.
    #[must_use]
    pub fn view(&self) -> &RunView {
        &self.view
    }

    /// A ready task is being executed from now on. What is to be expanded is started first, too.
    ///
    /// # Errors
    /// [`TaskError`]; in particular `Illegal` when it was cancelled since it became ready: it is not to be executed then.
    #[inline]
    pub fn start(&mut self, task: Task) -> Result<(), TaskError> {
        let Task { step, item, attempt } = task;
        let shared = &*self.view.shared;
        if item.is_none()
            && let Some(slot) = self.slots.get(step.index())
            && slot.change_short(&shared.counts, State::Ready, attempt, State::Running)
        {
            return Ok(());
        }
        change(shared, task, State::Running, None)
    }

    /// A task has a result. This holds also for one that was told to stop and was faster.
    ///
    /// # Errors
    /// [`TaskError`]; the result of a stale attempt is to be dropped.
    // Always, because its answer is larger than its work: returned through memory it costs a fifth of the whole.
    #[inline(always)]
    pub fn complete(&mut self, task: Task) -> Result<Changes<'_>, TaskError> {
        self.news.forget();
        let Task { step, item, attempt } = task;
        let shared = &*self.view.shared;
        if item.is_none()
            && let Some(slot) = self.slots.get(step.index())
            && slot.change_short(&shared.counts, State::Running, attempt, State::Succeeded)
        {
            self.news.end(step, &shared.graph);
            self.join_success(step);
            if self.news.ended.len() > 1 {
                self.settle_from(1);
            }
            self.close_if_done();
        } else {
            self.complete_other(task)?;
        }
        Ok(self.changes())
    }

    /// Items, and what was told to stop and was faster, or is refused.
    #[inline(never)]
    fn complete_other(&mut self, task: Task) -> Result<(), TaskError> {
        change(&self.view.shared, task, State::Succeeded, None)?;
        self.after(task);
        Ok(())
    }

    /// An attempt has failed, for good or to be made again. If the task had been told to stop, that is its answer: it is
    /// cancelled, whatever was to follow.
    ///
    /// # Errors
    /// [`TaskError`]; the failure of a stale attempt is to be dropped.
    pub fn fail(&mut self, task: Task, then: Then) -> Result<Changes<'_>, TaskError> {
        self.news.forget();
        let shared = &*self.view.shared;
        let word = shared.slot(task)?.0.own();
        let again = match then {
            // The cause for which it was told to stop remains.
            _ if word.state() == State::Cancelling => {
                change(shared, task, State::Cancelled, None)?;
                self.after(task);
                return Ok(self.changes());
            }
            Then::End => Err(Word::NO_CAUSE),
            Then::Again => Ok(Used(word.rest())),
            Then::AgainFor(class) => {
                let budget = shared.graph.retry_budget(task.step);
                budget.spend(Used(word.rest()), class).ok_or(u32::from(class.number()))
            }
        };
        match again {
            Ok(_) if task.attempt >= ATTEMPTS_MAX => return Err(TaskError::TooManyAttempts { task }),
            Ok(used) => {
                change(shared, task, State::BackingOff, Some(used.0))?;
                let backing_off = Some(Task { attempt: task.attempt + 1, ..task });
                return Ok(Changes { backing_off, ..self.changes() });
            }
            Err(cause) => {
                change(shared, task, State::Failed, Some(cause))?;
                self.after(task);
            }
        }
        Ok(self.changes())
    }

    /// The next attempt of a task that backs off is due: it is ready again.
    ///
    /// # Errors
    /// [`TaskError`]; in particular `Illegal` when it was cancelled meanwhile.
    pub fn resume(&mut self, task: Task) -> Result<(), TaskError> {
        self.refuse_waiting(task, State::Ready)?;
        change(&self.view.shared, task, State::Ready, None)
    }

    /// A ready step or item is not to be executed, because its condition is false. A skipped item counts as one that has
    /// nothing to do: its fan-out succeeds without it.
    ///
    /// # Errors
    /// [`TaskError`]; steps that still wait cannot be skipped.
    pub fn skip(&mut self, task: Task) -> Result<Changes<'_>, TaskError> {
        self.news.forget();
        self.refuse_waiting(task, State::Skipped)?;
        change(&self.view.shared, task, State::Skipped, Some(task.step.0))?;
        self.after(task);
        Ok(self.changes())
    }

    /// Makes a running step or item a fan-out of `count` items. It ends with its items: failed if one has failed, else
    /// cancelled if one was, else succeeded; without items it succeeds at once. Items may be expanded in turn.
    ///
    /// # Errors
    /// [`TaskError`]; the task is still running then, and can be reported as failed.
    pub fn expand(
        &mut self,
        task: Task,
        count: u32,
        on_failure: OnFailure,
    ) -> Result<Changes<'_>, TaskError> {
        self.news.forget();
        let shared = Arc::clone(&self.view.shared);
        let (slot, _) = shared.slot(task)?;
        let word = check(task, slot, State::Running)?;
        if word.state() != State::Running {
            return Err(TaskError::NotRunning { task, state: word.state() });
        }
        let total = count.saturating_add(shared.items(task.step).map_or(0, Items::len));
        if total > ITEMS_MAX {
            return Err(TaskError::TooManyItems { task, count: total });
        }
        let index = match task.item {
            None => self.add_fan_out(task.step),
            Some(_) => shared.slots[task.step.index()].own().rest(),
        };
        let Some(items) = shared.items_at(index) else { return Err(TaskError::UnknownTask { task }) };
        let fan_out = &mut self.fan_outs[index as usize];
        let (first, place) = fan_out.append(items, task.item, count, on_failure);
        slot.expand(if task.item.is_none() { index } else { place });
        if count == 0 {
            let end = fan_out.end_if_empty(place, items, &mut self.news.cancelling);
            self.end_expanded(task.step, end);
        }
        self.settle();
        Ok(Changes { items: first..first + count, ..self.changes() })
    }

    /// Cancels the run: what has not been started is cancelled now, what runs is told to stop and listed in
    /// [`Changes::cancelling`]. Finally-steps are still executed. A second call changes nothing.
    pub fn cancel(&mut self) -> Changes<'_> {
        self.news.forget();
        self.stop(Stopped::Ordinary, Word::NO_CAUSE);
        self.settle();
        self.changes()
    }

    /// Cancels the run and its finally-steps, also after a [`cancel`](Self::cancel).
    pub fn abort(&mut self) -> Changes<'_> {
        self.news.forget();
        self.stop(Stopped::All, Word::NO_CAUSE);
        self.settle();
        self.changes()
    }

    #[inline]
    fn changes(&self) -> Changes<'_> {
        Changes {
            ready: &self.news.ready,
            backing_off: None,
            cancelling: &self.news.cancelling,
            ended: &self.news.ended,
            items: 0..0,
            run: self.view.state(),
        }
    }

    /// A step that waits is none of the owner's business, although the table knows the change.
    fn refuse_waiting(&self, task: Task, to: State) -> Result<(), TaskError> {
        match self.view.shared.slot(task)?.0.own().state() {
            from @ State::Waiting => Err(TaskError::Illegal { task, from, to }),
            _ => Ok(()),
        }
    }

    /// A place for the items of a step that is expanded.
    fn add_fan_out(&mut self, step: StepId) -> u32 {
        let index = self.fan_outs.len();
        self.fan_outs.push(FanOut::new(step));
        self.view.shared.add_items(index);
        // INVARIANT: there are not more fan-outs than steps.
        u32::try_from(index).unwrap_or(u32::MAX)
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
#[inline(never)]
fn change(shared: &Shared, task: Task, to: State, rest: Option<u32>) -> Result<(), TaskError> {
    let (slot, counts) = shared.slot(task)?;
    check(task, slot, to)?;
    slot.change(counts, to, rest).map_err(|from| TaskError::Illegal { task, from, to })
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
