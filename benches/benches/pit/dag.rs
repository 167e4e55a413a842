//! The tracker on a million layered steps, each taken through all its checked transitions (waiting, ready, running,
//! succeeded), beside a bare walk of the same graph that keeps no states at all, and beside the tracker behind a mutex.
//!
//! What stands beside what:
//!
//! | figure | what one operation is | what it keeps |
//! |---|---|---|
//! | `pit/dag/complete` | `start` and `complete` of one step | state, attempt, tally, joins; readable by others all the time |
//! | `pit/dag/complete/mutex` | the same, each call under a `parking_lot::Mutex` | the same |
//! | `pit/dag/complete/read` | the same, while another thread takes snapshots without a pause | the same |
//! | `pit/dag/run` | the same, with the making of the run | the same |
//! | `peer/petgraph-kahn` | one node taken from the queue, its dependents' counts lowered | one count for each node |
//!
//! All walk the same graph with the same queue, first in, first out, in turns within one run; the rates are medians of the
//! turns. A walk is one thread that waits for nobody, so it is timed by that thread's own clock: what else the machine does
//! meanwhile does not count. `dagrs` is not among them: it executes asynchronous functions and took 7 us for an empty one.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::report::{Figure, Report};
use dag_tracker::{Graph, GraphBuilder, OnFailure, Run, RunState, RunView, State, StepId, Task};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::batch;

/// Layers of the large graph, steps of each, and dependencies of a step, drawn from the layer before.
const LAYERS: u32 = 1_000;
const WIDTH: u32 = 1_000;
const NEEDS: u32 = 3;
const STEPS: f64 = LAYERS as f64 * WIDTH as f64;
/// Turns of each walk.
const TURNS: usize = 11;
/// Runs that exist at once, for the bytes of a step, and steps of each.
const RUNS: u32 = 100_000;
const RUN_STEPS: u32 = 100;

/// Measures and adds its figures.
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    bytes_per_step(report)?;
    let graph = layered(LAYERS, WIDTH)?;
    walks(report, &graph)?;
    fan_out(report)?;
    snapshots(report, &graph)?;
    why(report, &graph);
    Ok(())
}

/// The time that this thread has had a core.
struct OwnTime(Duration);

impl OwnTime {
    fn now() -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Self(Duration::try_from(time).unwrap_or_default())
    }

    fn elapsed(&self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// A graph in layers; the same at each call.
fn layered(layers: u32, width: u32) -> anyhow::Result<Arc<Graph>> {
    let names: Vec<String> = (0..layers * width).map(|step| step.to_string()).collect();
    let mut builder = GraphBuilder::new();
    let mut edges = edges(layers, width).peekable();
    for (step, name) in (0..).zip(&names) {
        let after =
            std::iter::from_fn(|| edges.next_if(|edge| edge.0 == step)).map(|edge| &*names[edge.1 as usize]);
        builder.step(name, after);
    }
    Ok(builder.build()?)
}

/// All edges from a step to one that it needs, in the order of steps.
fn edges(layers: u32, width: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    (1..layers).flat_map(move |layer| (0..width).map(move |place| (layer, place))).flat_map(
        move |(layer, place)| {
            [(); NEEDS as usize].map(|()| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let other = u32::try_from((random >> 33) % u64::from(width)).unwrap_or(0);
                (layer * width + place, (layer - 1) * width + other)
            })
        },
    )
}

/// Takes all steps through; the time of the walk alone.
fn walk(run: &mut Run) -> anyhow::Result<Duration> {
    let mut queue: VecDeque<StepId> = run.view().tasks(State::Ready).map(|task| task.step).collect();
    let start = OwnTime::now();
    while let Some(step) = queue.pop_front() {
        let task = Task { step, item: None, attempt: 1 };
        run.start(task)?;
        for ready in run.complete(task)?.ready {
            queue.push_back(ready.step);
        }
    }
    let time = start.elapsed();
    anyhow::ensure!(run.view().state() == RunState::Succeeded, "the walk did not reach the end");
    Ok(time)
}

