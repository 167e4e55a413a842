//! What an extension says of itself (`--describe`), kept beside its binary under the binary's BLAKE3.
//!
//! ```text
//! target/release/echo    target/release/echo.0123456789abcdef.describe.json
//! ```
//!
//! Where that folder cannot be written, the data folder takes it. Reading runs nothing: the description of
//! another binary has another name, and is never taken for this one's.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ipc_protocol::describe::{DESCRIPTION_VERSION, Description};
use ipc_protocol::limits::DESCRIPTION_BYTES_MAX;

use super::freshness::write_whole;

/// A description is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// What the program printed is no description.
    #[error("what `{extension} --describe` printed is no description")]
    Malformed {
        /// The extension.
        extension: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is the description of something else, or of a form that this conductor does not know.
    #[error("`{extension} --describe` describes {found} in form {version}, not form {DESCRIPTION_VERSION}")]
    Other {
        /// The extension that was meant.
        extension: String,
        /// The one that is described.
        found: String,
        /// Version of the document's form.
        version: u32,
    },
    /// The program failed, or did not end.
    #[error("`{extension} --describe` {how}")]
    Run {
        /// The extension.
        extension: String,
        /// How it ended.
        how: String,
    },
    /// The binary cannot be read, or the program cannot be started.
    #[error("`{extension}` cannot be described")]
    Io {
        /// The extension.
        extension: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where the description of one binary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    extension: String,
    beside: PathBuf,
    fallback: PathBuf,
}

impl Place {
    /// The place for the binary `program` of `extension`; reads the whole binary for its digest.
    ///
    /// # Errors
    ///
    /// The binary cannot be read.
    pub fn of(extension: &str, program: &Path, data_dir: &Path) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(program)?)?;
        let digest = hasher.finalize().to_hex();
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{name}.{}.describe.json", &digest[..16]);
        Ok(Self {
            extension: extension.to_owned(),
            beside: program.with_file_name(&name),
            fallback: data_dir.join("descriptions").join(name),
        })
    }

    /// The description stored there, if there is one that is whole.
    #[must_use]
    pub fn load(&self) -> Option<Description> {
        let read = |file: &PathBuf| {
            let mut text = Vec::new();
            File::open(file).ok()?.take(DESCRIPTION_BYTES_MAX + 1).read_to_end(&mut text).ok()?;
            parse(&self.extension, &text).ok()
        };
        read(&self.beside).or_else(|| read(&self.fallback))
    }

    /// Stores what the program printed, and removes what its predecessors left beside it.
    ///
    /// # Errors
    ///
    /// Neither place can be written; the description still holds for this time.
    pub fn store(&self, text: &[u8]) -> io::Result<()> {
        match write_whole(&self.beside, text) {
            Ok(()) => self.remove_predecessors(),
            Err(_) => write_whole(&self.fallback, text)?,
        }
        Ok(())
    }

    fn remove_predecessors(&self) {
        let (Some(folder), Some(name)) = (self.beside.parent(), self.beside.file_name()) else { return };
        let name = name.to_string_lossy();
        let Some(stem) = name.strip_suffix(".describe.json").and_then(|name| name.rsplit_once('.')) else {
            return;
        };
        let prefix = format!("{}.", stem.0);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let other = entry.file_name();
            let other = other.to_string_lossy();
            let middle = other.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".describe.json"));
            let is_digest = middle.is_some_and(|digest| digest.len() == 16 && !digest.contains('.'));
            if is_digest && other != name {
                // One that stays is never read again: nothing else depends on its removal.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The description in `text`, if it is one of `extension`.
///
/// # Errors
///
/// [`DescribeError::Malformed`] and [`DescribeError::Other`]: the extension was built with another version,
/// or is something else.
pub fn parse(extension: &str, text: &[u8]) -> Result<Description, DescribeError> {
    let malformed = |source| DescribeError::Malformed { extension: extension.to_owned(), source };
    if text.len() as u64 > DESCRIPTION_BYTES_MAX {
        return Err(malformed(serde::de::Error::custom(format!("more than {DESCRIPTION_BYTES_MAX} bytes"))));
    }
    let description: Description = serde_json::from_slice(text).map_err(malformed)?;
    if description.version != DESCRIPTION_VERSION || description.extension != extension {
        return Err(DescribeError::Other {
            extension: extension.to_owned(),
            found: description.extension,
            version: description.version,
        });
    }
    Ok(description)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(extension: &str) -> Vec<u8> {
        let description = Description {
            version: DESCRIPTION_VERSION,
            extension: extension.to_owned(),
            extension_version: "0.1.0".to_owned(),
            protocol_versions: vec![1],
            interfaces: Vec::new(),
            config_schema: String::new(),
        };
        serde_json::to_vec(&description).unwrap()
    }

    #[test]
    fn a_description_belongs_to_one_binary_and_replaces_its_predecessor() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("echo");
        let place = || Place::of("echo", &program, &folder.path().join("data")).unwrap();
        fs::write(&program, "one").unwrap();
        assert_eq!(place().load(), None);
        place().store(&description("echo")).unwrap();
        assert!(place().load().is_some());

        fs::write(&program, "two").unwrap();
        assert_eq!(place().load(), None, "another binary");
        place().store(&description("echo")).unwrap();
        let files = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 2, "the binary and one description");
    }

    #[test]
    fn a_folder_that_cannot_take_it_is_replaced_by_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("echo");
        fs::write(&program, "one").unwrap();
        let mut place = Place::of("echo", &program, &folder.path().join("data")).unwrap();
        // A file where a folder would have to be: also root cannot write there.
        place.beside = program.join("echo.json");
        place.store(&description("echo")).unwrap();
        assert!(place.fallback.is_file());
        assert!(place.load().is_some());
    }

    #[test]
    fn what_is_no_description_of_the_extension_is_refused() {
        assert!(parse("echo", &description("echo")).is_ok());
        assert!(matches!(parse("echo", &description("other")), Err(DescribeError::Other { .. })));
        assert!(matches!(parse("echo", b"hello"), Err(DescribeError::Malformed { .. })));
    }
}
