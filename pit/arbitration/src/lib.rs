//! Claims on shared resources: granted whole or waiting, in an order that starves nobody.
//!
//! A resource is a name and a number of units (`cores`: 8). A claim names amounts of several resources at once (a number
//! of units, one share, or the whole), a priority and an owner. It is granted whole or it waits; nothing is ever granted
//! in part, so claims that are made once cannot deadlock. A grant gives everything back when it is dropped.
//!
//! Who goes first is a [`Policy`]: strict priority with ageing, or dominant-resource fairness between owners. A holder that
//! wants more [extends](Grant::extend) its grant or claims [beside](Grant::claim_beside) it, made safe by wound-wait; a
//! claim may [preempt](ClaimSpec::preempting) less urgent holders. Whoever is to give back is [told](Grant::told), and by
//! when, also while it waits for more.
//!
//! What is claimed, by whom and what for is not known here. There is no thread inside: whoever releases a grant hands
//! what is free to the waiters and wakes them.
//!
//! ```text
//!  claim --fits--------------> granted --drop--> released, waiters are looked at again
//!    +-----does not fit-> waiting --> granted --told--> to be given back by a deadline --drop--> released
//!                            |                                 +--deadline--> revoked, released
//!                            +--future dropped, deadline--> gone
//! ```
//!
//! ```
//! use arbitration::{Arbiter, ClaimSpec, OwnerId};
//! use pit_core::priority::Priority;
//!
//! let arbiter = Arbiter::new([("cores", 4), ("downloads", 2)])?;
//! let cores = arbiter.resource("cores").expect("declared above");
//! let spec = ClaimSpec::new(OwnerId::new(1), Priority::NORMAL).with(cores, 3);
//!
//! let grant = arbiter.try_claim(&spec)?.expect("nothing else is claimed");
//! assert!(arbiter.try_claim(&spec)?.is_none(), "one core is left");
//! drop(grant);
//! assert!(arbiter.try_claim(&spec)?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod claim;
mod numbers;
mod policy;
mod room;
mod victims;

mod accounts;
mod grants;
mod queue;
mod state;

mod growth;
mod preempt;

mod wakers;

mod arbiter;
mod extending;
mod grant;
mod wait;

mod snapshot;

pub use arbiter::{Arbiter, ArbiterError, ClaimError, Options, RESOURCES_MAX, WAITERS_MAX};
pub use claim::{CLAIM_RESOURCES_MAX, ClaimSpec, GrantId, OwnerId, ResourceId};
pub use extending::{ClaimingBeside, Extending};
pub use grant::{Grant, Told};
pub use grants::{Notice, Reason};
pub use policy::Policy;
pub use snapshot::{GrantView, ResourceView, Snapshot, WaiterView};
pub use wait::{Claiming, EarlierDeadline};
