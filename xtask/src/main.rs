//! The project's own checks, run as `cargo xtask NAME`.
//!
//! - `tidy`: the rules of the house that no compiler holds: who may know whom, file headers and lengths,
//!   inherited lints, the list of modules with `unsafe`.
//! - `models`: the loom models of every crate that has some, counted; none found is a failure.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod files;
mod layers;
mod models;
mod workspace;

use std::process::ExitCode;

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let result = match task.as_str() {
        "tidy" => tidy(),
        "models" => models::run(),
        _ => {
            eprintln!("usage: cargo xtask tidy | models");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {task}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every rule and reports all that is broken, not only the first.
fn tidy() -> anyhow::Result<()> {
    let workspace = workspace::Workspace::load()?;
    let mut broken = layers::check(&workspace);
    broken.extend(files::check(&workspace)?);
    for line in &broken {
        eprintln!("tidy: {line}");
    }
    anyhow::ensure!(broken.is_empty(), "{} rules broken", broken.len());
    println!("tidy: {} crates, all rules hold", workspace.crates.len());
    Ok(())
}
