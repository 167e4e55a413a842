//! Declares a graph step by step, and checks the whole: names, cycles, joins that can never be met.
//!
//! It lays out the flat arrays that [`Graph`] keeps, and knows no runs.

use std::{collections::HashMap, sync::Arc};

use crate::{
    budget::RetryBudget,
    error::GraphError,
    graph::{Graph, Rows, STEPS_MAX, StepId, Traits},
    join::Join,
    state::State,
    tally::Tally,
    word::Word,
};

/// LIMIT: dependencies of one graph, so that 32-bit row starts suffice.
const DEPENDENCIES_MAX: u32 = 1 << 30;

/// Collects steps in any order; a dependency may be declared after its dependent.
///
/// ```
/// use dag_tracker::{GraphBuilder, Join, OnFailure, Run, RunState, State};
///
/// let mut builder = GraphBuilder::new();
/// let near = builder.step("near", []);
/// let far = builder.step("far", []);
/// builder.tolerate_failure(near).tolerate_failure(far);
/// let copy = builder.step("copy", ["near", "far"]);
/// builder.join(copy, Join::Any);
/// let clean = builder.step("clean", []);
/// builder.run_finally(clean);
///
/// let mut run = Run::new(builder.build()?, OnFailure::Stop);
/// let ready: Vec<_> = run.view().tasks(State::Ready).collect();
/// run.start(ready[0])?;
/// run.start(ready[1])?;
/// assert!(run.fail(ready[0], dag_tracker::Then::End)?.ready.is_empty());
/// let copy = run.complete(ready[1])?.ready[0];
/// run.start(copy)?;
/// let clean = run.complete(copy)?.ready[0];
/// run.start(clean)?;
/// assert_eq!(run.complete(clean)?.run, RunState::Succeeded);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct GraphBuilder {
    names: Vec<Box<str>>,
    dependencies: Vec<(StepId, Box<str>)>,
    /// What deviates from the default, by step.
    joins: HashMap<StepId, Join>,
    traits: HashMap<StepId, Traits>,
    budgets: HashMap<StepId, RetryBudget>,
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

    /// Says when `step` may run; without it, when all that it waits for has succeeded (a finally-step: has ended).
    pub fn join(&mut self, step: StepId, join: Join) -> &mut Self {
        self.joins.insert(step, join);
        self
    }

    /// Makes `step` a finally-step: neither a failure elsewhere nor [`Run::cancel`](crate::Run::cancel) stops it. It waits for
    /// the end of its dependencies or, if it has none, of all ordinary steps. For it a cancelled dependency is a failed one.
    pub fn run_finally(&mut self, step: StepId) -> &mut Self {
        self.traits.entry(step).or_default().is_finally = true;
        self
    }

    /// Lets the run go on, and possibly succeed, when `step` has failed; its dependents see it as failed.
    pub fn tolerate_failure(&mut self, step: StepId) -> &mut Self {
        self.traits.entry(step).or_default().failure_is_tolerated = true;
        self
    }

    /// Says how often `step`, or each of its items, may be tried again by [`Then::AgainFor`](crate::Then::AgainFor).
    pub fn retries(&mut self, step: StepId, budget: RetryBudget) -> &mut Self {
        self.budgets.insert(step, budget);
        self
    }

    /// Checks the whole and lays it out.
    ///
    /// # Errors
    /// The first mistake found: too many steps or dependencies, a name declared twice, an unknown name, a join that can never
    /// be met, an ordinary step that waits for a finally-step, a cycle (with the names along it). Nothing can be done but to
    /// correct the declaration.
    pub fn build(self) -> Result<Arc<Graph>, GraphError> {
        let Self { names, dependencies, joins, traits, budgets } = self;
        let count = within(names.len(), STEPS_MAX, |limit| GraphError::TooManySteps { limit })?;
        within(dependencies.len(), DEPENDENCIES_MAX, |limit| GraphError::TooManyDependencies { limit })?;
        let edges = edges(count, &names, &dependencies)?;
        drop(dependencies);
        let dependencies = Rows::new(count, edges.iter().copied());
        let dependents = Rows::new(count, edges.iter().map(|&(step, dependency)| (dependency, step)));
        drop(edges);

        let mut sorted: Box<[StepId]> = (0..count).map(StepId).collect();
        sorted.sort_unstable_by_key(|step| &names[step.index()]);
        let spread = |map: HashMap<StepId, Traits>| -> Box<[Traits]> {
            (0..count).map(|step| map.get(&StepId(step)).copied().unwrap_or_default()).collect()
        };
        let mut graph = Graph {
            names: names.into(),
            sorted,
            dependencies,
            dependents,
            order: None,
            traits: if traits.is_empty() { Box::default() } else { spread(traits) },
            budgets: if budgets.is_empty() {
                Box::default()
            } else {
                (0..count).map(|step| budgets.get(&StepId(step)).copied().unwrap_or_default()).collect()
            },
            last: Box::default(),
            finally_count: 0,
            initial: Box::default(),
            initial_tally: Tally::NOTHING,
        };
        check_finally(&graph)?;
        graph.order = order(&graph)?;
        begin(&mut graph, &joins)?;
        Ok(Arc::new(graph))
    }
}

