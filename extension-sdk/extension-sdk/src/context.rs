//! What a method is given besides its arguments: this call's deadline, its cancellation, its progress, and what it may
//! ask of the host.
//!
//! A context knows one call and the way to its caller; it must not know how the call came.

mod artifact;
mod host;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ipc_protocol::control::{DescriptorGrant, Progress};
use ipc_protocol::{Fault, FaultCode, Retry};
use ipc_transport::{Answer, CallError, Reply};
use parking_lot::Mutex;

use crate::stream::Writer;
pub use artifact::{ArtifactIn, ArtifactOut};
pub use host::{OtherExtension, State};
pub use ipc_protocol::host_call::ArtifactInfo;

/// LIMIT: the shortest time between two progress messages of one call; what comes sooner is left out, unless
/// it is the first that says that everything is done.
pub const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// LIMIT: bytes of a progress message's text; the rest is cut at a character boundary.
pub const PROGRESS_MESSAGE_BYTES_MAX: usize = 1 << 10;

/// The way from a call to its host: where progress goes, and what the method asks for.
pub(crate) trait ProgressSink: Send + Sync {
    fn progress(&self, call: u64, progress: Progress);

    /// Begins a stream within `call`; `None`: nothing carries one.
    fn begin_stream(&self, call: u64) -> Option<Result<Arc<dyn Writer>, Fault>> {
        let _ = call;
        None
    }

    /// Whether the host can be asked for `method`.
    fn offers(&self, method: &str) -> bool {
        let _ = method;
        false
    }

    /// Asks the host for `method` within `call`. Its arguments are MessagePack.
    fn call_host(&self, call: u64, method: &str, arguments: Vec<u8>) -> Reply {
        let _ = (call, arguments);
        Reply::ready(Err(crate::serve::unsupported(method).into()))
    }

    /// As [`Self::call_host`], for what brings a descriptor; waits for the answer.
    fn call_host_for_grant(
        &self,
        call: u64,
        method: &str,
        arguments: Vec<u8>,
    ) -> Result<(Answer, Option<Grant>), CallError> {
        let _ = (call, arguments);
        Err(crate::serve::unsupported(method).into())
    }
}

/// A descriptor from the host, and what the host says of it.
pub(crate) type Grant = (DescriptorGrant, OwnedFd);

/// One call, shared by its handler and whoever may cancel it.
pub(crate) struct CallState {
    pub(crate) id: u64,
    pub(crate) arrived: Instant,
    pub(crate) deadline: Option<Instant>,
    is_cancelled: AtomicBool,
    /// A word of the host's that holds this call's id while it is cancelled, where the two share a process.
    cancelled: Option<&'static AtomicU64>,
    progress: Mutex<Reported>,
}

#[derive(Default)]
struct Reported {
    done: u64,
    at: Option<Instant>,
    was_all: bool,
}

impl CallState {
    pub(crate) fn new(id: u64, arrived: Instant, deadline: Option<Instant>) -> Self {
        Self {
            id,
            arrived,
            deadline,
            is_cancelled: AtomicBool::new(false),
            cancelled: None,
            progress: Mutex::default(),
        }
    }

    /// The same call, cancelled also while `word` holds its id.
    pub(crate) fn cancelled_by(self, word: Option<&'static AtomicU64>) -> Self {
        Self { cancelled: word, ..self }
    }

    pub(crate) fn cancel(&self) {
        // ORDERING(cancel): Relaxed, the flag guards no other data; a handler may see it a little later.
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        // ORDERING(cancel): Relaxed, see `cancel`.
        if self.is_cancelled.load(Ordering::Relaxed) {
            return true;
        }
        // ORDERING(cancel): Relaxed, as above. The word is other calls' later: what was seen is kept.
        let is_cancelled = self.cancelled.is_some_and(|word| word.load(Ordering::Relaxed) == self.id);
        if is_cancelled {
            self.cancel();
        }
        is_cancelled
    }

    /// Why a call must not run (any more), if it must not.
    pub(crate) fn check(&self, now: impl FnOnce() -> Instant) -> Result<(), Fault> {
        if self.is_cancelled() {
            return Err(Fault::new(FaultCode::Cancelled, "the caller cancelled the call"));
        }
        match self.deadline {
            Some(deadline) if now() >= deadline => Err(Fault::new(
                FaultCode::DeadlineExceeded,
                "the call's deadline passed before it was done; allow more time or ask for less",
            )
            .with_retry(Retry::Now)),
            _ => Ok(()),
        }
    }
}

/// What a method is given besides its arguments.
///
/// A method asks for it with an argument `cx: &Context`, which callers do not send.
///
/// # Concurrency
///
/// Cloning is cheap; clones speak of the same call and may go to other threads.
#[derive(Clone)]
pub struct Context {
    call: Arc<CallState>,
    sink: Arc<dyn ProgressSink>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("call", &self.call.id)
            .field("deadline", &self.call.deadline)
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(call: Arc<CallState>, sink: Arc<dyn ProgressSink>) -> Self {
        Self { call, sink }
    }

