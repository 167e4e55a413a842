//! Artifact Store: content-addressed bytes, durable and verified.
//!
//! An artifact is stored under the BLAKE3 digest of its bytes, whole or not at all. When a put returns, the artifact is
//! durable; when a get returns, its bytes have been verified by this process. Names point to artifacts, with versions
//! and compare-and-swap.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! use artifact_store::{Expected, Store, StoreOptions};
//!
//! let store = Store::open(folder.path(), StoreOptions::default())?;
//! let stored = store.put_bytes(b"# Report\n")?;
//! store.set_name("run-7/report.md", &stored.digest, Expected::Absent)?;
//!
//! let named = store.resolve("run-7/report.md")?.ok_or("the name is set")?;
//! assert_eq!(store.get(&named.digest)?.as_bytes(), b"# Report\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # On the disk
//! ```text
//!   format            which format this is; written last when a store is made
//!   lock              held while a name is set or a damaged file is moved; puts and gets take no lock
//!   objects/ab/cd...  the artifacts, mode 0400, by their digest
//!   names/            one record per name; '/' in a name is '\' here
//!   quarantine/       damaged artifacts, by the digest that they should have had
//!   tmp/              files that are being written; a dead writer's are swept when a store is opened
//!   suspect           a sync has failed: the next opening verifies everything
//! ```
//! Any number of processes may use one folder at once.
//!
//! # When the disk fails
//! Without room a put is refused with [`PutError::Full`], nothing of it is visible, and the same store goes on when
//! there is room. After a failed sync the system forgets what was lost, so a store takes nothing more
//! ([`PutError::Poisoned`]); it still delivers. Opening it again verifies everything first.
//!
//! # What it does not promise
//! What a disk does with synced bytes when the power goes is the disk's affair. A process of the same user can change
//! the files behind the store's back: see [`Artifact`]. Each artifact is a file of its own, and none is ever removed:
//! packing and collection are not there yet.
//!
//! It knows no other crate of the project, no serde, no sockets, no runtime; and nothing of what the bytes mean.

// What everything below speaks of.
mod digest;
mod disk;
mod error;

// The folder.
mod layout;
mod root;

// Bytes in, bytes out.
mod artifact;
mod look;
mod mapping;
mod put;
mod remembered;
mod store;
mod temporary;

// What there is, and what it is called.
mod list;
mod names;
mod record;

pub use artifact::Artifact;
pub use digest::{DIGEST_BYTES, Digest, ParseDigestError};
pub use disk::{Disk, Folder, RealDisk};
pub use error::{GetError, NameError, OpenError, PutError, RoomLimit, Shortage};
pub use list::{List, Listed};
pub use names::{Expected, NAME_BYTES_MAX, NameRule, Named};
pub use put::{ArtifactWriter, Stored};
pub use store::{OPEN_ARTIFACTS_MAX, OpenReport, Store, StoreOptions};
