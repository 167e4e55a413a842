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

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ipc_protocol::control::{LogRecord, Progress};
use ipc_protocol::{Codec, Fault, Header, Kind, Retry};
use ipc_transport::framing::{append_frame, append_message};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::net::{SendFlags, send};
use serde::Serialize;

use super::keeper::Keeper;
use crate::context::ProgressSink;

/// Answers of one batch of calls are written when they are as many bytes, even if more calls are there.
pub(super) const COALESCED_BYTES_MAX: usize = 64 << 10;

/// LIMIT: bytes queued for a host that does not read; whoever appends more waits.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// LIMIT: bytes queued beyond which log records are dropped, and counted, instead of queued.
const LOG_QUEUED_BYTES_MAX: usize = 1 << 20;

/// LIMIT: room that a queue keeps for the next messages.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The queue and the channel.
pub(crate) struct Output {
    channel: UnixStream,
    epoch: u32,
    keeper: Arc<Keeper>,
    queue: Mutex<Queue>,
    has_room: Condvar,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    spare: Vec<u8>,
    is_writing: bool,
    is_broken: bool,
    log_records_dropped: u64,
}

impl Output {
    pub(super) fn new(channel: UnixStream, epoch: u32, keeper: Arc<Keeper>) -> Self {
        Self { channel, epoch, keeper, queue: Mutex::default(), has_room: Condvar::new() }
    }

    pub(super) fn channel(&self) -> &UnixStream {
        &self.channel
    }

    /// Appends a call's result. Returns how many bytes are queued.
    pub(super) fn append_reply(&self, call: u64, body: &[u8]) -> usize {
        let header = Header { codec: Codec::MessagePack, ..Header::new(Kind::Reply, self.epoch, call) };
        self.append(|bytes| append_frame(bytes, header, body))
    }

    /// Appends a call's failure. Returns how many bytes are queued.
    pub(super) fn append_fault(&self, call: u64, fault: &Fault) -> usize {
        let mut header = Header::new(Kind::Fault, self.epoch, call);
        if let Retry::AfterMs(after_ms) = fault.retry {
            header.aux = after_ms.into();
        }
        self.append(|bytes| encode(bytes, header, fault))
    }

    /// Appends a control message.
    pub(super) fn append_control<T: Serialize>(&self, kind: Kind, id: u64, message: &T) {
        self.append(|bytes| encode(bytes, Header::new(kind, self.epoch, id), message));
    }

    /// Appends a frame without a body.
    pub(super) fn append_bare(&self, kind: Kind, id: u64) {
        self.append(|bytes| append_frame(bytes, Header::new(kind, self.epoch, id), &[]));
    }

    /// Queues a log record, to be written with whatever is written next, soon in any case. Never waits.
    pub(crate) fn log(&self, record: &LogRecord) {
        let mut queue = self.queue.lock();
        if queue.bytes.len() >= LOG_QUEUED_BYTES_MAX || queue.is_broken {
            queue.log_records_dropped += 1;
            return;
        }
        let header = Header::new(Kind::Log, self.epoch, 0);
        let dropped = std::mem::take(&mut queue.log_records_dropped);
        if dropped > 0 {
            let text =
                format!("{dropped} log records were dropped because the host did not read them in time");
            encode(&mut queue.bytes, header, &LogRecord::new(2, "extension_sdk", text));
        }
        encode(&mut queue.bytes, header, record);
        drop(queue);
        self.keeper.flush_soon();
    }

    fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let mut queue = self.queue.lock();
        while queue.bytes.len() >= QUEUED_BYTES_MAX && !queue.is_broken {
            if queue.is_writing {
                self.has_room.wait(&mut queue);
            } else {
                queue = self.write_queued(queue);
            }
        }
        if !queue.is_broken {
            write(&mut queue.bytes);
        }
        queue.bytes.len()
    }

    /// Writes what is queued, unless somebody is writing: then that one does. Blocks while the host does not
    /// read.
    pub(super) fn flush(&self) {
        let queue = self.queue.lock();
        if !queue.is_writing && !queue.bytes.is_empty() {
            drop(self.write_queued(queue));
        }
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
        while !queue.bytes.is_empty() && !queue.is_broken {
            let spare = std::mem::take(&mut queue.spare);
            let mut bytes = std::mem::replace(&mut queue.bytes, spare);
            self.has_room.notify_all();
            let written = MutexGuard::unlocked(&mut queue, || write_all(&self.channel, &bytes));
            queue.is_broken |= written.is_err();
            bytes.clear();
            bytes.shrink_to(KEPT_BYTES_MAX);
            queue.spare = bytes;
        }
        if queue.is_broken {
            // The reading side sees the end of the channel by itself.
            queue.bytes.clear();
        }
        queue.is_writing = false;
        self.has_room.notify_all();
        queue
    }

    /// Ends both directions; whoever reads or writes comes back.
    pub(super) fn close(&self) {
        self.queue.lock().is_broken = true;
        self.has_room.notify_all();
        // It fails where the host is gone already, which is just as good.
        let _ = self.channel.shutdown(Shutdown::Both);
    }
}

impl ProgressSink for Output {
    fn progress(&self, call: u64, progress: Progress) {
        self.append_control(Kind::Progress, call, &progress);
        self.keeper.flush_soon();
    }
}

fn encode<T: Serialize>(bytes: &mut Vec<u8>, header: Header, message: &T) {
    // INVARIANT: the protocol's own messages are plain structs, whose Serialize cannot fail into memory.
    let encoded = append_message(bytes, header, message);
    debug_assert!(encoded.is_ok(), "a control message could not be encoded");
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
