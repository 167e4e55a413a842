//! Reads frames and acts on them: the loop of whoever holds the reading role.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipc_protocol::{Fault, FaultCode, Header, Kind};
use ipc_transport::framing::{Body, FrameBuffer, Violation};
use rustix::net::RecvFlags;

use super::answer::arguments;
use super::output::{COALESCED_BYTES_MAX, Flush, Output};
use super::ring_input::{Descriptors, Granted, RingInput, receive};
use super::role::Away;
use super::workers::{self, Job, SCRATCH_BYTES_MAX};
use super::{End, ServeError, Server, start_thread};
use crate::context::CallState;

/// What is read and not yet acted on. Behind a mutex that only the holder of the role locks.
pub(super) struct Reading {
    frames: FrameBuffer,
    /// Where the bytes come from if not from the channel.
    ring: Option<RingInput>,
    descriptors: Descriptors,
    /// When the last bytes came: the clock is read once for all frames of one read.
    arrived: Instant,
}

impl Reading {
    pub(super) fn new(frames: FrameBuffer, ring: Option<RingInput>, descriptors: Descriptors) -> Self {
        Self { frames, ring, descriptors, arrived: Instant::now() }
    }

    /// The next message, and when it came; a small body is left in `local`.
    fn take(&mut self, local: &mut Local) -> Result<Option<(Header, Option<Bytes>, Instant)>, Violation> {
        let taken = self.frames.next_frame_ref()?.map(|frame| {
            let body = match frame.body {
                Body::Borrowed(slice) => {
                    local.body.clear();
                    local.body.extend_from_slice(slice);
                    None
                }
                Body::Owned(bytes) => Some(bytes),
            };
            (frame.header, body, self.arrived)
        });
        if let Some((header, ..)) = &taken
            && header.descriptors > 0
        {
            local.descriptor = self.descriptors.take(header);
        }
        local.has_more = taken.is_some() && !self.frames.unread().is_empty();
        Ok(taken)
    }

    /// What has been granted beside the ring.
    fn take_granted(&mut self, output: &Output) -> Result<VecDeque<Granted>, Violation> {
        match &mut self.ring {
            Some(ring) => ring.take_granted(&mut self.descriptors, output),
            None => Ok(VecDeque::new()),
        }
    }

    /// Waits for bytes; `Ok(0)` when nothing can come any more.
    fn fill(&mut self, output: &Output) -> Result<usize, Violation> {
        let read = match &mut self.ring {
            Some(ring) => ring.fill(&mut self.frames, &mut self.descriptors, output)?,
            // Reset, or whatever else: nothing can come any more.
            None => {
                let flags = RecvFlags::empty();
                receive(output.channel(), &mut self.frames, &mut self.descriptors, flags).unwrap_or(0)
            }
        };
        self.arrived = Instant::now();
        Ok(read)
    }
}

/// `aux` of a descriptor that belongs to the answer to a host call.
const OF_HOST_CALL: u64 = 1;

/// For [`super::role::Role::leave`] when the reader writes: no method.
const NO_METHOD: u32 = u32::MAX;

