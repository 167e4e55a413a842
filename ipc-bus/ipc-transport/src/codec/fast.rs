//! Which types the fast codec takes, and for each how its layout reads and how its bytes are walked over.
//!
//! A closed set: what serde, the schema and wincode all agree on. Messages join it by the SDK's derive.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use wincode::{SchemaReadOwned, SchemaWrite};

use super::{Settings, Walk, WalkError};

/// What can be a part of something in the fast codec. Takes at least one byte there, so that a number of elements
/// is bounded by the number of bytes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of what travels in the fast codec",
    label = "not a fast message",
    note = "put `#[message(fast)]` on its definition; besides such messages there are numbers of up to 64 bits, `bool`, \
            `char`, `String`, `Blob`, and `Option`, `Box`, `Vec`, arrays, tuples and maps of these; or leave `fast` \
            away here, and it travels as MessagePack"
)]
pub trait Fast: Sized {
    /// Parts within parts. A type that contains itself, however far down, would have no number here, and so it does
    /// not compile: its layout would have no end, and a peer could nest it until the stack is used up.
    const DEPTH: usize;

    /// How many bytes a value takes, if it is always as many.
    const FIXED: Option<usize>;

    /// Appends the layout's text: equal texts, equal layouts.
    fn layout(out: &mut String);

    /// Passes one value.
    ///
    /// # Errors
    ///
    /// [`WalkError`]: there is none.
    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError>;
}

/// What can be a whole body in the fast codec: any [`Fast`] value, or nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument or a result of a method marked `fast`",
    label = "not a fast message",
    note = "put `#[message(fast)]` on its definition, or leave `fast` away at the method, which then is called in \
            MessagePack"
)]
pub trait FastBody:
    SchemaWrite<Settings, Src = Self> + SchemaReadOwned<Settings, Dst = Self> + Sized
{
    /// As [`Fast::layout`].
    fn layout(out: &mut String);

    /// As [`Fast::walk`].
    ///
    /// # Errors
    ///
    /// As [`Fast::walk`].
    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError>;
}

impl<T> FastBody for T
where
    T: Fast + SchemaWrite<Settings, Src = T> + SchemaReadOwned<Settings, Dst = T>,
{
    fn layout(out: &mut String) {
        <T as Fast>::layout(out);
    }

    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
        <T as Fast>::walk(walk)
    }
}

impl FastBody for () {
    fn layout(out: &mut String) {
        out.push_str("()");
    }

    fn walk(_: &mut Walk<'_>) -> Result<(), WalkError> {
        Ok(())
    }
}

/// [`Fast::DEPTH`] of what has these parts.
#[must_use]
pub const fn depth_above(parts: &[usize]) -> usize {
    let (mut deepest, mut at) = (0, 0);
    while at < parts.len() {
        if parts[at] > deepest {
            deepest = parts[at];
        }
        at += 1;
    }
    deepest + 1
}

/// [`Fast::FIXED`] of parts that follow one another.
#[must_use]
pub const fn fixed_sum(parts: &[Option<usize>]) -> Option<usize> {
    let (mut sum, mut at) = (0_usize, 0);
    while at < parts.len() {
        match parts[at] {
            Some(size) => sum += size,
            None => return None,
        }
        at += 1;
    }
    Some(sum)
}

macro_rules! fixed {
    ($($kind:ident: $size:literal),*) => {$(
        impl Fast for $kind {
            const DEPTH: usize = 0;
            const FIXED: Option<usize> = Some($size);

            fn layout(out: &mut String) {
                out.push_str(stringify!($kind));
            }

            fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
                walk.pass($size)
            }
        }
    )*};
}

fixed!(bool: 1, u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, u64: 8, i64: 8, f64: 8, usize: 8, isize: 8);

impl Fast for char {
    const DEPTH: usize = 0;
    const FIXED: Option<usize> = None;

    fn layout(out: &mut String) {
        out.push_str("char");
    }

    /// In UTF-8: the first byte says how many follow. Whether they are a character, wincode sees.
    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
        let more = match walk.byte()? {
            0..0xc0 => 0,
            0xc0..0xe0 => 1,
            0xe0..0xf0 => 2,
            0xf0.. => 3,
        };
        walk.pass(more)
    }
}

impl Fast for String {
    const DEPTH: usize = 0;
    const FIXED: Option<usize> = None;

