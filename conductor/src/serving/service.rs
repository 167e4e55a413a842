//! The conductor as others see it: the interface, on top of the host.

use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use extension_host::{ExtensionSnapshot, Host, HostEvent, Read, UnknownExtension};
use extension_sdk::client::CALL_TIMEOUT_DEFAULT;
use extension_sdk::stream::{Item, Stream};
use extension_sdk::{Blob, Context};
use interfaces::{Called, Conductor, Explanation, ExtensionState, Happening, LoggedLine, PastEnd};
use ipc_protocol::{Codec, Fault, FaultCode, Origin, Retry};
use ipc_transport::stream::{IncomingStream, whole};
use ipc_transport::{CallError, Caller as _, Encoded, Payload, Reply, Request};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use super::logbook::{Line, Logbook};

/// LIMIT: streams that are passed on at a time, to all clients together.
const STREAMS_MAX: usize = 128;

/// What to wait before another try where there are too many.
const RETRY_AFTER_MS: u32 = 100;

/// How often it is looked whether a client still wants what is called for him.
const CANCEL_INTERVAL: Duration = Duration::from_millis(20);

/// What clients are served. A clone is another handle.
#[derive(Clone)]
pub struct ConductorService {
    host: Arc<Host>,
    /// When the host began, since which its times count.
    began: Instant,
    runtime: Handle,
    end_is_wanted: Arc<Notify>,
    logbook: Arc<Logbook>,
    /// For each stream that is passed on, as each has a thread.
    streams: Arc<Semaphore>,
}

impl std::fmt::Debug for ConductorService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConductorService")
    }
}

impl ConductorService {
    /// Serves `host`, which began at `began` and writes to `logbook`. Must be called within the runtime that the host
    /// runs in.
    #[must_use]
    pub fn new(host: Arc<Host>, began: Instant, logbook: Arc<Logbook>) -> Self {
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { host, began, runtime: Handle::current(), end_is_wanted: Arc::default(), logbook, streams }
    }

    /// A stream of what `next` gives, on a thread of its own, for as long as it is read. `next` must lose nothing when
    /// its future is dropped.
    fn push<T: Item>(
        &self,
        cx: &Context,
        mut next: impl AsyncFnMut() -> Option<Result<T, Fault>> + Send + 'static,
    ) -> Result<Stream<T>, Fault> {
        let Ok(place) = Arc::clone(&self.streams).try_acquire_owned() else {
            let message = format!("{STREAMS_MAX} streams are passed on to clients already");
            return Err(host_fault(FaultCode::Busy, message).with_retry(Retry::AfterMs(RETRY_AFTER_MS)));
        };
        let (mut sink, stream) = cx.stream()?;
        let runtime = self.runtime.clone();
        let push = move || {
            // Until the thread ends.
            let _place = place;
            loop {
                let item = runtime.block_on(async {
                    loop {
                        tokio::select! {
                            item = next() => return item,
                            () = tokio::time::sleep(CANCEL_INTERVAL) => {
                                if sink.is_given_up() {
                                    return None;
                                }
                            }
                        }
                    }
                });
                match item {
                    None => return sink.end(),
                    Some(Err(fault)) => return sink.fail(fault),
                    Some(Ok(item)) => {
                        if let Err(fault) = sink.send(&item) {
                            return sink.fail(fault);
                        }
                    }
                }
            }
        };
        let started = thread::Builder::new().name("stream".to_owned()).spawn(push);
        started.map_err(|error| host_fault(FaultCode::Io, format!("no thread for a stream: {error}")))?;
        Ok(stream)
    }

    /// Waits until a client asks for the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn end_wanted(&self) {
        self.end_is_wanted.notified().await;
    }

    fn snapshot(&self, name: &str) -> Result<ExtensionSnapshot, Fault> {
        let found = self.host.snapshot().into_iter().find(|extension| extension.name == name);
        found.ok_or_else(|| unknown(&UnknownExtension { name: name.to_owned() }))
    }
}

fn unknown(error: &UnknownExtension) -> Fault {
    host_fault(FaultCode::NotFound, error.to_string())
}

fn host_fault(code: FaultCode, message: String) -> Fault {
    Fault::new(code, message).with_origin(Origin::Host)
}

