//! Models of what readers see while the owner goes on, run by loom through all interleavings.
//!
//! Compiled only with `--cfg loom`. Each has one owner and one reader, as every run has; more readers see no more.

use crate::{Cause, Graph, GraphBuilder, Join, OnFailure, Run, RunState, State, Task, Then};
use std::sync::Arc;

/// Bounds the interleavings; a reader's race with the owner needs no more than two switches.
fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn chain() -> Arc<Graph> {
    let mut builder = GraphBuilder::new();
    builder.step("first", []);
    builder.step("second", ["first"]);
    builder.build().unwrap()
}

fn task(graph: &Graph, name: &str) -> Task {
    Task { step: graph.find(name).unwrap(), item: None, attempt: 1 }
}

#[test]
fn reader_who_sees_a_step_ready_sees_its_dependency_ended() {
    bounded(|| {
        let graph = chain();
        let (first, second) = (task(&graph, "first"), task(&graph, "second"));
        let mut run = Run::new(graph, OnFailure::Stop);
        let view = run.view().clone();
        let reader = loom::thread::spawn(move || {
            if view.status(second.step).state != State::Waiting {
                assert_eq!(view.status(first.step).state, State::Succeeded);
            }
        });
        run.start(first).unwrap();
        run.complete(first).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn no_step_of_a_snapshot_is_ahead_of_what_it_has_waited_for() {
    bounded(|| {
        // Declared against the order of the edges, and with a finally-step before all.
        let mut builder = GraphBuilder::new();
        let clean = builder.step("clean", []);
        builder.run_finally(clean);
        let both = builder.step("both", ["left", "right"]);
        builder.join(both, Join::Any);
        builder.step("left", []);
        builder.step("right", []);
        let graph = builder.build().unwrap();
        let [left, right, both, clean] = ["left", "right", "both", "clean"].map(|name| task(&graph, name));
        let mut run = Run::new(graph, OnFailure::CarryOn);
        // What the reader can see begins here.
        run.start(left).unwrap();
        run.start(right).unwrap();
        let view = run.view().clone();
        let reader = loom::thread::spawn(move || {
            let snapshot = view.snapshot();
            let state = |task: Task| snapshot.status(task.step).state;
            if state(both) != State::Waiting {
                assert!(state(left) == State::Succeeded || state(right) == State::Succeeded);
            }
            if state(clean) != State::Waiting {
                assert!(state(left).is_ended() && state(right).is_ended() && state(both).is_ended());
            }
            if snapshot.run_state() != RunState::Running {
                assert_eq!(snapshot.tally().ended(), 4);
            }
        });
        run.fail(left, Then::End).unwrap();
        run.complete(right).unwrap();
        run.skip(both).unwrap();
        run.skip(clean).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn no_step_of_a_snapshot_is_ahead_if_declared_in_order() {
    bounded(|| {
        let graph = chain();
        let (first, second) = (task(&graph, "first"), task(&graph, "second"));
        let mut run = Run::new(graph, OnFailure::Stop);
        let view = run.view().clone();
        let reader = loom::thread::spawn(move || {
            let snapshot = view.snapshot();
            if snapshot.status(second.step).state != State::Waiting {
                assert_eq!(snapshot.status(first.step).state, State::Succeeded);
            }
        });
        run.start(first).unwrap();
        run.complete(first).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn reader_who_sees_a_step_expanded_finds_its_items() {
    bounded(|| {
        let graph = chain();
        let first = task(&graph, "first");
        let mut run = Run::new(graph, OnFailure::Stop);
        run.start(first).unwrap();
        run.expand(first, 1, OnFailure::Stop).unwrap();
        let view = run.view().clone();
        let reader = loom::thread::spawn(move || {
            // Who sees the nested items sees that the item around them was started.
            if view.item_status(first.step, 1).is_some() {
                assert_eq!(view.item_path(first.step, 1), [0, 0]);
                assert_eq!(view.item_status(first.step, 0).unwrap().attempts, 1);
                assert_ne!(view.item_status(first.step, 0).unwrap().state, State::Ready);
            }
        });
        let item = Task { item: Some(0), ..first };
        run.start(item).unwrap();
        run.expand(item, 1, OnFailure::Stop).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn reader_who_sees_a_fan_out_failed_or_told_to_stop_knows_why() {
    bounded(|| {
        let graph = chain();
        let first = task(&graph, "first");
        let mut run = Run::new(graph, OnFailure::CarryOn);
        run.start(first).unwrap();
        run.expand(first, 1, OnFailure::Stop).unwrap();
        let item = Task { item: Some(0), ..first };
        run.start(item).unwrap();
        let view = run.view().clone();
        let reader = loom::thread::spawn(move || {
            let status = view.status(first.step);
            match status.state {
                State::Failed => assert_eq!(status.cause, Some(Cause::FailedItem(0))),
                _ => assert_eq!((status.state, status.cause), (State::Running, None)),
            }
        });
        run.fail(item, Then::End).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn reader_who_sees_the_run_ended_sees_all_final_states() {
    bounded(|| {
        let graph = chain();
        let (first, second) = (task(&graph, "first"), task(&graph, "second"));
        let mut run = Run::new(graph, OnFailure::Stop);
        let view = run.view().clone();
        let reader = loom::thread::spawn(move || {
            if view.state() != RunState::Running {
                assert_eq!(view.status(first.step).state, State::Cancelled);
                assert_eq!(view.status(second.step).state, State::Cancelled);
                assert_eq!(view.tally().ended(), 2);
            }
        });
        assert_eq!(run.cancel().run, RunState::Cancelled);
        reader.join().unwrap();
    });
}
