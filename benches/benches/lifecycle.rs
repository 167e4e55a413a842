//! `cargo bench --bench lifecycle`: what the start, the death and the next life of an extension cost, and what it weighs.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use benches::lifecycle;
use benches::report::Report;

fn main() -> anyhow::Result<()> {
    extension_launcher::run_if_launcher();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    runtime.block_on(lifecycle::measure(&mut report))?;
    println!("\n{}", report.table());
    println!("written: {}", report.write()?.display());
    Ok(())
}
