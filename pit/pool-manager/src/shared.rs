//! What all models of one manager share: the table, the clock, the memory budget, and who has to be looked at when.
//!
//! Each of the locks here is held for a few instructions and while no other lock is taken. A model's lock may be held
//! when one of them is taken, never the other way round.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
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

use crate::{InstanceId, ModelId, budget::Budget, cell::ModelCell, loader::IdleWatch};

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
            budget: Budget::new(memory_bytes),
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

    /// Unloads instances that nobody uses until `bytes` fit, those first that were not used since they were last looked
    /// at; never `spared`. When what is being unloaded is gone they may fit too: then nothing more is.
    pub(crate) fn make_room(&self, bytes: u64, spared: Option<(ModelId, InstanceId)>) {
        let count = u32::try_from(self.models.iter().count()).unwrap_or(MODELS_MAX);
        let mut calls = Calls::new();
        // Twice around: whatever was used since the last time is only marked in the first.
        for _ in 0..count.saturating_mul(2) {
            if self.budget.will_have_room(bytes) {
                break;
            }
            // ORDERING(victim): Relaxed suffices: it only spreads the search.
            let place = self.victim.fetch_add(1, Ordering::Relaxed) % count;
            if let Some(cell) = self.models.get(place) {
                let spared = spared.filter(|(model, _)| model.index() == place).map(|(_, instance)| instance);
                calls.call(|| cell.locked().unload_for_memory(bytes, spared));
            }
        }
        calls.end();
    }

    /// Lets those begin to load who want memory, in the order in which they came.
    pub(crate) fn admit_waiting(&self) {
        let mut calls = Calls::new();
        while let Some(admitting) = self.budget.admitting() {
            while let Some(cell) = self.budget.first_wanting() {
                let mut is_admitted = true;
                calls.call(|| {
                    let (admitted, calls) = cell.locked().load_next_in_line();
                    is_admitted = admitted;
                    calls.end();
                });
                if !is_admitted {
                    break;
                }
                self.budget.first_is_in();
            }
            drop(admitting);
            if !self.budget.is_due() {
                break;
            }
        }
        calls.end();
    }

    /// Does `act` while nobody of the line is let in, then lets it in if something was freed.
    pub(crate) fn before_the_line<T>(&self, act: impl FnOnce() -> T) -> T {
        let pause = self.budget.pause();
        let answer = act();
        drop(pause);
        if self.budget.is_due() {
            self.admit_waiting();
        }
        answer
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
