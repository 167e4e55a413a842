//! The streams that the peer writes: what came and was not taken, and how much more may come.
//!
//! ```text
//!         names it          End              taken to its end
//!  result ---------> open -------> ended -----------------------> gone
//!                     |               dropped by its reader          ^
//!                     +----------------------------------------------+
//! ```
//!
//! INVARIANT: what lies here of one stream is less than a window and one item, and of streams there are no more than may be.

use std::collections::{HashMap, VecDeque};
use std::task::{Poll, Waker};

use bytes::Bytes;
use ipc_protocol::limits::{STREAM_ITEM_BYTES_MAX, STREAM_WINDOW_BYTES, STREAMS_MAX};
use ipc_protocol::stream::{ITEM_OVERHEAD_BYTES, OF_EXTENSION};
use ipc_protocol::{Codec, Fault, FaultCode, Header, Kind, Origin};

use super::State;
use crate::framing::Violation;
use crate::outcome::{CallError, Cause};
use crate::payload::Encoded;

/// Streams by their id.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: HashMap<u64, Stream>,
}

#[derive(Debug)]
struct Stream {
    items: VecDeque<Bytes>,
    /// What all items cost that came since it began.
    received: u64,
    /// What those cost that were taken.
    taken: u64,
    /// What the peer was told that it may send.
    granted: u64,
    /// How it ended, once it did.
    end: Option<Result<(), CallError>>,
    waker: Option<Waker>,
}

impl Stream {
    fn end(&mut self, end: Result<(), CallError>, wake: &mut Vec<Waker>) {
        self.end.get_or_insert(end);
        wake.extend(self.waker.take());
    }
}

/// What an item counts against the credit.
fn cost(item: &Bytes) -> u64 {
    item.len() as u64 + ITEM_OVERHEAD_BYTES
}

/// An item, or the end.
pub(in crate::connection) type NextItem = Option<Result<Encoded, CallError>>;

impl Streams {
    fn is_writing(&self, id: u64) -> bool {
        self.open.get(&id).is_some_and(|stream| stream.end.is_none())
    }
}

impl State {
    /// How many streams the peer writes.
    pub(in crate::connection) fn open_streams(&self) -> u32 {
        // INVARIANT: no more than there may be are open.
        self.streams.open.values().fold(0, |count, stream| count + u32::from(stream.end.is_none()))
    }

    /// Begins to read a stream that a result names, and lets its first items come.
    pub(in crate::connection) fn open_stream(&mut self, id: u64) {
        let refused = |reason: &str| {
            let fault =
                Fault::new(FaultCode::ProtocolViolation, format!("a result names a stream that {reason}"));
            Some(Err(CallError::Fault(fault.with_origin(Origin::Transport))))
        };
        let end = if !self.may_push() {
            Some(Err(CallError::Unknown(Cause::Closed("the connection has ended".to_owned()))))
        } else if id & OF_EXTENSION == 0 {
            refused("is none of the extension's")
        } else if self.streams.open.contains_key(&id) {
            // The one that is there stays.
            return;
        } else if self.streams.open.len() >= STREAMS_MAX as usize {
            self.push(Kind::StreamDrop, id);
            let reason = format!("{STREAMS_MAX} streams are open");
            Some(Err(CallError::Rejected { reason, retry_after: None }))
        } else {
            None
        };
        let granted = if end.is_none() { STREAM_WINDOW_BYTES } else { 0 };
        let stream = Stream { items: VecDeque::new(), received: 0, taken: 0, granted, end, waker: None };
        self.streams.open.insert(id, stream);
        if granted > 0 {
            self.grant(id, granted);
        }
    }

    fn grant(&mut self, id: u64, total: u64) {
        self.push_frame(Header { aux: total, ..Header::new(Kind::StreamCredit, self.epoch, id) }, &[]);
    }

    /// Whether items of this stream are wanted.
    pub(in crate::connection) fn reads_stream(&self, id: u64) -> bool {
        self.streams.is_writing(id)
    }

    /// An item came.
    pub(in crate::connection) fn stream_item(
        &mut self,
        (id, codec): (u64, Codec),
        body: Bytes,
        wake: &mut Vec<Waker>,
    ) -> Result<(), Violation> {
        let kind = Kind::StreamData;
        let Some(stream) = self.streams.open.get_mut(&id).filter(|stream| stream.end.is_none()) else {
            // It was dropped while the item was on its way.
            self.statistics.ignored += 1;
            return Ok(());
        };
        if codec != Codec::MessagePack {
            return Err(Violation::Frame { kind, id, what: "has a codec that was not agreed on" });
        }
        if body.len() as u64 > STREAM_ITEM_BYTES_MAX {
            return Err(Violation::Frame { kind, id, what: "is an item above the limit of 1 MiB" });
        }
        if stream.received >= stream.granted {
            let expected = "a writer waits for credit before it begins an item";
            return Err(Violation::Unexpected { kind, id, expected });
        }
        stream.received += cost(&body);
        stream.items.push_back(body);
        wake.extend(stream.waker.take());
        Ok(())
    }

    /// The writer has said that it is over.
    pub(in crate::connection) fn stream_ended(
        &mut self,
        id: u64,
        end: Result<(), CallError>,
        wake: &mut Vec<Waker>,
    ) {
        match self.streams.open.get_mut(&id) {
            Some(stream) => stream.end(end, wake),
            None => self.statistics.ignored += 1,
        }
    }

    /// Takes the next item, or the end, after which nothing is left of the stream.
    pub(in crate::connection) fn poll_stream(&mut self, id: u64, waker: &Waker) -> Poll<NextItem> {
        let Some(stream) = self.streams.open.get_mut(&id) else { return Poll::Ready(None) };
        if let Some(bytes) = stream.items.pop_front() {
            stream.taken += cost(&bytes);
            let is_due = stream.granted.saturating_sub(stream.taken) <= STREAM_WINDOW_BYTES / 2;
            if stream.end.is_none() && is_due {
                stream.granted = stream.taken + STREAM_WINDOW_BYTES;
                let total = stream.granted;
                self.grant(id, total);
            }
            return Poll::Ready(Some(Ok(Encoded { codec: Codec::MessagePack, bytes })));
        }
        if stream.end.is_none() {
            stream.waker = Some(waker.clone());
            return Poll::Pending;
        }
        let end = self.streams.open.remove(&id).and_then(|stream| stream.end);
        Poll::Ready(end.and_then(Result::err).map(Err))
    }

    /// Nobody reads it any longer. Returns what is to be dropped without the lock.
    pub(in crate::connection) fn drop_stream(&mut self, id: u64) -> impl Sized + use<> {
        let stream = self.streams.open.remove(&id);
        if stream.as_ref().is_some_and(|stream| stream.end.is_none()) {
            self.push(Kind::StreamDrop, id);
        }
        stream
    }

    /// A result came, or was not collected, that nobody waits for: neither does anybody for its streams.
    pub(in crate::connection) fn refuse_streams(&mut self, ids: impl Iterator<Item = u64>) {
        for id in ids.take(STREAMS_MAX as usize) {
            self.push(Kind::StreamDrop, id);
        }
    }

    /// Nothing more comes.
    pub(super) fn end_streams(&mut self, cause: &Cause, wake: &mut Vec<Waker>) {
        for stream in self.streams.open.values_mut() {
            stream.end(Err(CallError::Unknown(cause.clone())), wake);
        }
    }
}
