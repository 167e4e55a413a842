//! Which extensions there are: every `extension.toml` in the extension folders.
//!
//! Folders, the first one that has a name wins: flags, environment, file ([`Settings::extension_dirs`]),
//! then `extensions/` beside the melody's folder and its ancestors, then in the current folder and each of its
//! ancestors the extension whose folder that is and those in its `extensions/`; last those in the folders of
//! the current one. An extension folder is either one extension or a folder of extensions. A broken manifest
//! spoils its own extension only. What nobody named is left alone where others could have put it there
//! ([`crate::trust`]). This file must not build or run anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use extension_host::Manifest;
use extension_host::diagnostic::{Diagnostic, Diagnostics, Severity, closest};

use crate::config::Settings;
use crate::trust::{Distrusted, distrust};

/// Name of a manifest.
pub const MANIFEST_NAME: &str = "extension.toml";
/// Name of the folders that are looked for upward.
pub const FOLDER_NAME: &str = "extensions";
/// LIMIT: entries of one extension folder that are looked at.
pub const FOLDER_ENTRIES_MAX: usize = 4096;

/// One extension that was found.
#[derive(Debug)]
pub struct Entry {
    /// The manifest's name; of a broken manifest the folder's.
    pub name: String,
    /// The manifest file, absolute.
    pub file: PathBuf,
    /// What it says.
    pub manifest: Result<Manifest, Diagnostics>,
}

/// The extensions that can be found from somewhere.
#[derive(Debug, Default)]
pub struct Catalog {
    entries: BTreeMap<String, Entry>,
    /// Found again under a name that is taken: not used.
    hidden: Vec<Entry>,
    folders: Vec<PathBuf>,
    /// Found without being named, where others could have put it: not used.
    distrusted: Vec<Distrusted>,
}

/// An extension cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no extension of this name.
    #[error("there is no extension `{name}`; {hint}")]
    Unknown {
        /// The name.
        name: String,
        /// What there is, or where it was looked for.
        hint: String,
    },
    /// Its manifest has mistakes.
    #[error("the manifest of the extension `{name}` cannot be used")]
    Broken {
        /// The name.
        name: String,
        /// The mistakes.
        diagnostics: Diagnostics,
    },
    /// A folder that was named cannot be read.
    #[error("the extension folder {folder} cannot be read")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What bears a manifest's name in the folders of `folder`, which is canonical or becomes so.
fn manifests_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = fs::canonicalize(folder)?;
    let entries = fs::read_dir(folder)?.take(FOLDER_ENTRIES_MAX).filter_map(Result::ok);
    let mut files: Vec<_> = entries.map(|entry| entry.path().join(MANIFEST_NAME)).collect();
    files.sort();
    files.retain(|file| is_there(file));
    Ok(files)
}

/// Whether something has this name, whatever it is: what is no manifest is told and not passed over. Entries
/// of a folder of extensions that are files themselves have nothing inside.
fn is_there(file: &Path) -> bool {
    match fs::symlink_metadata(file) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

/// What is there in place of a file that can be read; a pipe would be waited for.
fn no_file(file: &Path) -> Option<String> {
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(metadata) if metadata.is_dir() => Some("it is a folder".to_owned()),
        Ok(_) => Some("it is a pipe, a socket or a device".to_owned()),
        Err(error) => Some(format!("it cannot be read: {error}")),
    }
}

fn load(file: &Path) -> Result<Manifest, Diagnostics> {
    match no_file(file) {
        Some(what) => Err(Diagnostic::whole_file(Severity::Error, file, what)
            .with_hint("an extension's manifest is a file")
            .into()),
        None => Manifest::load(file),
    }
}

impl Catalog {
    /// Everything that can be found with these settings from `start` (a melody's folder, if there is one)
    /// and from `current`.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Folder`]: a folder that the settings name is missing or unreadable.
    pub fn find(settings: &Settings, start: Option<&Path>, current: &Path) -> Result<Self, CatalogError> {
        let mut catalog = Self::default();
        for folder in &settings.extension_dirs {
            let folder = current.join(folder);
            catalog.add_folder(&folder).map_err(|source| CatalogError::Folder { folder, source })?;
        }
        for folder in start.into_iter().flat_map(Path::ancestors) {
            catalog.add_found_folder(&folder.join(FOLDER_NAME));
        }
        for folder in current.ancestors() {
            // Whoever stands in an extension's folder, or in one below it, means that one: its author.
            catalog.add_found_manifest(&folder.join(MANIFEST_NAME));
            catalog.add_found_folder(&folder.join(FOLDER_NAME));
        }
        // Not asked for by name either: folders that may not be looked into are none.
        for file in manifests_in(current).unwrap_or_default() {
            catalog.add_found_manifest(&file);
        }
        Ok(catalog)
    }

