//! The smallest interface: for trying things out.

use extension_sdk::Fault;

/// Answers what it is told.
#[extension_sdk::interface]
pub trait Echo {
    /// Returns `text`.
    #[method(idempotent, pure)]
    fn echo(&self, text: String) -> Result<String, Fault>;
}
