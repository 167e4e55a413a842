//! What happens to the items of one step, passed on: to the tracker, and to whoever watches.
//!
//! This file must not know how a step is carried out, nor what follows from its end.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use dag_tracker::{Run, StepId, Task, TaskError, Then};
use ipc_transport::ProgressSink;

use super::step::Observer;
use crate::progress::Progress;

/// LIMIT: attempts of one step that are told of one by one; the rest is in its counts.
const RETRY_NOTES_MAX: u32 = 8;

/// Passes on to the tracker and to whoever watches what happens to the items of one step.
pub(super) struct StepObserver<'r> {
    run: &'r RefCell<Run>,
    progress: &'r Progress,
    pub(super) step: StepId,
    fans_out: bool,
    notes: Cell<u32>,
}

impl<'r> StepObserver<'r> {
    pub(super) const fn new(
        run: &'r RefCell<Run>,
        progress: &'r Progress,
        step: StepId,
        fans_out: bool,
    ) -> Self {
        Self { run, progress, step, fans_out, notes: Cell::new(0) }
    }

    pub(super) fn task(&self, item: u32, attempt: u32) -> Task {
        Task { step: self.step, item: self.fans_out.then_some(item), attempt }
    }

    fn expect<T>(&self, result: Result<T, TaskError>) {
        // The future of a step that was told to stop is dropped before it can report anything.
        if let Err(error) = result {
            tracing::debug!(step = %self.step, %error, "a report was not taken");
        }
    }
}

impl Observer for StepObserver<'_> {
    fn started(&self, item: u32, attempt: u32) {
        self.expect(self.run.borrow_mut().start(self.task(item, attempt)));
    }

    fn backing_off(&self, item: u32, attempt: u32, cause: &str, wait: Duration) {
        self.expect(self.run.borrow_mut().fail(self.task(item, attempt), Then::Again).map(drop));
        let notes = self.notes.get();
        self.notes.set(notes.saturating_add(1));
        if notes < RETRY_NOTES_MAX {
            let item = if self.fans_out { format!("item {item}, ") } else { String::new() };
            let text = format!("{item}attempt {attempt} failed ({cause}), the next one in {wait:.1?}");
            self.progress.note(self.step.index(), &text);
        }
    }

    fn listener(&self, item: u32) -> Option<ProgressSink> {
        let listener = self.progress.listener(self.step.index(), self.fans_out.then_some(item))?;
        Some(ProgressSink::new(move |progress| {
            listener.hear(progress.done, progress.total, &progress.message);
        }))
    }

    fn due(&self, item: u32, attempt: u32) {
        self.expect(self.run.borrow_mut().resume(self.task(item, attempt)));
    }

    fn done(&self, item: u32, attempt: u32, items_done: u32) {
        self.expect(self.run.borrow_mut().complete(self.task(item, attempt)).map(drop));
        self.progress.items_done(self.step.index(), u64::from(items_done));
    }
}
