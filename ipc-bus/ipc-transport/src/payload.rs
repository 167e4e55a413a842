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
        decode(self.codec, &self.bytes)
    }
}

pub(crate) fn decode<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> Result<T, DecodeError> {
    match codec {
        Codec::MessagePack => rmp_serde::from_slice(bytes).map_err(DecodeError::MessagePack),
        codec => Err(DecodeError::Codec(codec)),
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
    /// The bytes of the fast codec are not what the type takes.
    #[cfg(feature = "wincode")]
    #[error("the bytes are not the expected value")]
    Fast(#[source] crate::codec::FastError),
    /// The codec is not one that this build reads, or that the type takes.
    #[error("codec {0:?} cannot be read here")]
    Codec(Codec),
    /// A typed value of another type.
    #[error("the value has another type than expected")]
    Type,
}

/// A value is not to be had in the fast codec. Not a failure: it goes as MessagePack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value does not fit the fast codec")]
pub struct NotFast;

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
    /// The value's place, an `Option<T>`.
    fn as_any(&mut self) -> &mut dyn Any;
    /// What the caller's interface says of the method, if the method takes the fast codec; else 0.
    fn schema_hash(&self) -> u64 {
        0
    }
    /// Appends the value in the fast codec ([`Codec::Wincode`]).
    ///
    /// # Errors
    ///
    /// [`NotFast`]: it has none, or the value is too large for it; `out` is as before.
    fn encode_fast(&self, out: &mut Vec<u8>) -> Result<(), NotFast> {
        let _ = out;
        Err(NotFast)
    }
    /// Moves the value into a slot that may be kept beyond the call; `None` where that has no use: the slot has
    /// one encoding only, or the value was taken already.
    fn detach(&mut self) -> Option<Box<dyn TypedSlot>> {
        None
    }
}

/// Appends the value of a slot: in the fast codec, if both sides take it for this method and the value fits it in
/// `bytes_max` bytes, else as MessagePack. Returns which it is.
///
/// # Errors
///
/// [`EncodeError`]: the type's `Serialize` failed.
pub fn encode_slot(
    slot: &dyn TypedSlot,
    is_fast: bool,
    bytes_max: u64,
    out: &mut Vec<u8>,
) -> Result<Codec, EncodeError> {
    let before = out.len();
    if is_fast && slot.encode_fast(out).is_ok() {
        if (out.len() - before) as u64 <= bytes_max {
            return Ok(Codec::Wincode);
        }
        // Small numbers are shorter in MessagePack.
        out.truncate(before);
    }
    slot.encode(out)?;
    Ok(Codec::MessagePack)
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
    /// Encoded bytes that are lent until [`crate::Caller::call`] returns, and so are copied if they are kept.
    Borrowed {
        /// How they are encoded.
        codec: Codec,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A typed value, lent until [`crate::Caller::call`] returns.
    Typed(&'a mut dyn TypedSlot),
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Encoded(encoded) => f.debug_tuple("Encoded").field(encoded).finish(),
            Self::Borrowed { codec, bytes } => {
                f.debug_struct("Borrowed").field("codec", codec).field("length", &bytes.len()).finish()
            }
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
        self.into_encoded_for(false, 0)
    }

    /// As [`Self::into_encoded`], typed values as [`encode_slot`] does it.
    ///
    /// # Errors
    ///
    /// As [`Self::into_encoded`].
    pub fn into_encoded_for(self, is_fast: bool, bytes_max: u64) -> Result<Encoded, EncodeError> {
        match self {
            Self::Encoded(encoded) => Ok(encoded),
            Self::Borrowed { codec, bytes } => Ok(Encoded { codec, bytes: Bytes::copy_from_slice(bytes) }),
            Self::Typed(slot) => {
                let mut bytes = Vec::with_capacity(64);
                let codec = encode_slot(slot, is_fast, bytes_max, &mut bytes)?;
                Ok(Encoded { codec, bytes: bytes.into() })
            }
        }
    }

    /// What the caller's interface says of the method, if the arguments can be had in the fast codec; else 0.
    #[must_use]
    pub fn schema_hash(&self) -> u64 {
        match self {
            Self::Encoded(_) | Self::Borrowed { .. } => 0,
            Self::Typed(slot) => slot.schema_hash(),
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
