//! How a call ends: in exactly one of these ways, always.

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;
use ipc_protocol::{Codec, Fault, FaultCode};

use crate::payload::{DecodeError, EncodeError, Encoded, Message, decode};
use crate::stream::{self, IncomingStream};

/// The end of a call.
pub type CallResult = Result<Answer, CallError>;

/// A successful result: encoded, or typed where it never left the process.
pub struct Answer(AnswerForm);

enum AnswerForm {
    Encoded(Encoded),
    /// Few bytes, in place: most answers are read once and soon, and need no memory of their own.
    Small(Small),
    /// What follows it comes through these.
    Streaming(Encoded, Vec<IncomingStream>),
    Typed(Box<dyn Any + Send>, fn(&dyn Any) -> Result<Encoded, EncodeError>),
}

/// LIMIT: bytes of an answer that lie in place.
const SMALL_BYTES_MAX: usize = 94;

struct Small {
    codec: Codec,
    length: u8,
    bytes: [u8; SMALL_BYTES_MAX],
}

impl Small {
    fn new(codec: Codec, bytes: &[u8]) -> Option<Self> {
        let length = u8::try_from(bytes.len()).ok()?;
        let mut place = [0; SMALL_BYTES_MAX];
        place.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { codec, length, bytes: place })
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn to_encoded(&self) -> Encoded {
        Encoded { codec: self.codec, bytes: Bytes::copy_from_slice(self.as_slice()) }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            AnswerForm::Encoded(encoded) => f.debug_tuple("Answer").field(encoded).finish(),
            AnswerForm::Small(small) => f.debug_tuple("Answer").field(&small.to_encoded()).finish(),
            AnswerForm::Streaming(encoded, streams) => {
                f.debug_tuple("Answer").field(encoded).field(streams).finish()
            }
            AnswerForm::Typed(..) => f.write_str("Answer(typed)"),
        }
    }
}

impl Answer {
    /// An encoded result.
    #[must_use]
    pub fn encoded(encoded: Encoded) -> Self {
        Self(AnswerForm::Encoded(encoded))
    }

    /// An encoded result whose bytes are copied: in place if they are few.
    #[must_use]
    pub fn copied(codec: Codec, bytes: &[u8]) -> Self {
        Self(match Small::new(codec, bytes) {
            Some(small) => AnswerForm::Small(small),
            None => AnswerForm::Encoded(Encoded { codec, bytes: Bytes::copy_from_slice(bytes) }),
        })
    }

    /// An encoded result that names streams.
    #[must_use]
    pub fn streaming(encoded: Encoded, streams: Vec<IncomingStream>) -> Self {
        if streams.is_empty() {
            Self::encoded(encoded)
        } else {
            Self(AnswerForm::Streaming(encoded, streams))
        }
    }

    /// Whether items follow.
    #[must_use]
    pub fn has_streams(&self) -> bool {
        matches!(self.0, AnswerForm::Streaming(..))
    }

    /// The stream that the whole result is, for whoever takes items one by one and does not know their type.
    ///
    /// # Errors
    ///
    /// The answer as it was: it is no stream, or more than one.
    pub fn into_stream(self) -> Result<IncomingStream, Self> {
        match self.0 {
            AnswerForm::Streaming(encoded, mut streams)
                if streams.len() == 1 && encoded.bytes.len() == stream::NAME_BYTES =>
            {
                // INVARIANT: it is one.
                streams.pop().ok_or(Self(AnswerForm::Streaming(encoded, streams)))
            }
            form => Err(Self(form)),
        }
    }

    /// The same result with a list in the place of each stream, once all have ended. At once where there is none. The
    /// deadline of the call does not count for it: whoever waits bounds it.
    ///
    /// # Errors
    ///
    /// How a stream ended, if not well; a fault `TooLarge` when all items together are above `bytes_max`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the streams, which tells their writers.
    pub async fn collected(self, bytes_max: u64) -> Result<Self, CallError> {
        match self.0 {
            AnswerForm::Streaming(encoded, streams) => {
                Ok(Self::encoded(stream::collect(encoded, streams, bytes_max).await?))
            }
            form => Ok(Self(form)),
        }
    }

    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (Encoded, Vec<IncomingStream>) {
        match self.0 {
            AnswerForm::Streaming(encoded, streams) => (encoded, streams),
            _ => panic!("nothing follows it"),
        }
    }

