//! The stale manager as the clock of the extension host: what is idle is told so.
//!
//! ```text
//! host --register--> StaleExpiry --> StaleManager <--sweep-- one task, asleep until the next deadline
//!                                        |
//!                                        +--evict--> the host's own closure
//! ```
//!
//! This file must not know what expires.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use extension_host::{Expired, Expiry, ExpiryHandle};
use parking_lot::Mutex;
use pit_core::clock::{Clock as _, SystemClock};
use stale_manager::{Budget, Evict, Eviction, Handle, StaleManager};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Expiry by a stale manager. Dropping it ends the sweeps.
pub struct StaleExpiry {
    stale: StaleManager,
    clock: SystemClock,
    registered: Arc<Notify>,
    sweeper: AbortHandle,
}

impl fmt::Debug for StaleExpiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleExpiry").field("stale", &self.stale.snapshot()).finish_non_exhaustive()
    }
}

impl StaleExpiry {
    /// Sweeps `stale` from now on, whenever something may have expired.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(stale: StaleManager) -> Self {
        let clock = SystemClock::new();
        let registered = Arc::new(Notify::new());
        let sweeps = sweep(stale.clone(), clock, registered.clone());
        Self { stale, clock, registered, sweeper: tokio::spawn(sweeps).abort_handle() }
    }
}

impl Drop for StaleExpiry {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

async fn sweep(stale: StaleManager, clock: SystemClock, registered: Arc<Notify>) {
    loop {
        // A registration may bring the deadline forward; one that comes before this line is in it already,
        // and the permit that it leaves only costs another look.
        match stale.next_deadline() {
            None => registered.notified().await,
            Some(deadline) => {
                let wait = deadline.since(clock.now());
                let _is_early = tokio::time::timeout(wait, registered.notified()).await.is_ok();
            }
        }
        while stale.sweep(clock.now(), Budget::default()).is_unfinished {
            tokio::task::yield_now().await;
        }
    }
}

/// Owner of one registration.
struct Watched(Mutex<Option<Expired>>);

impl Evict for Watched {
    fn evict(&self, _key: u64) -> Eviction {
        // Taken out before it is called: what it does may come back here.
        let expired = self.0.lock().take();
        if let Some(expired) = expired {
            expired();
        }
        Eviction::Evicted
    }
}

/// A registration with the host's interface; without one nothing expires.
struct Registration(Option<Handle>);

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.0.is_some()).finish()
    }
}

impl ExpiryHandle for Registration {
    fn touch(&self) {
        if let Some(handle) = &self.0 {
            handle.touch();
        }
    }
}

impl Expiry for StaleExpiry {
    fn register(&self, name: &str, ttl: Duration, expired: Expired) -> Box<dyn ExpiryHandle> {
        let owner = Arc::new(Watched(Mutex::new(Some(expired))));
        let handle = self.stale.register(owner, 0, ttl, self.clock.now());
        self.registered.notify_one();
        let handle = handle
            .inspect_err(|error| tracing::warn!(name, %error, "it is not watched, and stays until the end"))
            .ok();
        Box::new(Registration(handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    fn watch(expiry: &StaleExpiry, ttl: Duration) -> (Box<dyn ExpiryHandle>, oneshot::Receiver<()>) {
        let (sender, told) = oneshot::channel();
        let expired = move || sender.send(()).expect("it is waited for");
        (expiry.register("x", ttl, Box::new(expired)), told)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_idle_is_told_once_and_what_is_dropped_never() {
        let expiry = StaleExpiry::new(StaleManager::new());
        let (_long, mut later) = watch(&expiry, Duration::from_secs(3600));
        let (_short, soon) = watch(&expiry, Duration::from_millis(5));
        let (dropped, never) = watch(&expiry, Duration::from_millis(5));
        drop(dropped);
        soon.await.expect("the shorter one came later, and is told first");
        assert!(never.await.is_err(), "its closure is dropped uncalled");
        assert!(later.try_recv().is_err());
    }
}