thread_local! {
    /// While this thread is away for a call: the word to come back with. 0: it is not, or has handed the role on.
    static AWAY: Cell<u64> = const { Cell::new(0) };
    /// Whether this thread counts as one of the readers.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// What a reader keeps from call to call.
#[derive(Default)]
struct Local {
    body: Vec<u8>,
    /// What the last frame brought.
    descriptor: Option<OwnedFd>,
    /// Of the last call, if nobody keeps it.
    call: Option<Arc<CallState>>,
    scratch: Vec<u8>,
    /// The clock as it was read last.
    now: Option<Instant>,
    /// Whether more was read than was acted on.
    has_more: bool,
    /// Whether this reader appended what it has not written. (Who else appends sees to it himself.)
    has_unwritten: bool,
}

/// Whether the thread still holds the role.
enum Held {
    Yes,
    No,
}

/// Starts the first reader.
pub(super) fn start(server: &Arc<Server>) -> io::Result<()> {
    server.role.add_reader();
    start_thread(server, "reader", read)?;
    Ok(())
}

/// Starts a reader that takes the role from one that is away since `seen`. If there is no thread for it the
/// next tick tries again.
pub(super) fn start_successor(server: &Arc<Server>, seen: u64) {
    if !server.role.add_reader() {
        return;
    }
    let started = start_thread(server, "reader", move |server| {
        if server.role.take_over(seen) {
            read(server);
        } else {
            server.role.remove_reader();
        }
    });
    if started.is_err() {
        server.role.remove_reader();
    }
}

fn read(server: &Arc<Server>) {
    IS_COUNTED.set(true);
    let end = read_loop(server);
    if IS_COUNTED.replace(false) {
        server.role.remove_reader();
    }
    if let Some(end) = end {
        server.keeper.end(end);
    }
}

/// Hands the reading role on at once, if it is this thread's: the handler that it runs is about to wait for a frame that
/// somebody must read. It is no reader any more for the count either: however many wait so, one reads.
pub(super) fn hand_on(server: &Arc<Server>) {
    let away = AWAY.replace(0);
    if away == 0 {
        return;
    }
    if IS_COUNTED.replace(false) {
        server.role.remove_reader();
    }
    server.learn_stuck();
    start_successor(server, away);
}

/// `None`: the role went to another thread.
fn read_loop(server: &Arc<Server>) -> Option<Result<End, ServeError>> {
    // What a reader before this one answered in the same batch must not wait for the call it is stuck in; and
    // what it read came a while ago.
    if let Held::No = write(server) {
        return None;
    }
    let mut local = Local { now: Some(Instant::now()), ..Local::default() };
    // What a reader before this one left is taken before anything is waited for.
    local.has_more = true;
    loop {
        let frame = if local.has_more {
            server.reading.lock().take(&mut local)
        } else {
            if std::mem::take(&mut local.has_unwritten)
                && let Held::No = write(server)
            {
                return None;
            }
            // The mutex is held while nothing comes, which nobody minds: a successor locks it only after a reader
            // was away.
            let mut reading = server.reading.lock();
            match reading.fill(&server.output) {
                Ok(0) => return Some(Ok(End::HostGone)),
                Ok(_) => {
                    local.now = None;
                    reading.take(&mut local)
                }
                Err(violation) => Err(violation),
            }
        };
        let acted = match frame {
            Ok(Some((header, body, arrived))) => act(server, &header, body, arrived, &mut local),
            Ok(None) => Ok(Held::Yes),
            Err(violation) => Err(violation),
        };
        match acted {
            Ok(Held::Yes) => {}
            Ok(Held::No) => return None,
            Err(violation) => return Some(Err(ServeError::Violation(violation))),
        }
    }
}

/// Writes what is queued; the host may be slow to read, so the role may be gone afterwards.
fn write(server: &Server) -> Held {
    if server.output.flush_at_once() {
        return Held::Yes;
    }
    let away = server.role.leave(NO_METHOD);
    server.output.flush();
    held(server, away)
}

fn held(server: &Server, away: Away) -> Held {
    if server.role.come_back(away) { Held::Yes } else { Held::No }
}

fn act(
    server: &Arc<Server>,
    header: &Header,
    owned: Option<Bytes>,
    arrived: Instant,
    local: &mut Local,
) -> Result<Held, Violation> {
    let Header { kind, id, .. } = *header;
    let had_unwritten = std::mem::replace(&mut local.has_unwritten, true);
    if header.epoch != server.epoch {
        // Meant for another incarnation. An answer would bear this one's epoch, and so be taken for an answer to
        // another call.
        server.keeper.count_stale();
        return Ok(Held::Yes);
    }
    match kind {
        Kind::Call => return call(server, header, owned, arrived, local, had_unwritten),
        Kind::Cancel => server.calls.cancel(id),
        Kind::Ping => server.output.append_bare(Kind::Pong, id),
        Kind::Drain => {
            if server.calls.drain() {
                server.keeper.end(Ok(End::Drained));
            }
        }
        // The host's last frame: the end of the channel follows.
        Kind::Goodbye => {}
        // Nobody writes to this side: whoever does is told that it is over.
        Kind::StreamData => server.output.append_bare(Kind::StreamDrop, id),
        Kind::StreamCredit if server.streams.are_agreed() => server.streams.granted(server, id, header.aux),
        Kind::StreamCredit => {
            let fault = Fault::new(FaultCode::Unsupported, "this extension has no streams");
            server.output.append_control(Kind::StreamEnd, id, &fault);
        }
        Kind::Descriptor if header.aux == OF_HOST_CALL => {
            if let Some(descriptor) = local.descriptor.take() {
                server.host_calls.granted(header, owned.as_deref().unwrap_or(&local.body), descriptor)?;
            }
        }
        // The descriptor itself was closed by the system, as nobody took it.
        Kind::Descriptor if id != 0 => server.calls.expect_descriptors(id),
        Kind::HostReply | Kind::HostFault => {
            if server.host_calls.takes_grant(id) {
                for granted in server.reading.lock().take_granted(&server.output)? {
                    server.host_calls.granted(&granted.header, &granted.body, granted.descriptor)?;
                }
            }
            let body = owned.unwrap_or_else(|| Bytes::copy_from_slice(&local.body));
            server.host_calls.answered(*header, body)?;
        }
        Kind::StreamDrop => server.streams.dropped(server, id),
        // Of things that this extension never began.
        Kind::StreamEnd | Kind::Descriptor | Kind::SegmentReturn => {}
        Kind::Hello
        | Kind::Welcome
        | Kind::Ready
        | Kind::Reply
        | Kind::Fault
        | Kind::Progress
        | Kind::Event
        | Kind::Log
        | Kind::Pong
        | Kind::HostCall
        | Kind::Heartbeat
        | Kind::Wake => {
            return Err(Violation::Unexpected {
                kind,
                id,
                expected: "a host sends calls and what belongs to them",
            });
        }
    }
    Ok(Held::Yes)
}

fn call(
    server: &Arc<Server>,
    header: &Header,
    owned: Option<Bytes>,
    arrived: Instant,
    local: &mut Local,
    had_unwritten: bool,
) -> Result<Held, Violation> {
    let Header { kind, id, .. } = *header;
    if let Some(fault) = server.refuse(header) {
        server.output.append_fault(id, &fault);
        return Ok(Held::Yes);
    }
    let body = owned.as_deref().unwrap_or(&local.body);
    let body = arguments(header, body).map_err(|what| Violation::Frame { kind, id, what })?;
    let begun = match server.begin(header, arrived, local.call.take()) {
        Ok(Ok(begun)) => begun,
        Ok(Err(fault)) => {
            server.output.append_fault(id, &fault);
            return Ok(Held::Yes);
        }
        Err(expected) => return Err(Violation::Unexpected { kind, id, expected }),
    };
    let method = &server.methods[begun.method];
    if method.traits.is_async || !method.pace.is_fast() {
        let body = match &owned {
            Some(bytes) => bytes.slice_ref(body),
            None => Bytes::copy_from_slice(body),
        };
        workers::submit(server, Job { begun, body });
        return Ok(Held::Yes);
    }

    let away = server.role.leave(header.method);
    AWAY.set(away.word());
    let began = local.now.unwrap_or(arrived);
    // The answers to all calls of one read leave together.
    let flush = if local.has_more { Flush::Later } else { Flush::AtOnce };
    let queued = server.run(&begun, body, &mut local.scratch, began, flush);
    local.has_unwritten = had_unwritten || queued > 0;
    let has_handed_on = AWAY.replace(0) == 0;
    let ended = Instant::now();
    method.pace.record(ended.duration_since(began));
    local.now = Some(ended);
    local.scratch.shrink_to(SCRATCH_BYTES_MAX);
    server.finish(&begun);
    local.call = Some(begun.call);
    if queued >= COALESCED_BYTES_MAX {
        server.output.flush();
    }
    let held = held(server, away);
    if let Held::No = held {
        // Nobody else knows of this answer.
        server.output.flush();
    } else if has_handed_on {
        // Its successor came too late.
        IS_COUNTED.set(server.role.add_reader());
    }
    Ok(held)
}
