//! Single behaviours, each told as a short story.

use std::sync::Arc;

use dag_tracker::{
    Cause, Graph, GraphBuilder, ITEMS_MAX, OnFailure, Run, RunState, State, StepId, Task, TaskError, Then,
};

fn graph(steps: &[(&str, &[&str])]) -> Arc<Graph> {
    let mut builder = GraphBuilder::new();
    for (name, after) in steps {
        builder.step(name, after.iter().copied());
    }
    builder.build().expect("the graphs of the stories are sound")
}

fn run(steps: &[(&str, &[&str])], on_failure: OnFailure) -> Run {
    Run::new(graph(steps), on_failure)
}

fn id(run: &Run, name: &str) -> StepId {
    run.view().graph().find(name).expect("the stories name steps that exist")
}

fn task(run: &Run, name: &str, attempt: u32) -> Task {
    Task { step: id(run, name), item: None, attempt }
}

fn states(run: &Run) -> String {
    let view = run.view();
    let state = |step| format!("{} {}", view.graph().name(step), view.status(step).state);
    view.graph().steps().map(state).collect::<Vec<_>>().join(", ")
}

fn why(run: &Run, name: &str) -> String {
    run.view().why(id(run, name)).to_string()
}

#[test]
fn late_report_of_an_older_attempt_is_refused() {
    let mut run = run(&[("a", &[])], OnFailure::Stop);
    let first = task(&run, "a", 1);
    run.start(first).unwrap();
    let second = run.fail(first, Then::Again).unwrap().backing_off.unwrap();
    assert_eq!(second.attempt, 2);
    assert_eq!(run.complete(first).unwrap_err(), TaskError::StaleAttempt { task: first, current: 2 });
    run.resume(second).unwrap();
    run.start(second).unwrap();
    for late in [run.complete(first).unwrap_err(), run.fail(first, Then::End).unwrap_err()] {
        assert_eq!(late, TaskError::StaleAttempt { task: first, current: 2 });
        assert_eq!(late.to_string(), "task:0@1 is not the present attempt, which is 2");
    }
    assert_eq!(run.complete(second).unwrap().run, RunState::Succeeded);
    let status = run.view().status(first.step);
    assert_eq!((status.state, status.attempts), (State::Succeeded, 2));
}

#[test]
fn report_that_does_not_fit_the_state_is_refused_and_changes_nothing() {
    let mut run = run(&[("a", &[]), ("b", &["a"])], OnFailure::Stop);
    let (a, b) = (task(&run, "a", 1), task(&run, "b", 1));
    let illegal = |task, from, to| TaskError::Illegal { task, from, to };
    assert_eq!(run.start(b).unwrap_err(), illegal(b, State::Waiting, State::Running));
    assert_eq!(run.skip(b).unwrap_err(), illegal(b, State::Waiting, State::Skipped));
    assert_eq!(run.resume(b).unwrap_err(), illegal(b, State::Waiting, State::Ready));
    assert_eq!(run.complete(a).unwrap_err(), illegal(a, State::Ready, State::Succeeded));
    let not_running = TaskError::NotRunning { task: a, state: State::Ready };
    assert_eq!(run.expand(a, 1, OnFailure::Stop).unwrap_err(), not_running);
    let item = Task { item: Some(0), ..a };
    assert_eq!(run.start(item).unwrap_err(), TaskError::UnknownTask { task: item });
    assert_eq!(run.expand(item, 1, OnFailure::Stop).unwrap_err(), TaskError::UnknownTask { task: item });
    assert_eq!(states(&run), "a ready, b waiting");
    run.start(a).unwrap();
    assert_eq!(run.start(a).unwrap_err(), illegal(a, State::Running, State::Running));
    let too_many = TaskError::TooManyItems { task: a, count: ITEMS_MAX + 1 };
    assert_eq!(run.expand(a, ITEMS_MAX + 1, OnFailure::Stop).unwrap_err(), too_many);
    run.complete(a).unwrap();
    assert_eq!(run.complete(a).unwrap_err(), illegal(a, State::Succeeded, State::Succeeded));
}

