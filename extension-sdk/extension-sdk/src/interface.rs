//! What the attribute macros generate is made of: an interface as a table of its methods.
//!
//! A table is generic over the implementing type and holds plain function pointers; it becomes one object per
//! extension in `service`. This module must not know processes or sockets.

use ipc_protocol::{Codec, Fault, FaultCode};
use ipc_transport::Message;
#[cfg(feature = "fast")]
use ipc_transport::codec::{self, FastBody};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::schema::Schemas;

/// One interface, as `T` implements it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Interface<T> {
    pub name: &'static str,
    pub documentation: &'static str,
    pub methods: Vec<Method<T>>,
}

/// Runs a method on encoded arguments and appends the encoded result.
pub(crate) type Run<T> = fn(&T, &Context, &[u8], &mut Vec<u8>) -> Result<(), Fault>;

/// As [`Run`], in the fast codec. The result goes as MessagePack where it would not fit that many bytes otherwise.
pub(crate) type RunFast<T> = fn(&T, &Context, &[u8], u64, &mut Vec<u8>) -> Result<Codec, Fault>;

/// One method of an interface, as `T` implements it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Method<T> {
    pub name: &'static str,
    pub documentation: &'static str,
    pub is_idempotent: bool,
    pub is_pure: bool,
    pub is_async: bool,
    pub schemas: fn() -> Schemas,
    pub run: Run<T>,
    pub fast: Option<RunFast<T>>,
}

/// What can be an argument or a result. Implemented for every type that qualifies.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument or a result of an interface's method",
    label = "not a message",
    note = "put `#[extension_sdk::message]` on its definition; a type of another crate needs `Serialize`, \
            `Deserialize`, `JsonSchema` and `Send`"
)]
pub trait Sendable: Message + JsonSchema {}

impl<T: Message + JsonSchema> Sendable for T {}

/// What can be a part of a message or one of several arguments. Generated code asks for it at the part's own place,
/// before the derives do, whose errors do not say what to write.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent in a message",
    label = "not a message",
    note = "put `#[extension_sdk::message]` on its definition; a type of another crate needs `Serialize`, \
            `Deserialize` and `JsonSchema`, or a `#[serde(with = \"...\")]` and `#[schemars(with = \"...\")]` here"
)]
pub trait Part: Serialize + DeserializeOwned + JsonSchema {}

impl<T: Serialize + DeserializeOwned + JsonSchema> Part for T {}

/// Asks for [`Part`].
#[doc(hidden)]
pub const fn is_part<T: Part>() {}

/// Appends a method's result.
///
/// # Errors
///
/// [`FaultCode::Failed`]: the type's `Serialize` failed.
#[doc(hidden)]
pub fn encode_result<T: Sendable>(result: &T, out: &mut Vec<u8>) -> Result<(), Fault> {
    ipc_transport::payload::encode_into(result, out).map_err(|error| {
        Fault::new(FaultCode::Failed, format!("the result could not be encoded: {}", error.0))
    })
}

/// Decodes the arguments of a call in the fast codec.
///
/// # Errors
///
/// [`FaultCode::InvalidArgument`]: the bytes are something else. The caller's fault.
#[doc(hidden)]
#[cfg(feature = "fast")]
pub fn decode_fast<A: Sendable + FastBody>(body: &[u8]) -> Result<A, Fault> {
    codec::decode(body)
        .map_err(|error| Fault::new(FaultCode::InvalidArgument, format!("wrong arguments: {error}")))
}

/// Appends a method's result in the fast codec if it fits it, else as MessagePack. Returns which it is.
///
/// # Errors
///
/// As [`encode_result`].
#[doc(hidden)]
#[cfg(feature = "fast")]
pub fn encode_fast_result<T: Sendable + FastBody>(
    result: &T,
    bytes_max: u64,
    out: &mut Vec<u8>,
) -> Result<Codec, Fault> {
    let before = out.len();
    if codec::encode(result, out).is_ok() {
        if (out.len() - before) as u64 <= bytes_max {
            return Ok(Codec::Wincode);
        }
        // Small numbers are shorter in MessagePack.
        out.truncate(before);
    }
    encode_result(result, out)?;
    Ok(Codec::MessagePack)
}

#[cfg(test)]
mod tests {
    use ipc_transport::Encoded;

    /// Cannot be sent by itself.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Local;

    impl From<u8> for Converted {
        fn from(_: u8) -> Self {
            Self(Local)
        }
    }

    impl From<Converted> for u8 {
        fn from(_: Converted) -> Self {
            7
        }
    }

    #[extension_sdk::message]
    #[derive(Clone, Debug, PartialEq)]
    #[serde(from = "u8", into = "u8")]
    #[schemars(with = "u8")]
    struct Converted(Local);

    #[extension_sdk::message]
    #[derive(Debug, PartialEq)]
    struct Odd {
        #[serde(skip)]
        local: Local,
        #[cfg(any())]
        gone: Nowhere,
        child: Option<Box<Self>>,
        siblings: Vec<Odd>,
        converted: Converted,
    }

    #[extension_sdk::message]
    #[derive(Debug, PartialEq)]
    enum Choice {
        #[serde(skip)]
        Never(Local),
        Always(Odd),
    }

    #[test]
    fn parts_that_are_not_sent_as_they_are_need_not_be_messages() {
        let odd = |child| Odd { local: Local, child, siblings: Vec::new(), converted: Converted(Local) };
        let choice = Choice::Always(odd(Some(Box::new(odd(None)))));
        let sent = Encoded::from_value(&choice).unwrap();
        assert_eq!(sent.decode::<Choice>().unwrap(), choice);
        assert!(Encoded::from_value(&Choice::Never(Local)).is_err());
    }
}
