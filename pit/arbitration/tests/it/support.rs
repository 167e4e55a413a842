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

use arbitration::{Arbiter, ClaimSpec, Options, OwnerId, Policy};
use pit_core::{
    clock::ManualClock,
    priority::{Ageing, Priority},
};

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

/// An arbiter with a clock that stands still until it is moved.
pub(crate) fn arbiter(resources: &[(&'static str, u64)], ageing: Ageing) -> (Arbiter, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let options = Options { policy: Policy::Priority(ageing), ..Options::default() };
    let arbiter = Arbiter::with_options(resources.iter().copied(), options, clock.clone()).unwrap();
    (arbiter, clock)
}

/// A claim on resources by name.
pub(crate) fn spec(arbiter: &Arbiter, level: u8, amounts: &[(&str, u64)]) -> ClaimSpec {
    let spec = ClaimSpec::new(OwnerId::new(u64::from(level)), Priority::new(level));
    amounts.iter().fold(spec, |spec, (name, amount)| spec.with(arbiter.resource(name).unwrap(), *amount))
}

/// Gives way until so many claims and extensions wait.
pub(crate) fn until_waiting(arbiter: &Arbiter, count: usize) {
    while arbiter.snapshot().waiters.len() < count {
        std::thread::yield_now();
    }
}
