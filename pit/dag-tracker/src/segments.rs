//! A row that grows while others read it: what is there never moves.
//!
//! One owner makes room, anybody reads. Each segment is at least as long as all before it together, so that few of them
//! hold anything. It knows nothing of what it holds.

use std::sync::OnceLock;

/// Places that are made once and stay where they are.
#[derive(Debug)]
pub(crate) struct Segments<T>(OnceLock<Box<Segment<T>>>);

#[derive(Debug)]
struct Segment<T> {
    places: Box<[T]>,
    next: Segments<T>,
}

impl<T> Segments<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The place of that number, if there is room for it.
    #[inline]
    pub(crate) fn get(&self, mut index: usize) -> Option<&T> {
        let mut rest = self;
        loop {
            let segment = rest.0.get()?;
            if let Some(place) = segment.places.get(index) {
                return Some(place);
            }
            index -= segment.places.len();
            rest = &segment.next;
        }
    }

    /// All places that there is room for, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let first = self.0.get();
        std::iter::successors(first, |segment| segment.next.0.get()).flat_map(|segment| &segment.places)
    }

    /// Makes room for at least `len` places. The first segment has exactly the length first asked for.
    pub(crate) fn reserve(&self, len: usize, fresh: impl Fn() -> T) {
        let mut room = 0;
        let mut rest = self;
        while room < len {
            let segment = rest.0.get_or_init(|| {
                let places = (0..room.max(len - room)).map(|_| fresh()).collect();
                Box::new(Segment { places, next: Self::new() })
            });
            room += segment.places.len();
            rest = &segment.next;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_stay_where_they_are_while_room_is_made() {
        let row = Segments::new();
        assert!(row.get(0).is_none());
        row.reserve(3, || 0_u8);
        assert!(row.get(2).is_some() && row.get(3).is_none(), "no more than was asked for");
        let second = std::ptr::from_ref(row.get(1).unwrap());
        for len in [4, 5, 100, 101, 1_000] {
            row.reserve(len, || 0);
            assert!(row.get(len - 1).is_some());
        }
        assert_eq!(std::ptr::from_ref(row.get(1).unwrap()), second);
        assert_eq!(row.iter().count(), 1_000, "the last segment fills up to what was asked for");
        let all: Vec<_> = row.iter().map(std::ptr::from_ref).collect();
        for (index, place) in all.into_iter().enumerate() {
            assert_eq!(row.get(index).map(std::ptr::from_ref), Some(place));
        }
    }
}
