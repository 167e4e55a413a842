//! A delivered artifact: verified bytes, mapped, with the descriptor behind them.
//!
//! Knows how to be held and handed on, not how it was found or verified.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};

use crate::digest::Digest;
use crate::mapping::Mapping;

/// The bytes of an artifact as a read-only mapping. Cloning shares it; it stays valid when the store is dropped and
/// when the artifact leaves the store.
///
/// The bytes were verified when this process first read them. Since then only the file mode guards them: a process
/// of the same user that rewrites or truncates the file behind the mapping changes the slice, or ends this process with
/// SIGBUS at the next access. The store itself never does either.
#[derive(Clone)]
pub struct Artifact(Arc<Held>);

struct Held {
    digest: Digest,
    mapping: Mapping,
    file: File,
    path: PathBuf,
}

impl Artifact {
    pub(crate) fn new(digest: Digest, mapping: Mapping, file: File, path: PathBuf) -> Self {
        Self(Arc::new(Held { digest, mapping, file, path }))
    }

    /// The address of the bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// All bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.mapping.as_bytes()
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

    /// The file in the store, for people and for programs that read. Its mode forbids writing, and nobody should.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A new read-only descriptor of the same file, for another process. Unlike a duplicate it has a position of its
    /// own, so that receivers do not move each other's.
    ///
    /// # Errors
    /// The process has no descriptor left, or `/proc` is not mounted.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        let own = format!("/proc/self/fd/{}", self.0.file.as_raw_fd());
        Ok(rustix::fs::openat(CWD, own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }
}

impl AsFd for Artifact {
    /// The read-only descriptor behind the mapping.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("digest", &self.0.digest)
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}