    /// A result that stayed in the process.
    #[must_use]
    pub fn typed<T: Message>(value: T) -> Self {
        Self(AnswerForm::Typed(Box::new(value), |value| match value.downcast_ref::<T>() {
            Some(value) => Encoded::from_value(value),
            None => Encoded::from_value(&()),
        }))
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: the extension answered with something else than the interface says.
    pub fn decode<T: Message>(self) -> Result<T, DecodeError> {
        match self.0 {
            AnswerForm::Encoded(encoded) => encoded.decode(),
            AnswerForm::Small(small) => decode(small.codec, small.as_slice()),
            AnswerForm::Streaming(encoded, streams) => stream::claiming(streams, || encoded.decode()),
            AnswerForm::Typed(value, _) => {
                value.downcast().map(|value| *value).map_err(|_| DecodeError::Type)
            }
        }
    }

    /// The value of a method that takes the fast codec: in whichever codec it came.
    ///
    /// # Errors
    ///
    /// As [`Self::decode`].
    #[cfg(feature = "wincode")]
    pub fn decode_fast<T: Message + crate::codec::FastBody>(self) -> Result<T, DecodeError> {
        match self.0 {
            AnswerForm::Encoded(encoded) if encoded.codec == Codec::Wincode => {
                crate::codec::decode(&encoded.bytes).map_err(DecodeError::Fast)
            }
            AnswerForm::Small(small) if small.codec == Codec::Wincode => {
                crate::codec::decode(small.as_slice()).map_err(DecodeError::Fast)
            }
            form => Self(form).decode(),
        }
    }

    /// The result as bytes.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]: a typed result's `Serialize` failed, or items follow: take it [`Self::collected`].
    pub fn into_encoded(self) -> Result<Encoded, EncodeError> {
        match self.0 {
            AnswerForm::Encoded(encoded) => Ok(encoded),
            AnswerForm::Small(small) => Ok(small.to_encoded()),
            AnswerForm::Streaming(..) => {
                let why = "the result has streams, and bytes alone were asked for".to_owned();
                Err(EncodeError(rmp_serde::encode::Error::Syntax(why)))
            }
            AnswerForm::Typed(value, encode) => encode(&*value),
        }
    }
}

/// Why a call did not succeed, and whether it may have run.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The extension answered that the call failed, or the host refused it in the same terms. Made with
    /// [`From`], which tells [`Self::Cancelled`] apart.
    #[error(transparent)]
    Fault(Fault),
    /// The bytes were never visible to the extension: calling again is safe.
    #[error("the call was not delivered: {0}")]
    NotDelivered(Cause),
    /// Delivered, and then the extension died, the deadline passed or the channel broke: it may have run.
    #[error("the outcome is unknown: {0}")]
    Unknown(Cause),
    /// Refused before it was sent: too much at once, or not to be had now.
    #[error("the call was rejected: {reason}")]
    Rejected {
        /// Why.
        reason: String,
        /// When it may be tried again; `None`: not without changing something.
        retry_after: Option<Duration>,
    },
    /// The extension gave the call up as cancelled ([`FaultCode::Cancelled`]) while its caller still waited:
    /// by its own decision, or because somebody between the two cancelled. It may have run in part. Not the
    /// outcome of a dropped [`crate::Reply`], which has none.
    #[error("the call was cancelled")]
    Cancelled,
    /// The arguments could not be encoded. The caller's fault; nothing was sent.
    #[error("the arguments could not be encoded")]
    Encode(#[from] EncodeError),
    /// The extension answered with something else than the interface says.
    #[error("the answer could not be decoded")]
    Decode(#[from] DecodeError),
}

impl From<Fault> for CallError {
    /// What a caller who still waits learns of a fault.
    fn from(fault: Fault) -> Self {
        if fault.code == FaultCode::Cancelled { Self::Cancelled } else { Self::Fault(fault) }
    }
}

/// What stood between a call and its answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The deadline passed before the extension, which is named, was ready.
    #[error("the deadline passed while `{0}` was starting")]
    DeadlineAtStart(String),
    /// The extension's process ended; the host says how.
    #[error("the extension ended: {0}")]
    Died(String),
    /// The extension no longer answered and was ended; in what way.
    #[error("the extension hung: {0}")]
    Hung(String),
    /// The extension broke the protocol and was ended.
    #[error("the extension broke the protocol: {0}")]
    ProtocolViolation(String),
    /// The extension ended too often, or in a way after which it must not be started again: it is left alone.
    #[error("{reason}")]
    Broken {
        /// Which extension, and how it ended.
        reason: String,
        /// When a call may have it tried again; `None`: not without changing something.
        retry_after: Option<Duration>,
    },
    /// The connection was closed from this side.
    #[error("the connection was closed: {0}")]
    Closed(String),
    /// What the host told the extension that made the call.
    #[error("{0}")]
    Told(String),
}

impl Cause {
    /// The cause as one word, for `--json` and retry rules: `timeout`, `crashed`, `hang`,
    /// `protocol-violation`, `broken`, `closed`, `told`.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Deadline | Self::DeadlineAtStart(_) => "timeout",
            Self::Died(_) => "crashed",
            Self::Hung(_) => "hang",
            Self::ProtocolViolation(_) => "protocol-violation",
            Self::Broken { .. } => "broken",
            Self::Closed(_) => "closed",
            Self::Told(_) => "told",
        }
    }
}
