//! Bytes in, whole messages out; messages in, bytes out. Used by both sides of every stream.
//!
//! No I/O and no clock: the owner reads and writes. This module must not know what a call is, who the peer
//! is, or which kinds may come when; it knows the header, the limits, and how a message goes on in a second
//! frame.
//!
//! ```text
//!              header is whole       body fits the buffer            MORE not set
//!   waiting ------------------> framed -----------------> in place ------------------> handed out (borrowed)
//!      ^                          |                           | MORE set, or goes on
//!      |                          | body is larger            v
//!      |                          +----------------------> assembled in a vector of its own
//!      |                                                      |  last frame ended
//!      +------------------------------------------------------+-----------------------> handed out (owned)
//! ```
//!
//! A length is compared with its limit before a byte is reserved for it, and a body gets memory only as far
//! as its bytes have arrived, at most one frame and a quarter of itself ahead. A message that is to be assembled
//! and that nobody wants is counted and not stored.

mod append;

use std::io;

use bytes::Bytes;
use ipc_protocol::frame::HEADER_BYTES;
use ipc_protocol::limits::{MESSAGE_BYTES_MAX, PARTIAL_MESSAGES_MAX};
use ipc_protocol::{Codec, Flags, Header, HeaderError, Kind};
use serde::de::DeserializeOwned;

use crate::scan::scan;
pub use append::{append_frame, append_frame_with, append_message, split_frames};

/// LIMIT: bytes that one connection buffers before frames are cut out of them.
pub const READ_BUFFER_BYTES: usize = 64 << 10;

/// LIMIT: the longest body that is cut out of the read buffer in place; longer ones are assembled.
const IN_PLACE_BODY_BYTES_MAX: usize = READ_BUFFER_BYTES / 2 - HEADER_BYTES;

/// A whole message: frames that belong together are assembled already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The first frame's header, with the length of the whole body and without [`Flags::MORE`].
    pub header: Header,
    /// The whole body.
    pub body: Bytes,
}

/// A whole message whose body may still lie in the buffer that it was read into.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameRef<'a> {
    /// As [`Frame::header`].
    pub header: Header,
    /// The whole body.
    pub body: Body<'a>,
}

/// A body: borrowed from the read buffer where it is small and came in one frame, else on its own.
#[derive(Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// In the read buffer, until the next call to it.
    Borrowed(&'a [u8]),
    /// Assembled.
    Owned(Bytes),
}

impl Frame {
    /// The same message, its body borrowed.
    #[must_use]
    pub fn as_ref(&self) -> FrameRef<'_> {
        FrameRef { header: self.header, body: Body::Borrowed(&self.body) }
    }

    /// Decodes the body of a control message, after a look at its nesting.
    ///
    /// # Errors
    ///
    /// [`Violation::Body`]: the body is not what the kind says. End the connection.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Violation> {
        decode_body(&self.header, &self.body)
    }
}

impl FrameRef<'_> {
    /// As [`Frame::decode`].
    ///
    /// # Errors
    ///
    /// As [`Frame::decode`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Violation> {
        decode_body(&self.header, self.body.as_slice())
    }
}

fn decode_body<T: DeserializeOwned>(header: &Header, body: &[u8]) -> Result<T, Violation> {
    let wrong = |reason: String| Violation::Body { kind: header.kind, reason };
    if header.codec != Codec::MessagePack {
        return Err(wrong(format!("its codec is {:?}, not MessagePack", header.codec)));
    }
    scan(body).map_err(|error| wrong(error.to_string()))?;
    rmp_serde::from_slice(body).map_err(|error| wrong(error.to_string()))
}

impl Body<'_> {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(slice) => slice,
            Self::Owned(bytes) => bytes,
        }
    }

    /// The bytes on their own: copied if they are borrowed (they are few then), so that an answer which is
    /// kept does not keep a whole read buffer.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(slice) => Bytes::copy_from_slice(slice),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// What a peer did that the protocol does not allow. The first one ends the connection: nothing after it can
/// be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that are not a header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A frame whose fields contradict each other.
    #[error("a {kind:?} frame for id {id} {what}")]
    Frame {
        /// The frame's kind.
        kind: Kind,
        /// The frame's id.
        id: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More bytes in messages than the connection allows.
    #[error("the {kind:?} message for id {id} passes the limit of {limit} bytes")]
    MessageTooLarge {
        /// The message's kind.
        kind: Kind,
        /// The message's id.
        id: u64,
        /// Bytes of all messages that are half received.
        limit: u64,
    },
    /// More messages begun and not ended than allowed.
    #[error("more than {PARTIAL_MESSAGES_MAX} messages are half received")]
    PartialMessages,
    /// A control message that is not what its kind says.
    #[error("the body of a {kind:?} frame cannot be read: {reason}")]
    Body {
        /// The frame's kind.
        kind: Kind,
        /// What the decoder says.
        reason: String,
    },
    /// Words of a ring that cannot be.
    #[error("the ring's words contradict each other: {what}")]
    Ring {
        /// Which lie it is, as a clause.
        what: &'static str,
    },
    /// A frame that may not come, or not now.
    #[error("a {kind:?} frame for id {id} came, where {expected}")]
    Unexpected {
        /// The frame's kind.
        kind: Kind,
        /// The frame's id.
        id: u64,
        /// What may come instead, as a clause.
        expected: &'static str,
    },
}

