//! Storing many at once: small ones in one pack, all acknowledged together.
//!
//! ```text
//!   small ones -> one temporary file: head, records -> sync -> link into packs/ -\
//!   large ones -> each as a single put                                          +-> sync packs/ -> all acknowledged
//!   those that are there already: verified, their files synced ---------------/
//! ```
//!
//! 10,000 of 4 KiB cost one file and two syncs. Each artifact is visible whole or not at all; when a batch fails, none or
//! some of it may be there.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::digest::{Digest, DigestHash};
use crate::error::{DiskError, PutError};
use crate::look::{LOOKS_MAX, Sight, Sound, Trust};
use crate::pack::{self, Head, Item, PACK_BYTES_MAX, PACK_ITEMS_MAX, PACKED_BYTES_MAX, RECORD_HEAD_BYTES};
use crate::packs::PACKED_MAX;
use crate::pin::{Locked, Pin};
use crate::put::Stored;
use crate::store::Store;
use crate::temporary::{Temporary, fresh_name};

/// Fewer small ones than this get files of their own.
const PACK_FROM: usize = 2;
/// Small pieces are gathered to this size before they are written.
const GATHER_BYTES: usize = 1 << 20;

/// A pack that is linked, and durable once its folder is synced.
pub(crate) struct Linked {
    pub(crate) name: String,
    pub(crate) items: Vec<Item>,
    pub(crate) locked: Arc<Locked>,
}

impl Store {
    /// Stores many artifacts. When this returns, all are durable and visible; those of at most
    /// [`PACKED_BYTES_MAX`] bytes share a file. The answer has one entry per item, in order.
    ///
    /// LIMIT: each larger one holds a descriptor as long as its entry lives (see [`Stored`]), so that a process with the
    /// usual 1,024 can put some hundred of those in one batch.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// use artifact_store::{Store, StoreOptions};
    ///
    /// let store = Store::open(folder.path(), StoreOptions::default())?;
    /// let stored = store.put_batch(&["one", "two", "one"])?;
    /// assert_eq!(stored[0].digest, stored[2].digest);
    /// assert_eq!(store.get(&stored[1].digest)?.as_bytes(), b"two");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`put_bytes`](Self::put_bytes); nothing is acknowledged then, and what is there of the batch is whole. Put
    /// the batch again: what is there is not written twice.
    pub fn put_batch(&self, items: &[impl AsRef<[u8]>]) -> Result<Vec<Stored>, PutError> {
        self.root.check_sound()?;
        self.load_packs()?;
        let mut batch = Batch::default();
        let digests: Vec<_> = items.iter().map(|item| Digest::of(item.as_ref())).collect();
        for (digest, item) in digests.iter().zip(items) {
            if !batch.stored.contains_key(digest) {
                self.sort_in(&mut batch, *digest, item.as_ref())?;
            }
        }
        self.put_small(&mut batch)?;
        let Batch { stored, .. } = batch;
        let answer = digests.iter().filter_map(|digest| stored.get(digest).cloned().flatten());
        Ok(answer.collect())
    }

