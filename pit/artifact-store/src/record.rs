//! The text of a name's record: four lines, the last of which vouches for the others.
//!
//! ```text
//!   name run-7/report.md
//!   digest 64 hexadecimal digits
//!   version 3
//!   check the BLAKE3 digest of the lines above
//! ```
//!
//! Pure: bytes in, bytes out. The reader never panics and takes only what the writer would have written.

use crate::digest::Digest;
use crate::names::{NAME_BYTES_MAX, Named};

/// LIMIT: bytes of a record: the name, two digests, a number, and the words around them.
pub(crate) const RECORD_BYTES_MAX: usize = NAME_BYTES_MAX + 2 * 64 + 20 + 32;

pub(crate) fn write(named: &Named) -> String {
    let Named { name, digest, version } = named;
    let body = format!("name {name}\ndigest {digest}\nversion {version}\n");
    let check = Digest::of(body.as_bytes());
    format!("{body}check {check}\n")
}

pub(crate) fn read(bytes: &[u8]) -> Option<Named> {
    if bytes.len() > RECORD_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let name = lines.next()?.strip_prefix("name ")?.to_owned();
    let digest = lines.next()?.strip_prefix("digest ")?.parse().ok()?;
    let version = lines.next()?.strip_prefix("version ")?.parse().ok()?;
    let named = Named { name, digest, version };
    (write(&named) == text).then_some(named)
}

/// The record of the highest version of a name that was removed: two lines of the same kind.
pub(crate) fn write_floor(version: u64) -> String {
    let body = format!("floor {version}\n");
    let check = Digest::of(body.as_bytes());
    format!("{body}check {check}\n")
}

pub(crate) fn read_floor(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let version = text.split('\n').next()?.strip_prefix("floor ")?.parse().ok()?;
    (write_floor(version) == text).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn longest() -> Named {
        Named { name: "n".repeat(NAME_BYTES_MAX), digest: Digest::of(b""), version: u64::MAX }
    }

    #[test]
    fn the_longest_record_fits_its_limit() {
        let text = write(&longest());
        assert!(text.len() <= RECORD_BYTES_MAX, "{} bytes", text.len());
        assert_eq!(read(text.as_bytes()), Some(longest()));
    }

    #[test]
    fn a_record_with_any_bit_flipped_or_byte_missing_is_refused() {
        let whole =
            write(&Named { name: "a/b".to_owned(), digest: Digest::of(b"x"), version: 7 }).into_bytes();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped), None, "bit {bit}");
        }
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn a_floor_survives_and_one_with_any_bit_flipped_or_byte_missing_is_refused() {
        let whole = write_floor(u64::MAX).into_bytes();
        assert_eq!(read_floor(&whole), Some(u64::MAX));
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_floor(&flipped), None, "bit {bit}");
        }
        for length in 0..whole.len() {
            assert_eq!(read_floor(&whole[..length]), None, "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(read(&bytes), None);
        }
    }
}
