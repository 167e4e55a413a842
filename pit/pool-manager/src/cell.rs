//! One model: its word, and the queue behind a lock for those who wait.
//!
//! As long as nobody waits, taking and giving back is one compare-and-swap on the word. Who finds nothing free and wants
//! to wait takes the lock and sets the `contended` bit in the same compare-and-swap that sees `free = 0`. From then on
//! giving back goes through the lock, and hands the lease over: it never becomes free, and nobody can overtake.
//!
//! ```text
//!            take, give back: CAS                    give back, leave the queue: under the lock
//!  uncontended ----------------- first waiter -----> contended -----------+
//!       ^                                                                 |
//!       +--------------------- the queue is empty again ------------------+
//! ```
//!
//! INVARIANT: `contended` is set exactly while the queue is not empty, and both change under the lock only; while it is
//! set, nobody without the lock changes the word.

use std::{sync::PoisonError, task::Waker};

use pit_core::{
    priority::Rank,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use crate::{
    ModelId,
    queue::{Queue, Settled, Ticket},
    word::{EPOCH_MAX, Word},
};

/// LIMIT: who waits for one model. Longer queues only hide that there is too much work; who is refused must hold back
/// its own.
pub const WAITERS_PER_MODEL_MAX: usize = 100_000;

/// What a model looks like at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelState {
    /// Its id.
    pub id: ModelId,
    /// Its name.
    pub name: Box<str>,
    /// How many leases there may be at once; 0 when the model is retired.
    pub capacity: u32,
    /// How many leases there are.
    pub leased: u32,
    /// How many wait for one.
    pub waiting: u32,
}

/// How an attempt to take a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Leased,
    NoneFree,
    ModelRetired,
}

/// The last declaration in a place, and whether it still holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) model: ModelId,
    pub(crate) is_declared: bool,
}

/// What came of a redeclaration.
pub(crate) enum Redeclared {
    As(ModelId),
    /// Somebody else has retired it or declared it anew.
    ModelRetired,
    EpochsUsedUp,
}

/// How an attempt to take a lease or a place in the queue ended.
pub(crate) enum Queued {
    Leased,
    Waiting(Ticket),
    ModelRetired,
    QueueFull,
}

// Two cache lines, so that threads on different models do not disturb each other; the prefetcher of x86-64 fetches
// lines in pairs.
#[repr(align(128))]
pub(crate) struct ModelCell {
    word: AtomicU64,
    waiting: AtomicU32,
    place: u32,
    name: Box<str>,
    queue: Mutex<Queue>,
}

impl ModelCell {
    pub(crate) fn new(place: u32, name: &str, capacity: u32) -> Self {
        Self {
            word: AtomicU64::new(Word::new(0, capacity).0),
            waiting: AtomicU32::new(0),
            place,
            name: name.into(),
            queue: Mutex::new(Queue::default()),
        }
    }

    pub(crate) const fn place(&self) -> u32 {
        self.place
    }

    /// What is or was declared here last. One load, so that both halves are of one moment.
    pub(crate) fn standing(&self) -> Standing {
        let word = self.word();
        Standing { model: ModelId::new(self.place, word.epoch()), is_declared: word.capacity() > 0 }
    }

    pub(crate) fn word(&self) -> Word {
        // ORDERING(model-peek): Relaxed suffices: the word is judged by itself, and a compare-and-swap decides.
        Word(self.word.load(Ordering::Relaxed))
    }

