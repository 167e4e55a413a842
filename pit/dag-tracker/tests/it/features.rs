//! Joins, finally-steps, retry budgets, nested fan-outs and snapshots, each told as a short story.

use std::sync::Arc;

use dag_tracker::{
    Cause, GraphBuilder, ITEMS_MAX, Join, OnFailure, RetryBudget, RetryClass, Run, RunState, State, StepId,
    Task, TaskError, Then,
};

fn run(declare: impl FnOnce(&mut GraphBuilder), on_failure: OnFailure) -> Run {
    let mut builder = GraphBuilder::new();
    declare(&mut builder);
    Run::new(builder.build().expect("the graphs of the stories are sound"), on_failure)
}

fn one_step(name: &str) -> impl FnOnce(&mut GraphBuilder) {
    move |builder| {
        builder.step(name, []);
    }
}

fn id(run: &Run, name: &str) -> StepId {
    run.view().graph().find(name).expect("the stories name steps that exist")
}

fn task(run: &Run, name: &str) -> Task {
    Task { step: id(run, name), item: None, attempt: 1 }
}

fn state(run: &Run, name: &str) -> State {
    run.view().status(id(run, name)).state
}

fn why(run: &Run, name: &str) -> String {
    run.view().why(id(run, name)).to_string()
}

#[test]
fn step_that_wants_two_of_three_runs_beside_the_third() {
    let declare = |builder: &mut GraphBuilder| {
        for name in ["a", "b", "c"] {
            builder.step(name, []);
        }
        let vote = builder.step("vote", ["a", "b", "c"]);
        builder.join(vote, Join::AtLeast(2));
    };
    let mut run = run(declare, OnFailure::CarryOn);
    let [a, b, c, vote] = ["a", "b", "c", "vote"].map(|name| task(&run, name));
    assert_eq!(why(&run, "vote"), "`vote` waits until 2 more have succeeded, for `a`, `b`, `c`");
    for task in [a, b, c] {
        run.start(task).unwrap();
    }
    assert_eq!(run.complete(a).unwrap().ready, []);
    assert_eq!(run.fail(b, Then::End).unwrap().ready, []);
    assert_eq!(why(&run, "vote"), "`vote` waits until 1 more have succeeded, for `c`");
    assert_eq!(run.complete(c).unwrap().ready, [vote]);
}

#[test]
fn step_that_wants_any_is_blocked_only_when_all_have_failed() {
    for (last_fails, expected) in [(true, State::Blocked), (false, State::Ready)] {
        let declare = |builder: &mut GraphBuilder| {
            for name in ["a", "b"] {
                let step = builder.step(name, []);
                builder.tolerate_failure(step);
            }
            let either = builder.step("either", ["a", "b"]);
            builder.join(either, Join::Any);
        };
        let mut run = run(declare, OnFailure::Stop);
        let (a, b) = (task(&run, "a"), task(&run, "b"));
        run.start(a).unwrap();
        run.start(b).unwrap();
        run.fail(a, Then::End).unwrap();
        assert_eq!(state(&run, "either"), State::Waiting);
        if last_fails {
            assert_eq!(run.fail(b, Then::End).unwrap().run, RunState::Succeeded, "what failed was tolerated");
            assert_eq!(why(&run, "either"), "`either` cannot run, because `a` failed");
        } else {
            run.complete(b).unwrap();
        }
        assert_eq!(state(&run, "either"), expected);
    }
}

