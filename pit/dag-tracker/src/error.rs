//! What can be wrong with a declared graph, and with a report about a task.

use thiserror::Error;

use crate::{
    run::ITEMS_MAX,
    state::{ATTEMPTS_MAX, State},
    task::Task,
};

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
    /// A step that has been expanded starts and ends with its items and not by itself.
    #[error("{task} has been expanded and ends with its items")]
    Expanded {
        /// The step's task.
        task: Task,
    },
    /// Only a running step can be expanded.
    #[error("{task} is {state} and can be expanded only while it runs")]
    NotRunning {
        /// The step's task.
        task: Task,
        /// Its present state.
        state: State,
    },
    /// An item of a fan-out cannot be expanded again.
    #[error("{task} is an item and cannot be expanded")]
    NestedFanOut {
        /// The item's task.
        task: Task,
    },
    /// More items than a fan-out can have.
    #[error("{task} has {count} items, the limit is {ITEMS_MAX}")]
    TooManyItems {
        /// The step's task.
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
