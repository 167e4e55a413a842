//! The rules of a run said as plainly as possible: after each event, every rule is applied to every step until nothing
//! changes any more. It shares no code with the tracker but the names of the states.

use std::{collections::BTreeSet, ops::Range};

use dag_tracker::{Graph, Join, OnFailure, RetryBudget, RetryClass, RunState, State, StepId, Task, Then};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Start(Task),
    Complete(Task),
    Fail(Task, Then),
    Resume(Task),
    Skip(Task),
    Expand(Task, u32, OnFailure),
    Cancel,
    Abort,
}

/// What a step is declared to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) join: Join,
    pub(crate) is_finally: bool,
    pub(crate) is_tolerated: bool,
    pub(crate) budget: RetryBudget,
}

/// A step or an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) state: State,
    /// How many attempts have been begun.
    pub(crate) begun: u32,
    /// The items that it has been expanded into.
    pub(crate) fan_out: Option<(Range<usize>, OnFailure)>,
    retries: [u8; 4],
    /// The class of failures for which no retry was left.
    pub(crate) spent: Option<RetryClass>,
}

impl Unit {
    fn new(state: State) -> Self {
        Self { state, begun: 0, fan_out: None, retries: [0; 4], spent: None }
    }

    fn waits_for_its_attempt(&self) -> bool {
        matches!(self.state, State::Waiting | State::Ready | State::BackingOff)
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(
            self.state,
            State::Succeeded | State::Failed | State::Skipped | State::Cancelled | State::Blocked
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) unit: Unit,
    pub(crate) needs: Vec<usize>,
    /// Those of nested fan-outs behind all that were there before.
    pub(crate) items: Vec<Unit>,
}

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) steps: Vec<Step>,
    pub(crate) rules: Vec<Rules>,
    ids: Vec<StepId>,
    on_failure: OnFailure,
    cancel_was_asked_for: bool,
    abort_was_asked_for: bool,
}

impl Reference {
    pub(crate) fn new(graph: &Graph, rules: &[Rules], on_failure: OnFailure) -> Self {
        let steps = graph.steps().map(|id| Step {
            unit: Unit::new(State::Waiting),
            needs: graph.dependencies(id).iter().map(|id| id.index()).collect(),
            items: Vec::new(),
        });
        let mut reference = Self {
            steps: steps.collect(),
            rules: rules.to_vec(),
            ids: graph.steps().collect(),
            on_failure,
            cancel_was_asked_for: false,
            abort_was_asked_for: false,
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
            Event::Abort => {
                self.abort_was_asked_for = true;
                true
            }
            Event::Start(task) => self.change(task, |unit, _| {
                unit.begun += u32::from(unit.state == State::Ready);
                (unit.state == State::Ready).then_some(State::Running)
            }),
            Event::Complete(task) => self.change(task, |unit, _| {
                matches!(unit.state, State::Running | State::Cancelling).then_some(State::Succeeded)
            }),
            Event::Fail(task, then) => self.change(task, |unit, budget| match (unit.state, then) {
                (State::Cancelling, _) => Some(State::Cancelled),
                (State::Running, Then::End) => Some(State::Failed),
                (State::Running, Then::Again) => Some(State::BackingOff),
                (State::Running, Then::AgainFor(class)) => {
                    let used = &mut unit.retries[usize::from(class.number())];
                    if *used == budget.of(class) {
                        unit.spent = Some(class);
                        return Some(State::Failed);
                    }
                    *used += 1;
                    Some(State::BackingOff)
                }
                _ => None,
            }),
            Event::Resume(task) => {
                self.change(task, |unit, _| (unit.state == State::BackingOff).then_some(State::Ready))
            }
            Event::Skip(task) => {
                self.change(task, |unit, _| (unit.state == State::Ready).then_some(State::Skipped))
            }
            Event::Expand(task, count, on_failure) => {
                let first = self.steps.get(task.step.index()).map_or(0, |step| step.items.len());
                let items = first..first + count as usize;
                let is_possible = self.change(task, |unit, _| {
                    let is_possible = unit.state == State::Running;
                    if is_possible {
                        unit.fan_out = Some((items.clone(), on_failure));
                    }
                    is_possible.then_some(State::Running)
                });
                if is_possible {
                    let items = items.map(|_| Unit::new(State::Ready));
                    self.steps[task.step.index()].items.extend(items);
                }
                is_possible
            }
        };
        if accepted {
            self.apply_rules();
        }
        accepted
    }

    fn change(&mut self, task: Task, how: impl FnOnce(&mut Unit, RetryBudget) -> Option<State>) -> bool {
        let Some(step) = self.steps.get_mut(task.step.index()) else { return false };
        let unit = match task.item {
            None => Some(&mut step.unit),
            Some(item) => step.items.get_mut(item as usize),
        };
        let Some(unit) = unit.filter(|unit| unit.fan_out.is_none()) else { return false };
        if task.attempt != unit.begun + u32::from(unit.waits_for_its_attempt()) {
            return false;
        }
        let state = how(unit, self.rules[task.step.index()].budget);
        if let Some(state) = state {
            unit.state = state;
        }
        state.is_some()
    }

    fn apply_rules(&mut self) {
        loop {
            let before = self.steps.clone();
            self.apply_rules_without_stop();
            for (step, rules) in self.steps.iter_mut().zip(&self.rules) {
                let is_to_stop = self.cancel_was_asked_for
                    || (self.on_failure == OnFailure::Stop && one_failed(&before, &self.rules));
                if self.abort_was_asked_for || (is_to_stop && !rules.is_finally) {
                    tell_to_stop(&mut step.unit, &mut step.items);
                }
            }
            if before == self.steps {
                return;
            }
        }
    }

