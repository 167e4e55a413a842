//! The stale manager as the clock of the extension host and of the pools: what is idle is told so.
//!
//! ```text
//! host  --register--> StaleExpiry --\
//!                                    > Expiring --> StaleManager <--sweep-- one task, asleep until the next deadline
//! pools --watch-----> IdleModels ---/    |                                  of either; it also turns the pools' clock
//!                                        +--ask--> the host's own closure, or `PoolManager::unload_idle`
//! ```
//!
//! This file must not know what expires.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use extension_host::{Expired, Expiry, ExpiryHandle};
use parking_lot::Mutex;
use pit_core::clock::{Clock as _, SystemClock, Tick};
use pool_manager::{IdleWatch, InstanceId, ModelId, PoolManager};
use stale_manager::{Budget, Evict, Eviction, OwnerId, RegisterError, Snapshot, StaleManager, ThingId};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// What expires in this process when nobody uses it. A clone is another handle of the same.
#[derive(Clone)]
pub struct Expiring {
    stale: StaleManager,
    watched: Arc<Watched>,
    owner: Result<OwnerId, RegisterError>,
    clock: SystemClock,
    /// Whoever sleeps until the next deadline is told here that there may be an earlier one.
    changed: Arc<Notify>,
}

/// Something that expires before long if nobody uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiringThing {
    /// What it is called.
    pub name: String,
    /// When it expires, on the clock of [`Expiring::clock`].
    pub deadline: Tick,
}

impl fmt::Debug for Expiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiring").field("stale", &self.stale.snapshot()).finish_non_exhaustive()
    }
}

impl Expiring {
    /// Nothing yet, on a clock that all who have deadlines in this process share.
    #[must_use]
    pub fn new(clock: SystemClock) -> Self {
        let (stale, watched) = (StaleManager::new(), Arc::new(Watched::default()));
        let owner = stale.add_owner(&watched);
        Self { stale, watched, owner, clock, changed: Arc::new(Notify::new()) }
    }

    /// The clock that deadlines are on.
    #[must_use]
    pub const fn clock(&self) -> SystemClock {
        self.clock
    }

