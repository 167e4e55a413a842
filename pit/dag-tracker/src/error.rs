//! What can be wrong with a declared graph, and with a report about a task.

use thiserror::Error;

use crate::{items::ITEMS_MAX, state::State, task::Task, word::ATTEMPTS_MAX};

/// LIMIT: names of a cycle that the message shows.
const CYCLE_NAMES_SHOWN_MAX: usize = 12;

/// Why a declared graph cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GraphError {
    /// Two steps have the same name.
    #[error("step `{name}` is declared twice")]
    DuplicateStep {
        /// The name.
        name: String,
    },
    /// A dependency names no step.
    #[error("step `{step}` waits for `{name}`, which does not exist")]
    UnknownStep {
        /// The step with the dependency.
        step: String,
        /// What it names.
        name: String,
    },
    /// A join wants more endings than there are dependencies, or none at all.
    #[error("step `{step}` wants {wanted} of {of} dependencies")]
    JoinNeverMet {
        /// The step with the join.
        step: String,
        /// How many it wants.
        wanted: u32,
        /// How many dependencies it has.
        of: u32,
    },
    /// An ordinary step waits for a finally-step, which may itself wait for all ordinary ones.
    #[error("step `{step}` waits for `{name}`, which is a finally-step")]
    AfterFinally {
        /// The ordinary step.
        step: String,
        /// The finally-step.
        name: String,
    },
    /// Steps that wait for each other.
    #[error("steps wait for each other: {}", shown(path))]
    Cycle {
        /// The names along the cycle, each waiting for the next, the first also the last.
        path: Vec<String>,
    },
    /// More steps than a graph can have.
    #[error("more than {limit} steps")]
    TooManySteps {
        /// The limit.
        limit: u32,
    },
    /// More dependencies than a graph can have.
    #[error("more than {limit} dependencies")]
    TooManyDependencies {
        /// The limit.
        limit: u32,
    },
}

fn shown(path: &[String]) -> String {
    if path.len() <= CYCLE_NAMES_SHOWN_MAX {
        return path.join(" -> ");
    }
    format!("{} -> ... ({} steps)", path[..CYCLE_NAMES_SHOWN_MAX].join(" -> "), path.len() - 1)
}

/// Why a report about a task was refused. Nothing has been changed then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TaskError {
    /// The run has no such step, or the step no such item.
    #[error("{task} does not exist in this run")]
    UnknownTask {
        /// The task reported on.
        task: Task,
    },
    /// The report is about another attempt than the present one; usually it is late, and to be dropped.
    #[error("{task} is not the present attempt, which is {current}")]
    StaleAttempt {
        /// The task and attempt reported on.
        task: Task,
        /// The number of the present attempt.
        current: u32,
    },
    /// The task's state does not allow this change, for example because it has ended or was cancelled meanwhile.
    #[error("{task} is {from} and cannot become {to}")]
    Illegal {
        /// The task reported on.
        task: Task,
        /// Its present state.
        from: State,
        /// The state asked for.
        to: State,
    },
    /// What has been expanded starts and ends with its items and not by itself.
    #[error("{task} has been expanded and ends with its items")]
    Expanded {
        /// The task reported on.
        task: Task,
    },
    /// Only a running step or item can be expanded.
    #[error("{task} is {state} and can be expanded only while it runs")]
    NotRunning {
        /// The task to be expanded.
        task: Task,
        /// Its present state.
        state: State,
    },
    /// More items than the fan-out of one step can have, nested ones included.
    #[error("{task} would get {count} items, the limit for one step is {ITEMS_MAX}")]
    TooManyItems {
        /// The task to be expanded.
        task: Task,
        /// The number of items asked for.
        count: u32,
    },
    /// The task has been tried too often to be tried again; report its failure as final.
    #[error("{task} cannot be tried again, the limit is {ATTEMPTS_MAX} attempts")]
    TooManyAttempts {
        /// The task reported on.
        task: Task,
    },
}
