//! What the present report has changed so far, and how much of the run is left.
//!
//! The owner's scratch pad: emptied before each report, never shrunk.

use crate::{
    graph::{Graph, StepId},
    task::Task,
};

#[derive(Default)]
pub(crate) struct News {
    pub(crate) ready: Vec<Task>,
    pub(crate) cancelling: Vec<Task>,
    pub(crate) ended: Vec<StepId>,
    /// Steps that have not ended, and how many of them are finally-steps.
    pub(crate) unfinished: u32,
    pub(crate) finally_unfinished: u32,
    /// Whether a step has failed whose failure is not tolerated.
    pub(crate) has_failed: bool,
}

impl News {
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.ready.clear();
        self.cancelling.clear();
        self.ended.clear();
    }

    /// Notes that a step has ended.
    #[inline]
    pub(crate) fn end(&mut self, step: StepId, graph: &Graph) {
        self.ended.push(step);
        self.unfinished -= 1;
        if self.finally_unfinished > 0 && graph.is_finally(step) {
            self.finally_unfinished -= 1;
        }
    }
}
