//! What an extension asks of its host while it serves a call: the names of a host's methods, and their messages.
//!
//! A host names those that it has in [`Hello::host_methods`](crate::handshake::Hello::host_methods). A transport passes
//! them on and knows none of them.

use serde::{Deserialize, Serialize};

/// Calls another extension. Arguments: [`ExtensionCall`]. Result: the other extension's own.
pub const CALL: &str = "call";

/// The state that the host keeps for the extension. Arguments: none. Result: `bin`, or nil if it keeps none.
pub const GET_STATE: &str = "get-state";

/// Replaces that state. Arguments: `bin`, at most [`STATE_BYTES_MAX`](crate::limits::STATE_BYTES_MAX). Result: nil.
pub const PUT_STATE: &str = "put-state";

/// A call of another extension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExtensionCall {
    /// The other extension's name.
    pub extension: String,
    /// The method's name.
    pub method: String,
    /// Microseconds that the caller will wait; 0: as long as the call that is served may take.
    #[serde(default)]
    pub timeout_us: u64,
    /// The arguments as MessagePack.
    #[serde(with = "serde_bytes")]
    pub arguments: Vec<u8>,
}

impl ExtensionCall {
    /// A call that may take as long as the one that it serves.
    #[must_use]
    pub fn new(extension: impl Into<String>, method: impl Into<String>, arguments: Vec<u8>) -> Self {
        Self { extension: extension.into(), method: method.into(), timeout_us: 0, arguments }
    }
}
