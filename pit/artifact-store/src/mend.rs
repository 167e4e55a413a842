//! A damaged pack: what is whole in it stays readable, what is lost is told by name, and the file goes to quarantine.
//!
//! ```text
//!   damaged --what is whole--> readable where it lies --copied--> a new pack, durable   \
//!      \------what is lost----> quarantine/DIGEST, what is left of each                  +-> quarantine/pack-NAME
//!       \-----that and more---> quarantine/pack-NAME.lost                               /
//! ```
//!
//! The file is moved last, under the lock, and only if nobody pins it: until then a crash, a full disk or a device that
//! cannot read changes nothing, and the next process begins again. What was lost is told as long as it lies in
//! quarantine and was not put again. Knows what can be had from a file through `salvage` only.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::digest::{Digest, DigestHash};
use crate::error::{DiskError, GetError};
use crate::look::Spot;
use crate::pack::{self, Item, PACK_FILE_BYTES_MAX};
use crate::packs::read_exact_at;
use crate::pin::Locked;
use crate::remembered::Identity;
use crate::salvage::{Salvage, bytes_of, salvage};
use crate::store::Store;

/// Bytes around one that the device cannot read which are given up with it.
const SECTOR_BYTES: usize = 4096;
/// Bytes read at once where the device can read them.
const PIECE_BYTES: usize = 1 << 20;
/// What the kept file of a pack is called, before its name.
const KEPT_PREFIX: &str = "pack-";
/// And behind it, if something is lost in it that nobody can name.
const KEPT_SUFFIX: &str = ".lost";

/// A damaged pack that is still in its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damaged {
    pub(crate) lost: Vec<Digest>,
    pub(crate) is_accounted: bool,
    /// The device could not read all of it, which may pass.
    pub(crate) has_unreadable: bool,
}

impl Store {
    /// Makes what is whole in a damaged pack readable where it lies. It is not moved yet.
    pub(crate) fn read_damaged(&self, name: &str, file: &File) {
        let (whole, has_unreadable) = self.read_what_can_be(file);
        if let (Some(items), false) = (pack::items_of_file(&whole), has_unreadable) {
            // The device could not read it before, and now it can.
            return self.packs.add(name, &items);
        }
        let Salvage { sound, lost, is_accounted } = salvage(&whole);
        let lost = lost.iter().map(|item| item.digest).collect();
        let is_accounted = is_accounted && !has_unreadable;
        self.packs.add(name, &sound);
        self.packs.add_damaged(name, Damaged { lost, is_accounted, has_unreadable });
    }

    /// Tries to replace all damaged packs. One that cannot be now stays where it is, readable as far as it is whole.
    pub(crate) fn mend_packs(&self) {
        for (name, damaged) in self.packs.damaged() {
            // What the device may read again next time is not given up.
            if !damaged.has_unreadable {
                let _is_mended = self.mend_pack(&name).is_ok();
            }
        }
    }

