//! Arguments on their way: encoded bytes, or a typed pointer that is encoded only when it must leave the
//! process.

use std::any::{Any, TypeId};
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use ipc_protocol::Codec;
use serde::{Serialize, de::DeserializeOwned};

/// Anything that can be an argument or a result. Implemented for every type that qualifies.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Message for T {}

/// Identity of a Rust type within one build: two sides with equal fingerprints may hand over a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of `T` in this build.
    #[must_use]
    pub fn of<T: 'static>() -> Self {
        // DefaultHasher has fixed keys: the same build gives the same number in every process.
        let mut hasher = std::hash::DefaultHasher::new();
        TypeId::of::<T>().hash(&mut hasher);
        size_of::<T>().hash(&mut hasher);
        align_of::<T>().hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Bytes with the name of their encoding. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// How the bytes are encoded.
    pub codec: Codec,
    /// The bytes.
    pub bytes: Bytes,
}

impl Encoded {
    /// MessagePack bytes.
    #[must_use]
    pub fn message_pack(bytes: impl Into<Bytes>) -> Self {
        Self { codec: Codec::MessagePack, bytes: bytes.into() }
    }

    /// `value` as MessagePack with named fields.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]: the type's `Serialize` failed. The caller's fault; nothing was sent.
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, EncodeError> {
        let mut bytes = Vec::with_capacity(64);
        encode_into(value, &mut bytes)?;
        Ok(Self::message_pack(bytes))
    }

    /// The value that the bytes encode.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: the bytes are not a `T`, or not in a codec that this build reads.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        match self.codec {
            Codec::MessagePack => rmp_serde::from_slice(&self.bytes).map_err(DecodeError::MessagePack),
            codec => Err(DecodeError::Codec(codec)),
        }
    }
}

/// Appends `value` as MessagePack with named fields.
///
/// # Errors
///
/// [`EncodeError`]: the type's `Serialize` failed; `out` may hold a part of it.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    value.serialize(&mut rmp_serde::Serializer::new(out).with_struct_map()).map_err(EncodeError)
}

/// A value could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("a value could not be encoded as MessagePack")]
pub struct EncodeError(#[source] pub rmp_serde::encode::Error);

/// Bytes could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not what the type takes.
    #[error("the bytes are not the expected value")]
    MessagePack(#[source] rmp_serde::decode::Error),
    /// The codec is not one that this build reads.
    #[error("codec {0:?} cannot be read here")]
    Codec(Codec),
    /// A typed value of another type.
    #[error("the value has another type than expected")]
    Type,
}

/// A typed value that its owner lends for the time of [`crate::Caller::call`]: encoded there if it must
/// leave the process, taken out of the slot if it need not.
pub trait TypedSlot: Send {
    /// Fingerprint of the value's type.
    fn fingerprint(&self) -> Fingerprint;
    /// Appends the value as MessagePack with named fields.
    ///
    /// # Errors
    ///
    /// [`EncodeError`], also where the value was taken already.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;
    /// The slot itself, an `Option<T>`.
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<T: Message> TypedSlot for Option<T> {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of::<T>()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Some(value) => encode_into(value, out),
            None => Err(EncodeError(rmp_serde::encode::Error::Syntax("the value was taken already".into()))),
        }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Arguments of a call.
pub enum Payload<'a> {
    /// Encoded bytes.
    Encoded(Encoded),
    /// A typed value, lent until [`crate::Caller::call`] returns.
    Typed(&'a mut dyn TypedSlot),
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Encoded(encoded) => f.debug_tuple("Encoded").field(encoded).finish(),
            Self::Typed(slot) => f.debug_tuple("Typed").field(&slot.fingerprint()).finish(),
        }
    }
}

impl Payload<'_> {
    /// The arguments as bytes of their own: for whatever must keep them beyond the call.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]: a typed value's `Serialize` failed.
    pub fn into_encoded(self) -> Result<Encoded, EncodeError> {
        match self {
            Self::Encoded(encoded) => Ok(encoded),
            Self::Typed(slot) => {
                let mut bytes = Vec::with_capacity(64);
                slot.encode(&mut bytes)?;
                Ok(Encoded::message_pack(bytes))
            }
        }
    }

    /// The typed value, if it is a `T`; else the payload as it was.
    ///
    /// # Errors
    ///
    /// The payload itself, when it is encoded or of another type.
    pub fn take<T: 'static>(self) -> Result<T, Self> {
        match self {
            Self::Typed(slot) if slot.fingerprint() == Fingerprint::of::<T>() => {
                match slot.as_any().downcast_mut::<Option<T>>().and_then(Option::take) {
                    Some(value) => Ok(value),
                    None => Err(Self::Typed(slot)),
                }
            }
            other => Err(other),
        }
    }
}
