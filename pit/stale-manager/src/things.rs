//! The things that are registered: a flat array of deadlines, and beside it what is needed when one has passed.
//!
//! Blocks of a fixed size, so that nothing moves when more is registered and a touch needs no lock. Deadlines lie
//! together and apart from the rest: a sweep reads them and hardly anything else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pit_core::clock::Tick;

use crate::history::{History, UNTOUCHED};

/// What the owner says when it is asked to let go of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It has let go, or is about to: the thing will not be asked about again.
    Evicted,
    /// The thing is in use. Its time to live begins anew.
    Refused,
}

/// Who owns things that expire.
///
/// The owner is registered with each thing and kept alive by it: let it be the table that the things are in rather than
/// the thing itself, which would then never be dropped before it expires.
pub trait Evict: Send + Sync {
    /// Lets go of the thing that was registered under `key`, or refuses because it is in use.
    ///
    /// Called from within [`StaleManager::sweep`](crate::StaleManager::sweep), without any lock of the manager: it may
    /// register, touch and cancel. It must return soon (what takes long is begun here and done elsewhere) and must not
    /// panic: the things of the same slice that come after it would never be looked at again.
    fn evict(&self, key: u64) -> Eviction;
}

/// LIMIT: things at once. A pass over all of them takes a few milliseconds of slices.
pub const THINGS_MAX: u32 = 1 << 24;

/// The shortest time to live; a shorter one counts as this. It keeps a thing that its owner refuses to let go of from
/// being asked about without end.
pub const TTL_MIN: Duration = Duration::from_millis(1);

pub(crate) const BLOCK: u32 = 1024;

/// The marks of one block's things.
pub(crate) type Marks = [AtomicU64; BLOCK as usize];

const NEVER: u64 = Tick::NEVER.as_nanos();

/// What was registered.
pub(crate) struct Entry {
    pub(crate) owner: Arc<dyn Evict>,
    pub(crate) key: u64,
    pub(crate) ttl_ns: u64,
}

/// What stands in a place. A place is used again only when its handle is gone, so that no touch ever reaches a successor.
enum Thing {
    Empty,
    /// INVARIANT: the only one whose deadline is not `NEVER`, except for a time to live without end.
    Armed(Entry),
    /// The sweep has taken the entry out and asks its owner.
    Evicting,
    /// The handle was dropped meanwhile.
    EvictingCancelled,
    /// Gone, but the handle is still there.
    Evicted,
}

struct Block {
    deadlines: Box<[u64; BLOCK as usize]>,
    things: Vec<Thing>,
    marks: Arc<Marks>,
}

/// A thing whose time has passed, taken out to ask its owner.
pub(crate) struct Due {
    pub(crate) place: u32,
    pub(crate) entry: Entry,
    marks: Arc<Marks>,
}

impl Due {
    /// Whether it was touched after it was taken out.
    pub(crate) fn was_touched(&self) -> bool {
        // ORDERING(touch): Relaxed suffices: the mark is judged by itself, and a touch that is not seen yet is one that
        // came too late.
        self.marks[lane(self.place)].load(Ordering::Relaxed) != UNTOUCHED
    }
}

#[derive(Default)]
pub(crate) struct Things {
    blocks: Vec<Block>,
    empty: Vec<u32>,
    /// Places up to here have been used.
    used: u32,
}

fn block(place: u32) -> usize {
    (place / BLOCK) as usize
}

fn lane(place: u32) -> usize {
    (place % BLOCK) as usize
}

fn deadline_ns(from: Tick, ttl_ns: u64) -> u64 {
    from.as_nanos().saturating_add(ttl_ns)
}

impl Things {
    /// Places that may hold something.
    pub(crate) const fn used(&self) -> u32 {
        self.used
    }

    /// Things that have a handle.
    pub(crate) fn len(&self) -> usize {
        self.used as usize - self.empty.len()
    }

    /// Puts a thing into an empty place; gives the place, its block's marks and its deadline. `None` when full.
    pub(crate) fn add(&mut self, entry: Entry, now: Tick) -> Option<(u32, Arc<Marks>, Tick)> {
        let place = match self.empty.pop() {
            Some(place) => place,
            None if self.used == THINGS_MAX => return None,
            None => {
                if self.used.is_multiple_of(BLOCK) {
                    self.blocks.push(Block {
                        deadlines: Box::new([NEVER; BLOCK as usize]),
                        things: (0..BLOCK).map(|_| Thing::Empty).collect(),
                        marks: Arc::new(std::array::from_fn(|_| AtomicU64::new(UNTOUCHED))),
                    });
                }
                self.used += 1;
                self.used - 1
            }
        };
        let Block { deadlines, things, marks } = &mut self.blocks[block(place)];
        // ORDERING(touch): Relaxed suffices: the place has no handle yet that could touch it, and the lock around this
        // orders it after the touches of the last one.
        marks[lane(place)].store(UNTOUCHED, Ordering::Relaxed);
        let deadline = deadline_ns(now, entry.ttl_ns);
        deadlines[lane(place)] = deadline;
        things[lane(place)] = Thing::Armed(entry);
        Some((place, Arc::clone(marks), Tick::from_nanos(deadline)))
    }

