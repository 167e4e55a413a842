//! The three tasks of a connection: reader, writer, timer. They move bytes and wake; every decision is the
//! state's. Must not know what frames mean.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::time::{timeout, timeout_at};

use super::socket::WriteWatch;
use super::state::{NextWrite, Phase};
use super::{CAUSE_TIMEOUT, CloseReason, PeerEvents, Shared, incoming};
use crate::framing::FrameBuffer;
use crate::outgoing::{Batch, SLICES_MAX};

/// LIMIT: bytes that the writer writes before other tasks get their turn.
const BYTES_PER_TURN: usize = 1 << 20;

pub(super) fn spawn(shared: &Arc<Shared>, frames: FrameBuffer, events: Arc<dyn PeerEvents>) {
    let end = EndGuard { shared: Arc::clone(shared) };
    let reader = Reader { shared: Arc::clone(shared), frames, events, has_left: false, wake: Vec::new() };
    tokio::spawn(read(reader, end));
    tokio::spawn(write(Arc::clone(shared)));
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
        self.shared.socket.shut_down();
        self.shared.closed.notify_waiters();
    }
}

struct Reader {
    shared: Arc<Shared>,
    frames: FrameBuffer,
    events: Arc<dyn PeerEvents>,
    has_left: bool,
    wake: Vec<Waker>,
}

async fn read(mut reader: Reader, end: EndGuard) {
    let reason = poll_fn(|cx| reader.poll(cx)).await;
    let shared = &end.shared;
    // Neither side can use the channel any longer; the writer learns it from the state.
    shared.socket.shut_down();
    let (reason, is_caused) = {
        let mut state = shared.state.lock();
        (state.lose(reason), state.is_caused())
    };
    shared.closed.notify_waiters();
    reader.events.closed(&reason);
    if !is_caused && !matches!(reason, CloseReason::ClosedHere(_)) {
        // Whether it is given or not: the guard ends what is left.
        let _ = timeout(CAUSE_TIMEOUT, shared.cause_given.notified()).await;
    }
    drop(end);
}

impl Reader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let Self { shared, frames, events, has_left, wake } = self;
        loop {
            // What the handshake read beyond its last frame is delivered before the first read.
            let delivered = incoming::deliver(shared, frames, &**events, has_left, wake);
            if let Err(violation) = delivered {
                return Poll::Ready(CloseReason::Violation(violation.to_string()));
            }
            loop {
                let mut guard = match ready!(shared.socket.poll_readable(cx)) {
                    Ok(guard) => guard,
                    Err(error) => return Poll::Ready(CloseReason::ClosedHere(error.to_string())),
                };
                let mut is_drained = false;
                let read = frames.read_from(|room| {
                    let count = shared.socket.receive(room)?;
                    is_drained = count < room.len();
                    Ok(count)
                });
                match read {
                    Ok(0) => return Poll::Ready(CloseReason::Eof),
                    Ok(count) => {
                        // Room was left, so nothing more is there: this spares the read that would only say so.
                        if is_drained {
                            guard.clear_ready();
                        }
                        shared.state.lock().statistics_mut().bytes_read += count as u64;
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A peer that ends with unread bytes resets the channel.
                    Err(_) => return Poll::Ready(CloseReason::Eof),
                }
            }
        }
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
            match shared.socket.send_slices(self.batch.slices(&mut room)) {
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
            state.expire(std::time::Instant::now(), &mut wake);
            shared.finish(state, &mut wake);
        }
    }
}
