//! How many tasks are in each state: counted by the owner, read by anybody.

use pit_core::sync::atomic::{AtomicU32, Ordering};

use crate::state::State;

/// How many tasks are in each state. Written by the run's owner, read by anybody.
#[derive(Debug)]
pub(crate) struct Counts([AtomicU32; State::COUNT]);

impl Counts {
    pub(crate) fn new(tally: Tally) -> Self {
        Self(tally.0.map(AtomicU32::new))
    }

    #[inline]
    pub(crate) fn shift(&self, from: State, to: State) {
        self.shift_many(from, to, 1);
    }

    #[inline]
    pub(crate) fn shift_many(&self, from: State, to: State, count: u32) {
        let (from, to) = (&self.0[from as usize], &self.0[to as usize]);
        // ORDERING(counts): Relaxed suffices: one owner writes, and these numbers publish nothing else.
        from.store(from.load(Ordering::Relaxed) - count, Ordering::Relaxed);
        // ORDERING(counts): Relaxed suffices, as above.
        to.store(to.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Counts tasks that are new.
    pub(crate) fn add(&self, state: State, count: u32) {
        let number = &self.0[state as usize];
        // ORDERING(counts): Relaxed suffices, as in `shift_many`.
        number.store(number.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Tally {
        // ORDERING(counts): Relaxed suffices: the tally is documented as not being a cut through time.
        Tally(std::array::from_fn(|state| self.0[state].load(Ordering::Relaxed)))
    }
}

/// How many steps of a run, or items of a fan-out, are in each state.
///
/// Taken while the owner goes on, it is not a cut through time: one that is just changing may be counted twice or not
/// at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally([u32; State::COUNT]);

impl Tally {
    pub(crate) const NOTHING: Self = Self([0; State::COUNT]);

    pub(crate) fn with(mut self, state: State, count: u32) -> Self {
        self.0[state as usize] += count;
        self
    }

    /// How many are in `state`.
    #[must_use]
    pub const fn of(&self, state: State) -> u32 {
        self.0[state as usize]
    }

    /// How many have ended.
    #[must_use]
    pub fn ended(&self) -> u32 {
        State::ALL.into_iter().filter(|state| state.is_ended()).map(|state| self.of(state)).sum()
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }
}