fn state_of(snapshot: &ExtensionSnapshot) -> ExtensionState {
    ExtensionState {
        name: snapshot.name.clone(),
        version: snapshot.version.clone(),
        tier: snapshot.tier.name().to_owned(),
        state: snapshot.state.name().to_owned(),
        pid: snapshot.pid,
        generation: snapshot.instance.generation(),
        restarts: snapshot.restarts,
        calls: snapshot.calls,
        in_flight: snapshot.connection.map_or(0, |connection| connection.in_flight),
        streams: snapshot.connection.map_or(0, |connection| connection.streams),
        limits: snapshot.held_by.to_string(),
        memory_bytes: snapshot.usage.map(|usage| usage.memory_bytes),
        tasks: snapshot.usage.map_or(0, |usage| usage.tasks),
        processor_ms: snapshot.usage.map_or(0, |usage| milliseconds(usage.processor)),
        last_end: snapshot.past_ends.last().map(|end| end.report.to_string()),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A failed call in the terms of a fault: one more hop lies between.
fn fault_of(error: CallError) -> Fault {
    match error {
        CallError::Fault(fault) => fault,
        CallError::Cancelled => host_fault(FaultCode::Cancelled, "the call was cancelled".to_owned()),
        error @ CallError::NotDelivered(_) => {
            host_fault(FaultCode::Failed, error.to_string()).with_retry(Retry::Now)
        }
        CallError::Rejected { reason, retry_after } => {
            let after_ms = retry_after.map(|after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
            let retry = after_ms.map_or(Retry::Never, Retry::AfterMs);
            host_fault(FaultCode::Busy, reason).with_retry(retry)
        }
        // In doubt it ran: whoever asked must look before he asks again.
        error => host_fault(FaultCode::Failed, error.to_string()),
    }
}

/// What came of a call.
enum Taken {
    Value(Encoded),
    Stream(IncomingStream),
}

/// The outcome of a call; a result that has streams within it is taken whole.
async fn taken(reply: Reply, deadline: Instant) -> Result<Taken, CallError> {
    match reply.await?.into_stream() {
        Ok(items) => Ok(Taken::Stream(items)),
        Err(answer) => {
            let answer = whole(Reply::ready(Ok(answer)), deadline).await?;
            Ok(Taken::Value(answer.into_encoded()?))
        }
    }
}

fn blob_of(encoded: Encoded) -> Result<Blob, Fault> {
    match encoded {
        Encoded { codec: Codec::MessagePack, bytes } => Ok(Blob(bytes.into())),
        Encoded { codec, .. } => {
            Err(host_fault(FaultCode::Unsupported, format!("it answered in the codec {codec:?}")))
        }
    }
}

fn happening(number: u64, event: &HostEvent, missed: u64) -> Happening {
    Happening {
        number,
        at_ms: milliseconds(event.at),
        extension: event.extension.as_ref().to_owned(),
        generation: event.instance.generation(),
        kind: event.kind.name().to_owned(),
        text: event.kind.to_string(),
        missed,
    }
}

fn logged(line: &Line, missed: u64) -> LoggedLine {
    LoggedLine {
        at_ms: milliseconds(line.at),
        extension: line.extension.clone(),
        generation: line.generation,
        origin: line.origin.to_owned(),
        text: line.text.clone(),
        dropped: line.lines_dropped + missed,
    }
}

impl Conductor for ConductorService {
    fn extensions(&self) -> Result<Vec<ExtensionState>, Fault> {
        Ok(self.host.snapshot().iter().map(state_of).collect())
    }

    fn why(&self, extension: String) -> Result<Explanation, Fault> {
        let snapshot = self.snapshot(&extension)?;
        let now = self.began.elapsed();
        let ends = snapshot.past_ends.iter().map(|end| PastEnd {
            generation: end.instance.generation(),
            ago_ms: milliseconds(now.saturating_sub(end.at)),
            report: end.report.to_string(),
        });
        Ok(Explanation {
            extension: state_of(&snapshot),
            broken: snapshot.broken.clone(),
            ends: ends.collect(),
        })
    }

    fn call(
        &self,
        cx: &Context,
        extension: String,
        method: String,
        arguments: Blob,
    ) -> Result<Called, Fault> {
        let route = self.host.extension(&extension).map_err(|error| unknown(&error))?;
        let timeout = cx.remaining().unwrap_or(CALL_TIMEOUT_DEFAULT);
        let payload = Payload::Encoded(Encoded::message_pack(arguments.0));
        let request = Request::new(&method, payload, timeout);
        let deadline = request.deadline;
        let mut reply = pin!(taken(route.call(request), deadline));
        let result = self.runtime.block_on(async {
            loop {
                tokio::select! {
                    result = &mut reply => return result,
                    () = tokio::time::sleep(CANCEL_INTERVAL) => {
                        if cx.is_cancelled() {
                            // Dropping the reply cancels the call.
                            return Err(CallError::Cancelled);
                        }
                    }
                }
            }
        });
        match result.map_err(fault_of)? {
            Taken::Value(encoded) => Ok(Called::Value(blob_of(encoded)?)),
            Taken::Stream(mut items) => {
                let items = self.push(cx, async move || {
                    let next = items.next().await?;
                    Some(next.map_err(fault_of).and_then(blob_of))
                });
                Ok(Called::Items(items?))
            }
        }
    }

    fn events(&self, cx: &Context, past: bool) -> Result<Stream<Happening>, Fault> {
        let mut events = if past { self.host.subscribe_from_oldest() } else { self.host.subscribe() };
        let mut missed = 0;
        self.push(cx, async move || {
            loop {
                match events.wait().await {
                    Read::Event(number, event) => {
                        return Some(Ok(happening(number, &event, std::mem::take(&mut missed))));
                    }
                    Read::Gap { lost } => missed += lost,
                    Read::Empty => {}
                }
            }
        })
    }

    fn logs(
        &self,
        cx: &Context,
        extension: Option<String>,
        follow: bool,
    ) -> Result<Stream<LoggedLine>, Fault> {
        if let Some(name) = &extension {
            self.snapshot(name)?;
        }
        let mut lines = self.logbook.read();
        let mut missed = 0;
        self.push(cx, async move || {
            loop {
                let read = if follow { lines.wait().await } else { lines.next() };
                match read {
                    Read::Event(_, line) if extension.as_ref().is_none_or(|name| *name == line.extension) => {
                        return Some(Ok(logged(&line, std::mem::take(&mut missed))));
                    }
                    Read::Event(..) => {}
                    Read::Gap { lost } => missed += lost,
                    Read::Empty => return None,
                }
            }
        })
    }

    fn stop(&self, extension: String) -> Result<(), Fault> {
        let stop = self.host.stop(&extension, "a client asked for it");
        self.runtime.block_on(stop).map_err(|error| unknown(&error))
    }

    fn reset(&self, extension: String) -> Result<(), Fault> {
        self.runtime.block_on(self.host.reset(&extension)).map_err(|error| unknown(&error))
    }

    fn shut_down(&self) -> Result<(), Fault> {
        self.end_is_wanted.notify_one();
        Ok(())
    }
}
