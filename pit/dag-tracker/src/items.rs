//! The items of one expanded step, as everybody sees them: a row that grows when an item is expanded in turn.
//!
//! Items are numbered within their step: those of the first fan-out from 0, those of a nested one behind all that are there.
//! What their ends mean is decided by the owner's account of them, not here.

use std::sync::OnceLock;

use pit_core::sync::atomic::{AtomicU32, Ordering};

use crate::{
    segments::Segments,
    state::State,
    tally::{Counts, Tally},
    word::{Slot, Word},
};

/// LIMIT: items of one step, those of nested fan-outs included.
pub const ITEMS_MAX: u32 = 1 << 24;

/// The items of one fan-out among all those of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// The item that was expanded; `None`: the step itself.
    pub(crate) parent: Option<u32>,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// All items of one step.
pub(crate) struct Items {
    slots: Segments<Slot>,
    blocks: Segments<OnceLock<Block>>,
    len: AtomicU32,
    pub(crate) counts: Counts,
    /// Why the step was told to stop, and which item has made it fail: what would stand in its word, had it not been
    /// expanded. Two, so that a reader between two changes never takes one for the other.
    stop_cause: AtomicU32,
    failed_item: AtomicU32,
}

impl Items {
    pub(crate) fn new() -> Self {
        Self {
            slots: Segments::new(),
            blocks: Segments::new(),
            len: AtomicU32::new(0),
            counts: Counts::new(Tally::NOTHING),
            stop_cause: AtomicU32::new(Word::NO_CAUSE),
            failed_item: AtomicU32::new(Word::NO_CAUSE),
        }
    }

    /// Appends the items of one more fan-out, all of them ready.
    pub(crate) fn append(&self, place: usize, block: Block) {
        let len = block.first + block.count;
        self.slots.reserve(len as usize, || Slot::new(Word::READY));
        self.blocks.reserve(place + 1, OnceLock::new);
        if let Some(free) = self.blocks.get(place) {
            free.get_or_init(|| block);
        }
        self.counts.add(State::Ready, block.count);
        // ORDERING(items): Release, pairs with Acquire in `len`: who sees the new length finds the items behind it.
        self.len.store(len, Ordering::Release);
    }

    pub(crate) fn len(&self) -> u32 {
        // ORDERING(items): Acquire, pairs with Release in `append`.
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn get(&self, item: u32) -> Option<&Slot> {
        if item < self.len() { self.slots.get(item as usize) } else { None }
    }

    /// All items with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..self.len()).zip(self.slots.iter())
    }

    /// The place of an item in its fan-out, before it that of the item that was expanded, and so on from the outermost.
    pub(crate) fn path(&self, item: u32) -> Vec<u32> {
        let mut path = Vec::new();
        let mut next = Some(item);
        while let Some(item) = next {
            let mut blocks = self.blocks.iter().map_while(OnceLock::get);
            let block = blocks.find(|block| item.checked_sub(block.first).is_some_and(|at| at < block.count));
            path.extend(block.map(|block| item - block.first));
            next = block.and_then(|block| block.parent);
        }
        path.reverse();
        path
    }

    pub(crate) fn set_stop_cause(&self, cause: u32) {
        // ORDERING(items-cause): Relaxed suffices: the step's state, which says that there is a cause, is published later.
        self.stop_cause.store(cause, Ordering::Relaxed);
    }

    pub(crate) fn stop_cause(&self) -> u32 {
        // ORDERING(items-cause): Relaxed suffices: the reader has seen the step's state, and with it what came before.
        self.stop_cause.load(Ordering::Relaxed)
    }

    pub(crate) fn set_failed_item(&self, item: u32) {
        // ORDERING(items-cause): Relaxed suffices, as in `set_stop_cause`.
        self.failed_item.store(item, Ordering::Relaxed);
    }

    pub(crate) fn failed_item(&self) -> u32 {
        // ORDERING(items-cause): Relaxed suffices, as in `stop_cause`.
        self.failed_item.load(Ordering::Relaxed)
    }
}