#[derive(Debug)]
struct Partial {
    header: Header,
    body: Vec<u8>,
    /// Bytes announced so far.
    length: u64,
    is_wanted: bool,
}

/// The body of a frame that is longer than the buffer: its bytes go to its message as they come.
#[derive(Clone, Copy, Debug)]
struct Streaming {
    partial: usize,
    remaining: usize,
    is_last: bool,
}

/// Cuts whole messages out of a stream of bytes.
///
/// ```
/// use ipc_protocol::{Codec, Header, Kind};
/// use ipc_transport::framing::{FrameBuffer, append_frame};
///
/// let mut wire = Vec::new();
/// append_frame(&mut wire, Header { codec: Codec::MessagePack, ..Header::new(Kind::Call, 1, 7) }, b"\xc0");
///
/// let mut frames = FrameBuffer::new(1 << 20);
/// let mut wire = wire.as_slice();
/// frames.read_from(|room| std::io::Read::read(&mut wire, room))?;
/// let frame = frames.next_frame()?.expect("the whole frame was read");
/// assert_eq!((frame.header.id, &frame.body[..]), (7, &b"\xc0"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FrameBuffer {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    partials: Vec<Partial>,
    partial_bytes: u64,
    message_bytes_max: u64,
    streaming: Option<Streaming>,
    violation: Option<Violation>,
}

impl FrameBuffer {
    /// A buffer for one direction of one connection. All half-received messages together may have
    /// `message_bytes_max` bytes.
    #[must_use]
    pub fn new(message_bytes_max: u64) -> Self {
        Self {
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            partials: Vec::new(),
            partial_bytes: 0,
            message_bytes_max: message_bytes_max.min(MESSAGE_BYTES_MAX),
            streaming: None,
            violation: None,
        }
    }

    /// Another limit from here on: the handshake names the connection's.
    pub fn set_message_bytes_max(&mut self, message_bytes_max: u64) {
        self.message_bytes_max = message_bytes_max.min(MESSAGE_BYTES_MAX);
    }

    /// Calls `f` once with spare room and takes as many bytes as it says. Returns what `f` returned.
    ///
    /// INVARIANT: after [`Self::next_frame`] said `None` at least half of the buffer is spare, so a read of
    /// zero bytes means the end of the stream.
    ///
    /// # Errors
    ///
    /// Those of `f`; nothing changed then.
    ///
    /// # Panics
    ///
    /// When `f` claims more bytes than it had room for.
    pub fn read_from(&mut self, mut f: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.buffer.len() - self.end < READ_BUFFER_BYTES / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let read = f(&mut self.buffer[self.end..])?;
        assert!(read <= self.buffer.len() - self.end, "a read returned more bytes than it had room for");
        self.end += read;
        Ok(read)
    }