fn walk_locked(run: &Mutex<Run>) -> anyhow::Result<Duration> {
    let mut queue: VecDeque<StepId> = run.lock().view().tasks(State::Ready).map(|task| task.step).collect();
    let start = OwnTime::now();
    while let Some(step) = queue.pop_front() {
        let task = Task { step, item: None, attempt: 1 };
        run.lock().start(task)?;
        for ready in run.lock().complete(task)?.ready {
            queue.push_back(ready.step);
        }
    }
    Ok(start.elapsed())
}

fn per_second(operations: f64, time: Duration) -> f64 {
    operations / time.as_secs_f64()
}

fn walks(report: &mut Report, graph: &Arc<Graph>) -> anyhow::Result<()> {
    #[cfg(feature = "peers")]
    let (peer, mut peers) = (petgraph_walk::Walk::new(), vec![]);
    let (mut bare, mut locked, mut whole) = (vec![], vec![], vec![]);
    for _ in 0..TURNS {
        let start = OwnTime::now();
        let mut run = Run::new(Arc::clone(graph), OnFailure::Stop);
        let made = start.elapsed();
        let walked = walk(&mut run)?;
        bare.push(per_second(STEPS, walked));
        whole.push(per_second(STEPS, made + walked));
        #[cfg(feature = "peers")]
        peers.push(per_second(STEPS, peer.walk()?));
        let run = Mutex::new(Run::new(Arc::clone(graph), OnFailure::Stop));
        locked.push(per_second(STEPS, walk_locked(&run)?));
    }
    report.push(Figure::from_rates("pit/dag/complete", bare));
    report.push(Figure::from_rates("pit/dag/complete/mutex", locked));
    report.push(Figure::from_rates("pit/dag/run", whole));
    #[cfg(feature = "peers")]
    report.push(Figure::from_rates("peer/petgraph-kahn", peers));
    Ok(())
}

/// A walk that only counts: for each node one number, no states, nobody who reads.
#[cfg(feature = "peers")]
mod petgraph_walk {
    use std::collections::VecDeque;
    use std::time::Duration;

    use petgraph::graph::{DiGraph, NodeIndex};

    use super::{LAYERS, OwnTime, WIDTH, edges};

    pub(super) struct Walk {
        graph: DiGraph<(), ()>,
        needs: Vec<u32>,
    }

    impl Walk {
        pub(super) fn new() -> Self {
            let count = LAYERS * WIDTH;
            let mut graph = DiGraph::with_capacity(count as usize, edges(LAYERS, WIDTH).count());
            for _ in 0..count {
                graph.add_node(());
            }
            let mut needs = vec![0; count as usize];
            // The tracker takes an edge that was declared twice as one.
            let mut all: Vec<_> = edges(LAYERS, WIDTH).collect();
            all.sort_unstable();
            all.dedup();
            for (step, other) in all {
                graph.add_edge(NodeIndex::from(other), NodeIndex::from(step), ());
                needs[step as usize] += 1;
            }
            Self { graph, needs }
        }

        pub(super) fn walk(&self) -> anyhow::Result<Duration> {
            let mut needs = self.needs.clone();
            let mut queue: VecDeque<NodeIndex> =
                self.graph.node_indices().filter(|node| needs[node.index()] == 0).collect();
            let mut walked = 0;
            let start = OwnTime::now();
            while let Some(node) = queue.pop_front() {
                walked += 1;
                for next in self.graph.neighbors(node) {
                    let left = &mut needs[next.index()];
                    *left -= 1;
                    if *left == 0 {
                        queue.push_back(next);
                    }
                }
            }
            let time = start.elapsed();
            anyhow::ensure!(walked == needs.len(), "the walk did not reach the end");
            Ok(time)
        }
    }
}

