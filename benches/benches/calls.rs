//! `cargo bench --bench calls`: what a call costs in each tier, ending with one table.
//!
//! Baselines in this process go through criterion (100 samples of many thousand calls each). Calls into
//! another process are taken in turns with the bare socket, so that a drift of the machine meets both: in long
//! turns that begin unmeasured, each side in the state that it brings about by itself, and once more `mixed`, in
//! turns so short that the bare socket profits from the timers of the other side.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
#[cfg(feature = "peers")]
use benches::peers::{self, Peers};
use benches::pin_to;
use benches::process_tier::ProcessTier;
use benches::raw_socket::{self, RawSocket};
use benches::report::{Figure, Report, target_folder};
use benches::shared_memory;
use criterion::Criterion;
use extension_host::Transport;
use ipc_transport::ring::Latency;

/// Bytes of a message.
const BYTES: usize = 64;
/// Rounds of the interleaved measurement; figures are over all of them.
const ROUNDS: u32 = 11;
/// Round trips of one side before those that count: 40 ms and more. Until then the machine is in the state that
/// the other side left: the extension's watch ticks on for 20 ms after a call, and a core with a timer at hand
/// does not stop its tick when it idles, which makes every wake-up cheaper by several microseconds.
const LEAD_IN: u32 = 1_500;
/// Round trips of one side that count, in one round.
const ROUND_TRIPS: u32 = 1_500;
/// Turns of each side in a round of the mixed measurement, and the round trips of a turn: so short that each side
/// always runs in the state that the other one left.
const MIXED_TURNS: u32 = 20;
const MIXED_ROUND_TRIPS: u32 = 50;

/// What is told as a ratio, where both were measured.
const RATIOS: &[(&str, &str)] = &[
    ("call/process/socket/64", "peer/raw-socket/64"),
    ("call/process/socket/64/mixed", "peer/raw-socket/64/mixed"),
    ("call/process/shm-hot/64", "peer/raw-socket/64"),
    ("call/process/shm-hot/64", "peer/iceoryx2-rr/64"),
    ("call/process/shm-hot/1024", "peer/iceoryx2-rr/1024"),
    ("call/process/shm-hot/65536", "peer/iceoryx2-rr/65536"),
    ("call/process/shm-parked/64/gap-1ms", "peer/raw-socket/64/gap-1ms/beside-shm"),
    ("call/process/shm-parked/64/gap-10ms", "peer/raw-socket/64/gap-10ms/beside-shm"),
    ("call/process/socket-parked/64/gap-1ms", "peer/raw-socket/64/gap-1ms/beside-shm"),
    ("call/process/socket-parked/64/gap-10ms", "peer/raw-socket/64/gap-10ms/beside-shm"),
    ("call/process/shm/64/one-core", "peer/raw-socket/64/one-core/beside-shm"),
];

fn main() -> anyhow::Result<()> {
    extension_launcher::run_if_launcher();
    if let Some(served) = raw_socket::serve_if_asked() {
        return served;
    }
    #[cfg(feature = "peers")]
    if let Some(served) = peers::serve_if_asked() {
        return served;
    }
    let mut report = Report::default();
    baselines(&mut report)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for figure in runtime.block_on(benches::in_process_tier::figures(BYTES))? {
        report.push(figure);
    }
    runtime.block_on(processes(&mut report))?;
    println!("\n{}", report.table());
    for (call, base) in RATIOS {
        if let Some(ratio) = report.ratio(call, base) {
            println!("{call} is {ratio:.3} of {base}");
        }
    }
    println!("written: {}", report.write()?.display());
    Ok(())
}

trait Operation {
    fn apply(&self, input: u64) -> u64;
}

struct Increment(u64);

impl Operation for Increment {
    #[inline(never)]
    fn apply(&self, input: u64) -> u64 {
        input.wrapping_add(self.0)
    }
}

/// A direct call and a `dyn` call: what the in-process tier is measured against.
fn baselines(report: &mut Report) -> anyhow::Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let operation = Increment(1);
    let mut group = criterion.benchmark_group("call");
    group.bench_function("direct", |bench| bench.iter(|| operation.apply(black_box(1))));
    let operation: &dyn Operation = black_box(&operation);
    group.bench_function("dyn", |bench| bench.iter(|| operation.apply(black_box(1))));
    group.finish();
    for id in ["call/direct", "call/dyn"] {
        report.push(Figure::from_nanoseconds(id, criterion_median(id)?));
    }
    Ok(())
}

/// What criterion wrote down for `id`: the median in nanoseconds.
fn criterion_median(id: &str) -> anyhow::Result<f64> {
    let path: PathBuf = target_folder().join("criterion").join(id).join("new/estimates.json");
    let text = std::fs::read(&path).with_context(|| format!("{} could not be read", path.display()))?;
    let estimates: serde_json::Value = serde_json::from_slice(&text)?;
    estimates["median"]["point_estimate"].as_f64().context("criterion's estimates have another form")
}

/// Calls into `echo` beside the bare socket.
async fn processes(report: &mut Report) -> anyhow::Result<()> {
    // Across cores: what is started now stays on the last one, this process goes to the first. Left to the
    // scheduler both land on one core in one run and on two in the next, a factor of five apart.
    let cores = std::thread::available_parallelism()?.get();
    pin_to(cores - 1)?;
    let mut raw = RawSocket::start(BYTES)?;
    let tier = ProcessTier::start_with(Transport::Socket, Latency::Balanced).await?;
    pin_to(0)?;
    #[cfg(feature = "peers")]
    let mut peers = Peers::start(0, cores - 1).await?;
    let text = "x".repeat(BYTES);
    let (mut bare, mut called) = (Vec::new(), Vec::new());
    let (mut bare_mixed, mut called_mixed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        turn_bare(&mut raw, LEAD_IN)?;
        bare.extend(turn_bare(&mut raw, ROUND_TRIPS)?);
        turn_called(&tier, &text, LEAD_IN).await?;
        called.extend(turn_called(&tier, &text, ROUND_TRIPS).await?);
        for _ in 0..MIXED_TURNS {
            bare_mixed.extend(turn_bare(&mut raw, MIXED_ROUND_TRIPS)?);
            called_mixed.extend(turn_called(&tier, &text, MIXED_ROUND_TRIPS).await?);
        }
        #[cfg(feature = "peers")]
        peers.round().await?;
    }
    report.push(Figure::from_round_trips("peer/raw-socket/64", &bare));
    report.push(Figure::from_round_trips("call/process/socket/64", &called));
    report.push(Figure::from_round_trips("peer/raw-socket/64/mixed", &bare_mixed));
    report.push(Figure::from_round_trips("call/process/socket/64/mixed", &called_mixed));
    shared_memory::measure(report, 0, cores - 1).await?;
    #[cfg(feature = "peers")]
    peers.report(report);
    tier.stop().await;
    Ok(())
}

fn turn_bare(raw: &mut RawSocket, round_trips: u32) -> anyhow::Result<Vec<Duration>> {
    (0..round_trips).map(|_| raw.round_trip()).collect()
}

async fn turn_called(tier: &ProcessTier, text: &str, round_trips: u32) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..round_trips {
        times.push(tier.round_trip(text).await?);
    }
    Ok(times)
}
