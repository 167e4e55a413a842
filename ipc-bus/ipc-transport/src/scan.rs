//! Looks over MessagePack before anything decodes it: one value, nothing after it, nested no deeper than
//! allowed.
//!
//! The decoder recurses, and its own depth check does not see every way to nest; a peer could make it use up
//! the stack, which no `catch_unwind` survives. This scan is a loop over the bytes with a counter per open
//! container. It must not know what a value means.

use ipc_protocol::limits::NESTING_MAX;

/// Why bytes are not one MessagePack value that may be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The value goes on after the last byte.
    #[error("the value is cut off after {at} bytes")]
    CutOff {
        /// How many bytes there are.
        at: usize,
    },
    /// There are bytes after the value.
    #[error("{extra} bytes follow the value")]
    Extra {
        /// How many.
        extra: usize,
    },
    /// Containers within containers.
    #[error("the value nests deeper than {NESTING_MAX} at byte {at}")]
    TooDeep {
        /// Where the one container too many begins.
        at: usize,
    },
    /// The byte 0xc1, which MessagePack never uses.
    #[error("byte {at} is 0xc1, which is not MessagePack")]
    Reserved {
        /// Where it stands.
        at: usize,
    },
}

/// Checks that `bytes` are exactly one MessagePack value, nested at most [`NESTING_MAX`] containers deep.
///
/// Takes time proportional to the number of items, which cannot be more than the bytes: a container that
/// announces more items than bytes are left is refused at once.
///
/// # Errors
///
/// [`ScanError`]: do not decode the bytes.
///
/// ```
/// use ipc_transport::scan::{ScanError, scan};
///
/// assert_eq!(scan(b"\x93\x01\x02\x03"), Ok(()));
/// assert_eq!(scan(b"\x93\x01\x02"), Err(ScanError::CutOff { at: 3 }));
/// ```
pub fn scan(bytes: &[u8]) -> Result<(), ScanError> {
    // Items still to come in each open container, the innermost last.
    let mut open = [0_u64; NESTING_MAX];
    let mut depth = 0;
    let mut at = 0;
    loop {
        let item = item_at(bytes, at)?;
        let cut_off = ScanError::CutOff { at: bytes.len() };
        let next = at.checked_add(item.bytes).filter(|&next| next <= bytes.len()).ok_or(cut_off)?;
        if item.children > (bytes.len() - next) as u64 {
            return Err(cut_off);
        }
        if item.is_container && depth == NESTING_MAX {
            return Err(ScanError::TooDeep { at });
        }
        at = next;
        if item.children > 0 {
            open[depth] = item.children;
            depth += 1;
            continue;
        }
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return if at == bytes.len() {
                Ok(())
            } else {
                Err(ScanError::Extra { extra: bytes.len() - at })
            };
        }
    }
}

/// How many bytes the item at `at` has, without the items that it contains: those follow.
pub(crate) fn item_length(bytes: &[u8], at: usize) -> Result<usize, ScanError> {
    Ok(item_at(bytes, at)?.bytes)
}

struct Item {
    /// Of the item itself: marker, length and content, without its children.
    bytes: usize,
    children: u64,
    is_container: bool,
}

