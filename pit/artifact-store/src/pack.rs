//! What a pack looks like: many small artifacts in one file, which is written once and never changed.
//!
//! ```text
//!   offset  bytes
//!   0       16        "symphony pack 2\n"
//!   16      8         artifacts, little-endian
//!   24      8         bytes of all records together
//!   32      32        BLAKE3 of the 32 bytes before and of the index
//!   64      36 each   index: digest (32), length (4), in the order of the records
//!   ...               the records, back to back, each:
//!             8       mark
//!             32      digest
//!             4       length
//!             4       check: the first bytes of the BLAKE3 of the 44 before
//!             length  the bytes
//! ```
//!
//! The index is what is read; what records say of themselves is for `salvage`, when the index is damaged. The first layout
//! ("symphony pack 1\n") has bare bytes in the place of records, and is read all the same.
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
/// LIMIT: bytes of the file of a pack.
pub(crate) const PACK_FILE_BYTES_MAX: usize =
    HEAD_BYTES + PACK_ITEMS_MAX * (ENTRY_BYTES + RECORD_HEAD_BYTES) + (64 << 20);

pub(crate) const HEAD_BYTES: usize = 64;
const MAGIC: &[u8; 16] = b"symphony pack 2\n";
const MAGIC_OF_BARE_BYTES: &[u8; 16] = b"symphony pack 1\n";
const ENTRY_BYTES: usize = DIGEST_BYTES + 4;

/// Before the bytes of each artifact.
pub(crate) const RECORD_HEAD_BYTES: usize = MARK.len() + DIGEST_BYTES + 4 + 4;
/// Bytes that are rare in what is stored, so that a search for it seldom stops.
pub(crate) const MARK: &[u8; 8] = b"\x8fpacked\xf8";

/// An artifact in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) digest: Digest,
    /// Of its bytes, from the beginning of the file.
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// What the first 64 bytes say; to be believed only after [`items`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    count: usize,
    data_bytes: u64,
    /// Before the bytes of each artifact.
    record_head_bytes: usize,
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

/// Where the records begin in a pack of so many artifacts.
pub(crate) fn records_begin(count: usize) -> u64 {
    (HEAD_BYTES + count * ENTRY_BYTES) as u64
}

