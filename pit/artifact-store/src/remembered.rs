//! What need not be read again: open artifacts, and files that were verified.
//!
//! Two memories: whole open artifacts, few, for reads that cost a look-up; and the identities of verified files, many,
//! for reads that cost an open and a map. Readers of the first never wait: they see a table that is replaced as a
//! whole. The second is shared with other processes through the `witness`. Knows no order of operations.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustix::fs::Stat;

use crate::artifact::Artifact;
use crate::digest::{Digest, DigestHash};
use crate::disk::Folder;
use crate::witness::Witness;

/// LIMIT: identities of verified files kept, about 100 bytes each. When full all are forgotten: a re-hash, no error.
const VERIFIED_MAX: usize = 65_536;

/// LIMIT: parts of the table of open artifacts. Keeping one more open copies one part.
const PARTS_MAX: usize = 16;
/// Below so many open artifacts the table is in one part, so that the limit is met exactly.
const PARTS_FROM: usize = 64;

/// Which file was verified, and that it was not touched since: each write, truncation and change of mode moves the
/// change time, which a user cannot set.
///
/// LIMIT: where the kernel counts change times in ticks (before Linux 6.13), a write within the same tick of 1 to 10 ms
/// as the last one is not told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_s: i64,
    changed_ns: u64,
}

impl Identity {
    /// Of no file: what is remembered under it is forgotten.
    const NONE: Self = Self { device: 0, inode: 0, bytes: 0, changed_s: 0, changed_ns: 0 };

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

    pub(crate) fn words(&self) -> [u64; 5] {
        [self.device, self.inode, self.bytes, self.changed_s.cast_unsigned(), self.changed_ns]
    }

    pub(crate) fn from_words([device, inode, bytes, changed_s, changed_ns]: [u64; 5]) -> Self {
        Self { device, inode, bytes, changed_s: changed_s.cast_signed(), changed_ns }
    }
}

/// Bytes of a file; the system's number is signed.
pub(crate) fn size_of_stat(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[derive(Debug)]
pub(crate) struct Remembered {
    open: Box<[Part]>,
    verified: Mutex<Verified>,
    /// LIMIT: artifacts kept open in one part, each a descriptor and a mapping.
    open_in_part_max: usize,
}

#[derive(Debug)]
struct Verified {
    identities: HashMap<Digest, Identity, DigestHash>,
    witness: Option<Witness>,
}

type OpenArtifacts = HashMap<Digest, Artifact, DigestHash>;

#[derive(Debug, Default)]
struct Part {
    artifacts: ArcSwap<OpenArtifacts>,
    /// In order of arrival; who was used since its last turn gets another (second chance). Also the turn of who
    /// replaces the table.
    turns: Mutex<VecDeque<Digest>>,
}

impl Remembered {
    /// `folder` is where the witness is.
    pub(crate) fn new(open_max: usize, folder: &Folder) -> Self {
        let parts = if open_max < PARTS_FROM { 1 } else { PARTS_MAX };
        let mut verified = Verified { identities: HashMap::default(), witness: Witness::open(folder) };
        verified.read_witness();
        Self {
            open: std::iter::repeat_with(Part::default).take(parts).collect(),
            verified: Mutex::new(verified),
            open_in_part_max: open_max / parts,
        }
    }

    fn part(&self, digest: &Digest) -> &Part {
        &self.open[usize::from(digest.shard()) % self.open.len()]
    }

    /// An artifact that is open already.
    pub(crate) fn open_artifact(&self, digest: &Digest) -> Option<Artifact> {
        let open = self.part(digest).artifacts.load();
        let artifact = open.get(digest)?;
        artifact.note_use();
        Some(artifact.clone())
    }

    /// How many artifacts are kept open.
    pub(crate) fn open_count(&self) -> usize {
        self.open.iter().map(|part| part.artifacts.load().len()).sum()
    }

    /// Keeps an artifact open, and closes another when there are too many.
    pub(crate) fn keep_open(&self, artifact: Artifact) {
        if self.open_in_part_max == 0 {
            return;
        }
        let digest = artifact.digest();
        let part = self.part(&digest);
        let mut turns = part.turns.lock();
        let before = part.artifacts.load_full();
        if before.contains_key(&digest) {
            return;
        }
        let mut open = OpenArtifacts::clone(&before);
        while open.len() >= self.open_in_part_max {
            let Some(next) = turns.pop_front() else { break };
            if open.get(&next).is_some_and(Artifact::take_use) {
                turns.push_back(next);
            } else {
                open.remove(&next);
            }
        }
        turns.push_back(digest);
        open.insert(digest, artifact);
        part.artifacts.store(Arc::new(open));
        drop(turns);
        // Unmapping a large artifact takes long: not while others wait to keep one open.
        drop(before);
    }

    /// The file under this digest was hashed and found right, or holds what was hashed while it was written.
    pub(crate) fn remember(&self, digest: Digest, identity: Identity) {
        let mut verified = self.verified.lock();
        verified.insert(digest, identity);
        let Verified { witness, .. } = &mut *verified;
        if witness.as_mut().is_some_and(|witness| !witness.add(&digest, &identity)) {
            // Full or spoilt: this process goes on alone, the next opener begins a new one.
            *witness = None;
        }
    }

    /// This very file was verified before, by whichever process, and was not touched since.
    pub(crate) fn is_verified(&self, digest: &Digest, identity: &Identity) -> bool {
        let mut verified = self.verified.lock();
        if verified.identities.get(digest) == Some(identity) {
            return true;
        }
        // Another process may have verified it since.
        verified.read_witness();
        verified.identities.get(digest) == Some(identity)
    }

    /// The file under this digest is damaged or gone: nothing is believed of it any more, by no process.
    pub(crate) fn forget(&self, digest: &Digest) {
        let mut verified = self.verified.lock();
        if verified.identities.remove(digest).is_some() {
            let Verified { witness, .. } = &mut *verified;
            if witness.as_mut().is_some_and(|witness| !witness.add(digest, &Identity::NONE)) {
                *witness = None;
            }
        }
        drop(verified);
        let part = self.part(digest);
        let mut turns = part.turns.lock();
        let before = part.artifacts.load_full();
        if before.contains_key(digest) {
            turns.retain(|other| other != digest);
            let mut open = OpenArtifacts::clone(&before);
            open.remove(digest);
            part.artifacts.store(Arc::new(open));
        }
        drop(turns);
        drop(before);
    }
}

impl Verified {
    fn read_witness(&mut self) {
        let news = self.witness.as_mut().map(Witness::news).unwrap_or_default();
        for (digest, identity) in news {
            self.insert(digest, identity);
        }
    }

    fn insert(&mut self, digest: Digest, identity: Identity) {
        if self.identities.len() >= VERIFIED_MAX {
            self.identities.clear();
        }
        self.identities.insert(digest, identity);
    }
}