    fn layout(out: &mut String) {
        out.push_str("string");
    }

    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
        let length = walk.length(Some(1))?;
        walk.pass(length)
    }
}

impl<T: Fast> Fast for Vec<T> {
    const DEPTH: usize = depth_above(&[T::DEPTH]);
    const FIXED: Option<usize> = None;

    fn layout(out: &mut String) {
        out.push('[');
        <T as Fast>::layout(out);
        out.push(']');
    }

    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
        let length = walk.length(T::FIXED)?;
        if let Some(size) = T::FIXED {
            return walk.pass(length * size);
        }
        (0..length).try_for_each(|_| <T as Fast>::walk(walk))
    }
}

impl<T: Fast> Fast for Option<T> {
    const DEPTH: usize = depth_above(&[T::DEPTH]);
    const FIXED: Option<usize> = None;

    fn layout(out: &mut String) {
        out.push('?');
        <T as Fast>::layout(out);
    }

    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
        match walk.byte()? {
            0 => Ok(()),
            1 => <T as Fast>::walk(walk),
            tag => Err(walk.no_variant(tag.into())),
        }
    }
}

impl<T: Fast> Fast for Box<T> {
    const DEPTH: usize = depth_above(&[T::DEPTH]);
    const FIXED: Option<usize> = T::FIXED;

    fn layout(out: &mut String) {
        <T as Fast>::layout(out);
    }

    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
        <T as Fast>::walk(walk)
    }
}

macro_rules! arrays {
    ($($length:literal)*) => {$(
        impl<T: Fast> Fast for [T; $length] {
            const DEPTH: usize = depth_above(&[T::DEPTH]);
            const FIXED: Option<usize> = fixed_sum(&[T::FIXED; $length]);

            fn layout(out: &mut String) {
                out.push('[');
                <T as Fast>::layout(out);
                out.push_str(concat!(";", $length, "]"));
            }

            fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
                (0..$length).try_for_each(|_| <T as Fast>::walk(walk))
            }
        }
    )*};
}

// As far as serde goes; an empty one would take no byte.
arrays!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);

macro_rules! tuples {
    ($(($($part:ident)*))*) => {$(
        impl<$($part: Fast),*> Fast for ($($part,)*) {
            const DEPTH: usize = depth_above(&[$($part::DEPTH),*]);
            const FIXED: Option<usize> = fixed_sum(&[$($part::FIXED),*]);

            fn layout(out: &mut String) {
                out.push('(');
                $(
                    <$part as Fast>::layout(out);
                    out.push(',');
                )*
                out.push(')');
            }

            fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
                $(<$part as Fast>::walk(walk)?;)*
                Ok(())
            }
        }
    )*};
}

tuples!((A)(A B)(A B C)(A B C D)(A B C D E)(A B C D E F)(A B C D E F G)(A B C D E F G H));
tuples!((A B C D E F G H I)(A B C D E F G H I J)(A B C D E F G H I J K)(A B C D E F G H I J K L));

fn map_layout<K: Fast, V: Fast>(out: &mut String) {
    out.push('{');
    <K as Fast>::layout(out);
    out.push('=');
    <V as Fast>::layout(out);
    out.push('}');
}

fn walk_map<K: Fast, V: Fast>(walk: &mut Walk<'_>) -> Result<(), WalkError> {
    let length = walk.length(fixed_sum(&[K::FIXED, V::FIXED]))?;
    (0..length).try_for_each(|_| {
        <K as Fast>::walk(walk)?;
        <V as Fast>::walk(walk)
    })
}

impl<K: Fast + Ord, V: Fast> Fast for BTreeMap<K, V> {
    const DEPTH: usize = depth_above(&[K::DEPTH, V::DEPTH]);
    const FIXED: Option<usize> = None;

    fn layout(out: &mut String) {
        map_layout::<K, V>(out);
    }

    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
        walk_map::<K, V>(walk)
    }
}

impl<K: Fast + Hash + Eq, V: Fast> Fast for HashMap<K, V> {
    const DEPTH: usize = depth_above(&[K::DEPTH, V::DEPTH]);
    const FIXED: Option<usize> = None;

    fn layout(out: &mut String) {
        map_layout::<K, V>(out);
    }

    fn walk(walk: &mut Walk<'_>) -> Result<(), WalkError> {
        walk_map::<K, V>(walk)
    }
}
