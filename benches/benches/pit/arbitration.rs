//! Claims on three resources, beside a plain lock around three counters and three of tokio's semaphores, neither of which
//! knows a queue, priorities or owners.
//!
//! A thousand waiting claims are looked at again in three ways: each must be looked at and none can be granted; `usual`,
//! where the first of them keep all that has become free; `all`, where all are granted at once.

use std::{
    future::Future,
    hint::black_box,
    pin::Pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use arbitration::{Arbiter, ClaimSpec, Claiming, Options, OwnerId, Policy};
use benches::report::{Figure, Report};
use parking_lot::Mutex;
use pit_core::{clock::SystemClock, priority::Priority};
use tokio::sync::Semaphore;

use super::batch::{alone, median_of, two_threads};

/// Units of each resource; semaphores take no more than a few hundred million.
const UNITS: u64 = 1_000_000;
/// Claims that wait.
const WAITERS: u64 = 1_000;
/// Turns of each contender.
const TURNS: usize = 5;
/// Looks at the queue of each kind.
const LOOKS: usize = 200;

/// One thing to be measured: makes one figure at a time.
type Contender<'c> = Box<dyn Fn() -> Figure + 'c>;

/// Three resources. Of the third nothing is left when one unit of it is held twice.
fn arbiter(policy: Policy) -> anyhow::Result<Arbiter> {
    let resources = [("a", UNITS), ("b", UNITS), ("c", 2)];
    let options = Options { policy, ..Options::default() };
    Ok(Arbiter::with_options(resources, options, std::sync::Arc::new(SystemClock::new()))?)
}

fn spec(arbiter: &Arbiter, owner: u64, priority: Priority, units: [u64; 3]) -> ClaimSpec {
    let named = ["a", "b", "c"].into_iter().zip(units);
    named.fold(ClaimSpec::new(OwnerId::new(owner), priority), |spec, (name, units)| {
        spec.with(arbiter.resource(name).expect("it is declared above"), units)
    })
}

/// Measures and adds its figures.
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let (by_priority, by_share) = (arbiter(Policy::default())?, arbiter(Policy::dominant_share())?);
    let claim = |arbiter: &Arbiter, owner: u64| {
        let (arbiter, spec) = (arbiter.clone(), spec(arbiter, owner, Priority::NORMAL, [1, 1, 1]));
        move || {
            let grant = arbiter.try_claim(black_box(&spec)).expect("there is as much");
            drop(black_box(grant).expect("two units are enough for two threads"));
        }
    };
    let counters = Mutex::new([UNITS, UNITS, 2]);
    let plain = || {
        let mut free = counters.lock();
        let fits = free.iter().all(|units| *units >= 1);
        if fits {
            free.iter_mut().for_each(|units| *units -= 1);
        }
        drop(free);
        if black_box(fits) {
            counters.lock().iter_mut().for_each(|units| *units += 1);
        }
    };
    let semaphores = [1_000_000, 1_000_000, 2].map(Semaphore::new);
    let three = || {
        let permits = semaphores.each_ref().map(|semaphore| semaphore.try_acquire().ok());
        drop(black_box(permits));
    };
    let contenders: Vec<Contender<'_>> = vec![
        Box::new(|| alone("pit/arbitration/claim", claim(&by_priority, 1))),
        Box::new(|| alone("pit/arbitration/drf-claim", claim(&by_share, 1))),
        Box::new(|| alone("peer/mutex-3", plain)),
        Box::new(|| alone("peer/tokio-semaphore-3", three)),
        Box::new(|| {
            two_threads("pit/arbitration/claim/2-threads", [claim(&by_priority, 1), claim(&by_priority, 2)])
        }),
        Box::new(|| two_threads("peer/mutex-3/2-threads", [plain, plain])),
        Box::new(|| two_threads("peer/tokio-semaphore-3/2-threads", [three, three])),
    ];
    let mut runs = vec![Vec::new(); contenders.len()];
    for _ in 0..TURNS {
        contenders.iter().zip(&mut runs).for_each(|(contender, runs)| runs.push(contender()));
    }
    runs.into_iter().filter_map(median_of).for_each(|figure| report.push(figure));
    for (id, arbiter) in
        [("pit/arbitration/waiters-1000", &by_priority), ("pit/arbitration/drf-waiters-1000", &by_share)]
    {
        waiters(report, id, arbiter)?;
    }
    Ok(())
}

/// A thousand claims that wait for `units`, of ten owners.
fn waiting(arbiter: &Arbiter, units: [u64; 3]) -> anyhow::Result<Vec<Claiming>> {
    let claim = |number| {
        let mut claim = arbiter.claim(&spec(arbiter, number % 10, Priority::NORMAL, units));
        let polled = Pin::new(&mut claim).poll(&mut Context::from_waker(Waker::noop()));
        anyhow::ensure!(polled.is_pending(), "it has to wait");
        Ok(claim)
    };
    (0..WAITERS).map(claim).collect()
}

fn waiters(report: &mut Report, id: &str, arbiter: &Arbiter) -> anyhow::Result<()> {
    let hold = |owner, units| {
        let held = arbiter.try_claim(&spec(arbiter, owner, Priority::HIGHEST, units))?;
        held.ok_or_else(|| anyhow::anyhow!("there is as much"))
    };
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..LOOKS {
        // What the first ones want is more than becomes free; what all want, nobody has.
        for (which, units) in [[UNITS / 2 + 1, 0, 0], [1, 1, 1]].into_iter().enumerate() {
            let (released, kept) = (hold(1_000, [UNITS / 2, 0, 0])?, hold(1_001, [0, 0, 2])?);
            let waiting = waiting(arbiter, units)?;
            let start = Instant::now();
            drop(released);
            times[which].push(start.elapsed());
            drop(waiting);
            drop(kept);
        }
        let released = hold(1_000, [UNITS, 0, 0])?;
        let waiting = waiting(arbiter, [1, 1, 0])?;
        let start = Instant::now();
        drop(released);
        times[2].push(start.elapsed());
        anyhow::ensure!(arbiter.snapshot().waiters.is_empty(), "all are granted");
        drop(waiting);
    }
    for (what, times) in ["/usual", "", "/all"].into_iter().zip(&times) {
        report.push(Figure::from_round_trips(&format!("{id}{what}"), times));
    }
    Ok(())
}
