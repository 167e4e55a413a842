//! What this process has verified already, so that only the first read of an artifact hashes it.
//!
//! Two memories: whole open artifacts, few, for reads that cost a look-up; and the identities of verified files, many,
//! for reads that cost an open and a map. Knows no file operation.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use rustix::fs::Stat;

use crate::artifact::Artifact;
use crate::digest::Digest;

/// LIMIT: identities of verified files kept, about 100 bytes each. When full all are forgotten: a re-hash, no error.
const VERIFIED_MAX: usize = 65_536;

/// Which file was verified, and that it was not touched since: each write, truncation and change of mode moves the
/// change time, which a user cannot set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_s: i64,
    changed_ns: u64,
}

impl Identity {
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "the widths of these fields differ between architectures"
    )]
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            bytes: size_of_stat(stat),
            changed_s: stat.st_ctime as i64,
            changed_ns: stat.st_ctime_nsec as u64,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same file, touched or not.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Bytes of a file; the system's number is signed.
pub(crate) fn size_of_stat(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[derive(Debug)]
pub(crate) struct Remembered {
    open: RwLock<OpenArtifacts>,
    verified: Mutex<HashMap<Digest, Identity>>,
    /// LIMIT: artifacts kept open, each a descriptor and a mapping.
    open_max: usize,
}

#[derive(Debug, Default)]
struct OpenArtifacts {
    artifacts: HashMap<Digest, Entry>,
    /// In order of arrival; who was used since its last turn gets another (second chance).
    turns: VecDeque<Digest>,
}

#[derive(Debug)]
struct Entry {
    artifact: Artifact,
    is_used: AtomicBool,
}

impl Remembered {
    pub(crate) fn new(open_max: usize) -> Self {
        Self { open: RwLock::default(), verified: Mutex::default(), open_max }
    }

    /// An artifact that is open already.
    pub(crate) fn open_artifact(&self, digest: &Digest) -> Option<Artifact> {
        let open = self.open.read();
        let entry = open.artifacts.get(digest)?;
        // ORDERING(second-chance): Relaxed suffices, the flag only advises which artifact to close first. Looking
        // before storing keeps the line shared between readers.
        if !entry.is_used.load(Ordering::Relaxed) {
            // ORDERING(second-chance): Relaxed, as above.
            entry.is_used.store(true, Ordering::Relaxed);
        }
        Some(entry.artifact.clone())
    }

    /// Keeps an artifact open, and closes another when there are too many.
    pub(crate) fn keep_open(&self, artifact: Artifact) {
        if self.open_max == 0 {
            return;
        }
        let mut evicted = Vec::new();
        let mut open = self.open.write();
        let OpenArtifacts { artifacts, turns } = &mut *open;
        let digest = artifact.digest();
        if artifacts.contains_key(&digest) {
            return;
        }
        while artifacts.len() >= self.open_max {
            let Some(next) = turns.pop_front() else { break };
            let Some(entry) = artifacts.get_mut(&next) else { continue };
            if std::mem::take(entry.is_used.get_mut()) {
                turns.push_back(next);
            } else {
                evicted.extend(artifacts.remove(&next));
            }
        }
        turns.push_back(digest);
        artifacts.insert(digest, Entry { artifact, is_used: AtomicBool::new(false) });
        // Unmapping a large artifact takes long: not while others wait for the lock.
        drop(open);
        drop(evicted);
    }

    /// The file under this digest was hashed and found right.
    pub(crate) fn remember(&self, digest: Digest, identity: Identity) {
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(digest, identity);
    }

    /// This very file was hashed before and was not touched since.
    pub(crate) fn is_verified(&self, digest: &Digest, identity: &Identity) -> bool {
        self.verified.lock().get(digest) == Some(identity)
    }

    /// The file under this digest is damaged: nothing is believed of it any more.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.verified.lock().remove(digest);
        let forgotten = {
            let mut open = self.open.write();
            open.turns.retain(|other| other != digest);
            open.artifacts.remove(digest)
        };
        drop(forgotten);
    }
}
