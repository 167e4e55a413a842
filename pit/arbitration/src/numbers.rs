//! Maps by numbers that the program itself chooses: nobody picks them to collide, so that spreading them is enough.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map by a number, or by a newtype of one.
pub(crate) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // Multiples of the golden ratio; the map goes by the upper bits as well as the lower ones.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, hash::BuildHasher as _};

    use super::*;

    #[test]
    fn numbers_in_a_row_are_spread() {
        let map = NumberMap::<u64, ()>::default();
        let hashes: Vec<u64> = (0..1_024_u64).map(|number| map.hasher().hash_one(number)).collect();
        let buckets: BTreeSet<u64> = hashes.iter().map(|hash| hash % 1_024).collect();
        let tags: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        assert!(buckets.len() > 500 && tags.len() > 64, "{} {}", buckets.len(), tags.len());
    }
}
