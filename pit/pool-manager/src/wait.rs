//! Waiting for a lease: a future for any runtime, and the same for a thread that blocks.
//!
//! ```text
//!  Start --poll--> leased at once, refused --------------------------> Done
//!    +--poll--> Queued(ticket) --woken, poll--> leased, refused -----> Done
//!                    +--dropped--> out of the queue; a lease that was on its way goes to the next
//! ```

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pit_core::{
    clock::{Clock, Tick},
    priority::{Ageing, Priority},
    wait::block_until,
};

use crate::{
    ModelId,
    cell::{ModelCell, Taken},
    holder::Holder,
    lease::Lease,
    locked::{Queued, Refused},
    manager::AllocateError,
    queue::{Settled, Ticket, Waiter},
    request::Request,
    shared::Core,
};

/// A lease that is being allocated; see [`PoolManager::allocate_async`](crate::PoolManager::allocate_async).
#[must_use = "nothing is allocated before the first poll"]
pub struct Allocating {
    /// `None` when there is no such model.
    cell: Option<Arc<ModelCell>>,
    model: ModelId,
    priority: Priority,
    holder: Option<Holder>,
    deadline: Tick,
    ageing: Ageing,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Start,
    Queued(Ticket),
    Done,
}

type Answer = Result<Lease, AllocateError>;

impl Allocating {
    pub(crate) fn new(cell: Option<Arc<ModelCell>>, request: &Request<'_>, ageing: Ageing) -> Self {
        let Request { model, priority, holder, deadline } = *request;
        Self { cell, model, priority, holder: holder.cloned(), deadline, ageing, stage: Stage::Start }
    }

    fn start(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        self.stage = Stage::Done;
        let model = self.model;
        let Some(cell) = &self.cell else { return Poll::Ready(Err(AllocateError::UnknownModel(model))) };
        let holder = self.holder.as_ref();
        let owner = match owner(cell, holder, model) {
            Ok(owner) => owner,
            Err(error) => return Poll::Ready(Err(error)),
        };
        match cell.take(model.generation(), owner) {
            Taken::Leased(slot, held) => return Poll::Ready(checked(Lease::new(slot, held, model), holder)),
            Taken::ModelRetired => return Poll::Ready(Err(AllocateError::ModelRetired(model))),
            Taken::NoneFree => {}
        }
        let waiter = Waiter { owner, deadline: self.deadline, waker: context.waker().clone() };
        let rank = |now| self.ageing.rank(self.priority, now);
        let (queued, calls) = cell.locked().take_or_wait(model.generation(), rank, waiter);
        let answer = match queued {
            Queued::Leased((slot, held)) => Poll::Ready(checked(Lease::new(slot, held, model), holder)),
            Queued::Refused(refused) => Poll::Ready(Err(refusal(refused, model))),
            Queued::Waiting(ticket) => {
                // The place is taken first: a holder that retires from now on finds it in its ledger, and one that has
                // retired before is noticed here.
                if let Some(holder) = holder
                    && !holder.enter_waiting(cell, ticket)
                {
                    cell.locked().leave(ticket);
                    return Poll::Ready(Err(AllocateError::HolderRetired(model)));
                }
                self.stage = Stage::Queued(ticket);
                Poll::Pending
            }
        };
        // Not before the place in the queue is known to who leaves it.
        calls.end();
        answer
    }

