//! Calls beside what disturbs them: a slow call of the same extension, cores that have other work. And what it costs when
//! nobody calls at all.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use extension_host::{Host, HostOptions, LauncherProgram, Manifest, Transport};
use extension_sdk::{Context, Fault};
use ipc_transport::ring::Latency;

use crate::asking::build;
use crate::pin_to;
use crate::process_tier::ProcessTier;
use crate::report::{Figure, Report};

/// Fast calls beside a slow one.
const FAST: u32 = 10_000;
/// How long the slow one takes.
const SLOW: Duration = Duration::from_millis(100);
/// Rounds beside busy cores, and calls of a round.
const ROUNDS: u32 = 7;
const BUSY: u32 = 300;
/// Extensions that nobody calls, how long they may take to fall asleep, and how long they are watched.
const IDLE: usize = 20;
const SETTLING: Duration = Duration::from_secs(2);
const WATCHED: Duration = Duration::from_secs(10);

#[extension_sdk::interface]
trait Asks {
    #[method(idempotent)]
    fn pass_on(&self, cx: &Context, path: Vec<String>, text: String) -> Result<String, Fault>;
    fn hold(&self, cx: &Context) -> Result<(), Fault>;
}

/// Measures all of it. `ours` and `theirs` are the cores of the caller and of who answers.
///
/// # Errors
///
/// When cargo or an extension does not do its part.
pub async fn measure(report: &mut Report, ours: usize, theirs: usize) -> anyhow::Result<()> {
    let text = "x".repeat(64);
    let host = host(1)?;
    pin_to(theirs)?;
    let fast = AsksClient::new(host.extension("e0")?);
    fast.pass_on(Vec::new(), text.clone()).await?;
    pin_to(ours)?;
    report.push(beside_slow(&fast, &text).await?);
    host.shutdown(Duration::from_secs(2)).await;

    pin_to(theirs)?;
    let shm = ProcessTier::start_with(Transport::SharedMemory, Latency::Balanced).await?;
    let socket = ProcessTier::start_with(Transport::Socket, Latency::Balanced).await?;
    pin_to(ours)?;
    let (mut by_shm, mut by_socket) = (Vec::new(), Vec::new());
    {
        let _load = [Spinner::on(ours), Spinner::on(theirs)];
        for _ in 0..ROUNDS {
            for (tier, times) in [(&shm, &mut by_shm), (&socket, &mut by_socket)] {
                for _ in 0..BUSY {
                    times.push(tier.round_trip(&text).await?);
                }
            }
        }
    }
    report.push(Figure::from_round_trips("call/process/shm/64/busy", &by_shm));
    report.push(Figure::from_round_trips("call/process/socket/64/busy", &by_socket));
    shm.stop().await;
    socket.stop().await;
    report.push(idle().await?);
    Ok(())
}

fn host(extensions: usize) -> anyhow::Result<Arc<Host>> {
    let program = build()?;
    let host = Host::new(HostOptions::new(LauncherProgram::CurrentExe))?;
    for name in (0..extensions).map(|number| format!("e{number}")) {
        let text = format!(
            "name = \"{name}\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"asks\"]\n\
             environment = {{ ASKS_NAME = \"{name}\" }}\n"
        );
        let manifest = Manifest::parse(&text, Path::new("extension.toml"));
        host.register(manifest.map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?, program.clone())?;
    }
    Ok(host)
}

/// Fast calls while a slow one is always in flight. The deadline ends it, and the next one begins.
async fn beside_slow(fast: &AsksClient, text: &str) -> anyhow::Result<Figure> {
    let slow = fast.clone().with_timeout(SLOW);
    let holding = tokio::spawn(async move {
        loop {
            // It ends in no other way.
            let _deadline = slow.hold().await.is_err();
        }
    });
    let mut times = Vec::new();
    for _ in 0..FAST {
        let start = Instant::now();
        fast.pass_on(Vec::new(), text.to_owned()).await?;
        times.push(start.elapsed());
        // Both run on this thread.
        tokio::task::yield_now().await;
    }
    anyhow::ensure!(!holding.is_finished(), "the slow calls have ended");
    holding.abort();
    Ok(Figure::from_round_trips("call/process/shm/64/beside-slow", &times).with_p999(&times))
}

/// A thread that has work on a core until it is dropped.
struct Spinner {
    is_over: Arc<AtomicBool>,
}

impl Spinner {
    fn on(core: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        thread::spawn(move || {
            // Not pinned, it is load all the same.
            let _is_pinned = pin_to(core).is_ok();
            // ORDERING(spinner): Relaxed, the flag guards no other data.
            while !seen.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        Self { is_over }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        // ORDERING(spinner): Relaxed, as above.
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// What this process and all that it has started use of one core while nobody calls, in percent.
async fn idle() -> anyhow::Result<Figure> {
    let host = host(IDLE)?;
    for number in 0..IDLE {
        let client = AsksClient::new(host.extension(&format!("e{number}"))?);
        client.pass_on(Vec::new(), "x".into()).await?;
    }
    tokio::time::sleep(SETTLING).await;
    let (start, before) = (Instant::now(), used_ns());
    tokio::time::sleep(WATCHED).await;
    let used = used_ns().saturating_sub(before);
    let share = Duration::from_nanos(used).as_secs_f64() / start.elapsed().as_secs_f64();
    host.shutdown(Duration::from_secs(2)).await;
    Ok(Figure::from_percent("idle/20-extensions", 100.0 * share))
}

/// Nanoseconds on a core of all threads of this process and its descendants, as the kernel's scheduler counts them.
fn used_ns() -> u64 {
    let mut open = vec![std::process::id()];
    let mut sum = 0;
    while let Some(pid) = open.pop() {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten().map(|task| task.path()) {
            let read = |name| std::fs::read_to_string(task.join(name)).unwrap_or_default();
            let on_a_core = read("schedstat").split(' ').next().and_then(|text| text.parse::<u64>().ok());
            sum += on_a_core.unwrap_or(0);
            open.extend(read("children").split(' ').filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    sum
}
