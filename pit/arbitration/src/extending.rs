//! Waiting for more, as a holder: futures for any runtime, of what becomes a part of a grant and of what becomes one
//! beside it.
//!
//! ```text
//!  Start --poll--> given at once --------------------------------------> Done
//!    +--poll--> Queued --woken, poll--> given, or told to give back --> Done
//!                    +--dropped--> withdrawn
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    arbiter::{ClaimError, Shared, WAITERS_MAX},
    claim::{Amounts, ClaimSpec, GrantId},
    grant::Grant,
    growth::{Growth, Waits, Wants},
    state::Outcome,
    wait::Stage,
};

/// What both kinds do. Its output is the grant by itself, if there is one.
struct Wanting<'g> {
    shared: &'g Arc<Shared>,
    grant: GrantId,
    /// Or why there are none.
    amounts: Result<Amounts, ClaimError>,
    is_beside: bool,
    stage: Stage<Waits>,
}

impl<'g> Wanting<'g> {
    fn new(shared: &'g Arc<Shared>, grant: GrantId, spec: &ClaimSpec, is_beside: bool) -> Self {
        let amounts = shared.check_names(spec).copied();
        Self { shared, grant, amounts, is_beside, stage: Stage::Start }
    }

    fn start(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<GrantId>, ClaimError>> {
        self.stage = Stage::Done;
        let amounts = self.amounts.clone()?;
        let wants = Wants { grant: self.grant, amounts: &amounts, is_beside: self.is_beside };
        let (shared, waker) = (self.shared, context.waker().clone());
        let growth = shared.change(|state, now, woken| {
            state.revoke_due(now, woken);
            if state.waiting_count() >= WAITERS_MAX {
                return None;
            }
            state.grow(wants, |place| shared.capacity(place), Some(waker), now, woken)
        });
        match growth {
            Some(Growth::Extended) => Poll::Ready(Ok(None)),
            Some(Growth::Granted(beside)) => Poll::Ready(Ok(Some(beside))),
            Some(Growth::Waiting(waits)) => {
                self.stage = Stage::Queued(waits);
                Poll::Pending
            }
            Some(growth) => Poll::Ready(Err(growth_error(growth, shared))),
            None => Poll::Ready(Err(ClaimError::TooManyWaiters)),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<GrantId>, ClaimError>> {
        match self.stage {
            Stage::Start => self.start(context),
            Stage::Queued(waits) => {
                let waker = context.waker().clone();
                let mut state = self.shared.lock();
                let Some(outcome) = state.fetch(waits.age.1) else {
                    let before = state.renew_waker(&waits.age, waker);
                    drop(state);
                    drop(before);
                    return Poll::Pending;
                };
                drop(state);
                self.stage = Stage::Done;
                Poll::Ready(match outcome {
                    Outcome::Told(notice) => Err(ClaimError::Told(notice)),
                    Outcome::Extended => Ok(None),
                    Outcome::Granted(beside) => Ok(Some(beside)),
                })
            }
            Stage::Done => panic!("it is polled after it was ready"),
        }
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        if let Stage::Queued(waits) = &self.stage {
            let _own_waker =
                self.shared.change(|state, now, woken| state.shrink(self.grant, waits, now, woken));
        }
    }
}

impl fmt::Debug for Wanting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanting")
            .field("grant", &self.grant)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// What a holder that was refused more fails with.
pub(crate) fn growth_error(growth: Growth, shared: &Shared) -> ClaimError {
    match growth {
        Growth::Told(notice) => ClaimError::Told(notice),
        Growth::TooMany => ClaimError::TooManyResources,
        Growth::Exceeds(place, units) => shared.refusal(place, units),
        Growth::Revoked | Growth::Extended | Growth::Granted(_) | Growth::Waiting(_) => ClaimError::Revoked,
    }
}

/// An extension that is being made; see [`Grant::extend`].
#[must_use = "nothing is added before the first poll"]
#[derive(Debug)]
pub struct Extending<'g>(Wanting<'g>);

impl<'g> Extending<'g> {
    pub(crate) fn new(shared: &'g Arc<Shared>, grant: GrantId, spec: &ClaimSpec) -> Self {
        Self(Wanting::new(shared, grant, spec, false))
    }
}

impl Future for Extending<'_> {
    type Output = Result<(), ClaimError>;

    /// # Panics
    /// When it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context).map_ok(|_| ())
    }
}

/// A claim beside a grant that is being made; see [`Grant::claim_beside`].
#[must_use = "nothing is claimed before the first poll"]
#[derive(Debug)]
pub struct ClaimingBeside<'g>(Wanting<'g>);

impl<'g> ClaimingBeside<'g> {
    pub(crate) fn new(shared: &'g Arc<Shared>, grant: GrantId, spec: &ClaimSpec) -> Self {
        Self(Wanting::new(shared, grant, spec, true))
    }
}

impl Future for ClaimingBeside<'_> {
    type Output = Result<Grant, ClaimError>;

    /// # Panics
    /// When it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let granted = std::task::ready!(self.0.poll(context))?;
        // INVARIANT: what is claimed beside a grant becomes one by itself.
        Poll::Ready(match granted {
            Some(id) => Ok(Grant::new(id, Arc::clone(self.0.shared))),
            None => Err(ClaimError::Revoked),
        })
    }
}
