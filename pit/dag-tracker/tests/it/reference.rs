//! The rules of a run said as plainly as possible: after each event, every rule is applied to every step until nothing
//! changes any more. It shares no code with the tracker but the names of the states.

use std::collections::BTreeSet;

use dag_tracker::{Graph, OnFailure, RunState, State, StepId, Task, Then};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Start(Task),
    Complete(Task),
    Fail(Task, Then),
    Resume(Task),
    Skip(Task),
    Expand(Task, u32, OnFailure),
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) state: State,
    /// How many attempts have been begun.
    pub(crate) begun: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) unit: Unit,
    needs: Vec<usize>,
    pub(crate) items: Option<(Vec<Unit>, OnFailure)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) steps: Vec<Step>,
    ids: Vec<StepId>,
    on_failure: OnFailure,
    cancel_was_asked_for: bool,
}

fn has_ended(unit: &Unit) -> bool {
    matches!(
        unit.state,
        State::Succeeded | State::Failed | State::Skipped | State::Cancelled | State::Blocked
    )
}

fn waits_for_its_attempt(unit: &Unit) -> bool {
    matches!(unit.state, State::Waiting | State::Ready | State::BackingOff)
}

fn told_to_stop(unit: &mut Unit) {
    if waits_for_its_attempt(unit) {
        unit.state = State::Cancelled;
    } else if unit.state == State::Running {
        unit.state = State::Cancelling;
    }
}

impl Reference {
    pub(crate) fn new(graph: &Graph, on_failure: OnFailure) -> Self {
        let steps = graph.steps().map(|id| Step {
            unit: Unit { state: State::Waiting, begun: 0 },
            needs: graph.dependencies(id).iter().map(|id| id.index()).collect(),
            items: None,
        });
        let mut reference = Self {
            steps: steps.collect(),
            ids: graph.steps().collect(),
            on_failure,
            cancel_was_asked_for: false,
        };
        reference.apply_rules();
        reference
    }

    /// Whether the event is accepted; if not, nothing has changed.
    pub(crate) fn happen(&mut self, event: Event) -> bool {
        let accepted = match event {
            Event::Cancel => {
                self.cancel_was_asked_for = true;
                true
            }
            Event::Start(task) => self.change(task, |unit| {
                let possible = unit.state == State::Ready;
                if possible {
                    *unit = Unit { state: State::Running, begun: unit.begun + 1 };
                }
                possible
            }),
            Event::Complete(task) => self.change(task, |unit| {
                let possible = matches!(unit.state, State::Running | State::Cancelling);
                if possible {
                    unit.state = State::Succeeded;
                }
                possible
            }),
            Event::Fail(task, then) => self.change(task, |unit| {
                unit.state = match (unit.state, then) {
                    (State::Cancelling, _) => State::Cancelled,
                    (State::Running, Then::End) => State::Failed,
                    (State::Running, Then::Again) => State::BackingOff,
                    _ => return false,
                };
                true
            }),
            Event::Resume(task) => self.change(task, |unit| {
                let possible = unit.state == State::BackingOff;
                if possible {
                    unit.state = State::Ready;
                }
                possible
            }),
            Event::Skip(task) if task.item.is_some() => false,
            Event::Skip(task) => self.change(task, |unit| {
                let possible = unit.state == State::Ready;
                if possible {
                    unit.state = State::Skipped;
                }
                possible
            }),
            Event::Expand(task, ..) if task.item.is_some() => false,
            Event::Expand(task, count, on_failure) => {
                let possible = self.change(task, |unit| unit.state == State::Running);
                if possible {
                    let item = Unit { state: State::Ready, begun: 0 };
                    self.steps[task.step.index()].items = Some((vec![item; count as usize], on_failure));
                }
                possible
            }
        };
        if accepted {
            self.apply_rules();
        }
        accepted
    }

    fn change(&mut self, task: Task, how: impl FnOnce(&mut Unit) -> bool) -> bool {
        let Some(step) = self.steps.get_mut(task.step.index()) else { return false };
        let unit = match (task.item, &mut step.items) {
            (None, None) => &mut step.unit,
            (Some(item), Some((items, _))) if (item as usize) < items.len() => &mut items[item as usize],
            _ => return false,
        };
        let present = if waits_for_its_attempt(unit) { unit.begun + 1 } else { unit.begun };
        task.attempt == present && how(unit)
    }

