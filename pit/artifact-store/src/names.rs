//! Names for artifacts: a small durable map with versions and compare-and-swap.
//!
//! Each name is one small file in `names/`, replaced as a whole: written aside, synced, renamed, folder synced.
//! Setting and removing take the lock between processes, reading takes none. A removed name leaves no file; one record for
//! all of them, `floor`, keeps versions from beginning anew. What records look like is in `record`.

use std::fmt;
use std::io;

use crate::digest::Digest;
use crate::disk::Folder;
use crate::error::{DiskError, NameError};
use crate::look::Sight;
use crate::record::{self, RECORD_BYTES_MAX};
use crate::root::FLOOR_FILE;
use crate::store::Store;
use crate::temporary::Temporary;

/// LIMIT: bytes of a name. A file name may not be longer either.
pub const NAME_BYTES_MAX: usize = 255;

/// What stands for `/` in the file of a name. No name contains it, so that the two texts map one to one.
const SLASH_ON_DISK: char = '\\';

/// The rule that a text must keep to be a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// It has 1 to [`NAME_BYTES_MAX`] bytes.
    Length,
    /// All its characters can be seen, and none is a backslash.
    Printable,
    /// Each part between slashes is neither empty nor `.` nor `..`.
    Parts,
}

impl fmt::Display for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => write!(f, "it has to have 1 to {NAME_BYTES_MAX} bytes"),
            Self::Printable => f.write_str("it may have no control or invisible characters and no backslash"),
            Self::Parts => f.write_str("no part between slashes may be empty, '.' or '..'"),
        }
    }
}

/// What the caller believes a name to be before setting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Anything,
    /// Not set.
    Absent,
    /// Set, at this version.
    Version(u64),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anything => f.write_str("at any version"),
            Self::Absent => f.write_str("not to be set"),
            Self::Version(version) => write!(f, "at version {version}"),
        }
    }
}

/// A name and what it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The artifact.
    pub digest: Digest,
    /// One more with each setting. A name that is set for the first time begins at 1, or above the versions of all names
    /// that were removed: who has seen an earlier life of it cannot take the new one for that.
    pub version: u64,
}

impl Store {
    /// Points a name to an artifact, if the name is what the caller expects. Durable when this returns.
    ///
    /// # Errors
    /// [`NameError::Conflict`] if somebody else has set the name; [`NameError::NoArtifact`] if the artifact was not
    /// put before; [`NameError::Invalid`]; those of writing as for [`put_bytes`](Self::put_bytes). Unless a sync
    /// failed, the name is what it was.
    ///
    /// # Concurrency
    /// Setters of all processes take turns; one waits at most 10 s for the others.
    pub fn set_name(&self, name: &str, digest: &Digest, expected: Expected) -> Result<Named, NameError> {
        check(name)?;
        self.root.check_sound()?;
        // Until the name is there, the pin keeps the artifact.
        let (Sight::Sound(_), Some(_pin)) = self.look_pinned(digest)? else {
            return Err(NameError::NoArtifact { name: name.to_owned(), digest: *digest });
        };
        let _lock = self.root.lock()?;
        let before = match self.find_expected(name, expected)? {
            Some(named) => named.version,
            None => self.read_floor()?,
        };
        let named = Named { name: name.to_owned(), digest: *digest, version: before.saturating_add(1) };
        self.write_record(&self.root.names, &file_name(name), &record::write(&named))?;
        Ok(named)
    }

    /// Removes a name, if it is what the caller expects, and says what it pointed to; `None` if it was not set and that
    /// was expected. Durable when this returns. The artifact stays until it is [collected](Store::collect).
    ///
    /// # Errors
    /// As for [`set_name`](Self::set_name).
    pub fn remove_name(&self, name: &str, expected: Expected) -> Result<Option<Named>, NameError> {
        check(name)?;
        self.root.check_sound()?;
        let _lock = self.root.lock()?;
        let Some(named) = self.find_expected(name, expected)? else { return Ok(None) };
        // First the floor: a name must never begin again below a version that somebody has seen.
        if self.read_floor()? < named.version {
            self.write_record(&self.root.folder, FLOOR_FILE, &record::write_floor(named.version))?;
        }
        let path = self.root.names.path().join(file_name(name));
        let removed = self.root.disk.remove(&self.root.names, &file_name(name));
        removed.map_err(|error| DiskError::io("remove", &path, error))?;
        self.root.sync_folder(&self.root.names)?;
        self.root.check_sound()?;
        Ok(Some(named))
    }

    fn find_expected(&self, name: &str, expected: Expected) -> Result<Option<Named>, NameError> {
        let named = self.read_name(name)?;
        let found = named.as_ref().map_or(0, |named| named.version);
        let is_expected = match expected {
            Expected::Anything => true,
            Expected::Absent => found == 0,
            Expected::Version(version) => found == version,
        };
        if is_expected {
            return Ok(named);
        }
        Err(NameError::Conflict { name: name.to_owned(), expected, found })
    }

    fn write_record(&self, folder: &Folder, file: &str, text: &str) -> Result<(), NameError> {
        let mut temporary = Temporary::create_named(&self.root)?;
        temporary.append(text.as_bytes(), Some(text.len() as u64))?;
        temporary.sync()?;
        temporary.replace(folder, file)?;
        self.root.sync_folder(folder)?;
        self.root.check_sound()?;
        Ok(())
    }

