//! MessagePack as minijinja sees it: objects over the bytes, of which only what an expression touches is
//! decoded; and the way back, where objects that were not touched are copied as they are.
//!
//! The length of an array of 200,000 rows is read from its head, and a loop over it holds one row at a time.
//! This file must not know steps, inputs or templates.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ipc_protocol::limits::{MESSAGE_BYTES_DEFAULT, NESTING_MAX};
use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Value, ValueKind};

use super::json::escaped;
use super::message_pack::{self, Malformed, Reason, Token};
use super::value::{CollectedItems, Items, StepOutput};

/// The value as minijinja sees it.
pub(super) fn to_object(output: &StepOutput) -> Value {
    match output {
        StepOutput::Single(bytes) => decode(bytes, 0),
        StepOutput::Items(items) => Value::from_object(FanOut(items.clone())),
    }
}

/// The value at `at`. Bytes that are no value (there are none in a validated one) count as undefined.
fn decode(bytes: &Bytes, at: usize) -> Value {
    let Ok((head, after_head)) = message_pack::token(bytes, at) else { return Value::UNDEFINED };
    match head {
        Token::Nil => Value::from(()),
        Token::Boolean(boolean) => Value::from(boolean),
        Token::Unsigned(number) => Value::from(number),
        Token::Negative(number) => Value::from(number),
        Token::Float(number) => Value::from(number),
        Token::String(text) => Value::from(escaped(text).as_ref()),
        Token::Binary(content) => Value::from_object(Binary(bytes.slice_ref(content))),
        // What follows the container in the bytes stays in the slice: its end is known only after a walk over
        // all of it, and most expressions need the head alone.
        Token::Array(count) => {
            let (first, starts) = (after_head - at, OnceLock::new());
            Value::from_object(Array { bytes: bytes.slice(at..), count, first, starts })
        }
        Token::Map(count) => {
            Value::from_object(Map { bytes: bytes.slice(at..), count, first: after_head - at })
        }
    }
}

/// Binary: most often a path. Shown as text, with what is no text as `\xNN`; passed on as it came.
#[derive(Debug)]
struct Binary(Bytes);

impl Object for Binary {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        !self.0.is_empty()
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.0.cmp(&other.downcast_ref::<Self>()?.0))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&self.0))
    }
}

/// An array at the start of the bytes.
#[derive(Debug)]
struct Array {
    bytes: Bytes,
    count: u32,
    /// Where the first element starts.
    first: usize,
    /// Where each element lies, found at the first access by index: a loop does not need it.
    starts: OnceLock<Option<Items>>,
}

impl Object for Array {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = u32::try_from(key.as_usize()?).ok().filter(|index| *index < self.count)?;
        let starts = self.starts.get_or_init(|| Items::new(&StepOutput::Single(self.bytes.clone())).ok());
        Some(decode(&starts.as_ref()?.get(index)?, 0))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Iter(Box::new(Elements { bytes: self.bytes.clone(), at: self.first, left: self.count }))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.count as usize)
    }
}

/// Goes over values that lie one after the other.
struct Elements {
    bytes: Bytes,
    at: usize,
    left: u32,
}

impl Iterator for Elements {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        let value = decode(&self.bytes, self.at);
        self.at = message_pack::skip(&self.bytes, self.at).ok()?;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

/// A map at the start of the bytes.
#[derive(Debug)]
struct Map {
    bytes: Bytes,
    count: u32,
    /// Where the first key starts.
    first: usize,
}

impl Object for Map {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if let Some(name) = key.as_str() {
            return self.get_value_by_str(name);
        }
        // A key that is no text is rare: compare as minijinja does.
        let Enumerator::KeyValueIter(mut pairs) = self.enumerate() else { return None };
        pairs.find(|(found, _)| found == key).map(|(_, value)| value)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let key = message_pack::Key::Field(key.to_owned());
        let at = message_pack::child(&self.bytes, 0, &key).ok().flatten()?;
        Some(decode(&self.bytes, at))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let mut elements =
            Elements { bytes: self.bytes.clone(), at: self.first, left: self.count.saturating_mul(2) };
        let pairs = (0..self.count).map_while(move |_| Some((elements.next()?, elements.next()?)));
        Enumerator::KeyValueIter(Box::new(pairs))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.count as usize)
    }
}

