//! Names of runs: sortable by time, never given twice.
//!
//! 48 bits of milliseconds and 80 random bits in Crockford's base 32, lower case: 26 characters that
//! sort as the runs began. A run's artifacts are named `RUN/NAME`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const CHARACTERS: u32 = 26;

/// The name of one run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u128);

impl RunId {
    /// A new name.
    ///
    /// # Errors
    ///
    /// `/dev/urandom` cannot be read: this system is not usable.
    pub fn new() -> io::Result<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut random = [0_u8; 16];
        File::open("/dev/urandom")?.read_exact(&mut random[..10])?;
        Ok(Self::from_parts(since_epoch.as_millis(), u128::from_le_bytes(random)))
    }

    const fn from_parts(milliseconds: u128, random: u128) -> Self {
        Self(((milliseconds & ((1 << 48) - 1)) << 80) | (random & ((1 << 80) - 1)))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; CHARACTERS as usize];
        for (character, position) in text.iter_mut().zip((0..CHARACTERS).rev()) {
            let digit = (self.0 >> (5 * position)) & 31;
            *character = ALPHABET[usize::try_from(digit).unwrap_or(0)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time_whatever_the_random_part_is() {
        let early = RunId::from_parts(1_000, u128::MAX);
        let late = RunId::from_parts(1_001, 0);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn names_have_a_fixed_length_and_differ() {
        let (one, other) = (RunId::new().unwrap(), RunId::new().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.to_string().len(), CHARACTERS as usize);
        assert!(one.to_string().bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
