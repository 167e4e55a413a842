//! What a library may call: the host's side of the table. Here pointers become values, and whatever panics on this
//! side of the library ends: a waker or a sink is foreign code.

#![expect(unsafe_code, reason = "the functions of a C table take pointers")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use extension_abi::{Bytes, Host};

use super::Shared;

/// The table of `shared`, for as long as the process lives.
pub(super) fn host_of(shared: &'static Shared) -> Host {
    #[expect(clippy::cast_possible_truncation, reason = "it has some dozens of bytes")]
    let size = size_of::<Host>() as u32;
    Host { size, reserved: 0, data: (&raw const *shared).cast(), complete, progress, log }
}

/// Runs one function of the host's. What panics in it is logged and goes no further.
fn guarded(what: &str, run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        // It may panic again while it is dropped.
        std::mem::forget(payload);
        tracing::error!(what, "the host panicked while an in-process extension called it");
    }
}

/// # Safety
///
/// `data` is what [`host_of`] gave.
// SAFETY: as its documentation says.
unsafe fn shared(data: *const c_void) -> &'static Shared {
    // SAFETY: it was made of a reference that lives as long as the process.
    unsafe { &*data.cast::<Shared>() }
}

// SAFETY: (of these functions) the library keeps the rules of `extension_abi::Host`.
unsafe extern "C" fn complete(data: *const c_void, call: u64, status: u32, codec: u32, body: Bytes) {
    guarded("complete", || {
        // SAFETY: the library gives back what it was given.
        let shared = unsafe { shared(data) };
        // SAFETY: the library lent them until this returns.
        let body = unsafe { body.read() };
        shared.complete(call, status, codec, body);
    });
}

// SAFETY: as of `complete`.
unsafe extern "C" fn progress(data: *const c_void, call: u64, body: Bytes) {
    guarded("progress", || {
        // SAFETY: the library gives back what it was given.
        let shared = unsafe { shared(data) };
        // SAFETY: the library lent them until this returns.
        let body = unsafe { body.read() };
        shared.progress(call, body);
    });
}

// SAFETY: as of `complete`.
unsafe extern "C" fn log(data: *const c_void, level: u32, target: Bytes, message: Bytes) {
    guarded("log", || {
        // SAFETY: the library gives back what it was given.
        let shared = unsafe { shared(data) };
        // SAFETY: the library lent it until this returns.
        let target = unsafe { target.read() };
        // SAFETY: as above.
        let message = unsafe { message.read() };
        shared.log(level, &String::from_utf8_lossy(target), &String::from_utf8_lossy(message));
    });
}

/// Appends to the vector that a sink is made of.
// SAFETY: the library keeps the rules of `extension_abi::Sink`.
pub(super) unsafe extern "C" fn append(data: *mut c_void, bytes: Bytes) {
    guarded("append", || {
        // SAFETY: the sink's `data` is a vector that its owner lent until the function returns that has the sink.
        let into = unsafe { &mut *data.cast::<Vec<u8>>() };
        // SAFETY: the library lent them until this returns.
        into.extend_from_slice(unsafe { bytes.read() });
    });
}