/// The results of a fan-out.
#[derive(Debug)]
struct FanOut(Arc<CollectedItems>);

impl Object for FanOut {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(decode(&self.0.get(u32::try_from(key.as_usize()?).ok()?)?, 0))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len() as usize)
    }
}

/// What an expression yielded cannot be an argument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAValue {
    /// It refers to something that is not there.
    #[error("it is undefined: what it names is not there (`| default(...)` gives another value)")]
    Undefined,
    /// A function, a macro or another thing without a form as data.
    #[error("{0} cannot be passed on")]
    NotData(String),
    /// A whole number beyond 64 bits.
    #[error("the number {0} has more than 64 bits")]
    NumberTooLarge(String),
    /// Too long or too deep for a message.
    #[error("it does not fit into a message")]
    TooLarge(#[from] Malformed),
}

/// Appends what an expression yielded as MessagePack.
///
/// # Errors
///
/// [`NotAValue`]; `out` may hold a part of it.
pub(super) fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), NotAValue> {
    encode_within(value, out, NESTING_MAX)
}

fn encode_within(value: &Value, out: &mut Vec<u8>, depth_left: usize) -> Result<(), NotAValue> {
    let failed = |reason| NotAValue::TooLarge(Malformed { offset: 0, reason });
    if out.len() as u64 > MESSAGE_BYTES_DEFAULT {
        return Err(failed(Reason::TooLarge));
    }
    let is_container = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map);
    if is_container && depth_left == 0 {
        return Err(failed(Reason::TooDeep));
    }
    match value.kind() {
        ValueKind::Undefined => return Err(NotAValue::Undefined),
        ValueKind::None => message_pack::append_nil(out),
        ValueKind::Bool => message_pack::append_boolean(out, value.is_true()),
        ValueKind::Number => encode_number(value, out)?,
        ValueKind::String => message_pack::append_string(out, value.as_str().unwrap_or_default())?,
        ValueKind::Bytes => message_pack::append_binary(out, value.as_bytes().unwrap_or_default())?,
        ValueKind::Seq | ValueKind::Iterable => {
            if let Some(array) = value.downcast_object_ref::<Array>() {
                append_first(&array.bytes, out)?;
            } else if let Some(items) = value.downcast_object_ref::<FanOut>() {
                StepOutput::Items(items.0.clone()).append_to(out);
            } else {
                // The length of what a filter yields is known only at its end, so the head is filled in then.
                let head = out.len();
                out.extend_from_slice(&[0xdd, 0, 0, 0, 0]);
                let mut count: u32 = 0;
                for element in
                    value.try_iter().map_err(|error| NotAValue::NotData(error.to_string()))?.checked()
                {
                    let element = element.map_err(|error| NotAValue::NotData(error.to_string()))?;
                    encode_within(&element, out, depth_left - 1)?;
                    count = count.checked_add(1).ok_or(failed(Reason::TooLarge))?;
                }
                shorten_head(out, head, count);
            }
        }
        ValueKind::Map => {
            if let Some(map) = value.downcast_object_ref::<Map>() {
                append_first(&map.bytes, out)?;
                return Ok(());
            }
            let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
            let pairs: Vec<_> = pairs.ok_or_else(|| NotAValue::NotData(value.kind().to_string()))?.collect();
            let count = u32::try_from(pairs.len()).map_err(|_| failed(Reason::TooLarge))?;
            message_pack::append_map_head(out, count);
            for (key, value) in pairs {
                if matches!(key.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) {
                    return Err(failed(Reason::ContainerAsKey));
                }
                encode_within(&key, out, depth_left - 1)?;
                encode_within(&value, out, depth_left - 1)?;
            }
        }
        _ => match value.downcast_object_ref::<Binary>() {
            Some(binary) => message_pack::append_binary(out, &binary.0)?,
            None => return Err(NotAValue::NotData(value.kind().to_string())),
        },
    }
    Ok(())
}