    /// The highest version of a name that was removed.
    fn read_floor(&self) -> Result<u64, NameError> {
        let path = self.root.folder.path().join(FLOOR_FILE);
        match self.read_file(&self.root.folder, FLOOR_FILE)? {
            None => Ok(0),
            Some(text) => record::read_floor(&text)
                .ok_or_else(|| NameError::Corrupt { name: FLOOR_FILE.to_owned(), path }),
        }
    }

    /// What a name points to; `None` if it is not set.
    ///
    /// # Errors
    /// [`NameError::Invalid`], [`NameError::Corrupt`], or an error of the system.
    pub fn resolve(&self, name: &str) -> Result<Option<Named>, NameError> {
        check(name)?;
        self.read_name(name)
    }

    /// All names that begin with these bytes, in no order; an empty prefix means all. What is set meanwhile may or may
    /// not be met.
    ///
    /// # Errors
    /// At once if the names cannot be listed; an item is an error if that name cannot be read.
    pub fn names(
        &self,
        prefix: &str,
    ) -> Result<impl Iterator<Item = Result<Named, NameError>> + use<>, NameError> {
        let store = self.clone();
        let prefix = prefix.to_owned();
        let path = self.root.names.path().to_owned();
        let entries = self.root.names.entries().map_err(|error| DiskError::io("list", &path, error))?;
        Ok(entries.filter_map(move |entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(DiskError::io("list", &path, error).into())),
            };
            let name = entry.to_str()?.replace(SLASH_ON_DISK, "/");
            if !name.starts_with(&prefix) || check(&name).is_err() {
                return None;
            }
            store.read_name(&name).transpose()
        }))
    }

    fn read_name(&self, name: &str) -> Result<Option<Named>, NameError> {
        let file_name = file_name(name);
        let Some(text) = self.read_file(&self.root.names, &file_name)? else { return Ok(None) };
        // The name stands in the record too: a file system that confuses upper and lower case is found out.
        match record::read(&text) {
            Some(named) if named.name == name => Ok(Some(named)),
            _ => {
                let path = self.root.names.path().join(file_name);
                Err(NameError::Corrupt { name: name.to_owned(), path })
            }
        }
    }

    /// A small file, as far as a record can reach.
    fn read_file(&self, folder: &Folder, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let fault = |operation, error| DiskError::io(operation, &folder.path().join(name), error);
        let file = match self.root.disk.open(folder, name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault("open", error)),
        };
        let mut text = vec![0_u8; RECORD_BYTES_MAX + 1];
        let mut length = 0;
        while length < text.len() {
            match self.root.disk.read_at(&file, &mut text[length..], length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fault("read", error)),
            }
        }
        text.truncate(length);
        Ok(Some(text))
    }
}

fn file_name(name: &str) -> String {
    name.replace('/', SLASH_ON_DISK.encode_utf8(&mut [0; 4]))
}

fn check(name: &str) -> Result<(), NameError> {
    match broken_rule(name) {
        None => Ok(()),
        Some(rule) => Err(NameError::Invalid { name: name.to_owned(), rule }),
    }
}

fn broken_rule(name: &str) -> Option<NameRule> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Some(NameRule::Length);
    }
    if name.chars().any(|character| character == SLASH_ON_DISK || is_invisible(character)) {
        return Some(NameRule::Printable);
    }
    let is_part_wrong = |part: &str| matches!(part, "" | "." | "..");
    name.split('/').any(is_part_wrong).then_some(NameRule::Parts)
}

/// Control characters, and what makes a text look like another: zero width, direction marks, line separators.
fn is_invisible(character: char) -> bool {
    const INVISIBLE: [std::ops::RangeInclusive<char>; 5] = [
        '\u{ad}'..='\u{ad}',
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{feff}'..='\u{feff}',
    ];
    character.is_control() || INVISIBLE.iter().any(|range| range.contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_lead_astray_break_a_rule() {
        let long = "x".repeat(NAME_BYTES_MAX);
        let cases = [
            ("report.md", None),
            ("run-7/report.md", None),
            ("...", None),
            (".hidden", None),
            ("-rf", None),
            ("a b*?\"'", None),
            ("\u{e9}t\u{e9}", None),
            (long.as_str(), None),
            ("", Some(NameRule::Length)),
            (&format!("{long}x"), Some(NameRule::Length)),
            ("a\nb", Some(NameRule::Printable)),
            ("a\0b", Some(NameRule::Printable)),
            ("a\\b", Some(NameRule::Printable)),
            ("a\u{202e}b", Some(NameRule::Printable)),
            (".", Some(NameRule::Parts)),
            ("..", Some(NameRule::Parts)),
            ("../x", Some(NameRule::Parts)),
            ("x/..", Some(NameRule::Parts)),
            ("x/./y", Some(NameRule::Parts)),
            ("/x", Some(NameRule::Parts)),
            ("x/", Some(NameRule::Parts)),
            ("x//y", Some(NameRule::Parts)),
        ];
        for (name, rule) in cases {
            assert_eq!(broken_rule(name), rule, "{name:?}");
        }
    }

    const NAMES: &str = "[ -.0-\\[\\]-~\u{e9}]{3,9}(/[ -.0-\\[\\]-~\u{e9}]{3,9}){0,8}";

    proptest! {
        #[test]
        fn every_name_is_one_plain_file_name_and_back(name in NAMES) {
            prop_assume!(broken_rule(&name).is_none());
            let file = file_name(&name);
            prop_assert!(!file.contains('/') && file != "." && file != ".." && file.len() <= NAME_BYTES_MAX);
            prop_assert_eq!(file.replace(SLASH_ON_DISK, "/"), name);
        }
    }
}
