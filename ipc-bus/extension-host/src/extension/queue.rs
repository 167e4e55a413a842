//! Calls that wait for an endpoint, in the order in which they were made.
//!
//! ```text
//! call -> endpoint? --yes--> sent, without a lock
//!           | no: looked at again under the lock
//!           v
//!     ticket at the back --ready: all tickets are sent in order, then the endpoint is published--> sent
//!           \--given up under the lock (deadline, broken): never sent
//! ```
//!
//! INVARIANT: the endpoint is published under the lock and after the last ticket: a call that sees it comes
//! behind all that waited. It must not know why there is no endpoint.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Instant;

use ipc_protocol::Codec;
use ipc_protocol::limits::IN_FLIGHT_CALLS_MAX;
use ipc_transport::connection::Connection;
use ipc_transport::{
    CallError, EncodeError, Encoded, OnOverload, Payload, ProgressSink, Reply, Request, TypedSlot,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::kept::{KeptBytes, KeptName};
use super::{Callee, Endpoint, Extension};

/// LIMIT: calls that wait for one extension's start; further ones are rejected.
const TICKETS_MAX: usize = IN_FLIGHT_CALLS_MAX as usize;

/// Tickets of calls that were given up are thrown away when there are as many, or twice as many as were left
/// the last time.
const PRUNE_AT_MIN: usize = 64;

/// What is sent at every attempt of a call.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) method: KeptName,
    pub(crate) arguments: Arguments,
    pub(crate) deadline: Instant,
    pub(crate) on_overload: OnOverload,
    pub(crate) progress: Option<ProgressSink>,
    pub(crate) depth: u8,
}

/// What a call carries, encoded once.
#[derive(Clone)]
pub(crate) struct Arguments {
    encoded: KeptBytes,
    /// Where they are in the fast codec: the value, for an incarnation that does not take it so.
    value: Option<Arc<Mutex<Box<dyn TypedSlot>>>>,
    schema_hash: u64,
}

impl Arguments {
    /// In the fast codec if `endpoint`, where they most likely go, takes it; else as MessagePack.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]: a typed value's `Serialize` failed.
    pub(crate) fn new(
        payload: Payload<'_>,
        method: &str,
        endpoint: Option<&Endpoint>,
    ) -> Result<Self, EncodeError> {
        let schema_hash = payload.schema_hash();
        let connection = endpoint.and_then(|endpoint| match &endpoint.callee {
            Callee::Process(connection) if connection.is_fast(method, schema_hash) => Some(connection),
            Callee::Process(_) | Callee::InProcess(_) => None,
        });
        match payload {
            Payload::Typed(slot) => {
                let bytes_max = connection.map_or(0, Connection::message_bytes_max);
                let encoded = KeptBytes::of_slot(slot, connection.is_some(), bytes_max)?;
                let value = if encoded.codec() == Codec::Wincode { slot.detach() } else { None };
                let value = value.map(|value| Arc::new(Mutex::new(value)));
                Ok(Self { encoded, value, schema_hash })
            }
            payload => {
                let encoded = KeptBytes::new(payload.into_encoded()?);
                Ok(Self { encoded, value: None, schema_hash: 0 })
            }
        }
    }

    /// What is kept of them, as it is counted: a value counts as much as its bytes.
    pub(crate) fn bytes_count(&self) -> u64 {
        self.encoded.len() as u64 * if self.value.is_some() { 2 } else { 1 }
    }

    /// As MessagePack, where they are in the fast codec and `callee` does not take that.
    fn otherwise(&self, method: &str, callee: &Callee) -> Option<Result<Encoded, EncodeError>> {
        let value = self.value.as_ref()?;
        let is_fast = callee.is_fast(method, self.schema_hash);
        (!is_fast).then(|| Payload::Typed(&mut **value.lock()).into_encoded())
    }
}

