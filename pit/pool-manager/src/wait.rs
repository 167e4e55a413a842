//! Waiting for a lease: a future for any runtime.
//!
//! ```text
//!  Start --poll--> leased at once, refused --------------------------> Done
//!    +--poll--> Queued(ticket) --woken, poll--> leased, refused -----> Done
//!                    +--dropped--> out of the queue; a lease that was on its way goes to the next
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc as StdArc,
    task::{Context, Poll},
};

use pit_core::{clock::Clock, priority::Ageing, sync::Arc};

use crate::{
    cell::{ModelCell, Queued, Taken},
    lease::Lease,
    manager::AllocateError,
    queue::{Settled, Ticket},
    request::Request,
};

/// A lease that is being allocated; see [`PoolManager::allocate_async`](crate::PoolManager::allocate_async).
#[must_use = "nothing is allocated before the first poll"]
pub struct Allocating {
    /// `None` when there is no such model.
    cell: Option<Arc<ModelCell>>,
    request: Request,
    ageing: Ageing,
    clock: StdArc<dyn Clock>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Start,
    Queued(Ticket),
    Done,
}

impl Allocating {
    pub(crate) const fn new(
        cell: Option<Arc<ModelCell>>,
        request: Request,
        ageing: Ageing,
        clock: StdArc<dyn Clock>,
    ) -> Self {
        Self { cell, request, ageing, clock, stage: Stage::Start }
    }

    fn start(&mut self, context: &mut Context<'_>) -> Poll<Result<Lease, AllocateError>> {
        self.stage = Stage::Done;
        let model = self.request.model;
        let epoch = model.generation();
        let Some(cell) = &self.cell else { return Poll::Ready(Err(AllocateError::UnknownModel(model))) };
        match cell.take(epoch) {
            Taken::Leased => return Poll::Ready(lease(cell, &self.request)),
            Taken::ModelRetired => return Poll::Ready(Err(AllocateError::ModelRetired(model))),
            Taken::NoneFree => {}
        }
        let rank = self.ageing.rank(self.request.priority, self.clock.now());
        let (queued, _useless_waker) = cell.take_or_wait(epoch, rank, context.waker().clone());
        match queued {
            Queued::Leased => Poll::Ready(lease(cell, &self.request)),
            Queued::ModelRetired => Poll::Ready(Err(AllocateError::ModelRetired(model))),
            Queued::QueueFull => Poll::Ready(Err(AllocateError::TooManyWaiters(model))),
            Queued::Waiting(ticket) => {
                // The place is taken first: a holder that retires from now on finds it in its ledger, and one that has
                // retired before is noticed here.
                if let Some(holder) = &self.request.holder
                    && !holder.enter_waiting(cell, ticket)
                {
                    cell.leave(ticket);
                    return Poll::Ready(Err(AllocateError::HolderRetired(model)));
                }
                self.stage = Stage::Queued(ticket);
                Poll::Pending
            }
        }
    }

    fn look(&mut self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Result<Lease, AllocateError>> {
        let model = self.request.model;
        let Some(cell) = &self.cell else { return Poll::Ready(Err(AllocateError::UnknownModel(model))) };
        let Some(settled) = cell.look(ticket, context.waker().clone()) else { return Poll::Pending };
        self.stage = Stage::Done;
        if let Some(holder) = &self.request.holder {
            holder.strike_out_waiting(cell, ticket);
        }
        Poll::Ready(match settled {
            Settled::Leased => lease(cell, &self.request),
            Settled::ModelRetired => Err(AllocateError::ModelRetired(model)),
            Settled::HolderRetired => Err(AllocateError::HolderRetired(model)),
        })
    }
}

/// Makes a lease of one that was taken from `cell`.
pub(crate) fn lease(cell: &Arc<ModelCell>, request: &Request) -> Result<Lease, AllocateError> {
    let lease = Lease::of_taken(cell, request.model.generation(), request.holder.as_ref());
    lease.ok_or(AllocateError::HolderRetired(request.model))
}

impl Future for Allocating {
    type Output = Result<Lease, AllocateError>;

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
            if let Some(holder) = &self.request.holder {
                holder.strike_out_waiting(cell, ticket);
            }
            cell.leave(ticket);
        }
    }
}

impl fmt::Debug for Allocating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Allocating");
        debug.field("request", &self.request).field("stage", &self.stage).finish_non_exhaustive()
    }
}
