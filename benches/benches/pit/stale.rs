//! Expiry at a million entries, beside a plain lock around a binary heap and one around a bare array of deadlines, which
//! can expire nothing, and (with `peers`) tokio-util's `DelayQueue` and moka.
//!
//! Registering and cancelling are timed in batches, a thousand at a time, in the order of registration: the oldest go
//! and as many come. "random" cancels in random order instead, so that every one of them waits for memory. All
//! contenders work in turns.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use benches::report::{Figure, Report};
use parking_lot::Mutex;
use pit_core::clock::Tick;
use stale_manager::{Budget, Evict, Eviction, OwnerId, StaleManager, ThingId};

use super::batch::{alone, median};

/// Things that are registered all the time.
const THINGS: usize = 1_000_000;
/// Operations between two clock reads.
const BATCH: usize = 1_000;
/// Batches of each kind and contender.
const BATCHES: usize = 200;
/// Turns of each contender.
const TURNS: usize = 5;
/// Nothing expires while registering is measured.
const TTL: Duration = Duration::from_secs(3_600);

/// Something that things are registered with and cancelled by a key that it gives.
trait Expiry {
    type Key: Copy;
    fn register(&mut self, number: u64) -> Self::Key;
    fn cancel(&mut self, key: Self::Key);
}

struct Obliging;

impl Evict for Obliging {
    fn evict(&self, key: u64) -> Eviction {
        black_box(key);
        Eviction::Evicted
    }
}

struct Ours {
    stale: StaleManager,
    owner: OwnerId,
    /// Kept alive for the manager, which does not.
    _obliging: Arc<Obliging>,
}

impl Ours {
    fn new() -> anyhow::Result<Self> {
        let (stale, obliging) = (StaleManager::new(), Arc::new(Obliging));
        let owner = stale.add_owner(&obliging)?;
        Ok(Self { stale, owner, _obliging: obliging })
    }

    /// The slices of a sweep.
    fn sweep(&self, now: Tick) -> Vec<Duration> {
        let mut slices = Vec::new();
        loop {
            let start = Instant::now();
            let swept = self.stale.sweep(now, Budget::default());
            slices.push(start.elapsed());
            if !swept.is_unfinished {
                return slices;
            }
        }
    }
}

impl Expiry for Ours {
    type Key = ThingId;

    fn register(&mut self, number: u64) -> ThingId {
        let registered = self.stale.register(self.owner, number, TTL, Tick::ZERO);
        registered.expect("a million is less than its limit")
    }

    fn cancel(&mut self, key: ThingId) {
        self.stale.cancel(key);
    }
}

/// What one would write first: a heap of deadlines behind a lock. Cancelling only makes a note, the entry stays until it
/// comes up: memory for everything that was ever registered.
#[derive(Default)]
struct Heap {
    state: Mutex<Deadlines>,
}

/// Deadlines with keys, and which keys are still there.
type Deadlines = (BinaryHeap<Reverse<(u64, u64)>>, Vec<bool>);

impl Expiry for Heap {
    type Key = u64;

    fn register(&mut self, number: u64) -> u64 {
        let mut state = self.state.lock();
        let key = state.1.len() as u64;
        state.1.push(true);
        state.0.push(Reverse((u64::try_from(TTL.as_nanos()).unwrap_or(u64::MAX) + number, key)));
        key
    }

    fn cancel(&mut self, key: u64) {
        let place = usize::try_from(key).unwrap_or(usize::MAX);
        if let Some(is_there) = self.state.lock().1.get_mut(place) {
            *is_there = false;
        }
    }
}

/// No expiry at all: what any structure pays that writes to a place in memory for each thing, behind a lock. A deadline in
/// a flat array, which is what is written when it is cancelled.
struct Plain {
    deadlines: Mutex<Vec<u64>>,
    next: usize,
}

impl Expiry for Plain {
    type Key = usize;

    fn register(&mut self, number: u64) -> usize {
        let mut deadlines = self.deadlines.lock();
        let place = self.next % THINGS;
        deadlines[place] = number;
        self.next += 1;
        place
    }

