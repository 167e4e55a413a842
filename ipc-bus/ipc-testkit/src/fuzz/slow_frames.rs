//! A decoder of frames that has all bytes at once: slow, and short enough to be read against
//! `docs/protocol.md`. Must not use the real one, nor its header.

use ipc_protocol::limits::{
    CONTROL_BYTES_MAX, FRAME_BODY_BYTES_MAX, FRAME_DESCRIPTORS_MAX, MESSAGE_BYTES_MAX, PARTIAL_MESSAGES_MAX,
};
use ipc_protocol::{Codec, Flags, Header, HeaderError, Kind};
use ipc_transport::framing::{READ_BUFFER_BYTES, Violation};

/// Bytes of a header.
pub(super) const HEADER: usize = 32;

/// The longest body that nobody is asked for: it fits half of the read buffer, with its header.
pub(super) const UNASKED_BODY_BYTES_MAX: usize = READ_BUFFER_BYTES / 2 - HEADER;

/// What a stream of bytes says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Heard {
    /// Whole messages, in the order of their last frames.
    pub(super) messages: Vec<(Header, Vec<u8>)>,
    /// Where the first frame of each of them begins, and where the last one ends.
    pub(super) places: Vec<(usize, usize)>,
    /// Messages for which it was asked whether somebody wants them, in the order of their first frames.
    pub(super) asked: Vec<(Kind, u64)>,
    /// The first violation. Nothing after it was looked at.
    pub(super) violation: Option<Violation>,
    /// Whether the bytes end within a message.
    pub(super) is_mid_message: bool,
}

/// Cuts `wire` into messages. `wanted` is asked for those that are too large to lie in the read buffer.
pub(super) fn hear(wire: &[u8], message_bytes_max: u64, wanted: fn(&Header) -> bool) -> Heard {
    let mut heard = Heard::default();
    let mut half = Vec::new();
    match walk(wire, message_bytes_max.min(MESSAGE_BYTES_MAX), wanted, &mut heard, &mut half) {
        Ok(rest) => heard.is_mid_message = rest || !half.is_empty(),
        Err(violation) => heard.violation = Some(violation),
    }
    heard
}

struct Half {
    header: Header,
    body: Vec<u8>,
    length: u64,
    begins: usize,
    is_wanted: bool,
}

/// Returns whether bytes are left.
fn walk(
    wire: &[u8],
    message_bytes_max: u64,
    wanted: fn(&Header) -> bool,
    heard: &mut Heard,
    half: &mut Vec<Half>,
) -> Result<bool, Violation> {
    let mut rest = wire;
    while rest.len() >= HEADER {
        let begins = wire.len() - rest.len();
        let header = header(rest)?;
        let Header { kind, id, length, .. } = header;
        let wrong = |what| Err(Violation::Frame { kind, id, what });
        let too_large = Err(Violation::MessageTooLarge { kind, id, limit: message_bytes_max });
        let goes_on = header.flags.to_wire() & 1 != 0;
        if header.codec == Codec::None && length > 0 {
            return wrong("has a body without a codec");
        }
        if is_payload(kind) && u64::from(length) > message_bytes_max {
            return too_large;
        }
        if goes_on && !is_payload(kind) {
            return wrong("is to go on in another frame, which only payloads may");
        }
        if goes_on && length == 0 {
            return wrong("is to go on in another frame and is empty");
        }
        let begun = half.iter().position(|half| half.header.kind == kind && half.header.id == id);
        let body = &rest[HEADER..];
        if begun.is_none() && !goes_on && length as usize <= UNASKED_BODY_BYTES_MAX {
            if body.len() < length as usize {
                return Ok(true);
            }
            let (body, after) = body.split_at(length as usize);
            heard.messages.push((header, body.to_vec()));
            heard.places.push((begins, wire.len() - after.len()));
            rest = after;
            continue;
        }
        if half.iter().map(|half| half.length).sum::<u64>() + u64::from(length) > message_bytes_max {
            return too_large;
        }
        let place = match begun {
            Some(place) => {
                let first = half[place].header;
                if first.epoch != header.epoch || first.codec != header.codec {
                    return wrong("goes on with another epoch or codec than it began with");
                }
                if header.flags.to_wire() > 1 || header.descriptors > 0 {
                    return wrong("goes on with flags or descriptors that belong to its first frame");
                }
                place
            }
            None if half.len() == PARTIAL_MESSAGES_MAX => return Err(Violation::PartialMessages),
            None => {
                heard.asked.push((kind, id));
                half.push(Half { header, body: Vec::new(), length: 0, begins, is_wanted: wanted(&header) });
                half.len() - 1
            }
        };
        half[place].length += u64::from(length);
        if half[place].is_wanted {
            half[place].body.extend(&body[..body.len().min(length as usize)]);
        }
        if body.len() < length as usize {
            return Ok(true);
        }
        rest = &body[length as usize..];
        if !goes_on {
            let Half { mut header, body, length, begins, .. } = half.remove(place);
            header.length = u32::try_from(length).expect("a message is below 4 GiB");
            header.flags = header.flags.without_more();
            heard.messages.push((header, body));
            heard.places.push((begins, wire.len() - rest.len()));
        }
    }
    Ok(!rest.is_empty())
}

fn is_payload(kind: Kind) -> bool {
    [Kind::Call, Kind::Reply, Kind::StreamData, Kind::HostCall, Kind::HostReply].contains(&kind)
}

/// The fields by their offsets in the protocol's page.
fn header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let number = |at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let small = |at| u32::try_from(number(at, 4)).expect("four bytes");
    let kind = Kind::ALL.iter().find(|kind| **kind as u8 == bytes[4]).ok_or(HeaderError::Kind(bytes[4]))?;
    let codec = match bytes[5] {
        0 => Codec::None,
        1 => Codec::MessagePack,
        2 => Codec::Wincode,
        other => return Err(HeaderError::Codec(other)),
    };
    let mut flags = Flags::NONE;
    for (bit, flag) in [(1, Flags::MORE), (2, Flags::METADATA), (4, Flags::SEGMENT)] {
        if bytes[6] & bit != 0 {
            flags = flags.union(flag);
        }
    }
    if bytes[6] > 7 {
        return Err(HeaderError::Flags(bytes[6]));
    }
    if bytes[7] > FRAME_DESCRIPTORS_MAX {
        return Err(HeaderError::Descriptors(bytes[7]));
    }
    let limit = if is_payload(*kind) { FRAME_BODY_BYTES_MAX } else { CONTROL_BYTES_MAX };
    let length = small(0);
    if length > limit {
        return Err(HeaderError::Length { kind: *kind, length, limit });
    }
    Ok(Header {
        length,
        kind: *kind,
        codec,
        flags,
        descriptors: bytes[7],
        epoch: small(8),
        method: small(12),
        id: number(16, 8),
        aux: number(24, 8),
    })
}

/// One frame of a stream.
pub(super) struct FrameAt<'a> {
    pub(super) header: Header,
    /// As far as it came.
    pub(super) body: &'a [u8],
    pub(super) is_whole: bool,
}

/// The frame that begins there, if its header is whole.
pub(super) fn frame_at(bytes: &[u8], at: usize) -> Option<FrameAt<'_>> {
    let (header, rest) = bytes.get(at..)?.split_first_chunk::<HEADER>()?;
    let header = Header::decode(header).expect("the host sends headers");
    let length = header.length as usize;
    Some(FrameAt { header, body: &rest[..rest.len().min(length)], is_whole: rest.len() >= length })
}
