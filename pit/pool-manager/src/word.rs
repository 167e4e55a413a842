//! The word of one slot: one lease that can be had, is had, or is not to be had now.
//!
//! ```text
//!                take: CAS                       guard (somebody waits, or the instance rests)
//!  closed --open--> free ----------> held(owner) --------------> held(owner), guarded
//!    ^               ^                  |  give back: CAS               |  give back: under the lock
//!    |               +------------------+                               |
//!    +------------------------------------------- closed, held by the next, or free
//! ```
//!
//! The generation changes when a lease ends otherwise than by being given back (its holder, its instance or its model
//! ended, its time was over), and whenever a slot is opened. So a late lease finds another word and changes nothing.

use pit_core::slot::Word;

const CLOSED: u8 = 0;
const FREE: u8 = 1;
const HELD: u8 = 2;
const STATE: u8 = 3;
const GUARDED: u8 = 4;

/// The owner of a lease without a holder.
pub(crate) const NOBODY: u32 = 0;

/// LIMIT: generations of one model's slots, so that none is used twice. A slot that was closed with the last one is
/// closed for good.
pub(crate) const EPOCH_MAX: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotWord(Word);

impl SlotWord {
    pub(crate) const fn closed(epoch: u32) -> Self {
        Self(Word::new(epoch, NOBODY, CLOSED))
    }

    pub(crate) const fn free(epoch: u32) -> Self {
        Self(Word::new(epoch, NOBODY, FREE))
    }

    pub(crate) const fn held(epoch: u32, owner: u32) -> Self {
        Self(Word::new(epoch, owner, HELD))
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(Word::from_bits(bits))
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0.bits()
    }

    pub(crate) const fn epoch(self) -> u32 {
        self.0.generation()
    }

    pub(crate) const fn owner(self) -> u32 {
        self.0.owner()
    }

    pub(crate) const fn is_free(self) -> bool {
        self.0.flags() & STATE == FREE
    }

    pub(crate) const fn is_held(self) -> bool {
        self.0.flags() & STATE == HELD
    }

    pub(crate) const fn is_closed(self) -> bool {
        self.0.flags() & STATE == CLOSED
    }

    /// Whether only the owner of the model's lock may change this word.
    pub(crate) const fn is_guarded(self) -> bool {
        self.0.flags() & GUARDED != 0
    }

    pub(crate) const fn guarded(self) -> Self {
        Self(self.0.with_flags(self.0.flags() | GUARDED))
    }

    pub(crate) const fn unguarded(self) -> Self {
        Self(self.0.with_flags(self.0.flags() & !GUARDED))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn states_and_the_guard_do_not_touch_each_other() {
        let held = SlotWord::held(EPOCH_MAX, Word::OWNER_MAX);
        assert!(held.is_held() && !held.is_free() && !held.is_closed() && !held.is_guarded());
        assert!(held.guarded().is_held() && held.guarded().is_guarded());
        assert_eq!(held.guarded().unguarded(), held);
        assert_eq!((held.guarded().epoch(), held.guarded().owner()), (EPOCH_MAX, Word::OWNER_MAX));
        assert!(SlotWord::free(3).is_free() && SlotWord::closed(3).is_closed());
        assert_eq!(SlotWord::from_bits(held.bits()), held);
    }
}
