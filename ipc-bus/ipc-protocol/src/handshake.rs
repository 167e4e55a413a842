//! Who are you: the first three frames of a connection.
//!
//! ```text
//! host                                   extension
//!   Hello  ------------------------------>            within WELCOME_TIMEOUT_MS:
//!          <------------------------------  Welcome   versions, features and names agree
//!          <------------------------------  Ready     within READY_TIMEOUT_MS: its own start is over
//! ```
//!
//! Unknown fields and features are ignored; a feature is used only if both sides listed it.

use serde::{Deserialize, Serialize};

/// Calls through shared memory.
pub const FEATURE_RINGS: &str = "rings";

/// The feature that brings [`crate::Codec::Wincode`].
pub const FEATURE_WINCODE: &str = "wincode";

/// The feature that brings [`crate::Kind::HostCall`] and what belongs to it.
pub const FEATURE_HOST_CALLS: &str = "host-calls";

/// The feature that brings descriptors from the host to the extension: see [`crate::Kind::Descriptor`].
pub const FEATURE_DESCRIPTORS: &str = "descriptors";

/// The feature that brings streams: see [`crate::stream`].
pub const FEATURE_STREAMS: &str = "streams";

/// The host's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hello {
    /// Versions of the protocol that the host speaks; the extension picks the highest that it knows.
    pub versions: Vec<u16>,
    /// Features that the host has.
    pub features: Vec<String>,
    /// Name of the extension that the host means to have started.
    pub extension: String,
    /// Incarnation of this instance; every frame of either side carries it.
    pub epoch: u32,
    /// Random; returned in [`Welcome`], so that an answer belongs to this question.
    pub nonce: u64,
    /// Calls that the host will have in flight at most.
    pub in_flight_max: u32,
    /// Bytes of one message at most.
    pub message_bytes_max: u64,
    /// The manifest's `[config]` table as MessagePack; empty if there is none.
    #[serde(with = "serde_bytes", default)]
    pub config: Vec<u8>,
    /// How long to poll shared memory before sleeping: `low`, `balanced`, `efficient`; empty is `balanced`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub latency: String,
    /// What an extension can call at its host, with [`FEATURE_HOST_CALLS`]: a host call names a method by its index here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_methods: Vec<String>,
}

impl Hello {
    /// A hello with this version and the default limits, and no features or configuration.
    #[must_use]
    pub fn new(extension: impl Into<String>, epoch: u32, nonce: u64) -> Self {
        Self {
            versions: vec![crate::PROTOCOL_VERSION],
            features: Vec::new(),
            extension: extension.into(),
            epoch,
            nonce,
            in_flight_max: crate::limits::IN_FLIGHT_CALLS_DEFAULT,
            message_bytes_max: crate::limits::MESSAGE_BYTES_DEFAULT,
            config: Vec::new(),
            latency: String::new(),
            host_methods: Vec::new(),
        }
    }
}

/// The extension's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Welcome {
    /// The version that both will speak: one of the host's.
    pub version: u16,
    /// Features that the extension has.
    pub features: Vec<String>,
    /// The extension's own name: must be the one in [`Hello`].
    pub extension: String,
    /// The extension's version, for people.
    pub extension_version: String,
    /// The host's epoch.
    pub epoch: u32,
    /// The host's nonce.
    pub nonce: u64,
    /// What can be called; a call names a method by its index here.
    pub methods: Vec<MethodEntry>,
}

impl Welcome {
    /// The answer to `hello`.
    #[must_use]
    pub fn answering(
        hello: &Hello,
        version: u16,
        extension: impl Into<String>,
        extension_version: impl Into<String>,
        methods: Vec<MethodEntry>,
    ) -> Self {
        Self {
            version,
            features: Vec::new(),
            extension: extension.into(),
            extension_version: extension_version.into(),
            epoch: hello.epoch,
            nonce: hello.nonce,
            methods,
        }
    }
}

/// One callable method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MethodEntry {
    /// Its name, unique in the extension.
    pub name: String,
    /// Hash over the schemas of its arguments and its result: equal hashes mean equal layouts.
    pub schema_hash: u64,
    /// Whether the host may call it again after an unknown outcome.
    #[serde(default)]
    pub idempotent: bool,
    /// Whether the same arguments always give the same result, so that it may be cached.
    #[serde(default)]
    pub pure: bool,
    /// Whether its result may have streams in it, which whoever does not want them must drop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub streams: bool,
}

impl MethodEntry {
    /// A method that is neither idempotent nor pure, and has no streams.
    #[must_use]
    pub fn new(name: impl Into<String>, schema_hash: u64) -> Self {
        Self { name: name.into(), schema_hash, idempotent: false, pure: false, streams: false }
    }
}

/// The extension's own start is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ready {
    /// Why the start failed; absent if it did not. The extension then says goodbye and exits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<crate::Fault>,
    /// Everything after this frame goes through the rings that the host granted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rings: bool,
}

impl Ready {
    /// The start failed.
    #[must_use]
    pub fn failed(fault: crate::Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }
}