    /// Decides where an item goes, and acknowledges it if it is there.
    fn sort_in<'a>(&self, batch: &mut Batch<'a>, digest: Digest, bytes: &'a [u8]) -> Result<(), PutError> {
        let mut stored = None;
        if bytes.len() > PACKED_BYTES_MAX {
            stored = Some(self.put_bytes(bytes)?);
        } else if let Sight::Sound(_) = self.look_file(&digest, Trust::Memory)? {
            stored = self.acknowledge(&digest)?;
        } else if self.packs.has(&digest) {
            stored = self.acknowledge_packed(batch, &digest)?;
        }
        if stored.is_none() {
            batch.fresh.push((digest, bytes));
        }
        batch.stored.insert(digest, stored);
        Ok(())
    }

    /// As for a single one, except that each pack is synced once.
    fn acknowledge_packed(&self, batch: &mut Batch<'_>, digest: &Digest) -> Result<Option<Stored>, PutError> {
        let (Sight::Sound(sound), Some(pin)) = self.look_pinned(digest)? else { return Ok(None) };
        let Sound::Packed { place, .. } = &sound else {
            return self.acknowledge_present(*digest, &sound, pin).map(Some);
        };
        // One descriptor for all of a pack, too.
        if let Some(pin) = batch.synced.get(&place.pack) {
            let pin = pin.clone();
            return Ok(Some(Stored { digest: *digest, bytes: sound.bytes(), was_present: true, pin }));
        }
        let stored = self.acknowledge_present(*digest, &sound, pin)?;
        batch.synced.insert(Arc::clone(&place.pack), stored.pin.clone());
        Ok(Some(stored))
    }

    fn put_small(&self, batch: &mut Batch<'_>) -> Result<(), PutError> {
        let fresh = std::mem::take(&mut batch.fresh);
        if fresh.len() < PACK_FROM || self.packs.count() + fresh.len() > PACKED_MAX {
            for (digest, bytes) in fresh {
                batch.stored.insert(digest, Some(self.put_bytes(bytes)?));
            }
            return Ok(());
        }
        let mut linked = Vec::new();
        let mut left = fresh.as_slice();
        while !left.is_empty() {
            let (part, rest) = left.split_at(fitting(left));
            linked.push(self.write_pack(part)?);
            left = rest;
        }
        self.root.sync_folder(&self.root.packs)?;
        self.root.check_sound()?;
        for Linked { name, items, locked } in linked {
            self.packs.add(&name, &items);
            let pin = Pin::of(locked);
            for Item { digest, bytes, .. } in items {
                let stored = Stored { digest, bytes: u64::from(bytes), was_present: false, pin: pin.clone() };
                batch.stored.insert(digest, Some(stored));
            }
        }
        Ok(())
    }

    /// Writes a pack, syncs it and links it. Its folder is still to be synced.
    pub(crate) fn write_pack(&self, items: &[(Digest, &[u8])]) -> Result<Linked, DiskError> {
        let sizes: Vec<_> = items.iter().map(|(digest, bytes)| (*digest, small(bytes))).collect();
        let head = pack::write(&sizes);
        let needed = pack::read_head(&head).map(Head::file_bytes);
        let parsed = pack::items(&head).expect("INVARIANT: what was written is what is read");
        let mut temporary = Temporary::create(&self.root)?;
        let mut flushed_to = 0;
        let mut gathered = head;
        for ((digest, bytes), (_, size)) in items.iter().zip(&sizes) {
            if gathered.len() + RECORD_HEAD_BYTES + bytes.len() > GATHER_BYTES {
                temporary.append(&gathered, needed)?;
                temporary.begin_flush(&mut flushed_to);
                gathered.clear();
            }
            gathered.extend_from_slice(&pack::write_record_head(digest, *size));
            gathered.extend_from_slice(bytes);
        }
        temporary.append(&gathered, needed)?;
        temporary.sync()?;
        // What was begun before a sync failed ends here.
        self.root.check_sound()?;
        for _ in 0..LOOKS_MAX {
            let name = fresh_name();
            match temporary.link(&self.root.packs, &name) {
                Ok(()) => return Ok(Linked { name, items: parsed, locked: Arc::clone(temporary.locked()) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let path = self.root.packs.path().join(name);
                    let needed = temporary.bytes();
                    return Err(DiskError::of_growth("link", &path, &self.root.folder, needed, error));
                }
            }
        }
        Err(DiskError::io("link", self.root.packs.path(), io::ErrorKind::AlreadyExists.into()))
    }
}

#[derive(Default)]
struct Batch<'a> {
    /// Each artifact of the batch; `None` while it is to be packed.
    stored: HashMap<Digest, Option<Stored>, DigestHash>,
    fresh: Vec<(Digest, &'a [u8])>,
    /// Packs that hold what is there already, durable by now.
    synced: HashMap<Arc<str>, Pin>,
}

fn small(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("INVARIANT: what is packed has at most 64 KiB")
}

/// How many of these fit into one pack.
fn fitting(items: &[(Digest, &[u8])]) -> usize {
    let mut bytes = 0;
    let fits = |(_, item): &&(Digest, &[u8])| {
        bytes += item.len() as u64;
        bytes <= PACK_BYTES_MAX
    };
    items.iter().take(PACK_ITEMS_MAX).take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_filled_up_to_its_limits_and_no_further() {
        let digest = Digest::of(b"");
        let largest = vec![0_u8; PACKED_BYTES_MAX];
        assert_eq!(fitting(&vec![(digest, largest.as_slice()); 2000]), 1024);
        assert_eq!(fitting(&vec![(digest, b"".as_slice()); PACK_ITEMS_MAX + 1]), PACK_ITEMS_MAX);
        assert_eq!(fitting(&[(digest, b"x".as_slice())]), 1);
    }
}
