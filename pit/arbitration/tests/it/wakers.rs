//! Wakers are foreign code: whatever one of them does, the others are called.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use arbitration::Claiming;
use pit_core::priority::Ageing;

use crate::support::{Woken, arbiter, poll, poll_with, spec};

struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

fn poll_panicking(claim: &mut Claiming) {
    let waker = Waker::from(Arc::new(Panicking));
    assert!(Future::poll(Pin::new(claim), &mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn all_are_woken_although_one_before_them_panics() {
    let (arbiter, _) = arbiter(&[("cores", 4)], Ageing::default());
    let all = arbiter.try_claim(&spec(&arbiter, 9, &[("cores", 4)])).unwrap();
    let one = spec(&arbiter, 1, &[("cores", 1)]);
    let mut claims = [(); 4].map(|()| arbiter.claim(&one));
    let woken: [Arc<Woken>; 2] = Default::default();
    poll_panicking(&mut claims[0]);
    assert!(poll_with(&mut claims[1], &woken[0]).is_pending());
    poll_panicking(&mut claims[2]);
    assert!(poll_with(&mut claims[3], &woken[1]).is_pending());
    let panic = catch_unwind(AssertUnwindSafe(|| drop(all))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"a waker panics"), "it goes on when all were woken");
    assert_eq!(woken.each_ref().map(|woken| woken.count()), [1, 1]);
    assert!(claims.iter_mut().all(|claim| matches!(poll(claim), Poll::Ready(Ok(_)))));
    assert_eq!(arbiter.snapshot().resources[0].free, 4);
}

#[test]
fn panic_of_a_waker_does_not_end_the_process_while_another_unwinds() {
    let (arbiter, _) = arbiter(&[("cores", 1)], Ageing::default());
    let one = spec(&arbiter, 1, &[("cores", 1)]);
    let grant = arbiter.try_claim(&one).unwrap();
    let mut claim = arbiter.claim(&one);
    poll_panicking(&mut claim);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _released_by_unwinding = grant;
        panic!("the holder panics");
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"the holder panics"));
    assert!(poll(&mut claim).is_ready());
}
