//! Signals as a file descriptor, and the end by a signal: the few calls of the C library that rustix has no
//! safe form of.
//!
//! The launcher blocks every signal and reads the three that it takes from a signalfd, so that nothing of it
//! ever runs in a signal handler.
#![expect(unsafe_code, reason = "signalfd, sigprocmask and signal exist only as C functions")]

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// The C library's `sigset_t`: 1024 bits in glibc, musl and Android's 64-bit libc; a kernel reads the first 64.
#[repr(C)]
#[derive(Clone, Copy)]
struct SignalSet([u64; 16]);

impl SignalSet {
    const EMPTY: Self = Self([0; 16]);
    // SIGKILL and SIGSTOP are ignored by the kernel in a mask, so that they need not be left out.
    const ALL: Self = Self([u64::MAX; 16]);

    fn of(signals: &[Signal]) -> Self {
        let mut set = Self::EMPTY;
        for signal in signals {
            set.0[0] |= 1 << (signal.as_raw() - 1);
        }
        set
    }
}

// SAFETY: names, arguments and results are those of the C library on Linux.
unsafe extern "C" {
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn signalfd(fd: c_int, mask: *const SignalSet, flags: c_int) -> c_int;
    fn signal(number: c_int, handler: *const c_void) -> *const c_void;
    fn raise(number: c_int) -> c_int;
}

// From <signal.h> and <sys/signalfd.h>; MIPS and SPARC, where the first differs, are not supported.
const SIG_SETMASK: c_int = 2;
const SIG_DFL: *const c_void = std::ptr::null();
const SFD_NONBLOCK_CLOEXEC: c_int = 0o4000 | 0o2_000_000;

/// Bytes of one `struct signalfd_siginfo`; its first four are the signal's number.
const SIGINFO_BYTES: usize = 128;

/// Every signal blocked, and some of them readable here.
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// Blocks every signal of this thread, which must be the only one, and makes `taken` readable.
    pub(crate) fn take(taken: &[Signal]) -> io::Result<Self> {
        // A host may have left SIGCHLD ignored, and then the kernel reaps children unseen.
        // SAFETY: SIG_DFL is a valid disposition for SIGCHLD, and no handler is installed.
        unsafe { signal(Signal::CHILD.as_raw(), SIG_DFL) };
        set_mask(&SignalSet::ALL)?;
        let mask = SignalSet::of(taken);
        // SAFETY: the mask outlives the call, and -1 asks for a new descriptor.
        let fd = unsafe { signalfd(-1, &raw const mask, SFD_NONBLOCK_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just returned this descriptor, so that it is open and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of one signal that has arrived, or `None`.
    pub(crate) fn next(&self) -> Option<c_int> {
        let mut info = [0_u8; SIGINFO_BYTES];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut info));
        let number = [info[0], info[1], info[2], info[3]];
        // The kernel writes the structure in the machine's own byte order.
        #[expect(clippy::host_endian_bytes, reason = "the kernel's structure is in host order")]
        (read == Ok(SIGINFO_BYTES)).then(|| c_int::from_ne_bytes(number))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set_mask(set: &SignalSet) -> io::Result<()> {
    // SAFETY: the set outlives the call, and a null pointer asks for no old mask.
    let result = unsafe { sigprocmask(SIG_SETMASK, &raw const *set, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes back the blocking of all signals: in the child, before it becomes the program.
///
/// Async-signal-safe: one system call.
pub(crate) fn unblock_all() -> io::Result<()> {
    set_mask(&SignalSet::EMPTY)
}

/// Gives every signal its default action: in the child, before it becomes the program. What a shell or a build
/// machine had ignored (`nohup`, a job in the background) would otherwise stay ignored in every extension.
///
/// Async-signal-safe: system calls only.
pub(crate) fn default_all() {
    /// The last of the classic signals; programs leave those of real time alone.
    const LAST: c_int = 31;
    for number in 1..=LAST {
        // SAFETY: SIG_DFL is a valid disposition for every signal; SIGKILL and SIGSTOP are refused with an error.
        unsafe { signal(number, SIG_DFL) };
    }
}

/// Ends this process by the signal `number`, as the program ended. Returns if that signal does not end a
/// process.
pub(crate) fn die_by(number: c_int) {
    // Rust's runtime handles SIGSEGV and SIGBUS (stack overflow) and ignores SIGPIPE.
    // SAFETY: SIG_DFL is a valid disposition for every signal; a number that is none is refused with an error.
    unsafe { signal(number, SIG_DFL) };
    // SAFETY: sends a signal to this thread; its disposition is the default one, so that no handler runs.
    unsafe { raise(number) };
    // The signal is pending while it is blocked, and is delivered here.
    let _ = unblock_all();
}
