//! The state of a model in one word, so that a lease is taken by one compare-and-swap and read by one load.
//!
//! ```text
//!  63          41   40         39          20 19          0
//!  | epoch: 23 | contended: 1 | capacity: 20 | free: 20 |
//! ```
//!
//! INVARIANT: free <= capacity. INVARIANT: contended means that somebody waits, and then free = 0.
//! Capacity 0 means that the model is retired.

const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const CONTENDED: u64 = 1 << (2 * COUNT_BITS);
const EPOCH_SHIFT: u32 = 2 * COUNT_BITS + 1;

/// LIMIT: leases of one model at once, so that the count fits the word.
pub const CAPACITY_MAX: u32 = (1 << COUNT_BITS) - 1;

/// LIMIT: declarations of one name, so that the epoch fits the word and is never used twice.
pub(crate) const EPOCH_MAX: u32 = (1 << (64 - EPOCH_SHIFT)) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    /// A model of this epoch with nothing leased.
    pub(crate) const fn new(epoch: u32, capacity: u32) -> Self {
        debug_assert!(epoch <= EPOCH_MAX && capacity <= CAPACITY_MAX);
        Self((epoch as u64) << EPOCH_SHIFT | (capacity as u64) << COUNT_BITS | capacity as u64)
    }

    pub(crate) const fn epoch(self) -> u32 {
        (self.0 >> EPOCH_SHIFT) as u32
    }

    pub(crate) const fn capacity(self) -> u32 {
        (self.0 >> COUNT_BITS & COUNT_MASK) as u32
    }

    pub(crate) const fn free(self) -> u32 {
        (self.0 & COUNT_MASK) as u32
    }

    pub(crate) const fn is_contended(self) -> bool {
        self.0 & CONTENDED != 0
    }

    /// Whether a lease of `epoch` is one of the model that stands here now.
    pub(crate) const fn is_current(self, epoch: u32) -> bool {
        self.epoch() == epoch && self.capacity() > 0
    }

    /// One lease more. The caller has seen that one is free.
    pub(crate) const fn taken(self) -> Self {
        debug_assert!(self.free() > 0);
        Self(self.0 - 1)
    }

    /// One lease less. The caller holds it, so that something is leased.
    pub(crate) const fn given_back(self) -> Self {
        debug_assert!(self.free() < self.capacity());
        Self(self.0 + 1)
    }

    pub(crate) const fn contended(self) -> Self {
        debug_assert!(self.free() == 0);
        Self(self.0 | CONTENDED)
    }

    pub(crate) const fn uncontended(self) -> Self {
        Self(self.0 & !CONTENDED)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        for (epoch, capacity) in
            [(0, 1), (1, CAPACITY_MAX), (EPOCH_MAX, 1), (EPOCH_MAX, CAPACITY_MAX), (5, 7)]
        {
            let mut word = Word::new(epoch, capacity);
            assert_eq!((word.epoch(), word.capacity(), word.free()), (epoch, capacity, capacity));
            assert!(!word.is_contended() && word.is_current(epoch) && !word.is_current(epoch ^ 1));
            word = word.taken();
            assert_eq!((word.epoch(), word.capacity(), word.free()), (epoch, capacity, capacity - 1));
            assert_eq!(word.given_back(), Word::new(epoch, capacity));
        }
        let word = Word::new(EPOCH_MAX, 1).taken();
        assert!(word.contended().is_contended());
        assert_eq!((word.contended().epoch(), word.contended().free()), (EPOCH_MAX, 0));
        assert_eq!(word.contended().uncontended(), word);
        assert!(!Word::new(3, 0).is_current(3), "retired");
    }
}
