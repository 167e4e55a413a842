//! The manager: registering, touching, and sweeping in slices.
//!
//! Registering and cancelling take the lock of one shard, for the time of a few stores. A slice of a sweep takes one
//! shard's lock after the other, and owners are asked without any.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pit_core::{
    clock::Tick,
    shard::{Padded, home},
};

use crate::{
    cell::Thing,
    history::History,
    owners::{Evict, Eviction, OWNERS_MAX, OwnerId, Owners},
    shard::{Due, Left, PLACES_MAX, Shard},
};

/// Shards of a manager, a power of two.
const SHARDS: u32 = 8;

/// LIMIT: things at once.
pub const THINGS_MAX: u32 = SHARDS * PLACES_MAX;

/// The shortest time to live; a shorter one counts as this. It keeps a thing that its owner refuses to let go of from
/// being asked about without end.
pub const TTL_MIN: Duration = Duration::from_millis(1);

pit_core::id! {
    /// A registered thing: its place and the how-manieth one sits there. What is said of one that is gone reaches nobody.
    pub struct ThingId("thing");
}

/// Why something could not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// [`THINGS_MAX`] things are registered. Cancel some, or register coarser ones.
    #[error("{THINGS_MAX} things are registered already")]
    TooManyThings,
    /// There are [`OWNERS_MAX`] owners. Let one owner stand for many things.
    #[error("there are {OWNERS_MAX} owners already")]
    TooManyOwners,
}

/// How much one slice of a sweep may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Things to look at, at least 1. One whose time seems to have passed counts as several.
    pub looked_at_max: u32,
    /// Owners to ask, at least 1.
    pub asked_max: u32,
}

impl Default for Budget {
    /// A few microseconds, if owners answer at once.
    fn default() -> Self {
        Self { looked_at_max: 4_096, asked_max: 64 }
    }
}

/// What a slice of a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Things that are gone.
    pub evicted: u32,
    /// Things that their owners refused to let go of.
    pub refused: u32,
    /// Whether there is more to do now: call again, after others have had their turn.
    pub is_unfinished: bool,
}

/// Numbers of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Things that are registered.
    pub registered: usize,
    /// Things evicted since the beginning.
    pub evicted: u64,
    /// Refusals since the beginning.
    pub refused: u64,
    /// As [`StaleManager::next_deadline`].
    pub next_deadline: Option<Tick>,
}

/// A thing that expires before long if nobody touches it, or has not been asked about yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// When it expires, touches that no sweep has seen yet not considered.
    pub deadline: Tick,
    /// Whose it is.
    pub owner: OwnerId,
    /// What its owner knows it as.
    pub key: u64,
}

/// Things that expire when nobody touches them. A clone is another handle of the same manager. See the crate's example.
///
/// # Concurrency
/// All methods may be called from any thread. A touch takes no lock. Two sweeps at a time share the work.
#[derive(Clone)]
pub struct StaleManager {
    shared: Arc<Shared>,
}

struct Shared {
    /// What a touch leaves: the tick of the last sweep. Alone in its cache lines, because every touch reads it.
    mark: Padded<AtomicU64>,
    shards: [Padded<Shard>; SHARDS as usize],
    owners: Owners,
    sweeper: Mutex<Sweeper>,
}

struct Sweeper {
    history: History,
    /// Where the next slice begins, so that no shard waits behind one that always has something due.
    next_shard: u32,
    evicted: u64,
    refused: u64,
}

impl StaleManager {
    /// A manager of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let history = History::new();
        let shared = Shared {
            mark: Padded(AtomicU64::new(history.mark())),
            shards: std::array::from_fn(|_| Padded(Shard::default())),
            owners: Owners::default(),
            sweeper: Mutex::new(Sweeper { history, next_shard: 0, evicted: 0, refused: 0 }),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes `owner` known, once for all its things. It is not kept alive by it.
    ///
    /// # Errors
    /// [`RegisterError::TooManyOwners`].
    pub fn add_owner<E: Evict + 'static>(&self, owner: &Arc<E>) -> Result<OwnerId, RegisterError> {
        let owner: Weak<E> = Arc::downgrade(owner);
        self.shared.owners.add(owner).ok_or(RegisterError::TooManyOwners)
    }

