//! `cargo bench --bench pit`: what the Pit's operations cost, each beside a plain lock and (with `--features
//! peers`) beside what others have for the same task, ending with one table.
//!
//! Nanosecond figures are medians of batches (see `batch`); what one thread does alone and what two do at once are
//! different ids. `cargo bench --bench pit -- pool dag` measures only these parts.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this program is for")]

mod arbitration;
mod artifacts;
mod batch;
mod dag;
mod pool;
mod stale;

use benches::report::Report;

/// Measures one part and adds its figures.
type Part = fn(&mut Report) -> anyhow::Result<()>;

const PARTS: [(&str, Part); 5] = [
    ("pool", pool::run),
    ("dag", dag::run),
    ("arbitration", arbitration::run),
    ("stale", stale::run),
    ("artifacts", artifacts::run),
];

fn main() -> anyhow::Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    for name in &asked {
        let known = PARTS.map(|(part, _)| part);
        anyhow::ensure!(known.contains(&name.as_str()), "there is no part `{name}`; the parts are {known:?}");
    }
    let mut report = Report::default();
    for (name, part) in PARTS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            println!("{name}: measuring");
            part(&mut report)?;
        }
    }
    println!("\n{}", report.table());
    println!("written: {}", report.write()?.display());
    Ok(())
}
