//! The immutable shape of a workflow: named steps and which waits for which, checked once, in flat arrays.
//!
//! It knows nothing of runs; a hundred thousand of them share one graph. Edges are kept in both directions as compressed
//! rows: the dependents of a step are one slice, and so are its dependencies.

use std::{collections::HashMap, fmt, sync::Arc};

use crate::error::GraphError;

/// LIMIT: steps of one graph. Leaves the topmost values of 32 bits free for marks in a state word.
pub const STEPS_MAX: u32 = 1 << 24;
/// LIMIT: dependencies of one graph, so that 32-bit row starts suffice.
const DEPENDENCIES_MAX: u32 = 1 << 30;

/// A step of one [`Graph`], by its place in the order of declaration. It means nothing in another graph.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub(crate) u32);

impl StepId {
    /// The place of the step in the order of declaration, from 0.
    #[must_use]
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

/// Collects steps in any order; a dependency may be declared after its dependent.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    names: Vec<Box<str>>,
    dependencies: Vec<(StepId, Box<str>)>,
}

impl GraphBuilder {
    /// A builder without steps.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a step that waits for the steps named in `after`. Naming one twice is the same as naming it once.
    ///
    /// Mistakes are reported by [`build`](Self::build).
    pub fn step<'a>(&mut self, name: &str, after: impl IntoIterator<Item = &'a str>) -> StepId {
        // Beyond the limit the number is meaningless, but then `build` refuses the whole.
        let step = StepId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(name.into());
        self.dependencies.extend(after.into_iter().map(|dependency| (step, dependency.into())));
        step
    }

    /// Checks the whole and lays it out.
    ///
    /// # Errors
    /// The first mistake found: too many steps or dependencies, a name declared twice, an unknown name, a cycle (with the
    /// names along it). Nothing can be done but to correct the declaration.
    pub fn build(self) -> Result<Arc<Graph>, GraphError> {
        let Self { names, dependencies } = self;
        let count = within(names.len(), STEPS_MAX, |limit| GraphError::TooManySteps { limit })?;
        within(dependencies.len(), DEPENDENCIES_MAX, |limit| GraphError::TooManyDependencies { limit })?;

        let mut by_name = HashMap::with_capacity(names.len());
        for (step, name) in (0..count).map(StepId).zip(&names) {
            if by_name.insert(&**name, step).is_some() {
                return Err(GraphError::DuplicateStep { name: name.to_string() });
            }
        }
        let mut edges = Vec::with_capacity(dependencies.len());
        for (step, name) in &dependencies {
            let Some(&dependency) = by_name.get(&**name) else {
                let step = names[step.index()].to_string();
                return Err(GraphError::UnknownStep { step, name: name.to_string() });
            };
            edges.push((*step, dependency));
        }
        edges.sort_unstable();
        edges.dedup();
        let dependencies = Rows::new(count, edges.iter().copied());
        let dependents = Rows::new(count, edges.iter().map(|&(step, dependency)| (dependency, step)));

        let mut sorted: Box<[StepId]> = (0..count).map(StepId).collect();
        sorted.sort_unstable_by_key(|step| &names[step.index()]);
        let graph = Graph { names: names.into(), sorted, dependencies, dependents };
        match graph.find_cycle() {
            None => Ok(Arc::new(graph)),
            Some(path) => Err(GraphError::Cycle {
                path: path.into_iter().map(|step| graph.name(step).into()).collect(),
            }),
        }
    }
}

fn within(len: usize, limit: u32, error: impl FnOnce(u32) -> GraphError) -> Result<u32, GraphError> {
    u32::try_from(len).ok().filter(|&len| len <= limit).ok_or_else(|| error(limit))
}

/// For each step a slice of steps, all in one array.
struct Rows {
    /// INVARIANT: ascending, one more than there are steps; row `i` is `entries[starts[i] .. starts[i + 1]]`.
    starts: Box<[u32]>,
    entries: Box<[StepId]>,
}

impl Rows {
    fn new(count: u32, pairs: impl Iterator<Item = (StepId, StepId)> + Clone) -> Self {
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

    fn of(&self, step: StepId) -> &[StepId] {
        let row = step.index();
        &self.entries[self.starts[row] as usize..self.starts[row + 1] as usize]
    }
}

/// A checked, immutable graph of steps without cycles.
///
/// Ids passed to its methods must come from this graph; another graph's may panic or name another step.
pub struct Graph {
    names: Box<[Box<str>]>,
    /// All steps in the order of their names.
    sorted: Box<[StepId]>,
    dependencies: Rows,
    dependents: Rows,
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
    pub fn dependents(&self, step: StepId) -> &[StepId] {
        self.dependents.of(step)
    }

