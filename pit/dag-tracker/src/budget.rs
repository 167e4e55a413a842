//! How often a task may be tried again, told apart by what went wrong.
//!
//! The owner sorts failures into classes; what a class means is known only there. What a task has used up stands in its
//! state word, so that budgets cost nothing beside it.

/// LIMIT: classes of failure that a budget tells apart, each a byte in a state word.
pub const RETRY_CLASSES_MAX: u8 = 4;

/// A class of failures, as the owner sorts them: for example "its process died" or "its time was up".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetryClass(u8);

impl RetryClass {
    /// The class of that number, from 0; `None` from [`RETRY_CLASSES_MAX`] on.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < RETRY_CLASSES_MAX { Some(Self(number)) } else { None }
    }

    /// The number of the class, from 0.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    const fn shift(self) -> u32 {
        self.0 as u32 * 8
    }
}

/// How many retries a step allows for each class of failures; each item of a fan-out has them for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryBudget([u8; RETRY_CLASSES_MAX as usize]);

impl RetryBudget {
    /// No retry for any class.
    pub const NONE: Self = Self([0; RETRY_CLASSES_MAX as usize]);

    /// The same budget with so many retries for `class`.
    #[must_use]
    pub const fn with(mut self, class: RetryClass, retries: u8) -> Self {
        self.0[class.0 as usize] = retries;
        self
    }

    /// How many retries there are for `class`.
    #[must_use]
    pub const fn of(self, class: RetryClass) -> u8 {
        self.0[class.0 as usize]
    }

    /// One retry more than in `used`; `None` if the budget does not allow it.
    pub(crate) const fn spend(self, used: Used, class: RetryClass) -> Option<Used> {
        if used.of(class) < self.of(class) { Some(Used(used.0 + (1 << class.shift()))) } else { None }
    }
}

/// How many retries a task has used, one byte for each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used(pub(crate) u32);

impl Used {
    #[expect(clippy::cast_possible_truncation, reason = "one byte is meant")]
    const fn of(self, class: RetryClass) -> u8 {
        (self.0 >> class.shift()) as u8
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn classes_are_spent_apart_and_to_the_last() {
        let class = |number| RetryClass::new(number).unwrap();
        let budget = RetryBudget::NONE.with(class(0), 255).with(class(3), 2);
        let mut used = Used(0);
        for count in 0..255 {
            assert_eq!(used.of(class(0)), count);
            used = budget.spend(used, class(0)).unwrap();
        }
        assert_eq!(budget.spend(used, class(0)), None);
        assert_eq!(budget.spend(used, class(1)), None, "no budget, no retry");
        for _ in 0..2 {
            used = budget.spend(used, class(3)).unwrap();
        }
        assert_eq!(budget.spend(used, class(3)), None);
        assert_eq!([0, 1, 2, 3].map(|number| used.of(class(number))), [255, 0, 0, 2]);
        assert_eq!(RetryClass::new(RETRY_CLASSES_MAX), None);
    }
}
