//! The states of a task, and the one table of legal changes.
//!
//! Steps and items of fan-outs share all of this. Who may cause a change, and what follows from it, is not known here.
//!
//! ```text
//!  waiting ----> ready ----> running ------------------> succeeded
//!   |  |  \       |  \       ^  |  |  \                   ^
//!   |  |   \      |   \      |  |  |   `---------------> failed (*)
//!   |  |    `-----|----`---> | skipped                    |
//!   |  |          |          |  |  |                      |
//!   |  v          |     (ready) |  v                      |
//!   | blocked     |          |  |  cancelling ------------'
//!   |             |          |  v      |
//!   |             |     backing-off    |
//!   |             v          v         v
//!   `------------------> cancelled <---'
//!
//!  (*) from cancelling only a fan-out fails, if one of its items had failed already
//! ```

use std::fmt;

/// What a step or an item of a fan-out is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Its join is not complete: too few of its dependencies have ended as it wants.
    Waiting,
    /// It may be started.
    Ready,
    /// It has been started; a fan-out runs as long as one of its items has not ended.
    Running,
    /// An attempt has failed, the next one is due later.
    BackingOff,
    /// It was running when it was cancelled and has not answered yet.
    Cancelling,
    /// Ended with a result.
    Succeeded,
    /// Ended without, and will not be tried again.
    Failed,
    /// Not executed, because a condition was false: its own, or that of steps it depends on.
    Skipped,
    /// Ended because the run was cancelled, or stopped after a failure elsewhere.
    Cancelled,
    /// Can never be executed, because too few of the steps it depends on can still succeed, and one has failed.
    Blocked,
}

use State::{
    BackingOff, Blocked, Cancelled, Cancelling, Failed, Ready, Running, Skipped, Succeeded, Waiting,
};

/// The legal changes, all of them: from each state the states that may follow. What has ended stays as it is.
const LEGAL: [&[State]; State::COUNT] = [
    /* Waiting    */ &[Ready, Skipped, Cancelled, Blocked],
    /* Ready      */ &[Running, Skipped, Cancelled],
    /* Running    */ &[Succeeded, Failed, BackingOff, Cancelling],
    /* BackingOff */ &[Ready, Cancelled],
    /* Cancelling */ &[Succeeded, Failed, Cancelled],
    /* Succeeded  */ &[],
    /* Failed     */ &[],
    /* Skipped    */ &[],
    /* Cancelled  */ &[],
    /* Blocked    */ &[],
];

/// [`LEGAL`] as one bit for each pair.
const LEGAL_BITS: [u16; State::COUNT] = {
    let mut bits = [0; State::COUNT];
    let mut from = 0;
    while from < State::COUNT {
        let mut i = 0;
        while i < LEGAL[from].len() {
            bits[from] |= 1 << LEGAL[from][i] as u16;
            i += 1;
        }
        from += 1;
    }
    bits
};

impl State {
    /// How many states there are.
    pub const COUNT: usize = 10;
    /// All states, in their order.
    pub const ALL: [Self; Self::COUNT] =
        [Waiting, Ready, Running, BackingOff, Cancelling, Succeeded, Failed, Skipped, Cancelled, Blocked];

    /// The state of each value of four bits. INVARIANT: words hold none but the first [`Self::COUNT`].
    pub(crate) const ALL_16: [Self; 16] = {
        let mut all = [Blocked; 16];
        let mut value = 0;
        while value < Self::COUNT {
            all[value] = Self::ALL[value];
            value += 1;
        }
        all
    };

    /// Whether this is final.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        self as u8 >= Succeeded as u8
    }

    /// Whether a task in this state has an attempt before it that has not begun.
    pub(crate) const fn is_before_attempt(self) -> bool {
        matches!(self, Waiting | Ready | BackingOff)
    }

    pub(crate) const fn may_become(self, to: Self) -> bool {
        LEGAL_BITS[self as usize] & (1 << to as u16) != 0
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waiting => "waiting",
            Ready => "ready",
            Running => "running",
            BackingOff => "backing-off",
            Cancelling => "cancelling",
            Succeeded => "succeeded",
            Failed => "failed",
            Skipped => "skipped",
            Cancelled => "cancelled",
            Blocked => "blocked",
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_never_changes_and_the_rest_can_end() {
        for from in State::ALL {
            assert_eq!(from.is_ended(), LEGAL[from as usize].is_empty(), "{from}");
            for to in State::ALL {
                assert_eq!(from.may_become(to), LEGAL[from as usize].contains(&to), "{from} -> {to}");
            }
        }
        for from in [Waiting, Ready, BackingOff, Cancelling] {
            assert!(from.may_become(Cancelled), "a cancel reaches {from}");
        }
    }
}
