//! What a claim says: amounts of several resources, how urgent, for whom, and whether others are to make room.
//!
//! A claim is plain data of a fixed size, so that it is copied to where it waits without an allocation. Whether its
//! resources exist and are large enough is for the arbiter to say.

use std::{fmt, time::Duration};

use pit_core::priority::Priority;

pit_core::id! {
    /// A resource of one arbiter. Resources are never removed, so the generation is always 0.
    pub struct ResourceId("resource");
}

pit_core::id! {
    /// A grant that was given: its place among the grants and the how-manieth one sits there.
    pub struct GrantId("grant");
}

/// LIMIT: resources in one claim. A claim is stored inline, and no step needs more kinds of things at once.
pub const CLAIM_RESOURCES_MAX: usize = 8;

/// Who a claim is for: a number that the caller chooses, for snapshots and for policies between owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(u64);

impl OwnerId {
    /// The owner that the caller knows by `number`.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The caller's number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner:{}", self.0)
    }
}

/// A claim to be made: amounts of several resources at once, a priority and an owner.
///
/// It can be made any number of times. See the crate's example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSpec {
    owner: OwnerId,
    priority: Priority,
    amounts: Amounts,
    /// Set when a ninth resource was named; the arbiter refuses such a claim.
    overflowed: bool,
    /// Set when [`WHOLE`] stands for the capacity, which the arbiter knows.
    has_whole: bool,
    preempts: Option<Duration>,
}

/// Units that mean the whole resource.
const WHOLE: u64 = u64::MAX;

impl ClaimSpec {
    /// A claim of nothing yet.
    #[must_use]
    pub const fn new(owner: OwnerId, priority: Priority) -> Self {
        let amounts = Amounts::new();
        Self { owner, priority, amounts, overflowed: false, has_whole: false, preempts: None }
    }

    /// Also claims `amount` units of `resource`. Named twice, the amounts add up; an amount of 0 claims nothing.
    ///
    /// At most [`CLAIM_RESOURCES_MAX`] different resources; the arbiter refuses a claim of more.
    #[must_use]
    pub fn with(mut self, resource: ResourceId, amount: u64) -> Self {
        if amount > 0 && !self.amounts.add(resource, amount) {
            self.overflowed = true;
        }
        self
    }

    /// Also claims a share of `resource`: as many may hold one as it has units.
    #[must_use]
    pub fn shared(self, resource: ResourceId) -> Self {
        self.with(resource, 1)
    }

    /// Also claims `resource` for itself alone: all its units, however many there are. Of a resource of none nobody has the
    /// whole. In an extension it is what the grant lacks of it: a share becomes the whole.
    #[must_use]
    pub fn exclusive(mut self, resource: ResourceId) -> Self {
        self.has_whole = true;
        self.with(resource, WHOLE)
    }

    /// As long as it has to wait, less urgent holders of what it lacks are told to give back within `notice`, as soon as that
    /// is enough: the least urgent first, and of those the youngest. Waiting makes it more urgent, by the policy's ageing;
    /// what is held does not age. Only [`claim`](crate::Arbiter::claim) and `claim_wait` do that.
    ///
    /// A notice stands, also when the claim is withdrawn.
    #[must_use]
    pub const fn preempting(mut self, notice: Duration) -> Self {
        self.preempts = Some(notice);
        self
    }

    /// Who the claim is for.
    #[must_use]
    pub const fn owner(&self) -> OwnerId {
        self.owner
    }

    /// How urgent it is.
    #[must_use]
    pub const fn priority(&self) -> Priority {
        self.priority
    }

    /// What is claimed: resources and units of each, in the order in which they were named. [`u64::MAX`] units are all.
    pub fn amounts(&self) -> impl Iterator<Item = (ResourceId, u64)> + '_ {
        self.amounts.iter()
    }

    pub(crate) const fn inline_amounts(&self) -> &Amounts {
        &self.amounts
    }

    pub(crate) const fn names_too_many(&self) -> bool {
        self.overflowed
    }

    pub(crate) const fn has_whole(&self) -> bool {
        self.has_whole
    }

    pub(crate) const fn preempts(&self) -> Option<Duration> {
        self.preempts
    }
}

/// Resources and units, inline.
#[derive(Clone, Copy)]
pub(crate) struct Amounts {
    len: u8,
    resources: [u16; CLAIM_RESOURCES_MAX],
    units: [u64; CLAIM_RESOURCES_MAX],
}

impl Amounts {
    const fn new() -> Self {
        Self { len: 0, resources: [0; CLAIM_RESOURCES_MAX], units: [0; CLAIM_RESOURCES_MAX] }
    }

    /// False when there is no room for another resource.
    fn add(&mut self, resource: ResourceId, amount: u64) -> bool {
        // An index that no arbiter hands out becomes one that every arbiter refuses.
        let index = u16::try_from(resource.index()).unwrap_or(u16::MAX);
        let len = usize::from(self.len);
        if let Some(slot) = self.slot(index) {
            self.units[slot] = self.units[slot].saturating_add(amount);
            return true;
        }
        if len == CLAIM_RESOURCES_MAX {
            return false;
        }
        self.resources[len] = index;
        self.units[len] = amount;
        self.len += 1;
        true
    }

