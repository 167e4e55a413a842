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

/// An artifact to be read. Arguments: [`OpenArtifact`]. Result: [`ArtifactInfo`], and before it the artifact's descriptor.
pub const OPEN_ARTIFACT: &str = "open-artifact";

/// Memory for a new artifact. Arguments: [`CreateArtifact`]. Result: a number that names it within the call, and before it
/// the memory's descriptor, which can be written.
pub const CREATE_ARTIFACT: &str = "create-artifact";

/// Makes an artifact of that memory. Arguments: [`CommitArtifact`]. Result: [`ArtifactInfo`].
pub const COMMIT_ARTIFACT: &str = "commit-artifact";

/// `purpose` of an artifact's descriptor.
pub const PURPOSE_ARTIFACT: &str = "artifact";

/// Which artifact is to be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OpenArtifact {
    /// Its digest in hexadecimal digits, or its name.
    pub artifact: String,
}

impl OpenArtifact {
    /// The artifact with this digest or name.
    #[must_use]
    pub fn new(artifact: impl Into<String>) -> Self {
        Self { artifact: artifact.into() }
    }
}

/// How large an artifact is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreateArtifact {
    /// Its bytes, all of which will count.
    pub bytes: u64,
}

impl CreateArtifact {
    /// An artifact of as many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self { bytes }
    }
}

/// What becomes of memory that was filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CommitArtifact {
    /// The number that [`CREATE_ARTIFACT`] gave.
    pub artifact: u64,
    /// The name under which it is to be durable; absent: it is ephemeral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl CommitArtifact {
    /// The memory with this number, to be kept under `name`, or for a while if there is none.
    #[must_use]
    pub const fn new(artifact: u64, name: Option<String>) -> Self {
        Self { artifact, name }
    }
}

/// An artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArtifactInfo {
    /// Its digest in hexadecimal digits.
    pub digest: String,
    /// Its length.
    pub bytes: u64,
}

impl ArtifactInfo {
    /// The artifact with this digest.
    #[must_use]
    pub fn new(digest: impl Into<String>, bytes: u64) -> Self {
        Self { digest: digest.into(), bytes }
    }
}

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
