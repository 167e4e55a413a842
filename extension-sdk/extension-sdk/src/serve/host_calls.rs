//! What this extension asks of its host within its calls: sent, awaited, given up.
//!
//! ```text
//!  begin: HostCall appended, the reading role handed on, room made for another worker
//!     |
//!     v
//!  waits --HostReply or HostFault--> has its outcome --polled--> over
//!     |--dropped--> Cancel appended; the answer that still comes is nobody's
//!     \--the channel ends--> not known what became of it
//! ```
//!
//! This module must not know what the host's methods mean.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ipc_protocol::limits::HOST_CALLS_IN_FLIGHT_MAX;
use ipc_protocol::{Codec, Fault, FaultCode, Header, Kind, Retry};
use ipc_transport::framing::{Body, FrameRef, Violation};
use ipc_transport::{Answer, CallError, CallResult, Cause, Encoded, Reply};
use parking_lot::Mutex;

use super::{Server, reader, workers};

/// What to wait before another try where too many wait already.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// The host calls of one channel.
pub(super) struct HostCalls {
    /// What the host can be asked for; nothing if it did not agree to be asked.
    methods: Vec<String>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    waiting: HashMap<u64, Place>,
    is_over: bool,
}

enum Place {
    Waits(Option<Waker>),
    Has(CallResult),
}

fn host_is_gone() -> Cause {
    Cause::Closed("the host is gone".to_owned())
}

impl HostCalls {
    pub(super) fn new(methods: Vec<String>) -> Self {
        Self { methods, table: Mutex::default() }
    }

    pub(super) fn offers(&self, method: &str) -> bool {
        self.methods.iter().any(|other| other == method)
    }

    /// A new one, if there is room for it.
    fn insert(&self) -> Result<u64, CallError> {
        let mut table = self.table.lock();
        if table.is_over {
            return Err(CallError::NotDelivered(host_is_gone()));
        }
        if table.waiting.len() >= HOST_CALLS_IN_FLIGHT_MAX as usize {
            let reason = format!("{HOST_CALLS_IN_FLIGHT_MAX} host calls wait for their answers already");
            return Err(CallError::Rejected { reason, retry_after: Some(RETRY_AFTER) });
        }
        table.last_id += 1;
        let id = table.last_id;
        table.waiting.insert(id, Place::Waits(None));
        Ok(id)
    }

