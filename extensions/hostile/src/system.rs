//! The few calls of the system that the standard library has no name for.
#![expect(unsafe_code, reason = "C functions, and no other crate to call them")]

use std::time::Duration;

// SAFETY: names, arguments and results are those of the C library on Linux.
unsafe extern "C" {
    safe fn setsid() -> i32;
    safe fn raise(signal: i32) -> i32;
    fn close(descriptor: i32) -> i32;
    fn signal(signal: i32, handler: usize) -> usize;
}

const SIGSEGV: i32 = 11;
const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;

pub(crate) fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

pub(crate) fn new_session() {
    setsid();
}

pub(crate) fn ignore_terminate() {
    // SAFETY: SIG_IGN is a valid disposition for SIGTERM, and no handler is installed.
    unsafe { signal(SIGTERM, SIG_IGN) };
}

/// Closes every descriptor but stdout and stderr, under the hands of whoever owns them: nothing may touch the
/// channel afterwards.
pub(crate) fn close_all_but_output() {
    for descriptor in (0..64).filter(|descriptor| !(1..=2).contains(descriptor)) {
        // SAFETY: closing a descriptor touches no memory; the only caller sleeps for ever afterwards, so that no
        // owner uses or closes it again.
        unsafe { close(descriptor) };
    }
}

/// Ends as by a wild pointer.
pub(crate) fn segmentation_fault() -> ! {
    // Rust's handler takes the first for a stack overflow that it does not recognise, restores the default and
    // returns; the second ends the process.
    raise(SIGSEGV);
    raise(SIGSEGV);
    sleep_for_ever()
}
