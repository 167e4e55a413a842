//! What leaves the extension, in one queue with one writer at a time.
//!
//! Whoever appends may write, too; while somebody writes, the others only append, and the one who writes takes
//! along what came meanwhile. So a message waits for nobody, and messages that meet leave together.
//!
//! ```text
//! idle --flush: something queued--> writing --queue empty--> idle
//!                                     |  ^
//!                                     +--+ queued meanwhile
//! any --write failed, or closed--> broken: what is appended is dropped
//! ```

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use ipc_protocol::control::{Goodbye, LogRecord, Progress};
use ipc_protocol::handshake::Ready;
use ipc_protocol::{Codec, Fault, Header, Kind, Retry};
use ipc_transport::framing::{append_frame, append_message, split_frames};
use ipc_transport::ring::RingWriter;
use ipc_transport::{Answer, CallError, Reply};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use serde::Serialize;

use super::host_calls::Waiting;
use super::keeper::Keeper;
use super::{Server, host_calls};
use crate::block_on::block_on;
use crate::context::{Grant, ProgressSink};
use crate::stream::Writer;

/// Answers of one batch of calls are written when they are as many bytes, even if more calls are there.
pub(super) const COALESCED_BYTES_MAX: usize = 64 << 10;

/// LIMIT: bytes queued for a host that does not read; whoever appends more waits.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// LIMIT: bytes queued beyond which log records are dropped, and counted, instead of queued.
const LOG_QUEUED_BYTES_MAX: usize = 1 << 20;

/// LIMIT: the longest result that is copied behind its header; a longer one is queued as it is, so that it is not
/// held twice.
const COPIED_RESULT_BYTES_MAX: usize = 64 << 10;

/// LIMIT: pieces handed to one system call.
const SLICES_MAX: usize = 64;

/// LIMIT: room that a queue keeps for the next messages.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// When what was appended leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// Now, if that takes no waiting and no system call; else with the next flush.
    AtOnce,
    /// With the next flush.
    Later,
}

/// How long one who waits for room in the ring waits before he looks by himself: for the case that all who could hear
/// the bell are in handlers.
const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The queue and the channel.
pub(crate) struct Output {
    channel: UnixStream,
    epoch: u32,
    keeper: Arc<Keeper>,
    queue: Mutex<Queue>,
    has_room: Condvar,
    /// For whoever waits for room in the ring: the host has rung.
    rung: Mutex<()>,
    has_rung: Condvar,
    /// For the calls that ask the host for something.
    server: OnceLock<Weak<Server>>,
}

#[derive(Default)]
struct Queue {
    pending: Pending,
    spare: Vec<u8>,
    /// Where the bytes go if not to the channel; with the one who writes while he does.
    ring: Option<RingWriter>,
    is_writing: bool,
    is_broken: bool,
    /// The goodbye is appended.
    has_left: bool,
    log_records_dropped: u64,
}

/// Bytes that wait to be written.
#[derive(Default)]
struct Pending {
    /// Everything but large bodies.
    bytes: Vec<u8>,
    /// Large bodies, each with the number of `bytes` that go before it.
    large: Vec<(usize, Bytes)>,
    large_bytes: usize,
}

impl Queue {
    /// Writes everything to the ring at once and returns whether the host must be woken. `None`: there is no ring,
    /// or not as much room.
    fn write_to_ring(&mut self) -> Option<bool> {
        let ring = self.ring.as_mut()?;
        // A lie is found again by who writes without a lock, and ends the channel there.
        if !ring.has_room(self.pending.len()).unwrap_or(false) {
            return None;
        }
        let mut must_wake = false;
        if self.pending.large.is_empty() {
            ring.write_by_pieces(&self.pending.bytes, &mut must_wake).ok()?;
        } else {
            for slice in self.pending.slices() {
                ring.write_by_pieces(&slice, &mut must_wake).ok()?;
            }
        }
        self.pending.clear();
        Some(ring.publish() | must_wake)
    }
}

