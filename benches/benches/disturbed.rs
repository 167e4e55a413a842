//! `cargo bench --bench disturbed`: what a call costs beside a slow one and on busy cores, and what it costs when nobody
//! calls.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use benches::disturbed;
use benches::report::Report;

fn main() -> anyhow::Result<()> {
    extension_launcher::run_if_launcher();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    let cores = std::thread::available_parallelism()?.get();
    runtime.block_on(disturbed::measure(&mut report, 0, cores - 1))?;
    println!("\n{}", report.table());
    if let Some(ratio) = report.ratio("call/process/shm/64/busy", "call/process/socket/64/busy") {
        println!("call/process/shm/64/busy is {ratio:.3} of call/process/socket/64/busy");
    }
    println!("written: {}", report.write()?.display());
    Ok(())
}
