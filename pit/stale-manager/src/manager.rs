//! The manager: registering, touching, and sweeping in slices.
//!
//! Everything but the touches lies behind one mutex that is held for one registration or for one slice. Owners are asked
//! outside it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pit_core::clock::Tick;

use crate::{
    history::History,
    things::{BLOCK, Due, Entry, Evict, Eviction, Marks, THINGS_MAX, TTL_MIN, Things},
};

/// Why a thing could not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// [`THINGS_MAX`] things are registered. Cancel some, or register coarser ones.
    #[error("{THINGS_MAX} things are registered already")]
    TooManyThings,
}

/// How much one slice of a sweep may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Things to look at, at least 1.
    pub looked_at_max: u32,
    /// Owners to ask, at least 1.
    pub asked_max: u32,
}

impl Default for Budget {
    /// A few tens of microseconds, if owners answer at once.
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
    /// Things that have a handle, those that were evicted included.
    pub registered: usize,
    /// Things evicted since the beginning.
    pub evicted: u64,
    /// Refusals since the beginning.
    pub refused: u64,
    /// As [`StaleManager::next_deadline`].
    pub next_deadline: Option<Tick>,
}

/// Things that expire when nobody touches them. A clone is another handle of the same manager. See the crate's example.
///
/// # Concurrency
/// All methods may be called from any thread; two sweeps at a time share the work.
#[derive(Clone)]
pub struct StaleManager {
    shared: Arc<Shared>,
}

struct Shared {
    /// What a touch leaves: the tick of the last sweep. Alone in its cache lines, because every touch reads it.
    mark: Alone,
    state: Mutex<State>,
}

#[repr(align(128))]
struct Alone(AtomicU64);

struct State {
    things: Things,
    history: History,
    /// INVARIANT: no armed thing's deadline is earlier. It may be too early, then a sweep finds nothing.
    earliest: Tick,
    pass: Option<Pass>,
    evicted: u64,
    refused: u64,
}

/// A pass over all things that is under way, slice by slice.
struct Pass {
    /// The next place to be looked at.
    cursor: u32,
    /// INVARIANT: no armed thing that the pass has looked at, or that came since, has an earlier deadline.
    earliest: Tick,
}

impl State {
    fn note_deadline(&mut self, deadline: Tick) {
        self.earliest = self.earliest.min(deadline);
        if let Some(pass) = &mut self.pass {
            pass.earliest = pass.earliest.min(deadline);
        }
    }

    fn is_due(&self, now: Tick) -> bool {
        self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    fn next_deadline(&self) -> Option<Tick> {
        (self.earliest < Tick::NEVER).then_some(self.earliest)
    }

    /// Looks at a slice of things and takes those out whose owners are to be asked. True when there is more to do now.
    fn slice(&mut self, now: Tick, budget: Budget, due: &mut Vec<Due>) -> bool {
        self.history.note(now);
        if self.pass.is_none() && !self.is_due(now) {
            return false;
        }
        let Pass { cursor, earliest } = self.pass.take().unwrap_or(Pass { cursor: 0, earliest: Tick::NEVER });
        let end = self.things.used().min(cursor.saturating_add(budget.looked_at_max.max(1)));
        let due_max = usize::try_from(budget.asked_max.max(1)).unwrap_or(usize::MAX);
        let (cursor, seen) = self.things.scan(cursor, end, now, &self.history, due, due_max);
        let earliest = earliest.min(seen);
        let is_over = cursor == self.things.used();
        if is_over {
            self.earliest = earliest;
        } else {
            self.pass = Some(Pass { cursor, earliest });
        }
        // Something may have come behind the cursor that is due already.
        !is_over || self.is_due(now)
    }
}

impl StaleManager {
    /// A manager of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let history = History::new();
        let mark = Alone(AtomicU64::new(history.mark()));
        let state = State {
            things: Things::default(),
            history,
            earliest: Tick::NEVER,
            pass: None,
            evicted: 0,
            refused: 0,
        };
        Self { shared: Arc::new(Shared { mark, state: Mutex::new(state) }) }
    }

