//! Which products of features the random histories have really had: a generator that never makes one proves nothing
//! about it.

use std::{cell::RefCell, collections::BTreeMap};

use dag_tracker::{Join, OnFailure, State, Task, Then};

use crate::reference::{Event, Reference, Unit};

/// How often each product has occurred.
#[derive(Debug, Default)]
pub(crate) struct Coverage(RefCell<BTreeMap<String, u32>>);

/// The products that must occur.
const PRODUCTS: &[&str] = &[
    "abort x finally running",
    "budget spent x item",
    "budget spent x nested item",
    "budget spent x step",
    "cancel x all done waiting",
    "cancel x any waiting",
    "cancel x at least waiting",
    "cancel x backing off item",
    "cancel x backing off nested item",
    "cancel x backing off step",
    "cancel x finally waiting",
    "cancel x finally with items",
    "cancel x nested fan-out",
    "carry on x failure x nested item",
    "carry on x failure x step",
    "condition x all",
    "condition x all done",
    "condition x any",
    "condition x at least",
    "condition x item",
    "fan-out x finally",
    "fan-out x nested",
    "fan-out x nested empty",
    "fan-out x second attempt",
    "faster than its cancel x item",
    "faster than its cancel x step",
    "finally blocked",
    "finally ready after all others",
    "finally skipped",
    "join any x stragglers",
    "join at least x ready early",
    "join blocked x at least",
    "late report x item",
    "late report x step",
    "retry x finally",
    "retry x item",
    "retry x nested item",
    "retry x step",
    "stop x failure x nested item",
    "stop x failure x step",
    "stop x failure x step, while items run",
    "tolerated failure x stop",
];
/// How often each must occur. Histories are drawn until it has.
pub(crate) const TIMES_MIN: u32 = 5;

impl Coverage {
    fn note(&self, product: impl Into<String>) {
        *self.0.borrow_mut().entry(product.into()).or_default() += 1;
    }

    /// How often each product has been seen.
    pub(crate) fn table(&self) -> String {
        self.0.borrow().iter().map(|(product, times)| format!("{times:>8} {product}\n")).collect()
    }

