//! When is an instance idle? Whoever keeps time for everything else may keep it here too.
//!
//! The host declares what it needs; a simple timer is the default. This file must not know what expires.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;

/// Called once when a registered thing was not touched for its time to live. Must not block.
pub type Expired = Box<dyn FnOnce() + Send>;

/// Watches things that expire when they are not used.
pub trait Expiry: Send + Sync + 'static {
    /// Begins to watch `name`; `expired` is called once, when it was not touched for `ttl`. Then the
    /// registration is over; the host registers anew what turns out to be in use.
    fn register(&self, name: &str, ttl: Duration, expired: Expired) -> Box<dyn ExpiryHandle>;
}

/// A registration. Dropping it ends it.
pub trait ExpiryHandle: Send + Sync + fmt::Debug {
    /// It is used now. On the path of every call: must cost next to nothing.
    fn touch(&self);
}

/// One timer for each registration. It looks four times within the time to live, so that it expires at most a
/// quarter late.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimerExpiry;

/// LIMIT: how often within its time to live a thing is looked at.
const LOOKS: u32 = 4;

#[derive(Debug)]
struct TimerHandle {
    touches: Arc<AtomicU64>,
    timer: AbortHandle,
}

impl Expiry for TimerExpiry {
    /// # Panics
    ///
    /// Outside a tokio runtime.
    fn register(&self, _name: &str, ttl: Duration, expired: Expired) -> Box<dyn ExpiryHandle> {
        let touches = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&touches);
        let timer = tokio::spawn(async move {
            let (mut last, mut quiet) = (0, 0);
            while quiet < LOOKS {
                tokio::time::sleep(ttl / LOOKS).await;
                // ORDERING(expiry-touch): Relaxed suffices: only the change of the number counts.
                let now = seen.load(Ordering::Relaxed);
                (last, quiet) = if now == last { (last, quiet + 1) } else { (now, 0) };
            }
            expired();
        });
        Box::new(TimerHandle { touches, timer: timer.abort_handle() })
    }
}

impl ExpiryHandle for TimerHandle {
    fn touch(&self) {
        // ORDERING(expiry-touch): Relaxed suffices: only the change of the number counts.
        self.touches.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for TimerHandle {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test(start_paused = true)]
    async fn what_is_touched_does_not_expire() {
        let ttl = Duration::from_secs(60);
        let (expired, mut told) = oneshot::channel();
        let handle =
            TimerExpiry.register("x", ttl, Box::new(move || expired.send(()).expect("it is awaited")));
        for _ in 0..10 {
            tokio::time::sleep(ttl / 2).await;
            handle.touch();
            assert!(told.try_recv().is_err());
        }
        let before = tokio::time::Instant::now();
        told.await.expect("it expires");
        assert!(before.elapsed() <= ttl + ttl / 4, "{:?}", before.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_registration_is_over() {
        let (expired, told) = oneshot::channel::<()>();
        let handle = TimerExpiry.register(
            "x",
            Duration::from_secs(1),
            Box::new(move || expired.send(()).unwrap_or(())),
        );
        drop(handle);
        assert!(told.await.is_err());
    }
}
