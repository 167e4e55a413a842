//! Collection: removing what nothing can refer to.
//!
//! ```text
//!   candidate: not named, not referenced by the caller's word      (looked at without the lock, to have few)
//!   under the lock of the names: still not named, pinned by nobody --> removed
//!   a pack: nothing left --> removed;  half or less left --> the rest into a new pack, durable, then removed
//! ```
//!
//! What can refer to an artifact is a name, a pin of any living process, and what the caller knows. A name can only be set
//! to a pinned artifact and under the lock, so between the last look at the names and the removal nothing can begin to
//! refer to it. A removal need not be durable: what a crash brings back is whole, and is collected again.

use std::collections::HashSet;

use crate::batch::Linked;
use crate::digest::{Digest, DigestHash};
use crate::error::{CollectError, DiskError, NameError};
use crate::look::Spot;
use crate::pack::Item;
use crate::packs::{read_exact_at, read_items};
use crate::pin::Locked;
use crate::remembered::{Identity, size_of_stat};
use crate::store::Store;

/// LIMIT: files that are removed while the lock is held; those who set names wait no longer than that takes.
const SLICE_FILES: usize = 256;

/// What a collection has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Artifacts that were removed.
    pub removed: u64,
    /// Their bytes. Those of a pack that is mostly in use stay on the disk for now.
    pub removed_bytes: u64,
    /// Files that nothing refers to but a pin.
    pub pinned: u64,
    /// Packs of which the rest was written into a new one.
    pub packs_rewritten: u64,
}

type Digests = HashSet<Digest, DigestHash>;

impl Store {
    /// Removes every artifact that no name points to, that no living process has pinned, and of which
    /// `is_referenced` does not know better: the caller's own references, such as documents that quote digests.
    ///
    /// # Errors
    /// [`CollectError::Names`] if a name cannot be read, since it could refer to anything; others as described there.
    ///
    /// # Concurrency
    /// Others may put, get, pin and name meanwhile, in this and in other processes. Setters of names wait for one
    /// slice (256 files, or the rewriting of one pack). `is_referenced` is called while the lock of the names is
    /// held: it must not set names of this store.
    pub fn collect(&self, mut is_referenced: impl FnMut(&Digest) -> bool) -> Result<Collected, CollectError> {
        self.root.check_sound()?;
        let mut collected = Collected::default();
        let named = self.named()?;
        let mut slice = Vec::new();
        for listed in self.files() {
            let digest = match listed {
                Ok(listed) => listed.digest,
                Err(fault) => return Err(fault.into()),
            };
            if !named.contains(&digest) && !is_referenced(&digest) {
                slice.push(digest);
            }
            if slice.len() == SLICE_FILES {
                self.collect_files(&slice, &mut is_referenced, &mut collected)?;
                slice.clear();
            }
        }
        self.collect_files(&slice, &mut is_referenced, &mut collected)?;
        self.collect_packs(&named, &mut is_referenced, &mut collected)?;
        Ok(collected)
    }

    fn collect_files(
        &self,
        candidates: &[Digest],
        is_referenced: &mut impl FnMut(&Digest) -> bool,
        collected: &mut Collected,
    ) -> Result<(), CollectError> {
        if candidates.is_empty() {
            return Ok(());
        }
        let _lock = self.root.lock()?;
        let named = self.named()?;
        for digest in candidates {
            if named.contains(digest) || is_referenced(digest) {
                continue;
            }
            let spot = Spot::of(digest);
            let path = self.path_of(digest);
            let fault = |operation, error| DiskError::io(operation, &path, error);
            // Gone meanwhile, or not to be opened: not ours to remove.
            let Ok(folder) = self.root.objects.open_inside(spot.shard()) else { continue };
            let Ok(file) = self.root.disk.open(&folder, spot.name()) else { continue };
            let Some(locked) = Locked::exclusive(file) else {
                collected.pinned += 1;
                continue;
            };
            let own = rustix::fs::fstat(&locked).map_err(|error| fault("stat", error.into()))?;
            let is_it = folder
                .stat(spot.name().as_ref())
                .is_ok_and(|now| Identity::of(&now).is_same_file(&Identity::of(&own)));
            if is_it {
                self.root.disk.remove(&folder, spot.name()).map_err(|error| fault("remove", error))?;
                self.remembered.forget(digest);
                collected.removed += 1;
                collected.removed_bytes += size_of_stat(&own);
            }
        }
        Ok(())
    }

