//! Walking through all artifacts: those with files of their own one folder at a time, then the packed ones.
//!
//! What is put or removed during a walk may or may not be met. Files whose names are no digests are passed over.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::digest::Digest;
use crate::disk::Folder;
use crate::error::{DiskError, GetError};
use crate::look::Spot;
use crate::packs::Place;
use crate::remembered::size_of_stat;
use crate::root::Root;
use crate::store::Store;

/// An artifact as its folder shows it; not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its address.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// When its bytes were written, by the wall clock of the machine that wrote them.
    pub modified: SystemTime,
}

/// Iterator over all artifacts in no order to rely on. One that lies in a pack and in a file of its own is met once.
///
/// # Errors
/// An item is an error if a folder cannot be read; the walk goes on with the next one.
pub struct List {
    store: Store,
    files: Files,
    /// `None` until all files were met.
    packed: Option<std::vec::IntoIter<(Digest, Place)>>,
}

/// Iterator over the artifacts with files of their own.
pub(crate) struct Files {
    root: Arc<Root>,
    /// The folder to be opened next; 256 when there is none.
    next_shard: u16,
    open: Option<OpenShard>,
}

struct OpenShard {
    folder: Folder,
    name: String,
    entries: Box<dyn Iterator<Item = io::Result<std::ffi::OsString>> + Send>,
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("next_shard", &self.files.next_shard).finish_non_exhaustive()
    }
}

impl Iterator for List {
    type Item = Result<Listed, GetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let packed = match &mut self.packed {
            Some(packed) => packed,
            none => {
                if let Some(listed) = self.files.next() {
                    return Some(listed.map_err(GetError::from));
                }
                let loaded = self.store.load_packs();
                let packed = none.insert(self.store.packs.all().into_iter());
                if let Err(fault) = loaded {
                    return Some(Err(fault.into()));
                }
                packed
            }
        };
        packed.find_map(|(digest, place)| self.store.list_packed(digest, &place)).map(Ok)
    }
}

impl Iterator for Files {
    type Item = Result<Listed, DiskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(shard) = &mut self.open else {
                match self.open_next()? {
                    Ok(()) => continue,
                    Err(fault) => return Some(Err(fault)),
                }
            };
            let entry = match shard.entries.next() {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    let fault = DiskError::io("list", shard.folder.path(), error);
                    self.open = None;
                    return Some(Err(fault));
                }
                None => {
                    self.open = None;
                    continue;
                }
            };
            let digest = entry.to_str().and_then(|rest| format!("{}{rest}", shard.name).parse().ok());
            // A file that is gone by now was moved to quarantine.
            let (Some(digest), Ok(stat)) = (digest, shard.folder.stat(&entry)) else { continue };
            return Some(Ok(Listed { digest, bytes: size_of_stat(&stat), modified: modified(&stat) }));
        }
    }
}

impl Files {
    fn open_next(&mut self) -> Option<Result<(), DiskError>> {
        loop {
            let shard = u8::try_from(self.next_shard).ok()?;
            self.next_shard += 1;
            let name = format!("{shard:02x}");
            let path = self.root.objects.path().join(&name);
            let opened = self.root.objects.open_inside(&name).and_then(|folder| {
                let entries = Box::new(folder.entries()?);
                Ok(OpenShard { folder, name, entries })
            });
            match opened {
                Ok(shard) => self.open = Some(shard),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Some(Err(DiskError::io("open", &path, error))),
            }
            return Some(Ok(()));
        }
    }
}

/// The time of the last write, which for a stored file is that of its only writing.
#[allow(clippy::unnecessary_cast, reason = "the widths of these fields differ between architectures")]
fn modified(stat: &rustix::fs::Stat) -> SystemTime {
    let seconds = stat.st_mtime as i64;
    let nanoseconds = Duration::from_nanos(stat.st_mtime_nsec as u64);
    let whole = match u64::try_from(seconds) {
        Ok(after) => UNIX_EPOCH.checked_add(Duration::from_secs(after)),
        Err(_) => UNIX_EPOCH.checked_sub(Duration::from_secs(seconds.unsigned_abs())),
    };
    whole.and_then(|time| time.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

impl Store {
    /// All artifacts, without verifying them.
    #[must_use]
    pub fn list(&self) -> List {
        List { store: self.clone(), files: self.files(), packed: None }
    }

    /// Those with files of their own.
    pub(crate) fn files(&self) -> Files {
        Files { root: Arc::clone(&self.root), next_shard: 0, open: None }
    }

    /// A packed one, unless its pack is gone or it has a file of its own, with which it was met.
    fn list_packed(&self, digest: Digest, place: &Place) -> Option<Listed> {
        if self.root.objects.stat(Spot::of(&digest).relative().as_ref()).is_ok() {
            return None;
        }
        let stat = self.root.packs.stat(place.pack.as_ref().as_ref()).ok()?;
        Some(Listed { digest, bytes: u64::from(place.bytes), modified: modified(&stat) })
    }

    /// Verifies all artifacts, one per step of the iterator: its digest, and its length or what is wrong with it. A
    /// folder that cannot be listed yields nothing here; [`list`](Self::list) tells.
    pub fn verify_all(&self) -> impl Iterator<Item = (Digest, Result<u64, GetError>)> + use<> {
        let store = self.clone();
        self.list().flatten().map(move |listed| (listed.digest, store.verify(&listed.digest)))
    }
}