impl Pending {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.large.clear();
        self.large_bytes = 0;
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.large_bytes
    }

    fn push_large(&mut self, header: Header, body: &Bytes) {
        for (header, part) in split_frames(header, body) {
            self.bytes.extend_from_slice(&header);
            self.large.push((self.bytes.len(), body.slice_ref(part)));
        }
        self.large_bytes += body.len();
    }

    /// Everything in its order.
    fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 * self.large.len() + 1);
        let mut from = 0;
        for (at, body) in &self.large {
            slices.push(IoSlice::new(&self.bytes[from..*at]));
            slices.push(IoSlice::new(body));
            from = *at;
        }
        slices.push(IoSlice::new(&self.bytes[from..]));
        slices
    }
}

impl Output {
    pub(super) fn new(channel: UnixStream, epoch: u32, keeper: Arc<Keeper>) -> Self {
        Self {
            channel,
            epoch,
            keeper,
            queue: Mutex::default(),
            has_room: Condvar::new(),
            rung: Mutex::new(()),
            has_rung: Condvar::new(),
            server: OnceLock::new(),
        }
    }

    /// Whose calls may ask the host from here on.
    pub(super) fn serves(&self, server: &Arc<Server>) {
        self.server.get_or_init(|| Arc::downgrade(server));
    }

    fn begin_host_call(
        &self,
        call: u64,
        method: &str,
        arguments: Vec<u8>,
        takes_grant: bool,
    ) -> Result<Waiting, CallError> {
        match self.server() {
            Some(server) => host_calls::begin(&server, (call, method), arguments, takes_grant),
            None => Err(host_calls::unsupported(method).into()),
        }
    }

    fn server(&self) -> Option<Arc<Server>> {
        self.server.get()?.upgrade()
    }

    pub(super) fn channel(&self) -> &UnixStream {
        &self.channel
    }

    /// Appends a call's result: a large one is taken out of `body`. Returns how many bytes are queued.
    pub(super) fn append_reply(&self, call: u64, codec: Codec, body: &mut Vec<u8>, flush: Flush) -> usize {
        let header = Header { codec, ..Header::new(Kind::Reply, self.epoch, call) };
        if body.len() <= COPIED_RESULT_BYTES_MAX {
            let mut queue = self.lock_with_room();
            if !queue.is_broken && !queue.has_left {
                append_frame(&mut queue.pending.bytes, header, body);
            }
            let must_wake = match flush {
                Flush::AtOnce if !queue.is_writing => queue.write_to_ring(),
                Flush::AtOnce | Flush::Later => None,
            };
            let queued = queue.pending.len();
            drop(queue);
            if must_wake == Some(true) {
                self.ring_the_bell();
            }
            return queued;
        }
        let body = Bytes::from(std::mem::take(body));
        self.append(|pending| pending.push_large(header, &body))
    }

    /// Appends a call's failure. Returns how many bytes are queued.
    pub(super) fn append_fault(&self, call: u64, fault: &Fault) -> usize {
        let mut header = Header::new(Kind::Fault, self.epoch, call);
        if let Retry::AfterMs(after_ms) = fault.retry {
            header.aux = after_ms.into();
        }
        self.append(|pending| encode(&mut pending.bytes, header, fault))
    }

    /// Appends a control message.
    pub(super) fn append_control<T: Serialize>(&self, kind: Kind, id: u64, message: &T) {
        self.append(|pending| encode(&mut pending.bytes, Header::new(kind, self.epoch, id), message));
    }

    /// Appends the last frame: what is appended after it is dropped. Handlers that still run may answer, and nothing
    /// may follow a goodbye.
    pub(super) fn append_goodbye(&self, goodbye: &Goodbye) {
        let header = Header::new(Kind::Goodbye, self.epoch, 0);
        let mut queue = self.queue.lock();
        encode(&mut queue.pending.bytes, header, goodbye);
        queue.has_left = true;
    }