    fn collect_packs(
        &self,
        named: &Digests,
        is_referenced: &mut impl FnMut(&Digest) -> bool,
        collected: &mut Collected,
    ) -> Result<(), CollectError> {
        self.load_packs()?;
        let path = self.root.packs.path();
        for name in self.root.packs.entries().map_err(|error| DiskError::io("list", path, error))? {
            let name = name.map_err(|error| DiskError::io("list", path, error))?;
            let Some(name) = name.to_str() else { continue };
            let Some((_, items)) = self.open_pack(name)? else { continue };
            if items.iter().all(|item| named.contains(&item.digest) || is_referenced(&item.digest)) {
                continue;
            }
            let _lock = self.root.lock()?;
            let named = self.named()?;
            let Some((file, items)) = self.open_pack(name)? else { continue };
            let Some(locked) = Locked::exclusive(file) else {
                collected.pinned += 1;
                continue;
            };
            let is_live = |item: &Item| named.contains(&item.digest) || is_referenced(&item.digest);
            let (live, dead): (Vec<Item>, Vec<Item>) = items.into_iter().partition(is_live);
            let bytes_of = |items: &[Item]| items.iter().map(|item| u64::from(item.bytes)).sum::<u64>();
            if live.len() > dead.len() && bytes_of(&live) > bytes_of(&dead) {
                continue;
            }
            if !live.is_empty() {
                self.rewrite(&locked, &live)?;
                collected.packs_rewritten += 1;
            }
            let removed = self.root.disk.remove(&self.root.packs, name);
            removed.map_err(|error| DiskError::io("remove", &path.join(name), error))?;
            self.packs.forget(name);
            for item in &dead {
                self.remembered.forget(&item.digest);
            }
            collected.removed += dead.len() as u64;
            collected.removed_bytes += bytes_of(&dead);
        }
        Ok(())
    }

    fn open_pack(&self, name: &str) -> Result<Option<(std::fs::File, Vec<Item>)>, DiskError> {
        // Another collector was faster, or it cannot be read: not ours to remove.
        let Ok(file) = self.root.disk.open(&self.root.packs, name) else { return Ok(None) };
        let items = read_items(&self.root, &file)
            .map_err(|error| DiskError::io("read", &self.root.packs.path().join(name), error))?;
        Ok(items.map(|items| (file, items)))
    }

    /// Writes what is left of a pack into a new one, which is durable when this returns. What is damaged is left behind.
    fn rewrite(&self, old: &Locked, live: &[Item]) -> Result<(), CollectError> {
        let path = self.root.packs.path();
        let (mut bytes, mut has_damaged) = (Vec::with_capacity(live.len()), false);
        for item in live {
            let mut of_item = vec![0_u8; item.bytes as usize];
            let is_there = read_exact_at(&self.root, old.file(), &mut of_item, item.offset)
                .map_err(|error| DiskError::io("read", path, error))?;
            if is_there && Digest::of(&of_item) == item.digest {
                bytes.push((item.digest, of_item));
            } else {
                // Kept for people to look at, as when it is read; and its loss is told from now on.
                self.keep_damaged(&item.digest, &of_item)?;
                has_damaged = true;
            }
        }
        if has_damaged {
            self.root.sync_folder(&self.root.quarantine)?;
        }
        let items: Vec<_> = bytes.iter().map(|(digest, bytes)| (*digest, bytes.as_slice())).collect();
        if items.is_empty() {
            return Ok(());
        }
        let Linked { name, items, .. } = self.write_pack(&items)?;
        self.root.sync_folder(&self.root.packs)?;
        self.root.check_sound()?;
        self.packs.add(&name, &items);
        Ok(())
    }

    /// What all names point to.
    fn named(&self) -> Result<Digests, CollectError> {
        let of_names = |source: NameError| CollectError::Names { source: Box::new(source) };
        self.names("")
            .map_err(of_names)?
            .map(|named| named.map(|named| named.digest).map_err(of_names))
            .collect()
    }
}
