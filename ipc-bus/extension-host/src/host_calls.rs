//! What an extension asks of its host within a call: another extension, the state that is kept for it, artifacts.
//!
//! ```text
//! extension A --HostCall--> permitted? deep? --> Route of B, as for anybody --> its outcome, as a fault where it failed
//!                                          \--> Storage, on a thread that may block
//! ```
//!
//! It must not know how a host call travels, or what an extension's method means.

mod artifacts;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc_protocol::host_call::{self, CommitArtifact, CreateArtifact, ExtensionCall, OpenArtifact};
use ipc_protocol::limits::{CALL_DEPTH_MAX, STATE_BYTES_MAX};
use ipc_protocol::{Fault, FaultCode, Origin, Retry};
use ipc_transport::connection::{HostCall, HostCallFuture, HostCalls};
use ipc_transport::scan::scan;
use ipc_transport::stream::whole;
use ipc_transport::{CallError, Caller, Encoded, OnOverload, Payload, Request};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use crate::diagnostic::closest;
use crate::extension::Extension;
use crate::route::Route;
use crate::storage::{Storage, no_storage};
use artifacts::Filled;

/// What an extension should wait before it asks again, if there was too much at once.
const RETRY_AFTER_MS: u32 = 10;

/// What the host can be asked for, in the order of the table that extensions are told.
const METHODS: [(&str, Method); 6] = [
    (host_call::CALL, Method::Call),
    (host_call::GET_STATE, Method::GetState),
    (host_call::PUT_STATE, Method::PutState),
    (host_call::OPEN_ARTIFACT, Method::OpenArtifact),
    (host_call::CREATE_ARTIFACT, Method::CreateArtifact),
    (host_call::COMMIT_ARTIFACT, Method::CommitArtifact),
];

#[derive(Clone, Copy, Debug)]
enum Method {
    Call,
    GetState,
    PutState,
    OpenArtifact,
    CreateArtifact,
    CommitArtifact,
}

/// The host, as one extension may use it.
pub(crate) struct HostMethods {
    caller: Arc<Extension>,
    filled: Filled,
}

impl fmt::Debug for HostMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostMethods").field(&self.caller.name).finish()
    }
}

impl HostMethods {
    pub(crate) fn new(caller: &Arc<Extension>) -> Self {
        Self { caller: Arc::clone(caller), filled: Filled::default() }
    }
}

impl HostCalls for HostMethods {
    fn methods(&self) -> Vec<String> {
        METHODS.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn run(&self, call: HostCall) -> HostCallFuture {
        let (caller, filled) = (Arc::clone(&self.caller), self.filled.clone());
        Box::pin(async move {
            let Some((_, method)) = METHODS.get(call.method as usize) else {
                return Err(fault(FaultCode::UnknownMethod, "the host has no such method"));
            };
            let answered = match method {
                Method::Call => pass_on(&caller, call).await?,
                Method::GetState => {
                    let name = Arc::clone(&caller.name);
                    let state = kept(&caller, move |storage| storage.state(&name)).await?;
                    result(&state.map(ByteBuf::from))?
                }
                Method::PutState => {
                    put_state(&caller, arguments(&call)?).await?;
                    result(&())?
                }
                Method::OpenArtifact => {
                    let OpenArtifact { artifact, .. } = arguments(&call)?;
                    return artifacts::open(&caller, artifact).await;
                }
                Method::CreateArtifact => {
                    let CreateArtifact { bytes, .. } = arguments(&call)?;
                    return artifacts::create(&caller, &filled, call.serves, bytes).await;
                }
                Method::CommitArtifact => {
                    let CommitArtifact { artifact, name, .. } = arguments(&call)?;
                    result(&artifacts::commit(&caller, &filled, call.serves, (artifact, name)).await?)?
                }
            };
            Ok(answered.into())
        })
    }

    fn over(&self, serves: Option<u64>) {
        self.filled.give_up(serves);
    }
}

async fn put_state(caller: &Extension, state: ByteBuf) -> Result<(), Fault> {
    let length = state.len() as u64;
    if length > STATE_BYTES_MAX {
        let message = format!("a state of {length} bytes is above the limit of {STATE_BYTES_MAX} bytes");
        return Err(fault(FaultCode::TooLarge, message));
    }
    let name = Arc::clone(&caller.name);
    kept(caller, move |storage| storage.put_state(&name, &state)).await
}

fn busy(message: String) -> Fault {
    fault(FaultCode::Busy, message).with_retry(Retry::AfterMs(RETRY_AFTER_MS))
}

fn fault(code: FaultCode, message: impl Into<String>) -> Fault {
    Fault::new(code, message).with_origin(Origin::Host)
}

fn arguments<T: DeserializeOwned>(call: &HostCall) -> Result<T, Fault> {
    let wrong = |what: &dyn fmt::Display| {
        fault(FaultCode::InvalidArgument, format!("the host call's arguments are wrong: {what}"))
    };
    // Before anything is built from them: how deep they nest is the extension's choice.
    scan(&call.arguments).map_err(|error| wrong(&error))?;
    Encoded::message_pack(call.arguments.clone()).decode().map_err(|error| wrong(&error))
}

fn result<T: serde::Serialize>(value: &T) -> Result<Encoded, Fault> {
    Encoded::from_value(value).map_err(|error| fault(FaultCode::Failed, error.to_string()))
}

/// Asks whoever keeps things.
async fn kept<T: Send + 'static>(
    caller: &Extension,
    ask: impl FnOnce(&dyn Storage) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let storage = caller.host.storage.clone().ok_or_else(no_storage)?;
    match tokio::task::spawn_blocking(move || ask(&*storage)).await {
        Ok(asked) => asked,
        Err(_) => Err(fault(FaultCode::Failed, "the host failed while it asked its storage")),
    }
}

