//! Whether a binary that cargo built is still what cargo would build: pure, over file times.
//!
//! After a build the files that it was made from are written down: the sources in cargo's dep-info file
//! (`target/release/NAME.d`), every `Cargo.toml` above them, the lock file and cargo's configuration. The
//! binary is fresh while it is the same file and each of these is older than the build. Whatever is
//! unclear is "stale": then cargo is asked, which knows better. This file must not run anything.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// File systems stamp files with a clock that may be this much behind.
const CLOCK_SLACK: Duration = Duration::from_millis(50);

/// LIMIT: bytes of a dep-info file or a record that are read.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// What is remembered of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// The binary.
    pub executable: PathBuf,
    /// Its inode, size and time of modification: another file is another build.
    identity: (u64, u64, i128),
    /// When cargo was asked, in nanoseconds since 1970.
    checked_at: i128,
    /// What it was made from.
    watched: BTreeSet<PathBuf>,
}

impl BuildRecord {
    /// The record of a build that was started at `started` and made `executable`.
    ///
    /// # Errors
    ///
    /// The binary or its dep-info file cannot be read; then there is nothing to remember.
    pub fn new(executable: &Path, started: SystemTime) -> io::Result<Self> {
        let dep_info = executable.with_extension("d");
        if fs::metadata(&dep_info)?.len() > RECORD_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut watched = dep_info_sources(&fs::read_to_string(dep_info)?);
        watched.extend(manifests_above(&watched));
        Ok(Self {
            executable: executable.to_path_buf(),
            identity: identity(executable)?,
            checked_at: nanoseconds(started.checked_sub(CLOCK_SLACK).unwrap_or(UNIX_EPOCH)),
            watched,
        })
    }

    /// The record in `file`, if there is one that can be read.
    #[must_use]
    pub fn load(file: &Path) -> Option<Self> {
        let small_enough = fs::metadata(file).ok()?.len() <= RECORD_BYTES_MAX;
        small_enough.then(|| serde_json::from_slice(&fs::read(file).ok()?).ok())?
    }

    /// Writes the record to `file`, whole or not at all.
    ///
    /// # Errors
    ///
    /// Writing failed; the next run asks cargo again.
    pub fn store(&self, file: &Path) -> io::Result<()> {
        write_whole(file, &serde_json::to_vec(self)?)
    }

    /// Whether cargo would find nothing to do.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        let is_older = |file: &PathBuf| modified(file).is_ok_and(|modified| modified < self.checked_at);
        identity(&self.executable).is_ok_and(|identity| identity == self.identity)
            && self.watched.iter().all(is_older)
    }
}

/// Writes `bytes` to `file` through a temporary name beside it, making the folder if needed.
///
/// # Errors
///
/// Writing failed; `file` is as it was.
pub fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        // What could not be written whole must not stay behind; failing to remove it changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn identity(file: &Path) -> io::Result<(u64, u64, i128)> {
    let metadata = fs::metadata(file)?;
    Ok((metadata.ino(), metadata.len(), nanoseconds(metadata.modified()?)))
}

fn modified(file: &Path) -> io::Result<i128> {
    Ok(nanoseconds(fs::metadata(file)?.modified()?))
}

fn nanoseconds(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
    }
}

/// The files behind the colon of a dep-info file: separated by spaces, spaces in names escaped by `\`.
fn dep_info_sources(text: &str) -> BTreeSet<PathBuf> {
    let mut sources = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, files)) = line.split_once(": ") else { continue };
        let mut name = String::new();
        let mut characters = files.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' if characters.peek() == Some(&' ') => name.extend(characters.next()),
                ' ' if !name.is_empty() => {
                    sources.insert(PathBuf::from(std::mem::take(&mut name)));
                }
                ' ' => {}
                other => name.push(other),
            }
        }
        if !name.is_empty() {
            sources.insert(PathBuf::from(name));
        }
    }
    sources
}

/// Manifests, lock files, toolchain and cargo configurations that lie above `sources`.
fn manifests_above(sources: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    const NAMES: [&str; 5] =
        ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "rust-toolchain", ".cargo/config.toml"];
    let folders: BTreeSet<&Path> = sources.iter().flat_map(|source| source.ancestors().skip(1)).collect();
    let files = folders.iter().flat_map(|folder| NAMES.map(|name| folder.join(name)));
    files.filter(|file| file.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_modified(file: &Path, time: SystemTime) {
        fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn names_with_spaces_are_read_from_dep_info() {
        let sources = dep_info_sources("/t/a b: /x/one.rs /x/two\\ words.rs\n\n# env-dep:X\n/x/one.rs:\n");
        let expected = ["/x/one.rs", "/x/two words.rs"].map(PathBuf::from);
        assert_eq!(sources, BTreeSet::from(expected));
    }

    #[test]
    fn a_binary_is_stale_after_any_change_of_what_it_was_made_from() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let built = long_ago + Duration::from_secs(60);
        for name in ["Cargo.toml", "main.rs", "tool"] {
            fs::write(at(name), name).unwrap();
            set_modified(&at(name), long_ago);
        }
        fs::write(at("tool.d"), format!("{}: {}\n", at("tool").display(), at("main.rs").display())).unwrap();
        let record = BuildRecord::new(&at("tool"), built).unwrap();
        record.store(&at("records/tool.json")).unwrap();
        let record = BuildRecord::load(&at("records/tool.json")).unwrap();
        assert!(record.is_fresh());

        for name in ["Cargo.toml", "main.rs"] {
            set_modified(&at(name), built);
            assert!(!record.is_fresh(), "{name} was changed");
            set_modified(&at(name), long_ago);
            assert!(record.is_fresh());
        }
        fs::write(at("tool"), "another").unwrap();
        assert!(!record.is_fresh(), "the binary was replaced");
        fs::remove_file(at("main.rs")).unwrap();
        assert!(!record.is_fresh(), "a source is gone");
        assert_eq!(BuildRecord::load(&at("records/none.json")), None);
    }
}