    /// What has been seen too rarely.
    pub(crate) fn missing(&self) -> Vec<String> {
        let seen = self.0.borrow();
        let transitions = State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to)));
        let legal = transitions.filter(|(from, to)| is_legal_for_steps(*from, *to));
        let demanded = legal.map(|(from, to)| format!("step {from} -> {to}"));
        let demanded = demanded.chain(PRODUCTS.iter().map(|product| (*product).to_owned()));
        demanded.filter(|product| seen.get(product).copied().unwrap_or(0) < TIMES_MIN).collect()
    }

    /// Looks at what one event has done.
    pub(crate) fn observe(&self, event: Event, is_accepted: bool, before: &Reference, after: &Reference) {
        let named = match event {
            Event::Start(task)
            | Event::Complete(task)
            | Event::Fail(task, _)
            | Event::Resume(task)
            | Event::Skip(task)
            | Event::Expand(task, ..) => Some((task, kind_of(before, task))),
            Event::Cancel | Event::Abort => None,
        };
        if !is_accepted {
            if let (Event::Complete(_) | Event::Fail(..), Some((task, Some(kind)))) = (event, named) {
                let unit = unit_of(before, task);
                if unit.is_some_and(|unit| task.attempt >= 1 && task.attempt < unit.begun) {
                    self.note(format!("late report x {}", kind.trim_start_matches("nested ")));
                }
            }
            return;
        }
        if let Some((task, Some(kind))) = named {
            self.observe_report(event, task, kind, before, after);
        } else {
            self.observe_cancel(event, before);
        }
        self.observe_joins(before, after);
    }

    fn observe_report(&self, event: Event, task: Task, kind: &str, before: &Reference, after: &Reference) {
        let index = task.step.index();
        let (Some(old), Some(new)) = (unit_of(before, task), unit_of(after, task)) else { return };
        let is_finally = before.rules[index].is_finally;
        match event {
            Event::Complete(_) if old.state == State::Cancelling => {
                self.note(format!("faster than its cancel x {}", kind.trim_start_matches("nested ")));
            }
            Event::Skip(_) if task.item.is_some() => self.note("condition x item"),
            Event::Expand(_, count, _) => {
                match (task.item, count) {
                    (Some(_), 0) => self.note("fan-out x nested empty"),
                    (Some(_), _) => self.note("fan-out x nested"),
                    (None, _) => {}
                }
                if is_finally {
                    self.note("fan-out x finally");
                }
                if old.begun > 1 {
                    self.note("fan-out x second attempt");
                }
            }
            Event::Fail(_, Then::Again | Then::AgainFor(_)) if new.state == State::BackingOff => {
                self.note(format!("retry x {kind}"));
                if is_finally {
                    self.note("retry x finally");
                }
            }
            Event::Fail(..) if new.state == State::Failed => {
                if new.spent.is_some() {
                    self.note(format!("budget spent x {kind}"));
                }
                let policy = match task.item {
                    None => after.on_failure(),
                    Some(item) => policy_of(before, task, item),
                };
                let policy = if policy == OnFailure::Stop { "stop" } else { "carry on" };
                self.note(format!("{policy} x failure x {kind}"));
                let items_run = before.steps.iter().flat_map(|step| &step.items).any(is_running);
                if policy == "stop" && task.item.is_none() {
                    if before.rules[index].is_tolerated {
                        self.note("tolerated failure x stop");
                    } else if items_run {
                        self.note("stop x failure x step, while items run");
                    }
                }
            }
            _ => {}
        }
    }

    fn observe_cancel(&self, event: Event, before: &Reference) {
        for (step, rules) in before.steps.iter().zip(&before.rules) {
            let state = step.unit.state;
            if rules.is_finally {
                match (event, state) {
                    (Event::Abort, State::Running) => self.note("abort x finally running"),
                    (_, State::Waiting) => self.note("cancel x finally waiting"),
                    (_, State::Running) if !step.items.is_empty() => self.note("cancel x finally with items"),
                    _ => {}
                }
                continue;
            }
            match (state, rules.join) {
                (State::Waiting, Join::Any) => self.note("cancel x any waiting"),
                (State::Waiting, Join::AtLeast(_)) => self.note("cancel x at least waiting"),
                (State::Waiting, Join::AllDone) => self.note("cancel x all done waiting"),
                (State::BackingOff, _) => self.note("cancel x backing off step"),
                _ => {}
            }
            let first_fan_out = step.unit.fan_out.as_ref().map_or(0, |(range, _)| range.end);
            for (place, item) in step.items.iter().enumerate() {
                match item.state {
                    State::BackingOff if place < first_fan_out => self.note("cancel x backing off item"),
                    State::BackingOff => self.note("cancel x backing off nested item"),
                    State::Running if item.fan_out.is_some() => self.note("cancel x nested fan-out"),
                    _ => {}
                }
            }
        }
    }

    fn observe_joins(&self, before: &Reference, after: &Reference) {
        for ((old, new), rules) in before.steps.iter().zip(&after.steps).zip(&after.rules) {
            let (from, to) = (old.unit.state, new.unit.state);
            if from == to {
                continue;
            }
            self.note(format!("step {from} -> {to}"));
            if from != State::Waiting {
                continue;
            }
            let needs = || new.needs.iter().map(|&need| &after.steps[need].unit);
            let one_skipped = needs().any(|need| need.state == State::Skipped);
            let one_runs = needs().any(|need| !need.has_ended());
            let join = match rules.join {
                Join::All => "all",
                Join::Any => "any",
                Join::AtLeast(_) => "at least",
                Join::AllDone => "all done",
            };
            if one_skipped {
                self.note(format!("condition x {join}"));
            }
            match (to, rules.join) {
                (State::Ready, Join::Any) if one_runs => self.note("join any x stragglers"),
                (State::Ready, Join::AtLeast(_)) if one_runs => self.note("join at least x ready early"),
                (State::Blocked, Join::AtLeast(_)) => self.note("join blocked x at least"),
                _ => {}
            }
            match to {
                State::Blocked if rules.is_finally => self.note("finally blocked"),
                State::Skipped if rules.is_finally => self.note("finally skipped"),
                State::Ready if rules.is_finally && new.needs.is_empty() => {
                    self.note("finally ready after all others");
                }
                _ => {}
            }
        }
    }
}

/// What the state diagram allows, seen from one event to the next: a step that becomes ready and is cancelled by the same
/// event, or skipped, goes from waiting to there at once.
fn is_legal_for_steps(from: State, to: State) -> bool {
    use State::{
        BackingOff, Blocked, Cancelled, Cancelling, Failed, Ready, Running, Skipped, Succeeded, Waiting,
    };
    match from {
        Waiting => matches!(to, Ready | Skipped | Cancelled | Blocked),
        Ready => matches!(to, Running | Skipped | Cancelled),
        Running => matches!(to, Succeeded | Failed | BackingOff | Cancelling),
        BackingOff => matches!(to, Ready | Cancelled),
        Cancelling => matches!(to, Succeeded | Failed | Cancelled),
        Succeeded | Failed | Skipped | Cancelled | Blocked => false,
    }
}

fn is_running(unit: &Unit) -> bool {
    unit.state == State::Running
}

fn unit_of(reference: &Reference, task: Task) -> Option<&Unit> {
    let step = reference.steps.get(task.step.index())?;
    match task.item {
        None => Some(&step.unit),
        Some(item) => step.items.get(item as usize),
    }
}

fn kind_of(reference: &Reference, task: Task) -> Option<&'static str> {
    unit_of(reference, task)?;
    let (items, _) = match (task.item, &reference.steps[task.step.index()].unit.fan_out) {
        (Some(_), Some(fan_out)) => fan_out,
        _ => return Some("step"),
    };
    Some(if items.contains(&(task.item? as usize)) { "item" } else { "nested item" })
}

/// What the failure of an item means to those beside it.
fn policy_of(reference: &Reference, task: Task, item: u32) -> OnFailure {
    let step = &reference.steps[task.step.index()];
    let mut fan_outs = step.items.iter().chain([&step.unit]).filter_map(|unit| unit.fan_out.as_ref());
    let fan_out = fan_outs.find(|(items, _)| items.contains(&(item as usize)));
    fan_out.map_or(OnFailure::Stop, |(_, policy)| *policy)
}