    fn cancel(&mut self, key: usize) {
        self.deadlines.lock()[key] = u64::MAX;
    }
}

/// What a contender has been measured to need, a batch's mean in nanoseconds each.
#[derive(Default)]
struct Times {
    register: Vec<f64>,
    cancel: Vec<f64>,
    random: Vec<f64>,
    /// Registering in the places that were cancelled at random.
    after_random: Vec<f64>,
}

impl Times {
    fn figures(self, register: &str, cancel: &str) -> [Figure; 4] {
        [
            Figure::from_nanoseconds(register, median(self.register)),
            Figure::from_nanoseconds(cancel, median(self.cancel)),
            Figure::from_nanoseconds(&format!("{cancel}/random"), median(self.random)),
            Figure::from_nanoseconds(&format!("{register}/after-random"), median(self.after_random)),
        ]
    }
}

/// Numbers without a pattern: the next one.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 1).unwrap_or(0)
}

fn per_operation(start: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let count = BATCH as f64;
    start.elapsed().as_secs_f64() * 1e9 / count
}

/// One turn: batches in order, then batches that cancel at random.
fn turn<E: Expiry>(expiry: &mut E, keys: &mut [E::Key], times: &mut Times) {
    let mut state = 0x9E37_79B9_7F4A_7C15;
    for batch in 0..BATCHES {
        let is_random = batch % 2 == 1;
        // A step that has no divisor with their number, so that none is chosen twice.
        let (first, step) = (random(&mut state) % keys.len(), if is_random { 7_919 * 13 } else { 1 });
        let chosen = |place: usize| (first + place * step) % THINGS;
        let going: Vec<E::Key> = (0..BATCH).map(|place| keys[chosen(place)]).collect();
        let start = Instant::now();
        going.into_iter().for_each(|key| expiry.cancel(black_box(key)));
        if is_random { &mut times.random } else { &mut times.cancel }.push(per_operation(start));
        let mut coming = Vec::with_capacity(BATCH);
        let start = Instant::now();
        (0..BATCH as u64).for_each(|number| coming.push(expiry.register(number)));
        if is_random { &mut times.after_random } else { &mut times.register }.push(per_operation(start));
        coming.into_iter().enumerate().for_each(|(place, key)| keys[chosen(place)] = key);
    }
}

fn fill<E: Expiry>(expiry: &mut E) -> Vec<E::Key> {
    (0..THINGS as u64).map(|number| expiry.register(number)).collect()
}

/// Measures and adds its figures.
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let (mut ours, mut heap) = (Ours::new()?, Heap::default());
    let mut plain = Plain { deadlines: Mutex::new(vec![0; THINGS]), next: 0 };
    let (mut keys, mut heap_keys, mut plain_keys) = (fill(&mut ours), fill(&mut heap), fill(&mut plain));
    let (mut times, mut heap_times, mut plain_times) = <(Times, Times, Times)>::default();
    #[cfg(feature = "peers")]
    let mut peers = peers::Peers::new()?;
    for _ in 0..TURNS {
        turn(&mut ours, &mut keys, &mut times);
        turn(&mut heap, &mut heap_keys, &mut heap_times);
        turn(&mut plain, &mut plain_keys, &mut plain_times);
        #[cfg(feature = "peers")]
        peers.turn();
    }
    for (id, things) in [("pit/stale/touch", BATCH), ("pit/stale/touch/cold", THINGS)] {
        let mut touched = keys[..things].iter().cycle();
        report.push(alone(id, || {
            if let Some(thing) = touched.next() {
                ours.stale.touch(black_box(*thing));
            }
        }));
    }
    times
        .figures("pit/stale/register", "pit/stale/cancel")
        .into_iter()
        .for_each(|figure| report.push(figure));
    let heap_figures = heap_times.figures("peer/mutex-heap/register", "peer/mutex-heap/cancel");
    heap_figures.into_iter().for_each(|figure| report.push(figure));
    let plain_figures = plain_times.figures("peer/mutex-array/register", "peer/mutex-array/cancel");
    plain_figures.into_iter().for_each(|figure| report.push(figure));
    #[cfg(feature = "peers")]
    peers.figures().into_iter().for_each(|figure| report.push(figure));
    sweeps(report, &ours, &keys)
}

