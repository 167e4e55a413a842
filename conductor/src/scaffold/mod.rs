//! `new extension`: what is written where, decided first and then written whole or not at all.
//!
//! ```text
//! name --names--> usable?      target folder --workspace--> a member of the one above, or on its own
//! --sdk, SYMPHONY_SDK, the repository of this conductor --sdk--> where the SDK is
//!                 all of it --templates--> files --write--> the folder
//! ```
//!
//! This module must not know the command line, and it runs nothing.

use std::io;
use std::path::{Path, PathBuf};

pub mod names;
pub mod sdk;
pub mod templates;
pub mod workspace;
pub mod write;

use sdk::Sdk;
use templates::{File, Place};
use workspace::Membership;

/// In which language an extension is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// A cargo package that depends on the SDK.
    Rust,
    /// One file, with the standard library only.
    Python,
}

impl Language {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
        }
    }
}

/// A new extension, as it will be written.
#[derive(Debug)]
pub struct Plan {
    /// Its folder, absolute.
    pub folder: PathBuf,
    /// Where its SDK is, if it needs one.
    pub sdk: Option<PathBuf>,
    /// What the folder will hold.
    pub files: Vec<File>,
}

/// There will be no new extension; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// An extension cannot have this name.
    #[error("`{name}` cannot be the name of an extension in {}", .language.name())]
    Name {
        /// The name.
        name: String,
        /// The language.
        language: Language,
        /// Why not, and what would do.
        why: String,
    },
    /// Something is there already.
    #[error("{0} is there already")]
    Exists(PathBuf),
    /// The folder above it is missing.
    #[error("there is no folder {0}")]
    NoParent(PathBuf),
    /// It would be no package where cargo wants one, and break the workspace.
    #[error("cargo takes {0} for a package of the workspace above it, which it is not")]
    InWorkspace(PathBuf),
    /// There is no SDK to depend on.
    #[error("the extension SDK was not found {0}")]
    NoSdk(String),
    /// The place of the SDK cannot be written into a manifest.
    #[error("the path {0} is not UTF-8")]
    NotText(PathBuf),
    /// It could not be written.
    #[error("{folder} cannot be written")]
    Write {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ScaffoldError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Name { why, .. } => why.clone(),
            Self::Exists(_) => "choose another name, or another folder with --path DIR".to_owned(),
            Self::NoParent(_) => "make it, or name another one with --path DIR".to_owned(),
            Self::InWorkspace(_) => {
                "name another folder with --path DIR, or name this one under `exclude` in the workspace's Cargo.toml"
                    .to_owned()
            }
            Self::NoSdk(_) => {
                "it is not published: name the repository's folder with --sdk DIR or SYMPHONY_SDK".to_owned()
            }
            Self::NotText(_) => "move the repository, or name another one with --sdk DIR".to_owned(),
            Self::Write { .. } => "see the cause; nothing was left behind".to_owned(),
        }
    }

    /// Whether the surroundings are at fault, and not what was asked for.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        matches!(self, Self::NoSdk(_) | Self::Write { .. })
    }
}

/// Where a new extension would go, if nothing else is said: with the others if `current` has a folder of extensions that
/// takes it.
#[must_use]
pub fn folder_default(current: &Path, name: &str, language: Language) -> PathBuf {
    let others = current.join(crate::catalog::FOLDER_NAME);
    let among_others = others.join(name);
    if others.is_dir() && fits(&among_others, language) { among_others } else { current.join(name) }
}

/// Whether cargo has nothing against an extension there.
fn fits(folder: &Path, language: Language) -> bool {
    language == Language::Rust || Membership::of(folder) == Membership::Alone
}

/// What would be written for an extension `name` into `folder`, which is absolute. `sdk`: candidates, the first one that
/// is named counts.
///
/// # Errors
///
/// [`ScaffoldError`]; [`ScaffoldError::help`] says what to do.
pub fn plan(
    name: &str,
    language: Language,
    folder: &Path,
    sdk: &sdk::Candidates<'_>,
) -> Result<Plan, ScaffoldError> {
    names::check(name, language)?;
    // A link that leads nowhere is there, too.
    if folder.symlink_metadata().is_ok() {
        return Err(ScaffoldError::Exists(folder.to_path_buf()));
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.is_dir()) {
        return Err(ScaffoldError::NoParent(parent.to_path_buf()));
    }
    if !fits(folder, language) {
        return Err(ScaffoldError::InWorkspace(folder.to_path_buf()));
    }
    if language == Language::Python {
        return Ok(Plan { folder: folder.to_path_buf(), sdk: None, files: templates::python(name) });
    }
    let inherited = match Membership::of(folder) {
        Membership::Member(inherited) => Some(inherited),
        Membership::Alone => None,
    };
    // Whoever has the SDK in the workspace's own table has chosen which one.
    if let Some(inherited) = inherited.as_ref().filter(|inherited| inherited.has_sdk) {
        let files = templates::rust(name, "extension-sdk.workspace = true", Place::Member(inherited));
        return Ok(Plan { folder: folder.to_path_buf(), sdk: None, files });
    }
    let sdk = Sdk::find(sdk)?;
    names::check_beside(name, &sdk.packages)?;
    let text = sdk.folder.to_str().ok_or_else(|| ScaffoldError::NotText(sdk.folder.clone()))?;
    let dependency = format!("extension-sdk = {{ path = {} }}", toml::Value::from(text));
    let place = inherited.as_ref().map_or(Place::Alone(sdk.lock.as_deref()), Place::Member);
    let files = templates::rust(name, &dependency, place);
    Ok(Plan { folder: folder.to_path_buf(), sdk: Some(sdk.folder), files })
}

