//! The Pit of one conductor: its five parts, made together and connected.
//!
//! What the parts know of each other they know through here. This file must not run steps.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arbitration::{Arbiter, ArbiterError};
use artifact_store::{DiskError, OpenError, PutError, Store, StoreOptions};
use dag_tracker::RunView;
use extension_host::Manifest;
use pit_core::clock::SystemClock;
use pool_manager::{DeclareError, PoolManager, PoolOptions};
use rustix::fs::Access;

use crate::bridge::{Expiring, IdleModels};
use crate::config::Settings;
use crate::melody::Plan;

/// Folder of the artifact store in the data folder.
const ARTIFACTS_FOLDER: &str = "artifacts";

/// The resource that claims on cores name.
pub const CPU: &str = "cpu";

/// Claims, leases, artifacts, expiry and the run of one conductor.
#[derive(Debug)]
pub struct Pit {
    /// Claims on shared resources.
    pub arbiter: Arbiter,
    /// Leases of models, by the name `extension/model`, or `model` for the melody's own.
    pub pools: PoolManager,
    /// What runs store.
    pub artifacts: Store,
    /// What is stopped when nobody has used it for a while.
    pub expiring: Expiring,
    /// The run, once it has begun: one process runs one melody.
    pub run: OnceLock<RunView>,
    /// Keeps the pools for the watch of what is idle in them, which must not keep them itself.
    _pools_for_watch: Arc<OnceLock<PoolManager>>,
}

/// The Pit could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PitError {
    /// A model is declared in a way that cannot be.
    #[error("the model `{name}` cannot be declared")]
    Model {
        /// The model.
        name: String,
        /// Why.
        #[source]
        source: DeclareError,
    },
    /// The resources cannot be shared.
    #[error("the resources cannot be shared")]
    Resources(#[from] ArbiterError),
}

impl Pit {
    /// The Pit for a run of `plan` with the extensions of `manifests`, its outputs going to `artifacts`.
    ///
    /// # Errors
    ///
    /// [`PitError`]: a model that is declared wrongly.
    pub fn new<'m>(
        settings: &Settings,
        artifacts: Store,
        plan: &Plan,
        manifests: impl IntoIterator<Item = &'m Manifest>,
    ) -> Result<Self, PitError> {
        let clock = SystemClock::new();
        let expiring = Expiring::new(clock);
        let pools_for_watch = Arc::new(OnceLock::new());
        let pools = PoolManager::with_options(PoolOptions {
            clock: Arc::new(clock),
            idle_watch: Some(Arc::new(IdleModels::new(expiring.clone(), &pools_for_watch))),
            ..PoolOptions::default()
        });
        pools_for_watch.get_or_init(|| pools.clone());
        let declare = |name: &str, capacity| match pools.declare(name, capacity) {
            Ok(_) => Ok(()),
            Err(source) => Err(PitError::Model { name: name.to_owned(), source }),
        };
        for manifest in manifests {
            for (name, model) in &manifest.models {
                declare(&format!("{}/{name}", manifest.name), model.capacity)?;
            }
        }
        for model in &plan.models {
            declare(&model.name, model.capacity)?;
        }
        let arbiter =
            Arbiter::with_options(resources(settings), arbitration::Options::default(), Arc::new(clock))?;
        let run = OnceLock::new();
        Ok(Self { arbiter, pools, artifacts, expiring, run, _pools_for_watch: pools_for_watch })
    }
}

/// What steps can claim, and how much of it there is.
#[must_use]
pub fn resources(settings: &Settings) -> Vec<(String, u64)> {
    vec![(CPU.to_owned(), u64::from(settings.cores))]
}

/// The data folder cannot take what a run stores.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// There is no store, and none can be made.
    #[error("the data folder {folder} cannot be used")]
    Open {
        /// The data folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// There is one, but nothing can be written to it.
    #[error("the data folder {folder} cannot be written to")]
    Write {
        /// The data folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: PutError,
    },
}

impl DataFolderError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Write { source: PutError::Disk(DiskError::Full { .. }), .. }
            | Self::Open { source: OpenError::Disk(DiskError::Full { .. }), .. } => {
                "free some space there, or name another folder with --data DIR"
            }
            Self::Open { source: OpenError::NewerFormat { .. } | OpenError::NotAStore { .. }, .. } => {
                "name another data folder with --data DIR"
            }
            _ => {
                "name a folder that you may write to with --data DIR; `conductor doctor` looks at the present one"
            }
        }
    }
}

/// The artifact store of a data folder that a run is going to write to: what cannot be stored at its end is
/// found out before anything is built or started.
///
/// # Errors
///
/// [`DataFolderError`]; nothing is left behind.
pub fn open_store_to_write(data_dir: &Path) -> Result<Store, DataFolderError> {
    let store = open_store(data_dir)?;
    // The file is gone again with the writer. A store of mixed owners may take it and yet not its name.
    let written = store.writer().and_then(|mut writer| writer.append(b"probe"));
    let written = written.and_then(|()| {
        ["objects", "names"].iter().try_for_each(|name| {
            let path = store.folder().join(name);
            rustix::fs::access(&path, Access::WRITE_OK).map_err(|error| {
                PutError::from(DiskError::Io { operation: "write to", path, source: error.into() })
            })
        })
    });
    written.map_err(|source| DataFolderError::Write { folder: data_dir.to_path_buf(), source })?;
    Ok(store)
}

/// The artifact store of a data folder, to be read.
///
/// # Errors
///
/// [`DataFolderError::Open`]: the folder cannot be made, or holds something else.
pub fn open_store(data_dir: &Path) -> Result<Store, DataFolderError> {
    let store = Store::open(&data_dir.join(ARTIFACTS_FOLDER), StoreOptions::default())
        .map_err(|source| DataFolderError::Open { folder: data_dir.to_path_buf(), source })?;
    let found = store.open_report();
    if found.swept > 0 || found.verified.is_some() || !found.quarantined.is_empty() {
        tracing::warn!(
            swept = found.swept,
            verified = found.verified,
            quarantined = found.quarantined.len(),
            "the artifact store was not closed well, and was put in order"
        );
    }
    Ok(store)
}
