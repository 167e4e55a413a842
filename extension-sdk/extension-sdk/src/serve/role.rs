//! Who reads the channel: always one thread, which runs fast methods itself. When one of these turns out slow,
//! another thread takes the role over, so that cancels, pings and other calls go on.
//!
//! ```text
//!             +-- come_back --+
//!             v               |
//!   reading(term) --leave--> away(term)
//!                               |  watch: the very same word for a whole tick
//!                               v
//!                           reading(term + 1), by a new thread; the old one finishes its call, finds at
//!                           come_back that the role is gone, and ends
//! ```
//!
//! The whole state is one word: the term in the upper half, a number below that changes with every leave and
//! come_back, odd while away. Every transition is a compare-and-swap or made by the holder alone, so two
//! threads never both hold the role.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use super::pace::STUCK;
use super::{Server, reader, start_thread};

/// How long a reader may be away before the role is passed on, at least; at most twice as long. It is what a
/// slow call delays those behind it.
const WATCH_TICK: Duration = Duration::from_millis(2);

/// Ticks without a call after which the watch sleeps until the next one, which then pays for waking it.
const WATCH_TICKS_IDLE_MAX: u32 = 10;

/// LIMIT: threads that read or are stuck in a call that they read. Beyond, reading waits for one of them.
pub(super) const READERS_MAX: usize = 8;

/// The reading role.
#[derive(Default)]
pub(super) struct Role {
    word: AtomicU64,
    /// The method that the reader is away for.
    method: AtomicU32,
    readers: AtomicUsize,
    watch_sleeps: AtomicBool,
    watch: Mutex<Option<Thread>>,
    is_closed: AtomicBool,
}

/// Away in the sense of the state machine, with the word to come back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away(u64);

impl Away {
    /// Never 0.
    pub(super) const fn word(self) -> u64 {
        self.0
    }
}

fn is_away(word: u64) -> bool {
    word & 1 == 1
}

/// The word of the next term's reader.
fn next_term(word: u64) -> u64 {
    ((word >> 32) + 1) << 32
}

/// The next word within the same term: only the lower half counts, so that a term never changes by counting.
fn next_in_term(word: u64) -> u64 {
    (word & !0xffff_ffff) | (word.wrapping_add(1) & 0xffff_ffff)
}

/// What the watch does at a tick.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Looks again at the next tick, after so many without a call.
    Tick(u32),
    /// Passes the role on, and looks again.
    PassOn,
    /// Sleeps until the next call.
    Sleep,
}

/// `word` as it is now, `last` as it was a tick ago, after `idle_ticks` without a call.
fn decide_tick(word: u64, last: u64, idle_ticks: u32) -> Decision {
    if word != last {
        Decision::Tick(0)
    } else if is_away(word) {
        Decision::PassOn
    } else if idle_ticks + 1 < WATCH_TICKS_IDLE_MAX {
        Decision::Tick(idle_ticks + 1)
    } else {
        Decision::Sleep
    }
}

impl Role {
    /// The reader goes to run `method`, or to write. Only the holder of the role may call this.
    pub(super) fn leave(&self, method: u32) -> Away {
        // ORDERING(role): Relaxed, only the holder writes the word between a come_back and a leave.
        let away = next_in_term(self.word.load(Ordering::Relaxed));
        // ORDERING(role): Relaxed, published by the swap below.
        self.method.store(method, Ordering::Relaxed);
        // ORDERING(watch): SeqCst, pairs with the watch: it says that it sleeps and then looks at the word, we
        // change the word and then look whether it sleeps; one of the two sees the other.
        self.word.swap(away, Ordering::SeqCst);
        if self.watch_sleeps.load(Ordering::SeqCst)
            && let Some(watch) = &*self.watch.lock()
        {
            watch.unpark();
        }
        Away(away)
    }

