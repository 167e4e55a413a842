//! The atomics facade: the standard library's primitives, or loom's when a model is run.
//!
//! Code that is modelled takes its atomics, locks and `Arc` from here and from nowhere else. The facade knows nothing
//! about who uses it; it only lists what is used.
//!
//! Models run with `RUSTFLAGS="--cfg loom" cargo test -p CRATE --release --lib model`; each sits in a module named
//! `model`, so that CI can count them.

#[cfg(not(loom))]
pub use std::sync::{Arc, Mutex, MutexGuard};

#[cfg(loom)]
pub use loom::sync::{Arc, Mutex, MutexGuard};

/// Atomic integers and their orderings.
pub mod atomic {
    #[cfg(not(loom))]
    pub use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
}
