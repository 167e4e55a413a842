//! One call: onto the books, into the library, and what its caller holds meanwhile.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::Instant;

use ipc_protocol::{Codec, Fault, FaultCode, Origin};
use ipc_transport::in_flight::CallId;
use ipc_transport::{CallError, CallResult, Caller, Encoded, Payload, ProgressSink, Reply, Request};

use super::InProcess;
use super::books::{Begun, Body, NewCall};

/// LIMIT: capacity of the vector per thread that arguments are encoded into.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// For arguments. Taken while a call is handed over: the library may run it here, and it may make another.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Caller for InProcess {
    fn call(&self, mut request: Request<'_>) -> Reply {
        self.call_lent(&mut request)
    }
}

impl InProcess {
    /// As [`Caller::call`]; the request is as it was afterwards, so that the call can be made again.
    pub(crate) fn call_lent(&self, request: &mut Request<'_>) -> Reply {
        let Some(method) = self.seat.shared.method(request.method) else {
            let text = format!("the extension has no method `{}`", request.method);
            let fault = Fault::new(FaultCode::UnknownMethod, text).with_origin(Origin::Host);
            return Reply::ready(Err(CallError::Fault(fault)));
        };
        let Request { deadline, on_overload, ref progress, ref payload, .. } = *request;
        let begin = |body: Body<'_>| {
            let call = NewCall {
                method,
                body,
                deadline,
                on_overload,
                progress: progress.as_ref().map(ProgressSink::downgrade),
            };
            self.begin(&call)
        };
        let begun = match payload {
            Payload::Encoded(Encoded { codec, .. }) | Payload::Borrowed { codec, .. }
                if *codec != Codec::MessagePack =>
            {
                Err(CallError::Rejected {
                    reason: format!("codec {codec:?} was not agreed on with the extension"),
                    retry_after: None,
                })
            }
            Payload::Encoded(encoded) => begin(Body::Shared(&encoded.bytes)),
            Payload::Borrowed { bytes, .. } => begin(Body::Lent(bytes)),
            Payload::Typed(slot) => {
                // Encoded outside the lock: `Serialize` is foreign code. Taken, not borrowed: it may call too.
                let mut scratch = SCRATCH.take();
                scratch.clear();
                let encoded = slot.encode(&mut scratch).map_err(CallError::from);
                let begun = encoded.and_then(|()| begin(Body::Lent(&scratch)));
                scratch.shrink_to(SCRATCH_BYTES_MAX);
                SCRATCH.set(scratch);
                begun
            }
        };
        match begun {
            Ok(Progressed::Over(result)) => Reply::ready(result),
            Ok(Progressed::Pending(id)) => Reply::from_future(Pending {
                endpoint: self.clone(),
                id,
                is_over: false,
                _progress: progress.clone(),
            }),
            Err(error) => Reply::ready(Err(error)),
        }
    }
}

/// Where a call is when it was begun.
enum Progressed {
    Over(CallResult),
    Pending(CallId),
}

impl InProcess {
    fn begin(&self, call: &NewCall<'_>) -> Result<Progressed, CallError> {
        let shared = self.seat.shared;
        let now = Instant::now();
        let begun = shared.books.lock().begin(self.term, call, now)?;
        let (id, timer_moved) = match begun {
            Begun::Waits(id, timer_moved) => (id, timer_moved),
            Begun::Send(id, word) => {
                self.hand_over(id, word, call.method, call.deadline, now, call.body.as_slice());
                let mut books = shared.books.lock();
                let collected = books.collect(id, call.deadline);
                shared.finish(books, Vec::new());
                match collected {
                    Ok(result) => return Ok(Progressed::Over(result)),
                    Err(timer_moved) => (id, timer_moved),
                }
            }
        };
        if timer_moved {
            shared.tender.notify_one();
        }
        Ok(Progressed::Pending(id))
    }

    /// Gives a call that is on the books to the library, which completes it now or later.
    pub(super) fn hand_over(
        &self,
        id: CallId,
        word: &'static AtomicU64,
        method: u32,
        deadline: Instant,
        now: Instant,
        arguments: &[u8],
    ) {
        let left = deadline.saturating_duration_since(now);
        if !self.seat.shared.table.call(self.instance, id.to_wire(), method, left, word, arguments) {
            let text = "the extension's library panicked when it was given the call";
            let fault = Fault::new(FaultCode::Panicked, text);
            let (mut wake, mut books) = (Vec::new(), self.seat.shared.books.lock());
            books.complete(id.to_wire(), Err(CallError::Fault(fault)), 0, &mut wake);
            self.seat.shared.finish(books, wake);
        }
    }

    /// Tells the library that nobody waits for a call any longer.
    pub(super) fn tell_cancel(&self, id: CallId) {
        let shared = self.seat.shared;
        if shared.books.lock().enter(self.term) {
            shared.table.cancel(self.instance, id.to_wire());
            let mut books = shared.books.lock();
            books.left();
            shared.finish(books, Vec::new());
        }
    }
}

/// A call that the library has, or that waits for room. Dropping it cancels the call.
struct Pending {
    endpoint: InProcess,
    id: CallId,
    is_over: bool,
    /// Who hears of its progress, as long as this is here.
    _progress: Option<ProgressSink>,
}

impl Future for Pending {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult> {
        assert!(!self.is_over, "a reply was polled after it resolved");
        let result = self.endpoint.seat.shared.books.lock().poll(self.id, cx.waker());
        self.is_over = result.is_ready();
        result
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let shared = self.endpoint.seat.shared;
        let mut books = shared.books.lock();
        let is_told = books.abandon(self.id, Instant::now());
        shared.finish(books, Vec::new());
        if is_told {
            self.endpoint.tell_cancel(self.id);
        }
    }
}