/// Appends the value at the start of `bytes` as it is.
fn append_first(bytes: &Bytes, out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.extend_from_slice(&bytes[..message_pack::skip(bytes, 0)?]);
    Ok(())
}

/// Replaces the five bytes at `head` by the shortest head of an array of `count`.
fn shorten_head(out: &mut Vec<u8>, head: usize, count: u32) {
    let mut short = Vec::with_capacity(5);
    message_pack::append_array_head(&mut short, count);
    out.splice(head..head + 5, short);
}

fn encode_number(value: &Value, out: &mut Vec<u8>) -> Result<(), NotAValue> {
    if let Ok(number) = u64::try_from(value.clone())
        && value.is_integer()
    {
        message_pack::append_unsigned(out, number);
    } else if let Ok(number) = i64::try_from(value.clone())
        && value.is_integer()
    {
        message_pack::append_integer(out, number);
    } else if value.is_integer() {
        return Err(NotAValue::NumberTooLarge(value.to_string()));
    } else {
        let number = f64::try_from(value.clone()).map_err(|error| NotAValue::NotData(error.to_string()))?;
        message_pack::append_float(out, number);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::melody::value::ItemOutputs;
    use minijinja::{Environment, context};

    fn packed(value: &serde_json::Value) -> StepOutput {
        StepOutput::single(Bytes::from(rmp_serde::to_vec_named(value).unwrap())).unwrap()
    }

    fn evaluate(expression: &str, value: &StepOutput) -> Value {
        let environment = Environment::new();
        let compiled = environment.compile_expression(expression).unwrap();
        compiled.eval(context! { v => to_object(value) }).unwrap()
    }

    fn encoded(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        encode(value, &mut out).unwrap();
        out
    }

    #[test]
    fn every_type_comes_back_as_it_was() {
        let cases: &[&[u8]] = &[
            &[0xc0],
            &[0xc2],
            &[0xc3],
            &[0x00],
            &[0x7f],
            &[0xcc, 0x80],
            &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xe0],
            &[0xd0, 0x80],
            &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0],
            &[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
            &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
            &[0xa0],
            &[0xa2, 0xc3, 0xa9],
            &[0xc4, 2, 0xff, 0x00],
            &[0x90],
            &[0x80],
            &[0x92, 0xc0, 0x91, 0xa1, b'x'],
            &[0x82, 0xa1, b'b', 1, 0xa1, b'a', 2],
            &[0x81, 0x05, 0xc4, 1, 0xff],
        ];
        for bytes in cases {
            let output = StepOutput::single(Bytes::from_static(bytes)).unwrap();
            let value = to_object(&output);
            assert_eq!(encoded(&value), *bytes, "{bytes:x?}");
            assert_eq!(value.is_true(), output.is_true(), "{bytes:x?}");
            // The same inside a container that was taken apart.
            let rebuilt = evaluate("[v]", &output);
            assert_eq!(encoded(&rebuilt), [&[0x91], *bytes].concat(), "{bytes:x?}");
        }
        // A 32-bit number becomes the same number in 64 bits.
        let half = StepOutput::single(Bytes::from_static(&[0xca, 0x3f, 0, 0, 0])).unwrap();
        assert_eq!(encoded(&to_object(&half)), [0xcb, 0x3f, 0xe0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn expressions_see_lengths_fields_elements_and_order() {
        let rows = packed(&serde_json::json!({
            "rows": [{"path": "b", "bytes": 30}, {"path": "a", "bytes": 10}, {"path": "c", "bytes": 20}],
            "total": 60, "none": null,
        }));
        for (expression, expected) in [
            ("v.rows | length", "3"),
            ("v.rows[1].path", "a"),
            ("v.rows[-1].path", "c"),
            ("v.rows | map(attribute='bytes') | sum == v.total", "True"),
            ("v.rows | sort(attribute='bytes') | map(attribute='path') | join(',')", "a,c,b"),
            ("v.rows | selectattr('bytes', 'gt', 15) | list | length", "2"),
            ("v.rows | reverse | first == v.rows | last", "True"),
            ("v | length", "3"),
            ("'total' in v", "True"),
            ("v.missing is defined", "False"),
            ("v.none is none", "True"),
            ("v.rows[7] is defined", "False"),
            ("v['total'] + 1", "61"),
            ("(v.rows | length) > 2 and v.total > 50", "True"),
            ("v.rows == v.rows[:]", "True"),
        ] {
            assert_eq!(evaluate(expression, &rows).to_string(), expected, "{expression}");
        }
    }

    #[test]
    fn what_a_filter_yields_becomes_an_array() {
        let numbers = packed(&serde_json::json!((0..100).collect::<Vec<_>>()));
        let chosen = evaluate("v | select('odd') | list", &numbers);
        let array: Vec<u32> = rmp_serde::from_slice(&encoded(&chosen)).unwrap();
        assert_eq!(array, (0..100).filter(|n| n % 2 == 1).collect::<Vec<_>>());
        let built = evaluate("{'n': v | length, 'first': v[:2]}", &numbers);
        let map: serde_json::Value = rmp_serde::from_slice(&encoded(&built)).unwrap();
        assert_eq!(map, serde_json::json!({"n": 100, "first": [0, 1]}));
    }

    #[test]
    fn binary_is_shown_escaped_and_passed_on_as_it_came() {
        let path = StepOutput::single(Bytes::from_static(&[0xc4, 3, b'a', 0xff, b'b'])).unwrap();
        assert_eq!(evaluate("v ~ '!'", &path).to_string(), r"a\xffb!");
        assert_eq!(evaluate("v | upper", &path).to_string(), r"A\XFFB");
        assert_eq!(encoded(&evaluate("[v]", &path)), [0x91, 0xc4, 3, b'a', 0xff, b'b']);
        assert_eq!(evaluate("v == v and not (v < v)", &path).to_string(), "True");
    }

    #[test]
    fn results_of_a_fan_out_are_a_sequence() {
        let mut results = ItemOutputs::new(3);
        for index in [2, 0, 1] {
            results.set(index, &rmp_serde::to_vec(&(index * 10)).unwrap()).unwrap();
        }
        let output = StepOutput::from(results);
        assert_eq!(evaluate("v | length", &output).to_string(), "3");
        assert_eq!(evaluate("v[2] + v | sum", &output).to_string(), "50");
        assert_eq!(encoded(&evaluate("[v]", &output)), [0x91, 0x93, 0, 10, 20]);
    }

    #[test]
    fn what_is_no_data_is_refused() {
        let nothing = packed(&serde_json::json!({}));
        let refused =
            |expression: &str| encode(&evaluate(expression, &nothing), &mut Vec::new()).unwrap_err();
        assert_eq!(refused("v.missing"), NotAValue::Undefined);
        assert_eq!(refused("[v.missing]"), NotAValue::Undefined);
        assert!(matches!(refused("range"), NotAValue::NotData(_)));
        assert!(matches!(refused("170141183460469231731687303715884105727"), NotAValue::NumberTooLarge(_)));
        assert!(matches!(refused("{[1]: 2}"), NotAValue::TooLarge(_)));
    }

    #[test]
    fn a_value_nested_too_deep_is_refused() {
        let nested = |depth| (0..depth).fold(Value::from(1), |inner, _| Value::from(vec![inner]));
        assert!(encode(&nested(NESTING_MAX), &mut Vec::new()).is_ok());
        assert!(matches!(encode(&nested(NESTING_MAX + 1), &mut Vec::new()), Err(NotAValue::TooLarge(_))));
    }
}
