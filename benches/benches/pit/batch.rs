//! Medians over batches: a single operation is shorter than a clock read.
//!
//! Threads are pinned to cores of their own. Where two are measured at once, both work until both have all their
//! samples, and only those batches count during which the other one did something worth mentioning: on a machine that is busy with something else, two threads often run
//! in turns instead of at once, and would seem not to disturb each other.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use benches::report::Figure;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Operations of a batch, between two clock reads.
const OPERATIONS: u32 = 1_000;
/// Batches that count.
const BATCHES: usize = 400;
/// Batches before those.
const WARM_UP: usize = 50;
/// Parts of a batch after which the other thread is shown how far this one is.
const STEPS: u32 = 10;
/// Steps of the other thread during a batch that counts.
const STEPS_OF_OTHER_MIN: u32 = 3;
/// Batches of one thread at most, until it has enough during which the other was at work.
const TRIES: u32 = 40_000;

/// Nanoseconds per call of `operation` on this thread alone: the median over batches.
pub(crate) fn alone(id: &str, mut operation: impl FnMut()) -> Figure {
    let mut times: Vec<f64> =
        std::iter::repeat_with(|| batch(&mut operation, || ())).take(WARM_UP + BATCHES).collect();
    Figure::from_nanoseconds(id, median(times.split_off(WARM_UP)))
}

/// Nanoseconds per operation while two threads do them at once, each with its own closure and on its own core: the
/// median over the batches of both in which the other was at work too; infinite when there were none.
pub(crate) fn two_threads<F: FnMut() + Send>(id: &str, operations: [F; 2]) -> Figure {
    let start = Barrier::new(2);
    let sides = [Side::default(), Side::default()];
    let times = thread::scope(|scope| {
        let mut number = 0;
        let threads = operations.map(|mut operation| {
            let (start, core, own, other) = (&start, number, &sides[number], &sides[1 - number]);
            number += 1;
            scope.spawn(move || {
                pin(core);
                start.wait();
                let mut times = Vec::with_capacity(WARM_UP + BATCHES);
                for tried in 0_u32.. {
                    let is_satisfied = times.len() == WARM_UP + BATCHES || tried >= TRIES;
                    own.set_satisfied(is_satisfied);
                    if is_satisfied && other.is_satisfied() {
                        break;
                    }
                    let before = other.steps();
                    let time = batch(&mut operation, || own.step());
                    let steps_of_other = other.steps().wrapping_sub(before);
                    if !is_satisfied && steps_of_other >= STEPS_OF_OTHER_MIN {
                        times.push(time);
                    }
                }
                times.split_off(WARM_UP.min(times.len()))
            })
        });
        threads.map(|thread| thread.join().expect("an operation of a bench does not panic")).concat()
    });
    Figure::from_nanoseconds(id, median(times))
}

/// What one of two threads shows the other, in cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Side {
    steps: AtomicU32,
    is_satisfied: AtomicBool,
}

impl Side {
    fn step(&self) {
        // ORDERING(bench-side): Relaxed suffices here and below: counts and a flag, beside which no data is passed.
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn steps(&self) -> u32 {
        // ORDERING(bench-side): Relaxed suffices, as above.
        self.steps.load(Ordering::Relaxed)
    }

    fn set_satisfied(&self, is_satisfied: bool) {
        // ORDERING(bench-side): Relaxed suffices, as above.
        self.is_satisfied.store(is_satisfied, Ordering::Relaxed);
    }

    fn is_satisfied(&self) -> bool {
        // ORDERING(bench-side): Relaxed suffices, as above.
        self.is_satisfied.load(Ordering::Relaxed)
    }
}

/// Binds this thread to the `which`-th of the cores that it may use, if there are so many.
pub(crate) fn pin(which: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let Some(core) = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).nth(which) else { return };
    let mut one = CpuSet::new();
    one.set(core);
    if let Err(error) = sched_setaffinity(None, &one) {
        eprintln!("a thread is not pinned to its core: {error}");
    }
}

/// The figure with the median of those medians: for runs of several things that were made in turns, so that whatever
/// else the machine did meets all of them.
pub(crate) fn median_of(mut runs: Vec<Figure>) -> Option<Figure> {
    let p50 = |figure: &Figure| figure.p50.unwrap_or(f64::INFINITY);
    runs.sort_by(|a, b| p50(a).total_cmp(&p50(b)));
    (!runs.is_empty()).then(|| runs.swap_remove(runs.len() / 2))
}

fn batch(operation: &mut impl FnMut(), mut after_step: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..STEPS {
        for _ in 0..OPERATIONS / STEPS {
            black_box(&mut *operation)();
        }
        after_step();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(OPERATIONS)
}

/// The median; infinite without samples.
pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::INFINITY)
}
