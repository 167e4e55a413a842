//! From a manifest to a program that can be started: found beside the manifest, or built with cargo.
//!
//! ```text
//! manifest --> beside it? ------------------------------> program --> description, stored under its BLAKE3
//!         \--> [build]: record fresh? -- yes ---------->/
//!                        \-- no --> one cargo per workspace --> record
//! ```
//!
//! Cargo and `--describe` run under the host's launcher, so that they and all that they start end when the
//! conductor does. This module must not know melodies.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use extension_host::Manifest;
use extension_host::exit::ProcessEnd;
use ipc_protocol::describe::Description;

use crate::config::Settings;
use crate::exit::chain;
use crate::progress::Screen;

mod cargo;
mod compiler;
pub mod describe;
pub mod environment;
pub mod freshness;
pub mod messages;

pub use compiler::CompilerMistake;
use describe::DescribeError;
use freshness::BuildRecord;

/// Why the description of a program that is there is not known without running it.
const NOT_KEPT: &str = "no description of this program is kept: it was not asked, or it gave none";

/// An extension that can be started.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its name.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// Its library, if the settings have it run in the conductor's process.
    pub library: Option<PathBuf>,
    /// What it says of itself, or in a clause why that is not known.
    pub description: Result<Description, String>,
}

/// Extensions could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no program, and the manifest does not say how to build one.
    #[error(
        "the program {program} of the extension `{extension}` is missing, and its manifest has no [build]"
    )]
    NoProgram {
        /// The extension.
        extension: String,
        /// Where the program was looked for.
        program: PathBuf,
    },
    /// The package to be built has no manifest of cargo's.
    #[error(
        "the extension `{extension}` is built with cargo, but there is no Cargo.toml in {folder} or above"
    )]
    NoPackage {
        /// The extension.
        extension: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// Cargo is not installed.
    #[error("cargo was not found, neither in $CARGO nor on $PATH")]
    NoCargo,
    /// Cargo could not be started or listened to.
    #[error("cargo could not be run")]
    Run(#[source] io::Error),
    /// The build failed; cargo has said why.
    #[error("the build of {packages} failed ({status})")]
    Failed {
        /// The packages.
        packages: String,
        /// The extension whose package it was, where that is known.
        extension: Option<String>,
        /// How cargo ended.
        status: ProcessEnd,
        /// The first mistake that the compiler named.
        #[source]
        mistake: Option<CompilerMistake>,
    },
    /// The build succeeded without making the program.
    #[error("the package `{package}` has no binary `{binary}`, which the extension `{extension}` runs")]
    NoBinary {
        /// The extension.
        extension: String,
        /// Its package.
        package: String,
        /// What its manifest names.
        binary: String,
        /// The binaries that the package has, sorted.
        others: Vec<String>,
    },
    /// There is no library of an extension that is to run in the conductor's process.
    #[error(
        "the extension `{extension}` is to run in the conductor's process (`in-process`), but {} makes no library",
        package.as_ref().map_or("what lies beside its manifest".to_owned(), |package| format!("its package `{package}`"))
    )]
    NoLibrary {
        /// The extension.
        extension: String,
        /// Its package, if it is built.
        package: Option<String>,
    },
    /// The new program says nothing usable of itself.
    #[error("the extension `{extension}` was built, but does not describe itself")]
    Describe {
        /// The extension.
        extension: String,
        /// Why.
        #[source]
        source: DescribeError,
    },
}

impl BuildError {
    /// Whether the environment is at fault, and not the extension.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        matches!(self, Self::NoProgram { .. } | Self::NoCargo | Self::Run(_))
    }

    /// The extension whose author is at fault, if one is.
    #[must_use]
    pub fn extension(&self) -> Option<&str> {
        match self {
            Self::NoProgram { extension, .. }
            | Self::NoPackage { extension, .. }
            | Self::NoBinary { extension, .. }
            | Self::NoLibrary { extension, .. }
            | Self::Describe { extension, .. } => Some(extension),
            Self::Failed { extension, .. } => extension.as_deref(),
            Self::NoCargo | Self::Run(_) => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> Cow<'static, str> {
        let text = match self {
            Self::NoBinary { others, .. } if !others.is_empty() => {
                return format!("run.command names the package's binary: {}", others.join(" or ")).into();
            }
            Self::NoProgram { .. } => "put the program beside extension.toml, or add [build] cargo-package",
            Self::NoPackage { .. } => "keep extension.toml in the package's folder",
            Self::NoCargo => "install Rust (https://rustup.rs), or ship the program beside extension.toml",
            Self::Run(_) => "see the cause; nothing was changed",
            Self::Failed { .. } => "correct what the compiler says above and run again",
            Self::NoBinary { .. } => "run.command names the package's binary",
            Self::NoLibrary { package: Some(_), .. } => {
                "move what main.rs has to lib.rs, with [lib] crate-type = [\"cdylib\", \"rlib\"], or take its name \
                 out of `in-process`"
            }
            Self::NoLibrary { package: None, .. } => {
                "put lib<NAME>.so beside extension.toml, or take its name out of `in-process`"
            }
            Self::Describe { .. } => "is it made with extension_sdk's export!, of this version?",
        };
        text.into()
    }
}

