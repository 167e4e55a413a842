//! Where the extension SDK is. It is not published, so it is a folder: one that is named, or the one of the repository
//! that this conductor was built from, while that is still there.

use std::fs;
use std::path::{Path, PathBuf};

use super::ScaffoldError;

/// The SDK's crate in its repository.
const IN_REPOSITORY: &str = "extension-sdk/extension-sdk";
/// The name of its package.
const PACKAGE: &str = "extension-sdk";
/// Packages of ours that every extension brings along.
const OURS: [&str; 4] = [PACKAGE, "extension-sdk-macros", "ipc-protocol", "ipc-transport"];

/// The repository that this conductor was built from.
pub const BUILT_FROM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Where to look, the strongest first. What was named must be right; nothing else is tried then.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// `--sdk`.
    pub flag: Option<&'a Path>,
    /// `SYMPHONY_SDK`.
    pub variable: Option<&'a Path>,
    /// [`BUILT_FROM`].
    pub built_from: Option<&'a Path>,
}

/// An SDK that was found.
#[derive(Debug)]
pub struct Sdk {
    /// The folder of its crate, absolute.
    pub folder: PathBuf,
    /// The lock file of its repository: the versions that it was tested with.
    pub lock: Option<String>,
    /// Packages that an extension cannot be called like, because it has them as dependencies.
    pub packages: Vec<String>,
}

impl Sdk {
    /// The first candidate that is named.
    ///
    /// # Errors
    ///
    /// [`ScaffoldError::NoSdk`]: that one has no SDK, or there is none.
    pub fn find(candidates: &Candidates<'_>) -> Result<Self, ScaffoldError> {
        let missing = |place: String| ScaffoldError::NoSdk(place);
        let named = [("--sdk", candidates.flag), ("SYMPHONY_SDK", candidates.variable)];
        for (word, folder) in named {
            if let Some(folder) = folder {
                return Self::at(folder)
                    .ok_or_else(|| missing(format!("in {}, which {word} names", folder.display())));
            }
        }
        let built_from = candidates.built_from.and_then(Self::at);
        built_from.ok_or_else(|| missing("where this conductor was built".to_owned()))
    }

    /// The SDK in `folder`, which is its crate, the folder of the SDK's crates or its repository.
    fn at(folder: &Path) -> Option<Self> {
        let crates = [folder.to_path_buf(), folder.join(PACKAGE), folder.join(IN_REPOSITORY)];
        let found = crates.into_iter().find(|folder| is_sdk(folder))?;
        let folder = fs::canonicalize(found).ok()?;
        let lock =
            folder.ancestors().nth(2).and_then(|root| fs::read_to_string(root.join("Cargo.lock")).ok());
        let packages = lock.as_deref().map(packages_of).unwrap_or_default();
        Some(Self { folder, lock, packages })
    }
}

fn is_sdk(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok();
    let manifest = manifest.and_then(|text| text.parse::<toml::Table>().ok());
    manifest.is_some_and(|manifest| {
        manifest.get("package").and_then(|package| package.get("name")?.as_str()) == Some(PACKAGE)
    })
}

/// The packages of others in a lock file, and those of ours that an extension depends on.
fn packages_of(lock: &str) -> Vec<String> {
    let Ok(lock) = lock.parse::<toml::Table>() else { return Vec::new() };
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let names = packages.filter_map(|package| {
        let name = package.get("name")?.as_str()?;
        (package.get("source").is_some() || OURS.contains(&name)).then(|| name.to_owned())
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_that_this_was_built_from_has_the_sdk() {
        let built_from = Some(Path::new(BUILT_FROM));
        let sdk = Sdk::find(&Candidates { flag: None, variable: None, built_from }).unwrap();
        assert!(sdk.folder.is_absolute() && sdk.folder.join("src/lib.rs").is_file());
        for name in ["serde", "extension-sdk", "ipc-protocol"] {
            assert!(sdk.packages.iter().any(|package| package == name), "{name}");
        }
        assert!(!sdk.packages.iter().any(|package| package == "echo"), "no dependency of an extension");
    }

    #[test]
    fn what_is_named_must_be_right_and_the_flag_wins() {
        let place = tempfile::tempdir().unwrap();
        let repository = place.path().join("repository");
        let sdk = repository.join(IN_REPOSITORY);
        fs::create_dir_all(&sdk).unwrap();
        fs::write(sdk.join("Cargo.toml"), "[package]\nname = \"extension-sdk\"\n").unwrap();
        let built_from = Some(Path::new(BUILT_FROM));
        let find = |flag: Option<&Path>, variable: Option<&Path>| {
            Sdk::find(&Candidates { flag, variable, built_from }).map(|sdk| sdk.folder)
        };
        let expected = fs::canonicalize(&sdk).unwrap();
        // The repository, the folder of the crates and the crate will do.
        for folder in [&repository, &repository.join("extension-sdk"), &sdk] {
            assert_eq!(find(Some(folder), None).unwrap(), expected);
            assert_eq!(find(None, Some(folder)).unwrap(), expected);
        }
        assert_eq!(find(Some(&sdk), Some(place.path())).unwrap(), expected);
        let told = find(Some(place.path()), Some(&sdk)).unwrap_err().to_string();
        assert!(told.contains("which --sdk names"), "{told}");
        let told = find(None, Some(place.path())).unwrap_err().to_string();
        assert!(told.contains("which SYMPHONY_SDK names"), "{told}");
    }
}
