//! The folders and the format of a store: made once, recognised ever after.
//!
//! ```text
//!   nothing --folders made and synced, format 3 linked--> format 3
//!   format 1 --packs/ made and synced, format replaced--> format 3
//!   format 2 --format replaced--> format 3     (its packs have no records: they are read, new ones are written with them)
//! ```
//!
//! The file `format` is written last: where it is, the layout is complete and durable. Two processes may create the
//! same store at once; each step finds done what the other did.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, Folder};
use crate::error::{DiskError, OpenError};
use crate::root::{FLOOR_FILE, LOCK_FILE, Root, SUSPECT_FILE, VERIFIED_FILE};
use crate::temporary::{Temporary, sweep};

/// The newest format that this release reads, and the one that it writes.
const FORMAT: u64 = 3;
const FORMAT_FILE: &str = "format";
const FORMAT_WORDS: &str = "symphony artifact-store format ";
/// LIMIT: bytes of the format file that are read.
const FORMAT_BYTES_MAX: usize = 128;

const FOLDERS: [&str; 5] = ["objects", "tmp", "names", "quarantine", "packs"];
/// What a file system puts into its own root folder.
const FOREIGN_BUT_WELCOME: &str = "lost+found";

/// A layout that was opened.
pub(crate) struct Opened {
    pub(crate) root: Arc<Root>,
    /// Files of dead writers that were removed.
    pub(crate) swept: u64,
    /// The format that was found, if it was an older one.
    pub(crate) upgraded_from: Option<u64>,
}

/// What the folder says about its format.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Current,
    Older(u64),
}

/// Opens the layout, creates what is missing, and brings an older format up to date.
pub(crate) fn open(path: &Path, disk: Arc<dyn Disk>) -> Result<Opened, OpenError> {
    let path = std::path::absolute(path).map_err(|error| DiskError::io("find", path, error))?;
    let folder = ensure_folder(disk.as_ref(), &path)?;
    let found = check_format(disk.as_ref(), &folder)?;
    if found == Found::Nothing {
        check_foreign(&folder)?;
    }
    let mut has_changed = found == Found::Nothing;
    for name in FOLDERS {
        has_changed |= make_folder(disk.as_ref(), &folder, name)?;
    }
    let inside = |name| {
        folder.open_inside(name).map_err(|error| DiskError::io("open", &folder.path().join(name), error))
    };
    let [objects, temporary, names, quarantine, packs] = FOLDERS;
    let folders = [inside(objects)?, inside(temporary)?, inside(names)?, inside(quarantine)?, inside(packs)?];
    let root = Arc::new(Root::new(disk, folder, folders));
    if has_changed {
        root.sync_folder(&root.folder)?;
    }
    let upgraded_from = match found {
        Found::Current => None,
        Found::Nothing => {
            write_format(&root)?;
            None
        }
        Found::Older(format) => {
            replace_format(&root)?;
            Some(format)
        }
    };
    let swept = sweep(&root);
    Ok(Opened { root, swept, upgraded_from })
}

/// A sync failed while the store was last written, and nobody has verified it since.
pub(crate) fn is_suspect(root: &Root) -> Result<bool, DiskError> {
    match root.folder.stat(SUSPECT_FILE.as_ref()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DiskError::io("stat", &root.folder.path().join(SUSPECT_FILE), error)),
    }
}

/// Everything was verified: what is visible is made durable, then the word of warning goes.
pub(crate) fn clear_suspicion(root: &Root) -> Result<(), DiskError> {
    let path = root.objects.path();
    for shard in root.objects.entries().map_err(|error| DiskError::io("list", path, error))? {
        let shard = shard.map_err(|error| DiskError::io("list", path, error))?;
        // What is no folder is none of ours.
        if let Some(Ok(shard)) = shard.to_str().map(|shard| root.objects.open_inside(shard)) {
            root.sync_folder(&shard)?;
        }
    }
    for folder in [&root.objects, &root.packs, &root.names, &root.quarantine, &root.folder] {
        root.sync_folder(folder)?;
    }
    match root.disk.remove(&root.folder, SUSPECT_FILE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DiskError::io("remove", &root.folder.path().join(SUSPECT_FILE), error))
        }
        _ => root.sync_folder(&root.folder),
    }
}

