//! What steps give and take: one value, or the results of a fan-out, as bytes that are copied only into the
//! arguments of a call.
//!
//! A fan-out over 200,000 files must not cost 200,000 allocations: its results lie one after the other in
//! one growing buffer, in the order in which they came, with eight bytes per item that say where. As a
//! value they are the array in the order of the items. The items that a fan-out goes over are four bytes
//! each beside the bytes of the array that they are in.
//!
//! This file must not know templates, steps or schemas.

use std::sync::Arc;

use bytes::Bytes;
use ipc_protocol::limits::MESSAGE_BYTES_DEFAULT;

use super::message_pack::{self, Key, Malformed, Reason, Token};

/// LIMIT: items of one fan-out. Each costs the conductor a few dozen bytes for the time of the step.
pub const ITEMS_MAX: u32 = 4_000_000;

/// A value of a run. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub enum StepOutput {
    /// One validated MessagePack value.
    Single(Bytes),
    /// The results of a fan-out; as a value an array.
    Items(Arc<CollectedItems>),
}

impl StepOutput {
    /// The result of a call.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: the extension answered with something that is no MessagePack value.
    pub fn single(bytes: Bytes) -> Result<Self, Malformed> {
        message_pack::validate(&bytes)?;
        Ok(Self::Single(bytes))
    }

    /// Bytes of the value as MessagePack.
    #[must_use]
    pub fn encoded_len(&self) -> u64 {
        match self {
            Self::Single(bytes) => bytes.len() as u64,
            Self::Items(items) => items.encoded_len,
        }
    }

    /// Appends the value as MessagePack.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Single(bytes) => out.extend_from_slice(bytes),
            Self::Items(items) => items.append_to(out),
        }
    }

    /// The value as MessagePack: shared where it is one already, else written once.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Single(bytes) => bytes.clone(),
            Self::Items(items) => {
                let mut out = Vec::with_capacity(usize::try_from(items.encoded_len).unwrap_or(0));
                items.append_to(&mut out);
                Bytes::from(out)
            }
        }
    }

    /// The value inside this one that `path` leads to; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: only for bytes that were not validated.
    pub fn descend(&self, path: &[Key]) -> Result<Option<Self>, Malformed> {
        match (self, path) {
            (_, []) => Ok(Some(self.clone())),
            (Self::Single(bytes), path) => Ok(descend(bytes, path)?.map(Self::Single)),
            (Self::Items(items), [Key::Index(index), rest @ ..]) => match items.get(*index) {
                Some(item) => Ok(descend(&item, rest)?.map(Self::Single)),
                None => Ok(None),
            },
            (Self::Items(_), [Key::Field(_), ..]) => Ok(None),
        }
    }

    /// Whether the value counts as true in a condition: not nil, false, zero or empty.
    #[must_use]
    pub fn is_true(&self) -> bool {
        match self {
            Self::Items(items) => !items.is_empty(),
            Self::Single(bytes) => match message_pack::token(bytes, 0) {
                Ok((head, _)) => match head {
                    Token::Nil => false,
                    Token::Boolean(boolean) => boolean,
                    Token::Unsigned(number) => number != 0,
                    Token::Negative(_) => true,
                    Token::Float(number) => number != 0.0,
                    Token::String(bytes) | Token::Binary(bytes) => !bytes.is_empty(),
                    Token::Array(count) | Token::Map(count) => count != 0,
                },
                Err(_) => false,
            },
        }
    }
}

/// The value inside `bytes` that `path` leads to.
fn descend(bytes: &Bytes, path: &[Key]) -> Result<Option<Bytes>, Malformed> {
    let mut at = 0;
    for key in path {
        match message_pack::child(bytes, at, key)? {
            Some(inside) => at = inside,
            None => return Ok(None),
        }
    }
    Ok(Some(bytes.slice(at..message_pack::skip(bytes, at)?)))
}

/// The result of one item of a fan-out was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The extension answered with something that is no MessagePack value.
    #[error("the result of item {index} is not a value")]
    Malformed {
        /// Which item.
        index: u32,
        /// What is wrong with it.
        #[source]
        source: Malformed,
    },
    /// There is no such item, or it has its result already.
    #[error("item {index} of {count} takes no result")]
    NotExpected {
        /// Which item.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// All results together are more than a message may hold.
    #[error("the results of {count} items are more than {MESSAGE_BYTES_DEFAULT} bytes together")]
    TooLarge {
        /// How many items there are.
        count: u32,
    },
}

/// Where one item's bytes lie in the buffer. Messages are at most 1 GiB, so 32 bits suffice.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    length: u32,
}

/// The results of a fan-out while they come in, in any order.
///
/// ```
/// use conductor::melody::{ItemOutputs, StepOutput};
///
/// let mut results = ItemOutputs::new(2);
/// results.set(1, &[0xc3])?;
/// results.set(0, &[0xc0])?;
/// assert!(results.is_complete());
/// assert_eq!(StepOutput::from(results).to_bytes().as_ref(), [0x92, 0xc0, 0xc3]);
/// # Ok::<(), conductor::melody::value::ItemError>(())
/// ```
#[derive(Debug)]
pub struct ItemOutputs {
    buffer: Vec<u8>,
    /// By item; length 0 (which no value has) until the result is there.
    places: Vec<Place>,
    missing: u32,
}