/// Many runs of one graph at once, each half way through; and one run of the large graph. What the process has gained in
/// memory, the shared graph apart.
fn bytes_per_step(report: &mut Report) -> anyhow::Result<()> {
    let graph = layered(RUN_STEPS / 10, 10)?;
    let before = resident()?;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let mut run = Run::new(Arc::clone(&graph), OnFailure::Stop);
        let mut queue: VecDeque<Task> = run.view().tasks(State::Ready).collect();
        for _ in 0..RUN_STEPS / 2 {
            let Some(task) = queue.pop_front() else { break };
            run.start(task)?;
            queue.extend(run.complete(task)?.ready);
        }
        runs.push(run);
    }
    report.push(bytes("pit/dag/bytes-per-step", resident()? - before, f64::from(RUNS * RUN_STEPS)));
    drop(runs);
    Ok(())
}

fn bytes(id: &str, bytes: f64, steps: f64) -> Figure {
    Figure {
        id: id.into(),
        unit: "B".into(),
        p50: Some(bytes / steps),
        p99: None,
        p999: None,
        per_second: None,
    }
}

/// Bytes of this process that are in memory.
fn resident() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: f64 = line.and_then(|line| line.split_whitespace().next()).unwrap_or_default().parse()?;
    Ok(kibibytes * 1024.0)
}

/// One step expanded into a million items, each started and completed.
fn fan_out(report: &mut Report) -> anyhow::Result<()> {
    const ITEMS: u32 = 1_000_000;
    let mut rates = Vec::new();
    for _ in 0..TURNS {
        let mut builder = GraphBuilder::new();
        let step = builder.step("each", []);
        let mut run = Run::new(builder.build()?, OnFailure::Stop);
        let each = Task { step, item: None, attempt: 1 };
        run.start(each)?;
        let start = OwnTime::now();
        for item in run.expand(each, ITEMS, OnFailure::Stop)?.items {
            let task = Task { item: Some(item), ..each };
            run.start(task)?;
            run.complete(task)?;
        }
        rates.push(per_second(f64::from(ITEMS), start.elapsed()));
        anyhow::ensure!(run.view().state() == RunState::Succeeded, "the items did not end the step");
    }
    report.push(Figure::from_rates("pit/dag/fan-out", rates));
    Ok(())
}

/// Snapshots of a million steps by another thread while the owner goes on, and what that costs the owner.
fn snapshots(report: &mut Report, graph: &Arc<Graph>) -> anyhow::Result<()> {
    let (mut rates, mut times) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let mut run = Run::new(Arc::clone(graph), OnFailure::Stop);
        let (view, is_over) = (run.view().clone(), AtomicBool::new(false));
        let (walked, taken) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| snapshots_until(&is_over, &view));
            let walked = walk(&mut run);
            // ORDERING(is-over): Relaxed suffices: it ends a loop and publishes nothing.
            is_over.store(true, Ordering::Relaxed);
            (walked, reader.join().expect("a reader of a bench does not panic"))
        });
        rates.push(per_second(STEPS, walked?));
        times.extend(taken);
    }
    report.push(Figure::from_round_trips("pit/dag/snapshot", &times));
    report.push(Figure::from_rates("pit/dag/complete/read", rates));
    Ok(())
}

fn snapshots_until(is_over: &AtomicBool, view: &RunView) -> Vec<Duration> {
    let mut times = Vec::new();
    // ORDERING(is-over): Relaxed suffices, as where it is stored.
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        black_box(view.snapshot());
        times.push(start.elapsed());
    }
    times
}

/// Why a step in the middle of the graph waits.
fn why(report: &mut Report, graph: &Arc<Graph>) {
    let run = Run::new(Arc::clone(graph), OnFailure::Stop);
    let step: StepId = graph.steps().nth(graph.len() as usize / 2).expect("the graph has steps");
    report.push(batch::alone("pit/dag/why", || {
        black_box(run.view().why(step));
    }));
}
