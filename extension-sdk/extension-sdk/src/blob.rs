//! Bytes as one value.
//!
//! A plain `Vec<u8>` is a list of numbers to serde: one to two bytes each, and slow.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// Bytes that travel as MessagePack `bin`: compact, and not necessarily UTF-8.
///
/// A string is accepted as its UTF-8 bytes, and a list of numbers as these bytes, so that people can write
/// arguments in JSON.
///
/// ```
/// let blob = extension_sdk::Blob::from(b"caf\xe9".to_vec());
/// assert_eq!(&blob[..], b"caf\xe9");
/// assert_eq!(blob.to_string(), r"caf\xe9");
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "fast",
    derive(
        extension_sdk_macros::FastMessage,
        ipc_transport::codec::wincode::SchemaRead,
        ipc_transport::codec::wincode::SchemaWrite,
    ),
    wincode(crate = "ipc_transport::codec::wincode")
)]
pub struct Blob(pub Vec<u8>);

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes as text: each byte that is not part of UTF-8 as `\xNN`. A backslash stays as it is, so the text is
/// for people and cannot be turned back.
impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BlobVisitor)
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(Blob(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
        Ok(Blob(bytes))
    }

    fn visit_str<E>(self, text: &str) -> Result<Blob, E> {
        Ok(Blob(text.as_bytes().to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Blob, A::Error> {
        // A list may announce any length: memory grows with what has come.
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element()? {
            bytes.push(byte);
        }
        Ok(Blob(bytes))
    }
}

impl JsonSchema for Blob {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Blob".into()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        "extension_sdk::Blob".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Bytes; a string stands for its UTF-8 bytes.",
            "type": ["string", "array"],
            "format": "bytes",
            "items": { "type": "integer", "minimum": 0, "maximum": 255 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Blob;

    #[test]
    fn bytes_travel_as_bin_and_come_from_text_and_lists_too() {
        let encoded = rmp_serde::to_vec_named(&Blob(b"a\xff".to_vec())).unwrap();
        assert_eq!(encoded, [0xc4, 2, b'a', 0xff]);
        assert_eq!(rmp_serde::from_slice::<Blob>(&encoded).unwrap(), Blob(b"a\xff".to_vec()));
        let text = rmp_serde::to_vec("abc").unwrap();
        assert_eq!(rmp_serde::from_slice::<Blob>(&text).unwrap(), Blob(b"abc".to_vec()));
        let list = rmp_serde::to_vec(&[1u8, 255]).unwrap();
        assert_eq!(rmp_serde::from_slice::<Blob>(&list).unwrap(), Blob(vec![1, 255]));
    }
}
