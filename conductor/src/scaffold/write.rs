//! Writes a new folder, whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::templates::File;
use super::{Plan, ScaffoldError};

/// Writes what was planned.
///
/// # Errors
///
/// [`ScaffoldError::Exists`]: somebody was faster. [`ScaffoldError::Write`]: nothing is left of it.
pub fn write(plan: &Plan) -> Result<(), ScaffoldError> {
    let Plan { folder, files, .. } = plan;
    let failed = |source: io::Error| ScaffoldError::Write { folder: folder.clone(), source };
    // Who makes the folder owns it: what is in it can be removed without a second look.
    fs::create_dir(folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => ScaffoldError::Exists(folder.clone()),
        _ => failed(error),
    })?;
    write_files(folder, files).map_err(|error| {
        // It fails where the disk does, and then the error that is told says so.
        let _ = fs::remove_dir_all(folder);
        failed(error)
    })
}

fn write_files(folder: &Path, files: &[File]) -> io::Result<()> {
    for file in files {
        let path = folder.join(file.path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        let mode = if file.is_executable { 0o777 } else { 0o666 };
        let mut written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        written.write_all(file.text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(path: &'static str, is_executable: bool) -> File {
        File { path, text: path.to_owned(), is_executable }
    }

    #[test]
    fn what_cannot_be_written_whole_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("new");
        // The second one needs a folder where the first one is a file.
        let files = vec![file("a", false), file("a/b", false)];
        let plan = Plan { folder: folder.clone(), sdk: None, files };
        assert!(matches!(write(&plan), Err(ScaffoldError::Write { .. })));
        assert!(!folder.exists());
    }

    #[test]
    fn programs_are_executable_and_a_folder_that_came_between_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("new");
        let files = vec![file("src/text", false), file("program", true)];
        let plan = Plan { folder: folder.clone(), sdk: None, files };
        write(&plan).unwrap();
        let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o100;
        assert_eq!((mode("src/text"), mode("program")), (0, 0o100));

        fs::write(folder.join("program"), "changed").unwrap();
        assert!(matches!(write(&plan), Err(ScaffoldError::Exists(_))));
        assert_eq!(fs::read_to_string(folder.join("program")).unwrap(), "changed");
    }
}
