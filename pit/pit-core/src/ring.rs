//! The last events, numbered without holes; a reader that is too slow is told how many it has missed.
//!
//! The ring knows nothing of what its events mean. A publisher never waits for a reader, and memory is bounded.
//!
//! ```text
//!  published: 1 2 3 | 4 5 6 7 |        capacity 4: 1 to 3 are gone
//!                     ^   reader at 2: Gap { lost: 2 }, then 4, 5, 6, 7, then Empty
//! ```

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use crate::{
    sync::{Arc, Mutex, MutexGuard},
    unwind::wake_all,
};

/// What a reader finds at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read<T> {
    /// The next event and its number.
    Event(u64, T),
    /// The reader was too slow: so many events are gone. It goes on with the oldest that is still there.
    Gap {
        /// How many events were missed.
        lost: u64,
    },
    /// Nothing new yet.
    Empty,
}

/// A ring of the last `capacity` events of one kind, numbered from 1.
///
/// # Concurrency
/// Any number of publishers and readers. A plain mutex is inside: events are changes of state (a process started, a step
/// ended), thousands a second at most and not calls, and a lock keeps numbering, storing and waking one step.
///
/// ```
/// use pit_core::ring::{EventRing, Read};
///
/// let ring = EventRing::new(2);
/// let mut reader = ring.subscribe();
/// for event in ["started", "ready", "stopped"] {
///     ring.publish(event);
/// }
/// assert_eq!(reader.next(), Read::Gap { lost: 1 });
/// assert_eq!(reader.next(), Read::Event(2, "ready"));
/// assert_eq!(reader.next(), Read::Event(3, "stopped"));
/// assert_eq!(reader.next(), Read::Empty);
/// ```
pub struct EventRing<T> {
    shared: Arc<Mutex<Inner<T>>>,
}

struct Inner<T> {
    /// INVARIANT: holds the events numbered `next_seq - events.len() .. next_seq`.
    events: VecDeque<T>,
    next_seq: u64,
    capacity: usize,
    readers: u64,
    /// INVARIANT: at most one for each reader that waits.
    waiting: Vec<(u64, Waker)>,
}

impl<T> Inner<T> {
    /// The waker that a reader has left, to be dropped without the lock: that is foreign code.
    fn stop_waiting(&mut self, reader: u64) -> Option<Waker> {
        let place = self.waiting.iter().position(|(id, _)| *id == reader)?;
        Some(self.waiting.remove(place).1)
    }
}

impl<T: Clone> EventRing<T> {
    /// A ring that keeps the last `capacity` events (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let inner = Inner {
            events: VecDeque::new(),
            next_seq: 1,
            capacity: capacity.max(1),
            readers: 0,
            waiting: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(inner)) }
    }

    /// Appends an event, wakes the readers that wait and returns the event's number.
    ///
    /// # Panics
    /// When a reader's waker does; the event is there, and the other readers were woken.
    pub fn publish(&self, event: T) -> u64 {
        let mut inner = lock(&self.shared);
        let oldest = if inner.events.len() == inner.capacity { inner.events.pop_front() } else { None };
        inner.events.push_back(event);
        let seq = inner.next_seq;
        inner.next_seq += 1;
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        // Foreign code, the wakers' and the event's own `drop`, runs outside the lock, and the wakers first.
        wake_all(waiting.into_iter().map(|(_, waker)| waker));
        drop(oldest);
        seq
    }

    /// A reader of everything published from now on.
    ///
    /// Who wants a state and its changes subscribes first and takes the state then.
    #[must_use]
    pub fn subscribe(&self) -> EventReader<T> {
        self.reader(|inner| inner.next_seq)
    }

    /// A reader of everything that is kept, and of what is published from now on.
    #[must_use]
    pub fn subscribe_from_oldest(&self) -> EventReader<T> {
        self.reader(|inner| inner.next_seq - inner.events.len() as u64)
    }

    fn reader(&self, next_seq: impl FnOnce(&Inner<T>) -> u64) -> EventReader<T> {
        let mut inner = lock(&self.shared);
        let id = inner.readers;
        inner.readers += 1;
        EventReader { id, next_seq: next_seq(&inner), shared: Arc::clone(&self.shared) }
    }
}

