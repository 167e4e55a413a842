//! A part of the things: a flat array of deadlines behind a lock, and cells that touches reach without it.
//!
//! Threads register each in their own shard, so that they do not meet. Blocks of a fixed size, so that nothing moves when
//! more is registered and no registration pays for more than one block. Deadlines lie together and apart from the rest,
//! and each stride of them has a bound: a pass reads the bounds and hardly anything else. What owners are is not known
//! here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pit_core::{clock::Tick, table::Table};

use crate::{
    cell::{Cell, Thing, deadline_ns},
    history::History,
};

/// Things of one block.
const BLOCK: u32 = 1024;

/// Things that share a bound.
const STRIDE: u32 = 64;

/// Blocks of one shard, by number.
type Blocks = Table<Box<[Cell; BLOCK as usize]>, 8, 8>;

/// LIMIT: things of one shard at once. A pass over as many takes about a millisecond, in slices.
pub(crate) const PLACES_MAX: u32 = Blocks::PLACES * BLOCK;

/// Looking at a thing by itself, where deadlines are only compared, counts as so many looks: so much longer it takes.
const CLOSE_LOOK: u32 = 8;

const NEVER: u64 = Tick::NEVER.as_nanos();

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Shard {
    blocks: Blocks,
    state: Mutex<State>,
}

/// Cancelled things are put aside until there are so many: what a thing leaves behind lies in memory that nobody has
/// looked at for a while, and waiting for many such places at once takes hardly longer than for one.
const ASIDE: usize = 64;

/// The deadlines of one block.
///
/// INVARIANT: a place that is not armed has the deadline `NEVER`.
struct Deadlines {
    each: [u64; BLOCK as usize],
    /// INVARIANT: no deadline of the stride is earlier.
    bounds: [u64; (BLOCK / STRIDE) as usize],
}

struct State {
    deadlines: Vec<Box<Deadlines>>,
    empty: Vec<u32>,
    /// Cancelled, and not yet forgotten: place and generation. Nobody is asked about these.
    aside: Vec<(u32, u32)>,
    /// Places up to here have been used.
    used: u32,
    /// INVARIANT: no armed thing's deadline is earlier. It may be too early, then a pass finds nothing.
    earliest: u64,
    pass: Option<Pass>,
}

/// A pass over all things that is under way, slice by slice.
#[derive(Clone, Copy)]
struct Pass {
    /// The next place to be looked at.
    cursor: u32,
    /// INVARIANT: no armed thing that the pass has looked at, or that came since, has an earlier deadline.
    earliest: u64,
}

impl Default for State {
    fn default() -> Self {
        let aside = Vec::with_capacity(ASIDE);
        Self { deadlines: Vec::new(), empty: Vec::new(), aside, used: 0, earliest: NEVER, pass: None }
    }
}

/// A thing whose time has passed, and whose owner is to be asked.
#[derive(Clone, Copy)]
pub(crate) struct Due {
    pub(crate) place: u32,
    pub(crate) generation: u32,
    pub(crate) thing: Thing,
}

/// What is left of a slice's budget.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub(crate) looks: u32,
    /// Things that may be put into the list of those that are due, in all.
    pub(crate) due_max: usize,
}

const fn block(place: u32) -> usize {
    (place / BLOCK) as usize
}

const fn lane(place: u32) -> usize {
    (place % BLOCK) as usize
}

impl State {
    fn set_deadline(&mut self, place: u32, deadline: u64) {
        let Deadlines { each, bounds } = &mut *self.deadlines[block(place)];
        each[lane(place)] = deadline;
        let bound = &mut bounds[lane(place) / STRIDE as usize];
        *bound = deadline.min(*bound);
        self.earliest = deadline.min(self.earliest);
        if let Some(pass) = &mut self.pass {
            pass.earliest = pass.earliest.min(deadline);
        }
    }

