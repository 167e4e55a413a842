//! Random graphs, random histories: retries, fan-outs, skips, cancels and late reports in any order, each compared with
//! the reference after each event. Every history is then driven to its end, so that nothing can hang.

use std::{collections::BTreeSet, sync::Arc};

use dag_tracker::{Cause, Changes, Graph, GraphBuilder, OnFailure, Run, RunState, State, StepId, Task, Then};
use proptest::prelude::*;

use crate::reference::{Event, Reference};

/// Numbers from which a concrete event is made up, when the present state is known.
#[derive(Clone, Copy, Debug)]
struct Dice {
    kind: u8,
    pick: u16,
    item: u8,
    attempt: u8,
    count: u8,
    stop: bool,
    is_wild: bool,
}

fn dice() -> impl Strategy<Value = Dice> {
    let wild = prop::bool::weighted(0.15);
    (0..100_u8, any::<u16>(), 0..4_u8, 0..4_u8, 0..5_u8, any::<bool>(), wild).prop_map(
        |(kind, pick, item, attempt, count, stop, is_wild)| Dice {
            kind,
            pick,
            item,
            attempt,
            count,
            stop,
            is_wild,
        },
    )
}

/// Steps declared in any order: step `i` may need any step of a smaller rank.
fn graph() -> impl Strategy<Value = Arc<Graph>> {
    (1..=9_usize)
        .prop_flat_map(|count| {
            let ranks = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
            (ranks, prop::collection::vec(any::<u16>(), count), 0..3_u8)
        })
        .prop_map(|(ranks, edges, density)| {
            let names: Vec<String> = (0..ranks.len()).map(|i| format!("s{i}")).collect();
            let mut builder = GraphBuilder::new();
            for (i, name) in names.iter().enumerate() {
                let edges = if density == 0 { edges[i] & edges[i].rotate_left(7) } else { edges[i] };
                let needs = (0..names.len()).filter(|&j| ranks[j] < ranks[i] && edges & (1 << j) != 0);
                builder.step(name, needs.map(|j| names[j].as_str()));
            }
            builder.build().expect("edges go down in rank only")
        })
}

fn policy(stop: bool) -> OnFailure {
    if stop { OnFailure::Stop } else { OnFailure::CarryOn }
}

/// What the event is about: mostly something that suits it, sometimes anything at all.
fn event(dice: Dice, run: &Run) -> Event {
    let kind = dice.kind;
    let suited = match kind {
        0..36 | 90..96 => State::Ready,
        36..84 => State::Running,
        84..90 => State::BackingOff,
        _ => State::Cancelling,
    };
    let mut tasks: Vec<Task> = run.view().tasks(suited).collect();
    if tasks.is_empty() {
        tasks = run.view().tasks(State::Cancelling).collect();
    }
    let steps: Vec<StepId> = run.view().graph().steps().collect();
    let task = if dice.is_wild || tasks.is_empty() {
        Task {
            step: steps[usize::from(dice.pick) % steps.len()],
            item: (dice.item > 0).then(|| u32::from(dice.item) - 1),
            attempt: u32::from(dice.attempt),
        }
    } else {
        tasks[usize::from(dice.pick) % tasks.len()]
    };
    match kind {
        0..36 => Event::Start(task),
        36..54 => Event::Complete(task),
        54..60 => Event::Fail(task, Then::End),
        60..70 => Event::Fail(task, Then::Again),
        70..84 => Event::Expand(task, u32::from(dice.count), policy(dice.stop)),
        84..90 => Event::Resume(task),
        90..96 => Event::Skip(task),
        96..98 => Event::Fail(task, Then::Again),
        98 => Event::Complete(task),
        _ => Event::Cancel,
    }
}

/// What [`Changes`] says, owned.
#[derive(Debug, Default)]
struct Told {
    ready: Vec<Task>,
    backing_off: Option<Task>,
    cancelling: Vec<Task>,
    ended: Vec<StepId>,
}

impl From<Changes<'_>> for Told {
    fn from(changes: Changes<'_>) -> Self {
        Self {
            ready: changes.ready.to_vec(),
            backing_off: changes.backing_off,
            cancelling: changes.cancelling.to_vec(),
            ended: changes.ended.to_vec(),
        }
    }
}

fn set<T: Ord + Copy>(list: &[T]) -> BTreeSet<T> {
    let set: BTreeSet<T> = list.iter().copied().collect();
    assert_eq!(set.len(), list.len(), "each is told once");
    set
}