#[test]
fn finally_steps_survive_cancel_and_not_abort() {
    let declare = |builder: &mut GraphBuilder| {
        builder.step("work", []);
        builder.step("more", ["work"]);
        let release = builder.step("release", ["work"]);
        let report = builder.step("report", []);
        builder.run_finally(release).run_finally(report);
    };
    for is_aborted in [false, true] {
        let mut run = run(declare, OnFailure::Stop);
        let [work, release, report] = ["work", "release", "report"].map(|name| task(&run, name));
        assert_eq!(why(&run, "report"), "`report` waits for the end of all other steps");
        assert_eq!(why(&run, "release"), "`release` waits, in whatever way they end, for `work`");
        run.start(work).unwrap();
        assert_eq!(run.cancel().cancelling, [work]);
        assert_eq!([state(&run, "more"), state(&run, "release")], [State::Cancelled, State::Waiting]);
        assert_eq!(run.fail(work, Then::End).unwrap().ready, [release, report]);
        run.start(report).unwrap();
        if is_aborted {
            assert_eq!(run.abort().cancelling, [report]);
            assert_eq!(state(&run, "release"), State::Cancelled);
            assert_eq!(run.fail(report, Then::End).unwrap().run, RunState::Cancelled);
        } else {
            run.start(release).unwrap();
            run.complete(report).unwrap();
            assert_eq!(run.complete(release).unwrap().run, RunState::Cancelled);
            assert_eq!(state(&run, "report"), State::Succeeded);
        }
    }
}

#[test]
fn finally_step_that_wants_success_is_blocked_by_a_cancelled_dependency() {
    let declare = |builder: &mut GraphBuilder| {
        builder.step("acquire", []);
        let release = builder.step("release", ["acquire"]);
        builder.run_finally(release).join(release, Join::All);
    };
    let mut run = run(declare, OnFailure::Stop);
    assert_eq!(run.cancel().run, RunState::Cancelled);
    let cause = run.view().status(id(&run, "release")).cause;
    assert_eq!(cause, Some(Cause::CancelledStep(id(&run, "acquire"))));
    assert_eq!(why(&run, "release"), "`release` cannot run, because `acquire` was cancelled");
}

#[test]
fn each_class_of_failures_has_its_own_budget_of_retries() {
    let [crash, timeout] = [0, 1].map(|number| RetryClass::new(number).unwrap());
    let declare = |builder: &mut GraphBuilder| {
        let step = builder.step("a", []);
        builder.retries(step, RetryBudget::NONE.with(crash, 2).with(timeout, 1));
    };
    let mut run = run(declare, OnFailure::Stop);
    let mut a = task(&run, "a");
    for class in [crash, timeout, crash] {
        run.start(a).unwrap();
        a = run.fail(a, Then::AgainFor(class)).unwrap().backing_off.unwrap();
        run.resume(a).unwrap();
    }
    run.start(a).unwrap();
    let changes = run.fail(a, Then::AgainFor(timeout)).unwrap();
    assert_eq!((changes.backing_off, changes.run), (None, RunState::Failed));
    assert_eq!(run.view().status(a.step).cause, Some(Cause::RetriesSpent(timeout)));
    let text = "`a` failed in attempt 4, because its retries for failures of class 1 are used up";
    assert_eq!(why(&run, "a"), text);
}

#[test]
fn items_are_expanded_in_turn_and_failures_go_up_by_their_own_rules() {
    let mut run = run(one_step("each"), OnFailure::Stop);
    let each = task(&run, "each");
    run.start(each).unwrap();
    assert_eq!(run.expand(each, 3, OnFailure::CarryOn).unwrap().items, 0..3);
    let item = |item, attempt| Task { item: Some(item), attempt, ..each };
    run.start(item(1, 1)).unwrap();
    assert_eq!(run.expand(item(1, 1), 2, OnFailure::Stop).unwrap().items, 3..5);
    assert_eq!(run.complete(item(1, 1)).unwrap_err(), TaskError::Expanded { task: item(1, 1) });
    assert_eq!(run.view().item_path(each.step, 4), [1, 1]);
    assert_eq!(run.view().item_path(each.step, 5), []);

    run.start(item(3, 1)).unwrap();
    run.start(item(4, 1)).unwrap();
    assert_eq!(run.fail(item(4, 1), Then::End).unwrap().cancelling, [item(3, 1)], "its own fan-out stops");
    run.start(item(0, 1)).unwrap();
    run.complete(item(0, 1)).unwrap();
    run.fail(item(3, 1), Then::End).unwrap();
    assert_eq!(run.view().item_status(each.step, 1).unwrap().state, State::Failed);
    assert_eq!(run.view().item_status(each.step, 2).unwrap().state, State::Ready, "the outer one carries on");
    assert_eq!(run.skip(item(2, 1)).unwrap().run, RunState::Failed);
    assert_eq!(why(&run, "each"), "`each` failed in attempt 1, because its item 1.1 failed");
}

