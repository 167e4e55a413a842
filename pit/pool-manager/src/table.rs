//! All models by place: a table that only grows, read without a lock.
//!
//! A place belongs to one name for ever; a retired name keeps it, with the epoch that its next declaration follows. The
//! table is a row of blocks, each twice the size of the one before, so that nothing ever moves. Who may add is for the
//! owner to decide.

use std::sync::OnceLock;

use pit_core::sync::Arc;

use crate::cell::ModelCell;

const FIRST_BLOCK: u32 = 64;
const BLOCKS: u32 = 10;

/// LIMIT: names that were ever declared at one manager; a melody or a manifest declares a handful.
pub const MODELS_MAX: u32 = FIRST_BLOCK * ((1 << BLOCKS) - 1);

type Block = Box<[OnceLock<Arc<ModelCell>>]>;

#[derive(Default)]
pub(crate) struct Table {
    blocks: [OnceLock<Block>; BLOCKS as usize],
}

impl Table {
    pub(crate) fn get(&self, place: u32) -> Option<&Arc<ModelCell>> {
        let (block, within) = locate(place)?;
        self.blocks.get(block)?.get()?.get(within)?.get()
    }

    /// All models that are in the table, in the order in which they came. Places are filled without gaps.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ModelCell>> {
        (0..MODELS_MAX).map_while(|place| self.get(place))
    }

    /// Fills a place for good; `None` when there is no such place, or when it is taken.
    pub(crate) fn set(&self, place: u32, cell: Arc<ModelCell>) -> Option<()> {
        let (block, within) = locate(place)?;
        let slots = self.blocks[block].get_or_init(|| {
            let size = (FIRST_BLOCK << block) as usize;
            (0..size).map(|_| OnceLock::new()).collect()
        });
        slots.get(within)?.set(cell).ok()
    }
}

/// Block and place within it.
fn locate(place: u32) -> Option<(usize, usize)> {
    if place >= MODELS_MAX {
        return None;
    }
    let shifted = place + FIRST_BLOCK;
    let block = shifted.ilog2() - FIRST_BLOCK.ilog2();
    Some((block as usize, (shifted - (FIRST_BLOCK << block)) as usize))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_slot_of_its_own() {
        let mut expected = (0, 0);
        for place in 0..MODELS_MAX {
            assert_eq!(locate(place), Some(expected));
            expected.1 += 1;
            if expected.1 == 64 << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(expected, (BLOCKS as usize, 0));
        assert_eq!(locate(MODELS_MAX), None);
    }

    #[test]
    fn table_gives_back_what_it_was_given() {
        let table = Table::default();
        assert!(table.get(0).is_none());
        for place in 0..200 {
            assert!(table.set(place, Arc::new(ModelCell::new(place, &place.to_string(), 1))).is_some());
        }
        assert!(table.set(7, Arc::new(ModelCell::new(7, "again", 1))).is_none());
        assert!(table.set(MODELS_MAX, Arc::new(ModelCell::new(0, "beyond", 1))).is_none());
        assert_eq!(table.get(130).map(|cell| cell.place()), Some(130));
        assert_eq!(table.iter().count(), 200);
        assert!(table.get(u32::MAX).is_none());
    }
}
