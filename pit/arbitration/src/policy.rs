//! Who goes first: pure arithmetic on numbers that others keep.
//!
//! There is no queue, clock or owner in here. A key is computed from what was true when a claim began to wait and from
//! its owner's share; as everybody ages at the same pace, keys need no time of their own.

use std::time::Duration;

use pit_core::{clock::Tick, priority::Ageing};

/// The order in which waiting claims are served. Chosen when an arbiter is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// Strict priority with ageing: waiting counts as priority in time, whoever the owner is.
    Priority(Ageing),
    /// Dominant-resource fairness between owners, and priority with ageing among the claims of one owner.
    ///
    /// An owner's dominant share is the largest part that it holds of any one resource. The owner with the smaller share
    /// goes first.
    DominantShare {
        /// Among claims of one owner.
        ageing: Ageing,
        /// Having waited so much longer makes up for holding the whole of a resource where the other holds nothing. It
        /// bounds how long an owner of much can wait behind owners of little.
        patience: Duration,
    },
}

impl Default for Policy {
    fn default() -> Self {
        Self::Priority(Ageing::default())
    }
}

impl Policy {
    /// Dominant-resource fairness with a patience of a minute.
    #[must_use]
    pub fn dominant_share() -> Self {
        Self::DominantShare { ageing: Ageing::default(), patience: Duration::from_secs(60) }
    }

    pub(crate) const fn ageing(&self) -> Ageing {
        match self {
            Self::Priority(ageing) | Self::DominantShare { ageing, .. } => *ageing,
        }
    }

    pub(crate) const fn is_by_share(&self) -> bool {
        matches!(self, Self::DominantShare { .. })
    }

    /// How much longer, in nanoseconds, who holds nothing of anything must have waited than who holds the whole of something.
    pub(crate) fn patience_ns(&self) -> f64 {
        match self {
            // All claims are in one queue.
            Self::Priority(_) => 0.0,
            Self::DominantShare { patience, .. } => patience.as_secs_f64().min(1e9) * 1e9,
        }
    }
}

/// Where the first waiting claim of an owner stands among those of other owners; the smaller goes first.
#[inline]
pub(crate) fn key(patience_ns: f64, share: f64, since: Tick) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is rounded, of at most 10^18, and not negative"
    )]
    let behind_ns = (patience_ns * share.min(1.0) + 0.5) as u64;
    since.as_nanos().saturating_add(behind_ns)
}

/// The part of a resource that `units` of `capacity` are.
pub(crate) fn part(units: u64, capacity: u64) -> f64 {
    times(units, 1.0 / times(capacity.max(1), 1.0))
}

/// `units` of a resource of which each is this `part`.
pub(crate) fn times(units: u64, part: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "shares are compared, and 53 bits tell them apart well enough"
    )]
    let units = units as f64;
    units * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_share_goes_first_unless_the_other_has_waited_for_it() {
        let policy = Policy::DominantShare { ageing: Ageing::default(), patience: Duration::from_secs(10) };
        let at = |seconds| Tick::ZERO.after(Duration::from_secs(seconds));
        let cases = [
            // (share, since) goes before (share, since)
            ((0.25, 5), (0.5, 5)),
            ((0.5, 0), (0.25, 3)),
            ((0.25, 2), (0.5, 0)),
            ((0.0, 9), (1.0, 0)),
            ((1.0, 0), (0.0, 11)),
        ];
        for ((share, since), (other_share, other_since)) in cases {
            assert!(
                key(policy.patience_ns(), share, at(since))
                    < key(policy.patience_ns(), other_share, at(other_since)),
                "{share} {since}"
            );
        }
        assert_eq!((part(3, 4).to_bits(), part(0, 0).to_bits()), (0.75_f64.to_bits(), 0.0_f64.to_bits()));
    }

    #[test]
    fn endless_patience_does_not_overflow() {
        let policy = Policy::DominantShare { ageing: Ageing::default(), patience: Duration::MAX };
        assert!(key(policy.patience_ns(), 0.5, Tick::NEVER) >= key(policy.patience_ns(), 0.1, Tick::ZERO));
    }
}