    /// Registers the thing that `owner` knows as `key`: unless it is touched, it expires `ttl` after `now` ([`TTL_MIN`]
    /// at least).
    ///
    /// `now` and the moments that sweeps are given must come from one clock. With [`Duration::MAX`] it never expires.
    ///
    /// # Errors
    /// [`RegisterError::TooManyThings`].
    pub fn register(
        &self,
        owner: Arc<dyn Evict>,
        key: u64,
        ttl: Duration,
        now: Tick,
    ) -> Result<Handle, RegisterError> {
        let ttl_ns = u64::try_from(ttl.max(TTL_MIN).as_nanos()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        let added = state.things.add(Entry { owner, key, ttl_ns }, now);
        let (place, marks, deadline) = added.ok_or(RegisterError::TooManyThings)?;
        state.note_deadline(deadline);
        drop(state);
        Ok(Handle { manager: self.clone(), marks, place })
    }

    /// The moment at which a sweep may have something to do; `None` when nothing can expire.
    ///
    /// It lies in the past while a sweep is unfinished. It may be too early, never too late; after a sweep that had
    /// nothing more to do it is later than that sweep's `now`. A registration can bring it forward: who sleeps until
    /// this deadline must look again after registering.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.lock().next_deadline()
    }

    /// Does one slice of a sweep: looks for things whose time has passed at `now` and asks their owners to let go.
    ///
    /// Costs next to nothing when nothing can have expired. See [`Swept::is_unfinished`] for when to call again.
    pub fn sweep(&self, now: Tick, budget: Budget) -> Swept {
        let mut due = Vec::new();
        let mut swept = Swept::default();
        {
            let mut state = self.lock();
            swept.is_unfinished = state.slice(now, budget, &mut due);
            // ORDERING(touch): Relaxed suffices: a touch that reads the mark before counts as earlier than it was by as
            // long as a store takes to be seen, which is nothing beside the distance of ticks.
            self.shared.mark.0.store(state.history.mark(), Ordering::Relaxed);
        }
        for due in due {
            // Whoever has touched it since it was looked at still needs it.
            if due.was_touched() {
                self.rearm(due, now);
                continue;
            }
            match due.entry.owner.evict(due.entry.key) {
                Eviction::Evicted => {
                    swept.evicted += 1;
                    let mut state = self.lock();
                    state.evicted += 1;
                    state.things.evicted(due.place);
                }
                Eviction::Refused => {
                    swept.refused += 1;
                    self.lock().refused += 1;
                    self.rearm(due, now);
                }
            }
        }
        swept
    }

    /// Numbers for people and for the whole Pit's snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            registered: state.things.len(),
            evicted: state.evicted,
            refused: state.refused,
            next_deadline: state.next_deadline(),
        }
    }

    fn rearm(&self, due: Due, now: Tick) {
        let mut state = self.lock();
        let rearmed = state.things.rearm(due.place, due.entry, now);
        if let Ok(deadline) = rearmed {
            state.note_deadline(deadline);
        }
        drop(state);
        // Cancelled meanwhile: the entry is foreign code's to drop, outside the lock.
        drop(rearmed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// A registered thing. Dropping it cancels the registration.
///
/// # Concurrency
/// Any number of threads may touch it at once.
pub struct Handle {
    manager: StaleManager,
    marks: Arc<Marks>,
    place: u32,
}

impl Handle {
    /// Says that the thing is in use: its time to live begins anew. Without effect on what was evicted.
    ///
    /// A thing that is in use for longer than its time to live without being touched must be protected by its owner, who
    /// refuses to let go of it.
    pub fn touch(&self) {
        // ORDERING(touch): Relaxed suffices twice: no other data is published by a touch, and it need not be seen at once.
        let mark = self.manager.shared.mark.0.load(Ordering::Relaxed);
        self.marks[(self.place % BLOCK) as usize].store(mark, Ordering::Relaxed);
    }

    /// Ends the registration: the owner is not asked about the thing any more, but for a question that is just being put.
    pub fn cancel(self) {}

    /// Whether the owner has let go of the thing.
    #[must_use]
    pub fn is_evicted(&self) -> bool {
        self.manager.lock().things.is_evicted(self.place)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The entry holds foreign code, and is dropped after the lock is.
        let _entry = self.manager.lock().things.forget(self.place);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.place).finish()
    }
}
