//! Waiting for a claim: a future for any runtime.
//!
//! ```text
//!  Start --poll--> granted at once ------------------> Done
//!    +--poll--> Queued(ticket) --woken, poll--> granted --> Done
//!                    +--dropped--> withdrawn
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    arbiter::{ClaimError, Grant, Shared, WAITERS_MAX},
    claim::ClaimSpec,
    state::{Looked, Ticket},
};

/// A claim that is being made; see [`Arbiter::claim`](crate::Arbiter::claim).
#[must_use = "nothing is claimed before the first poll"]
pub struct Claiming {
    shared: Arc<Shared>,
    spec: ClaimSpec,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Start,
    Queued(Ticket),
    Done,
}

impl Claiming {
    pub(crate) const fn new(shared: Arc<Shared>, spec: ClaimSpec) -> Self {
        Self { shared, spec, stage: Stage::Start }
    }

    /// Tries, and takes a place in the queue if that is in vain: both under one lock, so that no release comes between.
    /// The try before is for the common case.
    fn start(&mut self, context: &mut Context<'_>) -> Poll<Result<Grant, ClaimError>> {
        self.stage = Stage::Done;
        self.shared.check(&self.spec)?;
        // A waker's `clone` is foreign code, and it is needed seldom: only when the first try was in vain.
        let clock = &self.shared.clock;
        if let Some(grant) =
            Shared::try_grant(&self.shared, &mut self.shared.lock(), &self.spec, || clock.now())
        {
            return Poll::Ready(Ok(grant));
        }
        let waker = context.waker().clone();
        let mut state = self.shared.lock();
        // One moment for both, or the claim could come to stand before a waiter that it was refused for.
        let now = clock.now();
        if let Some(grant) = Shared::try_grant(&self.shared, &mut state, &self.spec, || now) {
            return Poll::Ready(Ok(grant));
        }
        if state.waiting_count() >= WAITERS_MAX {
            return Poll::Ready(Err(ClaimError::TooManyWaiters));
        }
        self.stage = Stage::Queued(state.enqueue(&self.spec, self.shared.ageing(), now, waker));
        Poll::Pending
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
                let (looked, _old_waker) = self.shared.lock().look(ticket, waker);
                match looked {
                    Looked::StillWaiting => Poll::Pending,
                    Looked::Granted(id) => {
                        self.stage = Stage::Done;
                        Poll::Ready(Ok(Grant::new(id, Arc::clone(&self.shared))))
                    }
                }
            }
            Stage::Done => panic!("a claim is polled after it was ready"),
        }
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        if let Stage::Queued(ticket) = self.stage {
            let mut woken = Vec::new();
            let _own_waker = self.shared.lock().withdraw(ticket, &mut woken);
            woken.into_iter().for_each(Waker::wake);
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