    fn apply_rules(&mut self) {
        self.until_nothing_changes(|this, step| {
            this.rule_items(step);
            this.rule_join(step);
        });
        let a_step_failed = self.steps.iter().any(|step| step.unit.state == State::Failed);
        if self.cancel_was_asked_for || (a_step_failed && self.on_failure == OnFailure::Stop) {
            for step in &mut self.steps {
                told_to_stop(&mut step.unit);
                if let (State::Cancelling, Some((items, _))) = (step.unit.state, &mut step.items) {
                    items.iter_mut().for_each(told_to_stop);
                }
            }
            self.until_nothing_changes(Self::rule_items);
        }
    }

    fn until_nothing_changes(&mut self, rules: impl Fn(&mut Self, usize)) {
        loop {
            let before: Vec<_> = self.steps.iter().map(|step| (step.unit, step.items.clone())).collect();
            for step in 0..self.steps.len() {
                rules(self, step);
            }
            if before.iter().zip(&self.steps).all(|(before, step)| *before == (step.unit, step.items.clone()))
            {
                return;
            }
        }
    }

    fn rule_items(&mut self, step: usize) {
        let step = &mut self.steps[step];
        let Some((items, on_failure)) = &mut step.items else { return };
        if has_ended(&step.unit) {
            return;
        }
        let one_is = |items: &[Unit], state| items.iter().any(|item| item.state == state);
        if *on_failure == OnFailure::Stop && one_is(items, State::Failed) {
            items.iter_mut().for_each(told_to_stop);
        }
        if items.iter().all(has_ended) {
            step.unit.state = if one_is(items, State::Failed) {
                State::Failed
            } else if one_is(items, State::Cancelled) {
                State::Cancelled
            } else {
                State::Succeeded
            };
        }
    }

    fn rule_join(&mut self, step: usize) {
        if self.steps[step].unit.state != State::Waiting {
            return;
        }
        let needs: Vec<State> =
            self.steps[step].needs.iter().map(|&need| self.steps[need].unit.state).collect();
        if needs.iter().any(|need| matches!(need, State::Failed | State::Blocked)) {
            self.steps[step].unit.state = State::Blocked;
        } else if needs.iter().all(|need| *need == State::Succeeded) {
            self.steps[step].unit.state = State::Ready;
        } else if needs.iter().all(|need| matches!(need, State::Succeeded | State::Skipped)) {
            self.steps[step].unit.state = State::Skipped;
        }
    }

    pub(crate) fn run_state(&self) -> RunState {
        let one_is = |state| self.steps.iter().any(|step| step.unit.state == state);
        if !self.steps.iter().all(|step| has_ended(&step.unit)) {
            RunState::Running
        } else if one_is(State::Failed) {
            RunState::Failed
        } else if one_is(State::Cancelled) {
            RunState::Cancelled
        } else {
            RunState::Succeeded
        }
    }

    /// Tasks in a state; a step that has been expanded is represented by its items.
    pub(crate) fn tasks(&self, state: State) -> BTreeSet<Task> {
        let mut tasks = BTreeSet::new();
        for (&id, step) in self.ids.iter().zip(&self.steps) {
            let mut add = |item, unit: &Unit| {
                if unit.state == state {
                    let attempt = unit.begun + u32::from(waits_for_its_attempt(unit));
                    tasks.insert(Task { step: id, item, attempt });
                }
            };
            match &step.items {
                None => add(None, &step.unit),
                Some((items, _)) => (0..).zip(items).for_each(|(item, unit)| add(Some(item), unit)),
            }
        }
        tasks
    }

    pub(crate) fn ended(&self) -> BTreeSet<StepId> {
        self.ids
            .iter()
            .zip(&self.steps)
            .filter(|(_, step)| has_ended(&step.unit))
            .map(|(&id, _)| id)
            .collect()
    }

    /// Whether `step` needs `other`, directly or not.
    pub(crate) fn needs(&self, step: StepId, other: StepId) -> bool {
        self.steps[step.index()]
            .needs
            .iter()
            .any(|&need| need == other.index() || self.needs(self.ids[need], other))
    }
}
