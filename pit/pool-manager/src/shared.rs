//! What all models of one manager share: the table, the clock, the memory budget, and who has to be looked at when.
//!
//! Each of the locks here is held for a few instructions and while no other lock is taken. A model's lock may be held
//! when one of them is taken, never the other way round.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, PoisonError, Weak},
};

use pit_core::{
    clock::{Clock, Tick},
    priority::Ageing,
    shard::Counters,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    table::Table,
    unwind::Calls,
};

use crate::{cell::ModelCell, loader::IdleWatch};

/// All models by place. A place belongs to one name for ever.
pub(crate) type Models = Table<Arc<ModelCell>, 64, 10>;

/// LIMIT: names that were ever declared at one manager; a melody or a manifest declares a handful.
pub const MODELS_MAX: u32 = Models::PLACES;

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    HandedOver,
    Refused,
    Revoked,
    Loads,
    Unloads,
}

pub(crate) struct Core {
    pub(crate) models: Models,
    pub(crate) ageing: Ageing,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) idle: Option<Arc<dyn IdleWatch>>,
    pub(crate) budget: Budget,
    pub(crate) timers: Timers,
    pub(crate) counters: Counters<5>,
    /// Where the search for something to unload goes on.
    victim: AtomicU32,
}

impl Core {
    pub(crate) fn new(
        ageing: Ageing,
        clock: Arc<dyn Clock>,
        memory_bytes: u64,
        idle: Option<Arc<dyn IdleWatch>>,
    ) -> Self {
        Self {
            models: Models::new(),
            ageing,
            clock,
            idle,
            budget: Budget { bytes: memory_bytes, state: Mutex::default() },
            timers: Timers { due: Mutex::default() },
            counters: Counters::new(),
            victim: AtomicU32::new(0),
        }
    }

    pub(crate) fn count(&self, what: Count) {
        self.counters.add(what as usize, 1);
    }

    /// Does what is due at `now`.
    pub(crate) fn turn(&self, now: Tick) {
        let mut calls = Calls::new();
        while let Some(place) = self.timers.pop_due(now) {
            if let Some(cell) = self.models.get(place) {
                calls.call(|| cell.locked().turn(now));
            }
        }
        calls.end();
    }

    /// Unloads instances that nobody uses until `bytes` fit, those first that were not used since they were last
    /// looked at; then lets those in who want memory.
    pub(crate) fn make_room(&self, bytes: u64) {
        let count = u32::try_from(self.models.iter().count()).unwrap_or(MODELS_MAX);
        // Twice around: whatever was used since the last time is only marked in the first.
        for _ in 0..count.saturating_mul(2) {
            if self.budget.has_room(bytes) {
                break;
            }
            // ORDERING(victim): Relaxed suffices: it only spreads the search.
            let place = self.victim.fetch_add(1, Ordering::Relaxed) % count;
            if let Some(cell) = self.models.get(place) {
                cell.locked().unload_for_memory();
            }
        }
        self.admit_waiting();
    }

    /// Lets those begin to load who want memory, in the order in which they came.
    pub(crate) fn admit_waiting(&self) {
        while let Some(cell) = self.budget.next_wanting() {
            if !cell.locked().load_next_in_line() {
                return;
            }
        }
    }
}

/// Memory that loaded models may take, and who waits for some.
pub(crate) struct Budget {
    bytes: u64,
    state: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    bytes: u64,
    wanting: VecDeque<Weak<ModelCell>>,
}

impl Budget {
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.lock().bytes.saturating_add(bytes) <= self.bytes
    }

    /// Takes `bytes` if they fit. Nobody overtakes those who want memory already.
    pub(crate) fn admit(&self, bytes: u64, is_next: bool) -> bool {
        let mut used = self.lock();
        let is_admitted = bytes == 0
            || ((is_next || used.wanting.is_empty()) && used.bytes.saturating_add(bytes) <= self.bytes);
        if is_admitted {
            used.bytes += bytes;
        }
        is_admitted
    }

    pub(crate) fn release(&self, bytes: u64) {
        let mut used = self.lock();
        debug_assert!(used.bytes >= bytes, "what is released was admitted");
        used.bytes = used.bytes.saturating_sub(bytes);
    }

    /// What was admitted turns out to take another amount.
    pub(crate) fn change(&self, before: u64, after: u64) {
        let mut used = self.lock();
        used.bytes = used.bytes.saturating_sub(before).saturating_add(after);
    }

    /// Takes a place in the line of those who want memory, the first one if it was its turn.
    pub(crate) fn want(&self, cell: Weak<ModelCell>, is_next: bool) {
        let wanting = &mut self.lock().wanting;
        if is_next { wanting.push_front(cell) } else { wanting.push_back(cell) }
    }

    fn next_wanting(&self) -> Option<Arc<ModelCell>> {
        let wanting = &mut self.lock().wanting;
        std::iter::from_fn(|| wanting.pop_front()).find_map(|cell| cell.upgrade())
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which models have to be looked at, and when. A model may stand here more than once.
pub(crate) struct Timers {
    due: Mutex<BTreeSet<(Tick, u32)>>,
}

impl Timers {
    pub(crate) fn arm(&self, at: Tick, place: u32) {
        self.lock().insert((at, place));
    }

    /// The earliest moment at which there is something to do.
    pub(crate) fn next(&self) -> Tick {
        self.lock().first().map_or(Tick::NEVER, |(at, _)| *at)
    }

    fn pop_due(&self, now: Tick) -> Option<u32> {
        let mut due = self.lock();
        let first = due.first().copied().filter(|(at, _)| *at <= now)?;
        due.remove(&first);
        Some(first.1)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Tick, u32)>> {
        // As above.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