    /// Appends a host call.
    pub(super) fn append_host_call(&self, header: Header, arguments: Vec<u8>) {
        self.append_payload(Header { epoch: self.epoch, ..header }, arguments);
    }

    fn append_payload(&self, header: Header, body: Vec<u8>) {
        if body.len() <= COPIED_RESULT_BYTES_MAX {
            self.append(|pending| append_frame(&mut pending.bytes, header, &body));
        } else {
            self.append(|pending| pending.push_large(header, &Bytes::from(body)));
        }
    }

    /// Appends an item of a stream.
    pub(super) fn append_stream_item(&self, stream: u64, item: Vec<u8>) {
        let header =
            Header { codec: Codec::MessagePack, ..Header::new(Kind::StreamData, self.epoch, stream) };
        self.append_payload(header, item);
    }

    /// Appends a frame without a body.
    pub(super) fn append_bare(&self, kind: Kind, id: u64) {
        self.append(|pending| append_frame(&mut pending.bytes, Header::new(kind, self.epoch, id), &[]));
    }

    /// Queues a log record, to be written with whatever is written next, soon in any case. Never waits.
    pub(crate) fn log(&self, record: &LogRecord) {
        let mut queue = self.queue.lock();
        if queue.pending.len() >= LOG_QUEUED_BYTES_MAX || queue.is_broken || queue.has_left {
            queue.log_records_dropped += 1;
            return;
        }
        let header = Header::new(Kind::Log, self.epoch, 0);
        let dropped = std::mem::take(&mut queue.log_records_dropped);
        if dropped > 0 {
            let text =
                format!("{dropped} log records were dropped because the host did not read them in time");
            encode(&mut queue.pending.bytes, header, &LogRecord::new(2, "extension_sdk", text));
        }
        encode(&mut queue.pending.bytes, header, record);
        drop(queue);
        self.keeper.flush_soon();
    }

    fn append(&self, write: impl FnOnce(&mut Pending)) -> usize {
        let mut queue = self.lock_with_room();
        if !queue.is_broken && !queue.has_left {
            write(&mut queue.pending);
        }
        queue.pending.len()
    }

    /// The queue, when not too much is in it.
    fn lock_with_room(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.queue.lock();
        while queue.pending.len() >= QUEUED_BYTES_MAX && !queue.is_broken {
            if queue.is_writing {
                self.has_room.wait(&mut queue);
            } else {
                queue = self.write_queued(queue);
            }
        }
        queue
    }

    /// Says that the start is over, and that everything after this goes through `ring`.
    pub(super) fn ready_with_ring(&self, ring: RingWriter) {
        let mut queue = self.queue.lock();
        while queue.is_writing {
            self.has_room.wait(&mut queue);
        }
        let ready = Header::new(Kind::Ready, self.epoch, 0);
        let mut message = Ready::default();
        message.rings = true;
        encode(&mut queue.pending.bytes, ready, &message);
        let last = std::mem::take(&mut queue.pending);
        queue.ring = Some(ring);
        queue.is_writing = true;
        let written = MutexGuard::unlocked(&mut queue, || write_pending(&self.channel, &last));
        queue.is_broken |= written.is_err();
        drop(self.write_queued(queue));
    }

