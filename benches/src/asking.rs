//! What it costs an extension to ask: another extension through the host, the host itself, an artifact by descriptor.
//!
//! Measured in the extension that asks, the SDK's example `asks` as released, and told by it. A refusal is a host call
//! that ends in the host.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use artifact_store::{Artifact, Digest, Store, StoreOptions};
use extension_host::{Host, HostOptions, LauncherProgram, Manifest, NewArtifact, OpenedArtifact, Storage};
use extension_sdk::context::ArtifactInfo;
use extension_sdk::{Context, Fault, FaultCode};

use crate::pin_to;
use crate::report::{Figure, Report, target_folder};

/// Rounds of everything.
const ROUNDS: u32 = 7;
/// What does not count of a turn, and what does.
const LEAD_IN: u32 = 500;
const TIMES: u32 = 2_000;
/// The same of artifacts.
const MAPS: u32 = 300;

#[extension_sdk::interface]
trait Asks {
    fn time_calls(&self, cx: &Context, other: String, text: String, times: u32) -> Result<Vec<u64>, Fault>;
    fn time_maps(&self, cx: &Context, artifact: String, times: u32) -> Result<Vec<u64>, Fault>;
}

/// Measures all of it. `ours` and `theirs` are the cores of the host and of both extensions.
///
/// # Errors
///
/// When cargo, the store or an extension does not do its part.
pub async fn measure(report: &mut Report, ours: usize, theirs: usize) -> anyhow::Result<()> {
    let program = build()?;
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), StoreOptions::default())?;
    let sizes = [("1M", 1_usize << 20), ("16M", 16 << 20)];
    let artifacts = sizes.map(|(name, bytes)| (name, store.put_ephemeral(&vec![7; bytes])));
    let mut options = HostOptions::new(LauncherProgram::CurrentExe);
    options.storage = Some(Arc::new(Shelf(store.clone())));
    let host = Host::new(options)?;
    for (name, permissions) in [("a", "calls = [\"b\"]\nartifacts = \"read\"\n"), ("b", "")] {
        let text = format!(
            "name = \"{name}\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"asks\"]\n\
             environment = {{ ASKS_NAME = \"{name}\" }}\n[permissions]\n{permissions}"
        );
        let manifest = Manifest::parse(&text, Path::new("extension.toml"));
        host.register(manifest.map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?, program.clone())?;
    }
    pin_to(theirs)?;
    let asks = AsksClient::new(host.extension("a")?).with_timeout(Duration::from_secs(60));
    let text = "x".repeat(64);
    asks.time_calls("b".into(), text.clone(), 1).await?;
    pin_to(ours)?;

    let mut all: Vec<(String, Vec<Duration>)> = Vec::new();
    let mut add = |id: String, times: Vec<u64>| {
        let times = times.into_iter().map(Duration::from_nanos);
        match all.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => known.extend(times),
            None => all.push((id, times.collect())),
        }
    };
    for _ in 0..ROUNDS {
        for (id, other) in [("call/extension-to-extension/64", "b"), ("call/host-call/refused", "nobody")] {
            asks.time_calls(other.into(), text.clone(), LEAD_IN).await?;
            add(id.into(), asks.time_calls(other.into(), text.clone(), TIMES).await?);
        }
        for (name, artifact) in &artifacts {
            let artifact = artifact.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
            add(
                format!("artifact/hand-over/{name}"),
                asks.time_maps(artifact.digest().to_string(), MAPS).await?,
            );
        }
    }
    for (id, times) in &all {
        report.push(Figure::from_round_trips(id, times));
    }
    host.shutdown(Duration::from_secs(2)).await;
    Ok(())
}

/// The example, as released.
pub(crate) fn build() -> anyhow::Result<std::path::PathBuf> {
    let target = target_folder();
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", "extension-sdk", "--example", "asks"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status()
        .context("cargo could not be run")?;
    anyhow::ensure!(built.success(), "`asks` could not be built");
    Ok(target.join("release/examples/asks"))
}

/// The artifacts of a store, by their digests.
#[derive(Debug)]
struct Shelf(Store);

fn refused(error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultCode::Failed, error.to_string())
}

impl Storage for Shelf {
    fn state(&self, _: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(None)
    }

    fn put_state(&self, _: &str, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn open_artifact(&self, _: &str, artifact: &str) -> Result<OpenedArtifact, Fault> {
        let digest: Digest = artifact.parse().map_err(refused)?;
        let found: Artifact = self.0.get(&digest).map_err(refused)?;
        let descriptor = found.try_clone_fd().map_err(refused)?;
        Ok(OpenedArtifact { info: ArtifactInfo::new(artifact, found.len()), descriptor })
    }

    fn create_artifact(&self, _: &str, _: u64) -> Result<Box<dyn NewArtifact>, Fault> {
        Err(refused("nothing is made here"))
    }
}
