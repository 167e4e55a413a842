//! The conductor: runs melodies through extensions in processes of their own.
//!
//! ```text
//! cli --> doctor, scaffold; melody (graph) --> drawing
//! cli --> config, catalog, build --> melody (plan) --> engine --> document
//! cli --> serving (the listening socket) --> extension-host
//!                                                        |
//!              bridge <-- the only place where types of the Pit, of the wire and of melodies meet
//!                |
//!        pit (claims, leases, artifacts, expiry)   extension-host (instances, calls)
//! ```
//!
//! The library exists for the binary and its tests. Errors travel up as typed values and are printed once,
//! by [`cli`].

pub mod config;
pub mod document;
pub mod exit;
pub mod logs;
pub mod printable;
pub mod progress;
pub mod run_id;
pub mod signals;
pub mod terminal;
pub mod trust;

pub mod melody;

pub mod drawing;

pub mod build;
pub mod catalog;
pub mod described;

pub mod bridge;
pub mod hosting;
pub mod pit;
pub mod pit_snapshot;

pub mod engine;

pub mod serving;

pub mod scaffold;

pub mod doctor;

pub mod cli;
