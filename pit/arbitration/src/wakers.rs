//! Waking those whom something has become of. Wakers are foreign code, called without a lock.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    task::Waker,
};

/// Wakes all of them, also when one panics: the others would wait for ever, for what they have been granted already.
///
/// # Panics
/// When all were woken, with the first panic of a waker. Not while the thread panics already, which would abort the
/// process.
pub(crate) fn wake_all(woken: Vec<Waker>) {
    let mut first: Option<Box<dyn Any + Send>> = None;
    for waker in woken {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            match first {
                None => first = Some(panic),
                // What it carries is foreign too, and might panic when it is dropped.
                Some(_) => std::mem::forget(panic),
            }
        }
    }
    match first {
        Some(panic) if !std::thread::panicking() => resume_unwind(panic),
        Some(panic) => std::mem::forget(panic),
        None => {}
    }
}
