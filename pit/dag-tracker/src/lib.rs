//! The state of workflow graphs: which step may run, which waits, and why.
//!
//! A [`Graph`] is checked once and shared by all its runs. A [`Run`] has one owner, who reports what happens to its tasks
//! and is told what that changes; everybody else reads through a [`RunView`] without a lock. The tracker decides no
//! retries, conditions or concurrency, executes nothing, and knows no clock, no disk and no melody.
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

mod graph;
mod state;

mod error;
mod join;
mod run;
mod task;

mod view;
mod why;

pub use error::{GraphError, TaskError};
pub use graph::{Graph, GraphBuilder, STEPS_MAX, StepId};
pub use run::{Changes, ITEMS_MAX, OnFailure, Run, Then};
pub use state::{ATTEMPTS_MAX, State, Tally};
pub use task::Task;
pub use view::{Cause, RunState, RunView, Status};
pub use why::Why;
