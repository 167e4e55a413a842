//! What outlives an extension: whoever keeps everything else may keep it here too.
//!
//! The host declares what it needs and has no default: without it extensions are told that nothing is kept. This file
//! must not know where the bytes go.

use std::fmt;

use ipc_protocol::{Fault, FaultCode, Origin};

/// Keeps what extensions want kept.
///
/// # Concurrency
///
/// Called on threads that may block, several at once.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// What [`Self::put_state`] was given last for this extension, in this or an earlier life of the host.
    ///
    /// # Errors
    ///
    /// [`Fault`]: it cannot be read. The extension gets it as it is.
    fn state(&self, extension: &str) -> Result<Option<Vec<u8>>, Fault>;

    /// Keeps `state` for the extension, in the place of what it had. Durable when this returns. The host has seen that
    /// it is no longer than [`STATE_BYTES_MAX`](ipc_protocol::limits::STATE_BYTES_MAX).
    ///
    /// # Errors
    ///
    /// [`Fault`]: it cannot be kept; what was kept before stays. The extension gets it as it is.
    fn put_state(&self, extension: &str, state: &[u8]) -> Result<(), Fault>;
}

/// What an extension is told where nothing is kept.
pub(crate) fn no_storage() -> Fault {
    Fault::new(FaultCode::Unsupported, "this host keeps nothing for extensions").with_origin(Origin::Host)
}