#[cfg(test)]
mod tests {
    use extension_host::Manifest;

    use super::*;

    fn own_sdk() -> sdk::Candidates<'static> {
        sdk::Candidates { flag: None, variable: None, built_from: Some(sdk::BUILT_FROM.as_ref()) }
    }

    fn text_of<'a>(plan: &'a Plan, path: &str) -> &'a str {
        &plan.files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path}")).text
    }

    #[test]
    fn manifests_are_right_and_nothing_is_left_to_fill_in() {
        let place = tempfile::tempdir().unwrap();
        for language in [Language::Rust, Language::Python] {
            let plan = plan("two-words", language, &place.path().join("two-words"), &own_sdk()).unwrap();
            let manifest =
                Manifest::parse(text_of(&plan, "extension.toml"), Path::new("extension.toml")).unwrap();
            assert_eq!((manifest.name.as_str(), manifest.notes.items().len()), ("two-words", 0));
            for file in &plan.files {
                for placeholder in [
                    "__NAME__",
                    "__INTERFACE__",
                    "__VERSION__",
                    "__PACKAGE__",
                    "__SDK__",
                    "__LINTS__",
                    "__WORKSPACE__",
                ] {
                    assert!(!file.text.contains(placeholder), "{}: {placeholder}", file.path);
                }
            }
        }
    }

    #[test]
    fn a_member_inherits_and_a_package_on_its_own_has_its_own_workspace_and_lock() {
        let place = tempfile::tempdir().unwrap();
        let root = "[workspace]\nmembers = [\"extensions/*\"]\n[workspace.dependencies]\n\
                    extension-sdk = { path = \"x\" }\n[workspace.lints.rust]\nmissing_docs = \"warn\"\n\
                    [workspace.package]\nversion = \"0.3.0\"\nlicense = \"MIT\"\n";
        std::fs::write(place.path().join("Cargo.toml"), root).unwrap();
        std::fs::create_dir(place.path().join("extensions")).unwrap();
        let none = sdk::Candidates { flag: None, variable: None, built_from: None };

        let folder = folder_default(place.path(), "one", Language::Rust);
        assert_eq!(folder, place.path().join("extensions/one"));
        let member = plan("one", Language::Rust, &folder, &none).unwrap();
        let cargo = text_of(&member, "Cargo.toml");
        assert!(cargo.contains("extension-sdk.workspace = true"), "{cargo}");
        assert!(cargo.contains("[lints]\nworkspace = true"), "{cargo}");
        for line in ["version.workspace = true", "license.workspace = true", "edition = \"2024\""] {
            assert!(cargo.lines().any(|other| other == line), "{line} in {cargo}");
        }
        assert!(!cargo.contains("[workspace]"), "{cargo}");
        assert!(text_of(&member, "extension.toml").contains("version = \"0.3.0\""));
        assert!(member.files.iter().all(|file| file.path != "Cargo.lock"));

        let folder = place.path().join("one");
        assert!(matches!(plan("one", Language::Rust, &folder, &none), Err(ScaffoldError::NoSdk(_))));
        let alone = plan("one", Language::Rust, &folder, &own_sdk()).unwrap();
        let cargo: toml::Table = text_of(&alone, "Cargo.toml").parse().unwrap();
        assert!(cargo["workspace"].as_table().unwrap().is_empty());
        assert!(cargo.get("lints").is_none());
        let sdk = cargo["dependencies"]["extension-sdk"]["path"].as_str().unwrap();
        assert!(Path::new(sdk).join("src/lib.rs").is_file());
        assert!(text_of(&alone, "Cargo.lock").contains("name = \"extension-sdk\""));
    }

    #[test]
    fn what_is_no_package_stays_out_of_a_workspace() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("Cargo.toml"), "[workspace]\nmembers = [\"extensions/*\"]\n")
            .unwrap();
        std::fs::create_dir(place.path().join("extensions")).unwrap();
        let folder = folder_default(place.path(), "one", Language::Python);
        assert_eq!(folder, place.path().join("one"));
        assert!(plan("one", Language::Python, &folder, &own_sdk()).is_ok());
        let refused =
            plan("one", Language::Python, &place.path().join("extensions/one"), &own_sdk()).unwrap_err();
        assert!(matches!(refused, ScaffoldError::InWorkspace(_)), "{refused}");
        std::fs::write(place.path().join("Cargo.toml"), "[workspace]\n").unwrap();
        let folder = folder_default(place.path(), "one", Language::Python);
        assert_eq!(folder, place.path().join("extensions/one"));
    }

    #[test]
    fn what_is_there_is_never_touched() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir(at("folder")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
        for name in ["folder", "file", "link"] {
            let refused = plan("one", Language::Python, &at(name), &own_sdk());
            assert!(matches!(refused, Err(ScaffoldError::Exists(_))), "{name}");
        }
        let refused = plan("one", Language::Python, &at("missing/one"), &own_sdk());
        assert!(matches!(refused, Err(ScaffoldError::NoParent(_))));
    }
}
