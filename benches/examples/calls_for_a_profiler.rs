//! Calls `echo` for some seconds and prints the median, so that a profiler can look at both sides meanwhile:
//! `cargo run --release -p benches --example calls_for_a_profiler -- SECONDS [IN_FLIGHT [BYTES]]`.

#![expect(clippy::print_stdout, reason = "the figure is what this program is for")]

use std::time::{Duration, Instant};

use benches::pin_to;
use benches::process_tier::ProcessTier;

fn main() -> anyhow::Result<()> {
    extension_launcher::run_if_launcher();
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().as_deref().unwrap_or("5").parse()?;
    let in_flight: u32 = arguments.next().as_deref().unwrap_or("1").parse()?;
    let bytes: usize = arguments.next().as_deref().unwrap_or("64").parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        pin_to(std::thread::available_parallelism()?.get() - 1)?;
        let tier = ProcessTier::start().await?;
        pin_to(0)?;
        let text = "x".repeat(bytes);
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut times = Vec::new();
        let mut rates = Vec::new();
        while Instant::now() < until {
            if in_flight > 1 {
                rates.push(tier.rate(&text, in_flight, 100_000).await?);
                continue;
            }
            for _ in 0..1000 {
                times.push(tier.round_trip(&text).await?);
            }
        }
        times.sort_unstable();
        rates.sort_by(f64::total_cmp);
        if let Some(median) = times.get(times.len() / 2) {
            println!(
                "{} calls, median {median:?}, of a hundred below {:?}",
                times.len(),
                times[times.len() / 100 * 99]
            );
        }
        if let Some(median) = rates.get(rates.len() / 2) {
            println!("{median:.0} calls a second, {in_flight} in flight");
        }
        tier.stop().await;
        Ok(())
    })
}
