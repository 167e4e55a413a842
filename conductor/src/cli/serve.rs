//! `serve`: the conductor stays up, until a signal or a client ends it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use extension_host::TracingLog;
use ipc_transport::rendezvous::{Rendezvous, RendezvousError};
use pit_core::clock::SystemClock;

use super::args;
use super::{Surroundings, prepare};
use crate::bridge::{Expiring, StoreStorage};
use crate::build::Effort;
use crate::exit::{Exit, Failure};
use crate::hosting::Hosting;
use crate::serving::{ConductorService, Door, Logbook, folder};
use crate::signals::Cancellation;

pub(super) async fn serve(
    surroundings: &Surroundings,
    arguments: args::Serve,
    mut cancellation: Cancellation,
) -> Result<Exit, Failure> {
    let settings = &surroundings.settings;
    let catalog = prepare::find(surroundings, None)?;
    let names = if arguments.names.is_empty() {
        catalog.entries().filter(|entry| entry.manifest.is_ok()).map(|entry| entry.name.clone()).collect()
    } else {
        arguments.names
    };
    let manifests = prepare::with_required(&catalog, names)?;
    if manifests.is_empty() {
        return Err(Failure::usage(anyhow::anyhow!("there are no extensions to be served"))
            .with_help("name a folder of them with --extensions DIR"));
    }
    prepare::warn_of_hidden(surroundings, &catalog, &manifests);
    let built = prepare::build(surroundings, &manifests, Effort::AsNeeded, &mut cancellation).await?;
    let folder = folder(&settings.data_dir);
    DirBuilder::new().recursive(true).mode(0o700).create(&settings.data_dir).map_err(|error| {
        let context = format!("cannot make {}", settings.data_dir.display());
        Failure::environment(anyhow::Error::from(error).context(context))
    })?;
    let rendezvous = Rendezvous::open(&folder).map_err(rendezvous_failure)?;
    let expiring = Expiring::new(SystemClock::new());
    let storage = StoreStorage::of_folder(&settings.data_dir);
    let logbook = Arc::new(Logbook::new(TracingLog));
    let log = Arc::clone(&logbook);
    let hosting = Hosting::begin(settings, &manifests, &built, &expiring, None, storage, log)
        .map_err(Failure::environment)?;
    let service = ConductorService::new(hosting.host(), hosting.began(), logbook);
    let door = match Door::open(rendezvous, service.clone()) {
        Ok(door) => door,
        Err(error) => {
            hosting.end().await;
            return Err(Failure::environment(error));
        }
    };
    let (count, pid) = (manifests.len(), std::process::id());
    let plural = if count == 1 { "" } else { "s" };
    let place = folder.display();
    surroundings.screen.line(&format!(
        "serving {count} extension{plural} in {place} (process {pid}); `conductor stop` or a signal ends it"
    ));
    tokio::select! {
        _ = cancellation.wait() => surroundings.screen.line("a signal asks for the end"),
        () = service.end_wanted() => surroundings.screen.line("a client asks for the end"),
    }
    let reports = hosting.end().await;
    // After the extensions: whoever waits for an answer of theirs has it by now.
    door.close();
    let restarts: u64 = reports.iter().map(|report| report.restarts).sum();
    surroundings.screen.line(&format!("ended in order; {} were used, {restarts} restarts", reports.len()));
    Ok(Exit::Success)
}

/// Nobody can listen, or be reached.
pub(super) fn rendezvous_failure(error: RendezvousError) -> Failure {
    let help = match &error {
        RendezvousError::Held { .. } => {
            "use it (`conductor ps`), end it (`conductor stop`), or name another --data DIR"
        }
        RendezvousError::Exposed { .. } => "chmod 700 it if it is yours, or name another --data DIR",
        RendezvousError::TooLong { .. } => "name a --data DIR with a shorter path",
        RendezvousError::Refused { .. } => "see who it is: conductor ps",
        _ => "name a folder that you may write to with --data DIR",
    };
    Failure::environment(error).with_help(help)
}
