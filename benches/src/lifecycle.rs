//! What a life costs: the start of an instance, its end, the next one, and what it weighs while it idles.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use extension_host::{
    EventKind, EventReader, ExtensionSnapshot, Host, HostEvent, HostOptions, InstanceState, LauncherProgram,
    Manifest, Read,
};
use interfaces::EchoClient;
use rustix::process::{Pid, Signal, kill_process};

use crate::process_tier::build_echo;
use crate::report::{Figure, Report};

/// Lives of one extension that are measured.
const LIVES: u32 = 60;

/// Extensions that are watched over at once.
const WATCHED_OVER: u32 = 100;

/// How long they settle, and how long they are looked at.
const SETTLING: Duration = Duration::from_secs(3);
const LOOKED_AT: Duration = Duration::from_secs(5);

/// LIMIT: how long anything may take that must happen.
const BOUND: Duration = Duration::from_secs(30);

const LIMITS: &str = "[limits]\nmemory = \"256MiB\"\ncpu = \"200%\"\nprocesses = 64\n";

/// Measures everything. Call inside a tokio runtime.
///
/// # Errors
///
/// When cargo, the host or an extension fails; the error says which.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    for (suffix, limits) in [("", ""), ("/limits", LIMITS)] {
        let host = host(limits)?;
        let starts = starts(&host).await?;
        report.push(Figure::from_round_trips(&format!("lifecycle/cold-start{suffix}"), &starts));
        let (deaths, again) = deaths(&host).await?;
        report.push(Figure::from_round_trips(&format!("lifecycle/death-known{suffix}"), &deaths));
        report.push(Figure::from_round_trips(&format!("lifecycle/ready-again{suffix}"), &again));
        if limits.is_empty() {
            report.push(weight(&host)?);
        }
        host.shutdown(Duration::from_secs(2)).await;
    }
    report.push(watched_over().await?);
    for (id, program, script) in PEERS {
        match peer(program, script) {
            Ok((start, again)) => {
                report.push(Figure::from_round_trips(&format!("peer/{id}/start"), &start));
                report.push(Figure::from_round_trips(&format!("peer/{id}/killed-to-ready"), &again));
            }
            Err(why) => say_skipped(id, &why),
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "what is not measured is named beside the table")]
fn say_skipped(id: &str, why: &anyhow::Error) {
    eprintln!("skipped: peer/{id}: {why:#}");
}

/// A host of one `echo`: the program says its own name, which must be the manifest's.
fn host(limits: &str) -> anyhow::Result<Arc<Host>> {
    let program = build_echo()?;
    let host = Host::new(HostOptions::new(LauncherProgram::CurrentExe))?;
    let text = format!(
        "name = \"echo\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"echo\"]\n{limits}\
         [restart]\nbackoff = [\"1ms\", \"1ms\"]\nlimit = {{ count = 64, within = \"1ms\" }}\n"
    );
    let manifest = Manifest::parse(&text, Path::new("extension.toml"));
    host.register(manifest.map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?, program)?;
    Ok(host)
}

fn snapshot(host: &Host) -> anyhow::Result<ExtensionSnapshot> {
    host.snapshot().pop().context("it is registered")
}