/// Head and index of a pack of these artifacts.
pub(crate) fn write(items: &[(Digest, u32)]) -> Vec<u8> {
    let of_item = |(_, bytes): &(Digest, u32)| RECORD_HEAD_BYTES as u64 + u64::from(*bytes);
    let data_bytes: u64 = items.iter().map(of_item).sum();
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

/// What stands before the bytes of an artifact.
pub(crate) fn write_record_head(digest: &Digest, bytes: u32) -> [u8; RECORD_HEAD_BYTES] {
    let mut head = [0_u8; RECORD_HEAD_BYTES];
    let (vouched_for, check) = head.split_at_mut(RECORD_HEAD_BYTES - 4);
    vouched_for[..8].copy_from_slice(MARK);
    vouched_for[8..40].copy_from_slice(digest.as_bytes());
    vouched_for[40..].copy_from_slice(&bytes.to_le_bytes());
    check.copy_from_slice(&Digest::of(vouched_for).as_bytes()[..4]);
    head
}

/// The artifact whose record begins here, if what the record says of itself is right.
pub(crate) fn read_record_head(bytes: &[u8]) -> Option<(Digest, u32)> {
    let head = bytes.get(..RECORD_HEAD_BYTES)?;
    let (digest, length) = entry(head.get(8..44)?)?;
    (length as usize <= PACKED_BYTES_MAX && write_record_head(&digest, length) == head)
        .then_some((digest, length))
}

/// How much there is to be read, by the first bytes of a file.
pub(crate) fn read_head(head: &[u8]) -> Option<Head> {
    let head = head.get(..HEAD_BYTES)?;
    let record_head_bytes = match head.first_chunk()? {
        MAGIC => RECORD_HEAD_BYTES,
        MAGIC_OF_BARE_BYTES => 0,
        _ => return None,
    };
    let count = usize::try_from(number(&head[16..24])?).ok()?;
    let data_bytes = number(&head[24..32])?;
    let is_within =
        count <= PACK_ITEMS_MAX && data_bytes <= PACK_BYTES_MAX + (PACK_ITEMS_MAX * RECORD_HEAD_BYTES) as u64;
    is_within.then_some(Head { count, data_bytes, record_head_bytes })
}

/// The artifacts of a pack, by its head and index as they stand in the file.
pub(crate) fn items(whole: &[u8]) -> Option<Vec<Item>> {
    let head = read_head(whole)?;
    if whole.len() != head.whole_bytes() || check(whole).as_bytes() != &whole[32..HEAD_BYTES] {
        return None;
    }
    let items = items_unchecked(whole, head);
    let end = items.last().map_or(whole.len() as u64, |last| last.offset + u64::from(last.bytes));
    let is_consistent =
        end == head.file_bytes() && items.iter().all(|item| item.bytes as usize <= PACKED_BYTES_MAX);
    is_consistent.then_some(items)
}

/// The artifacts of a pack, by its whole file.
pub(crate) fn items_of_file(whole: &[u8]) -> Option<Vec<Item>> {
    let head = read_head(whole).filter(|head| head.file_bytes() == whole.len() as u64)?;
    items(whole.get(..head.whole_bytes())?)
}

/// What an index says that may be damaged.
pub(crate) fn items_unchecked(whole: &[u8], head: Head) -> Vec<Item> {
    let mut offset = head.whole_bytes() as u64;
    let mut items = Vec::with_capacity(head.count);
    let entries = whole.get(HEAD_BYTES..).unwrap_or_default().chunks_exact(ENTRY_BYTES).take(head.count);
    for (digest, bytes) in entries.filter_map(entry) {
        offset += head.record_head_bytes as u64;
        items.push(Item { digest, offset, bytes });
        offset += u64::from(bytes);
    }
    items
}

fn entry(entry: &[u8]) -> Option<(Digest, u32)> {
    let (digest, bytes) = entry.split_at_checked(DIGEST_BYTES)?;
    Some((Digest::from_bytes(digest.try_into().ok()?), u32::from_le_bytes(bytes.try_into().ok()?)))
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
    fn the_records_lie_back_to_back_behind_the_index() {
        let whole = sample();
        let start = whole.len() as u64;
        let offsets = |whole: &[u8]| -> Vec<_> {
            items(whole).unwrap().iter().map(|item| (item.offset, item.bytes)).collect()
        };
        assert_eq!(offsets(&whole), [(start + 48, 1), (start + 97, 0), (start + 145, 65_536)]);
        assert_eq!(read_head(&whole).unwrap().file_bytes(), start + 3 * 48 + 65_537);
        // The first layout.
        let mut bare = whole;
        bare[14] = b'1';
        bare[24..32].copy_from_slice(&65_537_u64.to_le_bytes());
        let right = check(&bare);
        bare[32..HEAD_BYTES].copy_from_slice(right.as_bytes());
        assert_eq!(offsets(&bare), [(start, 1), (start + 1, 0), (start + 1, 65_536)]);
        assert_eq!(read_head(&bare).unwrap().file_bytes(), start + 65_537);
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
        assert!(read_head(&write(&vec![(Digest::of(b""), 65_536); 1050])).is_none());
    }

    #[test]
    fn a_record_with_any_bit_flipped_is_refused() {
        let whole = write_record_head(&Digest::of(b"x"), 1);
        assert_eq!(read_record_head(&whole), Some((Digest::of(b"x"), 1)));
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_record_head(&flipped), None, "bit {bit}");
        }
        assert_eq!(read_record_head(&whole[..47]), None);
        assert_eq!(read_record_head(&write_record_head(&Digest::of(b"x"), 65_537)), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), has_magic: bool) {
            let bytes = if has_magic { [MAGIC.as_slice(), &bytes].concat() } else { bytes };
            prop_assert_eq!(items(&bytes), None);
        }
    }
}
