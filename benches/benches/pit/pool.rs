//! Leases of models, beside what else hands things out: a bare ArrayQueue, a plain lock around a `Vec`, and (with
//! `peers`) tokio's Semaphore, deadpool and object-pool.
//!
//! All contenders of a variant are measured in turns, several times, and the median of the turns counts: what else the
//! machine does meets all of them. "2-threads" means two models (for peers: one pool for both), "2-threads-same-model"
//! one model for both threads.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use artifact_store::{Store, StoreOptions};
use benches::report::{Figure, Report};
use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use pit_core::clock::Tick;
use pit_core::priority::Priority;
use pool_manager::{Holder, ModelId, PoolManager, Request};
use stale_manager::{Budget, Evict, Eviction, StaleManager};

use super::batch::{alone, median_of, pin, two_threads};

/// Leases of a model at once, and things in a peer's queue.
const CAPACITY: u32 = 8;
/// Turns of each contender.
const TURNS: usize = 5;
/// Wake-ups of each kind.
const WAKES: u32 = 1_000;
/// So long a sleeper is left asleep before it is woken.
const SLEEP: Duration = Duration::from_micros(150);
/// Things that expire in one sweep.
const EXPIRED: u32 = 1_000_000;
/// Leases that are measured one by one, in each of the turns.
const LEASES: usize = 100_000;
/// Bytes of the artifact that is stored meanwhile.
const STORED: usize = 1 << 30;

/// One thing to be measured: makes one figure at a time.
type Contender<'c> = Box<dyn Fn() -> Figure + 'c>;

/// Measures and adds its figures.
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    leases(report)?;
    #[cfg(feature = "peers")]
    peers::run(report)?;
    wakes(report)?;
    pauses(report)
}

fn leases(report: &mut Report) -> anyhow::Result<()> {
    let pools = PoolManager::new();
    let models = [pools.declare("first", CAPACITY)?, pools.declare("second", CAPACITY)?];
    let holders = [Holder::new("first"), Holder::new("second")];
    let lease = |model: usize, holder: usize| {
        let (pools, model, holder) = (&pools, models[model], &holders[holder]);
        move || {
            let request = Request::new(model).with_priority(Priority::new(7)).held_by(holder);
            drop(black_box(pools.allocate(request)).expect("never more than two of eight are leased"));
        }
    };
    let queue = ArrayQueue::new(CAPACITY as usize);
    (0..CAPACITY).for_each(|thing| queue.push(u64::from(thing)).expect("it has room for as many"));
    let from_queue = || {
        let thing = black_box(queue.pop()).expect("never more than two of eight are taken");
        queue.push(thing).expect("it was just taken");
    };
    let things = Mutex::new((0..u64::from(CAPACITY)).collect::<Vec<_>>());
    let from_vec = || {
        let thing = black_box(things.lock().pop()).expect("never more than two of eight are taken");
        things.lock().push(thing);
    };
    let contenders: Vec<Contender<'_>> = vec![
        Box::new(|| alone("pit/pool/lease", lease(0, 0))),
        Box::new(|| alone("peer/array-queue", from_queue)),
        Box::new(|| alone("peer/mutex-vec", from_vec)),
        Box::new(|| two_threads("pit/pool/lease/2-threads", [lease(0, 0), lease(1, 1)])),
        Box::new(|| two_threads("pit/pool/lease/2-threads-same-model", [lease(0, 0), lease(0, 1)])),
        Box::new(|| two_threads("peer/array-queue/2-threads", [from_queue, from_queue])),
        Box::new(|| two_threads("peer/mutex-vec/2-threads", [from_vec, from_vec])),
    ];
    in_turns(report, &contenders);
    Ok(())
}

fn in_turns(report: &mut Report, contenders: &[Contender<'_>]) {
    let mut runs = vec![Vec::new(); contenders.len()];
    for _ in 0..TURNS {
        contenders.iter().zip(&mut runs).for_each(|(contender, runs)| runs.push(contender()));
    }
    runs.into_iter().filter_map(median_of).for_each(|figure| report.push(figure));
}

#[cfg(feature = "peers")]
mod peers {
    use super::*;

    pub(super) fn run(report: &mut Report) -> anyhow::Result<()> {
        let semaphore = tokio::sync::Semaphore::new(CAPACITY as usize);
        let from_semaphore = || {
            drop(black_box(semaphore.try_acquire()).expect("never more than two of eight are taken"));
        };
        let deadpool = deadpool::unmanaged::Pool::from((0..CAPACITY).collect::<Vec<_>>());
        let from_deadpool = || {
            drop(black_box(deadpool.try_get()).expect("never more than two of eight are taken"));
        };
        let objects = object_pool::Pool::new(CAPACITY as usize, || 0_u64);
        let from_objects = || {
            drop(black_box(objects.try_pull()).expect("never more than two of eight are taken"));
        };
        let contenders: Vec<Contender<'_>> = vec![
            Box::new(|| alone("peer/tokio-semaphore", from_semaphore)),
            Box::new(|| alone("peer/deadpool", from_deadpool)),
            Box::new(|| alone("peer/object-pool", from_objects)),
            Box::new(|| two_threads("peer/tokio-semaphore/2-threads", [from_semaphore, from_semaphore])),
            Box::new(|| two_threads("peer/deadpool/2-threads", [from_deadpool, from_deadpool])),
            Box::new(|| two_threads("peer/object-pool/2-threads", [from_objects, from_objects])),
        ];
        in_turns(report, &contenders);
        Ok(())
    }
}

