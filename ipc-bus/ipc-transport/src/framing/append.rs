//! Messages in, frames out: the writing half of framing. Must not know sockets.

use ipc_protocol::frame::HEADER_BYTES;
use ipc_protocol::limits::FRAME_BODY_BYTES_MAX;
use ipc_protocol::{Codec, Flags, Header};
use serde::Serialize;

use crate::payload::{EncodeError, encode_into};

/// The frames of one message: a header and a slice of the body each. For a writer that does not want to
/// copy a large body; see [`append_frame`].
pub fn split_frames(header: Header, body: &[u8]) -> impl Iterator<Item = ([u8; HEADER_BYTES], &[u8])> {
    let mut rest = body;
    let mut first = true;
    std::iter::from_fn(move || {
        if rest.is_empty() && !first {
            return None;
        }
        let (part, after) = rest.split_at(rest.len().min(FRAME_BODY_BYTES_MAX as usize));
        rest = after;
        let mut header = header;
        // INVARIANT: a part is at most FRAME_BODY_BYTES_MAX long, which fits the field.
        header.length = u32::try_from(part.len()).unwrap_or(FRAME_BODY_BYTES_MAX);
        if !first {
            header.flags = Flags::NONE;
            header.descriptors = 0;
        }
        header.flags = header.flags.without_more();
        if !rest.is_empty() {
            header.flags = header.flags.union(Flags::MORE);
        }
        first = false;
        Some((header.encode(), part))
    })
}

/// The header of a message whose body of so many bytes fits one frame, and does so for most.
fn single_header(header: Header, length: usize) -> Option<[u8; HEADER_BYTES]> {
    let length = u32::try_from(length).ok().filter(|&length| length <= FRAME_BODY_BYTES_MAX)?;
    Some(Header { length, flags: header.flags.without_more(), ..header }.encode())
}

/// Appends one message, as several frames if its body is longer than one may be. Sets the header's length.
///
/// Only [`ipc_protocol::Kind::carries_payload`] kinds may be longer than one frame; the peer ends the connection otherwise.
pub fn append_frame(out: &mut Vec<u8>, header: Header, body: &[u8]) {
    if let Some(header) = single_header(header, body.len()) {
        out.reserve(HEADER_BYTES + body.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(body);
        return;
    }
    for (header, part) in split_frames(header, body) {
        out.extend_from_slice(&header);
        out.extend_from_slice(part);
    }
}

/// Appends one message whose body is `value` as MessagePack with named fields, encoded in place. Sets the
/// header's codec and length.
///
/// # Errors
///
/// [`EncodeError`]: the type's `Serialize` failed; `out` is as before.
pub fn append_message<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    mut header: Header,
    value: &T,
) -> Result<(), EncodeError> {
    header.codec = Codec::MessagePack;
    append_frame_with(out, header, |out| encode_into(value, out))
}

/// Appends one message whose body `write` appends, in place while it fits one frame. Sets the header's length.
///
/// # Errors
///
/// Those of `write`; `out` is as before.
pub fn append_frame_with<E>(
    out: &mut Vec<u8>,
    mut header: Header,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let at = out.len();
    out.extend_from_slice(&header.encode());
    if let Err(error) = write(out) {
        out.truncate(at);
        return Err(error);
    }
    let length = out.len() - at - HEADER_BYTES;
    match u32::try_from(length) {
        Ok(short) if short <= FRAME_BODY_BYTES_MAX => {
            header.length = short;
            out[at..at + HEADER_BYTES].copy_from_slice(&header.encode());
        }
        _ => {
            let body = out.split_off(at + HEADER_BYTES);
            out.truncate(at);
            append_frame(out, header, &body);
        }
    }
    Ok(())
}
