//! Encoded arguments back to values, with errors that name the argument.
//!
//! The decoder of MessagePack says what is wrong but not where. Where it stopped is known, though: after a
//! failure the body is walked once more, and the value that lies there names the path.

use std::io::Cursor;

use ipc_protocol::{Fault, FaultCode};
use ipc_transport::scan::scan;
use rmp::Marker;
use rmp_serde::Deserializer;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::interface::Sendable;

/// An empty map: what an empty body stands for.
const EMPTY_MAP: [u8; 1] = [0x80];

/// Decodes the arguments of a call; an empty body is an empty map.
///
/// # Errors
///
/// [`FaultCode::InvalidArgument`] that names the argument. The caller's fault: send what the schema says.
pub fn decode<A: Sendable>(body: &[u8]) -> Result<A, Fault> {
    decode_as(body, "argument")
}

/// As [`decode`]; `what` is the word for what is decoded.
pub(crate) fn decode_as<A: DeserializeOwned>(body: &[u8], what: &str) -> Result<A, Fault> {
    let body = if body.is_empty() { &EMPTY_MAP } else { body };
    let invalid = |message: String| Fault::new(FaultCode::InvalidArgument, message);
    scan(body).map_err(|error| invalid(format!("wrong {what}s: {error}")))?;
    rmp_serde::from_slice(body).map_err(|error| {
        let mut decoder = Deserializer::new(Cursor::new(body));
        let again = A::deserialize(&mut decoder);
        let stopped = usize::try_from(decoder.position()).unwrap_or(usize::MAX);
        let text = explain(&again.err().unwrap_or(error));
        let mut path = path_to(body, stopped.saturating_sub(1));
        if text.starts_with("missing field") {
            // Known to be missing only after the last field that is there.
            path.pop();
        }
        match path.join(".") {
            path if path.is_empty() => invalid(format!("wrong {what}s: {text}")),
            path => invalid(format!("{what} `{path}`: {text}")),
        }
    })
}

/// The decoder's error in an author's words.
fn explain(error: &rmp_serde::decode::Error) -> String {
    let rmp_serde::decode::Error::TypeMismatch(marker) = error else { return error.to_string() };
    let found = match marker {
        Marker::Null => "nothing",
        Marker::True | Marker::False => "a boolean",
        Marker::F32 | Marker::F64 => "a number with a point",
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => "a string",
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => "bytes",
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => "a list",
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => "a map",
        _ => "a number",
    };
    format!("invalid type: {found} is not what the schema says")
}

/// The names of the containers around the byte at `offset`, outermost first: keys of maps, indexes of lists.
fn path_to(body: &[u8], offset: usize) -> Vec<String> {
    let mut path = Vec::new();
    let mut at = 0;
    while let Some((name, start)) = child_at(body, at, offset) {
        path.push(name);
        at = start;
    }
    path
}

/// Of the container that begins at `at` the child that the byte at `offset` lies in: its name and its start.
fn child_at(body: &[u8], at: usize, offset: usize) -> Option<(String, usize)> {
    let mut inside = body.get(at..)?;
    let (items, is_map) = match rmp::decode::read_map_len(&mut { inside }) {
        Ok(items) => {
            rmp::decode::read_map_len(&mut inside).ok()?;
            (items, true)
        }
        Err(_) => (rmp::decode::read_array_len(&mut inside).ok()?, false),
    };
    let mut start = body.len() - inside.len();
    for index in 0..items {
        let mut name = index.to_string();
        if is_map {
            let (key, length) = skip::<Key>(body.get(start..)?)?;
            name = key.0.unwrap_or(name);
            start += length;
        }
        let (_, length) = skip::<IgnoredAny>(body.get(start..)?)?;
        if (start..start + length).contains(&offset) {
            return Some((name, start));
        }
        start += length;
    }
    None
}

/// A map's key, if it is text.
struct Key(Option<String>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Other(IgnoredAny),
        }
        Form::deserialize(deserializer).map(|form| match form {
            Form::Text(text) => Self(Some(text)),
            Form::Other(IgnoredAny) => Self(None),
        })
    }
}

/// The first value in `bytes` and how long it is.
fn skip<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, usize)> {
    let mut decoder = Deserializer::new(Cursor::new(bytes));
    let value = T::deserialize(&mut decoder).ok()?;
    Some((value, usize::try_from(decoder.position()).ok()?))
}

#[cfg(test)]
mod tests {
    use ipc_protocol::FaultCode;
    use serde_json::json;

    use super::decode;

    #[extension_sdk::message]
    #[derive(Debug, PartialEq)]
    struct Inner {
        path: String,
        #[serde(default)]
        sizes: Vec<u8>,
    }

    #[extension_sdk::message]
    #[derive(Debug, PartialEq)]
    struct Outer {
        root: String,
        file: Inner,
    }

    fn fault(value: serde_json::Value) -> String {
        let fault = decode::<Outer>(&rmp_serde::to_vec_named(&value).unwrap()).unwrap_err();
        assert_eq!(fault.code, FaultCode::InvalidArgument);
        fault.message
    }

    #[test]
    fn a_wrong_argument_is_named_with_its_path() {
        let cases = [
            (json!({"root": 7, "file": {"path": "a"}}), "argument `root`: invalid type"),
            (json!({"file": {"path": true}, "root": "/"}), "argument `file.path`: invalid type"),
            (
                json!({"file": {"path": "a", "sizes": [1, 300]}, "root": "/"}),
                "argument `file.sizes.1`: invalid value",
            ),
            (json!({"root": "/", "file": {"sizes": []}}), "argument `file`: missing field `path`"),
            (json!({"root": "/"}), "wrong arguments: missing field `file`"),
            (
                json!({"root": "/", "file": {"path": "a", "sizes": ["x"]}}),
                "argument `file.sizes.0`: invalid type: a string is not what the schema says",
            ),
            (json!(3), "wrong arguments: invalid type"),
        ];
        for (value, expected) in cases {
            let message = fault(value.clone());
            assert!(message.starts_with(expected), "{value}: {message}");
        }
    }

    #[test]
    fn what_is_no_single_value_is_refused_before_it_is_decoded() {
        for body in [&b"\x81\xa1a"[..], b"\xc0\xc0", b"\xc1", &[0x91; 300]] {
            let fault = decode::<Outer>(body).unwrap_err();
            assert_eq!(fault.code, FaultCode::InvalidArgument);
            assert!(fault.message.starts_with("wrong arguments: "), "{}", fault.message);
        }
    }

    #[test]
    fn an_empty_body_is_an_empty_map() {
        #[extension_sdk::message]
        struct Nothing {}
        assert!(decode::<Nothing>(b"").is_ok());
    }
}
