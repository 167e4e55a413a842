//! The real thing: `echo` in a process of its own, reached through typed client, route, host and SDK.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use extension_host::{Host, HostOptions, LauncherProgram, Manifest, Transport};
use interfaces::EchoClient;
use ipc_transport::ring::Latency;

use crate::report::target_folder;

/// A host with one running `echo`.
#[derive(Debug)]
pub struct ProcessTier {
    host: Arc<Host>,
    client: EchoClient,
}

impl ProcessTier {
    /// As [`Self::start_with`], as a manifest that says nothing of it has it.
    ///
    /// # Errors
    ///
    /// As [`Self::start_with`].
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Transport::default(), Latency::default()).await
    }

    /// Builds `echo` as released, and starts it. Call inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// When cargo, the manifest or the extension fails; the error says which.
    pub async fn start_with(transport: Transport, latency: Latency) -> anyhow::Result<Self> {
        let program = build_echo()?;
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../extensions/echo/extension.toml");
        let mut manifest = Manifest::load(&manifest).map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
        (manifest.transport, manifest.latency) = (transport, latency);
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
        // The oldest is awaited first: answers to the same method come in order most of the time.
        let mut flying: VecDeque<_> = (0..in_flight).map(|_| self.client.echo(text.to_owned())).collect();
        for begun in in_flight..calls + in_flight {
            flying.pop_front().context("nothing is in flight")?.await?;
            if begun < calls {
                flying.push_back(self.client.echo(text.to_owned()));
            }
        }
        Ok(f64::from(calls) / start.elapsed().as_secs_f64())
    }

    /// Calls per second of `tasks` tasks that call one after the other each, until `calls` are answered.
    ///
    /// # Errors
    ///
    /// When a call fails.
    pub async fn rate_of_tasks(&self, text: &str, tasks: u32, calls: u32) -> anyhow::Result<f64> {
        let start = Instant::now();
        let running: Vec<_> = (0..tasks)
            .map(|_| {
                let (client, text) = (self.client.clone(), text.to_owned());
                tokio::spawn(async move {
                    for _ in 0..calls / tasks {
                        client.echo(text.clone()).await?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for task in running {
            task.await??;
        }
        Ok(f64::from(calls / tasks * tasks) / start.elapsed().as_secs_f64())
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
