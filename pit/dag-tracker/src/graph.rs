//! The immutable shape of a workflow: which step waits for which, and how, in flat arrays.
//!
//! It knows nothing of runs; a hundred thousand of them share one graph. Edges are kept in both directions as compressed
//! rows: the dependents of a step are one slice, and so are its dependencies. The words with which each run begins stand
//! here ready to be copied.

use std::{fmt, sync::Arc};

use crate::{budget::RetryBudget, join::Join, tally::Tally, word::Word};

/// LIMIT: steps of one graph. Counts of dependencies have 24 bits in a state word.
pub const STEPS_MAX: u32 = 1 << 24;

/// A step of one [`Graph`], by its place in the order of declaration. It means nothing in another graph.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub(crate) u32);

impl StepId {
    /// The place of the step in the order of declaration, from 0.
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step:{}", self.0)
    }
}

impl fmt::Debug for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// For each step a slice of steps, all in one array.
#[derive(Clone)]
pub(crate) struct Rows {
    /// INVARIANT: ascending, one more than there are steps; row `i` is `entries[starts[i] .. starts[i + 1]]`.
    starts: Arc<[u32]>,
    entries: Arc<[StepId]>,
}

impl Rows {
    pub(crate) fn new(count: u32, pairs: impl Iterator<Item = (StepId, StepId)> + Clone) -> Self {
        let mut starts = vec![0_u32; count as usize + 1];
        let mut total = 0;
        for (row, _) in pairs.clone() {
            starts[row.index() + 1] += 1;
            total += 1;
        }
        for row in 1..starts.len() {
            starts[row] += starts[row - 1];
        }
        let mut next = starts.clone();
        let mut entries = vec![StepId(0); total];
        for (row, entry) in pairs {
            let place = &mut next[row.index()];
            entries[*place as usize] = entry;
            *place += 1;
        }
        Self { starts: starts.into(), entries: entries.into() }
    }

    /// The number of entries in all rows.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn of(&self, step: StepId) -> &[StepId] {
        let row = step.index();
        &self.entries[self.starts[row] as usize..self.starts[row + 1] as usize]
    }
}

/// What a step is apart from its dependencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) is_finally: bool,
    pub(crate) failure_is_tolerated: bool,
}

/// A checked, immutable graph of steps without cycles.
///
/// Ids passed to its methods must come from this graph; another graph's may panic or name another step.
pub struct Graph {
    pub(crate) names: Box<[Box<str>]>,
    /// All steps in the order of their names.
    pub(crate) sorted: Box<[StepId]>,
    pub(crate) dependencies: Rows,
    pub(crate) dependents: Rows,
    /// Each step after all that it waits for; `None`: the order of declaration is one.
    pub(crate) order: Option<Box<[StepId]>>,
    /// Empty if no step has any.
    pub(crate) traits: Box<[Traits]>,
    /// Empty if no step has one.
    pub(crate) budgets: Box<[RetryBudget]>,
    /// Finally-steps without dependencies: they wait for all ordinary steps.
    pub(crate) last: Box<[StepId]>,
    pub(crate) finally_count: u32,
    /// With what each run begins.
    pub(crate) initial: Box<[Word]>,
    pub(crate) initial_tally: Tally,
}

impl Graph {
    /// The number of steps.
    #[must_use]
    pub fn len(&self) -> u32 {
        // Checked by the builder.
        u32::try_from(self.names.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is no step at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All steps in the order of declaration.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = StepId> + use<> {
        (0..self.len()).map(StepId)
    }

    /// The step of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<StepId> {
        let place = self.sorted.binary_search_by_key(&name, |&step| self.name(step)).ok()?;
        Some(self.sorted[place])
    }

    /// The name of a step.
    #[must_use]
    pub fn name(&self, step: StepId) -> &str {
        &self.names[step.index()]
    }

    /// The steps that `step` waits for, in the order of declaration.
    #[must_use]
    pub fn dependencies(&self, step: StepId) -> &[StepId] {
        self.dependencies.of(step)
    }

    /// The steps that wait for `step`, in the order of declaration.
    #[must_use]
    #[inline]
    pub fn dependents(&self, step: StepId) -> &[StepId] {
        self.dependents.of(step)
    }

    /// How many of the dependencies of `step` must have ended, and how, before it may run. Rules that mean the same are told
    /// as the first of them in [`Join`].
    #[must_use]
    pub fn join(&self, step: StepId) -> Join {
        let word = self.initial[step.index()];
        if !word.is_waiting() {
            return Join::All;
        }
        let joining = word.joining();
        match joining.wanted {
            _ if joining.each_end_counts => Join::AllDone,
            wanted if wanted == joining.pending => Join::All,
            1 => Join::Any,
            wanted => Join::AtLeast(wanted),
        }
    }

    /// Whether `step` is executed even if the run has been stopped or cancelled.
    #[must_use]
    pub fn is_finally(&self, step: StepId) -> bool {
        self.traits_of(step).is_finally
    }

    /// Whether the run goes on, and may succeed, when `step` has failed.
    #[must_use]
    pub fn failure_is_tolerated(&self, step: StepId) -> bool {
        self.traits_of(step).failure_is_tolerated
    }

    /// How often `step`, or each of its items, may be tried again.
    #[must_use]
    pub fn retry_budget(&self, step: StepId) -> RetryBudget {
        self.budgets.get(step.index()).copied().unwrap_or_default()
    }

    fn traits_of(&self, step: StepId) -> Traits {
        self.traits.get(step.index()).copied().unwrap_or_default()
    }

    /// All steps, each before all that it waits for; finally-steps first.
    pub(crate) fn steps_backwards(&self) -> impl Iterator<Item = StepId> + '_ {
        let (declared, sorted) = match &self.order {
            None => (self.len(), &[][..]),
            Some(order) => (0, &order[..]),
        };
        (0..declared).rev().map(StepId).chain(sorted.iter().rev().copied())
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("steps", &self.len())
            .field("dependencies", &self.dependencies.len())
            .finish_non_exhaustive()
    }
}