    /// Whether bytes of a message are here whose rest has not come.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.start != self.end || !self.partials.is_empty()
    }

    /// The bytes that are not yet part of a message: for an error that shows what came instead of a frame.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The next whole message, or `None` until more bytes were read.
    ///
    /// # Errors
    ///
    /// [`Violation`]: end the connection. The same one is returned ever after.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Violation> {
        Ok(self.next_frame_ref()?.map(|frame| Frame { header: frame.header, body: frame.body.into_bytes() }))
    }

    /// As [`Self::next_frame`], without an allocation for a small body.
    ///
    /// # Errors
    ///
    /// As [`Self::next_frame`].
    pub fn next_frame_ref(&mut self) -> Result<Option<FrameRef<'_>>, Violation> {
        self.next_frame_ref_if(|_| true)
    }

    /// As [`Self::next_frame_ref`]. Before a body is assembled, `wanted` is asked once, with the message's first
    /// header; if it says no, the bytes are skipped as they come, and the message is handed out at its end with
    /// the header's true length and an empty body. A body that is small enough to be handed out in place is not
    /// asked for.
    ///
    /// # Errors
    ///
    /// As [`Self::next_frame`].
    pub fn next_frame_ref_if(
        &mut self,
        mut wanted: impl FnMut(&Header) -> bool,
    ) -> Result<Option<FrameRef<'_>>, Violation> {
        if let Some(violation) = &self.violation {
            return Err(violation.clone());
        }
        match self.advance(&mut wanted) {
            Ok(None) => Ok(None),
            Ok(Some(Cut::InPlace { header, from, to })) => {
                Ok(Some(FrameRef { header, body: Body::Borrowed(&self.buffer[from..to]) }))
            }
            Ok(Some(Cut::Assembled { header, body })) => {
                Ok(Some(FrameRef { header, body: Body::Owned(body) }))
            }
            Err(violation) => {
                self.partials = Vec::new();
                self.violation = Some(violation.clone());
                Err(violation)
            }
        }
    }

    fn advance(&mut self, wanted: &mut dyn FnMut(&Header) -> bool) -> Result<Option<Cut>, Violation> {
        loop {
            if let Some(streaming) = self.streaming {
                let take = streaming.remaining.min(self.end - self.start);
                let partial = &mut self.partials[streaming.partial];
                if partial.is_wanted {
                    partial.body.extend_from_slice(&self.buffer[self.start..self.start + take]);
                }
                self.start += take;
                if take < streaming.remaining {
                    self.streaming = Some(Streaming { remaining: streaming.remaining - take, ..streaming });
                    return Ok(None);
                }
                self.streaming = None;
                if streaming.is_last {
                    return Ok(Some(self.finish(streaming.partial)));
                }
            }
            let Some(bytes) = self.buffer[self.start..self.end].first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let header = Header::decode(bytes)?;
            let length = header.length as usize;
            // The common case first: one frame, in place, nothing of its message before it.
            if header.flags.to_wire() & Flags::MORE.to_wire() == 0
                && length <= IN_PLACE_BODY_BYTES_MAX
                && self.partials.is_empty()
            {
                self.check_single(&header)?;
                let from = self.start + HEADER_BYTES;
                if self.end - from < length {
                    return Ok(None);
                }
                self.start = from + length;
                return Ok(Some(Cut::InPlace { header, from, to: from + length }));
            }
            match self.begin(header, wanted)? {
                Begun::Streaming => {}
                Begun::InPlace if self.end - self.start - HEADER_BYTES < length => return Ok(None),
                Begun::InPlace => {
                    let from = self.start + HEADER_BYTES;
                    self.start = from + length;
                    return Ok(Some(Cut::InPlace { header, from, to: from + length }));
                }
            }
        }
    }

    fn check_single(&self, header: &Header) -> Result<(), Violation> {
        let Header { kind, id, length, .. } = *header;
        if header.codec == Codec::None && length != 0 {
            return Err(Violation::Frame { kind, id, what: "has a body without a codec" });
        }
        if u64::from(length) > self.message_bytes_max && kind.carries_payload() {
            return Err(Violation::MessageTooLarge { kind, id, limit: self.message_bytes_max });
        }
        Ok(())
    }

    /// Finds where the body of a frame belongs; for a body that is assembled the header is consumed.
    fn begin(&mut self, header: Header, wanted: &mut dyn FnMut(&Header) -> bool) -> Result<Begun, Violation> {
        let Header { kind, id, .. } = header;
        let more = header.flags.contains(Flags::MORE);
        let length = header.length as usize;
        let wrong = |what| Err(Violation::Frame { kind, id, what });
        self.check_single(&header)?;
        if more && !kind.carries_payload() {
            return wrong("is to go on in another frame, which only payloads may");
        }
        if more && length == 0 {
            return wrong("is to go on in another frame and is empty");
        }
        let found = self.partials.iter().position(|p| p.header.kind == kind && p.header.id == id);
        if found.is_none() && !more && length <= IN_PLACE_BODY_BYTES_MAX {
            return Ok(Begun::InPlace);
        }
        if self.partial_bytes + u64::from(header.length) > self.message_bytes_max {
            return Err(Violation::MessageTooLarge { kind, id, limit: self.message_bytes_max });
        }
        let partial = match found {
            Some(index) => {
                let first = &self.partials[index].header;
                if (header.epoch, header.codec) != (first.epoch, first.codec) {
                    return wrong("goes on with another epoch or codec than it began with");
                }
                if header.flags.to_wire() & !Flags::MORE.to_wire() != 0 || header.descriptors != 0 {
                    return wrong("goes on with flags or descriptors that belong to its first frame");
                }
                index
            }
            None if self.partials.len() == PARTIAL_MESSAGES_MAX => return Err(Violation::PartialMessages),
            None => {
                let is_wanted = wanted(&header);
                self.partials.push(Partial { header, body: Vec::new(), length: 0, is_wanted });
                self.partials.len() - 1
            }
        };
        self.partial_bytes += u64::from(header.length);
        let Partial { body, length: announced, is_wanted, .. } = &mut self.partials[partial];
        *announced += u64::from(header.length);
        // The total is not known before the last frame. To grow by a quarter, not to twice the size, costs few more
        // copies and keeps what a large message takes near its size.
        if *is_wanted && body.capacity() - body.len() < length {
            body.reserve_exact(length.max(body.len() / 4));
        }
        self.start += HEADER_BYTES;
        self.streaming = Some(Streaming { partial, remaining: length, is_last: !more });
        Ok(Begun::Streaming)
    }

    fn finish(&mut self, partial: usize) -> Cut {
        let Partial { mut header, body, length, .. } = self.partials.swap_remove(partial);
        self.partial_bytes -= length;
        // INVARIANT: a body is at most MESSAGE_BYTES_MAX long, which fits the field.
        header.length = u32::try_from(length).unwrap_or(u32::MAX);
        header.flags = header.flags.without_more();
        Cut::Assembled { header, body: Bytes::from(body) }
    }
}

enum Begun {
    InPlace,
    Streaming,
}

enum Cut {
    InPlace { header: Header, from: usize, to: usize },
    Assembled { header: Header, body: Bytes },
}
