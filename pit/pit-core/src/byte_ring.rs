//! How far a ring of bytes between two processes is written and read, and who must wake whom. Must not know memory maps,
//! bytes, or what a bell is; `ipc-transport` does.
//!
//! A position counts bytes since the connection began and only grows. The owner of a word is the only one who
//! writes it; it keeps its own copy and never reads it back, because the memory is the other's to look at, too.
//!
//! ```text
//! sleeper: asleep := odd   fence   look for work once more -- none --> sleep
//! worker:  make work       fence   look at asleep -- odd, and not rung for this sleep yet --> ring
//! ```
//!
//! One of the two fences comes second in the one order of all `SeqCst` fences, and whoever is behind it sees what the
//! other did before: either the sleeper finds the work or the worker sees that it sleeps.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A value in two cache lines of its own, at the same place in both processes.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Line<T>(pub T);

/// The words at the beginning of a region. All are its owner's.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Control {
    /// Bytes written to the owner's ring.
    pub tail: Line<AtomicU64>,
    /// Bytes read from the other's ring.
    pub head: Line<AtomicU64>,
    /// Odd while the owner's reader sleeps.
    pub asleep: Line<AtomicU32>,
    /// Odd while the owner's writer waits for room.
    pub wants_room: Line<AtomicU32>,
}

/// The other side's words contradict each other, or what they said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie(pub &'static str);

/// The word of one who sleeps: odd while asleep, and another number at each sleep.
#[derive(Debug, Default)]
struct Sleep {
    word: u32,
}

impl Sleep {
    /// Says that it sleeps. Whoever makes work from here on rings. A sleep that goes on is a new one: the bell of the
    /// one before is used up.
    fn begin(&mut self, word: &AtomicU32) {
        self.word = self.word.wrapping_add(1 + (self.word & 1));
        // ORDERING(ring-sleep): Relaxed, the fence orders it before the last look for work.
        word.store(self.word, Ordering::Relaxed);
        // ORDERING(ring-sleep): SeqCst, pairs with the fence in `Bell::is_due`.
        fence(Ordering::SeqCst);
    }

    /// Is awake: nobody needs to ring.
    fn end(&mut self, word: &AtomicU32) {
        if self.word & 1 == 1 {
            self.word = self.word.wrapping_add(1);
            // ORDERING(ring-sleep): Relaxed, a bell too many wakes somebody who is awake.
            word.store(self.word, Ordering::Relaxed);
        }
    }
}

/// What the other side remembers of a sleeper: it rings once for each sleep.
#[derive(Debug, Default)]
struct Bell {
    rung: u32,
}

impl Bell {
    /// Whether the sleeper must be woken for the work that was made before this.
    fn is_due(&mut self, word: &AtomicU32) -> bool {
        // ORDERING(ring-sleep): SeqCst, pairs with the fence in `Sleep::begin`.
        fence(Ordering::SeqCst);
        // ORDERING(ring-sleep): Relaxed, ordered by the fence.
        let asleep = word.load(Ordering::Relaxed);
        if asleep & 1 == 0 || asleep == self.rung {
            return false;
        }
        self.rung = asleep;
        true
    }
}

/// The writing end of one side's own ring.
#[derive(Debug)]
pub struct Producer {
    /// Bytes of the ring.
    capacity: u64,
    tail: u64,
    /// The reader's head, as it was seen last.
    head: u64,
    waiting: Sleep,
    reader: Bell,
}

