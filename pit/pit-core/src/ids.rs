//! The one macro that makes ids: an index into somebody's table plus the generation of what sits there.
//!
//! It must not know whose ids they are. There is deliberately no arithmetic, no `Default` and no `From<u64>`: an id is
//! handed out by the owner of the table and by nobody else.

/// Makes a newtype for an id: an index and a generation, both `u32`, printed as `name:index@generation`.
///
/// The generation tells a thing from its successor in the same place, so that a late word about the first cannot touch
/// the second. Ids are ordered by index, then by generation.
///
/// ```
/// pit_core::id! {
///     /// A task of the example.
///     pub struct TaskId("task");
/// }
///
/// let task = TaskId::new(17, 3);
/// assert_eq!(task.to_string(), "task:17@3");
/// assert_eq!((task.index(), task.generation()), (17, 3));
/// assert_ne!(task, TaskId::new(17, 4));
/// ```
#[macro_export]
macro_rules! id {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident($prefix:literal);) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility struct $name {
            index: u32,
            generation: u32,
        }

        #[allow(dead_code, reason = "not every id needs each of the accessors")]
        impl $name {
            /// Names what is in place `index` for the `generation`th time. For the owner of the table only.
            #[must_use]
            $visibility const fn new(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }

            /// The place in the owner's table.
            #[must_use]
            $visibility const fn index(self) -> u32 {
                self.index
            }

            /// Which of the successive occupants of that place is meant.
            #[must_use]
            $visibility const fn generation(self) -> u32 {
                self.generation
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::write!(f, ::core::concat!($prefix, ":{}@{}"), self.index, self.generation)
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Display::fmt(self, f)
            }
        }
    };
}

#[cfg(all(test, not(loom)))]
mod tests {
    id! {
        /// An id for the tests.
        struct ThingId("thing");
    }

    #[test]
    fn id_prints_name_index_and_generation() {
        let id = ThingId::new(u32::MAX, 0);
        assert_eq!(format!("{id}"), "thing:4294967295@0");
        assert_eq!(format!("{id:?}"), "thing:4294967295@0");
    }

    #[test]
    fn successor_in_the_same_place_is_another_id() {
        assert_ne!(ThingId::new(7, 1), ThingId::new(7, 2));
        assert!(ThingId::new(7, 9) < ThingId::new(8, 1));
        assert_eq!(size_of::<ThingId>(), 8);
    }
}
