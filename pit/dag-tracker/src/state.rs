//! The states of a task, the one table of legal changes, and the word that holds a task's state.
//!
//! Steps and items of fan-outs share all of this. Who may cause a change, and what follows from it, is not known here.
//!
//! ```text
//!  waiting ----> ready ----> running ------------------> succeeded
//!   |  |  \       |  \       ^  |  |  \                   ^
//!   |  |   \      |   \      |  |  |   `---------------> failed (*)
//!   |  |    `-----|----`---> | skipped                    |
//!   |  |          |          |  |  |                      |
//!   |  v          |     (ready) |  v                      |
//!   | blocked     |          |  |  cancelling ------------'
//!   |             |          |  v      |
//!   |             |     backing-off    |
//!   |             v          v         v
//!   `------------------> cancelled <---'
//!
//!  (*) from cancelling only a fan-out fails, if one of its items had failed already
//! ```

use std::fmt;

use pit_core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// LIMIT: attempts at one task, the width of the attempt in a state word.
pub const ATTEMPTS_MAX: u32 = (1 << 24) - 1;

/// What a step or an item of a fan-out is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Some dependency has not ended yet.
    Waiting,
    /// It may be started.
    Ready,
    /// It has been started; a fan-out runs as long as one of its items has not ended.
    Running,
    /// An attempt has failed, the next one is due later.
    BackingOff,
    /// It was running when it was cancelled and has not answered yet.
    Cancelling,
    /// Ended with a result.
    Succeeded,
    /// Ended without, and will not be tried again.
    Failed,
    /// Not executed, because a condition was false: its own, or that of a step it depends on.
    Skipped,
    /// Ended because the run was cancelled, or stopped after a failure elsewhere.
    Cancelled,
    /// Can never be executed, because a step it depends on has failed.
    Blocked,
}

use State::{
    BackingOff, Blocked, Cancelled, Cancelling, Failed, Ready, Running, Skipped, Succeeded, Waiting,
};

/// The legal changes, all of them: from each state the states that may follow. What has ended stays as it is.
const LEGAL: [&[State]; State::COUNT] = [
    /* Waiting    */ &[Ready, Skipped, Cancelled, Blocked],
    /* Ready      */ &[Running, Skipped, Cancelled],
    /* Running    */ &[Succeeded, Failed, BackingOff, Cancelling],
    /* BackingOff */ &[Ready, Cancelled],
    /* Cancelling */ &[Succeeded, Failed, Cancelled],
    /* Succeeded  */ &[],
    /* Failed     */ &[],
    /* Skipped    */ &[],
    /* Cancelled  */ &[],
    /* Blocked    */ &[],
];

/// [`LEGAL`] as one bit for each pair.
const LEGAL_BITS: [u16; State::COUNT] = {
    let mut bits = [0; State::COUNT];
    let mut from = 0;
    while from < State::COUNT {
        let mut i = 0;
        while i < LEGAL[from].len() {
            bits[from] |= 1 << LEGAL[from][i] as u16;
            i += 1;
        }
        from += 1;
    }
    bits
};

impl State {
    /// How many states there are.
    pub const COUNT: usize = 10;
    /// All states, in their order.
    pub const ALL: [Self; Self::COUNT] =
        [Waiting, Ready, Running, BackingOff, Cancelling, Succeeded, Failed, Skipped, Cancelled, Blocked];

    /// Whether this is final.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        self as u8 >= Succeeded as u8
    }

    /// Whether a task in this state has an attempt before it that has not begun.
    const fn is_before_attempt(self) -> bool {
        matches!(self, Waiting | Ready | BackingOff)
    }

    const fn may_become(self, to: Self) -> bool {
        LEGAL_BITS[self as usize] & (1 << to as u16) != 0
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waiting => "waiting",
            Ready => "ready",
            Running => "running",
            BackingOff => "backing-off",
            Cancelling => "cancelling",
            Succeeded => "succeeded",
            Failed => "failed",
            Skipped => "skipped",
            Cancelled => "cancelled",
            Blocked => "blocked",
        })
    }
}