#[test]
fn failure_blocks_its_dependents_and_stops_the_rest() {
    let steps: &[(&str, &[&str])] = &[
        ("bad", &[]),
        ("next", &["bad"]),
        ("last", &["next"]),
        ("busy", &[]),
        ("idle", &[]),
        ("later", &["busy"]),
    ];
    let mut run = run(steps, OnFailure::Stop);
    let (bad, busy) = (task(&run, "bad", 1), task(&run, "busy", 1));
    run.start(bad).unwrap();
    run.start(busy).unwrap();
    let changes = run.fail(bad, Then::End).unwrap();
    assert_eq!((changes.cancelling, changes.run), (&[busy][..], RunState::Running));
    let expected = "bad failed, next blocked, last blocked, busy cancelling, idle cancelled, later cancelled";
    assert_eq!(states(&run), expected);
    assert_eq!(run.view().status(id(&run, "last")).cause, Some(Cause::FailedStep(bad.step)));
    assert_eq!(why(&run, "last"), "`last` cannot run, because `bad` failed");
    assert_eq!(why(&run, "idle"), "`idle` was cancelled, because `bad` failed");
    assert_eq!(why(&run, "busy"), "`busy` was told to stop, because `bad` failed, and has not answered yet");

    let idle = task(&run, "idle", 1);
    let refused = TaskError::Illegal { task: idle, from: State::Cancelled, to: State::Running };
    assert_eq!(run.start(idle).unwrap_err(), refused, "who had it in a queue learns that it is over");
    assert_eq!(run.fail(busy, Then::Again).unwrap().run, RunState::Failed);
    assert_eq!(run.view().status(idle.step).attempts, 0);
}

#[test]
fn failure_leaves_the_others_alone_if_told_to_carry_on() {
    let mut run = run(&[("bad", &[]), ("next", &["bad", "good"]), ("good", &[])], OnFailure::CarryOn);
    let (bad, good) = (task(&run, "bad", 1), task(&run, "good", 1));
    run.start(bad).unwrap();
    let next = id(&run, "next");
    assert_eq!(run.fail(bad, Then::End).unwrap().ended, [bad.step, next]);
    assert_eq!(states(&run), "bad failed, next blocked, good ready");
    run.start(good).unwrap();
    assert_eq!(run.complete(good).unwrap().run, RunState::Failed);
}

#[test]
fn skip_reaches_dependents_when_their_other_dependencies_have_ended() {
    let steps: &[(&str, &[&str])] =
        &[("off", &[]), ("slow", &[]), ("both", &["off", "slow"]), ("end", &["both"])];
    let mut run = run(steps, OnFailure::Stop);
    let (off, slow) = (task(&run, "off", 1), task(&run, "slow", 1));
    assert_eq!(run.skip(off).unwrap().ended, [off.step]);
    assert_eq!(why(&run, "off"), "`off` was skipped, because its condition is false");
    assert_eq!(why(&run, "both"), "`both` waits for `slow`");
    run.start(slow).unwrap();
    let changes = run.complete(slow).unwrap();
    assert_eq!((changes.ready, changes.run), (&[][..], RunState::Succeeded));
    assert_eq!(states(&run), "off skipped, slow succeeded, both skipped, end skipped");
    assert_eq!(why(&run, "end"), "`end` was skipped, because `off` was skipped");
}

#[test]
fn cancel_reaches_what_waits_at_once_and_what_runs_when_it_answers() {
    let steps: &[(&str, &[&str])] =
        &[("runs", &[]), ("fast", &[]), ("again", &[]), ("ready", &[]), ("waits", &["runs"])];
    let mut run = run(steps, OnFailure::Stop);
    let [runs, fast, again] = ["runs", "fast", "again"].map(|name| task(&run, name, 1));
    for task in [runs, fast, again] {
        run.start(task).unwrap();
    }
    let next = run.fail(again, Then::Again).unwrap().backing_off.unwrap();
    assert_eq!(run.cancel().cancelling, [runs, fast]);
    assert_eq!(
        states(&run),
        "runs cancelling, fast cancelling, again cancelled, ready cancelled, waits cancelled"
    );
    assert!(run.cancel().cancelling.is_empty(), "the second time there is nothing new");
    assert!(matches!(run.resume(next), Err(TaskError::Illegal { from: State::Cancelled, .. })));
    assert_eq!(run.view().status(again.step).attempts, 1);

    assert_eq!(run.complete(fast).unwrap().run, RunState::Running);
    assert_eq!(run.fail(runs, Then::End).unwrap().run, RunState::Cancelled);
    assert_eq!(
        states(&run),
        "runs cancelled, fast succeeded, again cancelled, ready cancelled, waits cancelled"
    );
    assert_eq!(why(&run, "runs"), "`runs` was cancelled, because the run was cancelled");
}

