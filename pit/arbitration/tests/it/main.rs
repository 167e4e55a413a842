//! What an arbiter promises, seen from outside: refusals, order, withdrawal, blocking, threads, and random histories
//! held against a slow reference.

#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking, as the test does")]

mod claims;
mod contention;
mod fairness;
mod growth;
mod notices;
mod simulation;
mod support;
mod threads;
mod preemption;
mod upgrades;
mod wakers;
