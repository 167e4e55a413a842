//! A host for one call of a test: other extensions, state and artifacts, as the test puts them there. No process, no
//! channel, no store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ipc_protocol::control::DescriptorGrant;
use ipc_protocol::host_call::{
    self, ArtifactInfo, CommitArtifact, CreateArtifact, ExtensionCall, OpenArtifact, PURPOSE_ARTIFACT,
};
use ipc_protocol::limits::STATE_BYTES_MAX;
use ipc_protocol::{Fault, FaultCode, Origin};
use ipc_transport::{Answer, CallError, Caller, Encoded, Payload, Reply, Request};
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::blob::Blob;
use crate::context::Grant;

const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// What the method under test finds.
#[derive(Default)]
pub(super) struct FakeHost {
    pub(super) extensions: BTreeMap<String, Arc<dyn Caller>>,
    pub(super) state: Mutex<Option<Vec<u8>>>,
    pub(super) artifacts: Mutex<BTreeMap<String, Vec<u8>>>,
    filled: Mutex<Vec<Option<File>>>,
}

fn fault(code: FaultCode, message: impl Into<String>) -> Fault {
    Fault::new(code, message).with_origin(Origin::Host)
}

fn arguments<T: DeserializeOwned>(body: Vec<u8>) -> Result<T, Fault> {
    Encoded::message_pack(body).decode().map_err(|error| fault(FaultCode::InvalidArgument, error.to_string()))
}

fn result<T: Serialize>(value: &T) -> Result<Answer, CallError> {
    Ok(Answer::encoded(Encoded::from_value(value)?))
}

fn memory(bytes: u64) -> io::Result<File> {
    let file = File::from(memfd_create("artifact", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    ftruncate(&file, bytes)?;
    Ok(file)
}

fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = memory(0)?;
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SIZE_SEALS | SealFlags::WRITE)?;
    Ok(file.into())
}

fn no_memory(error: io::Error) -> CallError {
    fault(FaultCode::Io, error.to_string()).into()
}

impl FakeHost {
    pub(super) fn call(&self, method: &str, body: Vec<u8>) -> Reply {
        let answered = match method {
            host_call::CALL => return self.pass_on(body).unwrap_or_else(|error| Reply::ready(Err(error))),
            host_call::GET_STATE => result(&self.state.lock().clone().map(Blob)),
            host_call::PUT_STATE => self.put_state(body),
            host_call::COMMIT_ARTIFACT => self.commit(body),
            other => Err(crate::serve::unsupported(other).into()),
        };
        Reply::ready(answered)
    }

    pub(super) fn call_for_grant(
        &self,
        method: &str,
        body: Vec<u8>,
    ) -> Result<(Answer, Option<Grant>), CallError> {
        match method {
            host_call::OPEN_ARTIFACT => {
                let OpenArtifact { artifact, .. } = arguments(body)?;
                let artifacts = self.artifacts.lock();
                let bytes = artifacts.get(&artifact).ok_or_else(|| {
                    fault(FaultCode::NotFound, format!("the test has no artifact `{artifact}`"))
                })?;
                let length = bytes.len() as u64;
                let grant = DescriptorGrant::new(PURPOSE_ARTIFACT, 0, length);
                let descriptor = sealed(bytes).map_err(no_memory)?;
                Ok((result(&ArtifactInfo::new(artifact, length))?, Some((grant, descriptor))))
            }
            host_call::CREATE_ARTIFACT => {
                let CreateArtifact { bytes, .. } = arguments(body)?;
                let file = memory(bytes).map_err(no_memory)?;
                fcntl_add_seals(&file, SIZE_SEALS).map_err(|error| no_memory(error.into()))?;
                let descriptor = file.try_clone().map_err(no_memory)?;
                let mut filled = self.filled.lock();
                filled.push(Some(file));
                let grant = DescriptorGrant::new(PURPOSE_ARTIFACT, 0, bytes);
                Ok((result(&(filled.len() - 1))?, Some((grant, descriptor.into()))))
            }
            other => Err(crate::serve::unsupported(other).into()),
        }
    }

    fn pass_on(&self, body: Vec<u8>) -> Result<Reply, CallError> {
        let ExtensionCall { extension, method, timeout_us, arguments, .. } = arguments(body)?;
        let Some(other) = self.extensions.get(&extension) else {
            let message = format!("the test has no extension `{extension}`: see `OneCall::with_extension`");
            return Err(fault(FaultCode::PermissionDenied, message).into());
        };
        let payload = Payload::Encoded(Encoded::message_pack(arguments));
        Ok(other.call(Request::new(&method, payload, Duration::from_micros(timeout_us))))
    }

    fn put_state(&self, body: Vec<u8>) -> Result<Answer, CallError> {
        let Blob(state) = arguments(body)?;
        if state.len() as u64 > STATE_BYTES_MAX {
            let message = format!("a state of {} bytes is above the limit of {STATE_BYTES_MAX}", state.len());
            return Err(fault(FaultCode::TooLarge, message).into());
        }
        *self.state.lock() = Some(state);
        result(&())
    }

    fn commit(&self, body: Vec<u8>) -> Result<Answer, CallError> {
        let CommitArtifact { artifact, name, .. } = arguments(body)?;
        let number = usize::try_from(artifact).unwrap_or(usize::MAX);
        let file = self.filled.lock().get_mut(number).and_then(Option::take);
        let mut file = file
            .ok_or_else(|| fault(FaultCode::NotFound, format!("no artifact {artifact} is being filled")))?;
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(no_memory)?;
        let digest = name.unwrap_or_else(|| format!("artifact-{artifact}"));
        let info = ArtifactInfo::new(digest.as_str(), bytes.len() as u64);
        self.artifacts.lock().insert(digest, bytes);
        result(&info)
    }
}
