//! Sizes that only a flat layout carries.

use std::collections::VecDeque;

use dag_tracker::{GraphBuilder, OnFailure, Run, RunState, State, Task, Then};

#[test]
fn million_steps_in_layers_are_taken_through_in_order() {
    const LAYERS: u32 = 100;
    const WIDTH: u32 = 10_000;
    let name = |layer: u32, place: u32| format!("{}", layer * WIDTH + place % WIDTH);
    let mut builder = GraphBuilder::new();
    for layer in 0..LAYERS {
        for place in 0..WIDTH {
            if layer == 0 {
                builder.step(&name(layer, place), []);
            } else {
                let after = [name(layer - 1, place), name(layer - 1, place * 7 + layer)];
                builder.step(&name(layer, place), after.iter().map(String::as_str));
            }
        }
    }
    let mut run = Run::new(builder.build().unwrap(), OnFailure::Stop);
    let view = run.view().clone();
    assert_eq!(view.tally().total(), LAYERS * WIDTH);

    let mut queue: VecDeque<Task> = view.tasks(State::Ready).collect();
    let mut done = 0;
    while let Some(task) = queue.pop_front() {
        run.start(task).unwrap();
        // First in, first out: a layer is ready only when the one before is through.
        assert_eq!(task.step.index() / WIDTH as usize, (done / WIDTH) as usize);
        queue.extend(run.complete(task).unwrap().ready);
        done += 1;
    }
    assert_eq!((done, view.state()), (LAYERS * WIDTH, RunState::Succeeded));
}

#[test]
fn fan_out_of_200_000_items_survives_retries_and_a_cancel() {
    const ITEMS: u32 = 200_000;
    let mut builder = GraphBuilder::new();
    let each = builder.step("each", []);
    let mut run = Run::new(builder.build().unwrap(), OnFailure::Stop);
    let step = Task { step: each, item: None, attempt: 1 };
    run.start(step).unwrap();
    run.expand(step, ITEMS, OnFailure::CarryOn).unwrap();

    let items: Vec<Task> = run.view().tasks(State::Ready).collect();
    for (i, &item) in items.iter().enumerate() {
        run.start(item).unwrap();
        match i % 4 {
            0 => drop(run.complete(item).unwrap()),
            1 => {
                let again = run.fail(item, Then::Again).unwrap().backing_off.unwrap();
                run.resume(again).unwrap();
            }
            2 => drop(run.fail(item, Then::Again).unwrap()),
            _ => {}
        }
    }
    let cancelling = run.cancel().cancelling.to_vec();
    assert_eq!(cancelling.len(), ITEMS as usize / 4);
    for task in cancelling {
        run.fail(task, Then::End).unwrap();
    }
    let tally = run.view().item_tally(each).unwrap();
    assert_eq!((tally.of(State::Succeeded), tally.of(State::Cancelled)), (ITEMS / 4, ITEMS / 4 * 3));
    assert_eq!(run.view().state(), RunState::Cancelled);
}
