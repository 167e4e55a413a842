//! A table that only grows, read without a lock: what is put into a place stays there as long as the table lives.
//!
//! A row of blocks, each twice the size of the one before, so that nothing ever moves and an empty table costs next to
//! nothing. It knows nothing of what it holds. Who may add, and what a place means, is for the owner to decide; it makes
//! places reusable by keeping a generation in what it puts there (see [`slot`](crate::slot)).

use std::sync::OnceLock;

/// Up to `FIRST * (2^BLOCKS - 1)` things by place. `FIRST`, the size of the first block, is a power of two.
///
/// # Concurrency
/// Everything may be called from any thread. Reading takes no lock; two who fill the same place or begin the same block
/// at once are put in order, and the first one's stays.
///
/// ```
/// use pit_core::table::Table;
///
/// let table = Table::<&str, 4, 3>::new();
/// assert_eq!((Table::<&str, 4, 3>::PLACES, table.get(5)), (28, None));
/// assert_eq!(table.set(5, "five"), Ok(()));
/// assert_eq!(table.get(5), Some(&"five"));
/// assert_eq!(table.set(5, "again"), Err("again"));
/// assert_eq!(table.set(28, "beyond"), Err("beyond"));
/// ```
#[derive(Debug)]
pub struct Table<T, const FIRST: u32, const BLOCKS: usize> {
    blocks: [OnceLock<Block<T>>; BLOCKS],
    /// The model checker does not know `OnceLock`, which orders what is put in before whatever is done by who reads it.
    #[cfg(loom)]
    filled: crate::sync::atomic::AtomicU32,
}

type Block<T> = Box<[OnceLock<T>]>;

impl<T, const FIRST: u32, const BLOCKS: usize> Table<T, FIRST, BLOCKS> {
    /// How many places there are.
    pub const PLACES: u32 = {
        assert!(
            FIRST.is_power_of_two() && BLOCKS > 0 && BLOCKS < 31,
            "sizes of blocks are powers of two in 32 bits"
        );
        FIRST * ((1 << BLOCKS) - 1)
    };

    /// A table of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            blocks: std::array::from_fn(|_| OnceLock::new()),
            #[cfg(loom)]
            filled: crate::sync::atomic::AtomicU32::new(0),
        }
    }

    /// What is in `place`; `None` too when there is no such place.
    #[must_use]
    #[inline]
    pub fn get(&self, place: u32) -> Option<&T> {
        let (block, within) = Self::locate(place)?;
        let thing = self.blocks.get(block)?.get()?.get(within)?.get();
        // ORDERING(table-model): as `OnceLock` does it: who finds the thing comes after who put it there.
        #[cfg(loom)]
        self.filled.fetch_add(0, crate::sync::atomic::Ordering::Acquire);
        thing
    }

    /// What is in the places, up to the first empty one.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..Self::PLACES).map_while(|place| self.get(place))
    }

    /// Fills a place for good.
    ///
    /// # Errors
    /// The thing comes back when there is no such place, or when it is taken.
    pub fn set(&self, place: u32, thing: T) -> Result<(), T> {
        let Some((block, within)) = Self::locate(place) else { return Err(thing) };
        let places = self.blocks[block].get_or_init(|| {
            let size = (FIRST << block) as usize;
            (0..size).map(|_| OnceLock::new()).collect()
        });
        // ORDERING(table-model): Release, as `OnceLock`; for `get`.
        #[cfg(loom)]
        self.filled.fetch_add(1, crate::sync::atomic::Ordering::Release);
        places[within].set(thing)
    }

    /// Block and place within it.
    #[inline]
    fn locate(place: u32) -> Option<(usize, usize)> {
        if place >= Self::PLACES {
            return None;
        }
        let shifted = place + FIRST;
        let block = shifted.ilog2() - FIRST.ilog2();
        Some((block as usize, (shifted - (FIRST << block)) as usize))
    }
}

impl<T, const FIRST: u32, const BLOCKS: usize> Default for Table<T, FIRST, BLOCKS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    type Small = Table<u32, 8, 6>;

    #[test]
    fn every_place_has_a_cell_of_its_own() {
        let mut expected = (0, 0);
        for place in 0..Small::PLACES {
            assert_eq!(Small::locate(place), Some(expected));
            expected.1 += 1;
            if expected.1 == 8 << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(expected, (6, 0));
        assert_eq!(Small::locate(Small::PLACES), None);
    }

    #[test]
    fn table_gives_back_what_it_was_given() {
        let table = Small::new();
        assert_eq!((table.get(0), table.get(u32::MAX)), (None, None));
        for place in 0..200 {
            assert_eq!(table.set(place, place * 10), Ok(()));
        }
        assert_eq!(table.set(7, 1), Err(1));
        assert_eq!(table.set(Small::PLACES, 2), Err(2));
        assert_eq!(table.get(130), Some(&1_300));
        assert_eq!(table.iter().count(), 200);
    }
}