fn spin(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// From giving a lease back to the first waiter running, and from `unpark` to the same, one after the other.
fn wakes(report: &mut Report) -> anyhow::Result<()> {
    let pools = PoolManager::new();
    let model = pools.declare("m", 1)?;
    let (order, orders) = mpsc::channel::<bool>();
    let (answer, answers) = mpsc::channel();
    let (asleep, called) = (Flag::default(), Flag::default());
    let mut times = [Vec::new(), Vec::new()];
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            pin(1);
            for is_lease in orders {
                if is_lease {
                    drop(pools.allocate_wait(model, Tick::NEVER));
                } else {
                    asleep.set(true);
                    while !called.get() {
                        thread::park();
                    }
                }
                if answer.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        let waking = scope.spawn(|| {
            let (order, answers, sleeper) = (order, answers, sleeper);
            pin(0);
            for round in 0..WAKES * 2 {
                let is_lease = round % 2 == 0;
                let lease = pools.allocate_wait(model, Tick::NEVER).ok();
                called.set(false);
                asleep.set(false);
                order.send(is_lease)?;
                let is_asleep = || {
                    let is_waiting = || pools.state(model).is_ok_and(|state| state.waiting == 1);
                    if is_lease { is_waiting() } else { asleep.get() }
                };
                while !is_asleep() {
                    std::hint::spin_loop();
                }
                spin(SLEEP);
                let start = Instant::now();
                if is_lease {
                    drop(lease);
                } else {
                    called.set(true);
                    sleeper.thread().unpark();
                }
                times[usize::from(!is_lease)].push(answers.recv()?.saturating_duration_since(start));
            }
            anyhow::Ok(())
        });
        waking.join().expect("nothing panics while it is measured")
    })?;
    report.push(Figure::from_round_trips("pit/pool/wake", &times[0]));
    report.push(Figure::from_round_trips("peer/park-unpark", &times[1]));
    Ok(())
}

/// What one thread tells another outside of what is measured, so that the plainest ordering will do.
#[derive(Default)]
struct Flag(AtomicBool);

impl Flag {
    fn set(&self, value: bool) {
        // ORDERING(bench-flag): SeqCst here and in `get`: the plainest.
        self.0.store(value, Ordering::SeqCst);
    }

    fn get(&self) -> bool {
        // ORDERING(bench-flag): SeqCst, as in `set`.
        self.0.load(Ordering::SeqCst)
    }
}

/// Owns what expires, and counts it.
struct Expiring(AtomicU32);

impl Evict for Expiring {
    fn evict(&self, _key: u64) -> Eviction {
        // ORDERING(bench-count): Relaxed suffices: a count.
        self.0.fetch_add(1, Ordering::Relaxed);
        Eviction::Evicted
    }
}

/// Leases one by one while nothing else happens, while a million things expire, and while a large artifact is stored.
fn pauses(report: &mut Report) -> anyhow::Result<()> {
    let pools = PoolManager::new();
    let model = pools.declare("m", CAPACITY)?;
    let holder = Holder::new("h");
    let (mut quiet, mut sweep, mut store) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        quiet.extend(beside(&pools, model, &holder, || {
            spin(Duration::from_millis(20));
            Ok(())
        })?);
        let stale = StaleManager::new();
        let owner = Arc::new(Expiring(AtomicU32::new(0)));
        let ttl = Duration::from_secs(1);
        let id = stale.add_owner(&owner)?;
        for key in 0..EXPIRED {
            stale.register(id, u64::from(key), ttl, Tick::ZERO)?;
        }
        let due = Tick::ZERO.after(ttl);
        sweep.extend(beside(&pools, model, &holder, || {
            while stale.sweep(due, Budget::default()).is_unfinished {}
            Ok(())
        })?);
        // ORDERING(bench-count): Relaxed suffices: the sweeping thread was joined.
        anyhow::ensure!(owner.0.load(Ordering::Relaxed) == EXPIRED, "everything has expired");
    }
    let folder = tempfile::tempdir_in(benches::report::target_folder())?;
    let artifacts = Store::open(folder.path(), StoreOptions::default())?;
    let piece = vec![0x5A_u8; 1 << 20];
    store.extend(beside(&pools, model, &holder, || {
        let mut writer = artifacts.writer()?;
        for _ in 0..STORED / piece.len() {
            writer.append(&piece)?;
        }
        writer.commit()?;
        Ok(())
    })?);
    let ids = [("quiet", quiet), ("sweep", sweep), ("store", store)];
    for (what, times) in ids {
        let mut figure = Figure::from_round_trips(&format!("pit/pool/lease-p99/{what}"), &times);
        figure.unit = "ns".into();
        figure.p50 = figure.p50.map(|micros| micros * 1e3);
        figure.p99 = figure.p99.map(|micros| micros * 1e3);
        report.push(figure);
    }
    Ok(())
}

/// Times of single leases on one core while `work` goes on on another; at least [`LEASES`], with a clock read each.
fn beside(
    pools: &PoolManager,
    model: ModelId,
    holder: &Holder,
    work: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<Vec<Duration>> {
    let is_over = Flag::default();
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            pin(1);
            let worked = work();
            is_over.set(true);
            worked
        });
        let leasing = scope.spawn(|| {
            pin(0);
            let mut times = Vec::with_capacity(LEASES);
            while times.len() < LEASES || !is_over.get() {
                let start = Instant::now();
                let request = Request::new(model).held_by(holder);
                drop(black_box(pools.allocate(request)));
                times.push(start.elapsed());
            }
            times
        });
        worker.join().expect("nothing panics while it is measured")?;
        Ok(leasing.join().expect("nothing panics while it is measured"))
    })
}