/// The other extension, if the caller may call it.
fn find(caller: &Extension, name: &str) -> Result<Route, Fault> {
    let permitted = &caller.manifest.permissions.calls;
    if !permitted.iter().any(|other| other == name) {
        let file = caller.manifest.file.display();
        let message = format!(
            "extension `{}` may not call `{name}`: name it in `permissions.calls` of {file}",
            caller.name
        );
        return Err(fault(FaultCode::PermissionDenied, message));
    }
    let table = caller.host.table.upgrade().map(|table| table.load_full()).unwrap_or_default();
    table.get(name).cloned().map(Route::new).ok_or_else(|| {
        let meant = closest(name, table.keys().map(AsRef::as_ref));
        let hint = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        fault(FaultCode::NotFound, format!("there is no extension `{name}`{hint}"))
    })
}

async fn pass_on(caller: &Extension, call: HostCall) -> Result<Encoded, Fault> {
    let ExtensionCall { extension, method, timeout_us, arguments: bytes, .. } = arguments(&call)?;
    let route = find(caller, &extension)?;
    if call.depth >= CALL_DEPTH_MAX {
        let message = format!(
            "extension `{}` calls `{extension}` within {} calls of extensions, one within the other, and no more are \
             allowed: perhaps they call each other in a circle",
            caller.name, call.depth
        );
        return Err(fault(FaultCode::TooDeep, message));
    }
    let now = Instant::now();
    let timeout = if timeout_us == 0 { Duration::MAX } else { Duration::from_micros(timeout_us) };
    let deadline = now.checked_add(timeout).map_or(call.deadline, |until| until.min(call.deadline));
    let reply = route.call(Request {
        method: &method,
        payload: Payload::Encoded(Encoded::message_pack(bytes)),
        deadline,
        made_at: now,
        on_overload: OnOverload::Wait,
        retry_log: None,
        progress: None,
        depth: call.depth + 1,
    });
    // The channel to the one that asks has no streams of another's: it gets lists.
    let answer = whole(reply, deadline).await.map_err(|error| match error {
        // What the other extension says goes back as it is.
        CallError::Fault(fault) => fault,
        error => {
            let told = Fault::from(error);
            fault(told.code, format!("extension `{extension}`: {}", told.message)).with_retry(told.retry)
        }
    })?;
    answer.into_encoded().map_err(|error| fault(FaultCode::Failed, error.to_string()))
}