/// How new a program has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Build what is missing or old.
    AsNeeded,
    /// Ask cargo in any case, and insist on a description.
    Always,
}

/// Makes extensions ready.
#[derive(Debug)]
pub struct Builder<'a> {
    settings: &'a Settings,
    current: &'a Path,
    screen: &'a Screen,
}

/// One package to be built.
#[derive(Debug)]
struct Target<'a> {
    extension: &'a str,
    package: &'a str,
    /// File name of the binary.
    binary: String,
    /// Whether its library is needed, too.
    is_in_process: bool,
    record: PathBuf,
}

/// What a build made of a target.
#[derive(Clone, Debug)]
struct Made {
    program: PathBuf,
    library: Option<PathBuf>,
}

impl Target<'_> {
    /// Where the build of the library is remembered.
    fn library_record(&self) -> PathBuf {
        self.record.with_extension("library.json")
    }

    /// What the last build made, if cargo would make nothing else.
    fn fresh(&self) -> Option<Made> {
        let fresh = |file: &Path| {
            BuildRecord::load(file).filter(BuildRecord::is_fresh).map(|record| record.executable)
        };
        let program = fresh(&self.record)?;
        let library = if self.is_in_process { Some(fresh(&self.library_record())?) } else { None };
        Some(Made { program, library })
    }

    /// Remembers a build. A record that cannot be made or kept only costs another question to cargo.
    fn remember(&self, made: &Made, started: std::time::SystemTime) {
        let records =
            [(Some(&made.program), self.record.clone()), (made.library.as_ref(), self.library_record())];
        for (file, record) in records.iter().filter_map(|(file, record)| Some(((*file)?, record))) {
            if let Err(error) = BuildRecord::new(file, started).and_then(|built| built.store(record)) {
                tracing::debug!(extension = self.extension, %error, "the build is not remembered");
            }
        }
    }
}

impl<'a> Builder<'a> {
    /// Builds with these settings, from the folder `current`, and shows it on `screen`.
    #[must_use]
    pub const fn new(settings: &'a Settings, current: &'a Path, screen: &'a Screen) -> Self {
        Self { settings, current, screen }
    }