#[test]
fn empty_fan_out_succeeds_at_once() {
    let mut run = run(&[("each", &[]), ("end", &["each"])], OnFailure::Stop);
    let each = task(&run, "each", 1);
    run.start(each).unwrap();
    let end = task(&run, "end", 1);
    let changes = run.expand(each, 0, OnFailure::Stop).unwrap();
    assert_eq!((changes.ended, changes.ready), (&[each.step][..], &[end][..]));
}

#[test]
fn items_are_retried_one_by_one_and_the_step_ends_with_the_last() {
    let mut run = run(&[("each", &[])], OnFailure::Stop);
    let each = task(&run, "each", 1);
    run.start(each).unwrap();
    run.expand(each, 3, OnFailure::Stop).unwrap();
    assert_eq!(run.complete(each).unwrap_err(), TaskError::Expanded { task: each });
    let items: Vec<Task> = run.view().tasks(State::Ready).collect();
    for &item in &items {
        run.start(item).unwrap();
    }
    let again = run.fail(items[1], Then::Again).unwrap().backing_off.unwrap();
    assert_eq!(again.to_string(), "task:0.1@2");
    run.complete(items[0]).unwrap();
    run.complete(items[2]).unwrap();
    assert_eq!(why(&run, "each"), "`each` runs, 2 of 3 items have ended");
    run.resume(again).unwrap();
    run.start(again).unwrap();
    assert_eq!(run.complete(again).unwrap().run, RunState::Succeeded);
    assert_eq!(run.view().item_status(each.step, 1).unwrap().attempts, 2);
}

#[test]
fn failed_item_stops_its_fan_out_or_lets_it_carry_on_as_told() {
    for (on_failure, cancelled) in [(OnFailure::Stop, 2), (OnFailure::CarryOn, 0)] {
        let mut run = run(&[("each", &[]), ("end", &["each"])], OnFailure::Stop);
        let each = task(&run, "each", 1);
        run.start(each).unwrap();
        run.expand(each, 4, on_failure).unwrap();
        let items: Vec<Task> = run.view().tasks(State::Ready).collect();
        for &item in &items[..3] {
            run.start(item).unwrap();
        }
        run.complete(items[0]).unwrap();
        let told_to_stop = run.fail(items[1], Then::End).unwrap().cancelling.to_vec();
        assert_eq!(run.view().status(each.step).state, State::Running, "one of its items still runs");
        if on_failure == OnFailure::Stop {
            assert_eq!(told_to_stop, [items[2]]);
            run.fail(items[2], Then::End).unwrap();
        } else {
            assert_eq!(told_to_stop, []);
            run.complete(items[2]).unwrap();
            run.start(items[3]).unwrap();
            run.complete(items[3]).unwrap();
        }
        assert_eq!(run.view().state(), RunState::Failed);
        assert_eq!(run.view().item_tally(each.step).unwrap().of(State::Cancelled), cancelled);
        assert_eq!(why(&run, "each"), "`each` failed in attempt 1, because its item 1 failed");
        assert_eq!(why(&run, "end"), "`end` cannot run, because `each` failed");
    }
}

#[test]
fn cancel_of_a_fan_out_waits_for_the_items_that_run() {
    let mut run = run(&[("each", &[])], OnFailure::Stop);
    let each = task(&run, "each", 1);
    run.start(each).unwrap();
    run.expand(each, 3, OnFailure::Stop).unwrap();
    let items: Vec<Task> = run.view().tasks(State::Ready).collect();
    run.start(items[1]).unwrap();
    assert_eq!(run.cancel().cancelling, [items[1]], "the step itself has nothing to answer");
    assert_eq!(states(&run), "each cancelling");
    let changes = run.complete(items[1]).unwrap();
    assert_eq!((changes.ended, changes.run), (&[each.step][..], RunState::Cancelled));
}

#[test]
fn runs_of_one_graph_are_independent() {
    let graph = graph(&[("a", &[])]);
    let mut one = Run::new(Arc::clone(&graph), OnFailure::Stop);
    let other = Run::new(graph, OnFailure::Stop);
    assert_eq!(one.cancel().run, RunState::Cancelled);
    assert_eq!(other.view().state(), RunState::Running);
    assert_eq!(run(&[], OnFailure::Stop).view().state(), RunState::Succeeded, "nothing to do is done");
}
