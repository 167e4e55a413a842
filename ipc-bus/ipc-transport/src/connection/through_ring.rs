//! A connection whose frames go through shared memory: who reads the ring, and when nobody does.
//!
//! The one who waits for an answer reads the ring himself, and polls it for a while; so an answer that comes soon
//! costs no task switch and no system call. What is left to the reader task is everything else:
//!
//! ```text
//!            a caller polls: several wait, or calls are left
//!   asleep ----------------------------------------------------> awake: reads whenever it has its turn
//!     ^   <------------------------------------------------------   |
//!     |       nothing in flight, or nothing came for a while        |
//!     +-- the other side rings: the socket is readable -------------+
//! ```
//!
//! INVARIANT: while nobody reads, the ring's word says `asleep`, so that the other side rings. Only who holds the
//! reading lock changes the word; before he lets go of it, it says so or the task is awake.
//!
//! This module must not know what frames mean.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use ipc_protocol::frame::HEADER_BYTES;
use ipc_protocol::{Header, Kind};
use parking_lot::{Mutex, MutexGuard};

use super::incoming::{self, Heard, Taken};
use super::tasks::READS_PER_TURN;
use super::{CloseReason, PeerEvents, Shared};
use crate::framing::{FrameBuffer, Violation};
use crate::in_flight::CallId;
use crate::outcome::CallResult;
use crate::ring::{Latency, Patience, RING_BYTES, RingReader};

/// To say that nobody looks costs two transfers of a cache line a call, because the other side looks at the word after each
/// answer. After as many calls in a row that followed each other without the task's having its turn, the task is called
/// awake instead and the word is left alone: the task sees to it when it has its turn, which in a runtime of one thread
/// is when the callers let it.
const ALONE_MIN: u32 = 16;

/// LIMIT: calls in a row before the task is called awake, where it has its turn at once (a runtime of several threads) and
/// so gains nothing.
const ALONE_MAX: u32 = 1 << 9;

/// LIMIT: times that a caller empties the ring for others before he lets them run.
const DRAINS_PER_POLL: u32 = 16;

/// LIMIT: bytes that a caller reads for others before he lets them run.
const BYTES_FOR_OTHERS_MAX: u64 = RING_BYTES as u64;

/// What a connection with rings has beside its state.
#[derive(Debug)]
pub(super) struct ThroughRing {
    /// Whether callers poll.
    polls: bool,
    bound: std::time::Duration,
    /// What wakes the other side.
    pub(super) bell: [u8; HEADER_BYTES],
    /// The reader task's, from its first turn on.
    task: Mutex<Option<Waker>>,
    /// What ends the connection, found by whomever; the reader task does it.
    violation: Mutex<Option<Violation>>,
    reading: Mutex<Reading>,
}

/// What whoever reads the ring needs.
struct Reading {
    ring: RingReader,
    frames: FrameBuffer,
    events: Arc<dyn PeerEvents>,
    heard: Heard,
    wake: Vec<Waker>,
    /// Of callers who read themselves.
    patience: Patience,
    /// Who read last, by the address of what his waker wakes: one who comes back is alone, and may poll without
    /// holding up others. (Whole wakers cannot be compared: a clone may have another copy of the table.)
    last: usize,
    /// Whether the reader task has its turn soon.
    is_task_awake: bool,
    /// Calls in a row whose callers found their answers themselves, since the task slept; or since it is awake.
    alone: u32,
    /// How many must come in a row before the task is kept awake for them.
    alone_min: u32,
    /// Since when nobody looks, while answers are owed.
    slept_at: Option<Instant>,
    /// The connection has ended, or will: nothing is read any more.
    is_over: bool,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("ring", &self.ring).finish_non_exhaustive()
    }
}

