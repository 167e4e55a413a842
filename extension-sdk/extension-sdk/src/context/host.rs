//! What a method may ask of the host: other extensions, and the state that is kept for this one.
//!
//! It must not know how the host is reached.

use std::fmt;

use ipc_protocol::host_call::{self, ExtensionCall};
use ipc_protocol::{Fault, FaultCode};
use ipc_transport::payload::encode_into;
use ipc_transport::{CallError, Caller, Encoded, Message, Reply, Request};
use serde::Serialize;

use super::Context;
use crate::blob::Blob;
use crate::block_on::block_on;

impl Context {
    /// The way to another extension, within this call: for a typed client, `FileExplorerClient::new(cx.extension("file-explorer")?)`.
    ///
    /// The host routes each call, if the manifest permits it (`permissions.calls = ["file-explorer"]`): it starts the
    /// other extension where it does not run, and makes a call again where that is safe. No call takes longer than this
    /// one may; when this one ends or is cancelled, so are those that were made within it. A method waits with
    /// [`Call::wait`](crate::Call::wait), an async one with `.await`.
    ///
    /// ```no_run
    /// # #[extension_sdk::interface]
    /// # pub trait Greeter {
    /// #     /// Greets.
    /// #     fn greet(&self, name: String) -> Result<String, extension_sdk::Fault>;
    /// # }
    /// use extension_sdk::{Context, Fault};
    ///
    /// fn greet_twice(cx: &Context) -> Result<String, Fault> {
    ///     let greeter = GreeterClient::new(cx.extension("greeter")?);
    ///     let (first, second) = (greeter.greet("Ada".into()), greeter.greet("Grace".into()));
    ///     Ok(format!("{} {}", first.wait()?, second.wait()?))
    /// }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    ///
    /// [`FaultCode::Unsupported`]: the host cannot be asked, for instance because this extension runs in its process.
    /// Whether there is such an extension, and whether it may be called, shows at the call:
    /// [`FaultCode::NotFound`], [`FaultCode::PermissionDenied`]. Extensions that call each other in a circle end with
    /// [`FaultCode::TooDeep`].
    pub fn extension(&self, name: &str) -> Result<OtherExtension, Fault> {
        self.offered(host_call::CALL)?;
        Ok(OtherExtension { cx: self.clone(), name: name.to_owned() })
    }

    /// The state that the host keeps for this extension, over restarts of both.
    #[must_use]
    pub fn state(&self) -> State<'_> {
        State { cx: self }
    }

    pub(super) fn offered(&self, method: &str) -> Result<(), Fault> {
        if self.sink.offers(method) { Ok(()) } else { Err(crate::serve::unsupported(method)) }
    }

    /// Calls the host and waits for its answer.
    pub(super) fn ask<A: Serialize, R: Message>(
        &self,
        method: &'static str,
        arguments: &A,
    ) -> Result<R, Fault> {
        self.offered(method)?;
        let mut body = Vec::new();
        encode_into(arguments, &mut body).map_err(CallError::from)?;
        let answer = block_on(self.sink.call_host(self.call.id, method, body))?;
        Ok(answer.decode().map_err(CallError::from)?)
    }
}

/// The way to another extension, within one call: see [`Context::extension`].
///
/// # Concurrency
///
/// Several calls may be under way at once. It is of no use after its call has been answered.
#[derive(Clone)]
pub struct OtherExtension {
    cx: Context,
    name: String,
}

impl fmt::Debug for OtherExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtherExtension").field("name", &self.name).field("within", &self.cx).finish()
    }
}

impl Caller for OtherExtension {
    fn call(&self, request: Request<'_>) -> Reply {
        let begun = request.payload.into_encoded().map_err(CallError::from).and_then(|arguments| {
            let left = request.deadline.saturating_duration_since(request.made_at);
            let mut call = ExtensionCall::new(self.name.as_str(), request.method, arguments.bytes.into());
            // Zero would mean that there is no bound.
            call.timeout_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1);
            let mut body = Vec::new();
            encode_into(&call, &mut body)?;
            Ok(body)
        });
        match begun {
            Ok(body) => self.cx.sink.call_host(self.cx.call.id, host_call::CALL, body),
            Err(error) => Reply::ready(Err(error)),
        }
    }
}

/// The state that the host keeps for an extension: a few bytes, or a value, over restarts of both. See
/// [`Context::state`].
///
/// There is one for all instances and calls of the extension, and what is written last counts.
///
/// ```no_run
/// use extension_sdk::{Context, Fault};
///
/// fn count(cx: &Context) -> Result<u64, Fault> {
///     let count = cx.state().get::<u64>()?.unwrap_or(0) + 1;
///     cx.state().put(&count)?;
///     Ok(count)
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    cx: &'a Context,
}

impl State<'_> {
    /// The bytes that were put last; `None` if there are none.
    ///
    /// # Errors
    ///
    /// [`FaultCode::Unsupported`]: this host keeps nothing. What the host says where it cannot read.
    pub fn bytes(&self) -> Result<Option<Vec<u8>>, Fault> {
        let bytes: Option<Blob> = self.cx.ask(host_call::GET_STATE, &())?;
        Ok(bytes.map(|Blob(bytes)| bytes))
    }

    /// Keeps these bytes in the place of what was kept before. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`FaultCode::TooLarge`]: more than [`STATE_BYTES_MAX`](ipc_protocol::limits::STATE_BYTES_MAX). Otherwise as
    /// [`Self::bytes`]; what was kept before stays.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(), Fault> {
        self.cx.ask(host_call::PUT_STATE, &Blob(bytes.to_vec()))
    }

    /// The value that was put last.
    ///
    /// # Errors
    ///
    /// [`FaultCode::Failed`]: what is kept is no such value. Otherwise as [`Self::bytes`].
    pub fn get<T: Message>(&self) -> Result<Option<T>, Fault> {
        let Some(bytes) = self.bytes()? else { return Ok(None) };
        let value = Encoded::message_pack(bytes).decode();
        value
            .map(Some)
            .map_err(|error| Fault::new(FaultCode::Failed, format!("the state is another value: {error}")))
    }

    /// Keeps a value, as MessagePack.
    ///
    /// # Errors
    ///
    /// As [`Self::put_bytes`].
    pub fn put<T: Serialize>(&self, value: &T) -> Result<(), Fault> {
        let encoded = Encoded::from_value(value).map_err(CallError::from)?;
        self.put_bytes(&encoded.bytes)
    }
}
