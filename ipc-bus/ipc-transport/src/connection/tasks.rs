//! The three tasks of a connection: reader, writer, timer. They move bytes and wake; every decision is the
//! state's. Must not know what frames mean.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use tokio::time::{timeout, timeout_at};

use super::incoming::Heard;
use super::socket::WriteWatch;
use super::state::{NextWrite, Phase};
use super::through_ring::RingTask;
use super::{CAUSE_TIMEOUT, CloseReason, PeerEvents, Shared, incoming};
use crate::framing::{FrameBuffer, Violation};
use crate::outgoing::{Batch, SLICES_MAX};

/// LIMIT: reads, each of [`crate::framing::READ_BUFFER_BYTES`] at most, before other tasks get their turn.
pub(super) const READS_PER_TURN: u32 = 4;

/// LIMIT: bytes that the writer writes before other tasks get their turn.
const BYTES_PER_TURN: usize = 1 << 20;

pub(super) fn spawn(shared: &Arc<Shared>, frames: FrameBuffer, events: Arc<dyn PeerEvents>) {
    let end = EndGuard { shared: Arc::clone(shared) };
    if shared.through_ring.is_some() {
        let task = RingTask { shared: Arc::clone(shared), bells: frames, busy_since: None };
        tokio::spawn(read_ring(task, end, events));
    } else {
        let heard = Heard::new(Instant::now());
        let reader = Reader { shared: Arc::clone(shared), frames, events, heard, wake: Vec::new() };
        tokio::spawn(read(reader, end));
        tokio::spawn(write(Arc::clone(shared)));
    }
    tokio::spawn(watch_deadlines(Arc::clone(shared)));
}

/// Ends every call when the reader does, even if it is dropped with its runtime or panics.
struct EndGuard {
    shared: Arc<Shared>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let mut wake = Vec::new();
        let mut state = self.shared.state.lock();
        state.end(&mut wake);
        self.shared.finish(state, &mut wake);
        if let Some(hosted) = &self.shared.hosted {
            hosted.end();
        }
        self.shared.socket.shut_down();
        self.shared.closed.notify_waiters();
    }
}

struct Reader {
    shared: Arc<Shared>,
    frames: FrameBuffer,
    events: Arc<dyn PeerEvents>,
    heard: Heard,
    wake: Vec<Waker>,
}

async fn read(mut reader: Reader, end: EndGuard) {
    let reason = poll_fn(|cx| reader.poll(cx)).await;
    over(reason, end, &*reader.events).await;
}

async fn read_ring(mut task: RingTask, end: EndGuard, events: Arc<dyn PeerEvents>) {
    let reason = poll_fn(|cx| task.poll(cx)).await;
    over(reason, end, &*events).await;
}

async fn over(reason: CloseReason, end: EndGuard, events: &dyn PeerEvents) {
    let shared = &end.shared;
    // Neither side can use the channel any longer; the writer learns it from the state.
    shared.socket.shut_down();
    let (reason, is_caused) = {
        let mut state = shared.state.lock();
        (state.lose(reason), state.is_caused())
    };
    shared.closed.notify_waiters();
    events.closed(&reason);
    if !is_caused && !matches!(reason, CloseReason::ClosedHere(_)) {
        // Whether it is given or not: the guard ends what is left.
        let _ = timeout(CAUSE_TIMEOUT, shared.cause_given.notified()).await;
    }
    drop(end);
}

