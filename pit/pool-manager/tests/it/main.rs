//! What the pools promise, seen from outside: order, fences, withdrawal, loading, rests, blocking, threads, and random
//! histories held against a slow reference.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking, as the test does")]

mod allocation;
mod budget;
mod declaration;
mod holders;
mod instances;
mod loading;
mod memory;
mod panics;
mod simulation;
mod support;
mod threads;
