//! The extension host of one command: made with what was built, ended in order.
//!
//! This file must not know melodies.

use std::sync::Arc;

use extension_host::{
    EventKind, EventReader, ExtensionSnapshot, Host, HostError, HostEvent, HostOptions, LauncherProgram,
    LibrarySource, LogSink, Manifest, Read, RegisterError, UnknownExtension,
};
use ipc_transport::Caller;
use pool_manager::PoolManager;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::bridge::{Expiring, StaleExpiry, StoreStorage};
use crate::build::Built;
use crate::config::Settings;
use crate::document::ExtensionReport;

/// The extensions of one command.
#[derive(Debug)]
pub struct Hosting {
    host: Arc<Host>,
    reporter: JoinHandle<()>,
    /// Lets the reporter end when it has told what there is.
    has_ended: oneshot::Sender<()>,
    began: std::time::Instant,
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
    /// A host for what was built from `manifests`, whose lines go to `log`. `expiring` watches for what is idle, and is swept from now on,
    /// with what is due in `pools`; what extensions keep goes to `storage`. Must be called inside a runtime.
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
        storage: StoreStorage,
        log: Arc<dyn LogSink>,
    ) -> Result<Self, HostingError> {
        let mut options = HostOptions::new(LauncherProgram::CurrentExe);
        options.expiry = Some(Arc::new(StaleExpiry::new(expiring.clone(), pools.cloned())));
        options.storage = Some(Arc::new(storage));
        options.log = log;
        options.uses_control_groups = settings.uses_control_groups;
        let began = std::time::Instant::now();
        let host = Host::new(options)?;
        let (has_ended, end) = oneshot::channel();
        let reporter = tokio::spawn(tell(host.subscribe(), end));
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
        Ok(Self { host, reporter, has_ended, began, stop_timeout: settings.stop_timeout })
    }

    /// The way to an extension; it is started by its first call.
    ///
    /// # Errors
    ///
    /// [`HostingError::Unknown`].
    pub fn caller(&self, name: &str) -> Result<Arc<dyn Caller>, HostingError> {
        Ok(Arc::new(self.host.extension(name)?))
    }

    /// The host itself, for whoever serves it to others.
    #[must_use]
    pub fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host)
    }

    /// When the host began.
    #[must_use]
    pub fn began(&self) -> std::time::Instant {
        self.began
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
        // What happened last is told too. A reporter that has panicked has nothing more to tell.
        let _is_there = self.has_ended.send(()).is_ok();
        let _has_told = self.reporter.await.is_ok();
        reports
    }
}

/// Logs what happens to instances, until the end and what is there then.
async fn tell(mut events: EventReader<Arc<HostEvent>>, mut end: oneshot::Receiver<()>) {
    loop {
        let read = tokio::select! {
            biased;
            read = events.wait() => read,
            // Only when there is nothing to be told any more; also when nobody is there to say it.
            _ = &mut end => return,
        };
        say(&read);
    }
}

/// An end that nobody wanted, and what was missed, as a warning; the rest for those who look closer.
fn say(read: &Read<Arc<HostEvent>>) {
    match read {
        Read::Event(_, event) => match &event.kind {
            EventKind::Died { report } if report.class.is_failure() => tracing::warn!("{event}"),
            EventKind::Broken { .. } => tracing::warn!("{event}"),
            _ => tracing::info!("{event}"),
        },
        Read::Gap { lost } => tracing::warn!("{lost} events of extensions were missed"),
        Read::Empty => {}
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

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Mutex;
    use std::time::Duration;

    use extension_host::InstanceId;
    use pit_core::ring::EventRing;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_missed_is_counted_and_what_happened_last_is_told() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _told = tracing::subscriber::set_default(subscriber);
        let ring = EventRing::new(2);
        let (has_ended, end) = oneshot::channel();
        let reader = ring.subscribe();
        for epoch in 1..=5 {
            let instance = InstanceId::new(0, epoch);
            let kind = EventKind::Stopped;
            ring.publish(Arc::new(HostEvent {
                extension: "echo".into(),
                instance,
                at: Duration::ZERO,
                kind,
            }));
        }
        has_ended.send(()).unwrap();
        tell(reader, end).await;
        let told = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let told: Vec<_> = told.lines().filter_map(|line| Some(line.split_once("hosting: ")?.1)).collect();
        let expected = [
            "3 events of extensions were missed",
            "echo instance:0@4: is stopped",
            "echo instance:0@5: is stopped",
        ];
        assert_eq!(told, expected);
    }
}