impl<T> Clone for EventRing<T> {
    /// Another handle of the same ring.
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for EventRing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = lock(&self.shared);
        f.debug_struct("EventRing")
            .field("last_seq", &(inner.next_seq - 1))
            .field("kept", &inner.events.len())
            .finish_non_exhaustive()
    }
}

/// A position in an [`EventRing`]. It keeps the ring alive, but no event.
pub struct EventReader<T> {
    id: u64,
    next_seq: u64,
    shared: Arc<Mutex<Inner<T>>>,
}

impl<T: Clone> EventReader<T> {
    /// The next event, a gap, or that there is nothing new. Never waits.
    #[expect(clippy::should_implement_trait, reason = "it goes on after it was empty, unlike an iterator")]
    pub fn next(&mut self) -> Read<T> {
        let shared = Arc::clone(&self.shared);
        let inner = lock(&shared);
        self.read(&inner)
    }

    /// As [`next`](Self::next), but waits instead of returning [`Read::Empty`]. Works in any runtime.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the position moves only when the value is returned.
    pub async fn wait(&mut self) -> Read<T> {
        poll_fn(|context| self.poll_wait(context)).await
    }

    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<Read<T>> {
        let shared = Arc::clone(&self.shared);
        let mut inner = lock(&shared);
        match self.read(&inner) {
            Read::Empty => {
                // Looked and registered under one lock: a publisher comes before (and is seen) or after (and wakes).
                let old = inner.stop_waiting(self.id);
                inner.waiting.push((self.id, context.waker().clone()));
                drop(inner);
                drop(old);
                Poll::Pending
            }
            read => Poll::Ready(read),
        }
    }

    fn read(&mut self, inner: &Inner<T>) -> Read<T> {
        let oldest_seq = inner.next_seq - inner.events.len() as u64;
        if self.next_seq < oldest_seq {
            let lost = oldest_seq - self.next_seq;
            self.next_seq = oldest_seq;
            return Read::Gap { lost };
        }
        let place = usize::try_from(self.next_seq - oldest_seq).unwrap_or(usize::MAX);
        match inner.events.get(place) {
            None => Read::Empty,
            Some(event) => {
                let read = Read::Event(self.next_seq, event.clone());
                self.next_seq += 1;
                read
            }
        }
    }
}

impl<T> Drop for EventReader<T> {
    fn drop(&mut self) {
        let old = lock(&self.shared).stop_waiting(self.id);
        drop(old);
    }
}

impl<T> fmt::Debug for EventReader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").field("next_seq", &self.next_seq).finish_non_exhaustive()
    }
}

