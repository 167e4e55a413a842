//! The calls that were begun and not yet answered: for cancelling them, counting them, and knowing when a drain
//! is over.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::role::READERS_MAX;
use super::workers::WORKERS_MAX;
use crate::context::CallState;

/// LIMIT: calls whose descriptors came before them; the oldest is forgotten, and then fails when its arguments
/// are decoded.
const WITH_DESCRIPTORS_MAX: usize = 1024;

/// Spreads ids, which the host chooses: nobody else could choose them badly on purpose.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // Fibonacci hashing: the multiplier is 2^64 over the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// Calls by id.
pub(super) struct Calls {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<u64, Arc<CallState>, BuildHasherDefault<IdHasher>>,
    /// Calls to come that have descriptors, which nobody takes here.
    with_descriptors: VecDeque<u64>,
    /// Streams that calls have left behind.
    streams: usize,
    is_draining: bool,
}

impl State {
    fn is_drained(&self) -> bool {
        self.is_draining && self.running.is_empty() && self.streams == 0
    }
}

/// Why a call is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As many as the host said it would have at most are under way.
    Full,
    /// The host said that no more would come.
    Draining,
    /// Descriptors that belong to it came before it.
    Descriptors,
    /// A call with this id is under way: the host broke the protocol.
    Duplicate,
}

impl Calls {
    pub(super) fn new(in_flight_max: u32) -> Self {
        // A call is taken off the table after its answer was appended, so that a drain cannot end in between.
        // In that moment the host may have the answer already and send the next call: one for each thread.
        let limit = in_flight_max as usize + WORKERS_MAX + READERS_MAX;
        Self { limit, state: Mutex::default() }
    }

    pub(super) fn begin(&self, call: &Arc<CallState>) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if let Some(at) = state.with_descriptors.iter().position(|&id| id == call.id) {
            state.with_descriptors.remove(at);
            return Err(Refusal::Descriptors);
        }
        if state.is_draining {
            return Err(Refusal::Draining);
        }
        if state.running.len() >= self.limit {
            return Err(Refusal::Full);
        }
        match state.running.insert(call.id, Arc::clone(call)) {
            None => Ok(()),
            Some(other) => {
                state.running.insert(other.id, other);
                Err(Refusal::Duplicate)
            }
        }
    }

    /// A descriptor came for the call that will have this id.
    pub(super) fn expect_descriptors(&self, id: u64) {
        let mut state = self.state.lock();
        if state.with_descriptors.contains(&id) {
            return;
        }
        if state.with_descriptors.len() == WITH_DESCRIPTORS_MAX {
            state.with_descriptors.pop_front();
        }
        state.with_descriptors.push_back(id);
    }

    /// Takes a call off whose answer was appended. Returns whether that was the end of a drain.
    pub(super) fn end(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        state.running.remove(&id);
        state.is_drained()
    }

    /// A stream begins, within a call that is not answered.
    pub(super) fn begin_stream(&self) {
        self.state.lock().streams += 1;
    }

    /// A stream has ended. Returns whether that was the end of a drain.
    pub(super) fn end_stream(&self) -> bool {
        let mut state = self.state.lock();
        state.streams -= 1;
        state.is_drained()
    }

    pub(super) fn cancel(&self, id: u64) {
        if let Some(call) = self.state.lock().running.get(&id) {
            call.cancel();
        }
    }

    /// Nobody waits for any of them.
    pub(super) fn cancel_all(&self) {
        self.state.lock().running.values().for_each(|call| call.cancel());
    }

    /// From now on no call is begun. Returns whether the drain is over at once.
    pub(super) fn drain(&self) -> bool {
        let mut state = self.state.lock();
        state.is_draining = true;
        state.is_drained()
    }

    /// How many there are, and the age of the oldest.
    pub(super) fn load(&self, now: Instant) -> (u32, Duration) {
        let state = self.state.lock();
        let oldest = state.running.values().map(|call| call.arrived).min();
        let age = oldest.map_or(Duration::ZERO, |arrived| now.saturating_duration_since(arrived));
        (u32::try_from(state.running.len()).unwrap_or(u32::MAX), age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: u64) -> Arc<CallState> {
        Arc::new(CallState::new(id, Instant::now(), None))
    }

    #[test]
    fn a_drain_ends_with_the_last_answer() {
        let calls = Calls::new(8);
        assert_eq!((calls.begin(&call(1)), calls.begin(&call(2))), (Ok(()), Ok(())));
        assert_eq!(calls.begin(&call(1)), Err(Refusal::Duplicate));
        assert!(!calls.drain());
        assert_eq!(calls.begin(&call(3)), Err(Refusal::Draining));
        assert!(!calls.end(1));
        assert!(calls.end(2));
        assert!(Calls::new(8).drain());
        // A stream that a call has left behind holds it up as well.
        let calls = Calls::new(8);
        assert_eq!(calls.begin(&call(1)), Ok(()));
        calls.begin_stream();
        assert!(!calls.end(1));
        assert!(!calls.drain());
        assert!(calls.end_stream());
    }

    #[test]
    fn more_calls_than_announced_are_refused() {
        let calls = Calls::new(1);
        let taken = (0..1000).take_while(|&id| calls.begin(&call(id)).is_ok()).count();
        assert_eq!(taken, 1 + WORKERS_MAX + READERS_MAX);
        calls.end(0);
        assert_eq!(calls.begin(&call(2000)), Ok(()));
        assert_eq!(calls.load(Instant::now()).0 as usize, taken);
    }
}