impl Producer {
    /// Of an empty ring with this many bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let (waiting, reader) = (Sleep::default(), Bell::default());
        Self { capacity: capacity as u64, tail: 0, head: 0, waiting, reader }
    }

    /// Where the next byte goes.
    pub fn position(&self) -> u64 {
        self.tail
    }

    /// Bytes that can be written now. Asks the reader only if fewer than `wanted` are known to be free.
    pub fn room(&mut self, theirs: &Control, wanted: usize) -> Result<usize, Lie> {
        let mut used = self.tail - self.head;
        if self.capacity - used < wanted as u64 {
            // ORDERING(ring-head): Acquire, what the reader has copied out may be written over.
            let head = theirs.head.0.load(Ordering::Acquire);
            if head < self.head || head > self.tail {
                return Err(Lie("it says that it has read what was never written, or less than before"));
            }
            self.head = head;
            used = self.tail - head;
        }
        // INVARIANT: head <= tail and tail - head <= capacity, so what is left fits.
        Ok(usize::try_from(self.capacity - used).unwrap_or(0))
    }

    /// Makes `count` bytes visible that lie at [`Self::position`].
    pub fn publish(&mut self, mine: &Control, count: usize) {
        self.tail += count as u64;
        // ORDERING(ring-tail): Release, the bytes come before the position that tells of them.
        mine.tail.0.store(self.tail, Ordering::Release);
    }

    /// Whether the reader sleeps and must be woken for what was published.
    pub fn must_wake(&mut self, theirs: &Control) -> bool {
        self.reader.is_due(&theirs.asleep.0)
    }

    /// Says that this side waits for room. Returns whether there is none: then the reader will ring.
    pub fn wait_for_room(&mut self, mine: &Control, theirs: &Control) -> Result<bool, Lie> {
        self.waiting.begin(&mine.wants_room.0);
        let is_full = self.room(theirs, usize::MAX)? == 0;
        if !is_full {
            self.waiting.end(&mine.wants_room.0);
        }
        Ok(is_full)
    }

    /// There is room, or nobody wants any.
    pub fn stop_waiting(&mut self, mine: &Control) {
        self.waiting.end(&mine.wants_room.0);
    }
}

/// The reading end of the other side's ring.
#[derive(Debug)]
pub struct Consumer {
    /// Bytes of the ring.
    capacity: u64,
    head: u64,
    /// The writer's tail, as it was seen last.
    tail: u64,
    sleeping: Sleep,
    writer: Bell,
}