/// A poisoned lock is taken all the same: the only foreign code under it clones an event or a
/// waker, and changes nothing here.
fn lock<T>(shared: &Mutex<Inner<T>>) -> MutexGuard<'_, Inner<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{pin::pin, task::Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicU32);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn reader_sees_each_event_once_from_its_subscription_on() {
        let ring = EventRing::new(8);
        assert_eq!(ring.publish('a'), 1);
        let mut reader = ring.subscribe();
        assert_eq!(reader.next(), Read::Empty);
        assert_eq!(ring.publish('b'), 2);
        assert_eq!(ring.publish('c'), 3);
        assert_eq!(reader.next(), Read::Event(2, 'b'));
        assert_eq!(reader.next(), Read::Event(3, 'c'));
        assert_eq!(reader.next(), Read::Empty);
    }

    #[test]
    fn who_comes_late_reads_what_is_kept_and_goes_on() {
        let ring = EventRing::new(2);
        let mut reader = ring.subscribe_from_oldest();
        assert_eq!(reader.next(), Read::Empty);
        for event in ['a', 'b', 'c'] {
            ring.publish(event);
        }
        let mut late = ring.subscribe_from_oldest();
        assert_eq!(
            [late.next(), late.next(), late.next()],
            [Read::Event(2, 'b'), Read::Event(3, 'c'), Read::Empty]
        );
        ring.publish('d');
        assert_eq!(late.next(), Read::Event(4, 'd'));
        assert_eq!(reader.next(), Read::Gap { lost: 2 }, "what is gone is counted for who came before");
    }

    #[test]
    fn events_and_gaps_add_up_for_every_capacity_and_pace() {
        for capacity in [1_usize, 2, 3, 7] {
            for pace in 1..10_u64 {
                let ring = EventRing::new(capacity);
                let mut reader = ring.subscribe();
                let (mut seen, mut expected) = (0, 1);
                for published in 1..=100_u64 {
                    assert_eq!(ring.publish(published * 10), published);
                    if published % pace != 0 && published != 100 {
                        continue;
                    }
                    loop {
                        match reader.next() {
                            Read::Event(seq, event) => {
                                assert_eq!((seq, event), (expected, expected * 10));
                                seen += 1;
                                expected += 1;
                            }
                            Read::Gap { lost } => {
                                assert!(lost > 0);
                                seen += lost;
                                expected += lost;
                            }
                            Read::Empty => break,
                        }
                    }
                    assert_eq!(seen, published, "capacity {capacity}, pace {pace}");
                }
            }
        }
    }

    #[test]
    fn waiting_reader_is_woken_by_the_next_event() {
        let ring = EventRing::new(4);
        let mut reader = ring.subscribe();
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        {
            let mut wait = pin!(reader.wait());
            assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
            assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
            ring.publish(5);
            assert_eq!(woken.0.load(std::sync::atomic::Ordering::SeqCst), 1);
            assert_eq!(wait.as_mut().poll(&mut context), Poll::Ready(Read::Event(1, 5)));
        }
        assert!(pin!(reader.wait()).poll(&mut context).is_pending());
        drop(reader);
        assert!(lock(&ring.shared).waiting.is_empty(), "a dropped reader leaves no waker behind");
    }

    #[test]
    fn waker_that_panics_keeps_no_other_reader_asleep() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: std::sync::Arc<Self>) {
                panic!("the waker");
            }
        }
        let ring = EventRing::new(4);
        let (mut first, mut second) = (ring.subscribe(), ring.subscribe());
        let woken = std::sync::Arc::new(Woken::default());
        let wakers = [Waker::from(std::sync::Arc::new(Panics)), Waker::from(woken.clone())];
        assert!(pin!(first.wait()).poll(&mut Context::from_waker(&wakers[0])).is_pending());
        assert!(pin!(second.wait()).poll(&mut Context::from_waker(&wakers[1])).is_pending());
        let publishing = std::panic::AssertUnwindSafe(|| ring.publish(5));
        assert_eq!(
            std::panic::catch_unwind(publishing).unwrap_err().downcast_ref(),
            Some(&"the waker"),
            "it goes on to the publisher"
        );
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!((first.next(), second.next()), (Read::Event(1, 5), Read::Event(1, 5)));
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;

    #[test]
    fn waiting_reader_misses_no_event_and_no_wakeup() {
        loom::model(|| {
            let ring = EventRing::new(1);
            let mut reader = ring.subscribe();
            let publisher = {
                let ring = ring.clone();
                loom::thread::spawn(move || [1_u64, 2].map(|event| ring.publish(event)))
            };
            let mut seen = 0;
            while seen < 2 {
                match loom::future::block_on(reader.wait()) {
                    Read::Event(seq, _) => {
                        seen += 1;
                        assert_eq!(seq, seen);
                    }
                    Read::Gap { lost } => seen += lost,
                    Read::Empty => panic!("waiting never returns empty-handed"),
                }
            }
            assert_eq!(publisher.join().unwrap(), [1, 2]);
        });
    }
}