/// Lets an event happen to both and compares everything.
fn happen(run: &mut Run, reference: &mut Reference, event: Event) {
    let before = reference.clone();
    let told = match event {
        Event::Start(task) => run.start(task).map(|()| Told::default()),
        Event::Complete(task) => run.complete(task).map(Told::from),
        Event::Fail(task, then) => run.fail(task, then).map(Told::from),
        Event::Resume(task) => run.resume(task).map(|()| Told::default()),
        Event::Skip(task) => run.skip(task).map(Told::from),
        Event::Expand(task, count, on_failure) => run.expand(task, count, on_failure).map(Told::from),
        Event::Cancel => Ok(run.cancel().into()),
    };
    assert_eq!(told.is_ok(), reference.happen(event), "{event:?}: {told:?}");
    compare(run, reference);
    let Ok(told) = told else { return };

    let news = |state| &reference.tasks(state) - &before.tasks(state);
    assert_eq!(set(&told.cancelling), news(State::Cancelling), "{event:?}");
    assert_eq!(told.backing_off, news(State::BackingOff).first().copied(), "{event:?}");
    assert_eq!(set(&told.ended), &reference.ended() - &before.ended(), "{event:?}");
    if !matches!(event, Event::Resume(_)) {
        let ready = news(State::Ready).into_iter().filter(|task| task.item.is_none());
        assert_eq!(set(&told.ready), ready.collect(), "{event:?}");
    }
}

fn compare(run: &Run, reference: &Reference) {
    let view = run.view();
    assert_eq!(view.state(), reference.run_state());
    for (id, step) in view.graph().steps().zip(&reference.steps) {
        let status = view.status(id);
        assert_eq!((status.state, status.attempts), (step.unit.state, step.unit.begun), "{id}");
        let state_of = |step: StepId| reference.steps[step.index()].unit.state;
        let holds = match (status.state, status.cause) {
            (State::Skipped, Some(Cause::Condition)) => true,
            (State::Skipped, Some(Cause::SkippedStep(other))) => {
                state_of(other) == State::Skipped
                    && view.status(other).cause == Some(Cause::Condition)
                    && reference.needs(id, other)
            }
            (State::Blocked, Some(Cause::FailedStep(other))) => {
                state_of(other) == State::Failed && reference.needs(id, other)
            }
            (State::Cancelling | State::Cancelled, Some(Cause::FailedStep(other))) => {
                state_of(other) == State::Failed
            }
            (State::Cancelling | State::Cancelled, Some(Cause::Request)) => true,
            (State::Failed, Some(Cause::FailedItem(item))) => {
                view.item_status(id, item).is_some_and(|status| status.state == State::Failed)
            }
            (State::Failed, None) => step.items.is_none(),
            (_, cause) => cause.is_none(),
        };
        assert!(holds, "{id}: {status:?}");
        assert!(!view.why(id).to_string().is_empty());

        assert_eq!(view.item_tally(id).is_some(), step.items.is_some());
        for (item, unit) in (0..).zip(step.items.iter().flat_map(|(items, _)| items)) {
            let status = view.item_status(id, item).expect("the item exists");
            assert_eq!((status.state, status.attempts), (unit.state, unit.begun), "{id} item {item}");
        }
    }
    for state in State::ALL {
        let counted = reference.steps.iter().filter(|step| step.unit.state == state).count();
        assert_eq!(view.tally().of(state) as usize, counted, "{state}");
        assert_eq!(view.tasks(state).collect::<BTreeSet<_>>(), reference.tasks(state), "{state}");
    }
}

/// Answers everything that is open until the run has ended.
fn finish(run: &mut Run, reference: &mut Reference, mut luck: u64) {
    // Each round ends or advances at least one task, and no task is tried again.
    for _ in 0..1_000 {
        luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let next = |state| run.view().tasks(state).next();
        let event = if let Some(task) = next(State::Cancelling) {
            Event::Fail(task, Then::Again)
        } else if let Some(task) = next(State::BackingOff) {
            Event::Resume(task)
        } else if let Some(task) = next(State::Running) {
            if luck >> 60 == 0 { Event::Fail(task, Then::End) } else { Event::Complete(task) }
        } else if let Some(task) = next(State::Ready) {
            Event::Start(task)
        } else {
            break;
        };
        happen(run, reference, event);
    }
    assert_ne!(run.view().state(), RunState::Running, "nothing is left to do, but the run has not ended");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_agrees_with_the_reference_and_ends(
        graph in graph(),
        stop in any::<bool>(),
        history in prop::collection::vec(dice(), 0..80),
        luck in any::<u64>(),
    ) {
        let mut run = Run::new(Arc::clone(&graph), policy(stop));
        let mut reference = Reference::new(&graph, policy(stop));
        compare(&run, &reference);
        for dice in history {
            let event = event(dice, &run);
            happen(&mut run, &mut reference, event);
        }
        finish(&mut run, &mut reference, luck);
    }
}