impl Consumer {
    /// Of an empty ring with this many bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let (sleeping, writer) = (Sleep::default(), Bell::default());
        Self { capacity: capacity as u64, head: 0, tail: 0, sleeping, writer }
    }

    /// Where the next byte lies.
    pub fn position(&self) -> u64 {
        self.head
    }

    /// Bytes that can be read now. Looks at the writer's word only if none are known.
    pub fn available(&mut self, theirs: &Control) -> Result<usize, Lie> {
        if self.tail == self.head {
            // ORDERING(ring-tail): Acquire, the bytes before the position are there.
            let tail = theirs.tail.0.load(Ordering::Acquire);
            if tail < self.tail || tail - self.head > self.capacity {
                return Err(Lie("it says that it has written more than fits, or less than before"));
            }
            self.tail = tail;
        }
        // INVARIANT: at most the capacity, as checked when the tail was read.
        Ok(usize::try_from(self.tail - self.head).unwrap_or(0))
    }

    /// Gives the room of `count` bytes back that were copied out.
    pub fn release(&mut self, mine: &Control, count: usize) {
        self.head += count as u64;
        // ORDERING(ring-head): Release, the bytes were copied out before their room is given away.
        mine.head.0.store(self.head, Ordering::Release);
    }

    /// Whether the writer waits for the room that was given back, and must be woken. To be asked when half of the
    /// ring or more was used: a writer waits only when it is full, and of what fills a ring one part or the other is
    /// as long.
    pub fn must_wake(&mut self, theirs: &Control) -> bool {
        self.writer.is_due(&theirs.wants_room.0)
    }

    /// Says that this side's reader will sleep. Returns whether it may: nothing has come meanwhile.
    pub fn sleep(&mut self, mine: &Control, theirs: &Control) -> Result<bool, Lie> {
        self.sleeping.begin(&mine.asleep.0);
        Ok(self.available(theirs)? == 0)
    }

    /// Is awake: looks by itself from here on.
    pub fn wake(&mut self, mine: &Control) {
        self.sleeping.end(&mine.asleep.0);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const CAPACITY: usize = 4096;

    #[test]
    fn bytes_pass_as_far_as_there_is_room() {
        let (ours, theirs) = (Control::default(), Control::default());
        let (mut producer, mut consumer) = (Producer::new(CAPACITY), Consumer::new(CAPACITY));
        assert_eq!(producer.room(&theirs, 1), Ok(CAPACITY));
        producer.publish(&ours, CAPACITY);
        assert_eq!(producer.room(&theirs, 1), Ok(0));
        assert_eq!(consumer.available(&ours), Ok(CAPACITY));
        consumer.release(&theirs, 10);
        assert_eq!(producer.room(&theirs, 1), Ok(10));
        assert_eq!((producer.position(), consumer.position()), (4096, 10));
    }

    #[test]
    fn one_bell_for_each_sleep() {
        let (writer, reader) = (Control::default(), Control::default());
        let (mut producer, mut consumer) = (Producer::new(CAPACITY), Consumer::new(CAPACITY));
        producer.publish(&writer, 1);
        assert!(!producer.must_wake(&reader), "nobody sleeps");
        assert_eq!(consumer.sleep(&reader, &writer), Ok(false), "there is something to do");
        consumer.wake(&reader);
        assert_eq!(consumer.available(&writer), Ok(1));
        consumer.release(&reader, 1);
        for _ in 0..3 {
            assert_eq!(consumer.sleep(&reader, &writer), Ok(true));
            assert!(producer.must_wake(&reader));
            assert!(!producer.must_wake(&reader), "once");
            consumer.wake(&reader);
            assert!(!producer.must_wake(&reader), "it is awake");
        }
        assert_eq!(producer.room(&reader, CAPACITY), Ok(CAPACITY));
        producer.publish(&writer, CAPACITY);
        assert!(!consumer.must_wake(&writer));
        assert_eq!(producer.wait_for_room(&writer, &reader), Ok(true));
        consumer.available(&writer).unwrap();
        consumer.release(&reader, 1);
        assert!(consumer.must_wake(&writer) && !consumer.must_wake(&writer));
        assert_eq!(producer.room(&reader, 1), Ok(1));
        producer.publish(&writer, 1);
        assert_eq!(producer.wait_for_room(&writer, &reader), Ok(true), "full once more");
        consumer.release(&reader, 1);
        assert!(consumer.must_wake(&writer), "it waits anew");
        assert_eq!(producer.wait_for_room(&writer, &reader), Ok(false));
        assert!(!consumer.must_wake(&writer), "it stopped waiting by itself");
    }

    #[test]
    fn words_that_cannot_be_are_lies() {
        for tail in [4097, u64::MAX, 1 << 63] {
            let theirs = Control::default();
            theirs.tail.0.store(tail, Ordering::Relaxed);
            assert!(Consumer::new(CAPACITY).available(&theirs).is_err(), "{tail}");
        }
        let (ours, theirs) = (Control::default(), Control::default());
        let (mut producer, mut consumer) = (Producer::new(CAPACITY), Consumer::new(CAPACITY));
        producer.publish(&ours, CAPACITY);
        for head in [4097, u64::MAX] {
            theirs.head.0.store(head, Ordering::Relaxed);
            assert!(producer.room(&theirs, 1).is_err(), "{head}");
        }
        theirs.head.0.store(100, Ordering::Relaxed);
        assert_eq!(producer.room(&theirs, 1), Ok(100));
        producer.publish(&ours, 100);
        theirs.head.0.store(99, Ordering::Relaxed);
        assert!(producer.room(&theirs, 1).is_err(), "it goes back");
        theirs.tail.0.store(50, Ordering::Relaxed);
        assert_eq!(consumer.available(&theirs), Ok(50));
        consumer.release(&ours, 50);
        theirs.tail.0.store(49, Ordering::Relaxed);
        assert!(consumer.available(&theirs).is_err(), "it goes back");
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    const CAPACITY: usize = 2;

    /// Two regions, of which each thread writes its own, and as many bytes as the models move.
    #[derive(Default)]
    struct Regions {
        writer: Control,
        reader: Control,
        bytes: [UnsafeCell<()>; 2],
        bell: Bells,
    }

    /// The socket: a bell that rang stays rung.
    #[derive(Default)]
    struct Bells {
        reader: AtomicU32,
        writer: AtomicU32,
    }

    /// What a socket gives who waits for it, and whether anybody rang.
    fn take(bell: &AtomicU32) -> bool {
        bell.swap(0, Ordering::AcqRel) > 0
    }

    #[test]
    fn what_is_read_was_written_and_no_wakeup_is_lost() {
        loom::model(|| {
            let shared = Arc::new(Regions::default());
            let writer = thread::spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let mut producer = Producer::new(CAPACITY);
                    for at in 0..2 {
                        // Loom sees whoever touches a byte while another does.
                        shared.bytes[at].with_mut(|_| ());
                        producer.publish(&shared.writer, 1);
                        if producer.must_wake(&shared.reader) {
                            shared.bell.reader.fetch_add(1, Ordering::Release);
                        }
                    }
                }
            });
            let mut consumer = Consumer::new(CAPACITY);
            let mut read = 0;
            while read < 2 {
                if consumer.available(&shared.writer).expect("the writer is honest") == 0 {
                    if consumer.sleep(&shared.reader, &shared.writer).expect("the writer is honest") {
                        // Asleep: only a bell wakes. If none ever comes loom sees a thread that waits for ever.
                        while !take(&shared.bell.reader) {
                            thread::yield_now();
                        }
                    }
                    consumer.wake(&shared.reader);
                    continue;
                }
                shared.bytes[read].with(|_| ());
                consumer.release(&shared.reader, 1);
                read += 1;
            }
            writer.join().expect("the writer ends");
        });
    }

    #[test]
    fn a_writer_that_waits_for_room_is_woken() {
        loom::model(|| {
            let shared = Arc::new(Regions::default());
            let mut producer = Producer::new(CAPACITY);
            producer.publish(&shared.writer, CAPACITY);
            let reader = thread::spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let mut consumer = Consumer::new(CAPACITY);
                    let there = consumer.available(&shared.writer).expect("the writer is honest");
                    shared.bytes[0].with(|_| ());
                    consumer.release(&shared.reader, there);
                    if consumer.must_wake(&shared.writer) {
                        shared.bell.writer.fetch_add(1, Ordering::Release);
                    }
                }
            });
            if producer.wait_for_room(&shared.writer, &shared.reader).expect("the reader is honest") {
                while !take(&shared.bell.writer) {
                    thread::yield_now();
                }
            }
            assert_eq!(producer.room(&shared.reader, 1), Ok(CAPACITY));
            // The reader has copied it out, so it may be written over.
            shared.bytes[0].with_mut(|_| ());
            reader.join().expect("the reader ends");
        });
    }

    #[test]
    fn two_who_both_sleep_wake_each_other() {
        loom::model(|| {
            let shared = Arc::new(Regions::default());
            // Each writes one byte into its own ring and waits for the other's, as caller and extension do.
            let extension = thread::spawn({
                let shared = Arc::clone(&shared);
                move || side(&shared.reader, &shared.writer, &shared.bell.reader, &shared.bell.writer)
            });
            side(&shared.writer, &shared.reader, &shared.bell.writer, &shared.bell.reader);
            extension.join().expect("the other side ends");
        });
    }

    fn side(mine: &Control, theirs: &Control, my_bell: &AtomicU32, their_bell: &AtomicU32) {
        let (mut producer, mut consumer) = (Producer::new(CAPACITY), Consumer::new(CAPACITY));
        producer.publish(mine, 1);
        if producer.must_wake(theirs) {
            their_bell.fetch_add(1, Ordering::Release);
        }
        if consumer.sleep(mine, theirs).expect("the other is honest") {
            while !take(my_bell) {
                thread::yield_now();
            }
        }
        consumer.wake(mine);
        assert_eq!(consumer.available(theirs), Ok(1));
    }
}