    fn look(&mut self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Answer> {
        let model = self.model;
        let Some(cell) = &self.cell else { return Poll::Ready(Err(AllocateError::UnknownModel(model))) };
        let Some(settled) = cell.locked().look(ticket, context.waker().clone()) else { return Poll::Pending };
        self.stage = Stage::Done;
        let holder = self.holder.as_ref();
        if let Some(holder) = holder {
            holder.strike_out_waiting(cell, ticket);
        }
        Poll::Ready(match settled {
            Ok((slot, held)) => checked(Lease::new(slot, held, model), holder),
            Err(Settled::HolderRetired) => Err(AllocateError::HolderRetired(model)),
            Err(Settled::CoolingDown { until }) => Err(AllocateError::CoolingDown { model, until }),
            Err(Settled::ModelRetired | Settled::Leased { .. }) => Err(AllocateError::ModelRetired(model)),
        })
    }
}

/// The number under which leases of `cell` are taken.
#[inline]
fn owner(cell: &Arc<ModelCell>, holder: Option<&Holder>, model: ModelId) -> Result<u32, AllocateError> {
    holder.map_or(Ok(crate::word::NOBODY), |holder| {
        holder.enter(cell).ok_or(AllocateError::HolderRetired(model))
    })
}

/// The lease, unless its holder has ended meanwhile: then it is given back, if nobody else has ended it.
#[inline]
fn checked(lease: Lease, holder: Option<&Holder>) -> Answer {
    if holder.is_some_and(Holder::is_retired) {
        return Err(AllocateError::HolderRetired(lease.model()));
    }
    Ok(lease)
}

fn refusal(refused: Refused, model: ModelId) -> AllocateError {
    match refused {
        Refused::Busy | Refused::NoMemory => AllocateError::Busy(model),
        Refused::Loading => AllocateError::Loading(model),
        Refused::CoolingDown { until } => AllocateError::CoolingDown { model, until },
        Refused::ModelRetired => AllocateError::ModelRetired(model),
        Refused::QueueFull => AllocateError::TooManyWaiters(model),
    }
}

/// One try.
#[inline]
pub(crate) fn now(cell: &Arc<ModelCell>, model: ModelId, holder: Option<&Holder>) -> Answer {
    let owner = owner(cell, holder, model)?;
    match cell.take(model.generation(), owner) {
        Taken::Leased(slot, held) => checked(Lease::new(slot, held, model), holder),
        Taken::NoneFree => not_free(cell, model, owner, holder),
        Taken::ModelRetired => Err(AllocateError::ModelRetired(model)),
    }
}

#[cold]
fn not_free(cell: &ModelCell, model: ModelId, owner: u32, holder: Option<&Holder>) -> Answer {
    if !cell.has_spare() {
        return Err(AllocateError::Busy(model));
    }
    let ask = || {
        let (answer, calls) = cell.locked().ask(model.generation(), owner);
        let answer = answer.map(|(slot, held)| Lease::new(slot, held, model));
        calls.end();
        answer
    };
    // Nobody is refused for want of memory that something idle has.
    let answer = match ask() {
        Err(Refused::NoMemory) => ask(),
        answer => answer,
    };
    checked(answer.map_err(|refused| refusal(refused, model))?, holder)
}

/// Blocks this thread until there is an answer or `deadline` has passed. While it waits it does what is due at the
/// manager (ends of rests and leases), so that it depends on nobody else for that.
pub(crate) fn blocking(mut allocating: Allocating, deadline: Tick, core: &Core) -> Answer {
    let model = allocating.model;
    loop {
        let limit = deadline.min(core.timers.next());
        let try_again = poll_fn(|context| match Pin::new(&mut allocating).poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            // A rest has begun that ends before this thread would wake up.
            Poll::Pending if core.timers.next() < limit => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(Some(answer)) = block_until(try_again, limit, &*core.clock) {
            return answer;
        }
        let now = core.clock.now();
        core.turn(now);
        if now >= deadline {
            // What was due just now may have brought a lease.
            return block_until(allocating, Tick::ZERO, &*core.clock)
                .unwrap_or(Err(AllocateError::DeadlinePassed { model, deadline }));
        }
    }
}

impl Future for Allocating {
    type Output = Answer;

    /// # Panics
    /// When it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.stage {
            Stage::Start => self.start(context),
            Stage::Queued(ticket) => self.look(ticket, context),
            Stage::Done => panic!("an allocation is polled after it was ready"),
        }
    }
}

impl Drop for Allocating {
    fn drop(&mut self) {
        if let (Stage::Queued(ticket), Some(cell)) = (self.stage, &self.cell) {
            if let Some(holder) = &self.holder {
                holder.strike_out_waiting(cell, ticket);
            }
            cell.locked().leave(ticket);
        }
    }
}

impl fmt::Debug for Allocating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Allocating");
        debug.field("model", &self.model).field("stage", &self.stage).finish_non_exhaustive()
    }
}
