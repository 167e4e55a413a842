//! The fixed header in front of every frame.
//!
//! ```text
//! offset  size  field        meaning
//!      0     4  length       bytes of the body that follows, at most FRAME_BODY_BYTES_MAX
//!      4     1  kind         what the frame is (Kind)
//!      5     1  codec        how the body is encoded (Codec)
//!      6     1  flags        bits (Flags)
//!      7     1  descriptors  file descriptors that travel with this frame
//!      8     4  epoch        incarnation of the extension's instance
//!     12     4  method       call, host call: index into the method table of the handshake; else 0
//!     16     8  id           call or stream that the frame belongs to; 0 where there is none
//!     24     8  aux          call: microseconds left until the deadline (0: none)
//!                            host call: id of the call that it serves
//!                            stream credit: bytes granted in total since the stream began
//!                            fault: retry-after in milliseconds (0: none)
//! ```
//!
//! All integers are little-endian. The length is checked before anything is allocated.

use crate::limits::{CONTROL_BYTES_MAX, FRAME_BODY_BYTES_MAX, FRAME_DESCRIPTORS_MAX};

/// Bytes of an encoded [`Header`].
pub const HEADER_BYTES: usize = 32;

macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_meta])* $variant = $value,)* }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The value with this number, or `None` when this version does not know it.
            #[must_use]
            pub const fn from_wire(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Self::$variant),)* _ => None }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn to_wire(self) -> u8 { self as u8 }
        }
    };
}

wire_enum! {
    /// What a frame is. Numbers are append-only. `docs/protocol.md` says who sends which, and when.
    Kind {
        /// Host to extension, first: [`crate::handshake::Hello`].
        Hello = 1,
        /// Extension's answer: [`crate::handshake::Welcome`].
        Welcome = 2,
        /// Extension's own start is over, calls may come: [`crate::handshake::Ready`].
        Ready = 3,
        /// A call; body: the arguments.
        Call = 4,
        /// The successful end of a call; body: the result.
        Reply = 5,
        /// The failed end of a call; body: [`crate::Fault`].
        Fault = 6,
        /// The caller no longer wants the answer. The call is still answered, once. No body.
        Cancel = 7,
        /// How far a call is: [`crate::control::Progress`].
        Progress = 8,
        /// A piece of a stream; body: one item.
        StreamData = 9,
        /// The reader's permission to send more: total bytes in `aux`. No body.
        StreamCredit = 10,
        /// The writer is done; body: empty, or the [`crate::Fault`] that ended it.
        StreamEnd = 11,
        /// The reader is done. No body.
        StreamDrop = 12,
        /// An extension's own event: [`crate::control::Event`].
        Event = 13,
        /// A log record: [`crate::control::LogRecord`].
        Log = 14,
        /// Answer with `Pong` and the same id. No body.
        Ping = 15,
        /// The answer to `Ping`. No body.
        Pong = 16,
        /// Extension calls the host, or another extension through it; `aux`: the call that it serves.
        HostCall = 17,
        /// The successful end of a host call.
        HostReply = 18,
        /// The failed end of a host call; body: [`crate::Fault`].
        HostFault = 19,
        /// No new calls will come; finish those in flight. No body.
        Drain = 20,
        /// The last frame of a side: [`crate::control::Goodbye`].
        Goodbye = 21,
        /// From a thread of its own, every few seconds: [`crate::control::Heartbeat`].
        Heartbeat = 22,
        /// A descriptor that belongs to a call or a segment pool: [`crate::control::DescriptorGrant`].
        Descriptor = 23,
        /// A shared segment goes back to its writer; `aux`: its index. No body.
        SegmentReturn = 24,
        /// Over the socket, to a peer that sleeps: look into the ring. No body.
        Wake = 25,
    }
}

impl Kind {
    /// Whether the body is the user's payload (arguments, result, stream item), which may come in several
    /// frames, and not a control message of bounded size.
    #[must_use]
    pub const fn carries_payload(self) -> bool {
        matches!(self, Self::Call | Self::Reply | Self::StreamData | Self::HostCall | Self::HostReply)
    }
}

wire_enum! {
    /// How a body is encoded.
    Codec {
        /// There is no body.
        None = 0,
        /// MessagePack with named fields; always accepted.
        MessagePack = 1,
        /// wincode, where both sides reported the same schema hash for the method.
        Wincode = 2,
    }
}