/// Whole sweeps of a million, and their slices: with one thing due, with all touched, with all expired.
fn sweeps(report: &mut Report, ours: &Ours, keys: &[ThingId]) -> anyhow::Result<()> {
    let second = |count: u64| Tick::ZERO.after(Duration::from_secs(count));
    let mut whole = Vec::new();
    let mut slices = Vec::new();
    for count in 1..=20 {
        ours.stale.register(ours.owner, 0, Duration::from_secs(1), second(count - 1))?;
        let start = Instant::now();
        slices.extend(ours.sweep(second(count)));
        whole.push(start.elapsed());
    }
    report.push(Figure::from_round_trips("pit/stale/sweep", &whole));
    report.push(Figure::from_round_trips("pit/stale/sweep-slice", &slices));
    keys.iter().for_each(|thing| ours.stale.touch(*thing));
    report.push(Figure::from_round_trips("pit/stale/sweep-slice/touched", &ours.sweep(second(3_600))));
    anyhow::ensure!(ours.stale.snapshot().registered == THINGS, "what was touched is kept");
    report.push(Figure::from_round_trips("pit/stale/sweep-slice/expired", &ours.sweep(second(9_000))));
    anyhow::ensure!(ours.stale.snapshot().registered == 0, "what was not touched is gone");
    Ok(())
}

#[cfg(feature = "peers")]
mod peers {
    //! What others have: a timer wheel, and a cache with a time to live.

    use benches::report::Figure;
    use moka::sync::Cache;
    use tokio::runtime::{Builder, Runtime};
    use tokio_util::time::{DelayQueue, delay_queue::Key};

    use super::{Expiry, TTL, Times, fill, turn};

    struct Queue(DelayQueue<u64>);

    impl Expiry for Queue {
        type Key = Key;

        fn register(&mut self, number: u64) -> Key {
            self.0.insert(number, TTL)
        }

        fn cancel(&mut self, key: Key) {
            self.0.remove(&key);
        }
    }

    struct Moka {
        cache: Cache<u64, u64>,
        numbers: u64,
    }

    impl Expiry for Moka {
        type Key = u64;

        fn register(&mut self, number: u64) -> u64 {
            self.numbers += 1;
            self.cache.insert(self.numbers, number);
            self.numbers
        }

        fn cancel(&mut self, key: u64) {
            self.cache.invalidate(&key);
        }
    }

    /// Both, filled.
    pub(super) struct Peers {
        queue: (Queue, Vec<Key>, Times),
        moka: (Moka, Vec<u64>, Times),
        /// The wheel reads its clock. Last, so that it is dropped after the wheel.
        runtime: Runtime,
    }

    impl Peers {
        pub(super) fn new() -> anyhow::Result<Self> {
            let runtime = Builder::new_current_thread().enable_time().build()?;
            let entered = runtime.enter();
            let mut queue = Queue(DelayQueue::new());
            let queue_keys = fill(&mut queue);
            drop(entered);
            let cache = Cache::builder().time_to_idle(TTL).build();
            let mut moka = Moka { cache, numbers: 0 };
            let moka_keys = fill(&mut moka);
            Ok(Self {
                queue: (queue, queue_keys, Times::default()),
                moka: (moka, moka_keys, Times::default()),
                runtime,
            })
        }

        pub(super) fn turn(&mut self) {
            let _entered = self.runtime.enter();
            turn(&mut self.queue.0, &mut self.queue.1, &mut self.queue.2);
            turn(&mut self.moka.0, &mut self.moka.1, &mut self.moka.2);
        }

        pub(super) fn figures(self) -> Vec<Figure> {
            let _entered = self.runtime.enter();
            let queue = self.queue.2.figures("peer/delay-queue/register", "peer/delay-queue/cancel");
            let moka = self.moka.2.figures("peer/moka/register", "peer/moka/cancel");
            queue.into_iter().chain(moka).collect()
        }
    }
}
