//! Streams: items that follow a result, one after the other, as fast as their reader takes them.
//!
//! ```text
//! writer                                  reader
//!   Reply, with the stream's id in it -->
//!          <------------------------------  StreamCredit   bytes that may come, in total,
//!   StreamData ------------------------->                  those of each item and 32 more
//!   StreamEnd -------------------------->                  or StreamDrop, from the reader
//! ```
//!
//! A value names a stream by a MessagePack extension of the type [`EXTENSION_TYPE`] with the eight bytes of its id,
//! little-endian.

/// The MessagePack extension type of a stream's id.
pub const EXTENSION_TYPE: i8 = 1;

/// What an item counts against the credit beside the bytes of its body: as much as its frame's header, so that many small
/// items are bounded as well.
pub const ITEM_OVERHEAD_BYTES: u64 = crate::frame::HEADER_BYTES as u64;

/// The bit that is set in the id of a stream that an extension writes, and in no other.
pub const OF_EXTENSION: u64 = 1 << 63;