impl ItemOutputs {
    /// Room for the results of `count` items.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self {
            buffer: Vec::new(),
            places: vec![Place { start: 0, length: 0 }; count as usize],
            missing: count,
        }
    }

    /// Takes the result of the item `index`.
    ///
    /// # Errors
    ///
    /// [`ItemError`]; the results so far stay as they are.
    pub fn set(&mut self, index: u32, bytes: &[u8]) -> Result<(), ItemError> {
        let count = self.count();
        message_pack::validate(bytes).map_err(|source| ItemError::Malformed { index, source })?;
        match self.places.get_mut(index as usize) {
            Some(place) if place.length == 0 => {
                // The head of the array needs up to five bytes, and each item that is missing one.
                let after = self.buffer.len() as u64 + bytes.len() as u64 + u64::from(self.missing) + 5;
                match (u32::try_from(self.buffer.len()), u32::try_from(bytes.len())) {
                    (Ok(start), Ok(length)) if after <= MESSAGE_BYTES_DEFAULT => {
                        *place = Place { start, length }
                    }
                    _ => return Err(ItemError::TooLarge { count }),
                }
                self.buffer.extend_from_slice(bytes);
                self.missing -= 1;
                Ok(())
            }
            _ => Err(ItemError::NotExpected { index, count }),
        }
    }

    /// How many items there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        // INVARIANT: `new` was given a u32.
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Whether every item has its result.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }
}

impl From<ItemOutputs> for StepOutput {
    /// The results as one value; an item without a result counts as nil.
    fn from(outputs: ItemOutputs) -> Self {
        let count = outputs.count();
        let mut head = Vec::with_capacity(5);
        message_pack::append_array_head(&mut head, count);
        let encoded_len = (head.len() + outputs.buffer.len()) as u64 + u64::from(outputs.missing);
        Self::Items(Arc::new(CollectedItems {
            bytes: Bytes::from(outputs.buffer),
            places: outputs.places.into_boxed_slice(),
            encoded_len,
        }))
    }
}

/// The results of a fan-out when it is over.
#[derive(Debug)]
pub struct CollectedItems {
    bytes: Bytes,
    places: Box<[Place]>,
    encoded_len: u64,
}

impl CollectedItems {
    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        // INVARIANT: made from `ItemOutputs`, whose count is a u32.
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The result of the item `index`, nil where it has none.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Bytes> {
        let place = self.places.get(index as usize)?;
        Some(match place.length {
            0 => Bytes::from_static(&[0xc0]),
            length => self.bytes.slice(place.start as usize..place.start as usize + length as usize),
        })
    }

    fn append_to(&self, out: &mut Vec<u8>) {
        message_pack::append_array_head(out, self.len());
        for place in &self.places {
            let start = place.start as usize;
            match place.length {
                0 => message_pack::append_nil(out),
                length => out.extend_from_slice(&self.bytes[start..start + length as usize]),
            }
        }
    }
}

/// What a fan-out goes over: an array, each element found in constant time.
#[derive(Clone, Debug)]
pub struct Items(ItemsForm);

#[derive(Clone, Debug)]
enum ItemsForm {
    /// Where each element starts in `bytes`, and at the end where the last one ends.
    Array {
        bytes: Bytes,
        starts: Arc<[u32]>,
    },
    Collected(Arc<CollectedItems>),
}

