//! A run: one task owns it, the dag-tracker says what may run, and every step goes the same way.
//!
//! ```text
//! ready --when false--> skipped
//!   |
//!   +--> items and arguments --> claim --> lease --> call --> result --> artifact --> complete --> ready ...
//!                                  ^                  |                    (durable before anyone sees it)
//!                                  +---- backing off <+
//! ```
//!
//! The engine decides nothing about graphs (dag-tracker), admission (arbitration, pool-manager), instances
//! (extension-host) or values (melody): it connects them. It must not print, and must not know where
//! extensions come from.

mod failure;
mod retry;
mod step;

mod observer;
mod storing;

mod run;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipc_transport::Caller;

use pit_core::priority::Priority;

use crate::document::{ErrorReport, OutputReport, RunState, StepReport};
use crate::melody::{InputValues, Plan};
use crate::pit::Pit;
use crate::progress::Progress;
use crate::run_id::RunId;
use crate::signals::Cancellation;

pub use failure::{FailedItem, StepError, Where, report};

/// Everything that a run needs.
#[expect(missing_debug_implementations, reason = "a caller may be anything")]
pub struct Execution<'a> {
    /// Its name.
    pub run: RunId,
    /// What is to be done.
    pub plan: &'a Plan,
    /// With which inputs.
    pub inputs: InputValues,
    /// Claims, leases and artifacts.
    pub pit: &'a Pit,
    /// The extensions that the plan calls, by name.
    pub extensions: &'a BTreeMap<String, Extension>,
    /// LIMIT: items of one fan-out in flight at the same time.
    pub items_in_flight_max: u32,
    /// How urgent a step's claims and leases are that does not say.
    pub priority: Priority,
    /// Who watches.
    pub progress: &'a Progress,
    /// Who may ask for an end.
    pub cancellation: Cancellation,
}

/// An extension as the engine sees it.
#[expect(missing_debug_implementations, reason = "a caller may be anything")]
#[derive(Clone)]
pub struct Extension {
    /// Calls it.
    pub caller: Arc<dyn Caller>,
    /// Time of a call whose step names none.
    pub timeout: Duration,
    /// The manifest's `limits.call`: no call takes longer, whatever its step names.
    pub call_time_max: Option<Duration>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its state.
    pub state: RunState,
    /// Its steps, in the order of the plan.
    pub steps: Vec<StepReport>,
    /// What it stored, by name.
    pub outputs: BTreeMap<String, OutputReport>,
    /// The first failure.
    pub error: Option<ErrorReport>,
}

impl Execution<'_> {
    /// Runs the plan to its end, whatever that is.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels all calls in flight; what was stored stays.
    pub async fn execute(self) -> Outcome {
        run::execute(self).await
    }
}
