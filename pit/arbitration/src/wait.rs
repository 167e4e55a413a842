//! Waiting for a claim or an extension: futures for any runtime, and blocking.
//!
//! ```text
//!  Start --poll--> granted at once ------------------> Done
//!    +--poll--> Queued --woken, poll--> granted, or told to give back --> Done
//!                    +--dropped--> withdrawn
//! ```

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pit_core::{clock::Tick, wait::block_until};

use crate::{
    arbiter::{ClaimError, Shared, WAITERS_MAX},
    claim::{Amounts, ClaimSpec, GrantId},
    grant::Grant,
    growth::Growth,
    queue::Ticket,
    state::{Outcome, Wanted},
};

#[derive(Clone, Copy, Debug)]
enum Stage<T> {
    Start,
    Queued(T),
    Done,
}

/// A claim that is being made; see [`Arbiter::claim`](crate::Arbiter::claim).
#[must_use = "nothing is claimed before the first poll"]
pub struct Claiming {
    shared: Arc<Shared>,
    spec: ClaimSpec,
    stage: Stage<Ticket>,
}

impl Claiming {
    pub(crate) const fn new(shared: Arc<Shared>, spec: ClaimSpec) -> Self {
        Self { shared, spec, stage: Stage::Start }
    }

    fn start(&mut self, context: &mut Context<'_>) -> Poll<Result<Grant, ClaimError>> {
        self.stage = Stage::Done;
        let mut resolved = None;
        let wanted = Wanted::of(&self.spec, self.shared.check(&self.spec, &mut resolved)?);
        let granted = |id| Poll::Ready(Ok(Grant::new(id, Arc::clone(&self.shared))));
        // The common case. A waker's `clone` is foreign code, and it is needed seldom: only when this was in vain.
        if let Some(id) = self.shared.lock().try_alone(wanted) {
            return granted(id);
        }
        let waker = context.waker().clone();
        // Tries, and takes a place in the queue: both under one lock, so that no release comes between.
        let queued = self.shared.change(|state, now, woken| {
            state.revoke_due(now, woken);
            if state.waiting_count() >= WAITERS_MAX {
                return Err(waker);
            }
            let ticket = state.enqueue(wanted, now, waker);
            if let Some(id) = state.grant_if_next(ticket, now, woken) {
                return Ok(Err(id));
            }
            state.serve_moved(true, now, woken);
            if let Some(notice) = self.spec.preempts() {
                state.preempt_for(ticket, notice, now, woken);
            }
            Ok(Ok(ticket))
        });
        match queued {
            Err(_unused_waker) => Poll::Ready(Err(ClaimError::TooManyWaiters)),
            Ok(Err(id)) => granted(id),
            Ok(Ok(ticket)) => {
                self.stage = Stage::Queued(ticket);
                Poll::Pending
            }
        }
    }
}

impl Future for Claiming {
    type Output = Result<Grant, ClaimError>;

    /// # Panics
    /// When it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.stage {
            Stage::Start => self.start(context),
            Stage::Queued(ticket) => {
                let waker = context.waker().clone();
                let mut state = self.shared.lock();
                let Some(outcome) = state.fetch(ticket.number) else {
                    let waiter = state.queue.get_mut(&ticket);
                    debug_assert!(waiter.is_some(), "a ticket is in the queue or something has become of it");
                    let before = waiter.map(|waiter| std::mem::replace(&mut waiter.waker, waker));
                    drop(state);
                    drop(before);
                    return Poll::Pending;
                };
                drop(state);
                self.stage = Stage::Done;
                match outcome {
                    Outcome::Granted(id) => Poll::Ready(Ok(Grant::new(id, Arc::clone(&self.shared)))),
                    Outcome::Told(notice) => Poll::Ready(Err(ClaimError::Told(notice))),
                    Outcome::Extended => Poll::Ready(Err(ClaimError::Revoked)),
                }
            }
            Stage::Done => panic!("a claim is polled after it was ready"),
        }
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        if let Stage::Queued(ticket) = self.stage {
            let _own_waker = self.shared.change(|state, now, woken| state.withdraw(ticket, now, woken));
        }
    }
}

