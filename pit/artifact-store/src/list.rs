//! Walking through all artifacts: what was lost, those with files of their own one folder at a time, the packed ones.
//!
//! What is put or removed during a walk may or may not be met. Files whose names are no digests are passed over.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::digest::{Digest, DigestHash};
use crate::disk::Folder;
use crate::error::{DiskError, GetError, NameError, VerifyError};
use crate::look::Spot;
use crate::names::Named;
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
/// An item is [`GetError::Corrupt`] for each artifact that was found damaged earlier, by whichever process, lies in
/// quarantine and was not put again; [`GetError::LostInPack`] for each pack in which others were lost; another error if a
/// folder cannot be read, and the walk goes on with the next one.
pub struct List {
    store: Store,
    /// `None` before the first step.
    lost: Option<std::vec::IntoIter<GetError>>,
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
        let lost = self.lost.get_or_insert_with(|| self.store.find_lost().into_iter());
        if let Some(loss) = lost.next() {
            return Some(Err(loss));
        }
        let packed = match &mut self.packed {
            Some(packed) => packed,
            none => {
                if let Some(listed) = self.files.next() {
                    return Some(listed.map_err(GetError::from));
                }
                // What cannot be read was told at the beginning.
                let _is_loaded = self.store.load_packs().is_ok();
                none.insert(self.store.packs.all().into_iter())
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
    /// All artifacts, without verifying them, and what was lost. Damaged packs are put in order first: what is whole in
    /// them is copied into new ones.
    #[must_use]
    pub fn list(&self) -> List {
        List { store: self.clone(), lost: None, files: self.files(), packed: None }
    }

    /// Those with files of their own.
    pub(crate) fn files(&self) -> Files {
        Files { root: Arc::clone(&self.root), next_shard: 0, open: None }
    }

    /// What is known to be lost, and what keeps us from knowing more.
    fn find_lost(&self) -> Vec<GetError> {
        self.packs.forget_unreadable();
        let loaded = self.load_packs();
        self.mend_packs();
        let mut found: Vec<GetError> = loaded.err().into_iter().map(GetError::from).collect();
        match self.losses() {
            Ok(losses) => found.extend(losses),
            Err(error) => found.push(error.into()),
        }
        found
    }

    /// A packed one, unless its pack is gone or it has a file of its own, with which it was met.
    fn list_packed(&self, digest: Digest, place: &Place) -> Option<Listed> {
        if self.root.objects.stat(Spot::of(&digest).relative().as_ref()).is_ok() {
            return None;
        }
        let stat = self.root.packs.stat(place.pack.as_ref().as_ref()).ok()?;
        Some(Listed { digest, bytes: u64::from(place.bytes), modified: modified(&stat) })
    }

    /// Verifies everything, one thing per step of the iterator: all artifacts, what was lost before, and that names point
    /// to something. Gives the digest, where one is known, and its length or what is wrong; each loss once.
    pub fn verify_all(&self) -> impl Iterator<Item = (Option<Digest>, Result<u64, VerifyError>)> + use<> {
        let (store, mut artifacts, mut names) = (self.clone(), self.list(), None);
        let mut told = HashSet::default();
        std::iter::from_fn(move || {
            let Some(listed) = artifacts.next() else {
                // Only when all artifacts were looked at is it known which are there.
                return names.get_or_insert_with(|| store.verify_names(&told).into_iter()).next();
            };
            let verified = match listed {
                Ok(Listed { digest, .. }) => (Some(digest), store.verify(&digest).map_err(VerifyError::from)),
                Err(error @ GetError::Corrupt { digest, .. }) => (Some(digest), Err(error.into())),
                Err(error) => (None, Err(error.into())),
            };
            if let (Some(digest), Err(_)) = &verified {
                told.insert(*digest);
            }
            Some(verified)
        })
    }

    /// Names that cannot be read or point to nothing, other than to what was told of already.
    fn verify_names(
        &self,
        told: &HashSet<Digest, DigestHash>,
    ) -> Vec<(Option<Digest>, Result<u64, VerifyError>)> {
        let wrong = |named: Result<Named, NameError>| match named {
            Ok(Named { digest, .. }) if told.contains(&digest) || self.is_listed(&digest) => None,
            Ok(Named { name, digest, .. }) => {
                Some((Some(digest), Err(VerifyError::Dangling { name, digest })))
            }
            Err(error) => Some((None, Err(error.into()))),
        };
        match self.names("") {
            Ok(names) => names.filter_map(wrong).collect(),
            Err(error) => vec![(None, Err(error.into()))],
        }
    }
}