impl Reader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let Self { shared, frames, events, heard, wake } = self;
        let violated = |violation: Violation| Poll::Ready(CloseReason::Violation(violation.to_string()));
        // What the handshake read beyond its last frame is delivered before the first read.
        if let Err(violation) = incoming::deliver(shared, frames, &**events, heard, wake) {
            return violated(violation);
        }
        for _ in 0..READS_PER_TURN {
            let mut guard = match ready!(shared.socket.poll_readable(cx)) {
                Ok(guard) => guard,
                Err(error) => return Poll::Ready(CloseReason::ClosedHere(error.to_string())),
            };
            let mut had_room = false;
            let read = frames.read_from(|room| {
                let count = shared.socket.receive(room)?;
                had_room = count < room.len();
                Ok(count)
            });
            match read {
                Ok(0) => return Poll::Ready(CloseReason::Eof),
                Ok(count) => {
                    shared.state.lock().statistics_mut().bytes_read += count as u64;
                    match incoming::deliver(shared, frames, &**events, heard, wake) {
                        // A read that left room most often took everything, but not surely: it also stops behind
                        // descriptors and at urgent data, and no further edge tells of what lies beyond. While
                        // answers are owed, the socket itself must say that it is empty. When none is, no answer can
                        // lie there, and a lone call is spared the read that would only say so. The guard is older
                        // than the read, so it does not clear what came since.
                        Ok(true) if had_room => guard.clear_ready(),
                        Ok(_) => {}
                        Err(violation) => return violated(violation),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A peer that ends with unread bytes resets the channel.
                Err(_) => return Poll::Ready(CloseReason::Eof),
            }
        }
        // Others want to run, too, however much a peer sends.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

async fn write(shared: Arc<Shared>) {
    let mut writer = Writer { batch: Batch::default(), writes: None };
    poll_fn(|cx| writer.poll(&shared, cx)).await;
}

struct Writer {
    batch: Batch,
    /// While the peer does not read.
    writes: Option<WriteWatch>,
}

impl Writer {
    fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.batch.is_empty()
                && let Some(writes) = &self.writes
                && ready!(writes.poll(cx)).is_err()
            {
                return Poll::Ready(());
            }
            if self.batch.is_empty() {
                match shared.state.lock().next_write(&mut self.batch, cx.waker()) {
                    NextWrite::Batch => {}
                    NextWrite::Park => return Poll::Pending,
                    NextWrite::EndOfStream => {
                        shared.socket.shut_down_writes();
                        return Poll::Ready(());
                    }
                    NextWrite::Over => return Poll::Ready(()),
                }
            }
            let Err(error) = self.write_batch(shared) else {
                if self.batch.is_empty() {
                    self.writes = None;
                    continue;
                }
                // Others want to run, too: the reader first of all.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            };
            shared.state.lock().block_writer(&mut self.batch, cx.waker());
            if error.kind() != io::ErrorKind::WouldBlock {
                // The peer takes nothing any longer. Read what it said before, and then the end.
                shared.socket.shut_down();
                return Poll::Ready(());
            }
            if self.writes.is_none() {
                match shared.socket.watch_writes() {
                    Ok(writes) => self.writes = Some(writes),
                    Err(_) => {
                        shared.socket.shut_down();
                        return Poll::Ready(());
                    }
                }
            }
        }
    }

    /// Writes the batch, or so much of it that it is time to let others run.
    fn write_batch(&mut self, shared: &Shared) -> io::Result<()> {
        let mut written = 0;
        while !self.batch.is_empty() && written < BYTES_PER_TURN {
            let mut room = [IoSlice::new(&[]); SLICES_MAX];
            let sent = match self.batch.granting() {
                Some((bytes, descriptor)) => shared.socket.send_granting(bytes, descriptor),
                None => shared.socket.send_slices(self.batch.slices(&mut room)),
            };
            match sent {
                Ok(count) => {
                    written += count;
                    self.batch.advance(count);
                    let mut state = shared.state.lock();
                    state.wrote(count);
                    shared.finish(state, &mut Vec::new());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

async fn watch_deadlines(shared: Arc<Shared>) {
    loop {
        let target = {
            let state = shared.state.lock();
            if matches!(state.phase(), Phase::Ended(..)) {
                return;
            }
            state.timer_target()
        };
        let moved = shared.timer.notified();
        let Some(target) = target else {
            moved.await;
            continue;
        };
        if timeout_at(target.into(), moved).await.is_err() {
            let mut wake = Vec::new();
            let mut state = shared.state.lock();
            state.expire(Instant::now(), &mut wake);
            shared.finish(state, &mut wake);
        }
    }
}