    /// Takes an answer of the host's. One that nobody waits for is nobody's fault.
    pub(super) fn answered(&self, header: Header, body: Bytes) -> Result<(), Violation> {
        let result = if header.kind == Kind::HostFault {
            let frame = FrameRef { header, body: Body::Borrowed(&body) };
            let fault: Fault = frame.decode()?;
            let retry = match header.aux {
                0 => fault.retry,
                after_ms => Retry::AfterMs(u32::try_from(after_ms).unwrap_or(u32::MAX)),
            };
            Err(CallError::told_by_host(fault.with_retry(retry)))
        } else {
            Ok(Answer::encoded(Encoded { codec: header.codec, bytes: body }))
        };
        let waker = match self.table.lock().waiting.get_mut(&header.id) {
            Some(place @ Place::Waits(_)) => match std::mem::replace(place, Place::Has(result)) {
                Place::Waits(waker) => waker,
                Place::Has(_) => None,
            },
            Some(Place::Has(_)) | None => None,
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    fn poll(&self, id: u64, waker: &Waker) -> Poll<CallResult> {
        let mut table = self.table.lock();
        match table.waiting.get_mut(&id) {
            Some(Place::Waits(before)) => {
                before.clone_from(&Some(waker.clone()));
                Poll::Pending
            }
            Some(Place::Has(_)) => match table.waiting.remove(&id) {
                Some(Place::Has(result)) => Poll::Ready(result),
                Some(Place::Waits(_)) | None => Poll::Pending,
            },
            None => Poll::Ready(Err(CallError::Unknown(host_is_gone()))),
        }
    }

    /// Nobody wants the answer any longer. Returns whether the host still owes it.
    fn abandon(&self, id: u64) -> bool {
        matches!(self.table.lock().waiting.remove(&id), Some(Place::Waits(_)))
    }

    /// Nothing more comes from the host.
    pub(super) fn close(&self) {
        let waiting = {
            let mut table = self.table.lock();
            table.is_over = true;
            std::mem::take(&mut table.waiting)
        };
        for place in waiting.into_values() {
            if let Place::Waits(Some(waker)) = place {
                waker.wake();
            }
        }
    }
}

/// Calls the host's `method` within the call `serves`.
pub(super) fn begin(server: &Arc<Server>, serves: u64, method: &str, arguments: Vec<u8>) -> Reply {
    let calls = &server.host_calls;
    let Some(index) = calls.methods.iter().position(|other| other == method) else {
        return Reply::ready(Err(unsupported(method).into()));
    };
    let length = arguments.len() as u64;
    if length > server.message_bytes_max {
        let limit = server.message_bytes_max;
        let message = format!("the arguments have {length} bytes, above the limit of {limit}");
        return Reply::ready(Err(Fault::new(FaultCode::TooLarge, message).into()));
    }
    let id = match calls.insert() {
        Ok(id) => id,
        Err(error) => return Reply::ready(Err(error)),
    };
    // Whoever reads must be another one than this thread before it waits for anything.
    reader::hand_on(server);
    workers::begin_wait(server);
    let header = Header {
        codec: if arguments.is_empty() { Codec::None } else { Codec::MessagePack },
        method: u32::try_from(index).unwrap_or(u32::MAX),
        aux: serves,
        ..Header::new(Kind::HostCall, 0, id)
    };
    server.output.append_host_call(header, arguments);
    server.output.flush();
    Reply::from_future(Waiting { server: Arc::clone(server), id, is_over: false })
}

/// What is said where the host does not have a method.
pub(crate) fn unsupported(method: &str) -> Fault {
    let message = format!(
        "the host does not take `{method}` from this extension: it runs in the host's own process, or the host is of \
         another version"
    );
    Fault::new(FaultCode::Unsupported, message)
}

struct Waiting {
    server: Arc<Server>,
    id: u64,
    is_over: bool,
}

impl Future for Waiting {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult> {
        let result = self.server.host_calls.poll(self.id, cx.waker());
        self.is_over = result.is_ready();
        result
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        workers::end_wait(&self.server);
        if !self.is_over && self.server.host_calls.abandon(self.id) {
            self.server.output.append_bare(Kind::Cancel, self.id);
            self.server.output.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(id: u64) -> Header {
        Header { codec: Codec::MessagePack, ..Header::new(Kind::HostReply, 1, id) }
    }

    #[test]
    fn each_has_one_outcome_and_what_nobody_waits_for_is_passed_over() {
        let calls = HostCalls::new(vec!["call".to_owned()]);
        let id = calls.insert().unwrap();
        assert!(calls.poll(id, Waker::noop()).is_pending());
        calls.answered(reply(id), Bytes::from_static(b"\xc0")).unwrap();
        calls.answered(reply(id), Bytes::from_static(b"\xc3")).unwrap();
        calls.answered(reply(77), Bytes::from_static(b"\xc0")).unwrap();
        let Poll::Ready(Ok(answer)) = calls.poll(id, Waker::noop()) else { panic!("it was answered") };
        assert_eq!(answer.into_encoded().unwrap().bytes, &b"\xc0"[..]);
        let id = calls.insert().unwrap();
        assert!(calls.abandon(id), "the host still owes the answer");
        let id = calls.insert().unwrap();
        calls.answered(reply(id), Bytes::from_static(b"\xc0")).unwrap();
        assert!(!calls.abandon(id), "nothing is to be given up");
    }

    #[test]
    fn they_are_bounded_and_end_with_the_channel() {
        let calls = HostCalls::new(Vec::new());
        let ids: Vec<u64> = (0..2000).map_while(|_| calls.insert().ok()).collect();
        assert_eq!(ids.len(), HOST_CALLS_IN_FLIGHT_MAX as usize);
        assert!(matches!(calls.insert(), Err(CallError::Rejected { .. })));
        calls.close();
        let ended = calls.poll(ids[0], Waker::noop());
        assert!(matches!(ended, Poll::Ready(Err(CallError::Unknown(_)))));
        assert!(matches!(calls.insert(), Err(CallError::NotDelivered(_))));
    }

    #[test]
    fn a_fault_that_is_none_is_a_violation() {
        let calls = HostCalls::new(Vec::new());
        let header = Header { kind: Kind::HostFault, ..reply(1) };
        assert!(calls.answered(header, Bytes::from_static(b"\xc0")).is_err());
    }
}
