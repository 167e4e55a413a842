//! The answer to "why does this step not run?", for people and for programs.
//!
//! It is put together from what any reader sees; nothing is recorded for it.

use std::{fmt, sync::Arc};

use crate::{
    graph::{Graph, StepId},
    join::Join,
    state::State,
    tally::Tally,
    view::{Cause, RunView, Status},
};

/// LIMIT: names of dependencies that the text shows.
const NAMES_SHOWN_MAX: usize = 8;

/// Why a step is in its state. `Display` says it in a sentence with the names of the steps.
#[derive(Clone, Debug)]
pub struct Why {
    /// The step asked about.
    pub step: StepId,
    /// Its state.
    pub status: Status,
    /// Its dependencies that have not ended, if it waits.
    pub waits_for: Vec<StepId>,
    /// How many of those it still wants, if it waits for fewer than all: successes, or with [`Join::AllDone`] ends.
    pub wanted: u32,
    /// Whether it waits for all ordinary steps, being a finally-step without dependencies.
    pub waits_for_all: bool,
    /// Its items, if it has been expanded.
    pub items: Option<Tally>,
    /// Where the item is that has made it fail: its place in its fan-out, before it those of the items around it.
    failed_item: Vec<u32>,
    graph: Arc<Graph>,
}

impl Why {
    pub(crate) fn of(view: &RunView, step: StepId) -> Self {
        let word = view.shared.slots[step.index()].read();
        let status = view.shared.status_of(step, word);
        let is_waiting = status.state == State::Waiting;
        let dependencies = view.graph().dependencies(step);
        let mut waits_for = Vec::new();
        if is_waiting {
            let unfinished = |step: &StepId| !view.status(*step).state.is_ended();
            waits_for.extend(dependencies.iter().copied().filter(unfinished));
        }
        Self {
            step,
            status,
            waits_for,
            wanted: if is_waiting { word.joining().wanted } else { 0 },
            waits_for_all: is_waiting && dependencies.is_empty(),
            items: view.item_tally(step),
            failed_item: match status.cause {
                Some(Cause::FailedItem(item)) => view.item_path(step, item),
                _ => Vec::new(),
            },
            graph: Arc::clone(view.graph()),
        }
    }

    fn write_waiting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.waits_for_all {
            return f.write_str("waits for the end of all other steps");
        }
        match self.graph.join(self.step) {
            Join::All => f.write_str("waits")?,
            Join::AllDone => f.write_str("waits, in whatever way they end,")?,
            Join::Any | Join::AtLeast(_) => write!(f, "waits until {} more have succeeded,", self.wanted)?,
        }
        for (place, &step) in self.waits_for.iter().take(NAMES_SHOWN_MAX).enumerate() {
            write!(f, "{}`{}`", if place == 0 { " for " } else { ", " }, self.graph.name(step))?;
        }
        match self.waits_for.len().saturating_sub(NAMES_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }

    fn write_cause(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status.cause {
            None => Ok(()),
            Some(Cause::Condition) => f.write_str(", because its condition is false"),
            Some(Cause::SkippedStep(step)) => {
                write!(f, ", because `{}` was skipped", self.graph.name(step))
            }
            Some(Cause::FailedStep(step)) => write!(f, ", because `{}` failed", self.graph.name(step)),
            Some(Cause::CancelledStep(step)) => {
                write!(f, ", because `{}` was cancelled", self.graph.name(step))
            }
            Some(Cause::FailedItem(_)) => {
                f.write_str(", because its item ")?;
                for (place, index) in self.failed_item.iter().enumerate() {
                    write!(f, "{}{index}", if place == 0 { "" } else { "." })?;
                }
                f.write_str(" failed")
            }
            Some(Cause::RetriesSpent(class)) => {
                write!(f, ", because its retries for failures of class {} are used up", class.number())
            }
            Some(Cause::Request) => f.write_str(", because the run was cancelled"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { state, attempts, .. } = self.status;
        write!(f, "`{}` ", self.graph.name(self.step))?;
        match state {
            State::Waiting => self.write_waiting(f),
            State::Ready => f.write_str("is ready and has not been started"),
            State::Running => match self.items {
                None => write!(f, "runs, attempt {attempts}"),
                Some(items) => write!(f, "runs, {} of {} items have ended", items.ended(), items.total()),
            },
            State::BackingOff => write!(f, "failed in attempt {attempts} and waits for the next"),
            State::Cancelling => {
                f.write_str("was told to stop")?;
                self.write_cause(f)?;
                f.write_str(", and has not answered yet")
            }
            State::Succeeded => write!(f, "succeeded in attempt {attempts}"),
            State::Failed => {
                write!(f, "failed in attempt {attempts}")?;
                self.write_cause(f)
            }
            State::Skipped | State::Cancelled => {
                write!(f, "was {state}")?;
                self.write_cause(f)
            }
            State::Blocked => {
                f.write_str("cannot run")?;
                self.write_cause(f)
            }
        }
    }
}
