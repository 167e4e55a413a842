//! What a call costs, on one page: the harness behind `cargo bench`.
//!
//! Absolute times move with the machine; ratios taken in one run, interleaved, are what the documents
//! quote. This crate measures and must not be depended on.

pub mod in_process_tier;
pub mod process_tier;
pub mod raw_socket;
pub mod report;