    /// Wakes the host. If the channel is full it has not read earlier bells, and wakes up for those.
    pub(super) fn ring_the_bell(&self) {
        let bell = Header::new(Kind::Wake, self.epoch, 0).encode();
        let _ = send(&self.channel, &bell, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }

    /// The host has rung: perhaps there is room in the ring.
    pub(super) fn tell_of_room(&self) {
        drop(self.rung.lock());
        self.has_rung.notify_all();
    }

    /// Writes what is queued, unless somebody is writing: then that one does. Blocks while the host does not
    /// read.
    pub(super) fn flush(&self) {
        if !self.flush_at_once() {
            let queue = self.queue.lock();
            if !queue.is_writing && !queue.pending.bytes.is_empty() {
                drop(self.write_queued(queue));
            }
        }
    }

    /// Writes what is queued if that takes no waiting and no system call. Returns whether nothing is left to do.
    pub(super) fn flush_at_once(&self) -> bool {
        let mut queue = self.queue.lock();
        if queue.is_writing || queue.pending.bytes.is_empty() {
            return true;
        }
        let Some(must_wake) = queue.write_to_ring() else { return false };
        drop(queue);
        if must_wake {
            self.ring_the_bell();
        }
        true
    }

    /// As [`Self::flush`], and returns only when everything is written, by whomever.
    pub(super) fn flush_whole(&self) {
        let mut queue = self.queue.lock();
        while queue.is_writing {
            self.has_room.wait(&mut queue);
        }
        drop(self.write_queued(queue));
    }

    fn write_queued<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.is_writing = true;
        // Large bodies have a header among the bytes, so these are never empty before those are.
        while !queue.pending.bytes.is_empty() && !queue.is_broken {
            let next = Pending { bytes: std::mem::take(&mut queue.spare), ..Pending::default() };
            let pending = std::mem::replace(&mut queue.pending, next);
            self.has_room.notify_all();
            let mut ring = queue.ring.take();
            let (written, mut bytes) = MutexGuard::unlocked(&mut queue, || {
                let written = match &mut ring {
                    Some(ring) => self.write_through(ring, &pending),
                    None => write_pending(&self.channel, &pending),
                };
                (written, pending.bytes)
            });
            queue.ring = ring;
            queue.is_broken |= written.is_err();
            bytes.clear();
            bytes.shrink_to(KEPT_BYTES_MAX);
            queue.spare = bytes;
        }
        if queue.is_broken {
            // The reading side sees the end of the channel by itself.
            queue.pending = Pending::default();
        }
        queue.is_writing = false;
        self.has_room.notify_all();
        queue
    }

