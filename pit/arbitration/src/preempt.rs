//! Who may be told to make room for a claim that waits and preempts: those less urgent than it has become.
//!
//! Looked at after every change as long as such a claim waits: when grants come and go, when those before it do, and when
//! it has waited so long that it is more urgent than one more holder. To tell whether it is worth looking for holders, what
//! they hold is summed up by their priority.
//!
//! INVARIANT: after each operation no claim that waits and preempts could have enough by telling less urgent holders.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    task::Waker,
};

use pit_core::{clock::Tick, priority::Priority};

use crate::{
    claim::{Amounts, GrantId},
    grants::{Grants, Held, Notice, Reason},
    queue::Waiter,
    state::State,
    victims::{Candidate, choose},
};

/// What is held by those who were not told to give back, by their priority. Kept as long as a claim waits that preempts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    resources: usize,
    /// INVARIANT: no level without grants.
    by_priority: BTreeMap<Priority, Level>,
}

#[derive(Debug, PartialEq, Eq)]
struct Level {
    grants: usize,
    units: Vec<u64>,
}

impl Levels {
    pub(crate) fn of(grants: &Grants, resources: usize) -> Self {
        let mut levels = Self { resources, by_priority: BTreeMap::new() };
        let untold = grants.iter().filter(|(id, _)| grants.notice(*id).is_none());
        untold.for_each(|(_, held)| levels.add(held.priority, &held.amounts));
        levels
    }

    /// One more holds something.
    pub(crate) fn add(&mut self, priority: Priority, amounts: &Amounts) {
        let empty = || Level { grants: 0, units: vec![0; self.resources] };
        let level = self.by_priority.entry(priority).or_insert_with(empty);
        level.grants += 1;
        amounts.places().for_each(|(place, units)| level.units[place] += units);
    }

    /// One holds nothing any more, or was told.
    pub(crate) fn take(&mut self, priority: Priority, amounts: &Amounts) {
        let Some(level) = self.by_priority.get_mut(&priority) else { return };
        level.grants -= 1;
        amounts.places().for_each(|(place, units)| level.units[place] -= units);
        if level.grants == 0 {
            self.by_priority.remove(&priority);
        }
    }

    /// Whether those below `priority` hold enough of all that `wanted` lacks beside `expected`.
    fn cover(&self, wanted: &Amounts, expected: &[u64], priority: Priority) -> bool {
        wanted.places().all(|(place, units)| {
            let mut lacking = units.saturating_sub(expected[place]);
            for (_, level) in self.by_priority.range(..priority) {
                if lacking == 0 {
                    break;
                }
                lacking = lacking.saturating_sub(level.units[place]);
            }
            lacking == 0
        })
    }

    /// The lowest priority, from `priority` on, of those who hold something of what `wanted` lacks beside `expected`.
    fn next(&self, wanted: &Amounts, expected: &[u64], priority: Priority) -> Option<Priority> {
        let lacks = |(place, units): (usize, u64)| units > expected[place];
        let helps = |level: &Level| wanted.places().any(|wanted| lacks(wanted) && level.units[wanted.0] > 0);
        self.by_priority.range(priority..).find(|(_, level)| helps(level)).map(|(priority, _)| *priority)
    }
}

/// Those who may be told in one look at the queue: the least urgent first, and of those the youngest.
#[derive(Default)]
struct Lesser {
    /// Put together when the first is needed.
    all: Option<Vec<(Priority, Reverse<u64>, Candidate)>>,
    chosen: BTreeSet<GrantId>,
}

impl Lesser {
    fn choose(
        &mut self,
        grants: &Grants,
        wanted: &Amounts,
        expected: &mut [u64],
        below: Priority,
    ) -> Vec<GrantId> {
        let all = self.all.get_or_insert_with(|| {
            let untold = grants.iter().filter(|(id, _)| grants.notice(*id).is_none());
            let lesser = |(id, held): (GrantId, &Held)| {
                (held.priority, Reverse(held.born), Candidate { id, amounts: held.amounts })
            };
            let mut all: Vec<_> = untold.map(lesser).collect();
            all.sort_by_key(|(priority, born, _)| (*priority, *born));
            all
        });
        let below = all.iter().take_while(|(priority, ..)| *priority < below);
        let left = below.filter(|(.., candidate)| !self.chosen.contains(&candidate.id));
        let (chosen, is_covered) = choose(wanted, expected, left.map(|(.., candidate)| *candidate));
        debug_assert!(is_covered, "the levels have said so");
        self.chosen.extend(&chosen);
        chosen
    }
}