    /// Registers the thing that `owner` knows as `key`: unless it is touched, it expires `ttl` after `now` ([`TTL_MIN`]
    /// at least). It stays registered until then, or until it is [cancelled](Self::cancel).
    ///
    /// `now` and the moments that sweeps are given must come from one clock. With [`Duration::MAX`] it never expires.
    ///
    /// # Errors
    /// [`RegisterError::TooManyThings`].
    #[inline]
    pub fn register(
        &self,
        owner: OwnerId,
        key: u64,
        ttl: Duration,
        now: Tick,
    ) -> Result<ThingId, RegisterError> {
        let ttl_ns = u64::try_from(ttl.max(TTL_MIN).as_nanos()).unwrap_or(u64::MAX);
        let thing = Thing { owner: owner.0, key, ttl_ns };
        let first = home(SHARDS);
        for shard in (first..first + SHARDS).map(|number| number % SHARDS) {
            if let Some((place, generation)) = self.shared.shards[shard as usize].0.add(thing, now) {
                return Ok(ThingId::new(place * SHARDS + shard, generation));
            }
        }
        Err(RegisterError::TooManyThings)
    }

    /// Says that the thing is in use: its time to live begins anew. Without effect on one that is gone.
    ///
    /// A thing that is in use for longer than its time to live without being touched must be protected by its owner, who
    /// refuses to let go of it.
    #[inline]
    pub fn touch(&self, thing: ThingId) {
        if let Some(cell) = self.shared.shard(thing).cell(place(thing)) {
            // ORDERING(touch): Relaxed suffices: an older tick makes the touch count as earlier by as long as a store
            // takes to be seen.
            cell.touch(thing.generation(), self.shared.mark.0.load(Ordering::Relaxed));
        }
    }

    /// Ends the registration: the owner is not asked about the thing any more. Without effect when it is gone already.
    ///
    /// # Concurrency
    /// The last thing that a sweep does before it asks is to look whether the thing was cancelled. A cancel that begins
    /// after that look meets a question that is being put, and returns while it is. It does not wait for the answer: who
    /// cancels in answer to a question, or while holding a lock that [`Evict::evict`] takes, would wait for itself. An
    /// owner for whom this matters takes the thing out of its own table before it cancels, so that the question finds
    /// nothing.
    #[inline]
    pub fn cancel(&self, thing: ThingId) {
        self.shared.shard(thing).cancel(place(thing), thing.generation());
    }

    /// Whether the thing has neither been evicted nor cancelled.
    #[must_use]
    pub fn is_registered(&self, thing: ThingId) -> bool {
        self.shared.shard(thing).holds(place(thing), thing.generation())
    }

