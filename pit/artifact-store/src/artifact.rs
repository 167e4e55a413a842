//! A delivered artifact: verified bytes and, where there is one, the descriptor behind them.
//!
//! Knows how to be held and handed on, not how it was found or verified.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use rustix::fs::{CWD, Mode, OFlags};

use crate::digest::Digest;
use crate::ephemeral::{Charge, sealed_copy};
use crate::look::Spot;
use crate::mapping::Mapping;

/// The bytes of an artifact, read-only: a mapping, or for a packed one its few bytes in memory. Cloning shares them; they
/// stay valid when the store is dropped and when the artifact leaves the store.
///
/// A stored artifact was verified before it was delivered. Since then only the file mode guards it: a process of the same
/// user that rewrites or truncates the file behind the mapping changes the slice, or ends this process with SIGBUS at the
/// next access. The store itself never does either. Ephemeral artifacts are sealed: nobody can change them.
#[derive(Clone)]
pub struct Artifact(Arc<Held>);

pub(crate) struct Held {
    digest: Digest,
    content: Content,
    /// Whether it was delivered again since a store that keeps it open last looked for one to close.
    is_used: AtomicBool,
}

pub(crate) enum Content {
    /// A file of its own.
    File { mapping: Mapping, file: File, objects: Arc<Path>, path: OnceLock<PathBuf> },
    /// Read out of a pack.
    Packed(Box<[u8]>),
    /// Sealed memory, and its part of the budget.
    Ephemeral { mapping: Mapping, file: File, _charge: Charge },
}

impl Artifact {
    pub(crate) fn new(digest: Digest, content: Content) -> Self {
        Self(Arc::new(Held { digest, content, is_used: AtomicBool::new(false) }))
    }

    pub(crate) fn downgrade(&self) -> Weak<Held> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(held: &Weak<Held>) -> Option<Self> {
        held.upgrade().map(Self)
    }

    /// It is delivered again.
    pub(crate) fn note_use(&self) {
        // ORDERING(second-chance): Relaxed suffices, the flag only advises which artifact to close first. Looking
        // before storing keeps the line shared between readers.
        if !self.0.is_used.load(Ordering::Relaxed) {
            // ORDERING(second-chance): Relaxed, as above.
            self.0.is_used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was delivered again since this was last asked.
    pub(crate) fn take_use(&self) -> bool {
        // ORDERING(second-chance): Relaxed, as in `note_use`.
        self.0.is_used.swap(false, Ordering::Relaxed)
    }

    /// The address of the bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// All bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0.content {
            Content::File { mapping, .. } | Content::Ephemeral { mapping, .. } => mapping.as_bytes(),
            Content::Packed(bytes) => bytes,
        }
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.as_bytes().len() as u64
    }

    /// There are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The file of its own in the store, for people and for programs that read. Its mode forbids writing, and nobody
    /// should. A packed artifact has none, an ephemeral one neither.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0.content {
            // Put together only when somebody asks: it is a good part of what a first get costs.
            Content::File { objects, path, .. } => {
                Some(path.get_or_init(|| objects.join(Spot::of(&self.0.digest).relative())))
            }
            Content::Packed(_) | Content::Ephemeral { .. } => None,
        }
    }

    /// It never touches a disk: see [`Store::put_ephemeral`](crate::Store::put_ephemeral).
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        matches!(self.0.content, Content::Ephemeral { .. })
    }

    /// A new read-only descriptor of exactly these bytes, for another process, with a position of its own, so that
    /// receivers do not move each other's. Of a packed artifact it is a sealed copy in memory (at most
    /// [`PACKED_BYTES_MAX`](crate::PACKED_BYTES_MAX)), of an ephemeral one its sealed memory: nobody can write to these,
    /// however he opens them anew.
    ///
    /// Of others it is the stored file itself. Nobody can write through the descriptor, and a receiver of another user
    /// cannot open it anew for writing, since its mode forbids it. One of the same user, or with the rights of root, can:
    /// `/proc/self/fd` leads him to the file, whose mode he may change. That is the case of every process of this user
    /// with or without a descriptor, and is found out like any other damage: at the next verification, by the change
    /// time. Whoever must not be trusted so far is given an [ephemeral](crate::Store::put_ephemeral) copy.
    ///
    /// # Errors
    /// The process has no descriptor left, or `/proc` is not mounted.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        match &self.0.content {
            Content::File { file, .. } | Content::Ephemeral { file, .. } => open_again(file),
            Content::Packed(bytes) => open_again(&sealed_copy(bytes)?),
        }
    }
}

fn open_again(file: &File) -> io::Result<OwnedFd> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::openat(CWD, own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("digest", &self.0.digest)
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}
