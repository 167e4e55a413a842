//! The state of workflow graphs: which step may run, which waits, and why.
//!
//! A [`Graph`] is checked once and shared by all its runs. A [`Run`] has one owner, who reports what happens to its tasks
//! and is told what that changes; everybody else reads through a [`RunView`] without a lock. The tracker evaluates no
//! conditions, executes nothing, and knows no clock, no disk and no melody.
//!
//! ```
//! use dag_tracker::{GraphBuilder, OnFailure, Run, RunState, State};
//!
//! let mut builder = GraphBuilder::new();
//! let list = builder.step("list", []);
//! let measure = builder.step("measure", ["list"]);
//! let report = builder.step("report", ["list", "measure"]);
//! let mut run = Run::new(builder.build()?, OnFailure::Stop);
//!
//! let first = run.view().tasks(State::Ready).next().expect("a step without dependencies is ready");
//! assert_eq!(first.step, list);
//! run.start(first)?;
//! let next = run.complete(first)?.ready[0];
//! assert_eq!(next.step, measure);
//!
//! run.start(next)?;
//! run.expand(next, 2, OnFailure::Stop)?;
//! let items: Vec<_> = run.view().tasks(State::Ready).collect();
//! for &item in &items {
//!     run.start(item)?;
//! }
//! assert!(run.complete(items[0])?.ready.is_empty());
//! let last = run.complete(items[1])?.ready[0];
//! assert_eq!(last.step, report);
//!
//! run.start(last)?;
//! assert_eq!(run.complete(last)?.run, RunState::Succeeded);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod budget;
mod join;
mod state;
mod tally;
mod word;

mod builder;
mod graph;

mod error;
mod task;

mod items;
mod segments;

mod fan_out;
mod news;
mod run;
mod settle;

mod snapshot;
mod view;
mod why;

#[cfg(all(test, loom))]
mod model;

pub use budget::{RETRY_CLASSES_MAX, RetryBudget, RetryClass};
pub use builder::GraphBuilder;
pub use error::{GraphError, TaskError};
pub use graph::{Graph, STEPS_MAX, StepId};
pub use items::ITEMS_MAX;
pub use join::Join;
pub use run::{Changes, OnFailure, Run, Then};
pub use snapshot::Snapshot;
pub use state::State;
pub use tally::Tally;
pub use task::Task;
pub use view::{Cause, RunState, RunView, Status};
pub use why::Why;
pub use word::ATTEMPTS_MAX;
