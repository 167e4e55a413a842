//! Policy-free building blocks that the Pit's crates and the bus share.
//!
//! The standard library only (the model checker joins in under `cfg(loom)`). What stands here decides nothing: it knows
//! no models, graphs, claims, artifacts, processes or messages. A piece moves in when its second user appears.
//!
//! - [`id!`]: newtypes for ids, index plus generation, printed as `task:17@3`.
//! - [`clock`]: monotonic time that tests can move by hand.
//! - [`priority`]: how urgent something is, and the rank that it has after waiting.
//! - [`wait`]: a future driven by a blocked thread, with a deadline.
//! - [`unwind`]: calling others one after the other, so that the panic of one costs the next nothing.
//! - [`sync`]: the atomics, locks and `Arc` of the standard library, or loom's in a model run.
//! - [`limit`]: a limit with a name.
//! - [`table`]: a table that only grows, read without a lock; [`slot`]: generation, owner and state in one word of it.
//! - [`shard`]: cache-line padding, homes for threads, and counters in shards with a snapshot of them.
//! - [`byte_ring`]: positions in a ring of bytes between two processes, and who must wake whom.
//! - [`ring`]: the last events, numbered, with the gaps shown to readers that are too slow.

mod ids;
pub mod sync;

pub mod clock;
pub mod priority;
pub mod unwind;
pub mod wait;

pub mod limit;
pub mod shard;
pub mod slot;
pub mod table;

pub mod byte_ring;
pub mod ring;
