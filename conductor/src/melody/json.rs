//! MessagePack as people and other programs read it: JSON, written as it goes, and text for bytes that are
//! no text.
//!
//! Paths are bytes. Where they are UTF-8 they are shown as they are; a byte that is not becomes `\xNN`. This
//! file must not know where a value comes from.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::message_pack::{self, Malformed, Token};
use super::value::StepOutput;

/// The bytes as text: each byte that is not part of UTF-8 as `\xNN`.
///
/// ```
/// assert_eq!(conductor::melody::json::escaped(b"caf\xe9"), r"caf\xe9");
/// ```
#[must_use]
pub fn escaped(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// Writes one MessagePack value as JSON, without spaces. Binary is text (see [`escaped`]), numbers that
/// JSON does not have are `null`, keys that are not text are quoted.
///
/// # Errors
///
/// What `out` says; [`io::ErrorKind::InvalidData`] for bytes that are no value.
pub fn write_json(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    /// A container that is not written to its end.
    struct Open {
        left: u64,
        total: u64,
        is_map: bool,
    }
    let malformed = |malformed: Malformed| io::Error::new(io::ErrorKind::InvalidData, malformed);
    // LIMIT: `validate` bounds the depth of what is written here.
    message_pack::validate(bytes).map_err(malformed)?;
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    loop {
        let mut is_key = false;
        if let Some(container) = open.last_mut() {
            is_key = container.is_map && container.left.is_multiple_of(2);
            let is_value_of_key = container.is_map && !is_key;
            if is_value_of_key {
                out.write_all(b":")?;
            } else if container.left != container.total {
                out.write_all(b",")?;
            }
            container.left -= 1;
        }
        let (head, next) = message_pack::token(bytes, at).map_err(malformed)?;
        at = next;
        match head {
            Token::Array(_) | Token::Map(_) => {
                let is_map = matches!(head, Token::Map(_));
                out.write_all(if is_map { b"{" } else { b"[" })?;
                open.push(Open { left: head.values_inside(), total: head.values_inside(), is_map });
            }
            scalar if is_key => match scalar {
                Token::String(text) | Token::Binary(text) => write_text(text, out)?,
                scalar => {
                    out.write_all(b"\"")?;
                    write_scalar(&scalar, out)?;
                    out.write_all(b"\"")?;
                }
            },
            scalar => write_scalar(&scalar, out)?,
        }
        while open.last().is_some_and(|container| container.left == 0) {
            let is_map = open.pop().is_some_and(|container| container.is_map);
            out.write_all(if is_map { b"}" } else { b"]" })?;
        }
        if open.is_empty() {
            return Ok(());
        }
    }
}

/// LIMIT: characters of a value that is shown in a message.
pub const SHOWN_CHARS_MAX: usize = 200;
/// LIMIT: bytes of a value that are looked at for that.
const SHOWN_BYTES_MAX: usize = 16 << 10;

/// A MessagePack value as JSON for a message: of a long one the beginning and the end, which is where paths
/// differ. What is no value is said to be none.
///
/// ```
/// assert_eq!(conductor::melody::json::shortened(&[0x81, 0xa1, b'a', 0xc3]), r#"{"a":true}"#);
/// ```
#[must_use]
pub fn shortened(bytes: &[u8]) -> String {
    let mut out = Bounded(Vec::new());
    let is_whole = match write_json(bytes, &mut out) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return "no value".to_owned(),
        Err(_) => false,
    };
    let text = String::from_utf8_lossy(&out.0);
    let count = text.chars().count();
    if is_whole && count <= SHOWN_CHARS_MAX {
        return text.into_owned();
    }
    let end = if is_whole { SHOWN_CHARS_MAX / 3 } else { 0 };
    let begin: String = text.chars().take(SHOWN_CHARS_MAX - 3 - end).collect();
    let end: String = text.chars().skip(count - end).collect();
    format!("{begin}...{end}")
}

/// Takes the first [`SHOWN_BYTES_MAX`] bytes and then refuses, so that a large value is not written out.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let room = SHOWN_BYTES_MAX - self.0.len();
        self.0.extend_from_slice(&piece[..piece.len().min(room)]);
        // Nothing taken of something ends the writing.
        Ok(piece.len().min(room))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_text(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(out, &escaped(bytes)).map_err(io::Error::from)
}

