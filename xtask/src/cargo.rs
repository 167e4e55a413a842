//! What cargo says of the tree: members, arrows, crates of others, and what the smallest extension builds.
//!
//! All of it is plain data with paths below the root, so that what was said of a tree can be used for its copy.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;

/// The extension whose dependencies every author pays at least.
pub const SMALLEST_EXTENSION: &str = "echo";

/// The SDK's feature that brings the fast codec.
const FAST: &str = "extension-sdk/fast";

/// One crate of ours.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Folder of its manifest, below the root.
    pub folder: String,
    /// Crates of ours that it depends on, dev-dependencies apart.
    pub arrows: Vec<String>,
    /// Crates of others that it depends on directly, dev-dependencies apart.
    pub outside: Vec<String>,
}

/// One crate of others, in the version that is built on this system.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Its name.
    pub name: String,
    /// As in `Cargo.lock`.
    pub version: semver::Version,
    /// The licence as its manifest states it.
    pub license: Option<String>,
    /// Where cargo has it from, as in `Cargo.lock`. `None`: from a folder.
    pub source: Option<String>,
}

/// All that cargo was asked.
#[derive(Clone, Debug)]
pub struct Cargo {
    /// Where it builds.
    pub target_folder: PathBuf,
    /// Crates of ours.
    pub members: Vec<Member>,
    /// Crates of others that this system builds, whatever for.
    pub outside: Vec<Outside>,
    /// Names of all crates that are built for [`SMALLEST_EXTENSION`], build scripts and macros included.
    pub extension_builds: Vec<String>,
    /// The same where it takes the fast codec.
    pub fast_extension_builds: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: semver::Version,
    license: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
}

impl Cargo {
    /// Asks `cargo metadata` and `cargo tree` of the tree at `root`.
    ///
    /// # Errors
    ///
    /// Cargo does not understand the tree (the text is cargo's), or has changed the form of its answers.
    pub fn ask(root: &Path) -> anyhow::Result<Self> {
        let version = run(root, &["--version", "--verbose"])?;
        let host =
            version.lines().find_map(|line| line.strip_prefix("host: ")).context("cargo names no host")?;
        let answer = run(root, &["metadata", "--format-version", "1", "--filter-platform", host])?;
        let metadata: Metadata = serde_json::from_str(&answer).context("cargo metadata changed its form")?;
        let (plain, fast) = (builds(root, &[])?, builds(root, &["--features", FAST])?);
        Self::new(metadata, plain, fast)
    }

    fn new(
        metadata: Metadata,
        extension_builds: Vec<String>,
        fast_extension_builds: Vec<String>,
    ) -> anyhow::Result<Self> {
        let (mut members, mut outside) = (Vec::new(), Vec::new());
        for package in metadata.packages {
            if !metadata.resolve.nodes.iter().any(|node| node.id == package.id) {
                continue;
            }
            if metadata.workspace_members.contains(&package.id) {
                members.push(member(package, &metadata.workspace_root)?);
            } else {
                let Package { name, version, license, source, .. } = package;
                outside.push(Outside { name, version, license, source });
            }
        }
        Ok(Self {
            target_folder: metadata.target_directory,
            members,
            outside,
            extension_builds,
            fast_extension_builds,
        })
    }

    /// The crates of others that the smallest extension builds.
    pub fn extension_outside(&self) -> impl Iterator<Item = &str> {
        self.others(&self.extension_builds)
    }

    /// The same where it takes the fast codec.
    pub fn fast_extension_outside(&self) -> impl Iterator<Item = &str> {
        self.others(&self.fast_extension_builds)
    }

    fn others<'a>(&'a self, builds: &'a [String]) -> impl Iterator<Item = &'a str> {
        let is_ours = |name: &str| self.members.iter().any(|member| member.name == name);
        builds.iter().map(String::as_str).filter(move |name| !is_ours(name))
    }
}

/// All that is built for the smallest extension, with further arguments.
fn builds(root: &Path, further: &[&str]) -> anyhow::Result<Vec<String>> {
    let tree = ["tree", "--package", SMALLEST_EXTENSION, "--edges", "normal,build", "--prefix", "none"];
    let tree = run(root, &[&tree[..], further].concat())?;
    let mut builds: Vec<String> =
        tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    builds.sort();
    builds.dedup();
    anyhow::ensure!(builds.iter().any(|name| name == SMALLEST_EXTENSION), "cargo tree changed its form");
    Ok(builds)
}

fn member(package: Package, root: &Path) -> anyhow::Result<Member> {
    let folder = package.manifest_path.parent().and_then(|folder| folder.strip_prefix(root).ok());
    let folder = folder.context("a member lies outside of the tree")?.to_string_lossy().into_owned();
    let (ours, others): (Vec<_>, Vec<_>) = package
        .dependencies
        .into_iter()
        .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        .partition(|dependency| dependency.path.is_some());
    let names = |list: Vec<Dependency>| list.into_iter().map(|dependency| dependency.name).collect();
    Ok(Member { name: package.name, folder, arrows: names(ours), outside: names(others) })
}

fn run(root: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root)
        .output()
        .with_context(|| format!("cargo {} could not be run", arguments[0]))?;
    anyhow::ensure!(
        output.status.success(),
        "cargo {}: {}",
        arguments[0],
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    String::from_utf8(output.stdout).with_context(|| format!("cargo {} wrote no text", arguments[0]))
}