    /// Whether the reader that left still holds the role.
    pub(super) fn come_back(&self, away: Away) -> bool {
        // ORDERING(role): AcqRel, the role's passing on orders what one reader did before what the next does.
        self.word.compare_exchange(away.0, next_in_term(away.0), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Takes the role from a reader that is away. Returns whether it was still away.
    pub(super) fn take_over(&self, seen: u64) -> bool {
        // ORDERING(role): AcqRel, see `come_back`.
        is_away(seen)
            && self.word.compare_exchange(seen, next_term(seen), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Counts one reader, unless there are as many as may be.
    pub(super) fn add_reader(&self) -> bool {
        // ORDERING(readers): Relaxed, a count that guards no other data.
        self.readers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < READERS_MAX).then_some(count + 1)
            })
            .is_ok()
    }

    pub(super) fn remove_reader(&self) {
        // ORDERING(readers): Relaxed, as in `add_reader`.
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        // ORDERING(close): Relaxed, the unpark below orders it for the watch.
        self.is_closed.store(true, Ordering::Relaxed);
        if let Some(watch) = self.watch.lock().take() {
            watch.unpark();
        }
    }
}

/// Starts the thread that passes the role on.
pub(super) fn watch(server: &Arc<Server>) -> io::Result<()> {
    let thread = start_thread(server, "watch", run_watch)?;
    *server.role.watch.lock() = Some(thread.thread().clone());
    Ok(())
}

impl Server {
    /// The method that the reader is away for keeps the role too long: it is run by workers for a while.
    pub(super) fn learn_stuck(&self) {
        // ORDERING(role): Relaxed, a wrong method would only be run by a worker for a while.
        let method = self.role.method.load(Ordering::Relaxed) as usize;
        if let Some(method) = self.methods.get(method) {
            method.pace.record(STUCK);
        }
    }
}

fn run_watch(server: &Arc<Server>) {
    let role = &server.role;
    let mut last = 0;
    let mut idle_ticks = 0;
    // ORDERING(close): Relaxed, see `Role::close`.
    while !role.is_closed.load(Ordering::Relaxed) {
        // ORDERING(watch): SeqCst, see `Role::leave`.
        let word = role.word.load(Ordering::SeqCst);
        let decision = decide_tick(word, last, idle_ticks);
        last = word;
        idle_ticks = if let Decision::Tick(ticks) = decision { ticks } else { 0 };
        if decision == Decision::PassOn {
            server.learn_stuck();
            reader::start_successor(server, word);
        }
        if decision != Decision::Sleep {
            thread::park_timeout(WATCH_TICK);
            continue;
        }
        // ORDERING(watch): SeqCst, see `Role::leave`.
        role.watch_sleeps.store(true, Ordering::SeqCst);
        if role.word.load(Ordering::SeqCst) == last && !role.is_closed.load(Ordering::Relaxed) {
            thread::park();
        }
        role.watch_sleeps.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use ipc_protocol::Fault;

    use super::*;
    use crate::context::Context;
    use crate::serve::tests::server;
    use crate::service::Service;

    #[test]
    fn a_reader_that_was_away_too_long_finds_its_role_gone() {
        let role = Role::default();
        let away = role.leave(0);
        assert!(role.come_back(away));
        let away = role.leave(0);
        assert!(!role.take_over(away.0 + 1), "only the very word that was seen is taken over");
        assert!(role.take_over(away.0));
        assert!(!role.come_back(away));
        assert!(!role.take_over(away.0), "once");
        let successor = role.leave(0);
        assert_ne!(successor, away);
        assert!(!role.come_back(away));
        assert!(role.come_back(successor));
    }

    #[test]
    fn the_watch_passes_on_what_is_away_for_a_tick_and_sleeps_without_calls() {
        let role = Role::default();
        let away = role.leave(0).0;
        assert_eq!(decide_tick(away, 0, 7), Decision::Tick(0), "it may have begun just now");
        assert_eq!(decide_tick(away, away, 0), Decision::PassOn);
        let back = next_in_term(away);
        assert_eq!(decide_tick(back, away, 3), Decision::Tick(0));
        assert_eq!(decide_tick(back, back, 0), Decision::Tick(1));
        assert_eq!(decide_tick(back, back, WATCH_TICKS_IDLE_MAX - 1), Decision::Sleep);
        // Never while somebody is away, however long it is.
        assert_eq!(decide_tick(away, away, u32::MAX), Decision::PassOn);
    }

    struct Nothing;

    impl Service for Nothing {
        fn run(&self, _: usize, _: &Context, _: &[u8], _: &mut Vec<u8>) -> Result<(), Fault> {
            Ok(())
        }
    }

    #[test]
    fn a_watch_that_sleeps_wakes_for_a_call_and_passes_its_role_on() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let server = server(theirs, Nothing);
        watch(&server).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let wait_until = |level: &dyn Fn() -> bool| {
            while !level() {
                assert!(Instant::now() < deadline);
                thread::yield_now();
            }
        };
        for _ in 0..3 {
            wait_until(&|| server.role.watch_sleeps.load(Ordering::SeqCst));
            let away = server.role.leave(0);
            wait_until(&|| server.role.word.load(Ordering::SeqCst) >> 32 != away.0 >> 32);
            assert!(!server.role.come_back(away));
            assert!(!server.methods[0].pace.is_fast());
        }
        server.close();
    }

    #[test]
    fn the_count_within_a_term_never_changes_the_term() {
        let last = 0x0000_0005_ffff_ffff;
        assert_eq!(next_in_term(last), 0x0000_0005_0000_0000);
        assert_eq!(next_term(last), 0x0000_0006_0000_0000);
    }

    #[test]
    fn readers_are_bounded() {
        let role = Role::default();
        assert_eq!((0..100).filter(|_| role.add_reader()).count(), READERS_MAX);
        role.remove_reader();
        assert!(role.add_reader());
    }
}
