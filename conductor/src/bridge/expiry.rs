//! The stale manager as the clock of the extension host: what is idle is told so.
//!
//! ```text
//! host --register--> StaleExpiry --> StaleManager <--sweep-- one task, asleep until the next deadline
//!                                        |
//!                                        +--evict--> the host's own closure, by its number
//! ```
//!
//! This file must not know what expires.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use extension_host::{Expired, Expiry, ExpiryHandle};
use parking_lot::Mutex;
use pit_core::clock::{Clock as _, SystemClock};
use stale_manager::{Budget, Evict, Eviction, OwnerId, RegisterError, StaleManager, ThingId};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Expiry by a stale manager. Dropping it ends the sweeps.
pub struct StaleExpiry {
    stale: StaleManager,
    watched: Arc<Watched>,
    owner: Result<OwnerId, RegisterError>,
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
        let watched = Arc::new(Watched::default());
        let owner = stale.add_owner(&watched);
        Self { stale, watched, owner, clock, registered, sweeper: tokio::spawn(sweeps).abort_handle() }
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

/// What to call when something expires, by the number that it is registered under: the one owner of it all.
#[derive(Default)]
struct Watched(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    numbers: u64,
    by_number: HashMap<u64, Expired>,
}

impl Watched {
    fn add(&self, expired: Expired) -> u64 {
        let mut calls = self.0.lock();
        calls.numbers += 1;
        let number = calls.numbers;
        calls.by_number.insert(number, expired);
        number
    }

    /// Taken out before it is called or dropped: what it does may come back here.
    fn take(&self, number: u64) -> Option<Expired> {
        self.0.lock().by_number.remove(&number)
    }
}

impl Evict for Watched {
    fn evict(&self, number: u64) -> Eviction {
        if let Some(expired) = self.take(number) {
            expired();
        }
        Eviction::Evicted
    }
}

/// A registration with the host's interface.
struct Registration {
    stale: StaleManager,
    watched: Arc<Watched>,
    thing: ThingId,
    number: u64,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.thing).finish()
    }
}

impl ExpiryHandle for Registration {
    fn touch(&self) {
        self.stale.touch(self.thing);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.stale.cancel(self.thing);
        drop(self.watched.take(self.number));
    }
}

/// What stands for a registration that could not be made: nothing expires.
#[derive(Debug)]
struct Unwatched;

impl ExpiryHandle for Unwatched {
    fn touch(&self) {}
}

impl Expiry for StaleExpiry {
    fn register(&self, name: &str, ttl: Duration, expired: Expired) -> Box<dyn ExpiryHandle> {
        let number = self.watched.add(expired);
        let registered =
            self.owner.and_then(|owner| self.stale.register(owner, number, ttl, self.clock.now()));
        self.registered.notify_one();
        match registered {
            Ok(thing) => {
                let (stale, watched) = (self.stale.clone(), self.watched.clone());
                Box::new(Registration { stale, watched, thing, number })
            }
            Err(error) => {
                tracing::warn!(name, %error, "it is not watched, and stays until the end");
                drop(self.watched.take(number));
                Box::new(Unwatched)
            }
        }
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