    pub(crate) fn state(&self) -> ModelState {
        let word = self.word();
        ModelState {
            id: ModelId::new(self.place, word.epoch()),
            name: self.name.clone(),
            capacity: word.capacity(),
            leased: word.capacity() - word.free(),
            // ORDERING(model-waiting): Relaxed suffices: a number for people, and no data is published by it.
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Takes a lease if one is free. Never takes the lock: while somebody waits, nothing is free.
    pub(crate) fn take(&self, epoch: u32) -> Taken {
        let mut seen = self.word();
        loop {
            if !seen.is_current(epoch) {
                return Taken::ModelRetired;
            }
            if seen.free() == 0 {
                return Taken::NoneFree;
            }
            // ORDERING(model-lease): Acquire, pairs with the Release in `give_back`: who gets a lease sees what was done
            // under it before. Relaxed on failure: the value is only tried again.
            match self.word.compare_exchange_weak(
                seen.0,
                seen.taken().0,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Taken::Leased,
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Gives a lease of `epoch` back: to the first in the queue, or to those who come. Nothing if the model was retired
    /// meanwhile.
    pub(crate) fn give_back(&self, epoch: u32) {
        let mut seen = self.word();
        loop {
            if !seen.is_current(epoch) {
                return;
            }
            if seen.is_contended() {
                let woken = self.hand_over(&mut self.lock(), epoch);
                return woken.into_iter().for_each(Waker::wake);
            }
            // ORDERING(model-lease): Release, pairs with the Acquire in `take` and `take_or_wait`. Relaxed on failure:
            // the value is only tried again.
            match self.word.compare_exchange_weak(
                seen.0,
                seen.given_back().0,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Takes a lease, or a place in the queue: the lock is held from the look to the place, so that no lease is given
    /// back unseen in between.
    pub(crate) fn take_or_wait(&self, epoch: u32, rank: Rank, waker: Waker) -> (Queued, Option<Waker>) {
        let mut queue = self.lock();
        let mut seen = self.word();
        loop {
            if !seen.is_current(epoch) {
                return (Queued::ModelRetired, Some(waker));
            }
            let next = match (seen.is_contended(), seen.free()) {
                (true, _) => break,
                (false, 0) => seen.contended(),
                (false, _) => seen.taken(),
            };
            // ORDERING(model-lease): Acquire, as in `take`. For the contended bit it does no harm: who reads the bit goes
            // on to take the lock, which this thread holds until its place in the queue is visible.
            match self.word.compare_exchange(seen.0, next.0, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if next.is_contended() => break,
                Ok(_) => return (Queued::Leased, Some(waker)),
                Err(now) => seen = Word(now),
            }
        }
        if queue.len() >= WAITERS_PER_MODEL_MAX {
            return (Queued::QueueFull, Some(waker));
        }
        let ticket = queue.push(rank, waker);
        self.note_waiting(&queue);
        (Queued::Waiting(ticket), None)
    }

    /// What became of one who waits; if nothing yet, `waker` is left to be woken.
    pub(crate) fn look(&self, ticket: Ticket, waker: Waker) -> Option<Settled> {
        let (settled, _useless_waker) = self.lock().look(ticket, waker);
        settled
    }

    /// One who waited does not any more. A lease that it was handed goes on to the next.
    pub(crate) fn leave(&self, ticket: Ticket) {
        self.take_out(ticket, None);
    }

    /// One who waits, or was handed a lease that it has not fetched, finds a refusal instead.
    pub(crate) fn refuse(&self, ticket: Ticket, why: Settled) {
        self.take_out(ticket, Some(why));
    }

    fn take_out(&self, ticket: Ticket, refusal: Option<Settled>) {
        let mut queue = self.lock();
        let (settled, own_waker) = queue.remove(ticket);
        if settled.is_none() && own_waker.is_none() {
            // It has fetched what it was given.
            return;
        }
        let mut woken = None;
        match settled {
            // INVARIANT: leases in the queue's keeping are of the present epoch.
            Some(Settled::Leased) => woken = self.hand_over(&mut queue, self.word().epoch()),
            Some(_) => {}
            None => self.after_leaving(&queue),
        }
        if let Some(why) = refusal {
            queue.refuse(ticket, settled.filter(|settled| *settled != Settled::Leased).unwrap_or(why));
        }
        drop(queue);
        woken.into_iter().for_each(Waker::wake);
        if refusal.is_some() {
            own_waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Begins the next epoch with a capacity and nothing leased, if the last one still stands as the caller has seen it.
    pub(crate) fn begin_epoch(&self, last: Standing, capacity: u32) -> Redeclared {
        let queue = self.lock();
        if self.standing() != last {
            return Redeclared::ModelRetired;
        }
        let epoch = last.model.generation();
        if epoch == EPOCH_MAX {
            return Redeclared::EpochsUsedUp;
        }
        self.replace(queue, Word::new(epoch + 1, capacity));
        Redeclared::As(ModelId::new(self.place, epoch + 1))
    }

    /// Ends this epoch; false when it has ended before.
    pub(crate) fn retire(&self, epoch: u32) -> bool {
        let queue = self.lock();
        let is_current = self.word().is_current(epoch);
        if is_current {
            self.replace(queue, Word::new(epoch, 0));
        }
        is_current
    }

    /// Puts another word here: whoever waits is refused, and leases of before change nothing any more.
    fn replace(&self, mut queue: MutexGuard<'_, Queue>, word: Word) {
        // ORDERING(model-lease): Release: who gets a lease of the new epoch sees what was done before it began. Whoever takes
        // or gives back at the same time without the lock fails in its compare-and-swap, and sees this.
        self.word.swap(word.0, Ordering::Release);
        let woken = queue.refuse_all();
        self.note_waiting(&queue);
        drop(queue);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Gives one lease to the first in the queue, or to nobody if the queue is empty. Under the lock.
    fn hand_over(&self, queue: &mut Queue, epoch: u32) -> Option<Waker> {
        let mut seen = self.word();
        loop {
            if !seen.is_current(epoch) {
                return None;
            }
            if seen.is_contended() {
                let waker = queue.serve_first();
                self.after_leaving(queue);
                return waker;
            }
            // ORDERING(model-lease): Release, as in `give_back`: the queue was empty when the lock was taken.
            match self.word.compare_exchange(
                seen.0,
                seen.given_back().0,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return None,
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Keeps the bit and the number true after somebody has left the queue. Under the lock.
    fn after_leaving(&self, queue: &Queue) {
        self.note_waiting(queue);
        let seen = self.word();
        if queue.is_empty() && seen.is_contended() {
            // ORDERING(model-lease): Relaxed suffices: nothing is free here, so that whoever takes reads what a later
            // `give_back` wrote; and nobody else changes a contended word.
            self.word.store(seen.uncontended().0, Ordering::Relaxed);
        }
    }

    fn note_waiting(&self, queue: &Queue) {
        // ORDERING(model-waiting): Relaxed suffices, as in `state`.
        self.waiting.store(u32::try_from(queue.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn last_epoch_can_be_retired_but_not_followed() {
        let cell = ModelCell::new(3, "m", 1);
        cell.word.store(Word::new(EPOCH_MAX, 1).0, Ordering::SeqCst);
        let last = cell.standing();
        assert!(matches!(cell.begin_epoch(last, 2), Redeclared::EpochsUsedUp));
        assert_eq!(cell.take(EPOCH_MAX), Taken::Leased);
        assert!(cell.retire(EPOCH_MAX) && !cell.retire(EPOCH_MAX));
        assert!(matches!(cell.begin_epoch(last, 2), Redeclared::ModelRetired));
        assert!(matches!(cell.begin_epoch(cell.standing(), 2), Redeclared::EpochsUsedUp));
        cell.give_back(EPOCH_MAX);
        assert_eq!(cell.word(), Word::new(EPOCH_MAX, 0));
    }
}
