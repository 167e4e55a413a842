//! What is kept of one thing beside its deadline: half a cache line of atomic words.
//!
//! A touch reaches its word without any lock; everything else is written under the lock of the shard that the cell is
//! in. Nothing here knows the order of deadlines, sweeps or what owners do.
//!
//! ```text
//!            fill             ask               keep
//!   empty ---------> armed ---------> asking ---------> armed
//!     ^                | clear           | clear
//!     +----------------+-----------------+     the generation goes up: late words about the thing find another one
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use pit_core::{clock::Tick, slot::Word};

use crate::history::{History, UNTOUCHED};

const EMPTY: u8 = 0;
const ARMED: u8 = 1;
const ASKING: u8 = 2;

/// Two to a cache line, so that one line is all that a registration, a touch or a cancel meets of it.
///
/// INVARIANT: only the mark is written without the shard's lock.
#[derive(Default)]
#[repr(align(32))]
pub(crate) struct Cell {
    /// The tick that the last touch left, or [`UNTOUCHED`].
    mark: AtomicU64,
    /// A [`Word`]: the how-manieth thing in this place, whose, in which state.
    word: AtomicU64,
    key: AtomicU64,
    ttl_ns: AtomicU64,
}

/// A thing as it was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thing {
    pub(crate) owner: u32,
    pub(crate) key: u64,
    pub(crate) ttl_ns: u64,
}

// ORDERING(cell): Relaxed suffices for word, key and time to live: the shard's lock orders those who write them and those
// who go by them. A touch and a question from outside look at the word without it: a touch that meets a successor
// leaves a mark too many, so that the successor lives longer, which touches may do; and the answer to a question is of
// the past already.
impl Cell {
    /// Leaves `mark`, if the thing of `generation` is still there.
    #[inline]
    pub(crate) fn touch(&self, generation: u32, mark: u64) {
        // ORDERING(cell): see above.
        if Word::from_bits(self.word.load(Ordering::Relaxed)).generation() == generation {
            // ORDERING(touch): Relaxed suffices: no other data is published by a touch, and it need not be seen at once.
            self.mark.store(mark, Ordering::Relaxed);
        }
    }

    pub(crate) fn was_touched(&self) -> bool {
        // ORDERING(touch): Relaxed suffices: the mark is judged by itself, and a touch that is not seen yet is one that
        // came too late.
        self.mark.load(Ordering::Relaxed) != UNTOUCHED
    }

    /// Whether the thing of `generation` is here, armed or asked about.
    pub(crate) fn holds(&self, generation: u32) -> bool {
        let word = self.word();
        word.generation() == generation && word.flags() != EMPTY
    }

    /// Whether the owner is being asked about the thing of `generation`.
    pub(crate) fn is_asking(&self, generation: u32) -> bool {
        let word = self.word();
        word.generation() == generation && word.flags() == ASKING
    }

    /// The armed thing, and the how-manieth it is here.
    pub(crate) fn armed(&self) -> Option<(Thing, u32)> {
        let word = self.word();
        // ORDERING(cell): see above.
        let (key, ttl_ns) = (self.key.load(Ordering::Relaxed), self.ttl_ns.load(Ordering::Relaxed));
        (word.flags() == ARMED).then_some((Thing { owner: word.owner(), key, ttl_ns }, word.generation()))
    }

    /// Puts a thing in; which of the successive ones it is.
    pub(crate) fn fill(&self, thing: Thing) -> u32 {
        let generation = self.word().generation();
        // ORDERING(cell): see above. The mark may get one of a late touch after this, which is as harmless.
        self.mark.store(UNTOUCHED, Ordering::Relaxed);
        self.key.store(thing.key, Ordering::Relaxed);
        self.ttl_ns.store(thing.ttl_ns, Ordering::Relaxed);
        self.set(Word::new(generation, thing.owner, ARMED));
        generation
    }

    /// From armed to asking.
    pub(crate) fn ask(&self) {
        self.set(self.word().with_flags(ASKING));
    }

    /// From asking to armed again.
    pub(crate) fn keep(&self) {
        self.set(self.word().with_flags(ARMED));
    }

    /// The thing is gone.
    pub(crate) fn clear(&self) {
        // Wraps after 2^32 things in one place: an id that is so old would be taken for the present one.
        self.set(Word::new(self.word().generation().wrapping_add(1), 0, EMPTY));
    }

    /// The deadline of a thing whose deadline has passed, its touches considered: not after `now` when there were none.
    pub(crate) fn renewed(&self, ttl_ns: u64, now: Tick, history: &History) -> u64 {
        // ORDERING(touch): Relaxed suffices here and in the compare-and-swap: one location is judged by itself.
        let seen = self.mark.load(Ordering::Relaxed);
        if seen == UNTOUCHED {
            return now.as_nanos();
        }
        if let Some(latest) = history.latest(seen) {
            // The touch is used up; one that comes meanwhile makes the swap fail, and counts as one of just now.
            if self.mark.compare_exchange(seen, UNTOUCHED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return deadline_ns(latest, ttl_ns);
            }
        }
        // It may be later than `now`, so that the mark stays: at the next look the tick after it is known.
        deadline_ns(now, ttl_ns)
    }

    fn word(&self) -> Word {
        // ORDERING(cell): see above.
        Word::from_bits(self.word.load(Ordering::Relaxed))
    }

    fn set(&self, word: Word) {
        // ORDERING(cell): see above.
        self.word.store(word.bits(), Ordering::Relaxed);
    }
}

/// When what lives for `ttl_ns` from `from` on expires.
pub(crate) const fn deadline_ns(from: Tick, ttl_ns: u64) -> u64 {
    from.as_nanos().saturating_add(ttl_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cells_share_a_cache_line() {
        assert_eq!((size_of::<Cell>(), align_of::<Cell>()), (32, 32));
    }

    #[test]
    fn late_touch_does_not_reach_the_successor() {
        let cell = Cell::default();
        let thing = |key| Thing { owner: 3, key, ttl_ns: 5 };
        let first = cell.fill(thing(1));
        cell.touch(first, 9);
        assert!(cell.was_touched());
        cell.ask();
        assert!(cell.is_asking(first) && cell.holds(first) && cell.armed().is_none());
        cell.clear();
        assert!(!cell.holds(first) && !cell.is_asking(first));
        let second = cell.fill(thing(2));
        cell.touch(first, 9);
        assert!(!cell.was_touched() && cell.holds(second) && !cell.holds(first));
        assert_eq!(cell.armed(), Some((thing(2), second)));
    }
}