impl State {
    /// Tells less urgent holders to make room for those who wait and preempt, where that is enough.
    pub(crate) fn preempt(&mut self, now: Tick, woken: &mut Vec<Waker>) {
        while self.levels.is_some() {
            let chosen = self.choose_lesser(now);
            if chosen.is_empty() {
                break;
            }
            let mut has_ended = false;
            for (id, notice) in chosen {
                has_ended |= self.tell(id, notice, woken);
            }
            // Who is told wants nothing more, so that others may get it; and whoever is granted something by that may be
            // less urgent again.
            if has_ended {
                self.serve(None, now, woken);
            }
        }
    }

    /// Who is to be told at this moment, and when there may be more without any other change.
    fn choose_lesser(&mut self, now: Tick) -> Vec<(GrantId, Notice)> {
        self.next_ageing = Tick::NEVER;
        let Some(levels) = &mut self.levels else { return Vec::new() };
        debug_assert_eq!(*levels, Levels::of(&self.grants, self.free.len()));
        let ageing = self.policy.ageing();
        let mut expected = expected(&self.free, &self.grants);
        let mut lesser = Lesser::default();
        let mut told = Vec::new();
        // What those want that come before, and is not expected for them: what is given back is theirs first.
        let mut owed = vec![0; expected.len()];
        let mut left = self.preempting;
        let keep = |amounts: &Amounts, expected: &mut [u64], owed: &mut [u64]| {
            for (place, units) in amounts.places() {
                let wanted = units.saturating_add(owed[place]);
                owed[place] = wanted.saturating_sub(expected[place]);
                expected[place] = expected[place].saturating_sub(wanted);
            }
        };
        self.growing.values().for_each(|growing| keep(&growing.amounts, &mut expected, &mut owed));
        let (accounts, patience_ns) = (&self.accounts, self.patience_ns);
        let key = |group, since| {
            accounts
                .as_ref()
                .map_or(0, |accounts| crate::policy::key(patience_ns, accounts.share(group), since))
        };
        let mut walk = self.queue.order.walk(key);
        while left > 0
            && !levels.by_priority.is_empty()
            && let Some((.., entry)) = walk.next(key)
        {
            let Waiter { amounts, priority, since, preempts, .. } = self.queue.waiter(entry);
            if let Some(notice) = preempts {
                left -= 1;
                let urgency = ageing.aged(*priority, *since, now);
                let wanted = amounts.with_each(|place, units| units.saturating_add(owed[place]));
                if wanted.places().all(|(place, units)| units <= expected[place]) {
                    // It has what it needs as soon as those give back who were told.
                } else if levels.cover(&wanted, &expected, urgency) {
                    let notice = Notice { by: now.after(*notice), reason: Reason::Preempted };
                    for id in lesser.choose(&self.grants, &wanted, &mut expected, urgency) {
                        if let Some(held) = self.grants.get(id) {
                            levels.take(held.priority, &held.amounts);
                        }
                        told.push((id, notice));
                    }
                } else if let Some(next) = levels.next(&wanted, &expected, urgency) {
                    let is_above = next.level().checked_add(1).map(Priority::new);
                    let when = is_above.map(|level| ageing.reaches(*priority, *since, level));
                    self.next_ageing = self.next_ageing.min(when.unwrap_or(Tick::NEVER));
                }
            }
            keep(amounts, &mut expected, &mut owed);
        }
        // They are taken from the levels when they are told.
        for (id, _) in &told {
            if let Some(held) = self.grants.get(*id) {
                levels.add(held.priority, &held.amounts);
            }
        }
        told
    }
}

/// What is free, or was asked back.
pub(crate) fn expected(free: &[u64], grants: &Grants) -> Vec<u64> {
    let mut expected = free.to_vec();
    let told = grants.told().flat_map(|held| held.amounts.places());
    told.for_each(|(place, units)| expected[place] += units);
    expected
}
