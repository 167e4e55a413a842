//! The streams of a connection: from the result that names them to their reader.
//!
//! What is decided is decided by the state; this module must not know credits.

use std::task::{Context, Poll, Waker};

use ipc_protocol::limits::STREAMS_MAX;
use ipc_protocol::{Codec, Fault, Kind};

use super::incoming::{check_plain, fault_of};
use super::{Connection, Shared};
use crate::framing::{Body, FrameRef, Violation};
use crate::outcome::{Answer, CallError, CallResult};
use crate::payload::Encoded;
use crate::stream::{IncomingStream, StreamSource, named_in};

/// The reading end of one stream. Keeps its connection open.
struct OfConnection {
    connection: Connection,
    id: u64,
}

impl StreamSource for OfConnection {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Encoded, CallError>>> {
        let shared = self.connection.shared();
        let mut state = shared.state.lock();
        let next = state.poll_stream(self.id, cx.waker());
        shared.finish(state, &mut Vec::new());
        next
    }
}

impl Drop for OfConnection {
    fn drop(&mut self) {
        let shared = self.connection.shared();
        let mut state = shared.state.lock();
        let rest = state.drop_stream(self.id);
        shared.finish(state, &mut Vec::new());
        drop(rest);
    }
}

/// The answer with the readers of the streams that it names.
pub(super) fn with_streams(connection: &Connection, answer: Answer) -> CallResult {
    let encoded = answer.into_encoded()?;
    let mut ids: Vec<u64> = names_of(&encoded).collect();
    ids.sort_unstable();
    ids.dedup();
    // More than there may be at all: their names lead nowhere, and their readers would be the peer's to multiply.
    ids.truncate(STREAMS_MAX as usize);
    if ids.is_empty() {
        return Ok(Answer::encoded(encoded));
    }
    let shared = connection.shared();
    let mut state = shared.state.lock();
    ids.iter().for_each(|id| state.open_stream(*id));
    shared.finish(state, &mut Vec::new());
    let reader = |id| IncomingStream::new(id, Box::new(OfConnection { connection: connection.clone(), id }));
    Ok(Answer::streaming(encoded, ids.into_iter().map(reader).collect()))
}

/// The streams that a result names.
pub(super) fn names_of(result: &Encoded) -> impl Iterator<Item = u64> + use<> {
    let named = if result.codec == Codec::MessagePack { named_in(&result.bytes) } else { Vec::new() };
    named.into_iter().map(|(_, id)| id)
}

/// Acts on what the writer of a stream sends.
pub(super) fn hear(shared: &Shared, frame: FrameRef<'_>, wake: &mut Vec<Waker>) -> Result<(), Violation> {
    check_plain(&frame.header)?;
    let (kind, id, codec) = (frame.header.kind, frame.header.id, frame.header.codec);
    let mut state = shared.state.lock();
    let heard = match kind {
        Kind::StreamData => {
            // It was skipped, as nobody read this stream when the item began.
            let is_whole = frame.body.as_slice().len() == frame.header.length as usize;
            let body = match frame.body {
                Body::Owned(bytes) => bytes,
                Body::Borrowed(bytes) => bytes::Bytes::copy_from_slice(bytes),
            };
            if is_whole { state.stream_item((id, codec), body, wake) } else { Ok(()) }
        }
        // Of streams that this side would write: there are none.
        Kind::StreamCredit | Kind::StreamDrop => {
            state.statistics_mut().ignored += 1;
            Ok(())
        }
        _ => {
            let end = if frame.header.length == 0 {
                Ok(Ok(()))
            } else {
                frame.decode::<Fault>().map(|fault| Err(CallError::from(fault_of(fault, frame.header.aux))))
            };
            end.map(|end| state.stream_ended(id, end, wake))
        }
    };
    shared.finish(state, wake);
    heard
}
