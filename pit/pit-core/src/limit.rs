//! A limit with a name: so that whoever runs into it is told which one, and what it is.

use std::fmt;

/// The largest value of something, and what that something is called.
///
/// ```
/// use pit_core::limit::Limit;
///
/// const WAITERS: Limit = Limit { name: "waiters of a model", min: 0, max: 100 };
/// assert!(WAITERS.admits(100) && !WAITERS.admits(101));
/// assert_eq!(WAITERS.to_string(), "waiters of a model: from 0 to 100");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is limited, as it is called in front of people.
    pub name: &'static str,
    /// The smallest value that is allowed.
    pub min: u64,
    /// The largest value that is allowed.
    pub max: u64,
}

impl Limit {
    /// Whether `value` is allowed.
    #[must_use]
    pub const fn admits(&self, value: u64) -> bool {
        self.min <= value && value <= self.max
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: from {} to {}", self.name, self.min, self.max)
    }
}
