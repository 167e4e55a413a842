//! What an extension prints when it is run with `--describe`: one JSON document on stdout.
//!
//! Stored beside the binary under the binary's BLAKE3, so that nothing needs to be run to know what an
//! extension can do. Schemas are JSON Schema, kept as JSON text: this crate does not look into them.

use serde::{Deserialize, Serialize};

/// The version of the document's form.
pub const DESCRIPTION_VERSION: u32 = 1;

/// Everything that can be known of an extension without calling it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// [`DESCRIPTION_VERSION`].
    pub version: u32,
    /// The extension's name: its package's.
    pub extension: String,
    /// The extension's version.
    pub extension_version: String,
    /// Versions of the wire protocol that it speaks.
    pub protocol_versions: Vec<u16>,
    /// What it implements.
    pub interfaces: Vec<InterfaceDescription>,
    /// JSON Schema of its `[config]` table, as text; empty if it takes none.
    #[serde(default)]
    pub config_schema: String,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceDescription {
    /// The trait's name.
    pub name: String,
    /// The trait's documentation.
    pub documentation: String,
    /// Its methods, in the order of the trait.
    pub methods: Vec<MethodDescription>,
}

/// One method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodDescription {
    /// Its name, unique in the extension.
    pub name: String,
    /// Its documentation.
    pub documentation: String,
    /// See [`crate::handshake::MethodEntry::idempotent`].
    pub idempotent: bool,
    /// See [`crate::handshake::MethodEntry::pure`].
    pub pure: bool,
    /// JSON Schema of the arguments (an object), as text.
    pub arguments_schema: String,
    /// JSON Schema of the result, as text.
    pub result_schema: String,
    /// Hash over both schemas.
    pub schema_hash: u64,
}
