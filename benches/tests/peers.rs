//! Each peer of `--features peers` starts and answers what it was sent.
//!
//! A program of its own, since the peers' answering sides are this program started once more.

#![expect(clippy::print_stdout, reason = "it is its own harness")]

use benches::peers::{self, Peers};
use benches::raw_socket;
use benches::report::Report;

fn main() -> anyhow::Result<()> {
    if let Some(served) = raw_socket::serve_if_asked().or_else(peers::serve_if_asked) {
        return served;
    }
    let cores = std::thread::available_parallelism()?.get();
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut peers = Peers::start(0, cores - 1).await?;
        for _ in 0..2 {
            peers.round().await?;
        }
        peers.report(&mut report);
        anyhow::Ok(())
    })?;
    for figure in report.figures() {
        let measured = figure.p50.or(figure.per_second).is_some_and(|value| value > 0.0);
        anyhow::ensure!(measured, "{} was not measured", figure.id);
    }
    println!("{}", report.table());
    println!("test result: ok. 1 passed: {} peers answered", report.figures().len());
    Ok(())
}
