//! Runs the loom models. A model is a test whose path contains `model`, compiled with `--cfg loom`.
//!
//! A model that is renamed, or compiled away by a condition, is no longer run, and nothing else would say so: hence the
//! count, and the table of how many there were.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::cargo::{Cargo, Member};

/// Models of each crate that has some, at least. Raise it with every model.
const MODELS_MIN: &[(&str, u32)] = &[("pit-core", 5), ("dag-tracker", 6), ("pool-manager", 17)];

/// LIMIT: preemptions in one interleaving, where a model does not say otherwise.
const PREEMPTIONS_MAX: &str = "3";

/// Runs the models of every crate that depends on loom, or of one, and prints how many there were.
///
/// # Errors
///
/// A model failed, there were fewer than before, or a crate with loom has no row in the table.
pub fn run(root: &Path, only: Option<&str>, out: &mut impl Write) -> anyhow::Result<()> {
    let cargo = Cargo::ask(root)?;
    let members = crates(&cargo.members)?;
    let chosen: Vec<_> =
        members.iter().filter(|(member, _)| only.is_none_or(|only| only == member.name)).collect();
    anyhow::ensure!(!chosen.is_empty(), "{} has no models", only.unwrap_or("the workspace"));
    let mut models = 0;
    let mut fallen = Vec::new();
    for (member, least) in chosen {
        let ran = run_crate(root, &cargo.target_folder, &member.name)?;
        let note = if ran > *least { ": raise MODELS_MIN in xtask/src/models.rs" } else { "" };
        writeln!(out, "models: {ran} of {}, at least {least}{note}", member.name)?;
        if let Err(what) = hold(&member.name, ran, *least) {
            fallen.push(what);
        }
        models += ran;
    }
    writeln!(out, "models: {models} in all")?;
    anyhow::ensure!(fallen.is_empty(), "{}", fallen.join("; "));
    Ok(())
}

/// Members with loom and their least number; the table and the manifests agree.
fn crates(members: &[Member]) -> anyhow::Result<Vec<(&Member, u32)>> {
    let with_loom = members.iter().filter(|member| member.outside.iter().any(|other| other == "loom"));
    let rows = with_loom.map(|member| {
        let row = MODELS_MIN.iter().find(|(name, _)| *name == member.name);
        let (_, least) = row.with_context(|| {
            format!("{} depends on loom: give it a row in MODELS_MIN of xtask/src/models.rs", member.name)
        })?;
        Ok((member, *least))
    });
    let rows: Vec<_> = rows.collect::<anyhow::Result<_>>()?;
    for (name, _) in MODELS_MIN {
        anyhow::ensure!(
            rows.iter().any(|(member, _)| member.name == *name),
            "{name} has a row in MODELS_MIN of xtask/src/models.rs, but does not depend on loom"
        );
    }
    Ok(rows)
}

fn hold(name: &str, ran: u32, least: u32) -> Result<(), String> {
    if ran >= least {
        return Ok(());
    }
    Err(format!(
        "{name} has {ran} models and had {least}: find the lost ones, or lower MODELS_MIN and say why"
    ))
}

fn run_crate(root: &Path, target: &Path, name: &str) -> anyhow::Result<u32> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--release", "--lib", "--package", name, "model"])
        .current_dir(root)
        .env("RUSTFLAGS", "--cfg loom")
        // A folder of its own: other flags would rebuild everything that is there.
        .env("CARGO_TARGET_DIR", target.join("loom"))
        .env("LOOM_MAX_PREEMPTIONS", PREEMPTIONS_MAX)
        .output()
        .context("cargo test could not be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "models of {name} failed:\n{text}\n{errors}");
    Ok(passed(&text))
}

/// The number in `test result: ok. 3 passed; ...`.
fn passed(text: &str) -> u32 {
    text.lines()
        .filter_map(|line| line.strip_prefix("test result: ok. "))
        .filter_map(|rest| rest.split(' ').next()?.parse::<u32>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, outside: &[&str]) -> Member {
        let outside = outside.iter().map(ToString::to_string).collect();
        Member { name: name.into(), folder: name.into(), arrows: Vec::new(), outside }
    }

    fn all() -> Vec<Member> {
        MODELS_MIN.iter().map(|(name, _)| member(name, &["loom"])).collect()
    }

    #[test]
    fn fewer_models_than_there_were_fail() {
        assert_eq!(passed("running 3 tests\ntest result: ok. 3 passed; 0 failed; 0 ignored\n"), 3);
        assert_eq!(passed("running 0 tests\n"), 0);
        assert!(hold("a", 3, 3).is_ok());
        assert!(hold("a", 2, 3).is_err_and(|what| what.contains("had 3")));
        assert!(hold("a", 4, 3).is_ok());
    }

    #[test]
    fn the_table_and_the_manifests_agree() {
        assert_eq!(crates(&all()).expect("they agree").len(), MODELS_MIN.len());
        let mut more = all();
        more.push(member("novelty", &["loom"]));
        assert!(crates(&more).is_err_and(|error| error.to_string().contains("novelty depends on loom")));
        let mut fewer = all();
        fewer[0].outside.clear();
        assert!(crates(&fewer).is_err_and(|error| error.to_string().contains("does not depend on loom")));
    }
}
