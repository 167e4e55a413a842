//! The packs of an open store: which artifact lies where, and reading one.
//!
//! ```text
//!   unknown --listed, head right--> known --file gone--> forgotten     (rewritten or removed by a collector)
//!      \----listed, head wrong---> known as far as it is whole, replaced if that can be (`mend`)
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
use crate::mend::Damaged;
use crate::pack::{self, HEAD_BYTES, Item};
use crate::remembered::size_of_stat;
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
    /// Of these, those whose head or index is wrong.
    damaged: HashMap<Arc<str>, Damaged>,
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

    pub(crate) fn add_damaged(&self, name: &str, damaged: Damaged) {
        self.0.write().damaged.insert(name.into(), damaged);
    }

    /// Damaged packs that are still in their places.
    pub(crate) fn damaged(&self) -> Vec<(Arc<str>, Damaged)> {
        self.0.read().damaged.iter().map(|(name, damaged)| (Arc::clone(name), damaged.clone())).collect()
    }

    /// What a device could not read it may read the next time.
    pub(crate) fn forget_unreadable(&self) {
        for (name, damaged) in self.damaged() {
            if damaged.has_unreadable {
                self.forget(&name);
            }
        }
    }

    /// Where an artifact lies in other packs than this one.
    pub(crate) fn others(&self, digest: &Digest, pack: &str) -> Vec<Place> {
        let index = self.0.read();
        let copies = index.copies.iter().filter(|(other, _)| other == digest).map(|(_, place)| place);
        let places = index.places.get(digest).into_iter().chain(copies);
        places.filter(|place| &*place.pack != pack).cloned().collect()
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
        index.damaged.remove(pack);
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
            let mut place = self.packs.place(digest);
            if place.is_none() {
                let loaded = self.load_packs();
                place = self.packs.place(digest);
                // It may lie in one that could not be read.
                if place.is_none() && damaged.is_none() {
                    loaded?;
                }
            }
            let Some(place) = place else { break };
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
    pub(crate) fn keep_damaged(&self, digest: &Digest, bytes: &[u8]) -> Result<PathBuf, DiskError> {
        let mut copy = Temporary::create_named(&self.root)?;
        copy.append(bytes, None)?;
        let kept = digest.to_string();
        copy.replace(&self.root.quarantine, &kept)?;
        Ok(self.root.quarantine.path().join(kept))
    }

    /// Reads the heads of packs that are not known yet. One that cannot be read keeps no other from being known.
    pub(crate) fn load_packs(&self) -> Result<(), DiskError> {
        let folder = &self.root.packs;
        let fault = |operation, name: &str, error| DiskError::io(operation, &folder.path().join(name), error);
        let (mut failure, mut has_damaged) = (None, false);
        for name in folder.entries().map_err(|error| fault("list", "", error))? {
            let name = name.map_err(|error| fault("list", "", error))?;
            // A name that is no text is none of ours.
            let Some(name) = name.to_str().filter(|name| !self.packs.is_known(name)) else { continue };
            let file = match self.root.disk.open(folder, name) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    failure.get_or_insert(fault("open", name, error));
                    continue;
                }
            };
            // What cannot be read is damaged for now.
            match read_items(&self.root, &file).unwrap_or_default() {
                Some(items) => self.packs.add(name, &items),
                None => {
                    self.read_damaged(name, &file);
                    has_damaged = true;
                }
            }
        }
        if has_damaged {
            self.mend_packs();
        }
        failure.map_or(Ok(()), Err)
    }
}