    /// The moment at which a sweep may have something to do; `None` when nothing can expire.
    ///
    /// It lies in the past while a sweep is unfinished. It may be too early, never too late; after a sweep that had
    /// nothing more to do it is later than that sweep's `now`. A registration can bring it forward: who sleeps until
    /// this deadline must look again after registering.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        let earliest = self.shared.shards.iter().map(|shard| shard.0.earliest()).min();
        earliest.filter(|earliest| *earliest < Tick::NEVER)
    }

    /// Does one slice of a sweep: looks for things whose time has passed at `now` and asks their owners to let go.
    ///
    /// Costs next to nothing when nothing can have expired. See [`Swept::is_unfinished`] for when to call again.
    ///
    /// # Panics
    /// When an owner does, after the rest of the slice was asked about. What it was asked about counts as refused.
    pub fn sweep(&self, now: Tick, budget: Budget) -> Swept {
        let mut due = Vec::new();
        let mut swept = Swept { is_unfinished: self.slice(now, budget, &mut due), ..Swept::default() };
        if due.is_empty() {
            return swept;
        }
        // Most things of a slice have one owner.
        let mut last: Option<(u32, Option<Arc<dyn Evict>>)> = None;
        let mut panicked: Option<Box<dyn Any + Send>> = None;
        for (shard, due) in &due {
            let shard = &self.shared.shards[*shard as usize].0;
            if !shard.is_still_due(due, now) {
                continue;
            }
            // An owner is foreign code, and may end here: whatever it does, the rest of the slice is asked about.
            let answer = catch_unwind(AssertUnwindSafe(|| {
                let number = due.thing.owner;
                let owner = match &last {
                    Some((same, owner)) if *same == number => owner,
                    _ => &last.insert((number, self.shared.owners.get(number))).1,
                };
                owner.as_ref().map_or(Eviction::Evicted, |owner| owner.evict(due.thing.key))
            }));
            match answer {
                Ok(Eviction::Evicted) => {
                    swept.evicted += 1;
                    shard.evicted(due);
                }
                Ok(Eviction::Refused) => {
                    swept.refused += 1;
                    shard.rearm(due, now);
                }
                Err(panic) => {
                    swept.refused += 1;
                    shard.rearm(due, now);
                    match panicked {
                        None => panicked = Some(panic),
                        // What it carries is foreign too, and might panic when it is dropped.
                        Some(_) => std::mem::forget(panic),
                    }
                }
            }
        }
        let mut sweeper = self.sweeper();
        sweeper.evicted += u64::from(swept.evicted);
        sweeper.refused += u64::from(swept.refused);
        drop(sweeper);
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
        swept
    }

    /// Looks at a slice of things and takes those out whose owners are to be asked, with the shard that each is in. True
    /// when there is more to do now.
    fn slice(&self, now: Tick, budget: Budget, due: &mut Vec<(u32, Due)>) -> bool {
        let mut sweeper = self.sweeper();
        sweeper.history.note(now);
        // ORDERING(touch): Relaxed suffices: a touch that reads the mark before counts as earlier than it was by as
        // long as a store takes to be seen, which is nothing beside the distance of ticks.
        self.shared.mark.0.store(sweeper.history.mark(), Ordering::Relaxed);
        let due_max = usize::try_from(budget.asked_max.max(1)).unwrap_or(usize::MAX);
        let mut left = Left { looks: budget.looked_at_max.max(1), due_max };
        let mut is_unfinished = false;
        let first = sweeper.next_shard;
        let mut of_shard = Vec::new();
        for number in (first..first + SHARDS).map(|number| number % SHARDS) {
            let shard = &self.shared.shards[number as usize].0;
            if shard.slice(now, &sweeper.history, &mut left, &mut of_shard) {
                is_unfinished = true;
            }
            left.due_max -= of_shard.len();
            due.extend(of_shard.drain(..).map(|due| (number, due)));
            if left.looks > 0 {
                sweeper.next_shard = (number + 1) % SHARDS;
            }
        }
        is_unfinished
    }

    /// What expires before `before` if nobody touches it, the earliest first, up to `count_max`.
    ///
    /// # Concurrency
    /// Looks at every thing, taking locks for a block of them at a time: for people, not for hot paths.
    #[must_use]
    pub fn expiring(&self, before: Tick, count_max: usize) -> Vec<Expiring> {
        let mut soon = Vec::new();
        self.shared.shards.iter().for_each(|shard| shard.0.expiring(before, count_max, &mut soon));
        soon.sort_by_key(|(deadline, thing)| (*deadline, thing.owner, thing.key));
        let expiring = |(deadline, thing): (Tick, Thing)| Expiring {
            deadline,
            owner: OwnerId(thing.owner),
            key: thing.key,
        };
        soon.into_iter().map(expiring).collect()
    }

    /// Numbers for people and for the whole Pit's snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let registered = self.shared.shards.iter().map(|shard| shard.0.len()).sum();
        let next_deadline = self.next_deadline();
        let sweeper = self.sweeper();
        Snapshot { registered, evicted: sweeper.evicted, refused: sweeper.refused, next_deadline }
    }

    fn sweeper(&self) -> MutexGuard<'_, Sweeper> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        self.shared.sweeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    #[inline]
    fn shard(&self, thing: ThingId) -> &Shard {
        &self.shards[(thing.index() % SHARDS) as usize].0
    }
}

#[inline]
const fn place(thing: ThingId) -> u32 {
    thing.index() / SHARDS
}

impl Default for StaleManager {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StaleManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StaleManager").field(&self.snapshot()).finish()
    }
}
