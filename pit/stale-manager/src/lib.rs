//! Expiry: what has not been touched for its time to live is evicted by whoever owns it.
//!
//! Things are registered with a time to live and touched whenever they are used. A sweep looks for those whose time has
//! passed and asks their owner, through [`Evict`], to let go of them. What the things are is not known here, and there is
//! no thread, timer or clock inside: the caller asks [`StaleManager::next_deadline`], sleeps until then, and calls
//! [`StaleManager::sweep`]. With nothing registered there is nothing to wake up for.
//!
//! ```text
//!              touched meanwhile, or refused: time to live begins anew
//!              +----------------------------+
//!              v                            |
//!  register -> armed --time has passed--> asking --owner lets go--> gone
//!                +-------- cancel: forgotten ---+
//! ```
//!
//! **Never early, sometimes late.** A touch only notes the tick of the last sweep: it says that the thing was used after
//! that sweep, not when. So the time to live is counted from the sweep that follows the touch, and a thing may live
//! longer than its time by the distance of two sweeps. Sweeps that come only when a deadline is due are one time to live
//! apart; sweeping more often makes eviction more punctual, and with nothing due costs next to nothing.
//!
//! ```
//! use std::{sync::{Arc, Mutex}, time::Duration};
//! use pit_core::clock::Tick;
//! use stale_manager::{Budget, Evict, Eviction, StaleManager};
//!
//! #[derive(Default)]
//! struct Stopped(Mutex<Vec<u64>>);
//! impl Evict for Stopped {
//!     fn evict(&self, key: u64) -> Eviction {
//!         self.0.lock().unwrap().push(key);
//!         Eviction::Evicted
//!     }
//! }
//!
//! let start = Tick::ZERO;
//! let minutes = |count: u64| start.after(Duration::from_secs(60 * count));
//! let stopped = Arc::new(Stopped::default());
//! let stale = StaleManager::new();
//! let owner = stale.add_owner(&stopped)?;
//! let idle = stale.register(owner, 17, Duration::from_secs(60), start)?;
//! let used = stale.register(owner, 18, Duration::from_secs(60), start)?;
//! assert_eq!(stale.next_deadline(), Some(minutes(1)));
//!
//! stale.touch(used);
//! stale.sweep(minutes(1), Budget::default());
//! assert_eq!(*stopped.0.lock().unwrap(), [17]);
//! assert!(!stale.is_registered(idle) && stale.is_registered(used));
//! assert_eq!(stale.next_deadline(), Some(minutes(2)));
//!
//! stale.cancel(used);
//! stale.sweep(minutes(2), Budget::default());
//! assert_eq!(stale.next_deadline(), None);
//! # Ok::<(), stale_manager::RegisterError>(())
//! ```

mod cell;
mod history;
mod owners;
mod shard;

mod manager;

pub use manager::{
    Budget, Expiring, RegisterError, Snapshot, StaleManager, Swept, THINGS_MAX, TTL_MIN, ThingId,
};
pub use owners::{Evict, Eviction, OWNERS_MAX, OwnerId};
