//! `cargo bench --bench asking`: what it costs an extension to ask for another one, for nothing, and for an artifact.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use benches::report::Report;

fn main() -> anyhow::Result<()> {
    extension_launcher::run_if_launcher();
    let cores = std::thread::available_parallelism()?.get();
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(benches::asking::measure(&mut report, 0, cores - 1))?;
    println!("\n{}", report.table());
    println!("written: {}", report.write()?.display());
    Ok(())
}
