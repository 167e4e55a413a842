//! What extensions keep, in the artifact store: their state as an artifact with a name, artifacts by digest and name.
//!
//! | what | its name in the store |
//! |---|---|
//! | the state of extension `counter` | `state/counter` |
//! | what it made durable as `table` | `extensions/counter/table` |

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use artifact_store::{
    Artifact, Digest, DiskError, EphemeralMemory, Expected, GetError, NameError, PutError, RoomLimit, Store,
};
use extension_host::{NewArtifact, OpenedArtifact, Storage};
use ipc_protocol::host_call::ArtifactInfo;
use ipc_protocol::{Fault, FaultCode, Origin};
use parking_lot::Mutex;

use crate::pit::open_store;

/// LIMIT: ephemeral artifacts that are kept for whoever reads them next; the oldest goes first. In bytes the store bounds
/// them.
const EPHEMERAL_KEPT_MAX: usize = 256;

/// An artifact store as extensions use it.
pub struct StoreStorage {
    data_dir: PathBuf,
    /// Opened when it is needed first, unless whoever made this had it open.
    store: OnceLock<Store>,
    ephemeral: std::sync::Arc<Mutex<VecDeque<Artifact>>>,
}

impl fmt::Debug for StoreStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreStorage").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

fn fault(code: FaultCode, error: &dyn std::error::Error) -> Fault {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message.push_str(": ");
        message.push_str(&error.to_string());
        source = error.source();
    }
    Fault::new(code, message).with_origin(Origin::Host)
}

fn of_disk(error: &DiskError) -> FaultCode {
    if matches!(error, DiskError::Full { .. }) { FaultCode::TooLarge } else { FaultCode::Io }
}

fn of_put(error: PutError) -> Fault {
    let code = if let PutError::Disk(error) = &error { of_disk(error) } else { FaultCode::Io };
    fault(code, &error)
}

fn of_get(error: GetError) -> Fault {
    let code = if let GetError::Absent { .. } = &error { FaultCode::NotFound } else { FaultCode::Io };
    fault(code, &error)
}

fn of_name(error: NameError) -> Fault {
    let code = match &error {
        NameError::Invalid { .. } => FaultCode::InvalidArgument,
        NameError::Disk(error) => of_disk(error),
        _ => FaultCode::Io,
    };
    fault(code, &error)
}

fn state_name(extension: &str) -> String {
    format!("state/{extension}")
}

fn own_name(extension: &str, name: &str) -> String {
    format!("extensions/{extension}/{name}")
}

impl StoreStorage {
    /// The store of a data folder, which is opened when it is needed first.
    #[must_use]
    pub fn of_folder(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), store: OnceLock::new(), ephemeral: Default::default() }
    }

    /// A store that is open.
    #[must_use]
    pub fn of_store(store: Store) -> Self {
        let data_dir = store.folder().to_owned();
        Self { data_dir, store: OnceLock::from(store), ephemeral: Default::default() }
    }

    fn store(&self) -> Result<&Store, Fault> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let opened = open_store(&self.data_dir).map_err(|error| fault(FaultCode::Io, &error))?;
        Ok(self.store.get_or_init(|| opened))
    }

    fn named(&self, name: &str) -> Result<Option<Artifact>, Fault> {
        let store = self.store()?;
        let Some(named) = store.resolve(name).map_err(of_name)? else { return Ok(None) };
        store.get(&named.digest).map(Some).map_err(of_get)
    }

    fn find(&self, extension: &str, artifact: &str) -> Result<Artifact, Fault> {
        if let Ok(digest) = Digest::from_str(artifact) {
            return self.store()?.get(&digest).map_err(of_get);
        }
        if let Some(own) = self.named(&own_name(extension, artifact))? {
            return Ok(own);
        }
        self.named(artifact)?.ok_or_else(|| {
            let message = format!("there is no artifact `{artifact}`");
            Fault::new(FaultCode::NotFound, message).with_origin(Origin::Host)
        })
    }
}

impl Storage for StoreStorage {
    fn state(&self, extension: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.named(&state_name(extension))?.map(|artifact| artifact.as_bytes().to_vec()))
    }

    fn put_state(&self, extension: &str, state: &[u8]) -> Result<(), Fault> {
        let store = self.store()?;
        let stored = store.put_bytes(state).map_err(of_put)?;
        store.set_name(&state_name(extension), &stored.digest, Expected::Anything).map_err(of_name)?;
        Ok(())
    }

    fn open_artifact(&self, extension: &str, artifact: &str) -> Result<OpenedArtifact, Fault> {
        let found = self.find(extension, artifact)?;
        let descriptor = found.try_clone_fd().map_err(|error| fault(FaultCode::Io, &error))?;
        Ok(OpenedArtifact { info: ArtifactInfo::new(found.digest().to_string(), found.len()), descriptor })
    }

    fn create_artifact(&self, extension: &str, bytes: u64) -> Result<Box<dyn NewArtifact>, Fault> {
        let store = self.store()?;
        let memory = loop {
            match store.create_ephemeral(bytes) {
                Err(PutError::Disk(error)) if is_out_of_memory(&error) => {
                    // What is read no longer makes room.
                    if self.ephemeral.lock().pop_front().is_none() {
                        return Err(of_put(error.into()));
                    }
                }
                made => break made.map_err(of_put)?,
            }
        };
        let (store, extension) = (store.clone(), extension.to_owned());
        Ok(Box::new(Filled { store, extension, memory, ephemeral: self.ephemeral.clone() }))
    }
}

