//! The extension host of one command: made with what was built, ended in order.
//!
//! This file must not know melodies.

use std::sync::Arc;

use extension_host::{
    EventKind, EventReader, ExtensionSnapshot, Host, HostError, HostEvent, HostOptions, LauncherProgram,
    LibrarySource, Manifest, Read, RegisterError, UnknownExtension,
};
use ipc_transport::Caller;
use pool_manager::PoolManager;
use tokio::task::AbortHandle;

use crate::bridge::{Expiring, StaleExpiry};
use crate::build::Built;
use crate::config::Settings;
use crate::document::ExtensionReport;

/// The extensions of one command.
#[derive(Debug)]
pub struct Hosting {
    host: Arc<Host>,
    reporter: AbortHandle,
    stop_timeout: std::time::Duration,
}

/// The extensions cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum HostingError {
    /// There is no host.
    #[error("the extension host cannot be made")]
    Host(#[from] HostError),
    /// An extension was not taken.
    #[error("the extension `{name}` cannot be hosted")]
    Register {
        /// The extension.
        name: String,
        /// Why.
        #[source]
        source: RegisterError,
    },
    /// An extension that is called was not built.
    #[error("the extension cannot be called")]
    Unknown(#[from] UnknownExtension),
}

impl Hosting {
    /// A host for what was built from `manifests`. `expiring` watches for what is idle, and is swept from now on,
    /// with what is due in `pools`. Must be called inside a runtime.
    ///
    /// # Errors
    ///
    /// [`HostingError`]; nothing runs then.
    pub fn begin(
        settings: &Settings,
        manifests: &[&Manifest],
        built: &[Built],
        expiring: &Expiring,
        pools: Option<&PoolManager>,
    ) -> Result<Self, HostingError> {
        let mut options = HostOptions::new(LauncherProgram::CurrentExe);
        options.expiry = Some(Arc::new(StaleExpiry::new(expiring.clone(), pools.cloned())));
        let host = Host::new(options)?;
        let reporter = tokio::spawn(tell(host.subscribe())).abort_handle();
        for built in built {
            let Some(manifest) = manifests.iter().find(|manifest| manifest.name == built.name) else {
                continue;
            };
            let manifest = (*manifest).clone();
            let registered = match &built.library {
                Some(library) => host.register_in_process(manifest, LibrarySource::File(library.clone())),
                None => host.register(manifest, built.program.clone()),
            };
            registered.map_err(|source| HostingError::Register { name: built.name.clone(), source })?;
        }
        Ok(Self { host, reporter, stop_timeout: settings.stop_timeout })
    }

    /// The way to an extension; it is started by its first call.
    ///
    /// # Errors
    ///
    /// [`HostingError::Unknown`].
    pub fn caller(&self, name: &str) -> Result<Arc<dyn Caller>, HostingError> {
        Ok(Arc::new(self.host.extension(name)?))
    }

    /// Whether a call was handed to an instance of the extension, which may have run it since.
    #[must_use]
    pub fn has_sent(&self, extension: &str) -> bool {
        self.host.snapshot().iter().any(|one| one.name == extension && one.calls > 0)
    }

    /// Stops everything and says what became of it. Nothing is left when this returns.
    pub async fn end(self) -> Vec<ExtensionReport> {
        // Before the end, because the stop that comes now is nobody's cause for anything.
        let reports = self.host.snapshot().into_iter().filter(|one| one.starts > 0).map(report).collect();
        self.host.shutdown(self.stop_timeout).await;
        self.reporter.abort();
        reports
    }
}

/// Logs what happens to instances: an end that nobody wanted as a warning, the rest for those who look closer.
async fn tell(mut events: EventReader<Arc<HostEvent>>) {
    loop {
        match events.wait().await {
            Read::Event(_, event) => match &event.kind {
                EventKind::Died { report } if report.class.is_failure() => tracing::warn!("{event}"),
                EventKind::Broken { .. } => tracing::warn!("{event}"),
                _ => tracing::info!("{event}"),
            },
            Read::Gap { .. } => tracing::warn!("events of extensions were missed"),
            Read::Empty => {}
        }
    }
}

fn report(snapshot: ExtensionSnapshot) -> ExtensionReport {
    ExtensionReport {
        name: snapshot.name,
        starts: snapshot.starts,
        restarts: snapshot.restarts,
        causes: snapshot.past_ends.iter().map(|end| end.report.to_string()).collect(),
    }
}
