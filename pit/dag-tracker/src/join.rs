//! The decision what becomes of a step when one of its dependencies has ended. Pure functions, and the one place where
//! join rules are known.
//!
//! All rules are one: a step *wants* so many endings that count. It is *ready* as soon as it has them. When they cannot come
//! together any more, it is *blocked* if a dependency has failed, and otherwise *skipped* once all have ended: what it
//! would work on is not there then. "Not there" is said last, so that the state in which a step ends depends on how its
//! dependencies ended and not on the order in which they did.
//!
//! ```text
//!             wants              what counts          cannot come together
//!  all        all of them        success              at the first failure
//!  at least   n of them          success              when fewer than n are left
//!  any        1 of them          success              when none is left
//!  all done   all of them        each ending          never
//! ```

/// When a step that waits for others may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// All dependencies have succeeded.
    All,
    /// One has succeeded.
    Any,
    /// So many have succeeded; at least 1, and at most as many as there are.
    AtLeast(u32),
    /// All have ended, in whatever way.
    AllDone,
}

impl Join {
    /// The state of a join over so many dependencies, of which none has ended.
    pub(crate) const fn over(self, dependencies: u32) -> Joining {
        let wanted = match self {
            Self::All | Self::AllDone => dependencies,
            Self::Any => 1,
            Self::AtLeast(count) => count,
        };
        let each_end_counts = matches!(self, Self::AllDone);
        Joining { pending: dependencies, wanted, each_end_counts, one_failed: false }
    }
}

/// How a dependency has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Succeeded,
    Skipped,
    /// Failed, blocked by something that has, or cancelled.
    Failed,
}

/// How far a join has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joining {
    /// Dependencies that have not ended.
    pub(crate) pending: u32,
    /// Endings that count and have not come yet.
    pub(crate) wanted: u32,
    /// Whether each ending counts, and not only success.
    pub(crate) each_end_counts: bool,
    /// Whether one has failed.
    pub(crate) one_failed: bool,
}

/// What becomes of the dependent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    Waits(Joining),
    Ready,
    Skipped,
    Blocked,
}

impl Joining {
    /// Decides after one more dependency has ended.
    pub(crate) const fn after(self, ending: Ending) -> Joined {
        let counts = self.each_end_counts || matches!(ending, Ending::Succeeded);
        let next = Self {
            pending: self.pending - 1,
            wanted: self.wanted - counts as u32,
            one_failed: self.one_failed || matches!(ending, Ending::Failed),
            ..self
        };
        if next.wanted == 0 {
            Joined::Ready
        } else if next.pending < next.wanted && next.one_failed {
            Joined::Blocked
        } else if next.pending == 0 {
            Joined::Skipped
        } else {
            Joined::Waits(next)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Plays endings (`s`ucceeded, `k` skipped, `f`ailed) until something is decided; the place of the decision, and it.
    fn play(join: Join, endings: &str) -> (usize, Joined) {
        let count = u32::try_from(endings.len()).expect("few endings");
        let mut joining = join.over(count);
        for (place, ending) in endings.chars().enumerate() {
            let ending = match ending {
                's' => Ending::Succeeded,
                'k' => Ending::Skipped,
                _ => Ending::Failed,
            };
            match joining.after(ending) {
                Joined::Waits(next) => joining = next,
                decided => return (place + 1, decided),
            }
        }
        panic!("{join:?} is undecided after {endings}");
    }

    #[test]
    fn each_rule_decides_as_early_as_it_can_and_skips_late() {
        use Joined::{Blocked, Ready, Skipped};
        let cases = [
            (Join::All, "sss", (3, Ready)),
            (Join::All, "sfs", (2, Blocked)),
            (Join::All, "kss", (3, Skipped)),
            (Join::All, "ksf", (3, Blocked)),
            (Join::Any, "fsk", (2, Ready)),
            (Join::Any, "kfk", (3, Blocked)),
            (Join::Any, "kkk", (3, Skipped)),
            (Join::AtLeast(2), "sfsf", (3, Ready)),
            (Join::AtLeast(2), "fffs", (3, Blocked)),
            (Join::AtLeast(2), "fksk", (4, Blocked)),
            (Join::AtLeast(2), "kksk", (4, Skipped)),
            (Join::AllDone, "fks", (3, Ready)),
        ];
        for (join, endings, decided) in cases {
            assert_eq!(play(join, endings), decided, "{join:?} {endings}");
        }
    }

    #[test]
    fn order_of_endings_does_not_matter() {
        fn permutations(letters: &str) -> Vec<String> {
            if letters.is_empty() {
                return vec![String::new()];
            }
            let mut all = Vec::new();
            for (place, letter) in letters.char_indices() {
                let rest = letters[..place].to_owned() + &letters[place + 1..];
                all.extend(permutations(&rest).into_iter().map(|rest| format!("{letter}{rest}")));
            }
            all
        }
        for endings in ["ssss", "sssk", "sskf", "skkf", "ssff", "kkkf", "skff", "ffff", "kkkk", "sffk"] {
            for join in [Join::All, Join::Any, Join::AtLeast(2), Join::AtLeast(3), Join::AllDone] {
                let expected = play(join, endings).1;
                for order in permutations(endings) {
                    assert_eq!(play(join, &order).1, expected, "{join:?} {order}");
                }
            }
        }
    }
}