    /// A cycle as "each needs the next", first and last the same.
    fn find_cycle(&self) -> Option<Vec<StepId>> {
        // Take away what waits for nothing, again and again; what is left is on a cycle or waits for one.
        let mut pending: Vec<u32> = self
            .steps()
            .map(|step| u32::try_from(self.dependencies(step).len()).unwrap_or(u32::MAX))
            .collect();
        let mut free: Vec<StepId> = self.steps().filter(|step| pending[step.index()] == 0).collect();
        while let Some(step) = free.pop() {
            for &dependent in self.dependents(step) {
                pending[dependent.index()] -= 1;
                if pending[dependent.index()] == 0 {
                    free.push(dependent);
                }
            }
        }
        let left = |step: &StepId| pending[step.index()] > 0;
        // Each step that is left waits for one that is left, so following those must come back to a step already seen.
        let mut walk: Vec<StepId> = Vec::new();
        let mut place_in_walk: HashMap<StepId, usize> = HashMap::new();
        let mut next = self.steps().find(left);
        while let Some(step) = next {
            if let Some(&start) = place_in_walk.get(&step) {
                walk.push(step);
                return Some(walk.split_off(start));
            }
            place_in_walk.insert(step, walk.len());
            walk.push(step);
            next = self.dependencies(step).iter().copied().find(left);
        }
        None
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("steps", &self.len())
            .field("dependencies", &self.dependencies.entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn build(steps: &[(&str, &[&str])]) -> Result<Arc<Graph>, GraphError> {
        let mut builder = GraphBuilder::new();
        for (name, after) in steps {
            builder.step(name, after.iter().copied());
        }
        builder.build()
    }

    #[test]
    fn edges_are_found_in_both_directions_whatever_the_order_of_declaration() {
        let graph =
            build(&[("report", &["measure", "list", "measure"]), ("measure", &["list"]), ("list", &[])])
                .unwrap();
        let id = |name| graph.find(name).unwrap();
        assert_eq!(graph.dependencies(id("report")), [id("measure"), id("list")]);
        assert_eq!(graph.dependents(id("list")), [id("report"), id("measure")]);
        assert_eq!(graph.dependencies(id("list")), []);
        assert_eq!(graph.name(id("measure")), "measure");
        assert_eq!(graph.find("nobody"), None);
        assert_eq!(graph.len(), 3);
    }

    #[test]
    fn mistakes_name_the_steps_concerned() {
        type Case = (&'static [(&'static str, &'static [&'static str])], &'static str);
        let cases: [Case; 5] = [
            (&[("a", &[]), ("b", &[]), ("a", &[])], "step `a` is declared twice"),
            (&[("a", &["z"])], "step `a` waits for `z`, which does not exist"),
            (&[("a", &["a"])], "steps wait for each other: a -> a"),
            (&[("a", &["c"]), ("b", &["a"]), ("c", &["b"])], "steps wait for each other: a -> c -> b -> a"),
            // The walk begins outside of the cycle, which must not be blamed on `tail`.
            (
                &[("tail", &["free", "x"]), ("free", &[]), ("x", &["y"]), ("y", &["free", "x"])],
                "steps wait for each other: x -> y -> x",
            ),
        ];
        for (steps, message) in cases {
            assert_eq!(build(steps).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn long_cycle_is_told_in_full_but_shown_in_part() {
        let names: Vec<String> = (0..50).map(|i| format!("s{i}")).collect();
        let mut builder = GraphBuilder::new();
        for (i, name) in names.iter().enumerate() {
            builder.step(name, [names[(i + 1) % 50].as_str()]);
        }
        let error = builder.build().unwrap_err();
        assert!(error.to_string().ends_with("s10 -> s11 -> ... (50 steps)"), "{error}");
        let GraphError::Cycle { path } = error else { panic!("{error}") };
        assert_eq!((path.len(), &path[0], &path[50]), (51, &names[0], &names[0]));
    }

    #[test]
    fn graph_without_steps_is_a_graph() {
        assert!(build(&[]).unwrap().is_empty());
    }
}
