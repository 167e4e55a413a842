//! The owner of a run: reports to the tracker, begins what becomes ready, ends what must stop.
//!
//! Everything here happens in one task on one thread: the tracker and the counters are in cells, never held
//! across a wait. This file must not know how the calls of a step are made.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use dag_tracker::{Changes, Run, State, StepId, Task, TaskError, Then};
use futures_util::future::{AbortHandle, Abortable, FutureExt as _, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pool_manager::Holder;

use super::failure::{FailedItem, StepError, Where, report};
use super::observer::StepObserver;
use super::step::{StepFailure, StepStatistics, StepSuccess, StepTask};
use super::storing::{StoreInFlight, store};
use super::{Execution, Outcome};
use crate::bridge::{self, Admission, AdmissionError};
use crate::document::{ErrorReport, OutputReport, RunState, StepReport};
use crate::exit::Exit;
use crate::melody::json::shortened;
use crate::melody::{Plan, Scope};

pub(super) async fn execute(execution: Execution<'_>) -> Outcome {
    let Plan { graph, steps, on_failure, .. } = execution.plan;
    let run = RefCell::new(Run::new(graph.clone(), bridge::on_failure(*on_failure)));
    // One Pit sees one run; a second would stay unseen, and run all the same.
    let _is_first = execution.pit.run.set(run.borrow().view().clone()).is_ok();
    let statistics: Vec<StepStatistics> = steps.iter().map(|_| StepStatistics::default()).collect();
    let observers: Vec<StepObserver<'_>> = graph
        .steps()
        .zip(steps)
        .map(|(step, plan)| StepObserver::new(&run, execution.progress, step, plan.fans_out))
        .collect();
    let holder = Holder::new(&format!("run:{}", execution.run));
    let stores = RefCell::new(Vec::new());
    let mut reads = vec![Vec::new(); steps.len()];
    for (index, step) in steps.iter().enumerate() {
        step.consumers.iter().for_each(|consumer| reads[*consumer].push(index));
    }
    let mut owner = Owner {
        scope: Scope::new(execution.plan, &execution.run.to_string(), execution.inputs.clone()),
        run: &run,
        statistics: &statistics,
        observers: &observers,
        holder: &holder,
        stores: &stores,
        records: steps.iter().map(|_| Record::default()).collect(),
        readers_left: steps.iter().map(|step| step.consumers.len()).collect(),
        reads,
        ready: run.borrow().view().tasks(State::Ready).collect(),
        in_flight: FuturesUnordered::new(),
        outputs: BTreeMap::new(),
        error: None,
        execution: &execution,
    };
    owner.drive().await;
    let mut outcome = owner.into_outcome();
    // A step that is cancelled while its output is being stored cannot take it back: what the disk has done is
    // waited for and told.
    for StoreInFlight { name, task } in stores.take() {
        if let Ok(Some(report)) = task.await {
            outcome.outputs.insert(name, report);
        }
    }
    // Whatever a call still holds is given back now and not when its answer comes.
    holder.retire();
    outcome
}

/// What is kept of each step.
#[derive(Debug, Default)]
struct Record {
    started: Option<Instant>,
    duration: Duration,
    items: Option<u64>,
    abort: Option<AbortHandle>,
}

/// How a step's future ends.
struct StepEnd {
    step: usize,
    result: Result<(StepSuccess, Option<OutputReport>), StepFailure>,
}

/// The tracker's news, kept: its own lists are valid only until its next change.
#[derive(Default)]
struct News {
    ready: Vec<Task>,
    cancelling: Vec<Task>,
    ended: Vec<StepId>,
}

impl From<Changes<'_>> for News {
    fn from(changes: Changes<'_>) -> Self {
        Self {
            ready: changes.ready.to_vec(),
            cancelling: changes.cancelling.to_vec(),
            ended: changes.ended.to_vec(),
        }
    }
}

struct Owner<'r> {
    execution: &'r Execution<'r>,
    run: &'r RefCell<Run>,
    statistics: &'r [StepStatistics],
    observers: &'r [StepObserver<'r>],
    holder: &'r Holder,
    stores: &'r RefCell<Vec<StoreInFlight>>,
    scope: Scope,
    records: Vec<Record>,
    /// For each step, the steps whose output it has still to read.
    reads: Vec<Vec<usize>>,
    /// For each step, how many have still to read its output.
    readers_left: Vec<usize>,
    ready: VecDeque<Task>,
    in_flight: FuturesUnordered<Abortable<LocalBoxFuture<'r, StepEnd>>>,
    outputs: BTreeMap<String, OutputReport>,
    error: Option<ErrorReport>,
}

