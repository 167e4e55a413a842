//! The handle of an open store: opening, getting, verifying. Putting, naming and listing are in files of their own.
//!
//! Knows the order of things, not how a file is verified (`look`) or a folder is laid out (`layout`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::artifact::Artifact;
use crate::digest::Digest;
use crate::disk::{Disk, RealDisk};
use crate::error::{GetError, OpenError, ReadFault};
use crate::layout;
use crate::look::{Sight, Sound, Trust, place};
use crate::mapping::Mapping;
use crate::put::DurableShards;
use crate::remembered::Remembered;
use crate::root::Root;

/// LIMIT: artifacts that a store keeps open by default, each a descriptor and a mapping.
pub const OPEN_ARTIFACTS_MAX: usize = 128;

/// What a caller can choose about a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How many artifacts stay open so that the next [`Store::get`] costs a look-up; 0 keeps none.
    pub open_artifacts_max: usize,
    /// The file system.
    pub disk: Arc<dyn Disk>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { open_artifacts_max: OPEN_ARTIFACTS_MAX, disk: Arc::new(RealDisk) }
    }
}

/// What opening has found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Files of dead writers that were removed.
    pub swept: u64,
    /// A sync had failed before, so everything was verified: this many artifacts were found sound.
    pub verified: Option<u64>,
    /// Artifacts that this verification found damaged; they are in `quarantine/`.
    pub quarantined: Vec<Digest>,
}

/// An open artifact store. Clones share it.
///
/// # Concurrency
/// All methods may be called from all threads. Several processes may use one folder at once: see [the crate](crate).
/// All methods but a repeated [`get`](Self::get) do file operations and block for them; asynchronous callers use a
/// thread for them.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) root: Arc<Root>,
    pub(crate) remembered: Arc<Remembered>,
    pub(crate) durable_shards: Arc<DurableShards>,
    report: Arc<OpenReport>,
}

impl Store {
    /// Opens the store in a folder, which is created (mode 0700) with its parents where it does not exist.
    ///
    /// After a failed sync the next opening verifies every artifact before it returns, which takes as long as reading
    /// them.
    ///
    /// # Errors
    /// [`OpenError::NotAStore`] if the folder holds something else, [`OpenError::NewerFormat`] if a newer release
    /// wrote it, [`OpenError::Full`] if there is no room to create it, others of the system.
    pub fn open(folder: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let (root, swept) = layout::open(folder, options.disk)?;
        let mut store = Self {
            root,
            remembered: Arc::new(Remembered::new(options.open_artifacts_max)),
            durable_shards: Arc::default(),
            report: Arc::default(),
        };
        let mut report = OpenReport { swept, ..OpenReport::default() };
        if layout::is_suspect(&store.root)? {
            let mut verified = 0;
            for listed in store.list() {
                let result = listed.and_then(|listed| store.verify(&listed.digest));
                match result {
                    Ok(_) => verified += 1,
                    Err(GetError::Corrupt { digest, .. }) => report.quarantined.push(digest),
                    // Removed while we looked: nothing to verify.
                    Err(GetError::Absent { .. }) => {}
                    // What cannot be read cannot be vouched for, and the next opener has to try again.
                    Err(GetError::Io { operation, path, source }) => {
                        return Err(OpenError::Io { operation, path, source });
                    }
                }
            }
            report.verified = Some(verified);
            layout::clear_suspicion(&store.root)?;
        }
        store.report = Arc::new(report);
        Ok(store)
    }

    /// What opening has found and done.
    #[must_use]
    pub fn open_report(&self) -> &OpenReport {
        &self.report
    }

    /// The folder of the store.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.root.folder.path()
    }

    /// Where the artifact is or would be, for people to read. Programs read through [`get`](Self::get), which verifies.
    #[must_use]
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        let (shard, name) = place(digest);
        self.root.objects.path().join(shard).join(name)
    }

    /// Delivers an artifact. The first time in this process its bytes are read and verified; after that the call costs
    /// an open and a map, and a look-up while the artifact is among the
    /// [`open_artifacts_max`](StoreOptions::open_artifacts_max) kept open.
    ///
    /// # Errors
    /// [`GetError::Absent`]; [`GetError::Corrupt`] if the bytes are not those of the digest: they are in quarantine
    /// now, and a new put of the artifact replaces them; others of the system.
    pub fn get(&self, digest: &Digest) -> Result<Artifact, GetError> {
        if let Some(artifact) = self.remembered.open_artifact(digest) {
            return Ok(artifact);
        }
        let Sound { file, bytes, path } = self.sound(digest, Trust::Memory)?;
        let mapping =
            Mapping::of_stored(&file, bytes).map_err(|error| ReadFault::new("map", &path, error))?;
        let artifact = Artifact::new(*digest, mapping, file, path);
        self.remembered.keep_open(artifact.clone());
        Ok(artifact)
    }

    /// Reads the artifact again, from the device as far as the page cache lets it go, and says how many bytes it has.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn verify(&self, digest: &Digest) -> Result<u64, GetError> {
        Ok(self.sound(digest, Trust::Nothing)?.bytes)
    }

    fn sound(&self, digest: &Digest, trust: Trust) -> Result<Sound, GetError> {
        match self.look(digest, trust)? {
            Sight::Sound(sound) => Ok(sound),
            Sight::Absent => Err(GetError::Absent { digest: *digest, store: self.folder().to_owned() }),
            Sight::Damaged { kept_at, .. } => Err(GetError::Corrupt { digest: *digest, kept_at }),
        }
    }
}
