//! The stop ladder: drain, goodbye, SIGTERM, the end of everything, each with its time.
//!
//! ```text
//! drain ---------> idle, or its time is over
//! goodbye -------> ended, or its time is over
//! SIGTERM -------> ended, or its time is over
//! kill ----------> ended
//! ```
//!
//! A stop of the whole host, at any step, makes what is left of the times shorter, never longer.

use std::time::Duration;

use ipc_transport::connection::Connection;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::exit::ProcessEnd;
use crate::host::StopTimes;
use crate::supervised::Supervised;

/// When each step is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    pub(super) drain: Instant,
    goodbye: Instant,
    pub(super) terminate: Instant,
}

impl Deadlines {
    pub(crate) fn of_times(now: Instant, times: StopTimes) -> Self {
        let goodbye = times.drain + times.goodbye;
        Self { drain: now + times.drain, goodbye: now + goodbye, terminate: now + goodbye + times.terminate }
    }

    /// Half of the budget for calls in flight, a quarter for each of the other steps.
    pub(crate) fn of_budget(now: Instant, budget: Duration) -> Self {
        let quarter = budget / 4;
        Self::of_times(now, StopTimes { drain: quarter * 2, goodbye: quarter, terminate: quarter })
    }

    #[must_use]
    pub(crate) fn earlier(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self {
            drain: self.drain.min(other.drain),
            goodbye: self.goodbye.min(other.goodbye),
            terminate: self.terminate.min(other.terminate),
        }
    }
}

/// Waits until the host stops as a whole.
pub(super) async fn host_closes(closing: &mut watch::Receiver<Option<Deadlines>>) {
    // The sender lives as long as any extension; an error would mean the same.
    let _ = closing.wait_for(Option::is_some).await;
}

/// Waits until a step of `deadlines` is over; the host's own, if it stops as a whole meanwhile, make that earlier.
pub(super) fn passes(
    deadlines: Deadlines,
    closing: &watch::Receiver<Option<Deadlines>>,
    pick: fn(Deadlines) -> Instant,
) -> impl Future<Output = ()> + use<> {
    let mut closing = closing.clone();
    async move {
        loop {
            let until = pick(deadlines.earlier(*closing.borrow_and_update()));
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = closing.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// How a stop went.
pub(crate) struct Stopped {
    pub(crate) end: ProcessEnd,
    /// Whether it had to be killed.
    pub(crate) forced: bool,
}

/// Stops an instance. `closing` is the host's own deadline, if it stops as a whole.
pub(crate) async fn stop(
    process: &mut Supervised,
    connection: &Connection,
    why: &str,
    deadlines: Deadlines,
    closing: &mut watch::Receiver<Option<Deadlines>>,
) -> Stopped {
    connection.drain();
    let step = |pick| passes(deadlines, closing, pick);
    tokio::select! {
        biased;
        end = process.wait() => return Stopped { end, forced: false },
        () = connection.idle() => {}
        () = step(|deadlines| deadlines.drain) => {}
    }
    connection.goodbye(why);
    tokio::select! {
        biased;
        end = process.wait() => return Stopped { end, forced: false },
        () = step(|deadlines| deadlines.goodbye) => {}
    }
    process.terminate();
    tokio::select! {
        biased;
        end = process.wait() => return Stopped { end, forced: false },
        () = step(|deadlines| deadlines.terminate) => {}
    }
    Stopped { end: process.end(Duration::ZERO).await, forced: true }
}
