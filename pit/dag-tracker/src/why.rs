//! The answer to "why does this step not run?", for people and for programs.
//!
//! It is put together from what any reader sees; nothing is recorded for it.

use std::{fmt, sync::Arc};

use crate::{
    graph::{Graph, StepId},
    state::{State, Tally},
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
    /// Its items, if it has been expanded.
    pub items: Option<Tally>,
    graph: Arc<Graph>,
}

impl Why {
    pub(crate) fn of(view: &RunView, step: StepId) -> Self {
        let status = view.status(step);
        let waits_for = if status.state == State::Waiting {
            let unfinished = |step: &StepId| !view.status(*step).state.is_ended();
            view.graph().dependencies(step).iter().copied().filter(unfinished).collect()
        } else {
            Vec::new()
        };
        Self { step, status, waits_for, items: view.item_tally(step), graph: Arc::clone(view.graph()) }
    }

    fn write_cause(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status.cause {
            None => Ok(()),
            Some(Cause::Condition) => f.write_str(", because its condition is false"),
            Some(Cause::SkippedStep(step)) => {
                write!(f, ", because `{}` was skipped", self.graph.name(step))
            }
            Some(Cause::FailedStep(step)) => write!(f, ", because `{}` failed", self.graph.name(step)),
            Some(Cause::FailedItem(item)) => write!(f, ", because its item {item} failed"),
            Some(Cause::Request) => f.write_str(", because the run was cancelled"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { state, attempts, .. } = self.status;
        write!(f, "`{}` ", self.graph.name(self.step))?;
        match state {
            State::Waiting => {
                f.write_str("waits")?;
                for (place, &step) in self.waits_for.iter().take(NAMES_SHOWN_MAX).enumerate() {
                    write!(f, "{}`{}`", if place == 0 { " for " } else { ", " }, self.graph.name(step))?;
                }
                match self.waits_for.len().saturating_sub(NAMES_SHOWN_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
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
