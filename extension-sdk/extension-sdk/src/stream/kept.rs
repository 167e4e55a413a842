//! A stream that nothing carries: its items are kept until it ends, or are taken in the same process.

use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use ipc_protocol::{Fault, FaultCode};
use ipc_transport::DecodeError;
use parking_lot::{Condvar, Mutex};
use serde::de::DeserializeOwned;

use super::Writer;
use super::sink::given_up;
use crate::context::CallState;

/// LIMIT: bytes of the items that are kept of one stream.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// How often one who waits for the end looks whether the call is still wanted.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct Kept {
    state: Mutex<State>,
    has_ended: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<Vec<u8>>,
    bytes: usize,
    end: Option<Result<(), Fault>>,
    is_given_up: bool,
    waker: Option<Waker>,
}

/// The value of an item.
pub(super) fn decode<T: DeserializeOwned>(item: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(item).map_err(DecodeError::MessagePack)
}

impl Kept {
    pub(super) fn poll_next(&self, waker: &Waker) -> Poll<Option<Result<Vec<u8>, Fault>>> {
        let mut state = self.state.lock();
        if let Some(item) = state.items.pop_front() {
            state.bytes -= item.len();
            return Poll::Ready(Some(Ok(item)));
        }
        match &mut state.end {
            // Told once.
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
            None => {
                state.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    /// All items, once it has ended.
    ///
    /// # Errors
    ///
    /// The fault that ended it, or why nobody waits for it any longer.
    pub(super) fn whole(&self, call: &CallState) -> Result<Vec<Vec<u8>>, Fault> {
        let mut state = self.state.lock();
        while state.end.is_none() {
            call.check(Instant::now)?;
            self.has_ended.wait_for(&mut state, LOOK_INTERVAL);
        }
        match &state.end {
            Some(Err(fault)) => Err(fault.clone()),
            // Copied: whatever is encoded may be encoded twice.
            _ => Ok(state.items.iter().cloned().collect()),
        }
    }
}

impl Writer for Kept {
    fn id(&self) -> u64 {
        0
    }

    fn send(&self, item: Vec<u8>) -> Result<(), Fault> {
        let mut state = self.state.lock();
        if state.is_given_up {
            return Err(given_up());
        }
        if state.bytes + item.len() > KEPT_BYTES_MAX {
            let message = format!("a stream that is kept until its end has more than {KEPT_BYTES_MAX} bytes");
            return Err(Fault::new(FaultCode::TooLarge, message));
        }
        state.bytes += item.len();
        state.items.push_back(item);
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
        Ok(())
    }

    fn end(&self, how: Result<(), Fault>) {
        let waker = {
            let mut state = self.state.lock();
            state.end.get_or_insert(how);
            state.waker.take()
        };
        self.has_ended.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn give_up(&self) {
        let items = {
            let mut state = self.state.lock();
            state.is_given_up = true;
            state.bytes = 0;
            std::mem::take(&mut state.items)
        };
        drop(items);
    }

    fn is_given_up(&self) -> bool {
        self.state.lock().is_given_up
    }
}