impl fmt::Debug for Claiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claiming")
            .field("spec", &self.spec)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// An extension that is being made; see [`Grant::extend`].
#[must_use = "nothing is added before the first poll"]
pub struct Extending<'g> {
    shared: &'g Arc<Shared>,
    grant: GrantId,
    /// Or why there are none.
    amounts: Result<Amounts, ClaimError>,
    stage: Stage<u64>,
}

impl<'g> Extending<'g> {
    pub(crate) fn new(shared: &'g Arc<Shared>, grant: GrantId, spec: &ClaimSpec) -> Self {
        let amounts = shared.check(spec, &mut None).copied();
        Self { shared, grant, amounts, stage: Stage::Start }
    }

    fn start(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClaimError>> {
        self.stage = Stage::Done;
        let amounts = self.amounts.clone()?;
        let (shared, waker) = (self.shared, context.waker().clone());
        let growth = shared.change(|state, now, woken| {
            state.revoke_due(now, woken);
            if state.waiting_count() >= WAITERS_MAX {
                return None;
            }
            state.grow(self.grant, &amounts, |place| shared.capacity(place), Some(waker), now, woken)
        });
        match growth {
            Some(Growth::Extended) => Poll::Ready(Ok(())),
            Some(Growth::Waiting(number)) => {
                self.stage = Stage::Queued(number);
                Poll::Pending
            }
            Some(growth) => Poll::Ready(Err(growth_error(growth, shared))),
            None => Poll::Ready(Err(ClaimError::TooManyWaiters)),
        }
    }
}

/// What an extension that was refused fails with.
pub(crate) fn growth_error(growth: Growth, shared: &Shared) -> ClaimError {
    match growth {
        Growth::Told(notice) => ClaimError::Told(notice),
        Growth::TooMany => ClaimError::TooManyResources,
        Growth::Exceeds(place, units) => shared.refusal(place, units),
        Growth::Revoked | Growth::Extended | Growth::Waiting(_) => ClaimError::Revoked,
    }
}

impl Future for Extending<'_> {
    type Output = Result<(), ClaimError>;

    /// # Panics
    /// When it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.stage {
            Stage::Start => self.start(context),
            Stage::Queued(number) => {
                let waker = context.waker().clone();
                let mut state = self.shared.lock();
                let Some(outcome) = state.fetch(number) else {
                    let before = state.renew_waker(self.grant, number, waker);
                    drop(state);
                    drop(before);
                    return Poll::Pending;
                };
                drop(state);
                self.stage = Stage::Done;
                Poll::Ready(match outcome {
                    Outcome::Told(notice) => Err(ClaimError::Told(notice)),
                    Outcome::Extended | Outcome::Granted(_) => Ok(()),
                })
            }
            Stage::Done => panic!("an extension is polled after it was ready"),
        }
    }
}

impl Drop for Extending<'_> {
    fn drop(&mut self) {
        if let (Stage::Queued(number), Ok(amounts)) = (self.stage, &self.amounts) {
            let _own_waker =
                self.shared.change(|state, now, woken| state.shrink(self.grant, number, amounts, now, woken));
        }
    }
}

impl fmt::Debug for Extending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extending")
            .field("grant", &self.grant)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// Blocks until the future is ready or `deadline` has passed, and meanwhile revokes what was not given back in time.
pub(crate) fn wait<T>(
    shared: &Shared,
    mut future: impl Future<Output = Result<T, ClaimError>> + Unpin,
    deadline: Tick,
) -> Result<T, ClaimError> {
    loop {
        let earliest = || shared.next_deadline().map_or(deadline, |next| next.min(deadline));
        let until = earliest();
        let ready = poll_fn(|context| match Pin::new(&mut future).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // Somebody was told whose time runs out earlier.
            Poll::Pending if earliest() < until => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match block_until(ready, until, &*shared.clock) {
            Some(Some(output)) => return output,
            Some(None) => {}
            None if until == deadline => return Err(ClaimError::DeadlinePassed { deadline }),
            None => {
                shared.revoke_due();
            }
        }
    }
}
