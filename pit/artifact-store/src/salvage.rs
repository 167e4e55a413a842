//! What can be had from a pack whose head or index is damaged.
//!
//! ```text
//!   index right       all digests are known: each artifact is sound, or lost by name      (only its place is wrong)
//!   index damaged     records are searched for by their mark; what the index says is tried too
//!     record right, digest of the bytes right --> sound
//!     record right, bytes damaged or cut off  --> lost by name
//!     bytes that belong to no record          --> something is lost that nobody can name
//! ```
//!
//! Pure: bytes in, findings out. Nothing is believed but a digest that the bytes have, so that the worst that garbage can
//! do is to go unrecognised.

use std::collections::HashSet;

use crate::digest::{Digest, DigestHash};
use crate::pack::{
    self, Item, MARK, PACK_BYTES_MAX, PACK_ITEMS_MAX, PACKED_BYTES_MAX, RECORD_HEAD_BYTES, items_unchecked,
    read_head, read_record_head,
};

/// What is left of a pack.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Salvage {
    /// Each holds the bytes of its digest.
    pub(crate) sound: Vec<Item>,
    /// Known by their digests; the bytes there are damaged, or fewer.
    pub(crate) lost: Vec<Item>,
    /// All artifacts of the pack are in one of the two.
    pub(crate) is_accounted: bool,
}

/// Looks through the bytes of a whole file, or as many as it has.
pub(crate) fn salvage(whole: &[u8]) -> Salvage {
    let head = read_head(whole);
    let index = head.and_then(|head| pack::items(whole.get(..head.whole_bytes())?));
    if let Some(index) = index {
        let (sound, lost) = index.into_iter().partition(|item| is_sound(whole, item));
        return Salvage { sound, lost, is_accounted: true };
    }
    let mut found =
        Found { whole, records: Vec::new(), sound: Vec::new(), had: HashSet::default(), bytes: 0 };
    found.search();
    for item in head.map(|head| items_unchecked(whole, head)).unwrap_or_default() {
        found.take(item);
    }
    let is_accounted = found.is_all();
    let Found { records, sound, had, .. } = found;
    let lost = records.into_iter().filter(|item| !had.contains(&item.digest)).collect();
    Salvage { sound, lost, is_accounted }
}

fn is_sound(whole: &[u8], item: &Item) -> bool {
    let bytes = bytes_of(whole, item);
    bytes.len() == item.bytes as usize && Digest::of(bytes) == item.digest
}

/// The bytes that are there of an artifact, perhaps none.
pub(crate) fn bytes_of<'a>(whole: &'a [u8], item: &Item) -> &'a [u8] {
    let begin = usize::try_from(item.offset).map_or(whole.len(), |begin| begin.min(whole.len()));
    let end = begin.saturating_add(item.bytes as usize).min(whole.len());
    &whole[begin..end]
}

struct Found<'a> {
    whole: &'a [u8],
    /// All that say of themselves what is right, in order.
    records: Vec<Item>,
    sound: Vec<Item>,
    had: HashSet<Digest, DigestHash>,
    /// Of all records and of what was found besides.
    bytes: u64,
}

