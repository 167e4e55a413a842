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

    /// When the run of this name began, in milliseconds since 1970; `None`: it is not the name of a run.
    #[must_use]
    pub fn began_ms(name: &str) -> Option<u64> {
        let digit = |byte| ALPHABET.iter().position(|known| *known == byte);
        let value = name.bytes().try_fold(0_u128, |value, byte| Some((value << 5) | digit(byte)? as u128))?;
        // 26 characters have room for 130 bits: the first stands for three.
        let is_name = name.len() == CHARACTERS as usize && name.as_bytes()[0] <= b'7';
        u64::try_from(value >> 80).ok().filter(|_| is_name)
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
    fn a_name_tells_when_its_run_began_and_other_words_do_not() {
        for milliseconds in [0, 1_750_000_000_000, (1 << 48) - 1] {
            let name = RunId::from_parts(milliseconds.into(), u128::MAX).to_string();
            assert_eq!(RunId::began_ms(&name), Some(milliseconds));
        }
        let more = "0".repeat(27);
        for other in ["", "report.md", "8zzzzzzzzzzzzzzzzzzzzzzzzz", "0000000000000000000000000U", &more] {
            assert_eq!(RunId::began_ms(other), None, "{other}");
        }
    }

    #[test]
    fn names_have_a_fixed_length_and_differ() {
        let (one, other) = (RunId::new().unwrap(), RunId::new().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.to_string().len(), CHARACTERS as usize);
        assert!(one.to_string().bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