    fn slot(&self, index: u16) -> Option<usize> {
        self.resources[..usize::from(self.len)].iter().position(|named| *named == index)
    }

    /// Units of the resource in `place`.
    pub(crate) fn of(&self, place: usize) -> u64 {
        let slot = u16::try_from(place).ok().and_then(|index| self.slot(index));
        slot.map_or(0, |slot| self.units[slot])
    }

    /// With the units in place of [`WHOLE`] that `whole` says. Where it says 0 nothing is claimed.
    pub(crate) fn resolved(self, whole: impl Fn(usize) -> u64) -> Self {
        let mut resolved = Self::new();
        for (resource, units) in self.iter() {
            let units = if units == WHOLE { whole(resource.index() as usize) } else { units };
            // INVARIANT: it names no more resources than before.
            let _fits = units == 0 || resolved.add(resource, units);
        }
        resolved
    }

    /// With other units of the same resources.
    pub(crate) fn with_each(mut self, units_of: impl Fn(usize, u64) -> u64) -> Self {
        let len = usize::from(self.len);
        for (index, units) in self.resources[..len].iter().zip(&mut self.units[..len]) {
            *units = units_of(usize::from(*index), *units);
        }
        self
    }

    /// Both together; `None` when they name too many resources.
    pub(crate) fn plus(mut self, other: &Self) -> Option<Self> {
        other.iter().all(|(resource, units)| self.add(resource, units)).then_some(self)
    }

    /// Without `other`, which is a part of it.
    pub(crate) fn minus(self, other: &Self) -> Self {
        let mut left = Self::new();
        for (resource, units) in self.iter() {
            let units = units - other.of(resource.index() as usize);
            // INVARIANT: it names no more resources than before.
            let _fits = units == 0 || left.add(resource, units);
        }
        left
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ResourceId, u64)> + '_ {
        let named = self.resources.iter().map(|index| ResourceId::new(u32::from(*index), 0));
        named.zip(self.units).take(usize::from(self.len))
    }

    /// As [`iter`](Self::iter), with the resource as a place in the arbiter's tables.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let len = usize::from(self.len);
        self.resources[..len]
            .iter()
            .zip(&self.units[..len])
            .map(|(index, units)| (usize::from(*index), *units))
    }
}

impl PartialEq for Amounts {
    fn eq(&self, other: &Self) -> bool {
        self.places().eq(other.places())
    }
}

impl Eq for Amounts {}

impl fmt::Debug for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(index: u32) -> ResourceId {
        ResourceId::new(index, 0)
    }

    #[test]
    fn amounts_of_one_resource_add_up_and_nothing_is_no_claim() {
        let spec = ClaimSpec::new(OwnerId::new(7), Priority::LOWEST)
            .with(resource(3), 2)
            .with(resource(1), 0)
            .with(resource(0), 5)
            .with(resource(3), 4);
        assert_eq!(spec.amounts().collect::<Vec<_>>(), [(resource(3), 6), (resource(0), 5)]);
        assert!(!spec.names_too_many());
        assert_eq!(format!("{}", spec.owner()), "owner:7");
    }

    #[test]
    fn ninth_resource_is_remembered_as_too_many() {
        let spec = (0..=8).fold(ClaimSpec::new(OwnerId::new(0), Priority::NORMAL), |spec, index| {
            assert!(!spec.names_too_many());
            spec.with(resource(index), 1)
        });
        assert!(spec.names_too_many());
        assert_eq!(spec.amounts().count(), CLAIM_RESOURCES_MAX);
    }

    #[test]
    fn amounts_are_added_taken_away_and_resolved() {
        let spec = |units: [u64; 3]| {
            let spec = ClaimSpec::new(OwnerId::new(0), Priority::LOWEST);
            *(0..)
                .zip(units)
                .fold(spec, |spec, (index, units)| spec.with(resource(index), units))
                .inline_amounts()
        };
        let sum = spec([1, 0, 2]).plus(&spec([3, 4, 0])).unwrap();
        assert_eq!([0, 1, 2, 3].map(|place| sum.of(place)), [4, 4, 2, 0]);
        assert_eq!(sum.minus(&spec([1, 4, 0])).places().collect::<Vec<_>>(), [(0, 3), (2, 2)]);
        let many = (0..8).fold(ClaimSpec::new(OwnerId::new(0), Priority::LOWEST), |spec, index| {
            spec.with(resource(index), 1)
        });
        let ninth = ClaimSpec::new(OwnerId::new(0), Priority::LOWEST).with(resource(8), 1);
        assert_eq!(many.amounts.plus(&ninth.amounts), None);
        assert_eq!(
            spec([WHOLE, 2, 0]).resolved(|place| [7, 9][place]).places().collect::<Vec<_>>(),
            [(0, 7), (1, 2)]
        );
    }
}
