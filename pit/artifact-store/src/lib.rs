//! Artifact Store: content-addressed bytes, durable and verified.
//!
//! An artifact is stored under the BLAKE3 digest of its bytes, whole or not at all. When a put returns, the artifact is
//! durable; when a get returns, its bytes were verified, and its file was not touched since. Names point to artifacts,
//! with versions and compare-and-swap.
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
//! # Ways in and out
//! [`put_bytes`](Store::put_bytes), [`put_reader`](Store::put_reader), [`put_file`](Store::put_file),
//! [`adopt_file`](Store::adopt_file), [`put_memfd`](Store::put_memfd), [`writer`](Store::writer); many small ones at once
//! by [`put_batch`](Store::put_batch). [`get`](Store::get) delivers a slice, and a descriptor for another process.
//! [`put_ephemeral`](Store::put_ephemeral) holds bytes in sealed memory, without a disk;
//! [`create_ephemeral`](Store::create_ephemeral) makes memory for another process to fill, which is then not copied.
//!
//! # On the disk
//! ```text
//!   format            which format this is; written last when a store is made
//!   lock              held while a name is set, a damaged file is moved, a slice is collected; puts and gets take none
//!   objects/ab/cd...  artifacts with files of their own, mode 0400, by their digest
//!   packs/            many small artifacts in one file
//!   names/            one record per name; '/' in a name is '\' here
//!   floor             the highest version of a name that was removed
//!   quarantine/       damaged artifacts, by the digest that they should have had, and damaged packs
//!   tmp/              files that are being written; a dead writer's are swept when a store is opened
//!   verified          what was verified since the machine was started: a hint, never synced
//!   suspect           a sync has failed: the next opening verifies everything
//! ```
//! Any number of processes may use one folder at once. A store of an older format (no packs, or packs that cannot be
//! salvaged) is brought to the present one when it is opened; processes of an older release that have it open then must be ended before anything is
//! collected, since they pin nothing.
//!
//! # What keeps an artifact
//! A name, a [`Pin`] of a living process (every acknowledgement comes with one), or the word of whoever calls
//! [`collect`](Store::collect), which removes the rest.
//!
//! # When the disk fails
//! Without room a put is refused with [`DiskError::Full`], nothing of it is visible, and the same store goes on when
//! there is room. After a failed sync the system forgets what was lost, so a store takes nothing more
//! ([`DiskError::Poisoned`]); it still delivers. Opening it again verifies everything first.
//!
//! # What it does not promise
//! What a disk does with synced bytes when the power goes is the disk's affair. What a disk does to bytes behind an
//! untouched file is found when it is next verified: on the first read after the machine was started, or by
//! [`verify`](Store::verify). A process of the same user can change the files behind the store's back: see [`Artifact`].
//!
//! It knows no other crate of the project, no serde, no sockets, no runtime; and nothing of what the bytes mean.

// What everything below speaks of.
mod digest;
mod disk;
mod error;

// The folder.
mod layout;
mod pin;
mod root;
mod temporary;

// Bytes out.
mod store;
mod artifact;
mod look;
mod mapping;
mod remembered;
mod witness;

// Bytes in.
mod put;
mod source;
mod ephemeral;

// Small ones.
mod batch;
mod pack;
mod packs;
mod salvage;
mod mend;

// What there is, what it is called, and what goes.
mod list;
mod names;
mod record;
mod collect;

pub use artifact::Artifact;
pub use collect::Collected;
pub use digest::{DIGEST_BYTES, Digest, ParseDigestError};
pub use disk::{Disk, Folder, RealDisk};
pub use ephemeral::{EPHEMERAL_BYTES_MAX, EphemeralMemory};
pub use error::{
    CollectError, DiskError, GetError, NameError, OpenError, PutError, RoomLimit, Shortage, VerifyError,
};
pub use list::{List, Listed};
pub use names::{Expected, NAME_BYTES_MAX, NameRule, Named};
pub use pack::PACKED_BYTES_MAX;
pub use pin::Pin;
pub use put::{ArtifactWriter, Stored};
pub use store::{OPEN_ARTIFACTS_MAX, OpenReport, Store, StoreOptions, Usage};
