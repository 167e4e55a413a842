//! Small parts for the tests: polling by hand, and a waker that counts.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use pit_core::{clock::ManualClock, priority::Ageing};
use pool_manager::{AllocateError, Lease, ModelId, PoolManager};

#[derive(Default)]
pub(crate) struct Woken(AtomicU32);

impl Woken {
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls once with a waker that counts in `woken`.
pub(crate) fn poll_with<F: Future + Unpin>(future: &mut F, woken: &Arc<Woken>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(woken));
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

pub(crate) fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A manager with a clock that stands still until it is moved.
pub(crate) fn pools(ageing: Ageing) -> (PoolManager, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    (PoolManager::with_ageing(ageing, clock.clone()), clock)
}

pub(crate) fn leased(poll: Poll<Result<Lease, AllocateError>>) -> Lease {
    match poll {
        Poll::Ready(Ok(lease)) => lease,
        other => panic!("no lease: {other:?}"),
    }
}

pub(crate) fn refused(poll: Poll<Result<Lease, AllocateError>>) -> AllocateError {
    match poll {
        Poll::Ready(Err(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

/// Leased and waiting.
pub(crate) fn counts(pools: &PoolManager, model: ModelId) -> (u32, u32) {
    let state = pools.state(model).unwrap();
    (state.leased, state.waiting)
}
