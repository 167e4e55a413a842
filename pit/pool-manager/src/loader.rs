//! The borders: who loads and unloads instances, and who watches what is idle. What either does is not known here.
//!
//! ```text
//!             asked for, memory admitted           ready                failed lease, class with a rest
//!  absent ------------------------------> loading -------> ready <------------------------------> resting
//!    ^                                       | failed        |         the rest is over
//!    +---------------------------------------+---------------+ idle, ended, memory wanted
//! ```

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{InstanceId, ModelId, cell::ModelCell, spec::ErrorClass};

/// Loads and unloads instances of models.
///
/// Both are called without any lock of the manager, by whichever thread asked for a lease or gave one back: they must
/// return soon (what takes long is begun here and done elsewhere) and must not panic.
pub trait Loader: Send + Sync {
    /// Begins to load what `load` names. However many ask meanwhile, this is called once for each instance.
    fn load(&self, load: Load);

    /// Lets go of an instance that was loaded. No lease of it is worth anything any more.
    fn unload(&self, model: ModelId, instance: InstanceId);
}

/// Watches what is idle: the border to an expiry service.
pub trait IdleWatch: Send + Sync {
    /// Sees to it that [`PoolManager::unload_idle`](crate::PoolManager::unload_idle) is called with these two once
    /// `idle` is over, and again after each such time as long as it says that the instance was used.
    ///
    /// What is returned is dropped when there is nothing to watch any more. Called without any lock of the manager.
    fn watch(&self, model: ModelId, instance: InstanceId, idle: Duration) -> Box<dyn Send>;
}

/// An instance that is to be loaded. Dropping it unsaid is a failure to load.
///
/// A word about an instance whose model was retired or redeclared meanwhile changes nothing; the loader is asked to
/// unload what has become ready too late.
#[must_use = "dropping it says that loading has failed"]
pub struct Load {
    pub(crate) cell: Weak<ModelCell>,
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) model: ModelId,
    pub(crate) instance: InstanceId,
    pub(crate) is_open: bool,
}

impl Load {
    /// The model.
    #[must_use]
    pub const fn model(&self) -> ModelId {
        self.model
    }

    /// The instance. One that is loaded in its place later has another generation.
    #[must_use]
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// It is loaded: whoever waits is served.
    pub fn ready(mut self) {
        self.is_open = false;
        let is_wanted = self.cell.upgrade().is_some_and(|cell| cell.locked().loaded(self.instance));
        if !is_wanted {
            self.loader.unload(self.model, self.instance);
        }
    }

    /// It could not be loaded, and is not tried again before the rest of this class is over.
    pub fn failed(mut self, class: ErrorClass) {
        self.fail(class);
    }

    fn fail(&mut self, class: ErrorClass) {
        self.is_open = false;
        if let Some(cell) = self.cell.upgrade() {
            cell.locked().load_failed(self.instance, class);
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if self.is_open {
            self.fail(ErrorClass::NotLoaded);
        }
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("model", &self.model)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}
