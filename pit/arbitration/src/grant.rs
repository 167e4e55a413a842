//! A grant in its holder's hands: given back when it is dropped, extended, and told of when it is wanted back.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pit_core::clock::Tick;

use crate::{
    arbiter::{ClaimError, Shared},
    claim::{ClaimSpec, GrantId},
    extending::{ClaimingBeside, Extending, growth_error},
    grants::Notice,
    growth::{Growth, Wants},
    wait::wait,
};

/// What was claimed, held until this is dropped, or until it is revoked because it was not given back in time.
#[must_use = "a grant that is dropped gives back what was claimed"]
pub struct Grant {
    id: GrantId,
    shared: Arc<Shared>,
}

impl Grant {
    pub(crate) const fn new(id: GrantId, shared: Arc<Shared>) -> Self {
        Self { id, shared }
    }

    /// The grant's name in snapshots. No other grant of the arbiter has it: what is done in a grant's name can be refused
    /// when [`is_valid`](crate::Arbiter::is_valid) says no.
    #[must_use]
    pub const fn id(&self) -> GrantId {
        self.id
    }

    /// Whether it still holds what was claimed: it was not revoked.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.shared.lock().grants.get(self.id).is_some()
    }

    /// Whether it is to be given back, and by when. `None` too when it has been revoked.
    #[must_use]
    pub fn notice(&self) -> Option<Notice> {
        self.shared.lock().grants.notice(self.id)
    }

    /// Waits until the grant is to be given back: by when, or `None` when it has been revoked already.
    ///
    /// One at a time is woken: the one that was polled last.
    pub fn told(&self) -> Told<'_> {
        Told { grant: self }
    }

    /// Adds what `spec` names to the grant now, or says false when that would have to wait. Owner and priority are those
    /// of the grant.
    ///
    /// # Errors
    /// As [`extend`](Self::extend), but for [`ClaimError::TooManyWaiters`].
    pub fn try_extend(&mut self, spec: &ClaimSpec) -> Result<bool, ClaimError> {
        let amounts = self.shared.check_names(spec)?;
        let wants = Wants { grant: self.id, amounts, is_beside: false };
        let growth = self.shared.change(|state, now, woken| {
            state.grow(wants, |place| self.shared.capacity(place), None, now, woken)
        });
        match growth {
            Some(Growth::Extended) => Ok(true),
            None | Some(Growth::Waiting(_)) => Ok(false),
            Some(growth) => Err(growth_error(growth, &self.shared)),
        }
    }

    /// Waits until what `spec` names can be added to the grant, as a future that works in any runtime. Owner and priority
    /// are those of the grant.
    ///
    /// Holders that came later and hold what is lacking are told to give back; those that came earlier are waited for.
    /// Whoever is told itself while it waits fails, and should give back. So holders never wait for each other in a
    /// circle, as long as each extends its grant or claims [beside](Self::claim_beside) it, and does not wait for
    /// [a claim](crate::Arbiter::claim) that knows nothing of what it holds.
    ///
    /// [The whole](ClaimSpec::exclusive) of a resource is what the grant lacks of it. Of two that hold a share and want the
    /// whole the older gets it: the younger is told, and its extension fails.
    ///
    /// # Errors
    /// The future fails with [`ClaimError::Told`] and [`ClaimError::Revoked`], and as a claim does:
    /// [`ClaimError::ExceedsCapacity`] and [`ClaimError::TooManyResources`] count what is held already.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the extension; the grant stays as it was.
    pub fn extend(&mut self, spec: &ClaimSpec) -> Extending<'_> {
        Extending::new(&self.shared, self.id, spec)
    }

    /// Blocks this thread until the grant is extended, or `deadline` has passed; see [`extend`](Self::extend).
    ///
    /// # Errors
    /// As [`extend`](Self::extend), or [`ClaimError::DeadlinePassed`].
    pub fn extend_wait(&mut self, spec: &ClaimSpec, deadline: Tick) -> Result<(), ClaimError> {
        let shared = Arc::clone(&self.shared);
        wait(&shared, self.extend(spec), deadline)
    }

    /// Waits for another grant beside this one, as a future that works in any runtime. Owner and priority are those of this
    /// one, and so is its age; each is given back by itself.
    ///
    /// As with [`extend`](Self::extend), holders never wait for each other in a circle, and whoever is told to give back
    /// any of its grants hears of it while it waits: it fails.
    ///
    /// # Errors
    /// As [`extend`](Self::extend).
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the claim; a grant that was on its way goes to the next.
    pub fn claim_beside(&self, spec: &ClaimSpec) -> ClaimingBeside<'_> {
        ClaimingBeside::new(&self.shared, self.id, spec)
    }

    /// Blocks this thread until there is another grant beside this one, or `deadline` has passed; see
    /// [`claim_beside`](Self::claim_beside).
    ///
    /// # Errors
    /// As [`extend`](Self::extend), or [`ClaimError::DeadlinePassed`].
    pub fn claim_beside_wait(&self, spec: &ClaimSpec, deadline: Tick) -> Result<Self, ClaimError> {
        wait(&self.shared, self.claim_beside(spec), deadline)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.shared.release(self.id);
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grant").field(&self.id).finish()
    }
}

/// Waits for a notice; see [`Grant::told`].
#[must_use = "a future does nothing unless it is polled"]
#[derive(Debug)]
pub struct Told<'g> {
    grant: &'g Grant,
}

impl Future for Told<'_> {
    type Output = Option<Notice>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Notice>> {
        let Grant { id, shared } = self.grant;
        // Foreign code, and so is dropping the one before it: outside the lock.
        let waker = context.waker().clone();
        let mut state = shared.lock();
        if state.grants.get(*id).is_none() {
            return Poll::Ready(None);
        }
        if let Some(notice) = state.grants.notice(*id) {
            return Poll::Ready(Some(notice));
        }
        let before = state.grants.listen(*id, waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}
