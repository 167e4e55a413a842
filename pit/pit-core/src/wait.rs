//! Waiting for a future by blocking the thread, until a deadline at most.
//!
//! For those who have no runtime. Nothing here knows what is waited for; a future that is given up is dropped, and what
//! that means is its own affair.

use std::{
    future::Future,
    pin::pin,
    // Not from the facade: a `Waker` is made of the standard library's `Arc` only.
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};

use crate::clock::{Clock, Tick};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives `future` on this thread; `None` when `deadline`, a tick of `clock`, passed first.
///
/// The future is always polled once, so that a deadline that has passed already is one try. [`Tick::NEVER`] waits
/// without end, and does not look at the clock.
///
/// # Concurrency
/// Parks the thread while nothing wakes the future. Sleeping until the deadline takes real time, by whichever clock the
/// deadline is: a clock that is moved by hand is looked at again only when the future is woken, or when what was left
/// has really passed.
///
/// ```
/// use pit_core::{clock::{SystemClock, Tick}, wait::block_until};
///
/// let clock = SystemClock::new();
/// assert_eq!(block_until(std::future::ready(5), Tick::NEVER, &clock), Some(5));
/// assert_eq!(block_until(std::future::pending::<u32>(), Tick::ZERO, &clock), None);
/// ```
pub fn block_until<F: Future>(future: F, deadline: Tick, clock: &dyn Clock) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if deadline == Tick::NEVER {
            std::thread::park();
            continue;
        }
        let left = deadline.since(clock.now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        future::{pending, poll_fn, ready},
        sync::mpsc,
        thread,
        time::Duration,
    };

    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    #[test]
    fn passed_deadline_is_one_try() {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(9));
        assert_eq!(block_until(ready('a'), Tick::ZERO, &clock), Some('a'));
        let mut tries = 0;
        let refusing = poll_fn(|_| {
            tries += 1;
            Poll::<()>::Pending
        });
        assert_eq!(block_until(refusing, Tick::ZERO, &clock), None);
        assert_eq!(tries, 1);
    }

    #[test]
    fn future_is_not_given_up_before_the_deadline() {
        let clock = SystemClock::new();
        let deadline = clock.now().after(Duration::from_millis(5));
        assert_eq!(block_until(pending::<()>(), deadline, &clock), None);
        assert!(clock.now() >= deadline);
    }

    #[test]
    fn waiting_thread_is_woken_from_another_one() {
        let clock = SystemClock::new();
        for deadline in [Tick::NEVER, clock.now().after(Duration::from_secs(600))] {
            let (give_waker, wakers) = mpsc::channel();
            let (give_output, outputs) = mpsc::channel();
            let mut is_first = true;
            let second_poll = poll_fn(move |context| {
                if std::mem::take(&mut is_first) {
                    give_waker.send(context.waker().clone()).unwrap();
                    return Poll::Pending;
                }
                Poll::Ready('b')
            });
            thread::spawn(move || give_output.send(block_until(second_poll, deadline, &clock)));
            wakers.recv().unwrap().wake();
            assert_eq!(outputs.recv_timeout(Duration::from_secs(30)), Ok(Some('b')));
        }
    }
}
