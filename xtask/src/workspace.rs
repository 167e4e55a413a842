//! The workspace as cargo sees it: members, their folders, and the arrows between them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;

/// One crate of ours.
pub(crate) struct Crate {
    pub(crate) name: String,
    /// Folder of its manifest.
    pub(crate) folder: PathBuf,
    /// Crates of ours that it depends on, dev-dependencies apart.
    pub(crate) arrows: Vec<String>,
    /// Crates of others that it depends on directly, dev-dependencies apart.
    pub(crate) others: Vec<String>,
}

/// All crates of ours.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) crates: Vec<Crate>,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

impl Workspace {
    /// Asks `cargo metadata`.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
            .output()
            .context("cargo metadata could not be run")?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).context("cargo metadata changed its form")?;
        let crates = metadata
            .packages
            .into_iter()
            .map(|package| {
                let (ours, others): (Vec<_>, Vec<_>) = package
                    .dependencies
                    .into_iter()
                    .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
                    .partition(|dependency| dependency.path.is_some());
                let mut folder = package.manifest_path;
                folder.pop();
                Crate {
                    name: package.name,
                    folder,
                    arrows: ours.into_iter().map(|dependency| dependency.name).collect(),
                    others: others.into_iter().map(|dependency| dependency.name).collect(),
                }
            })
            .collect();
        Ok(Self { root: metadata.workspace_root, crates })
    }
}