    fn apply_rules_without_stop(&mut self) {
        loop {
            let before = self.steps.clone();
            for step in 0..self.steps.len() {
                self.rule_items(step);
                self.rule_join(step);
            }
            if before == self.steps {
                return;
            }
        }
    }

    fn rule_items(&mut self, step: usize) {
        let Step { unit, items, .. } = &mut self.steps[step];
        for item in 0..items.len() {
            let mut parent = items[item].clone();
            rule_fan_out(&mut parent, items);
            items[item] = parent;
        }
        rule_fan_out(unit, items);
    }

    fn rule_join(&mut self, step: usize) {
        if self.steps[step].unit.state != State::Waiting {
            return;
        }
        let Rules { join, is_finally, .. } = self.rules[step];
        let needs: Vec<&Unit> = self.steps[step].needs.iter().map(|&need| &self.steps[need].unit).collect();
        if is_finally && needs.is_empty() {
            let mut ordinary = self.steps.iter().zip(&self.rules).filter(|(_, rules)| !rules.is_finally);
            if ordinary.all(|(step, _)| step.unit.has_ended()) {
                self.steps[step].unit.state = State::Ready;
            }
            return;
        }
        let succeeded = needs.iter().filter(|need| need.state == State::Succeeded).count();
        let pending = needs.iter().filter(|need| !need.has_ended()).count();
        let bad = needs.len() - pending - succeeded;
        let bad = bad - needs.iter().filter(|need| need.state == State::Skipped).count();
        let wanted = match join {
            Join::All => needs.len(),
            Join::Any => 1,
            Join::AtLeast(count) => count as usize,
            Join::AllDone if pending == 0 => 0,
            Join::AllDone => return,
        };
        if succeeded >= wanted {
            self.steps[step].unit.state = State::Ready;
        } else if succeeded + pending < wanted && bad > 0 {
            self.steps[step].unit.state = State::Blocked;
        } else if pending == 0 {
            self.steps[step].unit.state = State::Skipped;
        }
    }

    pub(crate) fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    pub(crate) fn run_state(&self) -> RunState {
        if !self.steps.iter().all(|step| step.unit.has_ended()) {
            RunState::Running
        } else if one_failed(&self.steps, &self.rules) {
            RunState::Failed
        } else if self.steps.iter().any(|step| step.unit.state == State::Cancelled) {
            RunState::Cancelled
        } else {
            RunState::Succeeded
        }
    }

    /// Tasks in a state; what has been expanded is represented by its items.
    pub(crate) fn tasks(&self, state: State) -> BTreeSet<Task> {
        let mut tasks = BTreeSet::new();
        for (&id, step) in self.ids.iter().zip(&self.steps) {
            let mut add = |item, unit: &Unit| {
                if unit.state == state && unit.fan_out.is_none() {
                    let attempt = unit.begun + u32::from(unit.waits_for_its_attempt());
                    tasks.insert(Task { step: id, item, attempt });
                }
            };
            add(None, &step.unit);
            (0..).zip(&step.items).for_each(|(item, unit)| add(Some(item), unit));
        }
        tasks
    }

    pub(crate) fn ended(&self) -> BTreeSet<StepId> {
        let ended = self.ids.iter().zip(&self.steps).filter(|(_, step)| step.unit.has_ended());
        ended.map(|(&id, _)| id).collect()
    }

    /// Whether `step` needs `other`, directly or not.
    pub(crate) fn needs(&self, step: StepId, other: StepId) -> bool {
        let mut needs = self.steps[step.index()].needs.iter();
        needs.any(|&need| need == other.index() || self.needs(self.ids[need], other))
    }
}

fn one_failed(steps: &[Step], rules: &[Rules]) -> bool {
    steps.iter().zip(rules).any(|(step, rules)| step.unit.state == State::Failed && !rules.is_tolerated)
}

/// Tells one to stop, and all items below it.
fn tell_to_stop(unit: &mut Unit, items: &mut [Unit]) {
    if unit.waits_for_its_attempt() {
        unit.state = State::Cancelled;
    } else if unit.state == State::Running {
        unit.state = State::Cancelling;
    }
    if let (State::Cancelling, Some((below, _))) = (unit.state, unit.fan_out.clone()) {
        tell_all_to_stop(below, items);
    }
}

fn tell_all_to_stop(range: Range<usize>, items: &mut [Unit]) {
    for item in range {
        let mut unit = items[item].clone();
        tell_to_stop(&mut unit, items);
        items[item] = unit;
    }
}

/// Stops and ends a fan-out. Children stand behind their parents, who are seen to when the rules are applied again.
fn rule_fan_out(parent: &mut Unit, items: &mut [Unit]) {
    let Some((range, on_failure)) = parent.fan_out.clone() else { return };
    if parent.has_ended() {
        return;
    }
    let one_is = |items: &[Unit], state| items[range.clone()].iter().any(|item| item.state == state);
    if on_failure == OnFailure::Stop && one_is(items, State::Failed) {
        tell_all_to_stop(range.clone(), items);
    }
    if items[range.clone()].iter().all(Unit::has_ended) {
        parent.state = if one_is(items, State::Failed) {
            State::Failed
        } else if one_is(items, State::Cancelled) {
            State::Cancelled
        } else {
            State::Succeeded
        };
    }
}
