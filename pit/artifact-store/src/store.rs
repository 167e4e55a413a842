//! The handle of an open store: opening, getting, verifying. Putting, naming and listing are in files of their own.
//!
//! Knows the order of things, not how a file is verified (`look`) or a folder is laid out (`layout`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::artifact::{Artifact, Content};
use crate::digest::Digest;
use crate::disk::{Disk, RealDisk};
use crate::ephemeral::{EPHEMERAL_BYTES_MAX, Ephemeral};
use crate::error::{DiskError, GetError, OpenError};
use crate::layout::{self, Opened};
use crate::look::{Sight, Sound, Spot, Trust};
use crate::mapping::Mapping;
use crate::packs::Packs;
use crate::pin::Pin;
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
    /// Bytes of all ephemeral artifacts together.
    pub ephemeral_bytes_max: u64,
    /// The file system.
    pub disk: Arc<dyn Disk>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            open_artifacts_max: OPEN_ARTIFACTS_MAX,
            ephemeral_bytes_max: EPHEMERAL_BYTES_MAX,
            disk: Arc::new(RealDisk),
        }
    }
}

/// What opening has found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Files of dead writers that were removed.
    pub swept: u64,
    /// An older release wrote the store in this format; it has the present one now.
    pub upgraded_from: Option<u64>,
    /// A sync had failed before, so everything was verified: this many artifacts were found sound.
    pub verified: Option<u64>,
    /// Artifacts that are damaged or lost, as this verification found; what is left of them is in `quarantine/`.
    pub quarantined: Vec<Digest>,
    /// Damaged packs in which others were lost that nobody can name.
    pub lost_in_packs: Vec<PathBuf>,
}

/// What an open store holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Artifacts kept open for the next reader.
    pub open_artifacts: usize,
    /// Artifacts in packs, as far as this process has looked.
    pub packed_artifacts: usize,
    /// Ephemeral artifacts that somebody holds.
    pub ephemeral_artifacts: usize,
    /// Their bytes.
    pub ephemeral_bytes: u64,
    /// LIMIT: of these.
    pub ephemeral_bytes_max: u64,
    /// A sync has failed: nothing more is taken.
    pub is_poisoned: bool,
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
    pub(crate) packs: Arc<Packs>,
    pub(crate) ephemeral: Arc<Ephemeral>,
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
    /// wrote it, [`DiskError::Full`] if there is no room to create it, others of the system.
    pub fn open(folder: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let Opened { root, swept, upgraded_from } = layout::open(folder, options.disk)?;
        let mut store = Self {
            remembered: Arc::new(Remembered::new(options.open_artifacts_max, &root.folder)),
            root,
            durable_shards: Arc::default(),
            packs: Arc::default(),
            ephemeral: Arc::new(Ephemeral::new(options.ephemeral_bytes_max)),
            report: Arc::default(),
        };
        let mut report = OpenReport { swept, upgraded_from, ..OpenReport::default() };
        if layout::is_suspect(&store.root)? {
            let mut verified = 0;
            for listed in store.list() {
                let result = listed.and_then(|listed| store.verify(&listed.digest));
                match result {
                    Ok(_) => verified += 1,
                    Err(GetError::Corrupt { digest, .. }) => report.quarantined.push(digest),
                    Err(GetError::LostInPack { kept_at }) => report.lost_in_packs.push(kept_at),
                    // Removed while we looked: nothing to verify.
                    Err(GetError::Absent { .. }) => {}
                    // What cannot be read cannot be vouched for, and the next opener has to try again.
                    Err(GetError::Disk(error)) => return Err(error.into()),
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

    /// Where the artifact has or would have a file of its own, for people to read. Programs read through
    /// [`get`](Self::get), which verifies. One that was put in a batch has none.
    #[must_use]
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.objects.path().join(Spot::of(digest).relative())
    }

    /// Delivers an artifact that was verified: when it was written, or when it was first read since the machine was
    /// started, by whichever process. While its file is untouched since, this costs an open and a map, and a look-up
    /// while it is among the [`open_artifacts_max`](StoreOptions::open_artifacts_max) kept open. A packed one is read
    /// and verified each time it is opened.
    ///
    /// # Errors
    /// [`GetError::Absent`]; [`GetError::Corrupt`] if the bytes are not those of the digest: they are in quarantine
    /// now, and a new put of the artifact replaces them; others of the system.
    pub fn get(&self, digest: &Digest) -> Result<Artifact, GetError> {
        if let Some(artifact) = self.remembered.open_artifact(digest) {
            return Ok(artifact);
        }
        if let Some(artifact) = self.ephemeral.find(digest) {
            return Ok(artifact);
        }
        let content = match self.sound(digest, Trust::Memory)? {
            Sound::Packed { bytes, .. } => Content::Packed(bytes.into_boxed_slice()),
            Sound::File { file, identity } => {
                let mapping = Mapping::of_stored(&file, identity.bytes())
                    .map_err(|error| DiskError::io("map", &self.path_of(digest), error))?;
                Content::File {
                    mapping,
                    file,
                    objects: self.root.objects.shared_path(),
                    path: OnceLock::new(),
                }
            }
        };
        let artifact = Artifact::new(*digest, content);
        self.remembered.keep_open(artifact.clone());
        Ok(artifact)
    }

    /// Keeps an artifact from being collected, by any process, as long as the answer lives. What is to outlive this
    /// process needs a name.
    ///
    /// # Errors
    /// As for [`get`](Self::get); a pin on an ephemeral artifact is refused as [`GetError::Absent`], its holder keeps it.
    pub fn pin(&self, digest: &Digest) -> Result<Pin, GetError> {
        match self.look_pinned(digest)? {
            (_, Some(pin)) => Ok(pin),
            (Sight::Damaged { kept_at, .. }, _) => Err(GetError::Corrupt { digest: *digest, kept_at }),
            _ => Err(GetError::Absent { digest: *digest, store: self.folder().to_owned() }),
        }
    }

    /// What the store holds at the moment, without asking the disk.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (ephemeral_artifacts, ephemeral_bytes, ephemeral_bytes_max) = self.ephemeral.usage();
        Usage {
            open_artifacts: self.remembered.open_count(),
            packed_artifacts: self.packs.count(),
            ephemeral_artifacts,
            ephemeral_bytes,
            ephemeral_bytes_max,
            is_poisoned: self.root.check_sound().is_err(),
        }
    }

    /// Reads the artifact again, from the device as far as the page cache lets it go, and says how many bytes it has.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn verify(&self, digest: &Digest) -> Result<u64, GetError> {
        Ok(self.sound(digest, Trust::Nothing)?.bytes())
    }

    fn sound(&self, digest: &Digest, trust: Trust) -> Result<Sound, GetError> {
        match self.look(digest, trust)? {
            Sight::Sound(sound) => Ok(sound),
            Sight::Absent => Err(GetError::Absent { digest: *digest, store: self.folder().to_owned() }),
            Sight::Damaged { kept_at, .. } => Err(GetError::Corrupt { digest: *digest, kept_at }),
        }
    }
}