async fn until_state(host: &Host, state: InstanceState) -> anyhow::Result<ExtensionSnapshot> {
    let until = Instant::now() + BOUND;
    loop {
        let now = snapshot(host)?;
        if now.state == state {
            return Ok(now);
        }
        anyhow::ensure!(Instant::now() < until, "it stays {}", now.state.name());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// From a call where nothing runs to its answer.
async fn starts(host: &Host) -> anyhow::Result<Vec<Duration>> {
    let client = EchoClient::new(host.extension("echo")?);
    let mut times = Vec::new();
    for _ in 0..LIVES {
        let began = Instant::now();
        client.echo("up".into()).await?;
        times.push(began.elapsed());
        host.stop("echo", "another start is measured").await?;
        until_state(host, InstanceState::Stopped).await?;
    }
    Ok(times)
}

/// The next event that `pick` takes.
async fn event(
    events: &mut EventReader<Arc<HostEvent>>,
    pick: impl Fn(&EventKind) -> bool,
) -> anyhow::Result<()> {
    let found = async {
        loop {
            match events.wait().await {
                Read::Event(_, event) if pick(&event.kind) => return Ok(()),
                Read::Gap { lost } => anyhow::bail!("{lost} events were missed"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(BOUND, found).await.context("an event did not come")?
}

/// From a kill until the death is known, and until the next instance takes calls, at a backoff of a millisecond, which is
/// the least that there is and not counted.
async fn deaths(host: &Host) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let client = EchoClient::new(host.extension("echo")?);
    let (mut known, mut again) = (Vec::new(), Vec::new());
    client.echo("up".into()).await?;
    let mut events = host.subscribe();
    for _ in 0..LIVES {
        let pid = until_state(host, InstanceState::Ready).await?.pid.context("it runs")?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("it has a pid")?;
        let began = Instant::now();
        kill_process(pid, Signal::KILL)?;
        event(&mut events, |kind| matches!(kind, EventKind::Died { .. })).await?;
        known.push(began.elapsed());
        event(&mut events, |kind| matches!(kind, EventKind::Ready { .. })).await?;
        again.push(began.elapsed().saturating_sub(Duration::from_millis(1)));
    }
    Ok((known, again))
}

/// Memory of an instance that idles, its launcher's included: anonymous and of files.
fn weight(host: &Host) -> anyhow::Result<Figure> {
    let now = snapshot(host)?;
    let mut kib = 0_u64;
    for pid in [now.pid.context("it runs")?, now.launcher_pid.context("it runs")?] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        for name in ["RssAnon:", "RssFile:"] {
            let rest = status.split_once(name).context("the kernel says it")?.1;
            let number = rest.split_ascii_whitespace().next().context("a number")?;
            kib += number.parse::<u64>()?;
        }
    }
    Ok(Figure::from_amount("lifecycle/memory", "KiB", kib))
}

/// What this process uses of a core while it watches over many that idle, in percent.
async fn watched_over() -> anyhow::Result<Figure> {
    let mut hosts = Vec::new();
    for _ in 0..WATCHED_OVER {
        let host = host(LIMITS)?;
        EchoClient::new(host.extension("echo")?).echo("up".into()).await?;
        hosts.push(host);
    }
    tokio::time::sleep(SETTLING).await;
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = |time: rustix::time::Timespec| {
        Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0)).as_secs_f64()
    };
    let (began, before) = (Instant::now(), used());
    tokio::time::sleep(LOOKED_AT).await;
    let share = (seconds(used()) - seconds(before)) / began.elapsed().as_secs_f64();
    for host in hosts {
        host.shutdown(Duration::from_secs(2)).await;
    }
    Ok(Figure::from_percent("lifecycle/supervision-of-100", 100.0 * share))
}

/// What others do for the same: a process that answers one message, killed, and another one that answers. Each prints
/// two numbers a line, in microseconds.
const PEERS: [(&str, &str, &str); 2] = [
    (
        "python-multiprocessing",
        "python3",
        "import multiprocessing as m, time, os, signal\n\
         def serve(c):\n    while True: c.send(c.recv())\n\
         def up():\n    a, b = m.Pipe(); p = m.get_context('spawn').Process(target=serve, args=(b,), daemon=True)\n    \
         p.start(); a.send(1); a.recv(); return p\n\
         if __name__ == '__main__':\n    for _ in range(15):\n        t = time.monotonic(); p = up(); s = time.monotonic() - t\n        \
         t = time.monotonic(); os.kill(p.pid, signal.SIGKILL); p.join(); q = up(); a = time.monotonic() - t\n        \
         print(int(s * 1e6), int(a * 1e6)); q.kill(); q.join()\n",
    ),
    (
        "node-fork",
        "node",
        "const { fork } = require('child_process');\n\
         if (process.send) { process.on('message', m => process.send(m)); return; }\n\
         const up = () => new Promise(r => { const p = fork(__filename); p.once('message', () => r(p)); p.send(1); });\n\
         const us = t => Number(process.hrtime.bigint() - t) / 1e3;\n\
         (async () => { for (let i = 0; i < 15; i++) {\n  let t = process.hrtime.bigint(); const p = await up(); const s = us(t);\n  \
         t = process.hrtime.bigint(); const gone = new Promise(r => p.once('exit', r)); p.kill('SIGKILL'); await gone;\n  \
         const q = await up(); console.log(Math.round(s), Math.round(us(t))); q.kill('SIGKILL');\n } process.exit(0); })();\n",
    ),
];

fn peer(program: &str, script: &str) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(if program == "node" { "peer.js" } else { "peer.py" });
    std::fs::write(&file, script)?;
    let output =
        Command::new(program).arg(&file).output().with_context(|| format!("{program} cannot be run"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr));
    let number = |text: &str| Some(Duration::from_micros(text.parse().ok()?));
    let both = text.lines().map(|line| {
        let (start, again) = line.split_once(' ')?;
        Some((number(start)?, number(again)?))
    });
    let both: Option<Vec<_>> = both.collect();
    Ok(both.filter(|both| !both.is_empty()).context("it printed something else")?.into_iter().unzip())
}