    /// Makes each of these extensions ready, in their order.
    ///
    /// # Errors
    ///
    /// [`BuildError`]; [`BuildError::help`] says what to do.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends cargo and all that it started. What cargo has finished stays.
    pub async fn ensure(&self, manifests: &[&Manifest], effort: Effort) -> Result<Vec<Built>, BuildError> {
        let environment = environment::cargo_environment(std::env::vars_os(), self.current);
        let mut programs: BTreeMap<&str, Made> = BTreeMap::new();
        let mut workspaces: BTreeMap<PathBuf, Vec<Target<'_>>> = BTreeMap::new();
        for manifest in manifests {
            if let Some(program) = program_beside(manifest) {
                programs.insert(&manifest.name, Made { program, library: self.library_beside(manifest)? });
                continue;
            }
            let (workspace, target) = self.target(manifest, &environment)?;
            match target.fresh().filter(|_| effort == Effort::AsNeeded) {
                Some(made) => {
                    programs.insert(target.extension, made);
                }
                None => workspaces.entry(workspace).or_default().push(target),
            }
        }
        for (workspace, targets) in &workspaces {
            let cargo = environment::find_cargo(|name| std::env::var_os(name)).ok_or(BuildError::NoCargo)?;
            let started = std::time::SystemTime::now();
            let build =
                cargo::Build { cargo: &cargo, workspace, environment: &environment, settings: self.settings };
            for (target, made) in targets.iter().zip(build.run(targets, self.screen).await?) {
                target.remember(&made, started);
                programs.insert(target.extension, made);
            }
        }
        let mut built = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            // INVARIANT: every manifest went into `programs`, at once or after its build.
            let Some(Made { program, library }) = programs.remove(manifest.name.as_str()) else { continue };
            let description = match self.describe(manifest, &program).await {
                Ok(description) => Ok(description),
                Err(source) if effort == Effort::Always => {
                    return Err(BuildError::Describe { extension: manifest.name.clone(), source });
                }
                Err(error) => {
                    let why = chain(&error);
                    tracing::warn!(extension = %manifest.name, error = %why, "its methods cannot be checked beforehand");
                    Err(why)
                }
            };
            built.push(Built { name: manifest.name.clone(), program, library, description });
        }
        Ok(built)
    }

    /// The program and its description as the last build left them; runs nothing. `None`: build it first.
    #[must_use]
    pub fn last_built(&self, manifest: &Manifest) -> Option<Built> {
        let recorded = |file: &Path| {
            BuildRecord::load(file).map(|record| record.executable).filter(|file| file.is_file())
        };
        let (program, library) = if let Some(program) = program_beside(manifest) {
            (program, self.library_beside(manifest).ok()?)
        } else {
            let environment = environment::cargo_environment(std::env::vars_os(), self.current);
            let (_, target) = self.target(manifest, &environment).ok()?;
            let library = recorded(&target.library_record()).filter(|_| target.is_in_process);
            (recorded(&target.record)?, library)
        };
        let place = describe::Place::of(&manifest.name, &program, &self.settings.data_dir).ok()?;
        let description = place.load();
        Some(Built {
            name: manifest.name.clone(),
            program,
            library,
            description: description.ok_or_else(|| NOT_KEPT.to_owned()),
        })
    }

    /// Whether the extension runs in the conductor's process: for the settings to say, whatever its manifest wishes.
    fn is_in_process(&self, manifest: &Manifest) -> bool {
        self.settings.in_process.contains(&manifest.name)
    }

    /// The library beside the manifest, if one is needed.
    fn library_beside(&self, manifest: &Manifest) -> Result<Option<PathBuf>, BuildError> {
        if !self.is_in_process(manifest) {
            return Ok(None);
        }
        let library = folder_of(manifest).join(format!("lib{}.so", manifest.name.replace('-', "_")));
        if library.is_file() {
            return Ok(Some(library));
        }
        Err(BuildError::NoLibrary { extension: manifest.name.clone(), package: None })
    }

    /// What is built for a manifest, and in which workspace.
    fn target<'m>(
        &self,
        manifest: &'m Manifest,
        environment: &[(std::ffi::OsString, std::ffi::OsString)],
    ) -> Result<(PathBuf, Target<'m>), BuildError> {
        let program = folder_of(manifest).join(&manifest.run.command[0]);
        let Some(build) = &manifest.build else {
            return Err(BuildError::NoProgram { extension: manifest.name.clone(), program });
        };
        let workspace = workspace_of(&folder_of(manifest)).ok_or_else(|| BuildError::NoPackage {
            extension: manifest.name.clone(),
            folder: folder_of(manifest),
        })?;
        let mut key = blake3::Hasher::new();
        key.update(manifest.file.as_os_str().as_encoded_bytes());
        let binary = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for text in [&build.cargo_package, &binary, &self.settings.build_profile] {
            key.update(&[0]).update(text.as_bytes());
        }
        for (name, value) in environment::build_variables(environment) {
            key.update(&[0]).update(name.as_encoded_bytes());
            key.update(b"=").update(value.as_encoded_bytes());
        }
        let record = format!("{}.{}.json", manifest.name, &key.finalize().to_hex()[..16]);
        let target = Target {
            extension: &manifest.name,
            package: &build.cargo_package,
            binary,
            is_in_process: self.is_in_process(manifest),
            record: self.settings.data_dir.join("builds").join(record),
        };
        Ok((workspace, target))
    }

    async fn describe(&self, manifest: &Manifest, program: &Path) -> Result<Description, DescribeError> {
        let io_error = |source| DescribeError::Io { extension: manifest.name.clone(), source };
        let place =
            describe::Place::of(&manifest.name, program, &self.settings.data_dir).map_err(io_error)?;
        if let Some(description) = place.load() {
            return Ok(description);
        }
        let text = cargo::run_describe(manifest, program).await?;
        let description = describe::parse(&manifest.name, &text)?;
        if let Err(error) = place.store(&text) {
            tracing::debug!(extension = %manifest.name, %error, "the description is not kept");
        }
        Ok(description)
    }
}

/// Absolute, as the catalog made it.
fn folder_of(manifest: &Manifest) -> PathBuf {
    manifest.file.parent().unwrap_or(Path::new("")).to_path_buf()
}

fn program_beside(manifest: &Manifest) -> Option<PathBuf> {
    Some(folder_of(manifest).join(manifest.run.command.first()?)).filter(|program| program.is_file())
}

/// The folder of the workspace that a package in `folder` belongs to: the nearest `Cargo.toml` upward with a
/// `[workspace]`, else the nearest at all.
fn workspace_of(folder: &Path) -> Option<PathBuf> {
    let has_workspace = |folder: &&Path| {
        fs::read_to_string(folder.join("Cargo.toml"))
            .is_ok_and(|text| text.lines().any(|line| line.trim_start().starts_with("[workspace")))
    };
    let has_package = |folder: &&Path| folder.join("Cargo.toml").is_file();
    let found = folder.ancestors().find(has_workspace).or_else(|| folder.ancestors().find(has_package));
    found.map(Path::to_path_buf)
}
