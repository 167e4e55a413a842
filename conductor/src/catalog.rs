//! Which extensions there are: every `extension.toml` in the extension folders.
//!
//! Folders, the first one that has a name wins: flags, environment, file ([`Settings::extension_dirs`]),
//! then `extensions/` beside the melody's folder and its ancestors, then beside the current folder and its
//! ancestors. An extension folder is either one extension or a folder of extensions. A broken manifest
//! spoils its own extension only. This file must not build or run anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use extension_host::Manifest;
use extension_host::diagnostic::{Diagnostics, closest};

use crate::config::Settings;

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
        for folder in start.into_iter().chain([current]).flat_map(Path::ancestors) {
            let folder = folder.join(FOLDER_NAME);
            // These were not asked for by name: one that is missing or unreadable is none.
            if folder.is_dir() {
                let _ = catalog.add_folder(&folder);
            }
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
        if own.is_file() {
            self.add_manifest(own);
        } else {
            let entries = fs::read_dir(&folder)?.take(FOLDER_ENTRIES_MAX).filter_map(Result::ok);
            let mut files: Vec<_> = entries.map(|entry| entry.path().join(MANIFEST_NAME)).collect();
            files.sort();
            files.into_iter().filter(|file| file.is_file()).for_each(|file| self.add_manifest(file));
        }
        self.folders.push(folder);
        Ok(())
    }

    fn add_manifest(&mut self, file: PathBuf) {
        let manifest = Manifest::load(&file);
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
