//! Artifacts by descriptor, over both transports: mapped where they lie, filled in place, and no more than is permitted.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use extension_host::{Host, NewArtifact, OpenedArtifact, Storage};
use extension_sdk::context::ArtifactInfo;
use extension_sdk::{Fault, FaultCode};
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::host_calls::{AsksClient, everywhere, fault, register};
use crate::support::{host, kill, options, snapshot, until};

const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Keeps in memory, under the number of its bytes or a name.
#[derive(Clone, Debug, Default)]
struct Memories {
    made: Arc<Mutex<BTreeMap<String, Arc<File>>>>,
    /// Memories that are neither committed nor given up.
    open: Arc<()>,
    /// What `open_artifact` grants in the place of what it should.
    grants: Arc<Mutex<Option<OwnedFd>>>,
}

struct Memory {
    file: File,
    bytes: u64,
    made: Arc<Mutex<BTreeMap<String, Arc<File>>>>,
    _open: Arc<()>,
}

fn memory(bytes: u64) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("test", flags).expect("memory is to be had"));
    ftruncate(&file, bytes).expect("it grows");
    file
}

impl Storage for Memories {
    fn state(&self, _: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(None)
    }

    fn put_state(&self, _: &str, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn open_artifact(&self, _: &str, artifact: &str) -> Result<OpenedArtifact, Fault> {
        let made = self.made.lock().get(artifact).cloned();
        let file = made.ok_or_else(|| Fault::new(FaultCode::NotFound, "there is none"))?;
        let bytes = file.metadata().expect("it has a length").len();
        let other = self.grants.lock().as_ref().map(|other| other.try_clone().expect("a descriptor"));
        let descriptor = other.unwrap_or_else(|| file.try_clone().expect("a descriptor").into());
        Ok(OpenedArtifact { info: ArtifactInfo::new(artifact, bytes), descriptor })
    }

    fn create_artifact(&self, _: &str, bytes: u64) -> Result<Box<dyn NewArtifact>, Fault> {
        let file = memory(bytes);
        fcntl_add_seals(&file, SIZE_SEALS).expect("it is sealed");
        Ok(Box::new(Memory { file, bytes, made: Arc::clone(&self.made), _open: Arc::clone(&self.open) }))
    }
}

impl NewArtifact for Memory {
    fn descriptor(&self) -> Result<OwnedFd, Fault> {
        Ok(self.file.try_clone().expect("a descriptor").into())
    }

    fn commit(self: Box<Self>, name: Option<&str>) -> Result<ArtifactInfo, Fault> {
        // The extension must have unmapped it: then it is taken without a copy.
        fcntl_add_seals(&self.file, SealFlags::WRITE).expect("nobody can write to it any longer");
        let key = name.map_or_else(|| self.bytes.to_string(), str::to_owned);
        self.made.lock().insert(key.clone(), Arc::new(self.file));
        Ok(ArtifactInfo::new(key, self.bytes))
    }
}

fn keeping(memories: &Memories) -> Arc<Host> {
    let mut keeps = options();
    keeps.storage = Some(Arc::new(memories.clone()));
    host(keeps)
}

fn asks(host: &Host, transport: &str, name: &str, artifacts: &str) -> AsksClient {
    register(host, transport, name, &[name], &format!("artifacts = \"{artifacts}\"\n")).1
}

#[test]
fn one_fills_in_place_what_another_maps() {
    everywhere(async |transport| {
        let memories = Memories::default();
        let host = keeping(&memories);
        let writer = asks(&host, transport, "writer", "read-write");
        let reader = asks(&host, transport, "reader", "read");
        for bytes in [0, 1, 100, 4096, 3 << 20] {
            let artifact = writer.fill(bytes, None).await.expect("it is made");
            assert_eq!(reader.sum(artifact.clone()).await.expect("it is read"), 3 * bytes);
            let made = memories.made.lock()[&artifact].clone();
            let mut all = vec![0; usize::try_from(bytes).expect("it fits")];
            made.read_exact_at(&mut all, 0).expect("it can be read");
            assert!(all.iter().all(|byte| *byte == 3));
        }
        writer.fill(10, Some("named".to_owned())).await.expect("it is made");
        // Many at the same time, beside other answers.
        let sums: Vec<_> = (0..40).map(|_| reader.sum("named".to_owned())).collect();
        let echoes: Vec<_> = (0..40).map(|_| reader.pass_on(Vec::new(), "x".repeat(100_000))).collect();
        for (sum, echo) in sums.into_iter().zip(echoes) {
            assert_eq!(sum.await.expect("it is read"), 30);
            assert_eq!(echo.await.expect("it answers").len(), 100_000);
        }
        assert_eq!(fault(reader.sum("other".to_owned()).await).code, FaultCode::NotFound);
        // What was granted came once, and is closed: more than a process may have open.
        for _ in 0..1100 {
            reader.sum("named".to_owned()).await.expect("it is read");
        }
        assert_eq!(Arc::strong_count(&memories.open), 2, "the host's and the test's");
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn nobody_reads_or_makes_what_his_manifest_does_not_permit() {
    everywhere(async |transport| {
        let memories = Memories::default();
        let host = keeping(&memories);
        let nobody = asks(&host, transport, "nobody", "none");
        let reader = asks(&host, transport, "reader", "read");
        for denied in [nobody.sum("1".to_owned()).await.map(drop), nobody.fill(1, None).await.map(drop)] {
            assert_eq!(fault(denied).code, FaultCode::PermissionDenied);
        }
        let denied = fault(reader.fill(1, None).await);
        assert_eq!(denied.code, FaultCode::PermissionDenied);
        assert_eq!(
            denied.message,
            "extension `reader` may not make artifacts: say `artifacts = \"read-write\"` in `[permissions]` of extension.toml"
        );
        assert!(memories.made.lock().is_empty());
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn what_is_not_committed_is_given_up_with_its_call() {
    everywhere(async |transport| {
        let memories = Memories::default();
        let host = keeping(&memories);
        let writer = asks(&host, transport, "writer", "read-write");
        for _ in 0..10 {
            writer.waste(50).await.expect("it begins as many");
        }
        // More at the same time than may be.
        let refused = fault(writer.waste(65).await);
        assert_eq!(refused.code, FaultCode::Busy, "{refused}");
        let open = Arc::clone(&memories.open);
        until(&host, "writer", |_| Arc::strong_count(&open) == 3).await;
        writer.fill(1, None).await.expect("there is room again");
        // With its extension.
        kill(snapshot(&host, "writer").pid.expect("this kernel tells the pid"));
        until(&host, "writer", |writer| !writer.past_ends.is_empty()).await;
        assert_eq!(writer.fill(2, None).await.expect("the next one does"), "2");
        host.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn an_extension_maps_nothing_that_could_change_or_shrink() {
    everywhere(async |transport| {
        let memories = Memories::default();
        let host = keeping(&memories);
        let writer = asks(&host, transport, "writer", "read-write");
        writer.fill(5, None).await.expect("it is made");
        let unsealed = memory(5);
        let (socket, _other) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        let shorter = memory(4);
        fcntl_add_seals(&shorter, SIZE_SEALS | SealFlags::WRITE).expect("it is sealed");
        for other in [OwnedFd::from(unsealed), socket.into(), shorter.into()] {
            *memories.grants.lock() = Some(other);
            assert_eq!(fault(writer.sum("5".to_owned()).await).code, FaultCode::Io);
        }
        *memories.grants.lock() = None;
        assert_eq!(writer.sum("5".to_owned()).await.expect("it is read"), 15);
        host.shutdown(Duration::from_secs(10)).await;
    });
}