impl ThroughRing {
    pub(super) fn new(
        ring: RingReader,
        (epoch, message_bytes_max): (u32, u64),
        latency: Latency,
        events: Arc<dyn PeerEvents>,
    ) -> Self {
        let reading = Reading {
            ring,
            frames: FrameBuffer::new(message_bytes_max),
            events,
            heard: Heard::new(Instant::now()),
            wake: Vec::new(),
            patience: Patience::new(latency),
            last: 0,
            is_task_awake: true,
            alone: 0,
            alone_min: ALONE_MIN,
            slept_at: None,
            is_over: false,
        };
        Self {
            polls: !latency.bound().is_zero(),
            bound: latency.bound(),
            bell: Header::new(Kind::Wake, epoch, 0).encode(),
            task: Mutex::new(None),
            violation: Mutex::new(None),
            reading: Mutex::new(reading),
        }
    }

    /// Ends the connection with `violation`. To be called without the state's lock.
    pub(super) fn fail(&self, violation: Violation) {
        self.violation.lock().get_or_insert(violation);
        self.wake_task();
    }

    /// Gives the reader task its turn.
    pub(super) fn wake_task(&self) {
        if let Some(task) = &*self.task.lock() {
            task.wake_by_ref();
        }
    }

    /// Who held the lock lets go of it. `keeps_looking`: the reader task does from here on; else the other side must
    /// ring.
    fn hand_over(&self, mut reading: MutexGuard<'_, Reading>, keeps_looking: bool) {
        if reading.is_task_awake {
            return;
        }
        if keeps_looking || !reading.ring.sleep().unwrap_or(false) {
            reading.ring.wake();
            reading.is_task_awake = true;
            self.wake_task();
        }
    }
}

impl Reading {
    /// Counts a call whose caller found its answer himself, with nothing else in flight. Returns whether the next
    /// one will come so soon that nobody need be told to ring.
    fn is_called_again(&mut self) -> bool {
        self.alone = self.alone.saturating_add(1);
        if !self.is_task_awake && self.alone >= self.alone_min {
            self.alone = 0;
            return true;
        }
        self.is_task_awake
    }

    /// The task had its turn and goes to sleep: whether it was worth to call it awake.
    fn learn(&mut self) {
        let was_worth = self.alone >= 4 * ALONE_MIN;
        self.alone_min = if was_worth { ALONE_MIN } else { (2 * self.alone_min).min(ALONE_MAX) };
        self.alone = 0;
    }

    /// Takes everything out of the ring and acts on it. Returns how many bytes it was, and the outcome of the call
    /// `wanted`, if it is here.
    fn drain(&mut self, shared: &Shared, wanted: Option<CallId>) -> Result<(u64, Option<Taken>), Violation> {
        let mut bytes = 0;
        (self.heard.wanted, self.heard.taken) = (wanted, None);
        let mut must_wake = false;
        // The ring is bounded, but whoever fills it while it is read must not hold up others for ever.
        for _ in 0..READS_PER_TURN {
            let ring = &mut self.ring;
            let mut lie = None;
            let read = self.frames.read_from(|room| {
                let read = ring.read(room).map_err(|violation| {
                    lie = Some(violation);
                    io::ErrorKind::InvalidData
                })?;
                must_wake |= read.must_wake;
                Ok(read.count)
            });
            match (read, lie) {
                (_, Some(lie)) => return Err(lie),
                (Ok(0) | Err(_), None) => break,
                (Ok(count), None) => {
                    bytes += count as u64;
                    self.heard.bytes += count as u64;
                }
            }
            incoming::deliver(shared, &mut self.frames, &*self.events, &mut self.heard, &mut self.wake)?;
        }
        if must_wake {
            shared.ring_the_bell();
        }
        if self.heard.bytes > 0 {
            shared.state.lock().statistics_mut().bytes_read += std::mem::take(&mut self.heard.bytes);
        }
        Ok((bytes, self.heard.taken.take()))
    }
}

impl Shared {
    /// Wakes the other side. If its socket is full it has not read earlier bells, and wakes up for those.
    pub(super) fn ring_the_bell(&self) {
        if let Some(through) = &self.through_ring {
            let _ = self.socket.send(&through.bell);
        }
    }

