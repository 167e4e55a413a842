//! Two rings of bytes in shared memory, one for each direction: what a socket does, without a system call while
//! both sides are awake.
//!
//! Each side has a region of its own, which only it writes; the other maps it read-only. A region is one page of
//! words ([`pit_core::byte_ring::Control`]) and then the bytes of the ring that its owner writes:
//!
//! ```text
//! host's region        tail | head | asleep | wants_room || bytes host -> extension
//! extension's region   tail | head | asleep | wants_room || bytes extension -> host
//!
//! tail        bytes that the owner has written to its ring since the connection began
//! head        bytes that the owner has read from the other's ring
//! asleep      odd while the owner's reader sleeps and must be woken when bytes come
//! wants_room  odd while the owner's writer waits until the other has read
//! ```
//!
//! Frames lie in a ring exactly as on a socket, so whatever is longer than the ring passes through it in pieces.
//! Who sleeps is woken by a frame on the socket ([`ipc_protocol::Kind::Wake`]), which also tells that the other
//! side is gone. Why not by an eventfd or a futex is in `docs/adr/0012-shared-memory.md`.
//!
//! The other side's region is hostile ground: its words are read once and checked, its bytes are copied out before
//! anything looks at them, and seals keep it from shrinking. What contradicts itself is a
//! [`Violation`](crate::framing::Violation). This module must not know frames.
//!
//! Reading order: [`pit_core::byte_ring`] (who may read and write how far, and who must wake whom), `region` (the memory),
//! `halves` (both together), [`grant`] (how an extension gets them), [`patience`] (how long to poll before sleeping).

pub mod grant;
mod halves;
pub mod patience;
mod region;

pub use halves::{Halves, Offer, RingReader, RingWriter};
pub use patience::{Latency, Patience};

/// Bytes of one direction's ring. A power of two: larger than a message that is worth a copy through it, and small
/// enough that what an extension has used of it stays in the second-level cache.
pub const RING_BYTES: usize = 256 << 10;