impl Found<'_> {
    /// Every record whose own check is right; what lies in the bytes of a sound one is no record.
    fn search(&mut self) {
        let mut at = 0;
        while let Some(next) = self.whole.get(at..).and_then(find_mark) {
            at += next;
            let Some((digest, bytes)) = read_record_head(&self.whole[at..]) else {
                at += 1;
                continue;
            };
            let item = Item { digest, offset: (at + RECORD_HEAD_BYTES) as u64, bytes };
            if !self.is_room(&item) {
                return;
            }
            at += RECORD_HEAD_BYTES;
            if self.take(item) {
                at += bytes as usize;
            }
            self.records.push(item);
        }
    }

    /// No more than a pack holds: what is more was not written by a store.
    fn is_room(&self, item: &Item) -> bool {
        self.records.len().max(self.sound.len()) < PACK_ITEMS_MAX
            && self.bytes + u64::from(item.bytes) <= PACK_BYTES_MAX
    }

    /// Takes an artifact if its bytes are there, and says whether they are.
    fn take(&mut self, item: Item) -> bool {
        let is_it = item.bytes as usize <= PACKED_BYTES_MAX
            && (self.had.contains(&item.digest) || self.is_room(&item))
            && is_sound(self.whole, &item);
        if is_it && self.had.insert(item.digest) {
            self.bytes += u64::from(item.bytes);
            self.sound.push(item);
        }
        is_it
    }

    /// The records lie back to back, from where an index of so many ends to the end of the file.
    fn is_all(&self) -> bool {
        let mut end = pack::records_begin(self.records.len());
        for item in &self.records {
            if item.offset != end + RECORD_HEAD_BYTES as u64 {
                return false;
            }
            end = item.offset + u64::from(item.bytes);
        }
        !self.records.is_empty() && end >= self.whole.len() as u64
    }
}

