//! What a waiting claim keeps from the ones behind it: the rule of overtaking.
//!
//! Plain values: no clock, no lock, no waker, and no knowledge of the order in the queue. Another rule takes the place of
//! [`Room`].

use crate::claim::Amounts;

/// What is free for the next claim in the queue, all claims before it considered.
///
/// A claim that does not fit keeps what it wants of each resource: claims behind it may only use what is left then.
/// Therefore what a waiting claim lacks only shrinks (but for claims of a better rank, of which ageing lets no more than
/// a limited number come), and small claims cannot starve a large one. Resources that it does not name stay usable.
pub(crate) struct Room<'a> {
    left: &'a mut [u64],
    /// Resources of which something is left.
    open: usize,
}

impl<'a> Room<'a> {
    /// `left` holds the free units of each resource, and is used up.
    pub(crate) fn new(left: &'a mut [u64]) -> Self {
        let open = left.iter().filter(|units| **units > 0).count();
        Self { left, open }
    }

    pub(crate) fn fits(&self, amounts: &Amounts) -> bool {
        amounts.places().all(|(place, units)| self.left[place] >= units)
    }

    /// Takes what the claim wants, or as much of it as there is: both a grant and a claim that goes on waiting leave
    /// that much less to those behind.
    pub(crate) fn keep(&mut self, amounts: &Amounts) {
        for (place, units) in amounts.places() {
            let before = self.left[place];
            self.left[place] = before.saturating_sub(units);
            self.open -= usize::from(before > 0 && units >= before);
        }
    }

    /// Nobody who waits can get anything from here on. (A claim of nothing never waits.)
    pub(crate) const fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Nothing of what `amounts` names is left.
    pub(crate) fn has_none_of(&self, amounts: &Amounts) -> bool {
        amounts.places().all(|(place, _)| self.left[place] == 0)
    }
}

#[cfg(test)]
mod tests {
    use pit_core::priority::Priority;

    use super::*;
    use crate::claim::{ClaimSpec, OwnerId, ResourceId};

    #[test]
    fn waiting_claim_keeps_its_resources_and_no_others() {
        let amounts = |cores, disks| {
            let spec = ClaimSpec::new(OwnerId::new(0), Priority::NORMAL);
            *spec.with(ResourceId::new(0, 0), cores).with(ResourceId::new(1, 0), disks).inline_amounts()
        };
        let mut left = [4, 1];
        let mut room = Room::new(&mut left);
        let large = amounts(6, 0);
        assert!(!room.fits(&large));
        room.keep(&large);
        assert!(!room.fits(&amounts(1, 0)), "four cores are kept for the large one");
        assert!(room.fits(&amounts(0, 1)), "disks are not");
        assert!(!room.is_empty() && room.has_none_of(&large) && !room.has_none_of(&amounts(1, 1)));
        room.keep(&amounts(0, 1));
        assert!(room.is_empty());
    }
}
