//! One call under a test's control: what its caller decides, and what its caller would see.
//!
//! It must not know what the method is, nor run it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc_protocol::control::Progress;
use parking_lot::Mutex;

use crate::context::{CallState, Context, ProgressSink};

/// One call of which a test plays the caller: it gives the method its [`Context`], cancels it, and reads what the
/// method reported.
///
/// # Concurrency
///
/// A test may cancel on one thread while the method runs on another.
///
/// ```
/// use std::time::Duration;
/// use extension_sdk::testing::OneCall;
///
/// let call = OneCall::within(Duration::from_secs(3600));
/// let cx = call.context();
/// cx.progress(1, Some(2), "half");
/// assert_eq!(call.progress()[0].message, "half");
/// assert!(cx.check().is_ok());
/// call.cancel();
/// assert!(cx.check().is_err());
/// ```
pub struct OneCall {
    call: Arc<CallState>,
    seen: Arc<Seen>,
}

struct Seen {
    progress: Mutex<Vec<Progress>>,
    /// The call to be cancelled by the first report.
    cancels: Option<Arc<CallState>>,
}

impl ProgressSink for Seen {
    fn progress(&self, _: u64, progress: Progress) {
        self.progress.lock().push(progress);
        if let Some(call) = &self.cancels {
            call.cancel();
        }
    }
}

impl fmt::Debug for OneCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneCall").field("deadline", &self.call.deadline).finish_non_exhaustive()
    }
}

impl OneCall {
    /// A call without a deadline.
    #[must_use]
    pub fn new() -> Self {
        Self::with(None, false)
    }

    /// A call whose caller waits as long; with [`Duration::ZERO`] the deadline has passed already.
    #[must_use]
    pub fn within(timeout: Duration) -> Self {
        Self::with(Instant::now().checked_add(timeout), false)
    }

    /// A call that is cancelled as soon as the method reports progress: in the middle of its work, without a
    /// second thread.
    #[must_use]
    pub fn cancelled_by_progress() -> Self {
        Self::with(None, true)
    }

    fn with(deadline: Option<Instant>, is_cancelled_by_progress: bool) -> Self {
        let call = Arc::new(CallState::new(0, Instant::now(), deadline));
        let cancels = is_cancelled_by_progress.then(|| Arc::clone(&call));
        Self { call, seen: Arc::new(Seen { progress: Mutex::default(), cancels }) }
    }

    /// What the method is given.
    #[must_use]
    pub fn context(&self) -> Context {
        Context::new(Arc::clone(&self.call), Arc::clone(&self.seen) as _)
    }

    /// The caller no longer wants the answer.
    pub fn cancel(&self) {
        self.call.cancel();
    }

    /// What the caller got to see, in order: not every report is sent, see [`Context::progress`].
    #[must_use]
    pub fn progress(&self) -> Vec<Progress> {
        self.seen.progress.lock().clone()
    }
}

impl Default for OneCall {
    fn default() -> Self {
        Self::new()
    }
}
