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

use pit_core::unwind::Calls;

use crate::{InstanceId, ModelId, budget::Reserved, cell::ModelCell, spec::ErrorClass};

/// Loads and unloads instances of models.
///
/// Both are called without any lock of the manager, by whichever thread asked for a lease or gave one back: they must
/// return soon (what takes long is begun here and done elsewhere) and must not panic.
pub trait Loader: Send + Sync {
    /// Begins to load what `load` names. However many ask meanwhile, this is called once for each instance.
    fn load(&self, load: Load);

    /// Lets go of an instance that was loaded. No lease of it is worth anything any more. Its memory counts until
    /// `unload` is dropped.
    fn unload(&self, unload: Unload);
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
    pub(crate) reserved: Reserved,
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
        let reserved = std::mem::take(&mut self.reserved);
        let unwanted = match self.cell.upgrade() {
            Some(cell) => cell.locked().loaded(self.instance, reserved).err(),
            None => Some(reserved),
        };
        if let Some(reserved) = unwanted {
            self.loader.unload(Unload::new(self.model, self.instance, reserved));
        }
    }

    /// It could not be loaded, and is not tried again before the rest of this class is over.
    pub fn failed(mut self, class: ErrorClass) {
        self.fail(class);
    }

    fn fail(&mut self, class: ErrorClass) {
        self.is_open = false;
        // It is free before anything else is begun to be loaded in its place.
        let freed = self.reserved.is_anything();
        self.reserved = Reserved::default();
        let mut calls = Calls::new();
        if let Some(cell) = self.cell.upgrade() {
            calls.call(|| cell.locked().load_failed(self.instance, class));
        }
        if let Some(core) = freed {
            calls.call(|| core.admit_waiting());
        }
        calls.end();
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

/// An instance that is to be unloaded. Dropping it says that it is gone: then others can have its memory.
#[must_use = "dropping it says that the instance is gone"]
pub struct Unload {
    model: ModelId,
    instance: InstanceId,
    reserved: Reserved,
}

impl Unload {
    pub(crate) fn new(model: ModelId, instance: InstanceId, reserved: Reserved) -> Self {
        Self { model, instance, reserved: reserved.leaving() }
    }

    /// The model, as it was declared when the instance was loaded.
    #[must_use]
    pub const fn model(&self) -> ModelId {
        self.model
    }

    /// The instance.
    #[must_use]
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }
}

impl Drop for Unload {
    fn drop(&mut self) {
        let freed = self.reserved.is_anything();
        self.reserved = Reserved::default();
        if let Some(core) = freed {
            core.admit_waiting();
        }
    }
}

impl fmt::Debug for Unload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unload")
            .field("model", &self.model)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}
