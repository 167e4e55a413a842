//! What outlives a call: state and artifacts. Whoever keeps everything else may keep them here too.
//!
//! The host declares what it needs and has no default: without it extensions are told that nothing is kept. This file
//! must not know where the bytes go.

use std::fmt;
use std::os::fd::OwnedFd;

use ipc_protocol::host_call::ArtifactInfo;
use ipc_protocol::{Fault, FaultCode, Origin};

/// Keeps what extensions want kept. What it refuses it says as a [`Fault`], which the extension gets as it is.
///
/// # Concurrency
///
/// Called on threads that may block, several at once.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// What [`Self::put_state`] was given last for this extension, in this or an earlier life of the host.
    ///
    /// # Errors
    ///
    /// [`Fault`]: it cannot be read.
    fn state(&self, extension: &str) -> Result<Option<Vec<u8>>, Fault>;

    /// Keeps `state` for the extension, in the place of what it had. Durable when this returns. The host has seen that
    /// it is no longer than [`STATE_BYTES_MAX`](ipc_protocol::limits::STATE_BYTES_MAX).
    ///
    /// # Errors
    ///
    /// [`Fault`]: it cannot be kept; what was kept before stays.
    fn put_state(&self, extension: &str, state: &[u8]) -> Result<(), Fault>;

    /// The artifact with this digest or name, for the extension to map. The host has seen that it may read artifacts.
    ///
    /// # Errors
    ///
    /// [`Fault`], of which [`FaultCode::NotFound`]: there is none.
    fn open_artifact(&self, extension: &str, artifact: &str) -> Result<OpenedArtifact, Fault>;

    /// Memory of `bytes` bytes for the extension to fill. The host has seen that it may make artifacts.
    ///
    /// # Errors
    ///
    /// [`Fault`]: there is no room.
    fn create_artifact(&self, extension: &str, bytes: u64) -> Result<Box<dyn NewArtifact>, Fault>;
}

/// An artifact that is to be read.
#[derive(Debug)]
pub struct OpenedArtifact {
    /// Which one it is.
    pub info: ArtifactInfo,
    /// Its bytes: sealed memory, or a file that was opened for reading alone.
    pub descriptor: OwnedFd,
}

/// Memory that is to become an artifact. Dropping it gives it up.
pub trait NewArtifact: Send {
    /// A descriptor for whoever fills it: memory that can neither shrink nor grow.
    ///
    /// # Errors
    ///
    /// [`Fault`]: there is no descriptor left.
    fn descriptor(&self) -> Result<OwnedFd, Fault>;

    /// Makes it an artifact of what lies in it now: durable and under this name, or for a while if there is none. It must not
    /// matter that the extension may still write.
    ///
    /// # Errors
    ///
    /// [`Fault`]: it cannot be kept; nothing of it is visible.
    fn commit(self: Box<Self>, name: Option<&str>) -> Result<ArtifactInfo, Fault>;
}

/// What an extension is told where nothing is kept.
pub(crate) fn no_storage() -> Fault {
    Fault::new(FaultCode::Unsupported, "this host keeps nothing for extensions").with_origin(Origin::Host)
}
