//! Artifacts of a method: read as mapped bytes, or filled in place. Nothing of them goes through the channel.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;

use ipc_protocol::control::DescriptorGrant;
use ipc_protocol::host_call::{
    self, ArtifactInfo, CommitArtifact, CreateArtifact, OpenArtifact, PURPOSE_ARTIFACT,
};
use ipc_protocol::{Fault, FaultCode, Origin};
use ipc_transport::payload::encode_into;
use ipc_transport::{CallError, Message};
use serde::Serialize;

use super::Context;
use crate::mapping::{ReadOnly, Writable};

impl Context {
    /// An artifact, mapped: its bytes are those of the store, and are not copied. `artifact` is its digest in hexadecimal
    /// digits, or its name. The manifest must say `artifacts = "read"` or `"read-write"`.
    ///
    /// ```no_run
    /// # use extension_sdk::{Context, Fault};
    /// fn count_lines(cx: &Context, artifact: String) -> Result<usize, Fault> {
    ///     let text = cx.artifact_in(&artifact)?;
    ///     Ok(text.split(|&byte| byte == b'\n').count())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`FaultCode::NotFound`], [`FaultCode::PermissionDenied`]; [`FaultCode::Unsupported`] where the host keeps none, or
    /// this extension runs in its process; [`FaultCode::Io`] if it cannot be mapped.
    pub fn artifact_in(&self, artifact: &str) -> Result<ArtifactIn, Fault> {
        let (info, grant, descriptor) =
            self.ask_for_grant::<_, ArtifactInfo>(host_call::OPEN_ARTIFACT, &OpenArtifact::new(artifact))?;
        let mapping = ReadOnly::new(descriptor, grant.bytes).map_err(cannot_map)?;
        Ok(ArtifactIn { info, mapping })
    }

    /// Memory for a new artifact of `bytes` bytes, to be filled in place: zeros at first. It becomes an artifact when it is
    /// committed, within this call; dropped, it is given up. The manifest must say `artifacts = "read-write"`.
    ///
    /// ```no_run
    /// # use extension_sdk::{Context, Fault};
    /// fn reverse(cx: &Context, artifact: String) -> Result<String, Fault> {
    ///     let input = cx.artifact_in(&artifact)?;
    ///     let mut output = cx.artifact_out(input.len() as u64)?;
    ///     for (to, from) in output.iter_mut().zip(input.iter().rev()) {
    ///         *to = *from;
    ///     }
    ///     Ok(output.commit()?.digest)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::artifact_in`]; [`FaultCode::Busy`] if too many are being filled, [`FaultCode::TooLarge`] without room.
    pub fn artifact_out(&self, bytes: u64) -> Result<ArtifactOut, Fault> {
        let (number, grant, descriptor) =
            self.ask_for_grant(host_call::CREATE_ARTIFACT, &CreateArtifact::new(bytes))?;
        let mapping = Writable::new(descriptor, grant.bytes).map_err(cannot_map)?;
        Ok(ArtifactOut { cx: self.clone(), number, mapping })
    }

    fn ask_for_grant<A: Serialize, R: Message>(
        &self,
        method: &'static str,
        arguments: &A,
    ) -> Result<(R, DescriptorGrant, OwnedFd), Fault> {
        self.offered(method)?;
        let mut body = Vec::new();
        encode_into(arguments, &mut body).map_err(CallError::from)?;
        let (answer, grant) = self.sink.call_host_for_grant(self.call.id, method, body)?;
        let granted = grant.filter(|(grant, _)| grant.purpose == PURPOSE_ARTIFACT);
        let (grant, descriptor) = granted.ok_or_else(|| {
            Fault::new(FaultCode::ProtocolViolation, "the host named an artifact and granted none")
                .with_origin(Origin::Transport)
        })?;
        Ok((answer.decode().map_err(CallError::from)?, grant, descriptor))
    }
}

fn cannot_map(error: io::Error) -> Fault {
    Fault::new(FaultCode::Io, format!("the artifact cannot be mapped: {error}"))
}

/// An artifact that is read: its bytes, mapped. It may outlive the call.
pub struct ArtifactIn {
    info: ArtifactInfo,
    mapping: ReadOnly,
}

impl ArtifactIn {
    /// Its digest in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.info.digest
    }
}

impl Deref for ArtifactIn {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.as_bytes()
    }
}

impl fmt::Debug for ArtifactIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactIn").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Memory that becomes an artifact: see [`Context::artifact_out`].
#[must_use = "dropped, it is given up"]
pub struct ArtifactOut {
    cx: Context,
    number: u64,
    mapping: Writable,
}

impl ArtifactOut {
    /// Makes it an artifact for a while: one that was not copied, that no disk has seen, and that the host forgets when
    /// others need the room. For what is passed on to the next step.
    ///
    /// # Errors
    ///
    /// What the host says; the bytes are lost then.
    pub fn commit(self) -> Result<ArtifactInfo, Fault> {
        self.commit_to(None)
    }

    /// Makes it durable under `name`, among the names of this extension. Whatever had the name before stays, without it.
    ///
    /// # Errors
    ///
    /// What the host says; the bytes are lost then.
    pub fn commit_as(self, name: &str) -> Result<ArtifactInfo, Fault> {
        self.commit_to(Some(name.to_owned()))
    }

    fn commit_to(self, name: Option<String>) -> Result<ArtifactInfo, Fault> {
        let Self { cx, number, mapping } = self;
        // The host can take it as it is only if nobody can write to it any longer.
        drop(mapping);
        cx.ask(host_call::COMMIT_ARTIFACT, &CommitArtifact::new(number, name))
    }
}

impl Deref for ArtifactOut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.as_bytes()
    }
}

impl DerefMut for ArtifactOut {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.mapping.as_bytes_mut()
    }
}

impl fmt::Debug for ArtifactOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactOut").field("bytes", &self.len()).finish_non_exhaustive()
    }
}