/// Bits of a header. Bits that this version does not define must be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No bit set.
    pub const NONE: Self = Self(0);
    /// The message goes on in the next frame of the same kind and id.
    pub const MORE: Self = Self(1);
    /// The body begins with a `u32` length and as many bytes of [`crate::control::Metadata`].
    pub const METADATA: Self = Self(1 << 1);
    /// The body is not inline: it lies in a shared segment, and the inline bytes say where
    /// ([`crate::control::SegmentSpan`]).
    pub const SEGMENT: Self = Self(1 << 2);
    const DEFINED: u8 = 0b111;

    /// The flags of a byte, or `None` if it has a bit that this version does not define.
    #[must_use]
    pub const fn from_wire(byte: u8) -> Option<Self> {
        if byte & !Self::DEFINED == 0 { Some(Self(byte)) } else { None }
    }

    /// The byte on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        self.0
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The same bits without [`Self::MORE`].
    #[must_use]
    pub const fn without_more(self) -> Self {
        Self(self.0 & !Self::MORE.0)
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The fixed part of a frame. See the module for the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub length: u32,
    /// What the frame is.
    pub kind: Kind,
    /// How the body is encoded.
    pub codec: Codec,
    /// See [`Flags`].
    pub flags: Flags,
    /// File descriptors that travel with this frame.
    pub descriptors: u8,
    /// Incarnation of the instance: it changes at every start.
    pub epoch: u32,
    /// Index into the method table of the handshake.
    pub method: u32,
    /// The call or stream that this frame belongs to.
    pub id: u64,
    /// Depends on the kind.
    pub aux: u64,
}

/// Why bytes are not a header of this version. Any of these is a protocol violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The kind is not one of [`Kind`].
    #[error("frame kind {0} is not known to protocol version 1")]
    Kind(u8),
    /// The codec is not one of [`Codec`].
    #[error("codec {0} is not known to protocol version 1")]
    Codec(u8),
    /// A bit outside [`Flags`] is set.
    #[error("flags {0:#010b} have bits that protocol version 1 does not define")]
    Flags(u8),
    /// The body is longer than allowed.
    #[error("a {kind:?} frame announces {length} bytes, above the limit of {limit}")]
    Length {
        /// The frame's kind.
        kind: Kind,
        /// What it announces.
        length: u32,
        /// What is allowed.
        limit: u32,
    },
    /// More descriptors than allowed.
    #[error("a frame announces {0} descriptors, above the limit of {FRAME_DESCRIPTORS_MAX}")]
    Descriptors(u8),
}

impl Header {
    /// A header with the given kind and id, without a body, and zero elsewhere.
    #[must_use]
    pub const fn new(kind: Kind, epoch: u32, id: u64) -> Self {
        Self {
            length: 0,
            kind,
            codec: Codec::None,
            flags: Flags::NONE,
            descriptors: 0,
            epoch,
            method: 0,
            id,
            aux: 0,
        }
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = self.kind.to_wire();
        bytes[5] = self.codec.to_wire();
        bytes[6] = self.flags.to_wire();
        bytes[7] = self.descriptors;
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.method.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.aux.to_le_bytes());
        bytes
    }

    /// Reads a header and checks everything that can be checked without the body.
    ///
    /// # Errors
    ///
    /// [`HeaderError`]: the peer does not speak this protocol. End the connection; nothing after these bytes
    /// can be trusted.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | (u64::from(u32_at(at + 4)) << 32);
        let kind = Kind::from_wire(bytes[4]).ok_or(HeaderError::Kind(bytes[4]))?;
        let codec = Codec::from_wire(bytes[5]).ok_or(HeaderError::Codec(bytes[5]))?;
        let flags = Flags::from_wire(bytes[6]).ok_or(HeaderError::Flags(bytes[6]))?;
        let descriptors = bytes[7];
        if descriptors > FRAME_DESCRIPTORS_MAX {
            return Err(HeaderError::Descriptors(descriptors));
        }
        let length = u32_at(0);
        let limit = if kind.carries_payload() { FRAME_BODY_BYTES_MAX } else { CONTROL_BYTES_MAX };
        if length > limit {
            return Err(HeaderError::Length { kind, length, limit });
        }
        Ok(Self {
            length,
            kind,
            codec,
            flags,
            descriptors,
            epoch: u32_at(8),
            method: u32_at(12),
            id: u64_at(16),
            aux: u64_at(24),
        })
    }
}