    /// Writes all of it, and waits where the ring is full.
    fn write_through(&self, ring: &mut RingWriter, pending: &Pending) -> io::Result<()> {
        for slice in pending.slices() {
            let mut rest = &*slice;
            while !rest.is_empty() {
                let mut must_wake = false;
                let count = ring.write_by_pieces(rest, &mut must_wake).map_err(io::Error::other)?;
                rest = &rest[count..];
                if ring.publish() | must_wake {
                    self.ring_the_bell();
                }
                if rest.is_empty() {
                    break;
                }
                let mut rung = self.rung.lock();
                while ring.wait_for_room().map_err(io::Error::other)? {
                    self.has_rung.wait_for(&mut rung, ROOM_LOOK_INTERVAL);
                    if self.queue.lock().is_broken {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
            }
        }
        ring.stop_waiting();
        Ok(())
    }

    /// Ends both directions; whoever reads or writes comes back.
    pub(super) fn close(&self) {
        self.queue.lock().is_broken = true;
        self.has_room.notify_all();
        self.tell_of_room();
        // It fails where the host is gone already, which is just as good.
        let _ = self.channel.shutdown(Shutdown::Both);
    }
}

impl ProgressSink for Output {
    fn progress(&self, call: u64, progress: Progress) {
        self.append_control(Kind::Progress, call, &progress);
        self.keeper.flush_soon();
    }

    fn begin_stream(&self, call: u64) -> Option<Result<Arc<dyn Writer>, Fault>> {
        let server = self.server()?;
        let begun = server.streams.begin(&server, call)?;
        Some(begun.map(|written| written as _))
    }

    fn offers(&self, method: &str) -> bool {
        self.server().is_some_and(|server| server.host_calls.offers(method))
    }

    fn call_host(&self, call: u64, method: &str, arguments: Vec<u8>) -> Reply {
        match self.begin_host_call(call, method, arguments, false) {
            Ok(waiting) => Reply::from_future(waiting),
            Err(error) => Reply::ready(Err(error)),
        }
    }

    fn call_host_for_grant(
        &self,
        call: u64,
        method: &str,
        arguments: Vec<u8>,
    ) -> Result<(Answer, Option<Grant>), CallError> {
        let mut waiting = self.begin_host_call(call, method, arguments, true)?;
        let answer = block_on(&mut waiting)?;
        Ok((answer, waiting.take_grant()))
    }
}

fn encode<T: Serialize>(bytes: &mut Vec<u8>, header: Header, message: &T) {
    // INVARIANT: the protocol's own messages are plain structs, whose Serialize cannot fail into memory.
    let encoded = append_message(bytes, header, message);
    debug_assert!(encoded.is_ok(), "a control message could not be encoded");
}

fn write_pending(channel: &UnixStream, pending: &Pending) -> io::Result<()> {
    if pending.large.is_empty() {
        return write_all(channel, &pending.bytes);
    }
    let mut slices = pending.slices();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let room = &rest[..rest.len().min(SLICES_MAX)];
        match sendmsg(channel, room, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn write_all(channel: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match send(channel, bytes, SendFlags::NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use ipc_protocol::limits::FRAME_BODY_BYTES_MAX;
    use ipc_transport::framing::FrameBuffer;

    use super::*;

    #[test]
    fn nothing_follows_the_goodbye() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let output = Output::new(theirs, 3, Arc::default());
        output.append_goodbye(&Goodbye::new("done"));
        let queued = output.append_reply(1, Codec::MessagePack, &mut vec![0xc0], Flush::Later);
        output.log(&LogRecord::new(3, "here", "too late"));
        assert_eq!(output.queue.lock().pending.len(), queued);
        let (header, _) =
            output.queue.lock().pending.bytes.split_first_chunk().map(|(h, r)| (*h, r.len())).unwrap();
        let goodbye = Header::decode(&header).unwrap();
        assert_eq!((goodbye.kind, queued), (Kind::Goodbye, 32 + goodbye.length as usize));
    }

    #[test]
    fn a_large_result_is_queued_as_it_is_and_leaves_in_its_place() {
        // More pieces than one system call takes, and more bytes than the channel holds.
        const LARGE: usize = 40 * FRAME_BODY_BYTES_MAX as usize + 5;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let output = Output::new(theirs, 3, Arc::default());
        output.append_reply(1, Codec::MessagePack, &mut vec![1; 10], Flush::Later);
        let mut large = vec![2; LARGE];
        large[LARGE - 1] = 9;
        let place = large.as_ptr();
        let queued = output.append_reply(2, Codec::MessagePack, &mut large, Flush::Later);
        assert!(large.is_empty(), "it was taken");
        output.append_bare(Kind::Pong, 3);
        output.append_reply(4, Codec::MessagePack, &mut vec![4; COPIED_RESULT_BYTES_MAX + 1], Flush::Later);
        {
            let queue = output.queue.lock();
            assert_eq!(queue.pending.large[0].1.as_ptr(), place, "it was copied");
            assert!(queue.pending.bytes.len() < 10_000);
            assert!(queued > LARGE && queue.pending.len() > queued + COPIED_RESULT_BYTES_MAX);
        }
        let reader = thread::spawn(move || {
            let mut frames = FrameBuffer::new(u64::MAX);
            let mut come = Vec::new();
            while come.len() < 4 {
                match frames.next_frame().unwrap() {
                    Some(frame) => come.push(frame),
                    None => {
                        let read = frames.read_from(|room| io::Read::read(&mut &ours, room)).unwrap();
                        assert!(read > 0, "the channel ended after {} messages", come.len());
                    }
                }
            }
            come
        });
        output.flush_whole();
        let come = reader.join().unwrap();
        let seen = come.iter().map(|frame| (frame.header.id, frame.body.len(), frame.body.last().copied()));
        let expected =
            [(1, 10, Some(1)), (2, LARGE, Some(9)), (3, 0, None), (4, COPIED_RESULT_BYTES_MAX + 1, Some(4))];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
        assert_eq!(output.queue.lock().pending.len(), 0);
    }
}
