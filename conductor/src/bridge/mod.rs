//! The one module where the words of the Pit, of the bus and of melodies meet.
//!
//! The Pit's crates know neither sockets nor melodies, the host knows no policy, and a melody knows only
//! names. Here a step's claims become a claim of the arbiter and its leases leases of models
//! ([`admission`]), its output becomes an artifact ([`output`]), and the wish of the host and of the pools to be
//! told of what is idle becomes an entry of the stale manager ([`expiry`]), what an extension keeps an artifact ([`storage`]). This module must not decide anything.

pub mod admission;
pub mod expiry;
pub mod output;
pub mod storage;

use crate::document::RunState;

pub use admission::{Admission, AdmissionError, Admitted};
pub use expiry::{Expiring, ExpiringThing, IdleModels, StaleExpiry};
pub use output::{StoreError, store_output};
pub use storage::StoreStorage;

/// What the tracker does with the other steps when one fails.
#[must_use]
pub const fn on_failure(of_melody: crate::melody::OnFailure) -> dag_tracker::OnFailure {
    match of_melody {
        crate::melody::OnFailure::FailFast => dag_tracker::OnFailure::Stop,
        crate::melody::OnFailure::CarryOn => dag_tracker::OnFailure::CarryOn,
    }
}

/// The state of a run as its document says it. A run that could not be carried on counts as failed.
#[must_use]
pub const fn run_state(of_tracker: dag_tracker::RunState) -> RunState {
    match of_tracker {
        dag_tracker::RunState::Succeeded => RunState::Succeeded,
        dag_tracker::RunState::Cancelled => RunState::Cancelled,
        dag_tracker::RunState::Failed | dag_tracker::RunState::Running => RunState::Failed,
    }
}
