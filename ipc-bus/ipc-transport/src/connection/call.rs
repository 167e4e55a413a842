//! One call of a connection: encoded, begun, awaited, given up.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use ipc_protocol::{Codec, Fault, FaultCode, Origin};

use super::Connection;
use super::state::NewCall;
use super::streams::{names_of, with_streams};
use crate::caller::{Caller, ProgressSink, Reply, Request};
use crate::in_flight::CallId;
use crate::outcome::{CallError, CallResult};
use crate::outgoing::QueuedBody;
use crate::payload::{Payload, encode_slot};

/// LIMIT: capacity of the vector per thread that arguments are encoded into.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn not_agreed(codec: Codec) -> CallError {
    let reason = format!("codec {codec:?} was not agreed on with the extension");
    CallError::Rejected { reason, retry_after: None }
}

impl Caller for Connection {
    fn call(&self, request: Request<'_>) -> Reply {
        let shared = self.shared();
        let Some(method) = shared.method(request.method) else {
            let message = format!("{} has no method {:?}", shared.welcome.extension, request.method);
            let fault = Fault::new(FaultCode::UnknownMethod, message).with_origin(Origin::Host);
            return Reply::ready(Err(CallError::Fault(fault)));
        };
        let Request { deadline, made_at, on_overload, progress, depth, .. } = request;
        let has_streams = shared.has_streams && shared.welcome.methods[method as usize].streams;
        let begin = |codec: Codec, body: QueuedBody<'_>| {
            let progress = progress.as_ref().map(ProgressSink::downgrade);
            shared.begin(&NewCall {
                made_at,
                method,
                codec,
                body,
                deadline,
                on_overload,
                progress,
                depth,
                has_streams,
            })
        };
        let begun = match request.payload {
            Payload::Encoded(encoded) => match encoded.codec {
                Codec::Wincode if !shared.has_wincode => Err(not_agreed(encoded.codec)),
                Codec::None => Err(not_agreed(encoded.codec)),
                codec => begin(codec, QueuedBody::Shared(&encoded.bytes)),
            },
            Payload::Borrowed { codec: codec @ Codec::None, .. } => Err(not_agreed(codec)),
            Payload::Borrowed { codec: codec @ Codec::Wincode, .. } if !shared.has_wincode => {
                Err(not_agreed(codec))
            }
            Payload::Borrowed { codec, bytes } => begin(codec, QueuedBody::Borrowed(bytes)),
            Payload::Typed(slot) => {
                // Encoded outside the lock: `Serialize` is foreign code. Taken, not borrowed: it may call too.
                let mut scratch = SCRATCH.take();
                scratch.clear();
                let is_fast = shared.is_fast(method, slot.schema_hash());
                let encoded = encode_slot(slot, is_fast, shared.message_bytes_max, &mut scratch);
                let begun = encoded.map_err(CallError::from).and_then(|codec| {
                    if scratch.len() <= SCRATCH_BYTES_MAX {
                        begin(codec, QueuedBody::Borrowed(&scratch))
                    } else {
                        let body = Bytes::from(std::mem::take(&mut scratch));
                        begin(codec, QueuedBody::Shared(&body))
                    }
                });
                SCRATCH.set(scratch);
                begun
            }
        };
        match begun {
            Ok(id) => {
                let connection = self.clone();
                Reply::in_flight(InFlightReply {
                    connection,
                    id,
                    is_over: false,
                    has_streams,
                    _progress: progress,
                })
            }
            Err(error) => Reply::ready(Err(error)),
        }
    }
}

/// A call of a connection. Dropping it cancels the call.
pub(crate) struct InFlightReply {
    connection: Connection,
    id: CallId,
    is_over: bool,
    /// Whether the result may name streams.
    has_streams: bool,
    /// Who hears of its progress, as long as this is here.
    _progress: Option<ProgressSink>,
}

impl Future for InFlightReply {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult> {
        assert!(!self.is_over, "a reply was polled after it resolved");
        let shared = self.connection.shared();
        let result = match &shared.through_ring {
            Some(through) => shared.poll_through_ring(through, self.id, cx),
            None => shared.state.lock().poll(self.id, cx.waker()),
        };
        self.is_over = result.is_ready();
        match result {
            Poll::Ready(Ok(answer)) if self.has_streams => {
                Poll::Ready(with_streams(&self.connection, answer))
            }
            result => result,
        }
    }
}

impl Drop for InFlightReply {
    fn drop(&mut self) {
        if !self.is_over {
            let shared = self.connection.shared();
            let mut state = shared.state.lock();
            if self.has_streams
                && let Some(Ok(answer)) = state.take_outcome(self.id)
                && let Ok(encoded) = answer.into_encoded()
            {
                state.refuse_streams(names_of(&encoded));
            }
            state.abandon(self.id);
            shared.finish(state, &mut Vec::new());
        }
    }
}
