//! A step's output on its way to the disk, which nothing can call back: whoever began it, waits for it in the end.

use std::cell::RefCell;

use super::Execution;
use super::failure::StepError;
use super::step::{StepFailure, StepSuccess};
use crate::bridge::{self, StoreError};
use crate::document::OutputReport;
use crate::melody::StepOutput;

/// An output on its way to the disk, whoever still waits for it.
pub(super) struct StoreInFlight {
    pub(super) name: String,
    pub(super) task: tokio::task::JoinHandle<Option<OutputReport>>,
}

/// Stores a step's output durably, if it is to be stored.
pub(super) async fn store(
    execution: &Execution<'_>,
    stores: &RefCell<Vec<StoreInFlight>>,
    artifact: Option<&str>,
    success: &StepSuccess,
) -> Result<Option<OutputReport>, StepFailure> {
    let Some(name) = artifact else { return Ok(None) };
    let (store, path) = (execution.pit.artifacts.clone(), format!("{}/{name}", execution.run));
    let output: StepOutput = success.output.clone();
    let (tell, told) = tokio::sync::oneshot::channel();
    let task = tokio::task::spawn_blocking(move || {
        let stored = bridge::store_output(&store, &path, &output);
        let report = stored.as_ref().ok().cloned();
        // Nobody may wait any more.
        let _ = tell.send(stored);
        report
    });
    stores.borrow_mut().push(StoreInFlight { name: name.to_owned(), task });
    let stored = told.await.unwrap_or(Err(StoreError::Interrupted));
    stored
        .map(Some)
        .map_err(|source| StepFailure::new(StepError::Store { name: name.to_owned(), source }, success.last))
}
