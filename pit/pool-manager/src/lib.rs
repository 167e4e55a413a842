//! Leases of models: how many may use a declared model at once, who waits for it, and what a lease is still worth.
//!
//! A model is a name and a capacity: so many leases at once. A lease is given back when it is dropped. It is fenced
//! twice: by the model's epoch, so that a lease from before a redeclaration does not change the count of what came
//! after; and by its holder, so that what a dead holder had is given back at its death and never a second time.
//!
//! What a model is, where it runs and how it is loaded is not known here. There is no thread inside: whoever gives a
//! lease back hands it to the first in the queue and wakes it.
//!
//! ```text
//!  allocate --free--> leased --drop--> handed to the first waiter, or free
//!    +--none free--> Busy, or waiting --handed over--> leased
//!                               +--future dropped, deadline--> gone
//!                               +--model or holder retired--> refused
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

mod word;

mod cell;
mod queue;
mod table;

mod holder;
mod lease;
mod manager;
mod request;
mod wait;

#[cfg(all(test, loom))]
mod model;

pub use cell::{ModelState, WAITERS_PER_MODEL_MAX};
pub use holder::Holder;
pub use lease::Lease;
pub use manager::{AllocateError, DeclareError, PoolManager};
pub use request::Request;
pub use table::MODELS_MAX;
pub use wait::Allocating;
pub use word::CAPACITY_MAX;

pit_core::id! {
    /// A declared model: its place, and the epoch of its declaration. A redeclared model has another id.
    pub struct ModelId("model");
}