/// Where the next mark is.
fn find_mark(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == MARK[0])?;
        if bytes[at..].starts_with(MARK) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(items: &[&[u8]]) -> Vec<u8> {
        let sizes: Vec<_> =
            items.iter().map(|item| (Digest::of(item), u32::try_from(item.len()).unwrap())).collect();
        let mut whole = pack::write(&sizes);
        for ((digest, bytes), item) in sizes.iter().zip(items) {
            whole.extend_from_slice(&pack::write_record_head(digest, *bytes));
            whole.extend_from_slice(item);
        }
        whole
    }

    fn digests(items: &[Item]) -> Vec<Digest> {
        let mut digests: Vec<_> = items.iter().map(|item| item.digest).collect();
        digests.sort_unstable();
        digests
    }

    fn sorted(items: &[&[u8]]) -> Vec<Digest> {
        let mut digests: Vec<_> = items.iter().map(|item| Digest::of(item)).collect();
        digests.sort_unstable();
        digests
    }

    const ITEMS: [&[u8]; 5] = [b"first", b"2", b"third, somewhat longer than the others", b"4", b"fifth"];

    #[test]
    fn with_any_byte_before_the_records_damaged_all_artifacts_are_had() {
        let whole = pack(&ITEMS);
        let begin = usize::try_from(pack::records_begin(ITEMS.len())).unwrap();
        for at in 0..begin {
            for damage in [1, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= damage;
                let salvage = salvage(&damaged);
                assert_eq!(digests(&salvage.sound), sorted(&ITEMS), "byte {at}");
                assert_eq!((salvage.lost, salvage.is_accounted), (vec![], true), "byte {at}");
            }
        }
        // All of it at once.
        let mut damaged = whole;
        damaged[..begin].fill(0);
        let salvage = salvage(&damaged);
        assert_eq!((digests(&salvage.sound), salvage.is_accounted), (sorted(&ITEMS), true));
    }

    #[test]
    fn cut_off_anywhere_what_is_whole_is_had_and_what_is_not_is_known_by_name() {
        let whole = pack(&ITEMS);
        let begin = usize::try_from(pack::records_begin(ITEMS.len())).unwrap();
        let mut ends = vec![begin];
        for item in ITEMS {
            ends.push(ends.last().unwrap() + RECORD_HEAD_BYTES + item.len());
        }
        for length in 0..whole.len() {
            for is_head_damaged in [false, true] {
                let mut cut = whole[..length].to_vec();
                if is_head_damaged && let Some(byte) = cut.get_mut(20) {
                    *byte ^= 1;
                }
                let salvage = salvage(&cut);
                let there = ends[1..].iter().filter(|end| **end <= length).count();
                assert_eq!(digests(&salvage.sound), sorted(&ITEMS[..there]), "cut at {length}");
                let is_index_right = length >= begin && !is_head_damaged;
                if is_index_right {
                    assert_eq!(digests(&salvage.lost), sorted(&ITEMS[there..]), "cut at {length}");
                    assert!(salvage.is_accounted);
                } else {
                    // A last one that is known by its record is none too many.
                    let is_all = length >= ends[ITEMS.len() - 1] + RECORD_HEAD_BYTES;
                    assert_eq!(salvage.is_accounted, is_all, "cut at {length}");
                    // One whose record is there and its bytes not is known by its record.
                    let is_named = there < ITEMS.len() && length >= ends[there] + RECORD_HEAD_BYTES;
                    assert_eq!(salvage.lost.len(), usize::from(is_named), "cut at {length}");
                }
            }
        }
    }

    #[test]
    fn damage_in_the_middle_costs_what_it_hits_and_nothing_else() {
        let whole = pack(&ITEMS);
        let begin = usize::try_from(pack::records_begin(ITEMS.len())).unwrap();
        let record = begin + 2 * RECORD_HEAD_BYTES + ITEMS[0].len() + ITEMS[1].len();
        let others = sorted(&[ITEMS[0], ITEMS[1], ITEMS[3], ITEMS[4]]);
        for at in record..record + RECORD_HEAD_BYTES + ITEMS[2].len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            let is_in_head = at < record + RECORD_HEAD_BYTES;
            // As long as the index is right, a record's word for itself is not needed.
            let by_index = salvage(&damaged);
            let expected = if is_in_head { sorted(&ITEMS) } else { others.clone() };
            assert_eq!((digests(&by_index.sound), by_index.is_accounted), (expected, true), "byte {at}");
            // Nor if the index is damaged elsewhere; if it is not to be read, the others are had.
            damaged[0] ^= 1;
            let by_records = salvage(&damaged);
            assert_eq!(digests(&by_records.sound), others, "byte {at}");
            assert_eq!(by_records.is_accounted, !is_in_head, "byte {at}");
            if !is_in_head {
                assert_eq!(digests(&by_records.lost), [Digest::of(ITEMS[2])]);
            }
            damaged[0] ^= 1;
            damaged[40] ^= 1;
            let by_both = salvage(&damaged);
            assert_eq!(by_both.sound.len(), if is_in_head { 5 } else { 4 }, "byte {at}");
        }
    }

    #[test]
    fn a_pack_in_an_artifact_is_bytes_and_no_pack() {
        let inner = pack(&[b"inner"]);
        let mut whole = pack(&[&inner, b"outer"]);
        whole[3] ^= 1;
        let salvage = salvage(&whole);
        assert_eq!(digests(&salvage.sound), sorted(&[&inner, b"outer"]));
        assert!(salvage.is_accounted);
    }

    #[test]
    fn nothing_is_salvaged_beyond_the_limits_of_a_pack() {
        let mut many = Vec::new();
        for number in 0..PACK_ITEMS_MAX as u64 + 10 {
            many.extend_from_slice(&pack::write_record_head(&Digest::of(&number.to_le_bytes()), 8));
            many.extend_from_slice(&number.to_le_bytes());
        }
        let Salvage { sound, is_accounted, .. } = salvage(&many);
        assert_eq!((sound.len(), is_accounted), (PACK_ITEMS_MAX, false));
    }

    proptest! {
        #[test]
        fn whatever_is_done_to_a_pack_only_what_has_its_digest_is_called_sound(
            changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..40),
            cut in any::<u16>(),
        ) {
            let mut whole = pack(&ITEMS);
            for (at, byte) in changes {
                let length = whole.len();
                whole[usize::from(at) % length] = byte;
            }
            whole.truncate(usize::from(cut) % (whole.len() * 2));
            for item in salvage(&whole).sound {
                prop_assert_eq!(Digest::of(bytes_of(&whole, &item)), item.digest);
            }
        }
    }
}
