//! `echo` in this process: the same extension, interface, client and host as in [`crate::process_tier`], and another
//! tier.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use extension_host::in_process::StartOptions;
use extension_host::{Host, HostOptions, InProcess, LauncherProgram, Library, LibrarySource, Manifest};
use interfaces::EchoClient;

use crate::process_tier::build_echo;
use crate::report::Figure;

/// Calls of one batch. Reading the clock twice is then no part of the figure.
const BATCH: u32 = 1_000;
/// Batches that count.
const BATCHES: usize = 400;
/// Batches before them: until then the method has not proven fast.
const LEAD_IN: usize = 40;

/// Calls with 64 bytes: through the host's route, and on the endpoint alone.
///
/// # Errors
///
/// When cargo, the manifest or the extension fails; the error says which.
pub async fn figures(bytes: usize) -> anyhow::Result<Vec<Figure>> {
    let library = build_echo()?.with_file_name("libecho.so");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../extensions/echo/extension.toml");
    let manifest = Manifest::load(&manifest).map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
    let host = Host::new(HostOptions::new(LauncherProgram::CurrentExe))?;
    host.register_in_process(manifest, LibrarySource::File(library.clone()))?;
    let routed = EchoClient::new(host.extension("echo")?);
    let loaded = Library::load(&library)?;
    let instance = InProcess::start(&loaded, StartOptions::new()).await?;
    let bare = EchoClient::new(Arc::new(instance));
    let text = "x".repeat(bytes);
    let (mut by_route, mut by_endpoint) = (Vec::new(), Vec::new());
    // In turns, so that a drift of the machine meets both.
    for batch in 0..LEAD_IN + BATCHES {
        for (client, times) in [(&routed, &mut by_route), (&bare, &mut by_endpoint)] {
            let time = calls(client, &text).await?;
            if batch >= LEAD_IN {
                times.push(time);
            }
        }
    }
    host.shutdown(Duration::from_secs(2)).await;
    Ok(vec![
        Figure::from_nanoseconds(&format!("call/in-process/encoded/{bytes}"), median(by_route)),
        Figure::from_nanoseconds(&format!("call/in-process/encoded/{bytes}/endpoint"), median(by_endpoint)),
    ])
}

/// Nanoseconds of one call, over a batch.
async fn calls(client: &EchoClient, text: &str) -> anyhow::Result<f64> {
    let start = Instant::now();
    for _ in 0..BATCH {
        let answer = client.echo(text.to_owned()).await?;
        anyhow::ensure!(answer.len() == text.len(), "echo answered something else");
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