#[test]
fn nested_items_share_the_limit_of_their_step() {
    let mut run = run(one_step("each"), OnFailure::Stop);
    let each = task(&run, "each");
    run.start(each).unwrap();
    run.expand(each, 2, OnFailure::Stop).unwrap();
    let item = Task { item: Some(1), ..each };
    run.start(item).unwrap();
    let refused = run.expand(item, ITEMS_MAX, OnFailure::Stop).unwrap_err();
    assert_eq!(refused, TaskError::TooManyItems { task: item, count: ITEMS_MAX + 2 });
    assert_eq!(run.expand(item, 4, OnFailure::Stop).unwrap().items, 2..6);
}

#[test]
fn attempt_beyond_the_limit_is_not_taken_for_another() {
    let mut run = run(one_step("a"), OnFailure::Stop);
    let a = task(&run, "a");
    for attempt in [0, 2, 1 + (1 << 24), u32::MAX] {
        let wrong = Task { attempt, ..a };
        assert_eq!(run.start(wrong).unwrap_err(), TaskError::StaleAttempt { task: wrong, current: 1 });
    }
    run.start(a).unwrap();
    let wrong = Task { attempt: 1 + (1 << 24), ..a };
    assert_eq!(run.complete(wrong).unwrap_err(), TaskError::StaleAttempt { task: wrong, current: 1 });
}

#[test]
fn snapshot_stays_as_it_was_taken() {
    let declare = |builder: &mut GraphBuilder| {
        builder.step("a", []);
        builder.step("b", ["a"]);
    };
    let mut run = run(declare, OnFailure::Stop);
    let before = run.view().snapshot();
    let a = task(&run, "a");
    run.start(a).unwrap();
    run.complete(a).unwrap();
    let after = run.view().snapshot();
    assert_eq!((before.tally().of(State::Waiting), after.tally().of(State::Waiting)), (1, 0));
    assert_eq!(before.steps(State::Ready).collect::<Vec<_>>(), [a.step]);
    assert_eq!(after.steps(State::Succeeded).collect::<Vec<_>>(), [a.step]);
    assert_eq!(before.status(a.step).state, State::Ready);
}

#[test]
fn snapshots_of_a_moving_run_never_show_an_effect_without_its_causes() {
    const CHAINS: u32 = 50;
    const LENGTH: u32 = 200;
    let mut builder = GraphBuilder::new();
    let name = |chain: u32, place: u32| format!("{chain}.{place}");
    // Declared from the end to the beginning, so that the order of declaration would not do.
    for place in (0..LENGTH).rev() {
        for chain in 0..CHAINS {
            let needs = place.checked_sub(1).map(|before| name(chain, before));
            builder.step(&name(chain, place), needs.as_deref());
        }
    }
    let graph = builder.build().unwrap();
    let mut run = Run::new(Arc::clone(&graph), OnFailure::Stop);
    let view = run.view().clone();
    let reader = std::thread::spawn(move || {
        let mut seen = 0;
        loop {
            let snapshot = view.snapshot();
            for step in graph.steps().filter(|step| snapshot.status(*step).state != State::Waiting) {
                let ended = |other: &StepId| snapshot.status(*other).state == State::Succeeded;
                assert!(graph.dependencies(step).iter().all(ended), "{step} is ahead");
            }
            assert_eq!(snapshot.tally().total(), CHAINS * LENGTH);
            seen += 1;
            if snapshot.run_state() != RunState::Running {
                assert_eq!(snapshot.tally().of(State::Succeeded), CHAINS * LENGTH);
                return seen;
            }
        }
    });
    let mut ready: Vec<Task> = run.view().tasks(State::Ready).collect();
    while let Some(task) = ready.pop() {
        run.start(task).unwrap();
        ready.extend(run.complete(task).unwrap().ready);
    }
    assert!(reader.join().unwrap() > 0);
}