impl Outgoing {
    /// `now` has just been read.
    pub(crate) fn send(&self, endpoint: &Endpoint, now: Instant) -> Reply {
        endpoint.touch();
        let method = self.method.as_str();
        let payload = match self.arguments.otherwise(method, &endpoint.callee) {
            None => self.arguments.encoded.payload(),
            Some(Ok(encoded)) => Payload::Encoded(encoded),
            Some(Err(error)) => return Reply::ready(Err(error.into())),
        };
        endpoint.callee.call(Request {
            method,
            payload,
            deadline: self.deadline,
            made_at: now,
            on_overload: self.on_overload,
            retry_log: None,
            progress: self.progress.clone(),
            depth: self.depth,
        })
    }
}

/// A call that was sent, and the incarnation that it was sent to.
pub(crate) struct Sent {
    pub(crate) reply: Reply,
    pub(crate) epoch: u32,
}

/// A call that is sent, or waits in the queue for it.
pub(crate) enum Place {
    Sent(Sent),
    Waits(Waiting),
}

/// A call's own end of its ticket. The ticket itself keeps nothing: what is given up is freed at once, and not
/// when the queue is next looked through.
pub(crate) struct Waiting {
    pub(crate) sent: oneshot::Receiver<Sent>,
    _call: Arc<Outgoing>,
}

struct Ticket {
    call: Weak<Outgoing>,
    sent: oneshot::Sender<Sent>,
}

#[derive(Default)]
pub(super) struct Queue {
    tickets: VecDeque<Ticket>,
    prune_at: usize,
    /// The last incarnation that was told to drain, or 0.
    drained_epoch: u32,
}

impl Queue {
    /// Throws away the tickets of calls that were given up.
    fn prune(&mut self) {
        self.tickets.retain(|ticket| !ticket.sent.is_closed());
        self.prune_at = PRUNE_AT_MIN.max(2 * self.tickets.len());
    }
}

impl Extension {
    /// Sends the call to an incarnation later than `epoch`, or queues it for the next one and asks for a start.
    /// Calls made again come behind those that wait already.
    pub(crate) fn send_or_wait(&self, call: &Outgoing, epoch: u32) -> Result<Place, CallError> {
        let mut queue = self.queue.lock();
        // Published under the lock: if it is not there now, its queue is still to be sent.
        if let Some(endpoint) = self.endpoint.load_full().filter(|endpoint| endpoint.epoch > epoch) {
            drop(queue);
            return Ok(Place::Sent(Sent {
                reply: call.send(&endpoint, Instant::now()),
                epoch: endpoint.epoch,
            }));
        }
        if queue.tickets.len() >= queue.prune_at.min(TICKETS_MAX) {
            queue.prune();
        }
        if queue.tickets.len() >= TICKETS_MAX {
            let reason = format!("{TICKETS_MAX} calls wait already for extension `{}` to start", self.name);
            return Err(CallError::Rejected { reason, retry_after: None });
        }
        let (sent, waits) = oneshot::channel();
        let call = Arc::new(call.clone());
        queue.tickets.push_back(Ticket { call: Arc::downgrade(&call), sent });
        drop(queue);
        self.wanted.notify_one();
        Ok(Place::Waits(Waiting { sent: waits, _call: call }))
    }

    /// Gives up waiting; the call if it was sent meanwhile.
    pub(crate) fn give_up(&self, waiting: &mut Waiting) -> Option<Sent> {
        // Under the lock, so that a ticket is either not looked at yet, and then never sent, or its call is here.
        let _queue = self.queue.lock();
        waiting.sent.close();
        waiting.sent.try_recv().ok()
    }

    /// Whether a call waits for an endpoint.
    pub(super) fn is_wanted(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.prune();
        !queue.tickets.is_empty()
    }

    /// Sends what waits, and then lets everybody send.
    pub(super) fn open(&self, endpoint: Arc<Endpoint>) {
        // Dropped after the lock: with a caller who goes just now goes his progress sink, which is foreign code.
        let mut done = Vec::new();
        let now = Instant::now();
        let mut queue = self.queue.lock();
        for Ticket { call, sent } in queue.tickets.drain(..) {
            let Some(call) = call.upgrade() else { continue };
            // Given back when the caller went just now: dropping the reply cancels the call.
            let given_back = (!sent.is_closed())
                .then(|| sent.send(Sent { reply: call.send(&endpoint, now), epoch: endpoint.epoch }).err());
            done.push((call, given_back));
        }
        self.endpoint.store(Some(endpoint));
    }

