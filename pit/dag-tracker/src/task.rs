//! The name of one piece of work: a step, or one item of its fan-out, in one attempt.

use std::fmt;

use crate::graph::StepId;

/// One attempt at a step, or at one item of a step that has been expanded. Printed as `task:17@3` or `task:17.204@3`.
///
/// The attempt tells a late report from a present one, so a task is handed on whole by whoever executes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// The step.
    pub step: StepId,
    /// The item, from 0; `None` is the step itself.
    pub item: Option<u32>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.item {
            None => write!(f, "task:{}@{}", self.step.0, self.attempt),
            Some(item) => write!(f, "task:{}.{item}@{}", self.step.0, self.attempt),
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn task_prints_step_item_and_attempt() {
        let task = Task { step: StepId(17), item: None, attempt: 3 };
        assert_eq!(task.to_string(), "task:17@3");
        assert_eq!(format!("{:?}", Task { item: Some(204), ..task }), "task:17.204@3");
        assert_eq!(size_of::<Task>(), 16);
    }
}