fn within(len: usize, limit: u32, error: impl FnOnce(u32) -> GraphError) -> Result<u32, GraphError> {
    u32::try_from(len).ok().filter(|&len| len <= limit).ok_or_else(|| error(limit))
}

/// All edges from dependents to dependencies, each once, in the order of both.
fn edges(
    count: u32,
    names: &[Box<str>],
    dependencies: &[(StepId, Box<str>)],
) -> Result<Vec<(StepId, StepId)>, GraphError> {
    let mut by_name = HashMap::with_capacity(names.len());
    for (step, name) in (0..count).map(StepId).zip(names) {
        if by_name.insert(&**name, step).is_some() {
            return Err(GraphError::DuplicateStep { name: name.to_string() });
        }
    }
    let mut edges = Vec::with_capacity(dependencies.len());
    for (step, name) in dependencies {
        let Some(&dependency) = by_name.get(&**name) else {
            let step = names[step.index()].to_string();
            return Err(GraphError::UnknownStep { step, name: name.to_string() });
        };
        edges.push((*step, dependency));
    }
    edges.sort_unstable();
    edges.dedup();
    Ok(edges)
}

/// An ordinary step must not wait for a finally-step, which may itself wait for all ordinary ones.
fn check_finally(graph: &Graph) -> Result<(), GraphError> {
    if graph.traits.is_empty() {
        return Ok(());
    }
    for step in graph.steps().filter(|step| !graph.is_finally(*step)) {
        if let Some(&last) = graph.dependencies(step).iter().find(|other| graph.is_finally(**other)) {
            let (step, name) = (graph.name(step).into(), graph.name(last).into());
            return Err(GraphError::AfterFinally { step, name });
        }
    }
    Ok(())
}

/// An order in which each step comes after all that it waits for, if the order of declaration is none.
fn order(graph: &Graph) -> Result<Option<Box<[StepId]>>, GraphError> {
    let is_sorted = |step: StepId| graph.dependencies(step).iter().all(|dependency| *dependency < step);
    if graph.traits.is_empty() && graph.steps().all(is_sorted) {
        return Ok(None);
    }
    // Take away what waits for nothing, again and again; what is left is on a cycle or waits for one.
    let count = |step| u32::try_from(graph.dependencies(step).len()).unwrap_or(u32::MAX);
    let mut pending: Vec<u32> = graph.steps().map(count).collect();
    let mut order: Vec<StepId> = graph.steps().filter(|step| pending[step.index()] == 0).collect();
    let mut taken = 0;
    while let Some(&step) = order.get(taken) {
        taken += 1;
        for &dependent in graph.dependents(step) {
            pending[dependent.index()] -= 1;
            if pending[dependent.index()] == 0 {
                order.push(dependent);
            }
        }
    }
    if let Some(path) = find_cycle(graph, |step| pending[step.index()] > 0) {
        let path = path.into_iter().map(|step| graph.name(step).into()).collect();
        return Err(GraphError::Cycle { path });
    }
    // Finally-steps wait for ordinary ones even where no edge says so. The sort is stable.
    order.sort_by_key(|step| graph.is_finally(*step));
    Ok(Some(order.into()))
}

