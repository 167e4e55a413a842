//! What each owner holds, and its dominant share, kept up to date with every grant.
//!
//! Only fairness between owners needs it. An account is open as long as its owner holds or waits for something; after
//! that it is kept for a while, because owners come back.

use crate::{
    claim::{Amounts, OwnerId},
    numbers::NumberMap,
    policy::{part, times},
};

/// LIMIT: accounts that nobody uses. They cost memory only.
const IDLE_MAX: usize = 1_024;

/// All accounts, by a number that holds as long as the account is open.
pub(crate) struct Accounts {
    /// The part of each resource that one unit is.
    parts: Vec<f64>,
    by_owner: NumberMap<OwnerId, u32>,
    accounts: Vec<Account>,
    empty: Vec<u32>,
    idle: usize,
}

struct Account {
    owner: OwnerId,
    /// Units of each resource.
    held: Vec<u64>,
    /// INVARIANT: the largest part that it holds of any resource.
    share: f64,
    /// Grants and waiting claims.
    users: u32,
}

impl Accounts {
    pub(crate) fn new(capacities: &[u64]) -> Self {
        Self {
            parts: capacities.iter().map(|capacity| part(1, *capacity)).collect(),
            by_owner: NumberMap::default(),
            accounts: Vec::new(),
            empty: Vec::new(),
            idle: 0,
        }
    }

    /// The owner's account, used once more.
    pub(crate) fn open(&mut self, owner: OwnerId) -> u32 {
        if let Some(number) = self.by_owner.get(&owner) {
            let account = &mut self.accounts[*number as usize];
            self.idle -= usize::from(account.users == 0);
            account.users += 1;
            return *number;
        }
        let account = Account { owner, held: vec![0; self.parts.len()], share: 0.0, users: 1 };
        let number = if let Some(number) = self.empty.pop() {
            self.accounts[number as usize] = account;
            number
        } else {
            self.accounts.push(account);
            // Each is used by a grant or a waiting claim, or idle: memory ends long before 2^32 of them.
            u32::try_from(self.accounts.len() - 1).unwrap_or(u32::MAX)
        };
        self.by_owner.insert(owner, number);
        number
    }

    /// Used once less.
    pub(crate) fn close(&mut self, number: u32) {
        let account = &mut self.accounts[number as usize];
        account.users -= 1;
        if account.users > 0 {
            return;
        }
        self.idle += 1;
        if self.idle > IDLE_MAX {
            let (accounts, empty) = (&self.accounts, &mut self.empty);
            self.by_owner.retain(|_, number| {
                let is_used = accounts[*number as usize].users > 0;
                if !is_used {
                    empty.push(*number);
                }
                is_used
            });
            self.idle = 0;
        }
    }

    pub(crate) fn add(&mut self, number: u32, amounts: &Amounts) {
        let account = &mut self.accounts[number as usize];
        for (place, units) in amounts.places() {
            account.held[place] += units;
            account.share = account.share.max(times(account.held[place], self.parts[place]));
        }
    }

    pub(crate) fn take(&mut self, number: u32, amounts: &Amounts) {
        let account = &mut self.accounts[number as usize];
        let mut was_dominant = false;
        for (place, units) in amounts.places() {
            was_dominant |= times(account.held[place], self.parts[place]) >= account.share;
            account.held[place] -= units;
        }
        if was_dominant {
            let parts = account.held.iter().zip(&self.parts).map(|(units, part)| times(*units, *part));
            account.share = parts.fold(0.0, f64::max);
        }
    }

    /// The owner's dominant share, from 0 to 1.
    pub(crate) fn share(&self, number: u32) -> f64 {
        self.accounts[number as usize].share
    }

    /// Owners that hold something, and their shares.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (OwnerId, f64)> {
        let held = self.accounts.iter().filter(|account| account.share > 0.0);
        held.map(|account| (account.owner, account.share))
    }
}

#[cfg(test)]
mod tests {
    use pit_core::priority::Priority;
    use proptest::prelude::*;

    use super::*;
    use crate::claim::{ClaimSpec, ResourceId};

    const CAPACITIES: [u64; 3] = [10, 4, 7];

    fn amounts(units: [u64; 3]) -> Amounts {
        let spec = ClaimSpec::new(OwnerId::new(0), Priority::NORMAL);
        let named = (0..).zip(units).map(|(index, units)| (ResourceId::new(index, 0), units));
        *named.fold(spec, |spec, (resource, units)| spec.with(resource, units)).inline_amounts()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn share_is_the_largest_part_held(steps in prop::collection::vec((0..3_u64, [0..4_u64, 0..4, 0..4], any::<bool>()), 1..40)) {
            let mut accounts = Accounts::new(&CAPACITIES);
            let mut held: Vec<(u64, u32, [u64; 3])> = Vec::new();
            for (owner, units, takes) in steps {
                if takes && !held.is_empty() {
                    let (_, number, units) = held.remove(0);
                    accounts.take(number, &amounts(units));
                    accounts.close(number);
                } else {
                    let number = accounts.open(OwnerId::new(owner));
                    accounts.add(number, &amounts(units));
                    held.push((owner, number, units));
                }
                for (owner, number, _) in &held {
                    let of_owner = held.iter().filter(|(other, ..)| other == owner);
                    let sum = of_owner.fold([0; 3], |sum, (_, _, units)| std::array::from_fn(|place| sum[place] + units[place]));
                    let expected = sum.iter().zip(CAPACITIES).map(|(units, of)| part(*units, of)).fold(0.0, f64::max);
                    prop_assert!((accounts.share(*number) - expected).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn idle_accounts_do_not_pile_up() {
        let mut accounts = Accounts::new(&CAPACITIES);
        let busy = accounts.open(OwnerId::new(u64::MAX));
        accounts.add(busy, &amounts([5, 0, 0]));
        for owner in 0..10_000 {
            let number = accounts.open(OwnerId::new(owner));
            accounts.close(number);
        }
        assert!(accounts.accounts.len() <= IDLE_MAX + 2 && accounts.by_owner.len() <= IDLE_MAX + 1);
        assert_eq!(accounts.shares().collect::<Vec<_>>(), [(OwnerId::new(u64::MAX), 0.5)]);
        assert_eq!(accounts.open(OwnerId::new(u64::MAX)), busy);
    }
}
