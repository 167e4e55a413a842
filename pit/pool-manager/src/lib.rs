//! Leases of models: how many may use a declared model at once, who waits for it, and what a lease is still worth.
//!
//! A model is a name, a number of instances and how many may use each at once. Instances are there by themselves, or are
//! loaded when somebody asks, within a budget of memory, and unloaded when nobody does any more. A lease is given back
//! when it is dropped. It is fenced: when its model is redeclared, its instance or its holder ends, or its time is over,
//! it is worth nothing at once, and giving it back late changes nothing.
//!
//! What a model is, where it runs and how it is loaded is not known here ([`Loader`] and [`IdleWatch`] are the borders).
//! There is no thread inside: whoever gives a lease back hands it to the first in the queue and wakes it; what depends on
//! time is done by [`PoolManager::turn`] and by those who block.
//!
//! ```text
//!  allocate --free--> leased --drop--> handed to the first waiter, or free
//!    |                  +--model, instance, holder ended, time over--> worth nothing
//!    +--none free--> Busy, Loading, CoolingDown; or waiting --handed over--> leased
//!                               +--future dropped, deadline--> gone
//!                               +--model or holder retired, resting for too long--> refused
//! ```
//!
//! ```
//! use pool_manager::{AllocateError, PoolManager};
//!
//! let pools = PoolManager::new();
//! let model = pools.declare("operators", 2)?;
//! let first = pools.allocate(model)?;
//! let second = pools.allocate(model)?;
//! assert_eq!(pools.allocate(model).unwrap_err(), AllocateError::Busy(model));
//! drop(first);
//! assert_eq!(pools.state(model)?.leased, 1);
//! # drop(second);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod spec;

mod word;

mod slot;

mod budget;
mod cell;
mod shared;

mod instance;
mod queue;

mod after;
mod locked;

mod holder;
mod lease;
mod loader;
mod manager;
mod request;
mod wait;

#[cfg(all(test, loom))]
mod model;

pub use cell::ModelState;
pub use holder::Holder;
pub use lease::Lease;
pub use loader::{IdleWatch, Load, Loader, Unload};
pub use locked::{LOAD_RETRY_TIME_MIN, MEMORY_RETRY_TIME, WAITERS_PER_MODEL_MAX};
pub use manager::{AllocateError, DeclareError, MemoryError, PoolManager, PoolOptions, PoolTotals};
pub use request::Request;
pub use shared::MODELS_MAX;
pub use spec::{CAPACITY, ErrorClass, INSTANCES, Memory, ModelSpec};
pub use wait::Allocating;

pit_core::id! {
    /// A declared model: its place, and the epoch of its declaration. A redeclared model has another id.
    pub struct ModelId("model");
}

pit_core::id! {
    /// An instance of a model: its place among the model's instances, and which of the successive occupants.
    pub struct InstanceId("instance");
}
