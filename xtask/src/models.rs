//! Runs the loom models. A model is a test whose path contains `model`, compiled with `--cfg loom`.

use std::fs;
use std::process::Command;

use anyhow::Context as _;

use crate::workspace::Workspace;

/// Runs the models of every crate that depends on loom, and prints how many there were.
pub(crate) fn run() -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // A folder of its own: other flags would rebuild everything that is there.
    let target = workspace.root.join("target/loom");
    let mut models = 0;
    for member in &workspace.crates {
        let manifest = fs::read_to_string(member.folder.join("Cargo.toml"))?;
        if !manifest.contains("cfg(loom)") {
            continue;
        }
        let output = Command::new(&cargo)
            .args(["test", "--release", "--lib", "--package", &member.name, "model"])
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", &target)
            .env("LOOM_MAX_PREEMPTIONS", "3")
            .output()
            .context("cargo test could not be run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "models of {} failed:\n{text}\n{errors}", member.name);
        let passed = passed(&text);
        println!("models: {} of {}", passed, member.name);
        anyhow::ensure!(passed > 0, "{} depends on loom but has no model", member.name);
        models += passed;
    }
    anyhow::ensure!(models > 0, "no model was found");
    println!("models: {models} in all");
    Ok(())
}

/// The number in `test result: ok. 3 passed; ...`.
fn passed(text: &str) -> u32 {
    text.lines()
        .filter_map(|line| line.strip_prefix("test result: ok. "))
        .filter_map(|rest| rest.split(' ').next()?.parse::<u32>().ok())
        .sum()
}