    /// Takes the endpoint away: calls wait from here on. `drains`: the extension will be told so.
    pub(super) fn shut(&self, epoch: u32, drains: bool) {
        let mut queue = self.queue.lock();
        self.endpoint.store(None);
        if drains {
            queue.drained_epoch = epoch;
        }
    }

    /// Whether the incarnation was told to take no more calls: one that was not, and says that it drains, lies.
    pub(crate) fn is_drained(&self, epoch: u32) -> bool {
        epoch == self.queue.lock().drained_epoch
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::sync::Arc;

    use ipc_protocol::handshake::{FEATURE_WINCODE, Hello, MethodEntry};
    use ipc_testkit::Peer;
    use ipc_transport::connection::{ConnectOptions, connect};
    use ipc_transport::{Fingerprint, NotFast};

    use super::*;

    /// One text, as its length in the fast codec.
    struct Text(Option<String>);

    impl TypedSlot for Text {
        fn fingerprint(&self) -> Fingerprint {
            self.0.fingerprint()
        }

        fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
            self.0.encode(out)
        }

        fn as_any(&mut self) -> &mut dyn Any {
            &mut self.0
        }

        fn schema_hash(&self) -> u64 {
            7
        }

        fn encode_fast(&self, out: &mut Vec<u8>) -> Result<(), NotFast> {
            out.push(u8::try_from(self.0.as_ref().ok_or(NotFast)?.len()).map_err(|_| NotFast)?);
            Ok(())
        }

        fn detach(&mut self) -> Option<Box<dyn TypedSlot>> {
            Some(Box::new(Self(Some(self.0.take()?))))
        }
    }

    async fn endpoint(schema_hash: u64) -> Endpoint {
        let (socket, _) = Peer::run(move |mut peer| {
            peer.accept_with(&[FEATURE_WINCODE], vec![MethodEntry::new("echo", schema_hash)]);
            while peer.receive().is_some() {}
        });
        let options = ConnectOptions::new(Hello::new("test", 1, 2));
        let connection = connect(socket, options, Arc::new(())).await.expect("the peer is good");
        Endpoint { callee: Callee::Process(connection), epoch: 1, expiry: arc_swap::ArcSwapOption::empty() }
    }

    #[tokio::test]
    async fn a_call_made_again_finds_the_codec_of_the_next_incarnation() {
        let (takes, takes_not) = (endpoint(7).await, endpoint(8).await);
        let mut text = Text(Some("text".to_owned()));
        let arguments =
            Arguments::new(Payload::Typed(&mut text), "echo", Some(&takes)).expect("it is encoded");
        assert_eq!(arguments.bytes_count(), 2);
        let codec = |endpoint: &Endpoint| {
            let encoded = match arguments.otherwise("echo", &endpoint.callee) {
                None => arguments.encoded.payload().into_encoded(),
                Some(encoded) => encoded,
            };
            let encoded = encoded.expect("it is encoded");
            (encoded.codec, encoded.bytes.to_vec())
        };
        for _ in 0..2 {
            assert_eq!(codec(&takes), (Codec::Wincode, vec![4]));
            assert_eq!(codec(&takes_not), (Codec::MessagePack, b"\xa4text".to_vec()));
        }
        for endpoint in [Some(&takes_not), None] {
            let mut text = Text(Some("text".to_owned()));
            let arguments =
                Arguments::new(Payload::Typed(&mut text), "echo", endpoint).expect("it is encoded");
            assert!(arguments.value.is_none(), "there is one encoding only");
            assert_eq!((arguments.encoded.codec(), arguments.bytes_count()), (Codec::MessagePack, 5));
        }
    }
}
