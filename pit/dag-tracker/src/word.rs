//! The word that holds all that changes about a step or an item, and the one way in which it changes.
//!
//! ```text
//!  bit        0..4    4               5           7         8..32      32..64
//!  waiting    state   each end counts one failed  -         pending    wanted
//!  else       state   -               -           expanded  attempt    what else there is to say
//! ```
//!
//! What else there is to say: of what has been expanded, where its items are; of what may still be tried again, the
//! retries used; of what was told to stop or has ended, the cause. None of them is needed beside another.

use std::fmt;

use pit_core::sync::atomic::{AtomicU64, Ordering};

use crate::{
    join::Joining,
    state::State::{self, BackingOff, Blocked, Cancelled, Ready, Skipped, Waiting},
    tally::Counts,
};

/// LIMIT: attempts at one task, the width of the attempt in a state word.
pub const ATTEMPTS_MAX: u32 = (1 << 24) - 1;

/// A state word.
///
/// INVARIANT: `attempt` is the present attempt or the one to come while the task has not ended, and the number of attempts
/// that were begun once it has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// No cause.
    pub(crate) const NO_CAUSE: u32 = u32::MAX;
    /// Ready, in the first attempt.
    pub(crate) const READY: Self = Self::new(Ready, 0, 1, 0);

    const EACH_END_COUNTS: u64 = 1 << 4;
    const ONE_FAILED: u64 = 1 << 5;
    const EXPANDED: u64 = 1 << 7;
    const LOW_24_BITS: u32 = (1 << 24) - 1;
    /// One less pending and one less wanted.
    const ONE_SUCCESS: u64 = 1 << 8 | 1 << 32;

    const fn new(state: State, expanded: u64, attempt: u32, rest: u32) -> Self {
        Self(state as u64 | expanded | (attempt as u64) << 8 | (rest as u64) << 32)
    }

    /// Waiting, with a join that has come so far.
    pub(crate) const fn waiting(joining: Joining) -> Self {
        let Joining { pending, wanted, each_end_counts, one_failed } = joining;
        let flags = (each_end_counts as u64 * Self::EACH_END_COUNTS) | (one_failed as u64 * Self::ONE_FAILED);
        Self::new(Waiting, flags, pending, wanted)
    }

    /// How far the join has come.
    ///
    /// INVARIANT: asked only of what waits.
    pub(crate) const fn joining(self) -> Joining {
        Joining {
            pending: self.pending(),
            wanted: self.rest(),
            each_end_counts: self.0 & Self::EACH_END_COUNTS != 0,
            one_failed: self.0 & Self::ONE_FAILED != 0,
        }
    }

    /// The word after one more dependency has succeeded. Says the same as [`Joining::after`], which is the rule, in a few
    /// instructions, because this is by far the most frequent case.
    ///
    /// INVARIANT: asked only of what waits.
    #[inline]
    pub(crate) const fn after_success(self) -> AfterSuccess {
        let next = Self(self.0 - Self::ONE_SUCCESS);
        if next.rest() == 0 {
            AfterSuccess::Ready
        } else if next.pending() == 0 {
            AfterSuccess::Open
        } else {
            AfterSuccess::Waits(next)
        }
    }

    #[inline]
    pub(crate) const fn state(self) -> State {
        State::ALL_16[(self.0 & 0xf) as usize]
    }

    #[inline]
    pub(crate) const fn is_waiting(self) -> bool {
        self.0 & 0xf == Waiting as u64
    }

    #[inline]
    pub(crate) const fn is_expanded(self) -> bool {
        self.0 & Self::EXPANDED != 0
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    const fn pending(self) -> u32 {
        (self.0 >> 8) as u32 & Self::LOW_24_BITS
    }

    #[inline]
    pub(crate) const fn attempt(self) -> u32 {
        // What waits has the first attempt before it.
        if self.is_waiting() { 1 } else { self.pending() }
    }

    /// What else there is to say, see above.
    #[inline]
    pub(crate) const fn rest(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// How many attempts have been begun.
    pub(crate) const fn attempts_begun(self) -> u32 {
        self.attempt() - self.state().is_before_attempt() as u32
    }
}

/// What one success means for a step that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterSuccess {
    Waits(Word),
    Ready,
    /// Nothing is left to wait for and something still wanted: the rule has to decide.
    Open,
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#018x}", self.state(), self.0)
    }
}

/// The state of one step or item. Written by the run's owner, read by anybody.
#[derive(Debug)]
pub(crate) struct Slot(AtomicU64);

impl Slot {
    pub(crate) fn new(word: Word) -> Self {
        Self(AtomicU64::new(word.0))
    }

    /// The word, for readers.
    #[inline]
    pub(crate) fn read(&self) -> Word {
        // ORDERING(slot): Acquire, pairs with Release in `write`: who sees a change sees all that was changed before it.
        Word(self.0.load(Ordering::Acquire))
    }

    /// The word, for the owner.
    #[inline]
    pub(crate) fn own(&self) -> Word {
        // ORDERING(slot): Relaxed suffices, because the owner alone writes and reads here what it wrote itself.
        Word(self.0.load(Ordering::Relaxed))
    }

    #[inline]
    fn write(&self, word: Word) {
        // ORDERING(slot): Release, pairs with Acquire in `read`. A store suffices for one owner.
        self.0.store(word.0, Ordering::Release);
    }

