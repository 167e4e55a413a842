//! The fast codec: wincode, whose layout is that of bincode 1. The only module that knows it.
//!
//! A value takes part if its type is [`Fast`]: then its layout has a text, which is a part of the method's schema
//! hash, and its bytes can be walked over without decoding them. Reading walks first. wincode reserves room for as
//! many elements as a length announces; after the walk every length is known to be true, so that nothing is
//! reserved for bytes that did not come.
//!
//! Reading order: this file, `fast` (which types), `walk` (over the bytes of one value). This module must not know
//! connections or who agreed on what.

mod fast;
mod walk;

use std::any::Any;

use ipc_protocol::limits::MESSAGE_BYTES_DEFAULT;
use wincode::config::Configuration;

use crate::payload::{EncodeError, Fingerprint, Message, NotFast, TypedSlot};
pub use fast::{Fast, FastBody, depth_above, fixed_sum};
pub use walk::{Walk, WalkError};
/// For derives: they name it through whoever re-exports this module.
pub use wincode;

/// LIMIT: memory of the elements of one sequence, string or map. What is larger travels as MessagePack.
pub const SEQUENCE_BYTES_MAX: usize = 256 << 20;

// As long as a message may be: a sequence of bytes or numbers fits whenever its message does.
const _: () = assert!(SEQUENCE_BYTES_MAX as u64 == MESSAGE_BYTES_DEFAULT);

/// How wincode is told to read and write: as bincode 1 did, but for the limit.
pub type Settings = Configuration<true, SEQUENCE_BYTES_MAX>;

const SETTINGS: Settings = Settings::new();

/// Why bytes are not a value of the fast codec.
#[derive(Debug, thiserror::Error)]
pub enum FastError {
    /// They are too short or too long for what they announce.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// They have the right length and no meaning: a string that is not UTF-8, a boolean that is neither.
    #[error("the bytes are not the expected value: {0}")]
    Value(#[source] wincode::ReadError),
}

/// Appends `value` in the fast codec.
///
/// # Errors
///
/// [`NotFast`]: a sequence is above [`SEQUENCE_BYTES_MAX`]; `out` is as before. Send it as MessagePack.
pub fn encode<T: FastBody>(value: &T, out: &mut Vec<u8>) -> Result<(), NotFast> {
    let before = out.len();
    wincode::config::serialize_into(&mut *out, value, SETTINGS).map_err(|_| {
        out.truncate(before);
        NotFast
    })
}

/// The value that `bytes` are in the fast codec, all of them. Reserves no more than what lies in them needs.
///
/// # Errors
///
/// [`FastError`]: they are no such value.
pub fn decode<T: FastBody>(bytes: &[u8]) -> Result<T, FastError> {
    let mut walk = Walk::new(bytes);
    T::walk(&mut walk)?;
    walk.end()?;
    wincode::config::deserialize_exact(bytes, SETTINGS).map_err(FastError::Value)
}

/// Arguments of a method that takes the fast codec: a slot with the method's schema hash.
#[derive(Debug)]
pub struct FastSlot<T> {
    value: Option<T>,
    schema_hash: u64,
}

impl<T> FastSlot<T> {
    /// A slot with `value` in it. `schema_hash` is what the caller's interface says of the method.
    pub fn new(value: T, schema_hash: u64) -> Self {
        Self { value: Some(value), schema_hash }
    }
}

impl<T: Message + FastBody> TypedSlot for FastSlot<T> {
    fn fingerprint(&self) -> Fingerprint {
        self.value.fingerprint()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.value.encode(out)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        &mut self.value
    }

    fn schema_hash(&self) -> u64 {
        self.schema_hash
    }

    fn encode_fast(&self, out: &mut Vec<u8>) -> Result<(), NotFast> {
        encode(self.value.as_ref().ok_or(NotFast)?, out)
    }

    fn detach(&mut self) -> Option<Box<dyn TypedSlot>> {
        Some(Box::new(Self { value: Some(self.value.take()?), schema_hash: self.schema_hash }))
    }
}
