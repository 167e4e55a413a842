//! The packs of an open store: which artifact lies where, and reading one.
//!
//! ```text
//!   unknown --listed, head right--> known --file gone--> forgotten     (rewritten or removed by a collector)
//!      \----listed, head wrong---> quarantine/pack-NAME
//! ```
//!
//! The index is in memory, read from the heads of the packs when an artifact has no file of its own. A pack that another
//! process has added since is met by listing again. Knows what a pack looks like through `pack` only.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use rustix::fs::Advice;

use crate::digest::{Digest, DigestHash};
use crate::error::DiskError;
use crate::look::{LOOKS_MAX, Sight, Sound, Trust};
use crate::pack::{self, HEAD_BYTES, Item};
use crate::remembered::{Identity, size_of_stat};
use crate::root::Root;
use crate::store::Store;
use crate::temporary::Temporary;

/// LIMIT: packed artifacts that a store adds to, about 100 bytes of memory each in every process that reads packed ones.
/// Beyond it small ones get files of their own; what others have packed is read all the same.
pub(crate) const PACKED_MAX: usize = 4 << 20;

/// Where an artifact lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) pack: Arc<str>,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Packs(RwLock<Index>);

#[derive(Debug, Default)]
struct Index {
    places: HashMap<Digest, Place, DigestHash>,
    /// Two processes may have packed the same artifact: the copies that are not in `places`.
    copies: Vec<(Digest, Place)>,
    known: HashSet<Arc<str>>,
}

impl Index {
    fn add(&mut self, digest: Digest, place: Place) {
        match self.places.entry(digest) {
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
            Entry::Occupied(_) => self.copies.push((digest, place)),
        }
    }
}

impl Packs {
    fn place(&self, digest: &Digest) -> Option<Place> {
        self.0.read().places.get(digest).cloned()
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.0.read().places.contains_key(digest)
    }

    fn is_known(&self, pack: &str) -> bool {
        self.0.read().known.contains(pack)
    }

    /// Packed artifacts known so far.
    pub(crate) fn count(&self) -> usize {
        self.0.read().places.len()
    }

    /// All that are known, each once.
    pub(crate) fn all(&self) -> Vec<(Digest, Place)> {
        self.0.read().places.iter().map(|(digest, place)| (*digest, place.clone())).collect()
    }

    pub(crate) fn add(&self, name: &str, items: &[Item]) {
        let mut index = self.0.write();
        let pack: Arc<str> = name.into();
        if !index.known.insert(Arc::clone(&pack)) {
            return;
        }
        index.places.reserve(items.len());
        for item in items {
            let place = Place { pack: Arc::clone(&pack), offset: item.offset, bytes: item.bytes };
            index.add(item.digest, place);
        }
    }

    /// The copy at this place is damaged; another one takes its turn.
    fn drop_place(&self, digest: &Digest, damaged: &Place) {
        let mut index = self.0.write();
        if index.places.get(digest).is_some_and(|place| place.pack == damaged.pack) {
            index.places.remove(digest);
            if let Some(at) = index.copies.iter().position(|(other, _)| other == digest) {
                let (digest, place) = index.copies.swap_remove(at);
                index.places.insert(digest, place);
            }
        }
    }

    /// The file is gone. What lay in it lies elsewhere now, or was collected.
    pub(crate) fn forget(&self, pack: &str) {
        let mut index = self.0.write();
        index.known.remove(pack);
        index.copies.retain(|(_, place)| &*place.pack != pack);
        index.places.retain(|_, place| &*place.pack != pack);
        for (digest, place) in std::mem::take(&mut index.copies) {
            index.add(digest, place);
        }
    }
}

/// The artifacts of a pack as its file says, or nothing if the file is damaged.
pub(crate) fn read_items(root: &Root, file: &File) -> io::Result<Option<Vec<Item>>> {
    let mut whole = vec![0_u8; HEAD_BYTES];
    if !read_exact_at(root, file, &mut whole, 0)? {
        return Ok(None);
    }
    let Some(head) = pack::read_head(&whole) else { return Ok(None) };
    let stat = rustix::fs::fstat(file)?;
    if size_of_stat(&stat) != head.file_bytes() {
        return Ok(None);
    }
    whole.resize(head.whole_bytes(), 0);
    let is_whole = read_exact_at(root, file, &mut whole[HEAD_BYTES..], HEAD_BYTES as u64)?;
    Ok(if is_whole { pack::items(&whole) } else { None })
}