fn write_scalar(scalar: &Token<'_>, out: &mut dyn Write) -> io::Result<()> {
    match scalar {
        Token::Boolean(boolean) => write!(out, "{boolean}"),
        Token::Unsigned(number) => write!(out, "{number}"),
        Token::Negative(number) => write!(out, "{number}"),
        // serde_json writes the shortest form that reads back as the same number, and null for NaN.
        Token::Float(number) => serde_json::to_writer(out, number).map_err(io::Error::from),
        Token::String(text) | Token::Binary(text) => write_text(text, out),
        Token::Nil | Token::Array(_) | Token::Map(_) => out.write_all(b"null"),
    }
}

impl StepOutput {
    /// Writes the value as the content of an artifact: text as its bytes, binary as its bytes, anything
    /// else as JSON.
    ///
    /// # Errors
    ///
    /// What `out` says; the artifact is incomplete then.
    pub fn write_artifact(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Single(bytes) => match message_pack::token(bytes, 0) {
                Ok((Token::String(content) | Token::Binary(content), _)) => out.write_all(content),
                _ => write_json(bytes, out),
            },
            Self::Items(items) => {
                out.write_all(b"[")?;
                for index in 0..items.len() {
                    if index > 0 {
                        out.write_all(b",")?;
                    }
                    if let Some(item) = items.get(index) {
                        write_json(&item, out)?;
                    }
                }
                out.write_all(b"]")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::melody::value::ItemOutputs;

    fn json_of(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write_json(bytes, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_what_serde_json_would_write() {
        let value = serde_json::json!({
            "a": [], "b": {}, "c": [1, -2, 3.5, null, true, [[]], {"d": [{"e": "f\n\"g"}]}], "h": u64::MAX, "i": 1e300
        });
        assert_eq!(json_of(&rmp_serde::to_vec_named(&value).unwrap()), value.to_string());
    }

    #[test]
    fn what_json_does_not_have_becomes_text_or_null() {
        let cases: &[(&[u8], &str)] = &[
            (&[0xc4, 4, b'a', 0xff, 0xc3, b'b'], r#""a\\xff\\xc3b""#),
            (&[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], "null"),
            (&[0x83, 0x01, 0xc0, 0xc3, 0xc0, 0xc4, 1, 0xfe, 0x05], r#"{"1":null,"true":null,"\\xfe":5}"#),
        ];
        for (bytes, expected) in cases {
            assert_eq!(json_of(bytes), *expected);
        }
        assert!(write_json(&[0xc1], &mut io::sink()).is_err());
    }

    #[test]
    fn a_value_in_a_message_is_whole_or_its_begin_and_its_end() {
        let packed = |value: serde_json::Value| rmp_serde::to_vec_named(&value).unwrap();
        assert_eq!(shortened(&packed(serde_json::json!({"path": "a b\n"}))), r#"{"path":"a b\n"}"#);
        let long = shortened(&packed(serde_json::json!("x".repeat(5_000) + "/end.rs")));
        assert_eq!(long.chars().count(), SHOWN_CHARS_MAX);
        assert!(long.starts_with("\"xxx") && long.contains("x...x") && long.ends_with("/end.rs\""), "{long}");
        let huge = shortened(&packed(serde_json::json!(vec!["y"; 100_000])));
        assert!(huge.starts_with("[\"y\",") && huge.ends_with("..."), "{huge}");
        assert!(huge.chars().count() <= SHOWN_CHARS_MAX);
        assert_eq!(shortened(&[0xc1]), "no value");
    }

    #[test]
    fn an_artifact_is_text_bytes_or_json() {
        let written = |output: &StepOutput| {
            let mut out = Vec::new();
            output.write_artifact(&mut out).unwrap();
            out
        };
        let single = |bytes: &'static [u8]| StepOutput::single(bytes::Bytes::from_static(bytes)).unwrap();
        assert_eq!(written(&single(&[0xa2, b'#', b'\n'])), b"#\n");
        assert_eq!(written(&single(&[0xc4, 1, 0xff])), [0xff]);
        assert_eq!(written(&single(&[0x81, 0xa1, b'a', 0x01])), br#"{"a":1}"#);
        let mut items = ItemOutputs::new(2);
        items.set(1, &[0x07]).unwrap();
        assert_eq!(written(&items.into()), b"[null,7]");
    }
}
