//! A simulated crowd over a long time: holders that claim, extend, upgrade a share to the whole, claim beside what they
//! hold, preempt, obey, ignore, give up; under both policies. At every moment what is free and held adds up and nobody
//! waits in a circle; nobody waits for ever; and in the end everything is free.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use arbitration::{
    Arbiter, ClaimError, ClaimSpec, GrantId, Options, OwnerId, Policy, Reason, ResourceId, Snapshot,
};
use pit_core::{
    clock::ManualClock,
    priority::{Ageing, Priority},
};

use crate::support::Woken;

const RESOURCES: [(&str, u64); 3] = [("a", 6), ("b", 4), ("c", 2)];
const ACTORS: u64 = 14;
const STEP_MS: u64 = 5;
const NOTICE_MS: u64 = 8;
/// Longest time that a grant is held between two waits.
const HOLD_MS_MAX: u64 = 15;
const EXTENSIONS_MAX: u64 = 2;

/// What the actors share: time, chance, and what they have seen.
struct World {
    arbiter: Arbiter,
    now_ms: Cell<u64>,
    seed: Cell<u64>,
    timers: RefCell<BTreeMap<u64, Vec<Waker>>>,
    is_over: Cell<bool>,
    longest_wait_ms: Cell<u64>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
    crowd: Crowd,
    /// What each owner has held, in parts of a resource, summed over the milliseconds.
    held: RefCell<BTreeMap<OwnerId, f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    /// Some listen to notices and some do not, some owners are many and some are few.
    Mixed,
    /// Everybody does the same by chance, each for himself.
    Alike,
}

impl World {
    fn chance(&self, below: u64) -> u64 {
        let mut seed = self.seed.get();
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        self.seed.set(seed);
        (seed >> 11) % below
    }

    fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    async fn sleep(&self, ms: u64) {
        let until = self.now_ms.get() + ms;
        poll_fn(|context| {
            if self.now_ms.get() >= until {
                return Poll::Ready(());
            }
            self.timers.borrow_mut().entry(until).or_default().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The future's output, or `None` after so much time.
    async fn within<F: Future>(&self, ms: u64, future: F) -> Option<F::Output> {
        let (mut future, mut sleep) = (pin!(future), pin!(self.sleep(ms)));
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            sleep.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    fn amounts(&self, spec: ClaimSpec) -> ClaimSpec {
        let mut spec = spec;
        for (name, capacity) in RESOURCES {
            if self.chance(2) == 0 {
                let resource = self.arbiter.resource(name).unwrap();
                spec = match self.chance(20) {
                    0 => spec.exclusive(resource),
                    _ => spec.with(resource, 1 + self.chance(capacity / 2)),
                };
            }
        }
        spec
    }
}

async fn actor(world: Rc<World>, number: u64) {
    // Some never listen to a notice; they lose what they hold at its deadline.
    let is_alike = world.crowd == Crowd::Alike;
    let is_obedient = is_alike || number % 4 != 3;
    let owner = OwnerId::new(if is_alike { number } else { number % 5 });
    while !world.is_over.get() {
        world.sleep(world.chance(6)).await;
        let level = u8::try_from(world.chance(4)).unwrap();
        let mut spec = world.amounts(ClaimSpec::new(owner, Priority::new(level)));
        if world.chance(6) == 0 {
            spec = spec.preempting(Duration::from_millis(NOTICE_MS));
        }
        let patience_ms = if world.chance(8) == 0 { world.chance(20) } else { u64::MAX / 2 };
        let since_ms = world.now_ms.get();
        let granted = world.within(patience_ms, world.arbiter.claim(&spec)).await;
        world.longest_wait_ms.set(world.longest_wait_ms.get().max(world.now_ms.get() - since_ms));
        let Some(granted) = granted else {
            world.count("given up");
            continue;
        };
        let (mut grant, mut besides) = (granted.unwrap(), Vec::new());
        world.count("claims");
        for _ in 0..=world.chance(EXTENSIONS_MAX + 1) {
            let hold_ms = world.chance(HOLD_MS_MAX);
            if !is_obedient {
                world.sleep(hold_ms).await;
            } else if let Some(notice) = world.within(hold_ms, grant.told()).await {
                match notice.map(|notice| notice.reason) {
                    Some(Reason::Preempted) => world.count("preempted"),
                    _ => world.count("wounded"),
                }
                world.count("obeyed");
                break;
            }
            let mut more = world.amounts(ClaimSpec::new(OwnerId::new(0), Priority::LOWEST));
            let patience_ms = if world.chance(8) == 0 { world.chance(20) } else { u64::MAX / 2 };
            let kind = match world.chance(4) {
                0 => {
                    more = shares(&world, grant.id()).map_or(more, |shared| {
                        ClaimSpec::new(OwnerId::new(0), Priority::LOWEST).exclusive(shared)
                    });
                    "upgrades"
                }
                1 => "beside",
                _ => "extensions",
            };
            let wanted = match kind {
                "beside" => {
                    let beside = world.within(patience_ms, grant.claim_beside(&more)).await;
                    beside.map(|granted| granted.map(|grant| besides.push(grant)))
                }
                _ => world.within(patience_ms, grant.extend(&more)).await,
            };
            match wanted {
                None => world.count("extensions given up"),
                Some(Ok(())) => world.count(kind),
                Some(Err(ClaimError::ExceedsCapacity { .. })) => {}
                Some(Err(ClaimError::Told(_))) if is_obedient => {
                    world.count("extensions refused");
                    break;
                }
                Some(Err(ClaimError::Told(_))) => world.sleep(NOTICE_MS * 2).await,
                Some(Err(ClaimError::Revoked)) => break,
                Some(Err(error)) => panic!("{error}"),
            }
        }
        if !grant.is_valid() {
            world.count("revoked");
        }
        // One after the other, in whatever order.
        if world.chance(2) == 0 {
            drop(grant);
        }
        while besides.pop().is_some() {
            world.sleep(world.chance(3)).await;
        }
    }
}

/// A resource that the grant holds a part of.
fn shares(world: &World, id: GrantId) -> Option<ResourceId> {
    let snapshot = world.arbiter.snapshot();
    let grant = snapshot.grants.iter().find(|grant| grant.id == id)?;
    let is_part = |(resource, units): &&(ResourceId, u64)| {
        *units < snapshot.resources[resource.index() as usize].capacity
    };
    grant.amounts.iter().find(is_part).map(|(resource, _)| *resource)
}

/// What is free and what is held adds up.
fn check_sums(snapshot: &Snapshot) {
    for (place, resource) in snapshot.resources.iter().enumerate() {
        let held = snapshot.grants.iter().flat_map(|grant| &grant.amounts);
        let held: u64 = held.filter(|(id, _)| id.index() as usize == place).map(|(_, units)| units).sum();
        assert_eq!(held + resource.free, resource.capacity, "{}", resource.name);
    }
}

/// Whom a holder that waits for more waits for, by their ages, which all grants of a holder share: those who were not told,
/// hold what it lacks even when all that was asked back has come, or wait for the same before it.
fn waits_for(snapshot: &Snapshot) -> BTreeMap<u64, BTreeSet<u64>> {
    let mut coming: Vec<u64> = snapshot.resources.iter().map(|resource| resource.free).collect();
    for (resource, units) in
        snapshot.grants.iter().filter(|grant| grant.notice.is_some()).flat_map(|grant| &grant.amounts)
    {
        coming[resource.index() as usize] += units;
    }
    let age = |id: GrantId| snapshot.grants.iter().find(|grant| grant.id == id).map(|grant| grant.number);
    let mut edges: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut before: Vec<(u64, usize)> = Vec::new();
    for waiter in &snapshot.waiters {
        let Some(own) = waiter.extends.and_then(age) else { continue };
        let others = edges.entry(own).or_default();
        for (resource, units) in &waiter.amounts {
            let place = resource.index() as usize;
            if coming[place] < *units {
                let holders =
                    snapshot.grants.iter().filter(|grant| grant.number != own && grant.notice.is_none());
                let holders = holders.filter(|grant| grant.amounts.iter().any(|(held, _)| held == resource));
                others.extend(holders.map(|grant| grant.number));
                others.extend(before.iter().filter(|(_, wanted)| *wanted == place).map(|(age, _)| *age));
            }
            coming[place] = coming[place].saturating_sub(*units);
            before.push((own, place));
        }
        others.remove(&own);
    }
    // Who was told to give back any of its grants waits for nothing.
    let told = snapshot.grants.iter().filter(|grant| grant.notice.is_some());
    assert!(told.map(|grant| grant.number).all(|age| !edges.contains_key(&age)), "{snapshot:#?}");
    edges
}

fn check_no_circle(snapshot: &Snapshot) {
    let mut edges = waits_for(snapshot);
    // Whoever waits for nobody who waits gets what it wants some time; take these away until none is left.
    loop {
        let waiting: BTreeSet<u64> = edges.keys().copied().collect();
        let before = edges.len();
        edges.retain(|_, others| !others.is_disjoint(&waiting));
        if edges.is_empty() {
            return;
        }
        assert!(edges.len() < before, "a circle: {edges:?} in {snapshot:#?}");
    }
}

fn simulate(policy: Policy, crowd: Crowd, seed: u64, until_ms: u64) -> Rc<World> {
    let clock = Arc::new(ManualClock::new());
    let options = Options { policy, wound_notice: Duration::from_millis(NOTICE_MS) };
    let arbiter = Arbiter::with_options(RESOURCES, options, clock.clone()).unwrap();
    let world = Rc::new(World {
        arbiter,
        now_ms: Cell::new(0),
        seed: Cell::new(seed),
        timers: RefCell::default(),
        is_over: Cell::new(false),
        longest_wait_ms: Cell::new(0),
        counts: RefCell::default(),
        crowd,
        held: RefCell::default(),
    });
    type Actor = (Pin<Box<dyn Future<Output = ()>>>, Arc<Woken>, u32);
    let begin = |number| -> Actor { (Box::pin(actor(world.clone(), number)), Arc::default(), u32::MAX) };
    let mut actors: Vec<Actor> = (0..ACTORS).map(begin).collect();
    while !actors.is_empty() {
        assert!(
            world.now_ms.get() < until_ms + 10_000,
            "everybody comes to an end: {:#?}",
            world.arbiter.snapshot()
        );
        // Only those who were woken are polled: a waker that is forgotten shows.
        loop {
            let before = actors.len();
            let mut has_polled = false;
            actors.retain_mut(|(actor, woken, seen)| {
                let count = woken.count();
                if *seen == count {
                    return true;
                }
                (*seen, has_polled) = (count, true);
                let waker = Waker::from(Arc::clone(woken));
                let is_pending = actor.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
                let snapshot = world.arbiter.snapshot();
                check_sums(&snapshot);
                check_no_circle(&snapshot);
                is_pending
            });
            if !has_polled && actors.len() == before {
                break;
            }
        }
        clock.advance(Duration::from_millis(1));
        world.now_ms.set(world.now_ms.get() + 1);
        world.is_over.set(world.now_ms.get() >= until_ms);
        world.arbiter.revoke_due();
        for grant in &world.arbiter.snapshot().grants {
            let part = |(resource, units): &(ResourceId, u64)| {
                *units as f64 / RESOURCES[resource.index() as usize].1 as f64
            };
            let parts: f64 = grant.amounts.iter().map(part).sum();
            *world.held.borrow_mut().entry(grant.owner).or_default() += parts;
        }
        let mut timers = world.timers.borrow_mut();
        let later = timers.split_off(&(world.now_ms.get() + 1));
        let due = std::mem::replace(&mut *timers, later);
        drop(timers);
        due.into_values().flatten().for_each(Waker::wake);
    }
    let snapshot = world.arbiter.snapshot();
    assert!(snapshot.grants.is_empty() && snapshot.waiters.is_empty() && snapshot.shares.is_empty());
    assert!(snapshot.resources.iter().all(|resource| resource.free == resource.capacity));
    world
}

#[test]
fn nobody_waits_in_a_circle_or_for_ever() {
    let ageing = Ageing { step: Duration::from_millis(STEP_MS) };
    let patience = Duration::from_millis(200);
    for policy in [Policy::Priority(ageing), Policy::DominantShare { ageing, patience }] {
        for seed in [1, 0xDEAD_BEEF, 0x1234_5678_9ABC] {
            let world = simulate(policy, Crowd::Mixed, seed, 4_000);
            let counts = world.counts.borrow();
            for what in [
                "claims",
                "given up",
                "extensions",
                "upgrades",
                "beside",
                "preempted",
                "wounded",
                "extensions refused",
                "extensions given up",
                "obeyed",
                "revoked",
            ] {
                assert!(counts.get(what).is_some_and(|count| *count > 3), "{what} happens: {counts:?}");
            }
            // Nobody who comes later than the ageing of all levels, or than the patience, overtakes; and each of those before
            // holds for a limited time.
            let holds_ms = (EXTENSIONS_MAX + 2) * (HOLD_MS_MAX + 2 * NOTICE_MS) * ACTORS;
            let bound_ms = 4 * STEP_MS + 200 + holds_ms;
            let longest_ms = world.longest_wait_ms.get();
            assert!(longest_ms <= bound_ms, "{longest_ms} ms of {bound_ms}, {policy:?}, seed {seed}");
        }
    }
}

#[test]
fn those_who_want_the_same_hold_the_same_although_they_extend_upgrade_and_preempt() {
    let ageing = Ageing { step: Duration::from_millis(STEP_MS) };
    let patience = Duration::from_millis(200);
    for policy in [Policy::Priority(ageing), Policy::DominantShare { ageing, patience }] {
        let world = simulate(policy, Crowd::Alike, 0x5EED, 20_000);
        let counts = world.counts.borrow();
        for what in ["upgrades", "beside", "preempted", "wounded"] {
            assert!(counts.get(what).is_some_and(|count| *count > 20), "{what} happens: {counts:?}");
        }
        let held: Vec<f64> = world.held.borrow().values().copied().collect();
        assert_eq!(held.len() as u64, ACTORS);
        let (sum, squares) =
            held.iter().fold((0.0, 0.0), |(sum, squares), held| (sum + held, squares + held * held));
        // Jain's index: 1 when all held the same, 1 / owners when one held everything.
        let index = sum * sum / (ACTORS as f64 * squares);
        assert!(index >= 0.95, "{index} under {policy:?}: {held:?}");
    }
}
