//! Artifacts for an extension: opened for reading, or made of memory that it fills within one call.
//!
//! ```text
//! create --memory and its number--> filled by the extension --commit--> an artifact
//!                                      \--the call is over--> given up
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ipc_protocol::control::DescriptorGrant;
use ipc_protocol::host_call::{ArtifactInfo, PURPOSE_ARTIFACT};
use ipc_protocol::{Fault, FaultCode};
use ipc_transport::connection::{HostAnswer, HostGrant};
use parking_lot::Mutex;

use super::{busy, fault, kept, result};
use crate::extension::Extension;
use crate::manifest::Artifacts;
use crate::storage::{NewArtifact, OpenedArtifact};

/// LIMIT: artifacts that one instance of an extension fills at the same time.
const FILLED_MAX: usize = 64;

/// What one instance fills.
#[derive(Clone, Default)]
pub(super) struct Filled(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    last: u64,
    /// By their numbers, with the call that each belongs to.
    memories: HashMap<u64, (u64, Box<dyn NewArtifact>)>,
    /// Places for those that are being made.
    reserved: usize,
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filled").field(&self.0.lock().memories.len()).finish()
    }
}

/// A place in the table, until it is taken or dropped.
struct Place(Arc<Mutex<Table>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().reserved -= 1;
    }
}

impl Filled {
    fn reserve(&self) -> Result<Place, Fault> {
        let mut table = self.0.lock();
        if table.memories.len() + table.reserved >= FILLED_MAX {
            return Err(busy(format!("{FILLED_MAX} artifacts are being filled already")));
        }
        table.reserved += 1;
        Ok(Place(Arc::clone(&self.0)))
    }

    fn insert(&self, serves: u64, memory: Box<dyn NewArtifact>) -> u64 {
        let mut table = self.0.lock();
        table.last += 1;
        let number = table.last;
        table.memories.insert(number, (serves, memory));
        number
    }

    fn take(&self, serves: u64, number: u64) -> Option<Box<dyn NewArtifact>> {
        let mut table = self.0.lock();
        let is_its_own = table.memories.get(&number).is_some_and(|(of, _)| *of == serves);
        let taken = if is_its_own { table.memories.remove(&number) } else { None };
        taken.map(|(_, memory)| memory)
    }

    /// Gives up what belongs to a call that is over; all of it if the connection is.
    pub(super) fn give_up(&self, serves: Option<u64>) {
        let mut gone = Vec::new();
        let mut table = self.0.lock();
        let numbers: Vec<u64> = table
            .memories
            .iter()
            .filter(|(_, (of, _))| serves.is_none_or(|serves| serves == *of))
            .map(|(number, _)| *number)
            .collect();
        gone.extend(numbers.iter().filter_map(|number| table.memories.remove(number)));
        // What is dropped is foreign code.
        drop(table);
        drop(gone);
    }
}

/// Whether the extension's manifest lets it do this with artifacts.
pub(super) fn check(caller: &Extension, needed: Artifacts) -> Result<(), Fault> {
    let has = caller.manifest.permissions.artifacts;
    let (what, key) = match needed {
        Artifacts::ReadWrite => ("make artifacts", "\"read-write\""),
        Artifacts::Read | Artifacts::None => ("read artifacts", "\"read\""),
    };
    if has == Artifacts::ReadWrite || has == needed {
        return Ok(());
    }
    let file = caller.manifest.file.display();
    let message = format!(
        "extension `{}` may not {what}: say `artifacts = {key}` in `[permissions]` of {file}",
        caller.name
    );
    Err(fault(FaultCode::PermissionDenied, message))
}

pub(super) async fn open(caller: &Extension, artifact: String) -> Result<HostAnswer, Fault> {
    check(caller, Artifacts::Read)?;
    let name = Arc::clone(&caller.name);
    let opened = kept(caller, move |storage| storage.open_artifact(&name, &artifact)).await?;
    let OpenedArtifact { info, descriptor } = opened;
    let grant = DescriptorGrant::new(PURPOSE_ARTIFACT, 0, info.bytes);
    Ok(HostAnswer { result: result(&info)?, grant: Some(HostGrant { descriptor, grant }) })
}

pub(super) async fn create(
    caller: &Extension,
    filled: &Filled,
    serves: u64,
    bytes: u64,
) -> Result<HostAnswer, Fault> {
    check(caller, Artifacts::ReadWrite)?;
    let _place = filled.reserve()?;
    let name = Arc::clone(&caller.name);
    let memory = kept(caller, move |storage| storage.create_artifact(&name, bytes)).await?;
    let descriptor = memory.descriptor()?;
    let number = filled.insert(serves, memory);
    let mut grant = DescriptorGrant::new(PURPOSE_ARTIFACT, 0, bytes);
    grant.writable = true;
    Ok(HostAnswer { result: result(&number)?, grant: Some(HostGrant { descriptor, grant }) })
}

pub(super) async fn commit(
    caller: &Extension,
    filled: &Filled,
    serves: u64,
    (number, name): (u64, Option<String>),
) -> Result<ArtifactInfo, Fault> {
    check(caller, Artifacts::ReadWrite)?;
    let Some(memory) = filled.take(serves, number) else {
        let message = format!("this call fills no artifact with the number {number}");
        return Err(fault(FaultCode::NotFound, message));
    };
    kept(caller, move |_| memory.commit(name.as_deref())).await
}