    /// How many things are watched, and what became of others.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.stale.snapshot()
    }

    /// What expires before `before` if nobody uses it, the earliest first, up to `count_max`.
    #[must_use]
    pub fn soon(&self, before: Tick, count_max: usize) -> Vec<ExpiringThing> {
        let soon = self.stale.expiring(before, count_max).into_iter();
        soon.filter_map(|one| {
            Some(ExpiringThing { name: self.watched.name(one.key)?, deadline: one.deadline })
        })
        .collect()
    }

    /// Something may be due earlier than it was: whoever waits for a model calls this once it does, because what waits
    /// knows no clock and a rest may just have begun.
    pub fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Watches `name`: `ask` is called whenever it was not touched for `ttl`, until it is dropped or says that it is gone.
    fn watch(&self, name: &str, ttl: Duration, ask: Ask) -> Option<Registration> {
        let number = self.watched.add(name, ask);
        let registered =
            self.owner.and_then(|owner| self.stale.register(owner, number, ttl, self.clock.now()));
        self.look_again();
        match registered {
            Ok(thing) => {
                let (stale, watched) = (self.stale.clone(), Arc::clone(&self.watched));
                Some(Registration { stale, watched, thing, number })
            }
            Err(error) => {
                tracing::warn!(name, %error, "it is not watched, and stays until the end");
                drop(self.watched.take(number));
                None
            }
        }
    }

    /// Sweeps whenever something may have expired, and does what is due in `pools`; never ends.
    async fn sweep(self, pools: Option<PoolManager>) {
        loop {
            let turned = pools.as_ref().map_or(Tick::NEVER, |pools| pools.turn(self.clock.now()));
            let next = self.stale.next_deadline().map_or(turned, |deadline| deadline.min(turned));
            // A registration may bring the deadline forward; one that comes before this line is in it already,
            // and the permit that it leaves only costs another look.
            if next == Tick::NEVER {
                self.changed.notified().await;
            } else {
                let wait = next.since(self.clock.now());
                let _is_early = tokio::time::timeout(wait, self.changed.notified()).await.is_ok();
            }
            while self.stale.sweep(self.clock.now(), Budget::default()).is_unfinished {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Expiry for the extension host, by a stale manager. Dropping it ends the sweeps.
#[derive(Debug)]
pub struct StaleExpiry {
    expiring: Expiring,
    sweeper: AbortHandle,
}

impl StaleExpiry {
    /// Sweeps `expiring` from now on, whenever something may have expired, and turns the clock of `pools`, which must
    /// be the same one.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(expiring: Expiring, pools: Option<PoolManager>) -> Self {
        let sweeper = tokio::spawn(expiring.clone().sweep(pools)).abort_handle();
        Self { expiring, sweeper }
    }
}

impl Drop for StaleExpiry {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

/// Is called when something expires: lets go of it, or refuses.
type Ask = Arc<dyn Fn() -> Eviction + Send + Sync>;

/// Whom to ask when something expires, by the number that it is registered under: the one owner of it all.
#[derive(Default)]
struct Watched(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    numbers: u64,
    by_number: HashMap<u64, (Box<str>, Ask)>,
}

impl Watched {
    fn add(&self, name: &str, ask: Ask) -> u64 {
        let mut entries = self.0.lock();
        entries.numbers += 1;
        let number = entries.numbers;
        entries.by_number.insert(number, (name.into(), ask));
        number
    }

    fn name(&self, number: u64) -> Option<String> {
        self.0.lock().by_number.get(&number).map(|(name, _)| name.to_string())
    }

    /// Taken out before it is dropped: what its end does may come back here.
    fn take(&self, number: u64) -> Option<(Box<str>, Ask)> {
        self.0.lock().by_number.remove(&number)
    }
}

impl Evict for Watched {
    fn evict(&self, number: u64) -> Eviction {
        // Called without the lock: what it does may come back here.
        let ask = self.0.lock().by_number.get(&number).map(|(_, ask)| Arc::clone(ask));
        let answer = ask.map_or(Eviction::Evicted, |ask| ask());
        if answer == Eviction::Evicted {
            drop(self.take(number));
        }
        answer
    }
}

/// Something that is watched. Dropping it ends that.
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
        let expired = Mutex::new(Some(expired));
        let ask = move || {
            let expired = expired.lock().take();
            if let Some(expired) = expired {
                expired();
            }
            Eviction::Evicted
        };
        match self.expiring.watch(name, ttl, Arc::new(ask)) {
            Some(registration) => Box::new(registration),
            None => Box::new(Unwatched),
        }
    }
}

/// The pools' idle instances, among what expires.
#[derive(Debug)]
pub struct IdleModels {
    expiring: Expiring,
    /// Kept by whoever made the pools, and filled after they are: they keep this, and must not keep themselves.
    pools: Weak<OnceLock<PoolManager>>,
}

impl IdleModels {
    /// Has idle instances of the manager that will be in `pools` unloaded, for as long as somebody keeps it.
    #[must_use]
    pub fn new(expiring: Expiring, pools: &Arc<OnceLock<PoolManager>>) -> Self {
        Self { expiring, pools: Arc::downgrade(pools) }
    }
}

impl IdleWatch for IdleModels {
    fn watch(&self, model: ModelId, instance: InstanceId, idle: Duration) -> Box<dyn Send> {
        let pools = Weak::clone(&self.pools);
        let ask = move || match pools.upgrade().as_ref().and_then(|pools| pools.get()) {
            Some(pools) if !pools.unload_idle(model, instance) => Eviction::Refused,
            _ => Eviction::Evicted,
        };
        Box::new(self.expiring.watch(&format!("{model}, {instance}"), idle, Arc::new(ask)))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use futures_util::FutureExt as _;
    use pool_manager::{ErrorClass, Load, Loader, Memory, ModelSpec, PoolOptions, Unload};
    use tokio::sync::{mpsc, oneshot};

    fn watch(expiry: &StaleExpiry, ttl: Duration) -> (Box<dyn ExpiryHandle>, oneshot::Receiver<()>) {
        let (sender, told) = oneshot::channel();
        let expired = move || sender.send(()).expect("it is waited for");
        (expiry.register("x", ttl, Box::new(expired)), told)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_idle_is_told_once_and_what_is_dropped_never() {
        let expiry = StaleExpiry::new(Expiring::new(SystemClock::new()), None);
        let (_long, mut later) = watch(&expiry, Duration::from_secs(3600));
        let (_short, soon) = watch(&expiry, Duration::from_millis(5));
        let (dropped, never) = watch(&expiry, Duration::from_millis(5));
        drop(dropped);
        soon.await.expect("the shorter one came later, and is told first");
        assert!(never.await.is_err(), "its closure is dropped uncalled");
        assert!(later.try_recv().is_err());
    }

    /// Loads at once, or fails each first time, and tells what it unloads.
    struct Telling(mpsc::UnboundedSender<InstanceId>, Mutex<u32>);

    impl Loader for Telling {
        fn load(&self, load: Load) {
            let left = std::mem::take(&mut *self.1.lock());
            if left == 0 { load.ready() } else { load.failed(ErrorClass::Overloaded) }
        }

        fn unload(&self, unload: Unload) {
            // At the end of the test nobody waits for it any more.
            let _ = self.0.send(unload.instance());
        }
    }

    struct Pools {
        kept: Arc<OnceLock<PoolManager>>,
        expiring: Expiring,
        model: ModelId,
        unloaded: mpsc::UnboundedReceiver<InstanceId>,
        _sweeps: StaleExpiry,
    }

    fn pools(spec: ModelSpec, failures: u32) -> Pools {
        let expiring = Expiring::new(SystemClock::new());
        let kept = Arc::new(OnceLock::new());
        let pools = PoolManager::with_options(PoolOptions {
            clock: Arc::new(expiring.clock()),
            idle_watch: Some(Arc::new(IdleModels::new(expiring.clone(), &kept))),
            ..PoolOptions::default()
        });
        let (sender, unloaded) = mpsc::unbounded_channel();
        let loader = Arc::new(Telling(sender, Mutex::new(failures)));
        let model = pools.declare("model", spec.loaded_by(loader, Memory::default())).expect("declared");
        let sweeps = StaleExpiry::new(expiring.clone(), Some(pools.clone()));
        kept.get_or_init(|| pools);
        Pools { kept, expiring, model, unloaded, _sweeps: sweeps }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_instance_of_a_model_is_unloaded_when_it_is_idle_and_not_while_it_is_leased() {
        let mut pools = pools(ModelSpec::new(1).with_idle_time(Duration::from_millis(5)), 0);
        let manager = pools.kept.get().expect("filled").clone();
        let lease = manager.allocate_async(pools.model).await.expect("it is loaded");
        assert_eq!(pools.expiring.soon(Tick::NEVER, 8).len(), 1);
        while pools.expiring.snapshot().refused == 0 {
            tokio::task::yield_now().await;
        }
        assert!(pools.unloaded.try_recv().is_err(), "it is leased");
        drop(lease);
        pools.unloaded.recv().await.expect("it is unloaded");
        assert_eq!(pools.expiring.soon(Tick::NEVER, 8), []);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_waits_for_a_model_that_rests_is_served_when_the_rest_is_over() {
        let rest = Duration::from_millis(20);
        let pools = pools(ModelSpec::new(1).with_cool_down(ErrorClass::Overloaded, rest), 1);
        let manager = pools.kept.get().expect("filled");
        let mut waiting = pin!(manager.allocate_async(pools.model));
        assert!(waiting.as_mut().now_or_never().is_none(), "it rests");
        pools.expiring.look_again();
        let _lease = waiting.await.expect("it is served by the sweeps, since what waits knows no clock");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn pools_end_with_their_last_handle_although_their_instances_are_watched() {
        let Pools { kept, expiring, model, .. } =
            pools(ModelSpec::new(1).with_idle_time(Duration::from_secs(3600)), 0);
        let manager = kept.get().expect("filled").clone();
        drop(manager.allocate(model).or_else(|_| manager.allocate(model)).expect("it is loaded at once"));
        drop((kept, manager));
        // The sweeper's handle goes with its task.
        while expiring.snapshot().registered > 0 {
            tokio::task::yield_now().await;
        }
    }
}