impl Items {
    /// The elements of `value`.
    ///
    /// # Errors
    ///
    /// [`ItemsError`]: it is no array, or a longer one than [`ITEMS_MAX`].
    pub fn new(value: &StepOutput) -> Result<Self, ItemsError> {
        let bytes = match value {
            StepOutput::Items(items) if items.len() > ITEMS_MAX => {
                return Err(ItemsError::TooMany(items.len()));
            }
            StepOutput::Items(items) => return Ok(Self(ItemsForm::Collected(items.clone()))),
            StepOutput::Single(bytes) => bytes,
        };
        let too_large = Malformed { offset: 0, reason: Reason::TooLarge };
        let (count, mut at) = match message_pack::token(bytes, 0)? {
            (Token::Array(count), at) if count <= ITEMS_MAX => (count, at),
            (Token::Array(count), _) => return Err(ItemsError::TooMany(count)),
            (other, _) => return Err(ItemsError::NotAnArray(other.type_name())),
        };
        let mut starts = Vec::with_capacity(count as usize + 1);
        for _ in 0..count {
            starts.push(u32::try_from(at).map_err(|_| too_large)?);
            at = message_pack::skip(bytes, at)?;
        }
        starts.push(u32::try_from(at).map_err(|_| too_large)?);
        Ok(Self(ItemsForm::Array { bytes: bytes.clone(), starts: starts.into() }))
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        match &self.0 {
            // INVARIANT: `new` counted at most ITEMS_MAX, and `starts` has one more.
            ItemsForm::Array { starts, .. } => u32::try_from(starts.len() - 1).unwrap_or(u32::MAX),
            ItemsForm::Collected(items) => items.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item `index`, sharing the array's bytes.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Bytes> {
        match &self.0 {
            ItemsForm::Array { bytes, starts } => {
                let index = index as usize;
                Some(bytes.slice(*starts.get(index)? as usize..*starts.get(index + 1)? as usize))
            }
            ItemsForm::Collected(items) => items.get(index),
        }
    }
}

/// A value cannot be gone over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemsError {
    /// It is something else.
    #[error("it is {0}, not an array")]
    NotAnArray(&'static str),
    /// It has too many elements.
    #[error("it has {0} elements, at most {ITEMS_MAX} are allowed")]
    TooMany(u32),
    /// Only for bytes that were not validated.
    #[error("it is not a value")]
    Malformed(#[from] Malformed),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(value: &serde_json::Value) -> Bytes {
        Bytes::from(rmp_serde::to_vec_named(value).unwrap())
    }

    fn unpacked(value: &StepOutput) -> serde_json::Value {
        rmp_serde::from_slice(&value.to_bytes()).unwrap()
    }

    #[test]
    fn results_in_any_order_are_an_array_in_the_order_of_the_items() {
        let mut results = ItemOutputs::new(300);
        for index in (0..300).rev().filter(|index| index % 7 != 0) {
            results.set(index, &packed(&serde_json::json!({"index": index}))).unwrap();
        }
        assert!(!results.is_complete());
        let output = StepOutput::from(results);
        assert_eq!(output.encoded_len(), output.to_bytes().len() as u64);
        let array = unpacked(&output);
        assert_eq!(array.as_array().unwrap().len(), 300);
        assert_eq!(array[299]["index"], 299);
        assert_eq!(array[7], serde_json::Value::Null, "an item without a result counts as nil");
        let found = output.descend(&[Key::Index(5), Key::Field("index".into())]).unwrap().unwrap();
        assert_eq!(unpacked(&found), 5);
        assert!(output.descend(&[Key::Index(300)]).unwrap().is_none());
        assert!(output.descend(&[Key::Field("index".into())]).unwrap().is_none());
    }

    #[test]
    fn a_result_is_taken_once_and_only_for_an_item_that_there_is() {
        let mut results = ItemOutputs::new(2);
        results.set(0, &[0xc0]).unwrap();
        assert_eq!(results.set(0, &[0xc0]), Err(ItemError::NotExpected { index: 0, count: 2 }));
        assert_eq!(results.set(2, &[0xc0]), Err(ItemError::NotExpected { index: 2, count: 2 }));
        assert!(matches!(results.set(1, &[0xc1]), Err(ItemError::Malformed { index: 1, .. })));
        assert!(!results.is_complete());
        results.set(1, &[0xc3]).unwrap();
        assert!(results.is_complete());
    }

    #[test]
    fn items_are_found_by_index_and_share_the_bytes() {
        let bytes = packed(&serde_json::json!(["a", {"b": [1, 2, 3]}, 70000]));
        let items = Items::new(&StepOutput::Single(bytes.clone())).unwrap();
        assert_eq!(items.len(), 3);
        assert_eq!(unpacked(&StepOutput::Single(items.get(1).unwrap())), serde_json::json!({"b": [1, 2, 3]}));
        assert_eq!(unpacked(&StepOutput::Single(items.get(2).unwrap())), 70000);
        assert!(items.get(3).is_none());
        assert!(bytes.as_ptr_range().contains(&items.get(2).unwrap().as_ptr()), "no copy");
        assert_eq!(
            Items::new(&StepOutput::Single(packed(&serde_json::json!({})))).unwrap_err(),
            ItemsError::NotAnArray("a map")
        );
        assert!(Items::new(&StepOutput::from(ItemOutputs::new(0))).unwrap().is_empty());
        let many = [&[0xdd][..], &(ITEMS_MAX + 1).to_be_bytes()].concat();
        let refused = Items::new(&StepOutput::Single(many.into())).unwrap_err();
        assert_eq!(refused, ItemsError::TooMany(ITEMS_MAX + 1), "before anything is allocated");
    }

    #[test]
    fn truth_is_that_of_templates() {
        for (value, expected) in [
            (serde_json::json!(null), false),
            (serde_json::json!(0), false),
            (serde_json::json!(-1), true),
            (serde_json::json!(0.0), false),
            (serde_json::json!(""), false),
            (serde_json::json!("false"), true),
            (serde_json::json!([]), false),
            (serde_json::json!([0]), true),
            (serde_json::json!({}), false),
        ] {
            assert_eq!(StepOutput::Single(packed(&value)).is_true(), expected, "{value}");
        }
    }
}
