//! Calling others one after the other, so that the panic of one costs the next nothing.
//!
//! Wakers, loaders and watchers are foreign code. Where several of them are due, each is called although one before it
//! has panicked, and the first panic goes on to whoever called when all of them were called. Nothing here knows what is
//! called.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    task::Waker,
};

/// The first panic among several calls.
///
/// ```
/// use pit_core::unwind::Calls;
///
/// let mut called = 0;
/// let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
///     let mut calls = Calls::new();
///     calls.call(|| panic!("first"));
///     calls.call(|| called += 1);
///     calls.end();
/// }));
/// assert_eq!((called, ended.unwrap_err().downcast_ref()), (1, Some(&"first")));
/// ```
#[derive(Debug, Default)]
#[must_use = "a panic goes on only when the calls end"]
pub struct Calls {
    first: Option<Box<dyn Any + Send>>,
}

impl Calls {
    /// Nothing was called yet.
    pub const fn new() -> Self {
        Self { first: None }
    }

    /// Calls `call`, and keeps its panic if it is the first.
    ///
    /// What the call has half changed when it panics stays so: it must be of no more use, or prepared for that.
    pub fn call(&mut self, call: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
            self.first.get_or_insert(panic);
        }
    }

    /// All were called: the first panic goes on. While the thread unwinds already it does not: two would end the process.
    pub fn end(self) {
        if let Some(panic) = self.first.filter(|_| !std::thread::panicking()) {
            resume_unwind(panic);
        }
    }
}

/// Wakes all of them; the first panic of a waker goes on when every one was woken.
pub fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    let mut calls = Calls::new();
    for waker in wakers {
        calls.call(|| waker.wake());
    }
    calls.end();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn first_panic_goes_on_when_everybody_was_called() {
        let mut called = Vec::new();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let mut calls = Calls::new();
            calls.call(|| called.push(1));
            calls.call(|| panic!("2"));
            calls.call(|| panic!("3"));
            calls.call(|| called.push(4));
            calls.end();
        }));
        assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"2"));
        assert_eq!(called, [1, 4]);
    }

    #[test]
    fn thread_that_unwinds_already_is_not_ended_by_a_second_panic() {
        struct Calling;
        impl Drop for Calling {
            fn drop(&mut self) {
                let mut calls = Calls::new();
                calls.call(|| panic!("second"));
                calls.end();
            }
        }
        let ended = catch_unwind(|| {
            let _calling = Calling;
            panic!("first");
        });
        assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"first"));
    }
}