/// Opens the folder of the store; makes it and its parents durable where they are missing.
fn ensure_folder(disk: &dyn Disk, path: &Path) -> Result<Folder, DiskError> {
    let open = || Folder::open(path);
    match (open(), path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            let parent = ensure_folder(disk, parent)?;
            if make_folder(disk, &parent, name)? {
                disk.sync_folder(&parent).map_err(|source| DiskError::Poisoned {
                    path: parent.path().to_owned(),
                    source: Arc::new(source),
                })?;
            }
            open().map_err(|error| DiskError::io("open", path, error))
        }
        (opened, ..) => opened.map_err(|error| DiskError::io("open", path, error)),
    }
}

/// Says whether it made the folder; another process may have been faster.
fn make_folder(disk: &dyn Disk, parent: &Folder, name: &str) -> Result<bool, DiskError> {
    match disk.make_folder(parent, name) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(DiskError::of_growth("make", &parent.path().join(name), parent, 0, error)),
    }
}

/// Refuses a store of a newer release.
fn check_format(disk: &dyn Disk, folder: &Folder) -> Result<Found, OpenError> {
    let path = folder.path().join(FORMAT_FILE);
    let fault = |operation, error| OpenError::from(DiskError::io(operation, &path, error));
    let file = match disk.open(folder, FORMAT_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(fault("open", error)),
    };
    let mut text = [0_u8; FORMAT_BYTES_MAX];
    let count = disk.read_at(&file, &mut text, 0).map_err(|error| fault("read", error))?;
    match parse_format(&text[..count]) {
        Some(FORMAT) => Ok(Found::Current),
        Some(older) if (1..FORMAT).contains(&older) => Ok(Found::Older(older)),
        Some(found) if found > FORMAT => {
            Err(OpenError::NewerFormat { path: folder.path().to_owned(), found, known: FORMAT })
        }
        _ => Err(not_a_store(folder, FORMAT_FILE)),
    }
}

fn parse_format(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.strip_prefix(FORMAT_WORDS)?.strip_suffix('\n')?.parse().ok()
}

/// A folder without a format may be empty or hold what an interrupted creation left, nothing else: nobody's home
/// folder becomes a store by a slip of the hand.
fn check_foreign(folder: &Folder) -> Result<(), OpenError> {
    let fault = |error| DiskError::io("list", folder.path(), error);
    for name in folder.entries().map_err(fault)? {
        let name = name.map_err(fault)?;
        // Another process may have written the format since we looked for it, and more after that.
        let expected = [FORMAT_FILE, LOCK_FILE, SUSPECT_FILE, VERIFIED_FILE, FLOOR_FILE, FOREIGN_BUT_WELCOME];
        if !FOLDERS.iter().chain(&expected).any(|ours| name == **ours) {
            return Err(not_a_store(folder, &name.to_string_lossy()));
        }
    }
    Ok(())
}

fn not_a_store(folder: &Folder, found: &str) -> OpenError {
    OpenError::NotAStore { path: folder.path().to_owned(), found: found.to_owned() }
}

fn format_text() -> String {
    format!("{FORMAT_WORDS}{FORMAT}\n")
}

fn write_format(root: &Arc<Root>) -> Result<(), DiskError> {
    let mut file = Temporary::create(root)?;
    file.append(format_text().as_bytes(), None)?;
    file.sync()?;
    match file.link(&root.folder, FORMAT_FILE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let path = root.folder.path().join(FORMAT_FILE);
            Err(DiskError::of_growth("link", &path, &root.folder, file.bytes(), error))
        }
        _ => root.sync_folder(&root.folder),
    }
}

/// The store of an older release holds nothing that this one reads differently; the first lacks the folder of the packs,
/// which is there and durable by now. From here on the older release refuses it, since it would not find packed ones, or
/// take their packs for damaged.
fn replace_format(root: &Arc<Root>) -> Result<(), DiskError> {
    let mut file = Temporary::create_named(root)?;
    file.append(format_text().as_bytes(), None)?;
    file.sync()?;
    file.replace(&root.folder, FORMAT_FILE)?;
    root.sync_folder(&root.folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_format_line_is_believed() {
        let cases: [(&[u8], Option<u64>); 6] = [
            (b"symphony artifact-store format 1\n", Some(1)),
            (b"symphony artifact-store format 17\n", Some(17)),
            (b"symphony artifact-store format 1", None),
            (b"symphony artifact-store format -1\n", None),
            (b"", None),
            (b"\xff\n", None),
        ];
        for (text, format) in cases {
            assert_eq!(parse_format(text), format, "{text:?}");
        }
    }
}
