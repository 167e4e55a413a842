//! One slot in its own cache lines: its word, and what only its present occupant writes.
//!
//! Whoever takes a slot and gives it back touches these lines and no others that anybody writes. So two who use the same
//! model disturb each other only when they want the same slot.
//!
//! Slots live as long as the process: a lease is a plain reference to one, and costs no count of references. When a
//! model goes away its slots are closed and go to the next model that wants one. The epochs of a slot only grow, through
//! all its models, so that a lease from before changes nothing there either.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use pit_core::{
    clock::Tick,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::{
    cell::ModelCell,
    word::{EPOCH_MAX, SlotWord},
};

#[repr(align(128))]
pub(crate) struct Slot {
    word: AtomicU64,
    /// Leases of this slot since the beginning.
    uses: AtomicU64,
    /// Index and epoch of the instance that the slot was opened for.
    instance: AtomicU64,
    index: AtomicU32,
    /// When the time of the present lease is over.
    until: AtomicU64,
    /// The model that the slot belongs to. Not from the facade: it changes only while the slot is nobody's.
    cell: Mutex<Weak<ModelCell>>,
}

/// Slots of models that are gone. As many slots as were ever in use at once stay with the process.
static SPARE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());

impl Slot {
    /// A closed slot for a model.
    pub(crate) fn of_model(index: u32, cell: Weak<ModelCell>) -> &'static Self {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot: &'static Self = spare.unwrap_or_else(|| {
            Box::leak(Box::new(Self {
                word: AtomicU64::new(SlotWord::closed(0).bits()),
                uses: AtomicU64::new(0),
                instance: AtomicU64::new(0),
                index: AtomicU32::new(0),
                until: AtomicU64::new(Tick::NEVER.as_nanos()),
                cell: Mutex::default(),
            }))
        });
        // ORDERING(slot-instance): Relaxed suffices for both: written while the slot is closed, and published by the word
        // that opens it.
        slot.uses.store(0, Ordering::Relaxed);
        slot.index.store(index, Ordering::Relaxed);
        *slot.cell.lock().unwrap_or_else(PoisonError::into_inner) = cell;
        slot
    }

    /// The model is gone: its slot is closed for good as far as anybody's lease goes, and kept for the next model.
    pub(crate) fn retire(&'static self) {
        let epoch = self.look().epoch().saturating_add(1);
        self.close(epoch);
        // A model run has objects of its own each time.
        if epoch < EPOCH_MAX && !cfg!(loom) {
            SPARE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
    }

    /// Closes the slot with another epoch, whoever holds it.
    pub(crate) fn close(&self, epoch: u32) {
        let mut seen = self.look();
        while let Err(now) = self.change(seen, SlotWord::closed(epoch)) {
            seen = now;
        }
    }

    /// Which of its model's slots this is.
    pub(crate) fn index(&self) -> u32 {
        // ORDERING(slot-instance): Relaxed suffices, as in `of_model`.
        self.index.load(Ordering::Relaxed)
    }

    /// Its model, unless that is gone.
    pub(crate) fn cell(&self) -> Option<Arc<ModelCell>> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// The word; what was written before it was put here can be read.
    #[inline]
    pub(crate) fn look(&self) -> SlotWord {
        // ORDERING(slot): Acquire, pairs with the Release of whoever put the word here: a taker that sees a new
        // declaration's word also sees its standing, and a lease sees its instance.
        SlotWord::from_bits(self.word.load(Ordering::Acquire))
    }

    /// The word, to be judged by itself.
    pub(crate) fn peek(&self) -> SlotWord {
        // ORDERING(slot-peek): Relaxed suffices: the epoch in it says all there is to know, and nothing else is read.
        SlotWord::from_bits(self.word.load(Ordering::Relaxed))
    }

    /// Takes the slot, if the word is still the free one that was seen. The word that is held from now on.
    #[inline]
    pub(crate) fn take(&self, seen: SlotWord, owner: u32) -> Result<SlotWord, SlotWord> {
        debug_assert!(seen.is_free());
        let held = SlotWord::held(seen.epoch(), owner);
        // ORDERING(slot): Acquire, pairs with the Release in `give_back`: who gets a lease sees what was done under the
        // one before; and with that in `pass_by`: who takes after a holder's end has passed by sees that end. Acquire on
        // failure as well: the word that is found is judged as one that was looked at.
        self.word
            .compare_exchange(seen.bits(), held.bits(), Ordering::Acquire, Ordering::Acquire)
            .map_err(SlotWord::from_bits)?;
        self.count_use();
        Ok(held)
    }

    /// Counts a lease. For who has just taken the slot, or handed it over: nobody else writes the number then.
    #[inline]
    pub(crate) fn count_use(&self) {
        // ORDERING(slot-uses): Relaxed suffices: the slot's word orders its occupants, and readers want a number only.
        let uses = self.uses.load(Ordering::Relaxed);
        self.uses.store(uses.wrapping_add(1), Ordering::Relaxed);
    }

    pub(crate) fn uses(&self) -> u64 {
        // ORDERING(slot-uses): Relaxed suffices, as in `count_use`.
        self.uses.load(Ordering::Relaxed)
    }

    /// Gives the slot back to everybody, if it is still held as `held`: neither guarded, nor revoked, nor disowned.
    #[inline]
    pub(crate) fn give_back(&self, held: SlotWord) -> bool {
        let free = SlotWord::free(held.epoch());
        // ORDERING(slot): Release, pairs with the Acquire in `take`. Relaxed on failure: what is found is looked at
        // again under the lock.
        self.word.compare_exchange(held.bits(), free.bits(), Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Changes the word under the model's lock, in competition with those who take and give back without it.
    pub(crate) fn change(&self, seen: SlotWord, next: SlotWord) -> Result<(), SlotWord> {
        // ORDERING(slot): Release for `take` and `look`, as in `put`; Acquire, so that what the last occupant did comes
        // before what is done with the slot now. Acquire on failure: the word found is the next one to be changed.
        self.word
            .compare_exchange(seen.bits(), next.bits(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(SlotWord::from_bits)
    }

    /// Puts a word here that only the owner of the model's lock can change: the one before is closed or guarded.
    pub(crate) fn put(&self, next: SlotWord) {
        debug_assert!(self.peek().is_closed() || self.peek().is_guarded());
        // ORDERING(slot): Release: who takes the slot or looks at it sees what was written before it was opened.
        self.word.store(next.bits(), Ordering::Release);
    }

    /// The word, from a change that changes nothing: whoever takes the slot afterwards sees what was done before this.
    pub(crate) fn pass_by(&self) -> SlotWord {
        // ORDERING(slot): AcqRel, Release for `take`. A load would not do: a taker that comes later could take the word
        // from before, and not see that its holder has ended. One of the two notices the other, because both change the
        // same word.
        SlotWord::from_bits(self.word.fetch_or(0, Ordering::AcqRel))
    }

    /// The lease that begins ends at `until`. Under the model's lock, before whoever holds it knows of it.
    pub(crate) fn set_until(&self, until: Tick) {
        // ORDERING(slot-until): Relaxed suffices here and below: whoever has a lease with an end has got it under the
        // model's lock, or from somebody who has.
        self.until.store(until.as_nanos(), Ordering::Relaxed);
    }

    /// Whether the time of the present lease is over, by the clock and not by who has looked at it. Where the clock is
    /// gone with the manager, every time is over.
    pub(crate) fn is_out_of_time(&self) -> bool {
        // ORDERING(slot-until): Relaxed suffices, as above.
        let until = Tick::from_nanos(self.until.load(Ordering::Relaxed));
        until != Tick::NEVER && self.cell().and_then(|cell| cell.now()).is_none_or(|now| now >= until)
    }

    pub(crate) fn set_instance(&self, index: u32, epoch: u32) {
        // ORDERING(slot-instance): Relaxed suffices here and below: written while the slot is closed, and published by
        // the word that opens it.
        self.instance.store(u64::from(epoch) << 32 | u64::from(index), Ordering::Relaxed);
    }

    /// Index and epoch of the instance.
    pub(crate) fn instance(&self) -> (u32, u32) {
        // ORDERING(slot-instance): Relaxed suffices, as above.
        let bits = self.instance.load(Ordering::Relaxed);
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        (half(bits), half(bits >> 32))
    }
}
