//! The decision what becomes of a step when one of its dependencies has ended. A pure function, and the one place where
//! join rules are known.
//!
//! The rule of today is "all": a step runs when all its dependencies have succeeded. It is *blocked* as soon as one of
//! them has failed or is blocked itself. It is *skipped* when all have ended, none of them badly, and one or more were
//! skipped: what a step would work on is not there then. A skipped dependency is judged only after the others have ended,
//! so that the state in which a step ends depends on how its dependencies ended and not on the order in which they did.
//! Another rule is another function of the same arguments.

/// How a dependency has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Succeeded,
    Skipped,
    /// Failed, or blocked by something that has.
    Failed,
    /// Everything that waited was cancelled along with it.
    Cancelled,
}

/// What becomes of the dependent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    Waits,
    Ready,
    Skipped,
    Blocked,
}

/// Decides for a step that waits for all its dependencies: one has ended as `ending`, `pending` others have not ended, and
/// `one_skipped` says whether any that has ended (this one included) was skipped.
pub(crate) fn decide_all(ending: Ending, pending: u32, one_skipped: bool) -> Joined {
    match ending {
        Ending::Failed => Joined::Blocked,
        Ending::Cancelled => Joined::Waits,
        Ending::Succeeded | Ending::Skipped if pending > 0 => Joined::Waits,
        Ending::Succeeded | Ending::Skipped if one_skipped => Joined::Skipped,
        Ending::Succeeded | Ending::Skipped => Joined::Ready,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn all_joins_on_success_skips_late_and_blocks_at_once() {
        let cases = [
            (Ending::Succeeded, 0, false, Joined::Ready),
            (Ending::Succeeded, 1, false, Joined::Waits),
            (Ending::Succeeded, 0, true, Joined::Skipped),
            (Ending::Succeeded, 1, true, Joined::Waits),
            (Ending::Skipped, 0, true, Joined::Skipped),
            (Ending::Skipped, 1, true, Joined::Waits),
            (Ending::Failed, 0, false, Joined::Blocked),
            (Ending::Failed, 3, true, Joined::Blocked),
            (Ending::Cancelled, 0, false, Joined::Waits),
        ];
        for (ending, pending, one_skipped, joined) in cases {
            assert_eq!(
                decide_all(ending, pending, one_skipped),
                joined,
                "{ending:?} {pending} {one_skipped}"
            );
        }
    }
}
