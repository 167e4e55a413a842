//! The folder that is asked for: whether it is there, is a folder, and may be read.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use extension_sdk::{Fault, FaultCode};

/// The folder's absolute path, symbolic links resolved.
///
/// # Errors
///
/// A fault that says what is wrong with the path, and what to do.
pub(crate) fn resolve(path: &[u8]) -> Result<PathBuf, Fault> {
    if path.is_empty() {
        return Err(Fault::new(
            FaultCode::InvalidArgument,
            "the path is empty; give a folder, `.` for this one",
        ));
    }
    let path = Path::new(OsStr::from_bytes(path));
    let failed = |error: io::Error| explain(path, "folder", &error);
    let root = path.canonicalize().map_err(failed)?;
    // Opening it is what tells whether it is a folder that may be read.
    std::fs::read_dir(&root).map_err(failed)?;
    Ok(root)
}

/// What is wrong with a path that is to be a `kind` (a folder, a file), and what to do.
pub(crate) fn explain(path: &Path, kind: &str, error: &io::Error) -> Fault {
    let shown = path.display();
    let (code, text) = match error.kind() {
        ErrorKind::NotFound => (
            FaultCode::NotFound,
            format!("there is no {kind} `{shown}`; check the path, it is case-sensitive"),
        ),
        ErrorKind::NotADirectory => {
            (FaultCode::InvalidArgument, format!("`{shown}` is not a folder; give the folder that it is in"))
        }
        ErrorKind::PermissionDenied => (
            FaultCode::PermissionDenied,
            format!("`{shown}` may not be read; allow it (`chmod u+rx`), or run as a user who may"),
        ),
        _ => (FaultCode::Io, format!("`{shown}` cannot be read: {error}")),
    };
    Fault::new(code, text)
}
