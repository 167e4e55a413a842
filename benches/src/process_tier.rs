//! The real thing: `echo` in a process of its own, reached through typed client, route, host and SDK.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use extension_host::{Host, HostOptions, LauncherProgram, Manifest};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use interfaces::EchoClient;

use crate::report::target_folder;

/// A host with one running `echo`.
#[derive(Debug)]
pub struct ProcessTier {
    host: Arc<Host>,
    client: EchoClient,
}

impl ProcessTier {
    /// Builds `echo` as released, and starts it. Call inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// When cargo, the manifest or the extension fails; the error says which.
    pub async fn start() -> anyhow::Result<Self> {
        let program = build_echo()?;
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../extensions/echo/extension.toml");
        let manifest = Manifest::load(&manifest).map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
        let host = Host::new(HostOptions::new(LauncherProgram::CurrentExe))?;
        host.register(manifest, program)?;
        let client = EchoClient::new(host.extension("echo")?);
        let tier = Self { host, client };
        tier.round_trip("hello").await?;
        Ok(tier)
    }

    /// One call, there and back.
    ///
    /// # Errors
    ///
    /// When the call fails or its answer is another.
    pub async fn round_trip(&self, text: &str) -> anyhow::Result<Duration> {
        let text = text.to_owned();
        let expected = text.len();
        let start = Instant::now();
        let answer = self.client.echo(text).await?;
        let time = start.elapsed();
        anyhow::ensure!(answer.len() == expected, "echo answered something else");
        Ok(time)
    }

    /// Calls per second of one task that keeps `in_flight` calls in flight until `calls` are answered.
    ///
    /// # Errors
    ///
    /// When a call fails.
    pub async fn rate(&self, text: &str, in_flight: u32, calls: u32) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut flying: FuturesUnordered<_> =
            (0..in_flight).map(|_| self.client.echo(text.to_owned())).collect();
        for begun in in_flight..calls + in_flight {
            flying.next().await.context("nothing is in flight")??;
            if begun < calls {
                flying.push(self.client.echo(text.to_owned()));
            }
        }
        Ok(f64::from(calls) / start.elapsed().as_secs_f64())
    }

    /// Stops `echo`.
    pub async fn stop(self) {
        self.host.shutdown(Duration::from_secs(2)).await;
    }
}

/// Builds `echo` as released: its program, beside which its library lies.
pub(crate) fn build_echo() -> anyhow::Result<PathBuf> {
    let target = target_folder();
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", "echo", "--target-dir"])
        .arg(&target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status()
        .context("cargo could not be run")?;
    anyhow::ensure!(built.success(), "echo could not be built");
    Ok(target.join("release/echo"))
}