    /// The extensions of one manifest or folder.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        let mut catalog = Self::default();
        if path.is_dir() {
            catalog.add_folder(path)?;
        } else {
            catalog.add_manifest(fs::canonicalize(path)?);
        }
        Ok(catalog)
    }

    fn add_folder(&mut self, folder: &Path) -> io::Result<()> {
        let folder = fs::canonicalize(folder)?;
        if self.folders.contains(&folder) {
            return Ok(());
        }
        let own = folder.join(MANIFEST_NAME);
        if is_there(&own) {
            self.add_manifest(own);
        } else {
            manifests_in(&folder)?.into_iter().for_each(|file| self.add_manifest(file));
        }
        self.folders.push(folder);
        Ok(())
    }

    /// A folder of extensions that nobody named: one that is missing or unreadable is none, and only what
    /// this user or root put there counts.
    fn add_found_folder(&mut self, folder: &Path) {
        let Ok(canonical) = fs::canonicalize(folder) else { return };
        if !canonical.is_dir() || self.folders.contains(&canonical) || self.is_distrusted(folder) {
            return;
        }
        let own = canonical.join(MANIFEST_NAME);
        if is_there(&own) {
            self.add_trusted(own);
        } else {
            let Ok(files) = manifests_in(&canonical) else { return };
            files.into_iter().for_each(|file| self.add_trusted(file));
        }
        self.folders.push(canonical);
    }

    /// A manifest that nobody named: what is no file is none.
    fn add_found_manifest(&mut self, file: &Path) {
        if let Ok(canonical) = fs::canonicalize(file)
            && canonical.is_file()
            && !self.is_known(&canonical)
            && !self.is_distrusted(file)
        {
            self.add_trusted(canonical);
        }
    }

    /// Adds a manifest, if its folder and the program beside it are to be trusted as it is itself.
    fn add_trusted(&mut self, file: PathBuf) {
        let folder = file.parent().unwrap_or(Path::new("/"));
        if self.is_known(&file) || self.is_distrusted(folder) || self.is_distrusted(&file) {
            return;
        }
        let manifest = load(&file);
        let program = manifest.as_ref().ok().and_then(|manifest| manifest.run.command.first());
        if program.is_some_and(|program| self.is_distrusted(&file.with_file_name(program))) {
            return;
        }
        self.add(file, manifest);
    }

    fn is_known(&self, file: &Path) -> bool {
        self.entries.values().chain(&self.hidden).any(|entry| entry.file == file)
    }

    /// Whether others could have put it there; then that is kept, once.
    fn is_distrusted(&mut self, found: &Path) -> bool {
        let Some(why) = distrust(found) else { return false };
        let distrusted = Distrusted { found: found.to_path_buf(), why };
        if !self.distrusted.contains(&distrusted) {
            self.distrusted.push(distrusted);
        }
        true
    }

    fn add_manifest(&mut self, file: PathBuf) {
        let manifest = load(&file);
        self.add(file, manifest);
    }

    fn add(&mut self, file: PathBuf, manifest: Result<Manifest, Diagnostics>) {
        let name = match &manifest {
            Ok(manifest) => manifest.name.clone(),
            Err(_) => {
                let folder = file.parent().and_then(Path::file_name).unwrap_or_default();
                folder.to_string_lossy().into_owned()
            }
        };
        let entry = Entry { name: name.clone(), file, manifest };
        match self.entries.entry(name) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(entry);
            }
            std::collections::btree_map::Entry::Occupied(first) if first.get().file == entry.file => {}
            std::collections::btree_map::Entry::Occupied(_) => self.hidden.push(entry),
        }
    }

    /// The extensions by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Extensions that an earlier one of the same name hides.
    #[must_use]
    pub fn hidden(&self) -> &[Entry] {
        &self.hidden
    }

    /// What was found without being named and is not used, because others could have put it there.
    #[must_use]
    pub fn distrusted(&self) -> &[Distrusted] {
        &self.distrusted
    }

    /// The entry and manifest of an extension.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unknown`] or [`CatalogError::Broken`].
    pub fn manifest(&self, name: &str) -> Result<(&Entry, &Manifest), CatalogError> {
        let Some(entry) = self.entries.get(name) else {
            let hint = match closest(name, self.entries.keys().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => self.whereabouts(),
            };
            return Err(CatalogError::Unknown { name: name.to_owned(), hint });
        };
        match &entry.manifest {
            Ok(manifest) => Ok((entry, manifest)),
            Err(diagnostics) => {
                Err(CatalogError::Broken { name: name.to_owned(), diagnostics: diagnostics.clone() })
            }
        }
    }

    fn whereabouts(&self) -> String {
        let names: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        match (names.is_empty(), self.folders.is_empty()) {
            (false, _) => format!("there are {}", names.join(", ")),
            (true, false) => {
                let folders: Vec<_> =
                    self.folders.iter().map(|folder| folder.display().to_string()).collect();
                format!("no {MANIFEST_NAME} was found in {}", folders.join(", "))
            }
            (true, true) => format!("no folder `{FOLDER_NAME}` was found; name one with --extensions DIR"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bears_a_manifests_name_and_is_no_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["folder", "pipe", "nowhere", "nothing"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("folder").join(MANIFEST_NAME)).unwrap();
        std::os::unix::fs::symlink("gone", path("nowhere").join(MANIFEST_NAME)).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe").join(MANIFEST_NAME),
            rustix::fs::FileType::Fifo,
            mode,
            0,
        )
        .unwrap();
        let catalog = Catalog::of_path(folder.path()).unwrap();
        let told = |name: &str| catalog.manifest(name).unwrap_err();
        let text = |name: &str| match told(name) {
            CatalogError::Broken { diagnostics, .. } => diagnostics.to_string(),
            other => panic!("{other}"),
        };
        assert!(text("folder").contains("it is a folder"), "{}", text("folder"));
        assert!(text("pipe").contains("it is a pipe"), "{}", text("pipe"));
        assert!(text("nowhere").contains("cannot be read"), "{}", text("nowhere"));
        assert_eq!(catalog.entries().count(), 3, "neither a file nor an empty folder is an extension");
    }
}