    pub(crate) fn begin_stream(&self) -> Option<Result<Arc<dyn Writer>, Fault>> {
        self.sink.begin_stream(self.call.id)
    }

    pub(crate) fn call_state(&self) -> Arc<CallState> {
        Arc::clone(&self.call)
    }

    /// Whether the caller no longer wants the answer. It never becomes false again.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.call.is_cancelled()
    }

    /// When the caller stops waiting, if it ever does.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.call.deadline
    }

    /// How long the caller will still wait: zero when the deadline passed, `None` if there is none.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// For loops: `cx.check()?` ends a call whose answer nobody will read.
    ///
    /// # Errors
    ///
    /// [`FaultCode::Cancelled`] when the caller cancelled, [`FaultCode::DeadlineExceeded`] when the deadline
    /// passed. Return it as it is.
    pub fn check(&self) -> Result<(), Fault> {
        self.call.check(Instant::now)
    }

    /// Says how far the call is: `done` of `total`, in the method's own unit, and in `message` a clause for
    /// people. `total` is `None` where nobody knows.
    ///
    /// Cheap to call often: the first report is sent, then one in [`PROGRESS_INTERVAL_MIN`], and the first in
    /// which `done` is `total`. What does not go forward is left out, and a message is cut at
    /// [`PROGRESS_MESSAGE_BYTES_MAX`]. A host may drop reports; nothing may depend on one.
    ///
    /// ```
    /// use extension_sdk::{Context, Fault};
    ///
    /// fn sum(cx: &Context, numbers: &[u64]) -> Result<u64, Fault> {
    ///     let mut sum = 0;
    ///     for (done, number) in (1..).zip(numbers) {
    ///         cx.check()?;
    ///         sum += number;
    ///         cx.progress(done, Some(numbers.len() as u64), "adding");
    ///     }
    ///     Ok(sum)
    /// }
    /// # assert_eq!(sum(&extension_sdk::testing::context(), &[1, 2])?, 3);
    /// # Ok::<(), Fault>(())
    /// ```
    pub fn progress(&self, done: u64, total: Option<u64>, message: &str) {
        let mut reported = self.call.progress.lock();
        let now = Instant::now();
        let is_due = reported.at.is_none_or(|at| now.duration_since(at) >= PROGRESS_INTERVAL_MIN);
        let is_new = reported.at.is_none() || done > reported.done;
        let is_all = total == Some(done);
        // Whoever raises the total with every step is done with all each time: that is for free only once.
        if is_new && (is_due || is_all && !reported.was_all) {
            *reported = Reported { done, at: Some(now), was_all: reported.was_all || is_all };
            let message = &message[..message.floor_char_boundary(PROGRESS_MESSAGE_BYTES_MAX)];
            self.sink.progress(self.call.id, Progress::new(done, total, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Progress>>);

    impl ProgressSink for Kept {
        fn progress(&self, _: u64, progress: Progress) {
            self.0.lock().push(progress);
        }
    }

    fn context(deadline: Option<Instant>) -> (Context, Arc<Kept>) {
        let kept = Arc::new(Kept::default());
        let call = Arc::new(CallState::new(1, Instant::now(), deadline));
        (Context::new(call, kept.clone()), kept)
    }

    #[test]
    fn progress_is_thinned_out_and_never_goes_back() {
        let (cx, kept) = context(None);
        cx.progress(5, Some(10), "five");
        cx.progress(6, Some(10), "too soon");
        cx.progress(10, Some(10), "all");
        cx.progress(10, Some(10), "again");
        cx.progress(3, Some(3), "back");
        cx.progress(11, Some(11), "all of more");
        let done: Vec<_> = kept.0.lock().iter().map(|progress| progress.done).collect();
        assert_eq!(done, [5, 10]);
    }

    #[test]
    fn a_long_progress_message_is_cut_at_a_character() {
        let (cx, kept) = context(None);
        cx.progress(1, None, &"\u{fc}".repeat(PROGRESS_MESSAGE_BYTES_MAX));
        assert_eq!(kept.0.lock()[0].message, "\u{fc}".repeat(PROGRESS_MESSAGE_BYTES_MAX / 2));
        let (cx, kept) = context(None);
        cx.progress(1, None, &format!("x{}", "\u{fc}".repeat(PROGRESS_MESSAGE_BYTES_MAX)));
        assert_eq!(kept.0.lock()[0].message.len(), PROGRESS_MESSAGE_BYTES_MAX - 1);
    }

    #[test]
    fn a_cancelled_or_late_call_is_told_to_stop() {
        let (cx, _) = context(None);
        assert_eq!((cx.check(), cx.remaining()), (Ok(()), None));
        cx.call.cancel();
        assert!(cx.is_cancelled());
        assert_eq!(cx.check().unwrap_err().code, FaultCode::Cancelled);

        let (cx, _) = context(Some(Instant::now()));
        assert_eq!(cx.remaining(), Some(Duration::ZERO));
        assert_eq!(cx.check().unwrap_err().code, FaultCode::DeadlineExceeded);
    }
}