fn item_at(bytes: &[u8], at: usize) -> Result<Item, ScanError> {
    let cut_off = ScanError::CutOff { at: bytes.len() };
    let marker = *bytes.get(at).ok_or(cut_off)?;
    // The big-endian number of `size` bytes that follows the marker.
    let number = |size: usize| -> Result<u64, ScanError> {
        let digits = bytes.get(at + 1..at + 1 + size).ok_or(cut_off)?;
        Ok(digits.iter().fold(0, |number, &digit| (number << 8) | u64::from(digit)))
    };
    let plain = |bytes| Ok(Item { bytes, children: 0, is_container: false });
    let counted = |size: usize, content_before: usize| {
        let content = usize::try_from(number(size)?).map_err(|_| cut_off)?;
        plain((1 + size + content_before).checked_add(content).ok_or(cut_off)?)
    };
    let container = |bytes, children| Ok(Item { bytes, children, is_container: true });
    match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => plain(1),
        0x80..=0x8f => container(1, 2 * u64::from(marker & 0x0f)),
        0x90..=0x9f => container(1, u64::from(marker & 0x0f)),
        0xa0..=0xbf => plain(1 + usize::from(marker & 0x1f)),
        0xc1 => Err(ScanError::Reserved { at }),
        0xc4 | 0xd9 => counted(1, 0),
        0xc5 | 0xda => counted(2, 0),
        0xc6 | 0xdb => counted(4, 0),
        0xc7 => counted(1, 1),
        0xc8 => counted(2, 1),
        0xc9 => counted(4, 1),
        0xca | 0xce | 0xd2 => plain(5),
        0xcb | 0xcf | 0xd3 => plain(9),
        0xcc | 0xd0 => plain(2),
        0xcd | 0xd1 => plain(3),
        0xd4..=0xd8 => plain(2 + (1 << (marker - 0xd4))),
        0xdc => container(3, number(2)?),
        0xdd => container(5, number(4)?),
        0xde => container(3, 2 * number(2)?),
        0xdf => container(5, 2 * number(4)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_each_marker_is_accepted() {
        let values: &[&[u8]] = &[
            b"\x00",
            b"\x7f",
            b"\xff",
            b"\xc0",
            b"\xc2",
            b"\xc3",
            b"\x80",
            b"\x90",
            b"\xa0",
            b"\xa3abc",
            b"\xc4\x01a",
            b"\xc5\x00\x01a",
            b"\xc6\x00\x00\x00\x01a",
            b"\xd9\x01a",
            b"\xda\x00\x01a",
            b"\xdb\x00\x00\x00\x01a",
            b"\xc7\x01ta",
            b"\xc8\x00\x01ta",
            b"\xc9\x00\x00\x00\x01ta",
            b"\xca1234",
            b"\xcb12345678",
            b"\xcc1",
            b"\xcd12",
            b"\xce1234",
            b"\xcf12345678",
            b"\xd01",
            b"\xd112",
            b"\xd21234",
            b"\xd312345678",
            b"\xd4t1",
            b"\xd5t12",
            b"\xd6t1234",
            b"\xd7t12345678",
            b"\xd8t1234567812345678",
            b"\xdc\x00\x01\x00",
            b"\xdd\x00\x00\x00\x01\x00",
            b"\xde\x00\x01\x00\x00",
            b"\xdf\x00\x00\x00\x01\x00\x00",
            b"\x82\xa1a\x92\x01\x80\xa1b\x90",
        ];
        for value in values {
            assert_eq!(scan(value), Ok(()), "{value:02x?}");
            for length in 0..value.len() {
                let cut = &value[..length];
                assert_eq!(scan(cut), Err(ScanError::CutOff { at: length }), "{cut:02x?}");
            }
            let longer = [value, &b"\xc0"[..]].concat();
            assert_eq!(scan(&longer), Err(ScanError::Extra { extra: 1 }), "{longer:02x?}");
        }
    }

    #[test]
    fn nesting_is_allowed_up_to_the_limit_and_no_further() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert_eq!(scan(&nested(NESTING_MAX)), Ok(()));
        assert_eq!(scan(&nested(NESTING_MAX + 1)), Err(ScanError::TooDeep { at: NESTING_MAX }));
        assert_eq!(scan(&nested(2_000_000)), Err(ScanError::TooDeep { at: NESTING_MAX }));
        // A chain of enum variants, as serde writes them: a map of one pair in a map of one pair.
        let chain = [b"\x81\xa1a".repeat(2_000_000), vec![0xc0]].concat();
        assert_eq!(scan(&chain), Err(ScanError::TooDeep { at: 3 * NESTING_MAX }));
        // An empty container too many counts as one.
        let mut empty = vec![0x91; NESTING_MAX];
        empty.push(0x90);
        assert_eq!(scan(&empty), Err(ScanError::TooDeep { at: NESTING_MAX }));
    }

    #[test]
    fn announced_items_and_bytes_that_cannot_be_there_are_refused() {
        for bytes in
            [&b"\xdd\xff\xff\xff\xff\xc0"[..], b"\xdf\xff\xff\xff\xff\xc0", b"\xc6\xff\xff\xff\xff\xc0"]
        {
            assert_eq!(scan(bytes), Err(ScanError::CutOff { at: 6 }), "{bytes:02x?}");
        }
        assert_eq!(scan(b"\xc1"), Err(ScanError::Reserved { at: 0 }));
        assert_eq!(scan(b""), Err(ScanError::CutOff { at: 0 }));
    }
}
