//! Who is told to give back, so that somebody else gets what is lacking: a pure choice among candidates.
//!
//! Why one may be told (younger, less urgent) is for the caller to know, and in which order; here it is only how many.

use crate::claim::{Amounts, GrantId};

/// A grant that may be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) id: GrantId,
    pub(crate) amounts: Amounts,
}

/// Those of the candidates, taken in their order, that must give back so that `expected` covers `wanted`; and whether it
/// does then. `expected` is what will be there for this claim, and grows by what they hold.
pub(crate) fn choose(
    wanted: &Amounts,
    expected: &mut [u64],
    candidates: impl Iterator<Item = Candidate>,
) -> (Vec<GrantId>, bool) {
    let is_short = |expected: &[u64], place: usize| wanted.of(place) > expected[place];
    let mut chosen = Vec::new();
    for candidate in candidates {
        if candidate.amounts.places().any(|(place, _)| is_short(expected, place)) {
            chosen.push(candidate.id);
            candidate.amounts.places().for_each(|(place, units)| expected[place] += units);
        }
    }
    let is_covered = wanted.places().all(|(place, _)| !is_short(expected, place));
    (chosen, is_covered)
}

#[cfg(test)]
mod tests {
    use pit_core::priority::Priority;

    use super::*;
    use crate::claim::{ClaimSpec, OwnerId, ResourceId};

    fn amounts(units: [u64; 2]) -> Amounts {
        let spec = ClaimSpec::new(OwnerId::new(0), Priority::NORMAL);
        let spec = spec.with(ResourceId::new(0, 0), units[0]).with(ResourceId::new(1, 0), units[1]);
        *spec.inline_amounts()
    }

    #[test]
    fn no_more_are_told_than_needed_and_none_that_does_not_help() {
        let holders = [[0, 5], [2, 0], [3, 1], [4, 0]];
        let cases = [
            // wanted, free, told, covered
            ([2, 0], [2, 9], vec![], true),
            ([2, 0], [0, 0], vec![1], true),
            ([4, 0], [1, 0], vec![1, 2], true),
            ([1, 6], [0, 0], vec![0, 1, 2], true),
            ([99, 0], [0, 0], vec![1, 2, 3], false),
        ];
        for (wanted, free, told, covered) in cases {
            let candidates = (0..)
                .zip(holders)
                .map(|(index, units)| Candidate { id: GrantId::new(index, 0), amounts: amounts(units) });
            let mut expected = free;
            let (chosen, is_covered) = choose(&amounts(wanted), &mut expected, candidates);
            let chosen: Vec<u32> = chosen.into_iter().map(GrantId::index).collect();
            assert_eq!((chosen, is_covered), (told, covered), "{wanted:?} of {free:?}");
        }
    }
}
