//! Waiting for a claim, or for a deadline that is brought forward: futures for any runtime, and blocking.
//!
//! ```text
//!  Start --poll--> granted at once -----------> Done
//!    +--poll--> Queued --woken, poll--> granted --> Done
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
    claim::ClaimSpec,
    grant::Grant,
    queue::Ticket,
    state::Wanted,
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage<T> {
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
            let ticket = state.enqueue(wanted, self.spec.preempts(), now, waker);
            if let Some(id) = state.grant_if_next(ticket, now, woken) {
                return Ok(Err(id));
            }
            state.serve_moved(true, now, woken);
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
                let Some(id) = state.queue.fetch(&ticket) else {
                    let before = state.queue.get_mut(&ticket).waker.replace(waker);
                    drop(state);
                    drop(before);
                    return Poll::Pending;
                };
                drop(state);
                self.stage = Stage::Done;
                Poll::Ready(Ok(Grant::new(id, Arc::clone(&self.shared))))
            }
            Stage::Done => panic!("a claim is polled after it was ready"),
        }
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        if let Stage::Queued(ticket) = self.stage {
            let _own_waker = self.shared.change(|state, now, woken| state.withdraw(&ticket, now, woken));
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

/// Waits for a deadline that is earlier; see [`Arbiter::earlier_deadline`](crate::Arbiter::earlier_deadline).
#[must_use = "a future does nothing unless it is polled"]
pub struct EarlierDeadline<'a> {
    shared: &'a Shared,
    than: Tick,
    /// Its number among those who wait so.
    number: Option<u64>,
}

impl<'a> EarlierDeadline<'a> {
    pub(crate) const fn new(shared: &'a Shared, than: Tick) -> Self {
        Self { shared, than, number: None }
    }
}

impl Future for EarlierDeadline<'_> {
    type Output = Tick;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Tick> {
        let (than, number) = (self.than, self.number);
        // Foreign code, and so is dropping the one before it: outside the lock.
        let waker = context.waker().clone();
        let mut state = self.shared.lock();
        if let Some(next) = state.next_deadline().filter(|next| *next < than) {
            return Poll::Ready(next);
        }
        let number = number.unwrap_or_else(|| state.number());
        state.watched = state.watched.max(than);
        let before = state.watchers.insert(number, waker);
        drop(state);
        drop(before);
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for EarlierDeadline<'_> {
    fn drop(&mut self) {
        let waker = self.number.and_then(|number| self.shared.lock().watchers.remove(&number));
        // After the lock.
        drop(waker);
    }
}

impl fmt::Debug for EarlierDeadline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlierDeadline").field("than", &self.than).finish_non_exhaustive()
    }
}

/// Blocks until the future is ready or `deadline` has passed, and meanwhile revokes what was not given back in time.
pub(crate) fn wait<T>(
    shared: &Shared,
    mut future: impl Future<Output = Result<T, ClaimError>> + Unpin,
    deadline: Tick,
) -> Result<T, ClaimError> {
    loop {
        let until = shared.next_deadline().map_or(deadline, |next| next.min(deadline));
        // Somebody may be told meanwhile whose time runs out earlier.
        let mut earlier = EarlierDeadline::new(shared, until);
        let ready = poll_fn(|context| match Pin::new(&mut future).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Pin::new(&mut earlier).poll(context).map(|_| None),
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
