//! What a call needs to be made again, in one piece of memory where it is small: most calls end well, and then all of it
//! was for nothing.

use std::cell::Cell;

use bytes::Bytes;
use ipc_protocol::Codec;
use ipc_transport::payload::encode_slot;
use ipc_transport::{EncodeError, Encoded, Payload, TypedSlot};

/// LIMIT: bytes of arguments that lie in place. Longer ones have memory of their own.
const IN_PLACE_BYTES_MAX: usize = 192;

/// LIMIT: bytes of a name that lie in place.
const NAME_BYTES_MAX: usize = 31;

/// LIMIT: capacity of the vector per thread that arguments are encoded into.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// Encoded arguments.
#[derive(Clone)]
pub(crate) struct KeptBytes {
    codec: Codec,
    form: Form,
}

#[derive(Clone)]
enum Form {
    InPlace { length: u8, bytes: [u8; IN_PLACE_BYTES_MAX] },
    Shared(Bytes),
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl KeptBytes {
    pub(crate) fn new(encoded: Encoded) -> Self {
        Self { codec: encoded.codec, form: Form::Shared(encoded.bytes) }
    }

    /// Encodes what `slot` holds, as [`encode_slot`] does it.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]: the type's `Serialize` failed.
    pub(crate) fn of_slot(slot: &dyn TypedSlot, is_fast: bool, bytes_max: u64) -> Result<Self, EncodeError> {
        // Taken, not borrowed: `Serialize` is foreign code, and may call in its turn.
        let mut scratch = SCRATCH.take();
        scratch.clear();
        let kept = encode_slot(slot, is_fast, bytes_max, &mut scratch).map(|codec| {
            let mut bytes = [0; IN_PLACE_BYTES_MAX];
            let form = match (bytes.get_mut(..scratch.len()), u8::try_from(scratch.len())) {
                (Some(place), Ok(length)) => {
                    place.copy_from_slice(&scratch);
                    Form::InPlace { length, bytes }
                }
                _ => Form::Shared(std::mem::take(&mut scratch).into()),
            };
            Self { codec, form }
        });
        if scratch.capacity() <= SCRATCH_BYTES_MAX {
            SCRATCH.set(scratch);
        }
        kept
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    pub(crate) fn len(&self) -> usize {
        match &self.form {
            Form::InPlace { length, .. } => usize::from(*length),
            Form::Shared(bytes) => bytes.len(),
        }
    }

    pub(crate) fn payload(&self) -> Payload<'_> {
        match &self.form {
            Form::InPlace { length, bytes } => {
                Payload::Borrowed { codec: self.codec, bytes: &bytes[..usize::from(*length)] }
            }
            Form::Shared(bytes) => Payload::Encoded(Encoded { codec: self.codec, bytes: bytes.clone() }),
        }
    }
}

/// The name of a method.
#[derive(Clone)]
pub(crate) enum KeptName {
    InPlace { length: u8, bytes: [u8; NAME_BYTES_MAX] },
    Boxed(Box<str>),
}

impl From<&str> for KeptName {
    fn from(name: &str) -> Self {
        let mut bytes = [0; NAME_BYTES_MAX];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(name.as_bytes());
                Self::InPlace { length, bytes }
            }
            _ => Self::Boxed(name.into()),
        }
    }
}

impl KeptName {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            // INVARIANT: copied from a name as a whole, so it is UTF-8.
            Self::InPlace { length, bytes } => {
                std::str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or("")
            }
            Self::Boxed(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_given_however_long() {
        for length in [0, 1, 30, 31, 32, 189, 190, 191, 192, 193, 100_000] {
            let text = "x".repeat(length);
            let encoded = Encoded::from_value(&text).unwrap();
            let kept = KeptBytes::of_slot(&Some(text.clone()), false, u64::MAX).unwrap();
            assert_eq!((kept.len(), kept.codec()), (encoded.bytes.len(), encoded.codec));
            assert_eq!(kept.payload().into_encoded().unwrap(), encoded);
            assert_eq!(KeptBytes::new(encoded.clone()).payload().into_encoded().unwrap(), encoded);
            assert_eq!(KeptName::from(text.as_str()).as_str(), text);
        }
    }

    #[test]
    fn a_value_that_calls_while_it_is_encoded_disturbs_nothing() {
        struct Nested;
        impl serde::Serialize for Nested {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let within = KeptBytes::of_slot(&Some(7_u8), false, u64::MAX);
                assert_eq!(within.unwrap().len(), 1);
                serializer.serialize_str("outer")
            }
        }
        impl<'de> serde::Deserialize<'de> for Nested {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|_| Self)
            }
        }
        let kept = KeptBytes::of_slot(&Some(Nested), false, u64::MAX).unwrap();
        assert_eq!(&kept.payload().into_encoded().unwrap().bytes[..], b"\xa5outer");
    }
}