fn is_out_of_memory(error: &DiskError) -> bool {
    matches!(error, DiskError::Full { shortage, .. } if shortage.limit == RoomLimit::Memory)
}

/// Memory that an extension fills.
struct Filled {
    store: Store,
    extension: String,
    memory: EphemeralMemory,
    ephemeral: std::sync::Arc<Mutex<VecDeque<Artifact>>>,
}

impl NewArtifact for Filled {
    fn descriptor(&self) -> Result<OwnedFd, Fault> {
        self.memory.try_clone_fd().map_err(|error| fault(FaultCode::Io, &error))
    }

    fn commit(self: Box<Self>, name: Option<&str>) -> Result<ArtifactInfo, Fault> {
        let Self { store, extension, memory, ephemeral } = *self;
        let Some(name) = name else {
            let artifact = memory.adopt().map_err(of_put)?;
            let info = ArtifactInfo::new(artifact.digest().to_string(), artifact.len());
            let mut kept = ephemeral.lock();
            // The store has one for each digest: the same again only becomes younger.
            kept.retain(|other| other.digest() != artifact.digest());
            kept.push_back(artifact);
            let oldest = if kept.len() > EPHEMERAL_KEPT_MAX { kept.pop_front() } else { None };
            drop(kept);
            drop(oldest);
            return Ok(info);
        };
        let name = own_name(&extension, name);
        let descriptor = memory.try_clone_fd().map_err(|error| fault(FaultCode::Io, &error))?;
        let stored = store.put_memfd(descriptor).map_err(of_put)?;
        store.set_name(&name, &stored.digest, Expected::Anything).map_err(of_name)?;
        Ok(ArtifactInfo::new(stored.digest.to_string(), stored.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn fill(storage: &StoreStorage, bytes: &[u8], name: Option<&str>) -> ArtifactInfo {
        let made = storage.create_artifact("a", bytes.len() as u64).unwrap();
        File::from(made.descriptor().unwrap()).write_all_at(bytes, 0).unwrap();
        made.commit(name).unwrap()
    }

    fn read(storage: &StoreStorage, extension: &str, artifact: &str) -> Vec<u8> {
        let opened = storage.open_artifact(extension, artifact).unwrap();
        let mut bytes = vec![0; usize::try_from(opened.info.bytes).unwrap()];
        File::from(opened.descriptor).read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn state_and_named_artifacts_outlive_the_store_that_took_them() {
        let folder = tempfile::tempdir().unwrap();
        let first = StoreStorage::of_folder(folder.path());
        assert_eq!(first.state("a"), Ok(None));
        first.put_state("a", b"one").unwrap();
        first.put_state("a", b"two").unwrap();
        first.put_state("b", b"").unwrap();
        let durable = fill(&first, b"kept", Some("report.md"));
        let ephemeral = fill(&first, b"for a while", None);
        for storage in [first, StoreStorage::of_folder(folder.path())] {
            assert_eq!(storage.state("a"), Ok(Some(b"two".to_vec())));
            assert_eq!(storage.state("b"), Ok(Some(Vec::new())));
            for which in ["report.md", "extensions/a/report.md", durable.digest.as_str()] {
                assert_eq!(read(&storage, "a", which), b"kept");
            }
            assert_eq!(storage.open_artifact("b", "report.md").unwrap_err().code, FaultCode::NotFound);
            drop(storage);
        }
        let later = StoreStorage::of_folder(folder.path());
        let gone = later.open_artifact("a", &ephemeral.digest).unwrap_err();
        assert_eq!(gone.code, FaultCode::NotFound);
    }

    #[test]
    fn what_is_for_a_while_is_found_by_everybody_and_makes_room_when_it_must() {
        let folder = tempfile::tempdir().unwrap();
        let storage = StoreStorage::of_folder(folder.path());
        let first = fill(&storage, b"0", None);
        assert_eq!(read(&storage, "other", &first.digest), b"0");
        for number in 1..=EPHEMERAL_KEPT_MAX {
            fill(&storage, number.to_string().as_bytes(), None);
        }
        assert_eq!(storage.open_artifact("a", &first.digest).unwrap_err().code, FaultCode::NotFound);
        assert_eq!(storage.ephemeral.lock().len(), EPHEMERAL_KEPT_MAX);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let storage = StoreStorage::of_folder(folder.path());
        for name in ["", "../b/report.md", "a//b", "x\\y"] {
            let made = storage.create_artifact("a", 1).unwrap();
            assert_eq!(made.commit(Some(name)).unwrap_err().code, FaultCode::InvalidArgument, "{name}");
        }
        assert_eq!(
            storage.create_artifact("a", u64::MAX).err().map(|fault| fault.code),
            Some(FaultCode::TooLarge)
        );
    }
}
