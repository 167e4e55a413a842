//! What the templates of one run are evaluated against: its id, its inputs, the outputs of its steps.
//!
//! This file must not know how a step is carried out, nor when an output is no longer needed.

use std::sync::Arc;

use bytes::Bytes;

use super::input::InputValues;
use super::message_pack;
use super::plan::Plan;
use super::template::{Context, Source, Template};
use super::value::StepOutput;

/// The values of one run. Owned by whoever owns the run.
#[derive(Debug)]
pub struct Scope {
    run_id: Bytes,
    inputs: Arc<InputValues>,
    step_ids: Arc<[String]>,
    outputs: Vec<Option<StepOutput>>,
}

impl Scope {
    /// The scope of a run of `plan` that has no output yet.
    #[must_use]
    pub fn new(plan: &Plan, run_id: &str, inputs: InputValues) -> Self {
        let mut id = Vec::new();
        // A run's id is short; one that does not fit into a message would be nil.
        if message_pack::append_string(&mut id, run_id).is_err() {
            message_pack::append_nil(&mut id);
        }
        Self {
            run_id: id.into(),
            inputs: Arc::new(inputs),
            step_ids: plan.step_ids(),
            outputs: vec![None; plan.steps.len()],
        }
    }

    /// Takes the output of a step; an index that is none of the plan's is ignored.
    pub fn set_output(&mut self, step: usize, output: StepOutput) {
        if let Some(slot) = self.outputs.get_mut(step) {
            *slot = Some(output);
        }
    }

    /// The output of a step, if it is here.
    #[must_use]
    pub fn output(&self, step: usize) -> Option<&StepOutput> {
        self.outputs.get(step)?.as_ref()
    }

    /// Frees the output of a step, unless arguments that were built from it still share its bytes.
    pub fn release(&mut self, step: usize) {
        if let Some(slot) = self.outputs.get_mut(step) {
            *slot = None;
        }
    }

    /// What `templates` read, sharing the bytes.
    pub(super) fn context<'t>(&self, templates: impl Iterator<Item = &'t Template>) -> Context {
        let references = templates.flat_map(|template| &template.references);
        let outputs = references.filter_map(|reference| match reference.source {
            Source::Step(index) => Some((index, self.output(index)?.clone())),
            _ => None,
        });
        Context {
            step_ids: self.step_ids.clone(),
            outputs: outputs.collect(),
            inputs: self.inputs.clone(),
            run_id: self.run_id.clone(),
        }
    }
}
