//! The address of an artifact: the BLAKE3 digest of its bytes.
//!
//! Knows nothing of files. It has one spelling (64 lower-case hexadecimal digits), so that two texts are equal
//! exactly when the artifacts are.

use std::fmt;
use std::hash::BuildHasherDefault;
use std::str::FromStr;

/// Length of a digest in bytes.
pub const DIGEST_BYTES: usize = 32;

/// The two hexadecimal digits of each byte.
const HEX_PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 0x0f]];
        byte += 1;
    }
    pairs
};

/// The BLAKE3 digest of an artifact's bytes, which is also its address.
///
/// ```
/// use artifact_store::Digest;
///
/// let digest = Digest::of(b"hello");
/// assert_eq!(digest.to_string().parse(), Ok(digest));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// A digest that was computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }

    /// The one spelling of it.
    pub(crate) fn hex(&self) -> [u8; DIGEST_BYTES * 2] {
        let mut text = [0_u8; DIGEST_BYTES * 2];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = HEX_PAIRS[usize::from(byte)];
        }
        text
    }

    /// The first byte: the number of the folder below `objects/` that holds the artifact.
    pub(crate) fn shard(&self) -> u8 {
        self.0[0]
    }
}

/// For tables by digest: a digest is random already, so eight bytes of it are its hash.
pub(crate) type DigestHash = BuildHasherDefault<FirstBytes>;

#[derive(Debug, Default)]
pub(crate) struct FirstBytes(u64);

impl std::hash::Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length that the standard library hashes before an array says nothing here.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Hashes piece by piece what is written or read anyway, so that no byte is visited twice.
#[derive(Debug, Default)]
pub(crate) struct Hasher(blake3::Hasher);

impl Hasher {
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.hex()).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 lower-case hexadecimal digits, and this text of {length} bytes is none")]
pub struct ParseDigestError {
    /// Bytes of the text that was given.
    pub length: usize,
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = ParseDigestError { length: text.len() };
        if text.len() != DIGEST_BYTES * 2 {
            return Err(wrong);
        }
        let mut bytes = [0_u8; DIGEST_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let high = nibble(pair[0]).ok_or(wrong)?;
            let low = nibble(pair[1]).ok_or(wrong)?;
            *byte = (high << 4) | low;
        }
        Ok(Self(bytes))
    }
}

/// Upper case is refused on purpose: a digest has one spelling.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_digest_is_the_published_blake3_of_the_bytes() {
        // The test vector of the BLAKE3 specification for the empty input.
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(Digest::of(b"").to_string(), empty);
    }

    #[test]
    fn hashing_in_pieces_equals_hashing_at_once() {
        let mut hasher = Hasher::default();
        for piece in [&b"he"[..], b"", b"llo"] {
            hasher.add(piece);
        }
        assert_eq!(hasher.digest(), Digest::of(b"hello"));
    }

    #[test]
    fn texts_that_are_no_digest_are_refused() {
        let good = Digest::of(b"x").to_string();
        let wrong = [
            String::new(),
            good[1..].to_owned(),
            format!("{good}0"),
            good.to_uppercase(),
            format!("g{}", &good[1..]),
            format!("\u{e9}{}", &good[2..]),
        ];
        for text in wrong {
            assert_eq!(text.parse::<Digest>(), Err(ParseDigestError { length: text.len() }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_digest_survives_its_text(bytes in any::<[u8; DIGEST_BYTES]>()) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }
    }
}