/// Fills the buffer; false if the file ends before.
pub(crate) fn read_exact_at(
    root: &Root,
    file: &File,
    mut buffer: &mut [u8],
    mut offset: u64,
) -> io::Result<bool> {
    while !buffer.is_empty() {
        match root.disk.read_at(file, buffer, offset) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

impl Store {
    /// Looks for a packed artifact. Its bytes are read and verified each time: they are few.
    pub(crate) fn look_packed(&self, digest: &Digest, trust: Trust) -> Result<Sight, DiskError> {
        let mut damaged = None;
        for _ in 0..LOOKS_MAX {
            let place = match self.packs.place(digest) {
                Some(place) => place,
                None => {
                    self.load_packs()?;
                    match self.packs.place(digest) {
                        Some(place) => place,
                        None => break,
                    }
                }
            };
            let path = self.root.packs.path().join(&*place.pack);
            let file = match self.root.disk.open(&self.root.packs, &place.pack) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.packs.forget(&place.pack);
                    continue;
                }
                Err(error) => return Err(DiskError::io("open", &path, error)),
            };
            if trust == Trust::Nothing {
                // From the device, as far as the page cache lets it go.
                let _is_dropped = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).is_ok();
            }
            let mut bytes = vec![0_u8; place.bytes as usize];
            let is_there = read_exact_at(&self.root, &file, &mut bytes, place.offset)
                .map_err(|error| DiskError::io("read", &path, error))?;
            if is_there && Digest::of(&bytes) == *digest {
                return Ok(Sight::Sound(Sound::Packed { file, place, bytes }));
            }
            self.packs.drop_place(digest, &place);
            damaged = Some(self.keep_damaged(digest, &bytes).unwrap_or(path));
        }
        Ok(damaged.map_or(Sight::Absent, |kept_at| Sight::Damaged { kept_at, is_moved: true }))
    }

    /// A copy of what a pack holds in the place of an artifact, for people to look at.
    pub(crate) fn keep_damaged(&self, digest: &Digest, bytes: &[u8]) -> Option<PathBuf> {
        let mut copy = Temporary::create_named(&self.root).ok()?;
        copy.append(bytes, None).ok()?;
        let kept = digest.to_string();
        copy.replace(&self.root.quarantine, &kept).ok()?;
        Some(self.root.quarantine.path().join(kept))
    }

    /// Reads the heads of packs that are not known yet.
    pub(crate) fn load_packs(&self) -> Result<(), DiskError> {
        let folder = &self.root.packs;
        let fault = |operation, name: &str, error| DiskError::io(operation, &folder.path().join(name), error);
        for name in folder.entries().map_err(|error| fault("list", "", error))? {
            let name = name.map_err(|error| fault("list", "", error))?;
            // A name that is no text is none of ours.
            let Some(name) = name.to_str().filter(|name| !self.packs.is_known(name)) else { continue };
            let file = match self.root.disk.open(folder, name) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(fault("open", name, error)),
            };
            match read_items(&self.root, &file).map_err(|error| fault("read", name, error))? {
                Some(items) => self.packs.add(name, &items),
                None => self.quarantine_pack(name, &file),
            }
        }
        Ok(())
    }

    /// Moves a pack whose index is damaged out of the way: what lay in it cannot be told any more. Where it cannot be
    /// moved it stays, and is passed over from now on.
    fn quarantine_pack(&self, name: &str, file: &File) {
        self.packs.add(name, &[]);
        let (Ok(_lock), Ok(damaged)) = (self.root.lock(), rustix::fs::fstat(file)) else { return };
        let is_still_it = self
            .root
            .packs
            .stat(name.as_ref())
            .is_ok_and(|now| Identity::of(&now).is_same_file(&Identity::of(&damaged)));
        let kept = format!("pack-{name}");
        if is_still_it && self.root.disk.rename(&self.root.packs, name, &self.root.quarantine, &kept).is_ok()
        {
            // As for a single artifact: after a crash it would be found damaged again.
            let synced = self
                .root
                .sync_folder(&self.root.quarantine)
                .and_then(|()| self.root.sync_folder(&self.root.packs));
            drop(synced);
        }
    }
}
