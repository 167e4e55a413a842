//! The whole Pit at a glance, for whoever asks a run what it is doing.
//!
//! Copies, taken part by part while everything goes on: each part is true by itself, and they are not all of one
//! moment. This file must not know how a run is carried out.

use std::fmt;
use std::time::Duration;

use artifact_store::Usage;
use dag_tracker::State;
use pit_core::clock::{Clock as _, Tick};
use pool_manager::{ModelState, PoolTotals};

use crate::bridge::ExpiringThing;
use crate::pit::Pit;
use crate::printable::{self, counted};
use crate::progress::{human_bytes, human_time};

/// LIMIT: steps, claims and things of one list that are told one by one.
const LISTED_MAX: usize = 32;

/// What the five parts of a Pit hold.
#[derive(Debug)]
pub struct PitSnapshot {
    /// When it was taken, on the Pit's clock.
    pub now: Tick,
    /// The run and its steps; `None` before it has begun.
    pub run: Option<dag_tracker::Snapshot>,
    /// Resources, grants, and claims that wait.
    pub claims: arbitration::Snapshot,
    /// Models, in the order of their declaration.
    pub models: Vec<ModelState>,
    /// What all models have done.
    pub pools: PoolTotals,
    /// What the artifact store keeps open.
    pub artifacts: Usage,
    /// How many things are watched, and what became of others.
    pub expiry: stale_manager::Snapshot,
    /// What expires next if nobody uses it, the earliest first.
    pub expiring: Vec<ExpiringThing>,
}

impl Pit {
    /// What everything in the Pit looks like now.
    ///
    /// # Concurrency
    /// Stops nobody: the states of steps and models are read without a lock, and the arbiter's and the stale manager's
    /// locks are held for a copy each.
    #[must_use]
    pub fn snapshot(&self) -> PitSnapshot {
        PitSnapshot {
            now: self.expiring.clock().now(),
            run: self.run.get().map(dag_tracker::RunView::snapshot),
            claims: self.arbiter.snapshot(),
            models: self.pools.snapshot(),
            pools: self.pools.totals(),
            artifacts: self.artifacts.usage(),
            expiry: self.expiring.snapshot(),
            expiring: self.expiring.soon(Tick::NEVER, LISTED_MAX),
        }
    }
}

impl PitSnapshot {
    fn write_run(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(run) = &self.run else { return writeln!(f, "the run has not begun") };
        let tally = run.tally();
        writeln!(f, "the run: {} of {} ended", tally.ended(), counted(tally.total().into(), "step"))?;
        let steps = run.view().graph().steps().filter(|step| !run.status(*step).state.is_ended());
        let mut left_out = 0_u64;
        for (place, step) in steps.enumerate() {
            if place >= LISTED_MAX {
                left_out += 1;
                continue;
            }
            // `why` is of now and may be ahead of the snapshot: a later word is no wrong one.
            write!(f, "  {}", run.view().why(step))?;
            let items = run
                .view()
                .item_tally(step)
                .map(|tally| (tally.of(State::Running), tally.of(State::BackingOff)));
            match items {
                Some((running, 0)) => write!(f, ", {running} in flight")?,
                Some((running, resting)) => {
                    write!(f, ", {running} in flight, {resting} between two attempts")?
                }
                None => {}
            }
            writeln!(f)?;
        }
        if left_out > 0 { writeln!(f, "  and {} more", counted(left_out, "step")) } else { Ok(()) }
    }

    fn write_claims(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arbitration::Snapshot { resources, grants, waiters, .. } = &self.claims;
        writeln!(f, "claims: {} held, {} waiting", grants.len(), waiters.len())?;
        for resource in resources {
            let held = resource.capacity.saturating_sub(resource.free);
            writeln!(f, "  {}: {held} of {} held", resource.name, resource.capacity)?;
        }
        for waiter in waiters.iter().take(LISTED_MAX) {
            write!(f, "  a claim of")?;
            for (place, (resource, amount)) in waiter.amounts.iter().enumerate() {
                let name = resources.get(resource.index() as usize).map_or("?", |resource| &*resource.name);
                write!(f, "{} {name} {amount}", if place == 0 { "" } else { "," })?;
            }
            writeln!(f, " waits for {}", human_time(self.now.since(waiter.since)))?;
        }
        Ok(())
    }

    fn write_models(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PoolTotals { loads, unloads, memory_bytes, .. } = self.pools;
        write!(f, "models: {}", self.models.len())?;
        if loads > 0 {
            write!(f, ", {loads} loaded, {unloads} unloaded, {} in use", human_bytes(memory_bytes))?;
        }
        writeln!(f)?;
        for model in self.models.iter().take(LISTED_MAX) {
            let ModelState { name, capacity, leased, waiting, loading, resting, .. } = model;
            write!(f, "  {name}: {leased} of {capacity} leased, {waiting} waiting")?;
            for (count, what) in [(loading, "being loaded"), (resting, "resting after a failure")] {
                if *count > 0 {
                    write!(f, ", {} {what}", counted((*count).into(), "instance"))?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_kept(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { open_artifacts, ephemeral_artifacts, ephemeral_bytes, is_poisoned, .. } = self.artifacts;
        write!(f, "artifacts: {open_artifacts} open")?;
        if ephemeral_artifacts > 0 {
            write!(f, ", {ephemeral_artifacts} in memory ({})", human_bytes(ephemeral_bytes))?;
        }
        writeln!(f, "{}", if is_poisoned { "; a sync has failed, and nothing more is taken" } else { "" })?;
        let stale_manager::Snapshot { registered, evicted, .. } = self.expiry;
        writeln!(f, "expiring: {registered} watched, {evicted} expired")?;
        for thing in &self.expiring {
            // A touch counts when the next sweep has seen it, so that this is the earliest moment.
            let left = human_time(thing.deadline.since(self.now).max(Duration::from_millis(1)));
            writeln!(f, "  {} in {left}, if nobody uses it", printable::line(&thing.name))?;
        }
        Ok(())
    }
}

impl fmt::Display for PitSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_run(f)?;
        self.write_claims(f)?;
        self.write_models(f)?;
        self.write_kept(f)
    }
}