    /// The outcome of a call, which the caller reads from the ring himself if he can.
    pub(super) fn poll_through_ring(
        &self,
        through: &ThroughRing,
        id: CallId,
        cx: &mut Context<'_>,
    ) -> Poll<CallResult> {
        if !through.polls {
            return self.state.lock().poll(id, cx.waker());
        }
        // One who is answered at once each time must let others run, too.
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        if let Some(result) = self.state.lock().take_outcome(id) {
            turn.made_progress();
            return Poll::Ready(result);
        }
        // Somebody else reads now: he hands over what comes.
        let Some(mut reading) = through.reading.try_lock() else {
            return self.state.lock().poll(id, cx.waker());
        };
        if reading.is_over {
            return self.state.lock().poll(id, cx.waker());
        }
        let unwinding = WakeIfUnwinding(through);
        reading.ring.wake();
        let this = cx.waker().data().addr();
        let is_alone = reading.last == this;
        reading.last = this;
        let mut drained = 0;
        let mut until = None;
        if is_alone && !reading.ring.has_bytes().unwrap_or(true) {
            // Nobody else has his turn while this one waits.
            let state = self.state.lock();
            if state.keeps_back() {
                self.finish(state, &mut Vec::new());
            }
        }
        for _ in 0..DRAINS_PER_POLL {
            let Reading { patience, ring, .. } = &mut *reading;
            let has_come = if is_alone {
                patience.wait(|| ring.has_bytes().unwrap_or(true))
            } else {
                ring.has_bytes().unwrap_or(true)
            };
            if !has_come {
                break;
            }
            match reading.drain(self, Some(id)) {
                Ok((_, Some(Taken { result, in_flight }))) => {
                    let keeps_looking = in_flight > 0 || reading.is_called_again();
                    through.hand_over(reading, keeps_looking);
                    drop(unwinding);
                    turn.made_progress();
                    return Poll::Ready(result);
                }
                // After a violation nothing is taken any more.
                Ok((0, None)) => break,
                Ok((bytes, None)) => drained += bytes,
                Err(violation) => {
                    through.fail(violation);
                    // What was said before it counts.
                    if let Some(Taken { result, .. }) = reading.heard.taken.take() {
                        through.hand_over(reading, true);
                        drop(unwinding);
                        return Poll::Ready(result);
                    }
                    break;
                }
            }
            if std::mem::take(&mut reading.heard.has_host_call) {
                // Nobody runs it while this one looks, in a runtime of one thread.
                break;
            }
            let now = Instant::now();
            let is_late = now >= *until.get_or_insert(now + through.bound);
            if !is_alone || is_late || drained >= BYTES_FOR_OTHERS_MAX {
                break;
            }
        }
        let poll = self.state.lock().poll(id, cx.waker());
        // One who waits alone and in vain, and for whom nothing came, has looked for as long as it pays.
        let keeps_looking = !is_alone || drained > 0;
        if !keeps_looking && !reading.is_task_awake {
            reading.slept_at = Some(Instant::now());
        }
        through.hand_over(reading, keeps_looking);
        drop(unwinding);
        poll
    }
}

/// Lets the reader task look if whoever reads unwinds out of foreign code (a sink, an event): else nobody would look, and
/// the other side would not know that it must ring.
struct WakeIfUnwinding<'a>(&'a ThroughRing);

impl Drop for WakeIfUnwinding<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.wake_task();
        }
    }
}

/// The reader task of a connection with rings: watches the socket, and reads the ring when no caller does.
pub(super) struct RingTask {
    pub(super) shared: Arc<Shared>,
    /// What comes over the socket: bells, and the end.
    pub(super) bells: FrameBuffer,
    /// When something was in the ring last, if that is not long ago.
    pub(super) busy_since: Option<Instant>,
}