    /// A place for one more; `None` when there are [`PLACES_MAX`].
    fn take_place(&mut self, blocks: &Blocks) -> Option<u32> {
        if self.empty.is_empty() {
            self.forget(blocks);
        }
        if let Some(place) = self.empty.pop() {
            return Some(place);
        }
        if self.used == PLACES_MAX {
            return None;
        }
        if self.used.is_multiple_of(BLOCK) {
            let cells: Box<[Cell]> = (0..BLOCK).map(|_| Cell::default()).collect();
            blocks.set(self.used / BLOCK, cells.try_into().ok()?).ok()?;
            let bounds = [NEVER; (BLOCK / STRIDE) as usize];
            self.deadlines.push(Box::new(Deadlines { each: [NEVER; BLOCK as usize], bounds }));
        }
        self.used += 1;
        Some(self.used - 1)
    }

    /// Forgets what was put aside, if it is still there.
    fn forget(&mut self, blocks: &Blocks) {
        for (place, generation) in self.aside.drain(..) {
            let Some(block_cells) = blocks.get(place / BLOCK) else { continue };
            let cell = &block_cells[lane(place)];
            if cell.holds(generation) {
                cell.clear();
                self.deadlines[block(place)].each[lane(place)] = NEVER;
                self.empty.push(place);
            }
        }
    }
}

impl Shard {
    /// Puts a thing into an empty place: the place, and which of its things it is. `None` when full.
    pub(crate) fn add(&self, thing: Thing, now: Tick) -> Option<(u32, u32)> {
        let mut state = self.lock();
        let place = state.take_place(&self.blocks)?;
        let generation = self.cell(place)?.fill(thing);
        state.set_deadline(place, deadline_ns(now, thing.ttl_ns));
        Some((place, generation))
    }

    /// The cell of a place that was used at least once.
    #[inline]
    pub(crate) fn cell(&self, place: u32) -> Option<&Cell> {
        Some(&self.blocks.get(place / BLOCK)?[lane(place)])
    }

    /// Ends a thing, if it is still there.
    #[inline]
    pub(crate) fn cancel(&self, place: u32, generation: u32) {
        let mut state = self.lock();
        if state.aside.len() == ASIDE {
            state.forget(&self.blocks);
        }
        state.aside.push((place, generation));
    }

    /// Whether the thing is still there.
    pub(crate) fn holds(&self, place: u32, generation: u32) -> bool {
        self.lock().forget(&self.blocks);
        self.cell(place).is_some_and(|cell| cell.holds(generation))
    }

    /// Looks once more, right before the owner is asked: not when the thing was cancelled since the pass, nor when it was
    /// touched, which means that somebody still needs it. Then it stays, and its time to live begins at `now`.
    pub(crate) fn is_still_due(&self, due: &Due, now: Tick) -> bool {
        let mut state = self.lock();
        state.forget(&self.blocks);
        let Some(cell) = self.cell(due.place).filter(|cell| cell.is_asking(due.generation)) else {
            return false;
        };
        let was_touched = cell.was_touched();
        if was_touched {
            cell.keep();
            state.set_deadline(due.place, deadline_ns(now, due.thing.ttl_ns));
        }
        !was_touched
    }

    /// Ends the asking: the thing is gone, unless it was forgotten meanwhile.
    pub(crate) fn evicted(&self, due: &Due) {
        let mut state = self.lock();
        if let Some(cell) = self.cell(due.place).filter(|cell| cell.is_asking(due.generation)) {
            cell.clear();
            state.empty.push(due.place);
        }
    }

    /// Ends the asking: the thing stays, and its time to live begins at `now`, unless it was forgotten meanwhile.
    pub(crate) fn rearm(&self, due: &Due, now: Tick) {
        let mut state = self.lock();
        if let Some(cell) = self.cell(due.place).filter(|cell| cell.is_asking(due.generation)) {
            cell.keep();
            state.set_deadline(due.place, deadline_ns(now, due.thing.ttl_ns));
        }
    }

    /// No armed thing's deadline is earlier.
    pub(crate) fn earliest(&self) -> Tick {
        Tick::from_nanos(self.lock().earliest)
    }

    /// How many things there are.
    pub(crate) fn len(&self) -> usize {
        let mut state = self.lock();
        state.forget(&self.blocks);
        state.used as usize - state.empty.len()
    }