    fn mend_pack(&self, name: &str) -> Result<(), DiskError> {
        let path = self.root.packs.path().join(name);
        let fault = |operation, error| DiskError::io(operation, &path, error);
        let _lock = self.root.lock()?;
        let file = match self.root.disk.open(&self.root.packs, name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Another process was faster.
                self.packs.forget(name);
                return Ok(());
            }
            Err(error) => return Err(fault("open", error)),
        };
        // As a collector does: what a living process refers to keeps its file.
        let busy = || fault("lock", io::ErrorKind::WouldBlock.into());
        let locked = Locked::exclusive(file).ok_or_else(busy)?;
        let own = rustix::fs::fstat(&locked).map_err(|error| fault("stat", error.into()))?;
        let now = self.root.packs.stat(name.as_ref()).map_err(|error| fault("stat", error))?;
        if !Identity::of(&now).is_same_file(&Identity::of(&own)) {
            return Ok(());
        }
        let (whole, has_unreadable) = self.read_what_can_be(locked.file());
        if has_unreadable {
            return Err(fault("read", io::ErrorKind::InvalidData.into()));
        }
        let Salvage { sound, lost, is_accounted } = salvage(&whole);
        let mut seen: HashSet<Digest, DigestHash> = HashSet::default();
        let is_wanted = |item: &&Item| seen.insert(item.digest) && !self.is_elsewhere(&item.digest, name);
        let sound: Vec<_> =
            sound.iter().filter(is_wanted).map(|item| (item.digest, bytes_of(&whole, item))).collect();
        let linked = if sound.is_empty() { None } else { Some(self.write_pack(&sound)?) };
        if linked.is_some() {
            self.root.sync_folder(&self.root.packs)?;
        }
        for item in &lost {
            self.keep_damaged(&item.digest, bytes_of(&whole, item))?;
        }
        // What was lost must be known for good before the file goes that says so.
        self.root.sync_folder(&self.root.quarantine)?;
        self.root.check_sound()?;
        let kept = format!("{KEPT_PREFIX}{name}{}", if is_accounted { "" } else { KEPT_SUFFIX });
        let moved = self.root.disk.rename(&self.root.packs, name, &self.root.quarantine, &kept);
        moved.map_err(|error| fault("move", error))?;
        self.packs.forget(name);
        if let Some(linked) = linked {
            self.packs.add(&linked.name, &linked.items);
        }
        // As for a single artifact: after a crash it would be found damaged again.
        self.root.sync_folder(&self.root.quarantine)?;
        self.root.sync_folder(&self.root.packs)
    }

    /// Lies sound in another pack, from an earlier attempt or another writer.
    fn is_elsewhere(&self, digest: &Digest, name: &str) -> bool {
        self.packs.others(digest, name).iter().any(|place| {
            let mut bytes = vec![0_u8; place.bytes as usize];
            let opened = self.root.disk.open(&self.root.packs, &place.pack);
            let read = opened.and_then(|file| read_exact_at(&self.root, &file, &mut bytes, place.offset));
            read.is_ok_and(|is_there| is_there && Digest::of(&bytes) == *digest)
        })
    }

    /// All bytes of a file that may be a pack, with zeros for what the device cannot read; and whether there is such.
    fn read_what_can_be(&self, file: &File) -> (Vec<u8>, bool) {
        let (mut whole, mut has_unreadable) = (Vec::new(), false);
        let mut piece = vec![0_u8; PIECE_BYTES];
        let mut wanted = PIECE_BYTES;
        while whole.len() < PACK_FILE_BYTES_MAX {
            match self.root.disk.read_at(file, &mut piece[..wanted], whole.len() as u64) {
                Ok(0) => break,
                Ok(count) => whole.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if wanted > SECTOR_BYTES => wanted = SECTOR_BYTES,
                Err(_) => {
                    has_unreadable = true;
                    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
                    let left = bytes.saturating_sub(whole.len() as u64);
                    if left == 0 {
                        break;
                    }
                    let given_up = usize::try_from(left).map_or(SECTOR_BYTES, |left| left.min(SECTOR_BYTES));
                    whole.resize(whole.len() + given_up, 0);
                }
            }
        }
        (whole, has_unreadable)
    }

    /// What was lost, by whichever process found it, and was not put again; each once.
    pub(crate) fn losses(&self) -> Result<Vec<GetError>, DiskError> {
        let mut losses = Vec::new();
        let mut told: HashSet<Digest, DigestHash> = HashSet::default();
        let mut tell = |losses: &mut Vec<GetError>, digest: Digest, kept_at: PathBuf| {
            if !self.is_listed(&digest) && told.insert(digest) {
                losses.push(GetError::Corrupt { digest, kept_at });
            }
        };
        let folder = &self.root.quarantine;
        for name in folder.entries().map_err(|error| DiskError::io("list", folder.path(), error))? {
            let name = name.map_err(|error| DiskError::io("list", folder.path(), error))?;
            let Some(name) = name.to_str() else { continue };
            let kept_at = folder.path().join(name);
            if let Ok(digest) = name.parse() {
                tell(&mut losses, digest, kept_at);
            } else if name.starts_with(KEPT_PREFIX) && name.ends_with(KEPT_SUFFIX) {
                losses.push(GetError::LostInPack { kept_at });
            }
        }
        for (name, damaged) in self.packs.damaged() {
            let kept_at = self.root.packs.path().join(&*name);
            damaged.lost.into_iter().for_each(|digest| tell(&mut losses, digest, kept_at.clone()));
            if !damaged.is_accounted {
                losses.push(GetError::LostInPack { kept_at });
            }
        }
        Ok(losses)
    }

    /// It has a file of its own or a place in a pack; not verified.
    pub(crate) fn is_listed(&self, digest: &Digest) -> bool {
        self.packs.has(digest) || self.root.objects.stat(Spot::of(digest).relative().as_ref()).is_ok()
    }
}
