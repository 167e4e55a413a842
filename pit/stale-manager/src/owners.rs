//! Who owns things that expire: registered once, known by a number afterwards.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use pit_core::slot::Word;

/// What the owner says when it is asked to let go of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It has let go, or is about to: the thing is forgotten.
    Evicted,
    /// The thing is in use. Its time to live begins anew.
    Refused,
}

/// Who owns things that expire: the table that they are in, rather than each of them.
///
/// The manager does not keep its owners alive. What belongs to one that is gone is forgotten when its time comes.
pub trait Evict: Send + Sync {
    /// Lets go of the thing that was registered under `key`, or refuses because it is in use.
    ///
    /// Called from within [`StaleManager::sweep`](crate::StaleManager::sweep), without any lock of the manager: it may
    /// register, touch and cancel. It must return soon: what takes long is begun here and done elsewhere. A panic counts as
    /// a refusal, and goes on when the rest of the slice was asked about.
    ///
    /// It is not called for a thing whose [`cancel`](crate::StaleManager::cancel) had returned when the sweep last looked,
    /// right before this call.
    fn evict(&self, key: u64) -> Eviction;
}

/// LIMIT: owners of one manager. They are parts of a program, not things; a number is never used again.
pub const OWNERS_MAX: u32 = 1 << 16;

const _: () = assert!(OWNERS_MAX <= Word::OWNER_MAX, "an owner fits into a cell's word");

/// An owner, as one manager knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerId(pub(crate) u32);

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner:{}", self.0)
    }
}

/// All owners, by number.
#[derive(Default)]
pub(crate) struct Owners {
    by_number: Mutex<Vec<Weak<dyn Evict>>>,
}

impl Owners {
    /// `None` when there are [`OWNERS_MAX`].
    pub(crate) fn add(&self, owner: Weak<dyn Evict>) -> Option<OwnerId> {
        let mut owners = self.lock();
        let number = u32::try_from(owners.len()).ok().filter(|number| *number < OWNERS_MAX)?;
        owners.push(owner);
        Some(OwnerId(number))
    }

    /// The owner, unless it is gone.
    pub(crate) fn get(&self, number: u32) -> Option<Arc<dyn Evict>> {
        self.lock().get(number as usize)?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<dyn Evict>>> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        self.by_number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