impl<'r> Owner<'r> {
    async fn drive(&mut self) {
        let mut cancellation = self.execution.cancellation.clone();
        let mut is_cancelled = false;
        loop {
            while let Some(task) = self.ready.pop_front() {
                self.begin(task);
            }
            if self.run.borrow().view().state() != dag_tracker::RunState::Running {
                return;
            }
            tokio::select! {
                biased;
                exit = cancellation.wait(), if !is_cancelled => {
                    is_cancelled = true;
                    self.error.get_or_insert_with(|| cancelled(exit));
                    let news = News::from(self.run.borrow_mut().cancel());
                    self.settle(news);
                }
                end = self.in_flight.next() => match end {
                    Some(Ok(end)) => self.end(end),
                    // It was told to stop, and the tracker knows.
                    Some(Err(_)) => {}
                    // INVARIANT: while the run is not over, something is ready or in flight. Should this
                    // ever be wrong, then a report is better than a conductor that waits for ever.
                    None => {
                        tracing::error!("the run has nothing left to do and has not ended");
                        return;
                    }
                },
            }
        }
    }

    /// Begins a step that has become ready.
    fn begin(&mut self, task: Task) {
        let index = task.step.index();
        if self.run.borrow().view().status(task.step).state != State::Ready {
            return;
        }
        self.records[index].started = Some(Instant::now());
        let prepared = self.prepare(index);
        self.release_read_by(index);
        match prepared {
            Ok(None) => self.report(|run| run.skip(task)),
            Ok(Some(step)) => self.set_off(task, step),
            Err(error) => self.fail(index, StepFailure::new(error, None)),
        }
    }

