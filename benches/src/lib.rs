//! What a call costs, on one page: the harness behind `cargo bench`.
//!
//! Absolute times move with the machine; ratios taken in one run, interleaved, are what the documents
//! quote. This crate measures and must not be depended on.

pub mod asking;
pub mod disturbed;
pub mod in_process_tier;
pub mod lifecycle;
#[cfg(feature = "peers")]
pub mod peers;
pub mod process_tier;
pub mod raw_socket;
pub mod report;
pub mod shared_memory;

use anyhow::Context as _;

/// Keeps this thread, and what it starts from here on, on one core.
///
/// # Errors
///
/// When there is no such core for this process.
pub fn pin_to(core: usize) -> anyhow::Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).context("this process could not be pinned to a core")
}