    /// Goes on with the pass over the places, or begins one if something may be due at `now`, and adds what is due to
    /// `due`. True when there is more to do now.
    pub(crate) fn slice(&self, now: Tick, history: &History, left: &mut Left, due: &mut Vec<Due>) -> bool {
        let mut state = self.lock();
        state.forget(&self.blocks);
        let is_due = |state: &State| state.earliest <= now.as_nanos() && state.earliest != NEVER;
        let begun = is_due(&state).then_some(Pass { cursor: 0, earliest: NEVER });
        let Some(mut pass) = state.pass.take().or(begun) else { return false };
        self.scan(&mut state, &mut pass, now, history, left, due);
        let is_over = pass.cursor == state.used;
        if is_over {
            state.earliest = pass.earliest;
        } else {
            state.pass = Some(pass);
        }
        // Something may have come behind the cursor that is due already.
        !is_over || is_due(&state)
    }

    fn scan(
        &self,
        state: &mut State,
        pass: &mut Pass,
        now: Tick,
        history: &History,
        left: &mut Left,
        due: &mut Vec<Due>,
    ) {
        let now_ns = now.as_nanos();
        while pass.cursor < state.used && left.looks > 0 {
            let stride_end = state.used.min((pass.cursor / STRIDE + 1) * STRIDE);
            let Deadlines { each, bounds } = &mut *state.deadlines[block(pass.cursor)];
            let bound = &mut bounds[lane(pass.cursor) / STRIDE as usize];
            if *bound > now_ns || *bound == NEVER {
                pass.earliest = pass.earliest.min(*bound);
                left.looks = left.looks.saturating_sub(stride_end - pass.cursor);
                pass.cursor = stride_end;
                continue;
            }
            while pass.cursor < stride_end {
                let deadline = &mut each[lane(pass.cursor)];
                if left.looks == 0 || (*deadline <= now_ns && due.len() == left.due_max) {
                    left.looks = 0;
                    return;
                }
                left.looks -= 1;
                if *deadline <= now_ns && *deadline != NEVER {
                    left.looks = left.looks.saturating_sub(CLOSE_LOOK);
                    *deadline = self.look(pass.cursor, now, history, due);
                }
                pass.earliest = pass.earliest.min(*deadline);
                pass.cursor += 1;
            }
            // The whole stride, even if the slice began in the middle of it: its first part may have changed since.
            let begin = lane(pass.cursor - 1) / STRIDE as usize * STRIDE as usize;
            *bound = each[begin..=lane(pass.cursor - 1)].iter().copied().fold(NEVER, u64::min);
        }
    }

    /// Looks at a place whose deadline has passed: its new one, or `NEVER` when it is due, or nothing is there.
    fn look(&self, place: u32, now: Tick, history: &History, due: &mut Vec<Due>) -> u64 {
        let Some((cell, (thing, generation))) = self.cell(place).and_then(|cell| Some((cell, cell.armed()?)))
        else {
            return NEVER;
        };
        let deadline = cell.renewed(thing.ttl_ns, now, history);
        if deadline > now.as_nanos() {
            return deadline;
        }
        cell.ask();
        due.push(Due { place, generation, thing });
        NEVER
    }

    /// Adds what expires before `before`, if nobody touches it, to `soon`, and keeps the first `count_max` of it, in any
    /// order.
    pub(crate) fn expiring(&self, before: Tick, count_max: usize, soon: &mut Vec<(Tick, Thing)>) {
        for number in 0_u32.. {
            // One block at a time, so that nobody waits for long.
            let mut state = self.lock();
            state.forget(&self.blocks);
            let Some(deadlines) = state.deadlines.get(number as usize) else { break };
            let Some(cells) = self.blocks.get(number) else { break };
            let things =
                deadlines.each.iter().zip(&**cells).filter(|(deadline, _)| **deadline < before.as_nanos());
            let things = things.filter_map(|(deadline, cell)| {
                let (thing, _) = cell.armed()?;
                Some((Tick::from_nanos(*deadline), thing))
            });
            soon.extend(things);
            drop(state);
            if soon.len() > count_max {
                soon.select_nth_unstable_by_key(count_max, |(deadline, thing)| {
                    (*deadline, thing.owner, thing.key)
                });
                soon.truncate(count_max);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock, so that a poisoned one means a defect here; the others may go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