/// A cycle as "each needs the next", first and last the same, among the steps that are `left`.
fn find_cycle(graph: &Graph, left: impl Fn(StepId) -> bool) -> Option<Vec<StepId>> {
    // Each step that is left waits for one that is left, so following those must come back to a step already seen.
    let mut walk: Vec<StepId> = Vec::new();
    let mut place_in_walk: HashMap<StepId, usize> = HashMap::new();
    let mut next = graph.steps().find(|step| left(*step));
    while let Some(step) = next {
        if let Some(&start) = place_in_walk.get(&step) {
            walk.push(step);
            return Some(walk.split_off(start));
        }
        place_in_walk.insert(step, walk.len());
        walk.push(step);
        next = graph.dependencies(step).iter().copied().find(|step| left(*step));
    }
    None
}

/// Prepares the words with which a run begins.
fn begin(graph: &mut Graph, joins: &HashMap<StepId, Join>) -> Result<(), GraphError> {
    let finally_count = graph.traits.iter().filter(|traits| traits.is_finally).count();
    let has_ordinary = finally_count < graph.names.len();
    let mut last = Vec::new();
    let mut initial = Vec::with_capacity(graph.names.len());
    let mut tally = Tally::NOTHING;
    for step in graph.steps() {
        let is_finally = graph.is_finally(step);
        // INVARIANT: a step has at most as many dependencies as there are steps.
        let of = u32::try_from(graph.dependencies(step).len()).unwrap_or(u32::MAX);
        let default = if is_finally { Join::AllDone } else { Join::All };
        let joining = joins.get(&step).copied().unwrap_or(default).over(of);
        if joining.wanted > of || (joining.wanted == 0 && of > 0) {
            return Err(GraphError::JoinNeverMet {
                step: graph.name(step).into(),
                wanted: joining.wanted,
                of,
            });
        }
        let word = if of > 0 {
            Word::waiting(joining)
        } else if is_finally && has_ordinary {
            last.push(step);
            // The end of all ordinary steps counts as one dependency.
            Word::waiting(Join::AllDone.over(1))
        } else {
            Word::READY
        };
        let state = if word.is_waiting() { State::Waiting } else { State::Ready };
        tally = tally.with(state, 1);
        initial.push(word);
    }
    graph.last = last.into();
    graph.finally_count = u32::try_from(finally_count).unwrap_or(u32::MAX);
    graph.initial = initial.into();
    graph.initial_tally = tally;
    Ok(())
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

    #[test]
    fn join_that_cannot_be_met_is_refused() {
        let cases = [
            (Join::Any, 0, Some("step `x` wants 1 of 0 dependencies")),
            (Join::AtLeast(3), 2, Some("step `x` wants 3 of 2 dependencies")),
            (Join::AtLeast(0), 2, Some("step `x` wants 0 of 2 dependencies")),
            (Join::AtLeast(2), 2, None),
            (Join::All, 0, None),
            (Join::AllDone, 0, None),
        ];
        for (join, of, message) in cases {
            let mut builder = GraphBuilder::new();
            let (_, _) = (builder.step("a", []), builder.step("b", []));
            let step = builder.step("x", ["a", "b"].into_iter().take(of));
            builder.join(step, join);
            let error = builder.build().err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), message, "{join:?} of {of}");
        }
    }

    #[test]
    fn ordinary_step_cannot_wait_for_a_finally_step() {
        let mut builder = GraphBuilder::new();
        let clean = builder.step("clean", []);
        builder.run_finally(clean).step("more", ["clean"]);
        let error = builder.build().unwrap_err();
        assert_eq!(error.to_string(), "step `more` waits for `clean`, which is a finally-step");
    }

    #[test]
    fn backwards_each_step_comes_before_what_it_waits_for_and_finally_steps_first() {
        let mut builder = GraphBuilder::new();
        let clean = builder.step("clean", []);
        builder.run_finally(clean).step("c", ["b"]);
        builder.step("b", ["a"]);
        builder.step("a", []);
        let graph = builder.build().unwrap();
        let names: Vec<_> = graph.steps_backwards().map(|step| graph.name(step)).collect();
        assert_eq!(names, ["clean", "c", "b", "a"]);
        let graph = build(&[("a", &[]), ("b", &["a"])]).unwrap();
        assert!(graph.order.is_none(), "the order of declaration will do");
        let names: Vec<_> = graph.steps_backwards().map(|step| graph.name(step)).collect();
        assert_eq!(names, ["b", "a"]);
    }
}
