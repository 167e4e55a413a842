//! One call under a test's control: what its caller decides, and what its caller would see.
//!
//! It must not know what the method is, nor run it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc_protocol::control::Progress;
use ipc_transport::{Answer, CallError, Caller, Reply};
use parking_lot::Mutex;

use super::host::FakeHost;
use crate::context::{CallState, Context, Grant, ProgressSink};

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
///
/// What the method asks of its host it finds as the test has put it there; without that there is no host:
///
/// ```
/// use extension_sdk::testing::{self, OneCall};
/// use extension_sdk::{Context, Fault};
///
/// #[extension_sdk::interface]
/// pub trait Greeter {
///     /// Greets.
///     fn greet(&self, name: String) -> Result<String, Fault>;
/// }
///
/// #[derive(Default)]
/// struct Polite;
///
/// impl Greeter for Polite {
///     fn greet(&self, name: String) -> Result<String, Fault> {
///         Ok(format!("Good day, {name}."))
///     }
/// }
///
/// # mod hidden { use super::*;
/// extension_sdk::export!(Polite as Greeter);
/// # }
///
/// fn greet_reader(cx: &Context, artifact: &str) -> Result<String, Fault> {
///     let name = String::from_utf8_lossy(&cx.artifact_in(artifact)?).into_owned();
///     cx.state().put(&name)?;
///     Ok(GreeterClient::new(cx.extension("greeter")?).greet(name).wait()?)
/// }
///
/// # fn main() -> Result<(), Fault> {
/// let call = OneCall::new()
///     .with_extension("greeter", testing::in_process::<Polite>()?)
///     .with_artifact("name.txt", b"Ada");
/// assert_eq!(greet_reader(&call.context(), "name.txt")?, "Good day, Ada.");
/// assert_eq!(call.context().state().get::<String>()?, Some("Ada".to_owned()));
/// # Ok(())
/// # }
/// ```
pub struct OneCall {
    call: Arc<CallState>,
    seen: Arc<Seen>,
}

struct Seen {
    progress: Mutex<Vec<Progress>>,
    /// The call to be cancelled by the first report.
    cancels: Option<Arc<CallState>>,
    host: Mutex<Option<Arc<FakeHost>>>,
}

impl ProgressSink for Seen {
    fn progress(&self, _: u64, progress: Progress) {
        self.progress.lock().push(progress);
        if let Some(call) = &self.cancels {
            call.cancel();
        }
    }

    fn offers(&self, _: &str) -> bool {
        self.host.lock().is_some()
    }

    fn call_host(&self, _: u64, method: &str, arguments: Vec<u8>) -> Reply {
        let host = self.host.lock().clone();
        match host {
            Some(host) => host.call(method, arguments),
            None => Reply::ready(Err(crate::serve::unsupported(method).into())),
        }
    }

    fn call_host_for_grant(
        &self,
        _: u64,
        method: &str,
        arguments: Vec<u8>,
    ) -> Result<(Answer, Option<Grant>), CallError> {
        let host = self.host.lock().clone();
        host.ok_or_else(|| crate::serve::unsupported(method))?.call_for_grant(method, arguments)
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

    /// The same call, whose method may call `other` as `cx.extension(name)`.
    #[must_use]
    pub fn with_extension(self, name: impl Into<String>, other: impl Caller + 'static) -> Self {
        self.with_host(|host| host.extensions.insert(name.into(), Arc::new(other)));
        self
    }

    /// The same call, whose method finds this state; without it there is none yet.
    #[must_use]
    pub fn with_state(self, state: impl Into<Vec<u8>>) -> Self {
        self.with_host(|host| host.state = Mutex::new(Some(state.into())));
        self
    }

    /// The same call, whose method finds this artifact under this name, or digest.
    #[must_use]
    pub fn with_artifact(self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.with_host(|host| host.artifacts.get_mut().insert(name.into(), bytes.into()));
        self
    }

    /// The bytes of an artifact: one that the test has put there, or that the method has made. Its digest is no real one.
    #[must_use]
    pub fn artifact(&self, name: &str) -> Option<Vec<u8>> {
        self.seen.host.lock().as_ref()?.artifacts.lock().get(name).cloned()
    }

    fn with_host<R>(&self, put: impl FnOnce(&mut FakeHost) -> R) {
        let mut host = self.seen.host.lock();
        // INVARIANT: the builder's methods take the call by value, and a host is cloned only while it is asked.
        if let Some(host) = Arc::get_mut(host.get_or_insert_with(Arc::default)) {
            put(host);
        }
    }

    fn with(deadline: Option<Instant>, is_cancelled_by_progress: bool) -> Self {
        let call = Arc::new(CallState::new(0, Instant::now(), deadline));
        let cancels = is_cancelled_by_progress.then(|| Arc::clone(&call));
        Self { call, seen: Arc::new(Seen { progress: Mutex::default(), cancels, host: Mutex::default() }) }
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

#[cfg(test)]
mod tests {
    use ipc_protocol::FaultCode;

    use super::*;

    #[test]
    fn a_method_finds_what_the_test_has_put_there_and_nothing_else() {
        let call = OneCall::new().with_state(b"\x07".as_slice()).with_artifact("input", b"abc".as_slice());
        let cx = call.context();
        assert_eq!(cx.state().get::<u8>().unwrap(), Some(7));
        let input = cx.artifact_in("input").unwrap();
        assert_eq!(&*input, b"abc");
        let mut output = cx.artifact_out(3).unwrap();
        output.copy_from_slice(&input);
        output.reverse();
        assert_eq!(output.commit_as("output").unwrap().bytes, 3);
        assert_eq!(call.artifact("output").unwrap(), b"cba");
        let made = cx.artifact_out(0).unwrap().commit().unwrap();
        assert_eq!(call.artifact(&made.digest).unwrap(), b"");
        assert_eq!(cx.artifact_in("other").unwrap_err().code, FaultCode::NotFound);
        let too_much = vec![0; usize::try_from(ipc_protocol::limits::STATE_BYTES_MAX).unwrap() + 1];
        assert_eq!(cx.state().put_bytes(&too_much).unwrap_err().code, FaultCode::TooLarge);
    }

    #[test]
    fn without_a_host_it_is_told_so() {
        let cx = OneCall::new().context();
        let refused = [
            cx.extension("other").map(drop),
            cx.state().bytes().map(drop),
            cx.artifact_in("x").map(drop),
            cx.artifact_out(1).map(drop),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().code, FaultCode::Unsupported);
        }
    }
}
