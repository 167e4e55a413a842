//! The thread that serves: it sends the heartbeat, writes what nobody else writes, and waits for the end.
//!
//! It runs no handler, so a heartbeat tells a busy extension from a hung one.

use std::time::{Duration, Instant};

use ipc_protocol::Kind;
use ipc_protocol::control::{Goodbye, Heartbeat, LogRecord};
use ipc_protocol::limits::HEARTBEAT_INTERVAL_MS;
use parking_lot::{Condvar, Mutex};

use super::{End, ServeError, Server};

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(HEARTBEAT_INTERVAL_MS as u64);

/// What the keeper waits for.
#[derive(Default)]
pub(super) struct Keeper {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    flush_is_wanted: bool,
    /// Frames of another epoch since the last log record about them.
    stale_frames: u64,
    end: Option<Result<End, ServeError>>,
}

impl Keeper {
    /// Asks for a flush by the keeper's thread: by those who must not block.
    pub(super) fn flush_soon(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.flush_is_wanted, true) {
            self.changed.notify_one();
        }
    }

    /// Counts a frame that was dropped because it is of another epoch. It is logged with the next heartbeat, so
    /// that a host which sends many of them does not fill its own log.
    pub(super) fn count_stale(&self) {
        self.state.lock().stale_frames += 1;
    }

    /// Ends serving. The first end counts.
    pub(super) fn end(&self, end: Result<End, ServeError>) {
        self.state.lock().end.get_or_insert(end);
        self.changed.notify_one();
    }
}

/// Keeps the server going until it ends.
pub(super) fn keep(server: &Server, started: Instant) -> Result<End, ServeError> {
    let mut heartbeat_at = started + HEARTBEAT_INTERVAL;
    loop {
        let end = {
            let mut state = server.keeper.state.lock();
            while !state.flush_is_wanted && state.end.is_none() {
                if server.keeper.changed.wait_until(&mut state, heartbeat_at).timed_out() {
                    break;
                }
            }
            state.flush_is_wanted = false;
            state.end.take()
        };
        if let Some(end) = end {
            say_goodbye(server, &end);
            return end;
        }
        let now = Instant::now();
        if now >= heartbeat_at {
            heartbeat_at = now + HEARTBEAT_INTERVAL;
            let (running, oldest) = server.calls.load(now);
            let oldest_ms = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
            server.output.append_control(Kind::Heartbeat, 0, &Heartbeat::new(running, oldest_ms));
            log_stale(server);
        }
        server.output.flush();
    }
}

fn log_stale(server: &Server) {
    let stale_frames = std::mem::take(&mut server.keeper.state.lock().stale_frames);
    if stale_frames > 0 {
        let text = format!("{stale_frames} frames of another epoch were dropped");
        server.output.log(&LogRecord::new(2, "extension_sdk", text));
    }
}

fn say_goodbye(server: &Server, end: &Result<End, ServeError>) {
    let reason = match end {
        Ok(End::HostGone) => return,
        Ok(End::Drained) => "everything is answered".to_owned(),
        Err(ServeError::Violation(violation)) => format!("the host broke the protocol: {violation}"),
        Err(error) => error.to_string(),
    };
    log_stale(server);
    server.output.append_goodbye(&Goodbye::new(reason));
    server.output.flush_whole();
}
