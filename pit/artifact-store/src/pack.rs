//! What a pack looks like: many small artifacts in one file, which is written once and never changed.
//!
//! ```text
//!   offset  bytes
//!   0       16        "symphony pack 1\n"
//!   16      8         artifacts, little-endian
//!   24      8         bytes of all artifacts together
//!   32      32        BLAKE3 of the 32 bytes before and of the index
//!   64      36 each   index: digest (32), length (4), in the order of the bytes
//!   ...               the bytes, back to back
//! ```
//!
//! Pure: bytes in, bytes out. The reader never panics and believes only a head whose check is right; the bytes behind it
//! are vouched for by their own digests.

use crate::digest::{DIGEST_BYTES, Digest, Hasher};

/// LIMIT: bytes of an artifact that is packed; a larger one gets a file of its own.
pub const PACKED_BYTES_MAX: usize = 64 * 1024;
/// LIMIT: artifacts of one pack.
pub(crate) const PACK_ITEMS_MAX: usize = 32_768;
/// LIMIT: bytes of all artifacts of one pack, which bounds how long rewriting it takes.
pub(crate) const PACK_BYTES_MAX: u64 = 64 << 20;

pub(crate) const HEAD_BYTES: usize = 64;
const MAGIC: &[u8; 16] = b"symphony pack 1\n";
const ENTRY_BYTES: usize = DIGEST_BYTES + 4;

/// An artifact in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) digest: Digest,
    /// From the beginning of the file.
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// What the first 64 bytes say; to be believed only after [`items`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    count: usize,
    data_bytes: u64,
}

impl Head {
    /// Head and index together.
    pub(crate) fn whole_bytes(self) -> usize {
        HEAD_BYTES + self.count * ENTRY_BYTES
    }

    /// The whole file.
    pub(crate) fn file_bytes(self) -> u64 {
        self.whole_bytes() as u64 + self.data_bytes
    }
}

/// Head and index of a pack of these artifacts.
pub(crate) fn write(items: &[(Digest, u32)]) -> Vec<u8> {
    let data_bytes: u64 = items.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
    let mut head = Vec::with_capacity(HEAD_BYTES + items.len() * ENTRY_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&(items.len() as u64).to_le_bytes());
    head.extend_from_slice(&data_bytes.to_le_bytes());
    head.extend_from_slice(&[0; DIGEST_BYTES]);
    for (digest, bytes) in items {
        head.extend_from_slice(digest.as_bytes());
        head.extend_from_slice(&bytes.to_le_bytes());
    }
    let check = check(&head);
    head[32..HEAD_BYTES].copy_from_slice(check.as_bytes());
    head
}

/// How much there is to be read, by the first bytes of a file.
pub(crate) fn read_head(head: &[u8]) -> Option<Head> {
    let head = head.get(..HEAD_BYTES)?.strip_prefix(MAGIC)?;
    let count = usize::try_from(number(&head[..8])?).ok()?;
    let data_bytes = number(&head[8..16])?;
    (count <= PACK_ITEMS_MAX && data_bytes <= PACK_BYTES_MAX).then_some(Head { count, data_bytes })
}

/// The artifacts of a pack, by its head and index as they stand in the file.
pub(crate) fn items(whole: &[u8]) -> Option<Vec<Item>> {
    let head = read_head(whole)?;
    if whole.len() != head.whole_bytes() || check(whole).as_bytes() != &whole[32..HEAD_BYTES] {
        return None;
    }
    let mut offset = whole.len() as u64;
    let mut items = Vec::with_capacity(head.count);
    for entry in whole[HEAD_BYTES..].chunks_exact(ENTRY_BYTES) {
        let (digest, bytes) = entry.split_at(DIGEST_BYTES);
        let bytes = u32::from_le_bytes(bytes.try_into().ok()?);
        items.push(Item { digest: Digest::from_bytes(digest.try_into().ok()?), offset, bytes });
        offset += u64::from(bytes);
    }
    let is_consistent =
        offset == head.file_bytes() && items.iter().all(|item| item.bytes as usize <= PACKED_BYTES_MAX);
    is_consistent.then_some(items)
}

fn check(whole: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.add(&whole[..32]);
    hasher.add(&whole[HEAD_BYTES..]);
    hasher.digest()
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        write(&[(Digest::of(b"a"), 1), (Digest::of(b""), 0), (Digest::of(b"long"), 65_536)])
    }

    #[test]
    fn the_artifacts_lie_back_to_back_behind_the_index() {
        let whole = sample();
        let start = whole.len() as u64;
        let offsets: Vec<_> = items(&whole).unwrap().iter().map(|item| (item.offset, item.bytes)).collect();
        assert_eq!(offsets, [(start, 1), (start + 1, 0), (start + 1, 65_536)]);
        assert_eq!(read_head(&whole).unwrap().file_bytes(), start + 65_537);
        assert_eq!(items(&write(&[])), Some(Vec::new()));
    }

    #[test]
    fn a_head_with_any_bit_flipped_or_byte_missing_is_refused() {
        let whole = sample();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(items(&flipped), None, "bit {bit}");
        }
        for length in 0..whole.len() {
            assert_eq!(items(&whole[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn a_head_that_promises_more_than_a_pack_may_hold_is_refused() {
        assert!(items(&write(&[(Digest::of(b""), 65_537)])).is_none());
        let many = vec![(Digest::of(b""), 0); PACK_ITEMS_MAX + 1];
        assert!(read_head(&write(&many)).is_none());
        assert!(read_head(&write(&vec![(Digest::of(b""), 65_536); 1025])).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), has_magic: bool) {
            let bytes = if has_magic { [MAGIC.as_slice(), &bytes].concat() } else { bytes };
            prop_assert_eq!(items(&bytes), None);
        }
    }
}
