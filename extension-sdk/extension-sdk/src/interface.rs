//! What the attribute macros generate is made of: an interface as a table of its methods.
//!
//! A table is generic over the implementing type and holds plain function pointers; it becomes one object per
//! extension in `service`. This module must not know processes or sockets.

use ipc_protocol::{Fault, FaultCode};
use ipc_transport::Message;
use schemars::JsonSchema;

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
