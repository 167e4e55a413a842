//! One atomic word for one slot of a table: which generation of it, whose, in which state.
//!
//! What must change together stands in one word, so that every change is one compare-and-swap and a late word about a
//! former occupant fails by itself. The table says what owners and flags mean; nothing here knows.
//!
//! ```text
//!  63             32 31         8 7      0
//!  | generation: 32 | owner: 24 | flags: 8 |
//! ```

/// Generation, owner and flags in 64 bits. Compares as the whole.
///
/// ```
/// use pit_core::slot::Word;
///
/// let held = Word::new(7, 0xABCDEF, 2);
/// assert_eq!((held.generation(), held.owner(), held.flags()), (7, 0xABCDEF, 2));
/// assert_eq!(held.with_flags(3), Word::new(7, 0xABCDEF, 3));
/// assert_eq!(Word::from_bits(held.bits()), held);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word(u64);

impl Word {
    /// LIMIT: owners that can be told apart, so that one fits the word.
    pub const OWNER_MAX: u32 = (1 << 24) - 1;

    /// Puts the three together. An owner above [`OWNER_MAX`](Self::OWNER_MAX) is a defect of the caller.
    #[must_use]
    #[inline]
    pub const fn new(generation: u32, owner: u32, flags: u8) -> Self {
        debug_assert!(owner <= Self::OWNER_MAX);
        Self((generation as u64) << 32 | ((owner & Self::OWNER_MAX) as u64) << 8 | flags as u64)
    }

    /// The word that was stored as `bits`.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// What to store.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Which of the successive occupants.
    #[must_use]
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whose it is.
    #[must_use]
    #[inline]
    pub const fn owner(self) -> u32 {
        let [_, low, middle, high, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// Its state.
    #[must_use]
    #[inline]
    pub const fn flags(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// The same with other flags.
    #[must_use]
    #[inline]
    pub const fn with_flags(self, flags: u8) -> Self {
        Self(self.0 & !0xFF | flags as u64)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        for generation in [0, 1, u32::MAX] {
            for owner in [0, 1, Word::OWNER_MAX] {
                for flags in [0, 1, u8::MAX] {
                    let word = Word::new(generation, owner, flags);
                    assert_eq!((word.generation(), word.owner(), word.flags()), (generation, owner, flags));
                    assert_eq!(word.with_flags(!flags), Word::new(generation, owner, !flags));
                }
            }
        }
    }
}