    /// Evaluates what a step needs; `None` if its condition is false.
    fn prepare(&self, index: usize) -> Result<Option<StepTask<'r>>, StepError> {
        let Execution { plan, pit, extensions, priority, .. } = self.execution;
        let step = &plan.steps[index];
        if !plan.condition(index, &self.scope)? {
            return Ok(None);
        }
        let items = if step.fans_out { Some(plan.items(index, &self.scope)?) } else { None };
        let arguments = plan.arguments(index, &self.scope)?;
        let admission =
            Admission::of_step(pit, self.holder, step, *priority).map_err(StepError::Admission)?;
        let extension = extensions
            .get(&step.extension)
            .ok_or_else(|| StepError::Admission(AdmissionError::UnknownExtension(step.extension.clone())))?;
        Ok(Some(StepTask {
            plan: step,
            arguments: Some(arguments),
            items,
            caller: extension.caller.clone(),
            admission,
            timeout: step.timeout.unwrap_or(extension.timeout),
            in_flight_max: self.execution.items_in_flight_max,
            statistics: &self.statistics[index],
            observer: &self.observers[index],
        }))
    }

    fn set_off(&mut self, task: Task, step: StepTask<'r>) {
        let index = task.step.index();
        let items = step.items.as_ref().map(crate::melody::Items::len);
        self.records[index].items = items.map(u64::from);
        self.execution.progress.started(index, items.map(u64::from));
        if let Some(count) = items {
            self.start(task);
            // A fan-out over nothing ends with its artifact, as every other does.
            if count > 0 {
                self.report(|run| run.expand(task, count, dag_tracker::OnFailure::Stop));
            }
        }
        let (execution, stores) = (self.execution, self.stores);
        let carry_out = async move {
            let artifact = step.plan.artifact.as_deref();
            let result = match step.run().await {
                Ok(success) => {
                    store(execution, stores, artifact, &success).await.map(|report| (success, report))
                }
                Err(failure) => Err(failure),
            };
            StepEnd { step: index, result }
        };
        let (abort, registration) = AbortHandle::new_pair();
        self.records[index].abort = Some(abort);
        self.in_flight.push(Abortable::new(carry_out.boxed_local(), registration));
    }

    /// Takes what a step's future ended with.
    fn end(&mut self, end: StepEnd) {
        let StepEnd { step: index, result } = end;
        let (success, stored) = match result {
            Ok(done) => done,
            Err(failure) => return self.fail(index, failure),
        };
        if let (Some(report), Some(name)) = (stored, &self.execution.plan.steps[index].artifact) {
            self.outputs.insert(name.clone(), report);
        }
        if self.readers_left[index] > 0 {
            self.scope.set_output(index, success.output);
        }
        let observer = &self.observers[index];
        match success.last {
            Some((item, attempt)) => {
                let task = observer.task(item, attempt);
                self.execution.progress.items_done(index, self.records[index].items.unwrap_or(1));
                self.report(|run| run.complete(task));
            }
            None => {
                let task = Task { step: observer.step, item: None, attempt: 1 };
                self.report(|run| run.expand(task, 0, dag_tracker::OnFailure::Stop));
            }
        }
    }

    /// A step has failed for good.
    fn fail(&mut self, index: usize, failure: StepFailure) {
        let step = &self.execution.plan.steps[index];
        let value = failure.item.as_ref().map(|value| shortened(value));
        let item = failure.last.zip(value.as_deref());
        let item = item.map(|((index, _), value)| FailedItem { index, value });
        let place = Where {
            step: Some(&step.id),
            extension: &step.extension,
            item,
            is_idempotent: step.is_idempotent,
            call_time_max: self.execution.extensions.get(&step.extension).and_then(|it| it.call_time_max),
        };
        let told = report(&failure.error, place);
        tracing::debug!(step = %step.id, error = %told.message, "a step failed");
        self.error.get_or_insert(told);
        let observer = &self.observers[index];
        let task = match failure.last {
            Some((item, attempt)) => observer.task(item, attempt),
            // Before any attempt. What was expanded fails through its first item.
            None => {
                let is_expanded = self.records[index].items.is_some_and(|items| items > 0);
                let task = Task { step: observer.step, item: is_expanded.then_some(0), attempt: 1 };
                self.start(task);
                task
            }
        };
        self.report(|run| run.fail(task, Then::End));
    }

    fn start(&self, task: Task) {
        if let Err(error) = self.run.borrow_mut().start(task) {
            tracing::debug!(%task, %error, "not started");
        }
    }

    /// Tells the tracker, and draws the consequences.
    fn report(&mut self, change: impl FnOnce(&mut Run) -> Result<Changes<'_>, TaskError>) {
        let news = match change(&mut self.run.borrow_mut()) {
            Ok(changes) => News::from(changes),
            // Something else was faster, for example a cancel: the report is late, and dropped.
            Err(error) => return tracing::debug!(%error, "a late report"),
        };
        self.settle(news);
    }

    fn settle(&mut self, news: News) {
        let mut open = vec![news];
        while let Some(news) = open.pop() {
            self.ready.extend(news.ready);
            for task in news.cancelling {
                // Dropping the future cancels its calls; there is nothing to wait for.
                match self.run.borrow_mut().fail(task, Then::End) {
                    Ok(changes) => open.push(News::from(changes)),
                    Err(error) => tracing::debug!(%task, %error, "not cancelled"),
                }
            }
            for step in news.ended {
                self.ended(step);
            }
        }
    }

    /// A step has ended, in whatever way.
    fn ended(&mut self, step: StepId) {
        let index = step.index();
        self.release_read_by(index);
        let record = &mut self.records[index];
        if let Some(abort) = record.abort.take() {
            abort.abort();
        }
        record.duration = record.started.map_or(Duration::ZERO, |started| started.elapsed());
        let state = self.run.borrow().view().status(step).state;
        self.execution.progress.ended(index, &state.to_string(), record.duration);
    }

    /// The outputs that a step reads may go once nobody else needs them.
    fn release_read_by(&mut self, index: usize) {
        for producer in std::mem::take(&mut self.reads[index]) {
            self.readers_left[producer] -= 1;
            if self.readers_left[producer] == 0 {
                self.scope.release(producer);
            }
        }
    }

    fn into_outcome(self) -> Outcome {
        let run = self.run.borrow();
        let view = run.view();
        let report = |index: usize, step: StepId| {
            let record = &self.records[index];
            let state = view.status(step).state;
            let is_explained = matches!(state, State::Skipped | State::Blocked | State::Cancelled);
            StepReport {
                id: self.execution.plan.steps[index].id.clone(),
                state: state.to_string(),
                attempts: self.statistics[index].attempts(),
                duration_ms: (record.duration.as_secs_f64() * 1e6).round() / 1e3,
                causes: self.statistics[index].causes(),
                items: record.items,
                why: is_explained.then(|| view.why(step).to_string()),
            }
        };
        let steps = view.graph().steps().enumerate().map(|(index, step)| report(index, step)).collect();
        let state = bridge::run_state(view.state());
        let error = self.error.filter(|_| state != RunState::Succeeded);
        Outcome { state, steps, outputs: self.outputs, error }
    }
}

fn cancelled(exit: Exit) -> ErrorReport {
    let by = match exit {
        Exit::Terminated => "SIGTERM",
        Exit::HungUp => "SIGHUP",
        _ => "Ctrl-C",
    };
    ErrorReport::cancelled(format!("the run was cancelled by {by}"))
}
