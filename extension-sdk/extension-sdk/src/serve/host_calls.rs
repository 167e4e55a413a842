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
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use ipc_protocol::control::DescriptorGrant;
use ipc_protocol::limits::HOST_CALLS_IN_FLIGHT_MAX;
use ipc_protocol::{Codec, Fault, FaultCode, Header, Kind, Retry};
use ipc_transport::framing::{Body, FrameRef, Violation};
use ipc_transport::{Answer, CallError, CallResult, Cause, Encoded};
use parking_lot::Mutex;

use super::{Server, reader, workers};
use crate::context::Grant;

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

struct Place {
    state: PlaceState,
    takes_grant: bool,
    /// Comes before the answer.
    grant: Option<Grant>,
}

enum PlaceState {
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
    fn insert(&self, takes_grant: bool) -> Result<u64, CallError> {
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
        table.waiting.insert(id, Place { state: PlaceState::Waits(None), takes_grant, grant: None });
        Ok(id)
    }

    /// Takes an answer of the host's. One that nobody waits for is nobody's fault.
    pub(super) fn answered(&self, header: Header, body: Bytes) -> Result<(), Violation> {
        if self.methods.is_empty() {
            // It was not agreed that there are any.
            return Ok(());
        }
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
        let waker = match self.table.lock().waiting.get_mut(&header.id).map(|place| &mut place.state) {
            Some(state @ PlaceState::Waits(_)) => match std::mem::replace(state, PlaceState::Has(result)) {
                PlaceState::Waits(waker) => waker,
                PlaceState::Has(_) => None,
            },
            Some(PlaceState::Has(_)) | None => None,
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Whether a descriptor belongs to the answer with this id.
    pub(super) fn takes_grant(&self, id: u64) -> bool {
        self.table.lock().waiting.get(&id).is_some_and(|place| place.takes_grant)
    }

    /// A descriptor came, before the answer that it belongs to. One that nobody waits for is closed.
    pub(super) fn granted(&self, header: &Header, body: &[u8], descriptor: OwnedFd) -> Result<(), Violation> {
        let frame = FrameRef { header: *header, body: Body::Borrowed(body) };
        let grant: DescriptorGrant = frame.decode()?;
        if let Some(place) = self.table.lock().waiting.get_mut(&header.id)
            && place.takes_grant
        {
            place.grant.get_or_insert((grant, descriptor));
        }
        Ok(())
    }

    fn poll(&self, id: u64, waker: &Waker) -> Poll<(CallResult, Option<Grant>)> {
        let mut table = self.table.lock();
        match table.waiting.remove(&id) {
            Some(Place { state: PlaceState::Has(result), grant, .. }) => Poll::Ready((result, grant)),
            Some(place) => {
                let state = PlaceState::Waits(Some(waker.clone()));
                table.waiting.insert(id, Place { state, ..place });
                Poll::Pending
            }
            None => Poll::Ready((Err(CallError::Unknown(host_is_gone())), None)),
        }
    }

    /// Nobody wants the answer any longer. Returns whether the host still owes it.
    fn abandon(&self, id: u64) -> bool {
        let place = self.table.lock().waiting.remove(&id);
        place.is_some_and(|place| matches!(place.state, PlaceState::Waits(_)))
    }

    /// Nothing more comes from the host.
    pub(super) fn close(&self) {
        let waiting = {
            let mut table = self.table.lock();
            table.is_over = true;
            std::mem::take(&mut table.waiting)
        };
        for place in waiting.into_values() {
            if let PlaceState::Waits(Some(waker)) = place.state {
                waker.wake();
            }
        }
    }
}

/// Calls the host's `method` within the call `serves`. `takes_grant`: a descriptor belongs to the answer.
pub(super) fn begin(
    server: &Arc<Server>,
    (serves, method): (u64, &str),
    arguments: Vec<u8>,
    takes_grant: bool,
) -> Result<Waiting, CallError> {
    let calls = &server.host_calls;
    let Some(index) = calls.methods.iter().position(|other| other == method) else {
        return Err(unsupported(method).into());
    };
    let length = arguments.len() as u64;
    if length > server.message_bytes_max {
        let limit = server.message_bytes_max;
        let message = format!("the arguments have {length} bytes, above the limit of {limit}");
        return Err(Fault::new(FaultCode::TooLarge, message).into());
    }
    let id = calls.insert(takes_grant)?;
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
    Ok(Waiting { server: Arc::clone(server), id, is_over: false, grant: None })
}

/// What is said where the host does not have a method.
pub(crate) fn unsupported(method: &str) -> Fault {
    let message = format!(
        "the host does not take `{method}` from this extension: it runs in the host's own process, or the host is of \
         another version"
    );
    Fault::new(FaultCode::Unsupported, message)
}

/// A host call under way.
pub(super) struct Waiting {
    server: Arc<Server>,
    id: u64,
    is_over: bool,
    grant: Option<Grant>,
}

impl Waiting {
    /// What came with the answer, once it is here.
    pub(super) fn take_grant(&mut self) -> Option<Grant> {
        self.grant.take()
    }
}

impl Future for Waiting {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult> {
        let (result, grant) = ready!(self.server.host_calls.poll(self.id, cx.waker()));
        self.is_over = true;
        self.grant = grant;
        Poll::Ready(result)
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
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use ipc_transport::framing::{FrameBuffer, append_frame};
    use ipc_transport::{Caller, Payload, Request};

    use super::*;
    use crate::block_on::block_on;
    use crate::serve::role::READERS_MAX;
    use crate::serve::tests::server;
    use crate::service::Service;

    const WAIT_MAX: Duration = Duration::from_secs(20);

    fn reply(id: u64) -> Header {
        Header { codec: Codec::MessagePack, ..Header::new(Kind::HostReply, 1, id) }
    }

    #[test]
    fn each_has_one_outcome_and_what_nobody_waits_for_is_passed_over() {
        let calls = HostCalls::new(vec!["call".to_owned()]);
        let id = calls.insert(false).unwrap();
        assert!(calls.poll(id, Waker::noop()).is_pending());
        calls.answered(reply(id), Bytes::from_static(b"\xc0")).unwrap();
        calls.answered(reply(id), Bytes::from_static(b"\xc3")).unwrap();
        calls.answered(reply(77), Bytes::from_static(b"\xc0")).unwrap();
        let Poll::Ready((Ok(answer), None)) = calls.poll(id, Waker::noop()) else {
            panic!("it was answered")
        };
        assert_eq!(answer.into_encoded().unwrap().bytes, &b"\xc0"[..]);
        let id = calls.insert(false).unwrap();
        assert!(calls.abandon(id), "the host still owes the answer");
        let id = calls.insert(false).unwrap();
        calls.answered(reply(id), Bytes::from_static(b"\xc0")).unwrap();
        assert!(!calls.abandon(id), "nothing is to be given up");
    }

    #[test]
    fn they_are_bounded_and_end_with_the_channel() {
        let calls = HostCalls::new(Vec::new());
        let ids: Vec<u64> = (0..2000).map_while(|_| calls.insert(false).ok()).collect();
        assert_eq!(ids.len(), HOST_CALLS_IN_FLIGHT_MAX as usize);
        assert!(matches!(calls.insert(false), Err(CallError::Rejected { .. })));
        calls.close();
        let ended = calls.poll(ids[0], Waker::noop());
        assert!(matches!(ended, Poll::Ready((Err(CallError::Unknown(_)), None))));
        assert!(matches!(calls.insert(false), Err(CallError::NotDelivered(_))));
    }

    #[test]
    fn a_fault_that_is_none_is_a_violation() {
        let calls = HostCalls::new(vec!["call".to_owned()]);
        let header = Header { kind: Kind::HostFault, ..reply(1) };
        assert!(calls.answered(header, Bytes::from_static(b"\xc0")).is_err());
        let not_agreed = HostCalls::new(Vec::new());
        assert!(not_agreed.answered(header, Bytes::from_static(b"\xc0")).is_ok(), "whatever it says");
    }

    /// Calls another extension, and gives what it gives.
    struct Asking;

    impl Service for Asking {
        fn run(&self, _: usize, cx: &crate::Context, _: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
            let payload = Payload::Encoded(Encoded::message_pack(vec![0xc0]));
            let reply = cx.extension("other")?.call(Request::new("any", payload, WAIT_MAX));
            out.extend(block_on(reply)?.into_encoded().map_err(CallError::from)?.bytes);
            Ok(())
        }
    }

    /// There is no watch here that would pass the role on by and by.
    #[test]
    fn a_reader_that_waits_for_the_host_hands_its_role_on_at_once_however_many_do() {
        const CALLS: u64 = 3 * READERS_MAX as u64;
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(WAIT_MAX)).unwrap();
        let server = server(theirs, Asking);
        server.output.serves(&server);
        reader::start(&server).unwrap();
        let mut frames = FrameBuffer::new(1 << 20);
        let mut next = || loop {
            match frames.next_frame().unwrap() {
                Some(frame) => break frame.header,
                None => assert!(frames.read_from(|room| (&ours).read(room)).unwrap() > 0),
            }
        };
        let say = |header: Header, body: &[u8]| {
            let mut bytes = Vec::new();
            append_frame(&mut bytes, Header { epoch: 1, ..header }, body);
            (&ours).write_all(&bytes).unwrap();
        };
        let mut asked = Vec::new();
        for id in 1..=CALLS {
            // It has proven fast, so that the reader runs it.
            (0..100).for_each(|_| server.methods[0].pace.record(Duration::from_nanos(1)));
            say(Header::new(Kind::Call, 1, id), b"");
            let came = next();
            assert_eq!((came.kind, came.aux), (Kind::HostCall, id));
            asked.push(came.id);
        }
        for (id, host_call) in (1..).zip(asked) {
            say(reply(host_call), b"\xc3");
            let came = next();
            assert_eq!((came.kind, came.id), (Kind::Reply, id));
        }
        server.close();
    }
}