    /// Notes how far the join of a waiting step has come.
    #[inline]
    pub(crate) fn write_waiting(&self, word: Word) {
        debug_assert!(self.own().is_waiting() && word.is_waiting(), "{:?} -> {word:?}", self.own());
        self.write(word);
    }

    /// Makes a waiting step ready. Who does it counts it.
    #[inline]
    pub(crate) fn write_ready(&self) {
        const { assert!(Waiting.may_become(Ready), "the table allows it") };
        debug_assert!(self.own().is_waiting(), "{:?}", self.own());
        self.write(Word::READY);
    }

    /// Changes the state, and moves the task in `counts`. The one way in which a state changes, but for joins. `rest` replaces what else
    /// there was to say, except of what has been expanded.
    ///
    /// # Errors
    /// The present state, if the table has no such change.
    #[inline]
    pub(crate) fn change(&self, counts: &Counts, to: State, rest: Option<u32>) -> Result<(), State> {
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
        let rest = match rest {
            Some(rest) if !word.is_expanded() => rest,
            _ if word.is_waiting() => 0,
            _ => word.rest(),
        };
        self.write(Word::new(to, word.0 & Word::EXPANDED, attempt, rest));
        counts.shift(from, to);
        Ok(())
    }

    /// The short way of a change whose one possible start is known: from `from` in that very attempt, and not expanded.
    /// Compares all of it at once. If it says no, [`change`](Self::change) tells why or finds another way.
    #[inline]
    pub(crate) fn change_short(&self, counts: &Counts, from: State, attempt: u32, to: State) -> bool {
        debug_assert!(from.may_become(to), "{from} -> {to}");
        let word = self.own();
        // 64 bits, so that an attempt beyond the limit is not taken for another.
        let expected = from as u64 | u64::from(attempt) << 8;
        let is_expected = word.0 & u64::from(u32::MAX) == expected;
        if is_expected {
            self.write(Word(word.0 ^ from as u64 ^ to as u64));
            counts.shift(from, to);
        }
        is_expected
    }

    /// Marks a task as expanded, with the place of its items, which must have been published before.
    pub(crate) fn expand(&self, place: u32) {
        let word = self.own();
        self.write(Word::new(word.state(), Word::EXPANDED, word.attempt(), place));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        graph::STEPS_MAX,
        join::{Ending, Join, Joined},
        tally::Tally,
    };

    #[test]
    fn word_keeps_all_its_parts() {
        for state in State::ALL.into_iter().filter(|state| *state != Waiting) {
            for (expanded, attempt, rest) in
                [(0, 1, 0), (Word::EXPANDED, ATTEMPTS_MAX, 7), (0, 77, Word::NO_CAUSE)]
            {
                let word = Word::new(state, expanded, attempt, rest);
                assert_eq!((word.state(), word.attempt(), word.rest()), (state, attempt, rest));
                assert_eq!(word.is_expanded(), expanded != 0);
            }
        }
        for join in [Join::All, Join::Any, Join::AllDone, Join::AtLeast(STEPS_MAX - 1)] {
            let joining = Joining { one_failed: join == Join::Any, ..join.over(STEPS_MAX - 1) };
            let word = Word::waiting(joining);
            assert_eq!((word.joining(), word.state(), word.attempts_begun()), (joining, Waiting, 0));
        }
    }

    #[test]
    fn short_way_of_a_success_says_what_the_rule_says() {
        for pending in 1..6 {
            for wanted in 1..6 {
                for flags in 0..4 {
                    let joining = Joining {
                        pending,
                        wanted,
                        each_end_counts: flags & 1 != 0,
                        one_failed: flags & 2 != 0,
                    };
                    // What cannot come together and has a failure is blocked already, and waits no more.
                    if pending < wanted && joining.one_failed {
                        continue;
                    }
                    let said = match joining.after(Ending::Succeeded) {
                        Joined::Ready => AfterSuccess::Ready,
                        Joined::Waits(next) => AfterSuccess::Waits(Word::waiting(next)),
                        Joined::Blocked | Joined::Skipped => AfterSuccess::Open,
                    };
                    assert_eq!(Word::waiting(joining).after_success(), said, "{joining:?}");
                }
            }
        }
    }

    #[test]
    fn illegal_change_leaves_word_and_counts_alone() {
        for from in State::ALL {
            for to in State::ALL {
                let counts = Counts::new(Tally::NOTHING.with(from, 1));
                let before = Word::new(from, 0, 4, 9);
                let slot = Slot::new(before);
                match slot.change(&counts, to, Some(5)) {
                    Ok(()) => {
                        assert_eq!((slot.read().state(), slot.read().rest()), (to, 5));
                        assert_eq!(counts.read(), Tally::NOTHING.with(to, 1));
                    }
                    Err(present) => {
                        assert_eq!(present, from);
                        assert_eq!(slot.read(), before);
                        assert_eq!(counts.read(), Tally::NOTHING.with(from, 1));
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_expanded_keeps_the_place_of_its_items() {
        let counts = Counts::new(Tally::NOTHING.with(State::Running, 1));
        let slot = Slot::new(Word::new(State::Running, 0, 3, 0));
        slot.expand(12);
        slot.change(&counts, State::Cancelling, Some(Word::NO_CAUSE)).unwrap();
        slot.change(&counts, State::Cancelled, None).unwrap();
        let word = slot.read();
        assert!(word.is_expanded());
        assert_eq!((word.rest(), word.attempt(), word.state()), (12, 3, Cancelled));
        assert_eq!(size_of::<Slot>(), 8, "which is all that a step costs in a run without fan-outs");
    }
}