/// A decoded state word: state (4 bits), expanded (1 bit at 7), attempt (24 bits at 8), cause (32 bits at 32).
///
/// INVARIANT: `attempt` is the present attempt or the one to come while the task has not ended, and the number of attempts
/// that were begun once it has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// No cause.
    pub(crate) const NO_CAUSE: u32 = u32::MAX;
    const EXPANDED: u64 = 1 << 7;

    const fn new(state: State, expanded: u64, attempt: u32, cause: u32) -> Self {
        Self(state as u64 | expanded | (attempt as u64) << 8 | (cause as u64) << 32)
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to four bits")]
    pub(crate) const fn state(self) -> State {
        match self.0 as u8 & 0xf {
            0 => Waiting,
            1 => Ready,
            2 => Running,
            3 => BackingOff,
            4 => Cancelling,
            5 => Succeeded,
            6 => Failed,
            7 => Skipped,
            8 => Cancelled,
            // INVARIANT: words are made by `new` alone, so that this is 9.
            _ => Blocked,
        }
    }

    pub(crate) const fn is_expanded(self) -> bool {
        self.0 & Self::EXPANDED != 0
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub(crate) const fn attempt(self) -> u32 {
        self.0 as u32 >> 8
    }

    /// The step or item to which the state is due; its meaning depends on the state.
    pub(crate) const fn cause(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// How many attempts have been begun.
    pub(crate) const fn attempts_begun(self) -> u32 {
        self.attempt() - self.state().is_before_attempt() as u32
    }
}

/// The state of one step or item. Written by the run's owner, read by anybody.
#[derive(Debug)]
pub(crate) struct Slot(AtomicU64);

impl Slot {
    pub(crate) fn new(state: State) -> Self {
        Self(AtomicU64::new(Word::new(state, 0, 1, Word::NO_CAUSE).0))
    }

    /// The word, for readers.
    pub(crate) fn read(&self) -> Word {
        // ORDERING(slot): Acquire, pairs with Release in `write`: who sees a change sees all that was changed before it.
        Word(self.0.load(Ordering::Acquire))
    }

    /// The word, for the owner.
    pub(crate) fn own(&self) -> Word {
        // ORDERING(slot): Relaxed suffices, because the owner alone writes and reads here what it wrote itself.
        Word(self.0.load(Ordering::Relaxed))
    }

    fn write(&self, word: Word) {
        // ORDERING(slot): Release, pairs with Acquire in `read`. A store suffices for one owner.
        self.0.store(word.0, Ordering::Release);
    }

    /// Changes the state, and moves the task in `counts`. The one way in which a state changes.
    ///
    /// # Errors
    /// The present state, if [`LEGAL`] has no such change.
    pub(crate) fn change(&self, counts: &Counts, to: State, cause: u32) -> Result<(), State> {
        let word = self.own();
        let from = word.state();
        if !from.may_become(to) {
            return Err(from);
        }
        let attempt = match to {
            BackingOff => word.attempt() + 1,
            // It was not begun, and never will be.
            Skipped | Cancelled | Blocked => word.attempts_begun(),
            _ => word.attempt(),
        };
        self.write(Word::new(to, word.0 & Word::EXPANDED, attempt, cause));
        counts.shift(from, to);
        Ok(())
    }

    /// Notes a cause without changing the state.
    pub(crate) fn note_cause(&self, cause: u32) {
        let word = self.own();
        self.write(Word::new(word.state(), word.0 & Word::EXPANDED, word.attempt(), cause));
    }

    /// Marks a step as expanded; its items must have been published before.
    pub(crate) fn mark_expanded(&self) {
        self.write(Word(self.own().0 | Word::EXPANDED));
    }
}

/// How many tasks are in each state. Written by the run's owner, read by anybody.
#[derive(Debug)]
pub(crate) struct Counts([AtomicU32; State::COUNT]);

impl Counts {
    pub(crate) fn new(tally: Tally) -> Self {
        Self(tally.0.map(AtomicU32::new))
    }

    fn shift(&self, from: State, to: State) {
        let (from, to) = (&self.0[from as usize], &self.0[to as usize]);
        // ORDERING(counts): Relaxed suffices: one owner writes, and these numbers publish nothing else.
        from.store(from.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        // ORDERING(counts): Relaxed suffices, as above.
        to.store(to.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn word_keeps_all_its_parts() {
        for state in State::ALL {
            for (expanded, attempt, cause) in
                [(0, 1, 0), (Word::EXPANDED, ATTEMPTS_MAX, 7), (0, 77, Word::NO_CAUSE)]
            {
                let word = Word::new(state, expanded, attempt, cause);
                assert_eq!((word.state(), word.attempt(), word.cause()), (state, attempt, cause));
                assert_eq!(word.is_expanded(), expanded != 0);
            }
        }
    }

    #[test]
    fn what_has_ended_never_changes_and_the_rest_can_end() {
        for from in State::ALL {
            assert_eq!(from.is_ended(), LEGAL[from as usize].is_empty(), "{from}");
            for to in State::ALL {
                assert_eq!(from.may_become(to), LEGAL[from as usize].contains(&to), "{from} -> {to}");
            }
        }
        for from in [Waiting, Ready, BackingOff, Cancelling] {
            assert!(from.may_become(Cancelled), "a cancel reaches {from}");
        }
    }

    #[test]
    fn illegal_change_leaves_word_and_counts_alone() {
        for from in State::ALL {
            for to in State::ALL {
                let counts = Counts::new(Tally::NOTHING.with(from, 1));
                let slot = Slot(AtomicU64::new(Word::new(from, 0, 4, 9).0));
                match slot.change(&counts, to, 5) {
                    Ok(()) => {
                        assert_eq!((slot.read().state(), slot.read().cause()), (to, 5));
                        assert_eq!(counts.read(), Tally::NOTHING.with(to, 1));
                    }
                    Err(present) => {
                        assert_eq!(present, from);
                        assert!(slot.read() == Word::new(from, 0, 4, 9));
                        assert_eq!(counts.read(), Tally::NOTHING.with(from, 1));
                    }
                }
            }
        }
    }
}