impl RingTask {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let shared = Arc::clone(&self.shared);
        let Some(through) = &shared.through_ring else { return Poll::Ready(CloseReason::Eof) };
        through.task.lock().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        if let Some(violation) = &*through.violation.lock() {
            through.reading.lock().is_over = true;
            return violated(violation);
        }
        let end = self.read_socket(cx);
        if let Some(reason) = end {
            if matches!(reason, CloseReason::Eof) {
                // What was said before the end counts.
                let mut reading = through.reading.lock();
                // No more than a ring holds: whoever still moves its words was not at its end.
                let mut rest = RING_BYTES as u64;
                while rest > 0 {
                    match reading.drain(&shared, None) {
                        Ok((0, _)) => break,
                        Ok((bytes, _)) => rest = rest.saturating_sub(bytes),
                        Err(violation) => {
                            reading.is_over = true;
                            return violated(&violation);
                        }
                    }
                }
            }
            through.reading.lock().is_over = true;
            return Poll::Ready(reason);
        }
        let Some(mut reading) = through.reading.try_lock() else {
            // A caller reads; he may be done any time.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        reading.is_task_awake = true;
        reading.ring.wake();
        loop {
            let bytes = match reading.drain(&shared, None) {
                Ok((bytes, _)) => bytes,
                Err(violation) => {
                    reading.is_over = true;
                    return violated(&violation);
                }
            };
            let had_some = bytes > 0;
            if had_some && let Some(slept_at) = reading.slept_at.take() {
                reading.patience.slept(slept_at.elapsed());
            }
            // Room may have come for what waits to be sent, too.
            let mut state = shared.state.lock();
            state.task_is_here();
            let in_flight = state.in_flight();
            shared.finish(state, &mut Vec::new());
            if self.stays_awake(through, had_some, in_flight, reading.patience.is_crowded()) {
                drop(reading);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match reading.ring.sleep() {
                Ok(true) => {
                    reading.learn();
                    reading.is_task_awake = false;
                    return Poll::Pending;
                }
                Ok(false) => reading.ring.wake(),
                Err(violation) => return violated(&violation),
            }
        }
    }

    /// Whether it is worth to look again soon, without being rung for.
    fn stays_awake(
        &mut self,
        through: &ThroughRing,
        had_some: bool,
        in_flight: u32,
        is_crowded: bool,
    ) -> bool {
        if had_some && !through.polls {
            // As far as it goes in one turn: others want to run, too.
            return true;
        }
        if in_flight == 0 || !through.polls || is_crowded {
            self.busy_since = None;
            return had_some;
        }
        let now = Instant::now();
        let since = if had_some { now } else { self.busy_since.unwrap_or(now) };
        let stays = now.duration_since(since) < through.bound;
        self.busy_since = stays.then_some(since);
        stays
    }

    /// Reads bells, of which it does not matter how many there are. Returns how the connection ends, if it does.
    fn read_socket(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        let shared = &self.shared;
        for _ in 0..READS_PER_TURN {
            let mut guard = match shared.socket.poll_readable(cx) {
                Poll::Pending => return None,
                Poll::Ready(Ok(guard)) => guard,
                Poll::Ready(Err(error)) => return Some(CloseReason::ClosedHere(error.to_string())),
            };
            let mut had_room = false;
            let read = self.bells.read_from(|room| {
                let count = shared.socket.receive(room)?;
                had_room = count < room.len();
                Ok(count)
            });
            match read {
                Ok(0) => return Some(CloseReason::Eof),
                Ok(_) => {
                    if had_room {
                        guard.clear_ready();
                    }
                    if let Err(violation) = check_bells(&mut self.bells, shared.epoch) {
                        return Some(CloseReason::Violation(violation.to_string()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A peer that ends with unread bytes resets the channel.
                Err(_) => return Some(CloseReason::Eof),
            }
        }
        // More to read than one turn takes.
        cx.waker().wake_by_ref();
        None
    }
}

fn violated(violation: &Violation) -> Poll<CloseReason> {
    Poll::Ready(CloseReason::Violation(violation.to_string()))
}

fn check_bells(bells: &mut FrameBuffer, epoch: u32) -> Result<(), Violation> {
    // What is longer than a bell is counted and not kept.
    while let Some(frame) = bells.next_frame_ref_if(|_| false)? {
        let Header { kind, id, epoch: of, .. } = frame.header;
        if of == epoch && kind != Kind::Wake {
            let expected = "everything but Wake goes through the ring";
            return Err(Violation::Unexpected { kind, id, expected });
        }
    }
    Ok(())
}
