//! Tests of the store against real files, real full disks and processes that die.
#![expect(clippy::unwrap_used, reason = "in a test an unexpected error ends it, and says where")]

mod recording;
mod support;
mod writable;

mod children;
mod concurrency;
mod corruption;
mod crash;
mod crash_states;
mod faults;
mod full_disk;
mod names;
mod opening;
mod store;
mod batch;
mod damaged_packs;
mod collect;
mod ephemeral;
mod sources;
mod witness;
