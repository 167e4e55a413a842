//! Calls through shared memory beside the same over the socket: hot, parked, on one core, and many in flight.
//!
//! Hot means that the next call follows the last at once, so that nobody sleeps. Parked means that a pause lies before
//! each call and that nobody polls (`latency = "efficient"`): both sides sleep, and a call costs two wake-ups, through
//! memory as over a socket. Turns of all figures alternate within a round.

use std::time::Duration;

use extension_host::Transport;
use ipc_transport::ring::Latency;

use crate::pin_to;
use crate::process_tier::ProcessTier;
use crate::raw_socket::RawSocket;
use crate::report::{Figure, Report};

/// Rounds of everything.
const ROUNDS: u32 = 7;
/// Calls of a hot turn that do not count, and those that do.
const HOT_LEAD_IN: u32 = 2_000;
const HOT: u32 = 10_000;
/// Calls of a parked turn, by the pause before each.
const PARKED: [(&str, Duration, u32); 2] =
    [("gap-1ms", Duration::from_millis(1), 150), ("gap-10ms", Duration::from_millis(10), 15)];
/// Calls of a rate.
const RATE_CALLS: u32 = 100_000;

/// What has been measured under one id.
#[derive(Default)]
struct Times(Vec<(String, Vec<Duration>)>);

impl Times {
    fn add(&mut self, id: impl Into<String>, times: impl IntoIterator<Item = Duration>) {
        let id = id.into();
        match self.0.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => known.extend(times),
            None => self.0.push((id, times.into_iter().collect())),
        }
    }
}

/// Measures all of it. `ours` and `theirs` are the cores of the caller and of who answers.
///
/// # Errors
///
/// When an extension or the bare socket does not do its part.
pub async fn measure(report: &mut Report, ours: usize, theirs: usize) -> anyhow::Result<()> {
    pin_to(theirs)?;
    let hot = ProcessTier::start_with(Transport::SharedMemory, Latency::Balanced).await?;
    let parked = ProcessTier::start_with(Transport::SharedMemory, Latency::Efficient).await?;
    let socket = ProcessTier::start_with(Transport::Socket, Latency::Efficient).await?;
    let mut raw = RawSocket::start(64)?;
    pin_to(ours)?;
    let crowded = ProcessTier::start_with(Transport::SharedMemory, Latency::Balanced).await?;
    let mut raw_crowded = RawSocket::start(64)?;

    let mut times = Times::default();
    let mut rates: Vec<(&str, Vec<f64>)> = Vec::new();
    for _ in 0..ROUNDS {
        for bytes in [64, 1024, 65_536] {
            let text = "x".repeat(bytes);
            hot_turn(&hot, &text, HOT_LEAD_IN).await?;
            times.add(format!("call/process/shm-hot/{bytes}"), hot_turn(&hot, &text, HOT).await?);
        }
        let text = "x".repeat(64);
        for (name, gap, calls) in PARKED {
            for _ in 0..calls {
                std::thread::sleep(gap);
                times.add(format!("peer/raw-socket/64/{name}/beside-shm"), [raw.round_trip()?]);
            }
            for (tier, id) in [(&parked, "shm-parked"), (&socket, "socket-parked")] {
                for _ in 0..calls {
                    std::thread::sleep(gap);
                    times.add(format!("call/process/{id}/64/{name}"), [tier.round_trip(&text).await?]);
                }
            }
        }
        for _ in 0..HOT {
            times.add("peer/raw-socket/64/one-core/beside-shm", [raw_crowded.round_trip()?]);
        }
        times.add("call/process/shm/64/one-core", hot_turn(&crowded, &text, HOT).await?);
        for (id, rate) in [
            ("rate/process/shm/256", hot.rate(&text, 256, RATE_CALLS).await?),
            ("rate/process/shm/tasks-256", hot.rate_of_tasks(&text, 256, RATE_CALLS).await?),
            ("rate/process/socket/256", socket.rate(&text, 256, RATE_CALLS).await?),
        ] {
            match rates.iter_mut().find(|(known, _)| *known == id) {
                Some((_, known)) => known.push(rate),
                None => rates.push((id, vec![rate])),
            }
        }
    }
    for (id, times) in times.0 {
        report.push(Figure::from_round_trips(&id, &times));
    }
    for (id, rates) in rates {
        report.push(Figure::from_rates(id, rates));
    }
    for tier in [hot, parked, socket, crowded] {
        tier.stop().await;
    }
    Ok(())
}

async fn hot_turn(tier: &ProcessTier, text: &str, calls: u32) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..calls {
        times.push(tier.round_trip(text).await?);
    }
    Ok(times)
}
