//! What the stale manager promises, seen from outside: what expires when, races of touch, cancel and eviction, slices, and
//! random histories held against a slow reference.
#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking, as the test does")]

mod eviction;
mod simulation;
mod slices;
mod support;
mod threads;