    /// Forgets a thing whose handle goes away; its entry comes back, to be dropped outside the lock.
    pub(crate) fn forget(&mut self, place: u32) -> Option<Entry> {
        let Block { deadlines, things, .. } = &mut self.blocks[block(place)];
        deadlines[lane(place)] = NEVER;
        let thing = &mut things[lane(place)];
        if matches!(thing, Thing::Evicting) {
            *thing = Thing::EvictingCancelled;
            return None;
        }
        let before = std::mem::replace(thing, Thing::Empty);
        self.empty.push(place);
        if let Thing::Armed(entry) = before { Some(entry) } else { None }
    }

    pub(crate) fn is_evicted(&self, place: u32) -> bool {
        matches!(self.blocks[block(place)].things[lane(place)], Thing::Evicted)
    }

    /// Looks at the places from `cursor` to `end`, and stops after the one with which `due` is full (`due_max`). Gives
    /// the next place to be looked at, and the earliest deadline of those that were passed over.
    pub(crate) fn scan(
        &mut self,
        cursor: u32,
        end: u32,
        now: Tick,
        history: &History,
        due: &mut Vec<Due>,
        due_max: usize,
    ) -> (u32, Tick) {
        /// So many deadlines are reduced to the earliest before any is looked at by itself.
        const STRIDE: u32 = 64;
        let (now_ns, mut earliest, mut place) = (now.as_nanos(), NEVER, cursor);
        while place < end {
            let stride_end = end.min((place / BLOCK + 1) * BLOCK).min(place + STRIDE);
            let Block { deadlines, things, marks } = &mut self.blocks[block(place)];
            let stride = &deadlines[lane(place)..=lane(stride_end - 1)];
            let first = stride.iter().copied().fold(NEVER, u64::min);
            if first > now_ns || first == NEVER {
                earliest = earliest.min(first);
                place = stride_end;
                continue;
            }
            while place < stride_end {
                let deadline = &mut deadlines[lane(place)];
                if *deadline <= now_ns && *deadline != NEVER {
                    if due.len() == due_max {
                        return (place, Tick::from_nanos(earliest));
                    }
                    let thing = &mut things[lane(place)];
                    if let Thing::Armed(entry) = thing {
                        *deadline = renewed(&marks[lane(place)], entry.ttl_ns, now, history);
                    }
                    if *deadline <= now_ns {
                        *deadline = NEVER;
                        if let Thing::Armed(entry) = std::mem::replace(thing, Thing::Evicting) {
                            due.push(Due { place, entry, marks: Arc::clone(marks) });
                        }
                    }
                }
                earliest = earliest.min(*deadline);
                place += 1;
            }
        }
        (place, Tick::from_nanos(earliest))
    }

    /// Ends the asking: the thing is gone.
    pub(crate) fn evicted(&mut self, place: u32) {
        let thing = &mut self.blocks[block(place)].things[lane(place)];
        if matches!(thing, Thing::EvictingCancelled) {
            *thing = Thing::Empty;
            self.empty.push(place);
        } else {
            *thing = Thing::Evicted;
        }
    }

    /// Ends the asking: the thing stays, and its time to live begins at `now`. Its deadline; or its entry, to be dropped
    /// outside the lock, when its handle has gone meanwhile.
    pub(crate) fn rearm(&mut self, place: u32, entry: Entry, now: Tick) -> Result<Tick, Entry> {
        let Block { deadlines, things, .. } = &mut self.blocks[block(place)];
        let thing = &mut things[lane(place)];
        if matches!(thing, Thing::EvictingCancelled) {
            *thing = Thing::Empty;
            self.empty.push(place);
            return Err(entry);
        }
        let deadline = deadline_ns(now, entry.ttl_ns);
        deadlines[lane(place)] = deadline;
        *thing = Thing::Armed(entry);
        Ok(Tick::from_nanos(deadline))
    }
}

/// The deadline of a thing whose deadline has passed, its touches considered: not after `now` when there were none.
fn renewed(mark: &AtomicU64, ttl_ns: u64, now: Tick, history: &History) -> u64 {
    // ORDERING(touch): Relaxed suffices here and in the compare-and-swap: one location is judged by itself.
    let seen = mark.load(Ordering::Relaxed);
    if seen == UNTOUCHED {
        return now.as_nanos();
    }
    if let Some(latest) = history.latest(seen) {
        // The touch is used up; one that comes meanwhile makes the swap fail, and counts as one of just now.
        if mark.compare_exchange(seen, UNTOUCHED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return deadline_ns(latest, ttl_ns);
        }
    }
    // It may be later than `now`, so that the mark stays: at the next look the tick after it is known.
    deadline_ns(now, ttl_ns)
}
