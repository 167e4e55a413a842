//! Listing folders and reading files. Paths are bytes, as the system has them.

use extension_sdk::stream::Stream;
use extension_sdk::{Blob, Context, Fault};

/// Lists folders and reads files.
#[extension_sdk::interface]
pub trait FileExplorer {
    /// Lists the regular files in a folder, sorted by the bytes of their paths.
    ///
    /// Symbolic links are not followed, and neither they nor pipes, sockets and devices are listed. A folder
    /// inside that cannot be read is a problem in the result, not a failure.
    ///
    /// Fails with `NotFound` if there is no such folder, with `InvalidArgument` if it is no folder, with
    /// `PermissionDenied` if it may not be read.
    #[method(idempotent)]
    fn list(&self, cx: &Context, request: Listing) -> Result<Tree, Fault>;

    /// The lines of a file, one after the other, without their ends. A line above 512 KiB comes in pieces.
    ///
    /// With `follow` it waits at the end for what is appended, until nobody reads any longer; a file that becomes shorter is
    /// read from its beginning.
    ///
    /// Fails as `list` does; the stream ends with `Io` if the file cannot be read to its end.
    #[method(idempotent)]
    fn lines(&self, cx: &Context, path: Blob, #[serde(default)] follow: bool) -> Result<Stream<Blob>, Fault>;
}

/// What to list.
#[extension_sdk::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The folder.
    pub path: Blob,
    /// Whether the folders inside are listed too, to any depth.
    #[serde(default = "yes")]
    pub recursive: bool,
    /// Whether hidden files, and those that a `.gitignore` excludes, are listed too.
    #[serde(default)]
    pub all: bool,
}

fn yes() -> bool {
    true
}

/// The files of a folder.
#[extension_sdk::message]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The folder's absolute path, symbolic links resolved.
    pub root: Blob,
    /// Its files.
    pub entries: Vec<Entry>,
    /// What could not be looked into.
    pub problems: Vec<Problem>,
    /// How many problems more there were.
    pub problems_left_out: u64,
}

/// One regular file.
#[extension_sdk::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root.
    pub path: Blob,
    /// Its length when it was listed.
    pub bytes: u64,
}

/// What could not be looked into.
#[extension_sdk::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Relative to the root, as text: bytes that are not UTF-8 are written as `\xNN`.
    pub path: String,
    /// Why not.
    pub error: String,
}
