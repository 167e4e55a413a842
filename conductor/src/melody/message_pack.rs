//! MessagePack as bytes that nobody trusts yet: read a header, skip a value, validate a whole value, step
//! into it. Also the few headers that the melody writes itself.
//!
//! Nothing here recurses and nothing allocates: results come from extensions, and a message of a million
//! nested arrays must cost an error, not a stack. This file must not know what a value means, nor minijinja.
//!
//! [`validate`] is called once for what comes from outside. The other functions hold on any bytes; on
//! validated ones they do not fail.

use ipc_protocol::limits::{MESSAGE_BYTES_DEFAULT, NESTING_MAX};

/// Bytes that are not one MessagePack value, or one that a melody does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is malformed at byte {offset}: {reason}")]
pub struct Malformed {
    /// Where, counted from the start of the value.
    pub offset: usize,
    /// What is wrong there.
    pub reason: Reason,
}

/// What is wrong with a value's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The bytes end inside a value.
    #[error("it ends too early")]
    Truncated,
    /// Bytes follow the value.
    #[error("bytes follow its end")]
    TrailingBytes,
    /// A byte that MessagePack reserves.
    #[error("a reserved byte")]
    Reserved,
    /// An extension type: its meaning would be the sender's alone.
    #[error("extension types are not supported")]
    ExtensionType,
    /// A string that is not UTF-8. Bytes travel as the binary type.
    #[error("a string that is not UTF-8")]
    NotUtf8,
    /// An array or a map as the key of a map.
    #[error("a map's key is an array or a map")]
    ContainerAsKey,
    /// Deeper than [`NESTING_MAX`].
    #[error("nested deeper than {NESTING_MAX}")]
    TooDeep,
    /// Longer than [`MESSAGE_BYTES_DEFAULT`].
    #[error("longer than {MESSAGE_BYTES_DEFAULT} bytes")]
    TooLarge,
}

/// The head of a value: a scalar as a whole, of a container the number of its entries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// Nil.
    Nil,
    /// A boolean.
    Boolean(bool),
    /// An integer that is not negative.
    Unsigned(u64),
    /// A negative integer.
    Negative(i64),
    /// A number with a fraction; 32-bit ones are widened.
    Float(f64),
    /// The bytes of a string, not yet known to be UTF-8.
    String(&'a [u8]),
    /// Binary.
    Binary(&'a [u8]),
    /// So many values follow.
    Array(u32),
    /// So many pairs follow.
    Map(u32),
}

impl Token<'_> {
    /// Values that follow this head.
    #[must_use]
    pub const fn values_inside(&self) -> u64 {
        match self {
            Self::Array(count) => *count as u64,
            Self::Map(count) => *count as u64 * 2,
            _ => 0,
        }
    }

    /// The type's name for messages.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Boolean(_) => "a boolean",
            Self::Unsigned(_) | Self::Negative(_) => "an integer",
            Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Binary(_) => "binary",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
        }
    }
}

/// `N` bytes at `at`, as a big-endian number's bytes.
fn fixed<const N: usize>(bytes: &[u8], at: usize) -> Result<([u8; N], usize), Malformed> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
        Some(chunk) => Ok((*chunk, at + N)),
        None => Err(Malformed { offset: bytes.len(), reason: Reason::Truncated }),
    }
}

/// `length` bytes at `at`.
fn run(bytes: &[u8], at: usize, length: u64) -> Result<(&[u8], usize), Malformed> {
    let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
    match end.and_then(|end| Some((bytes.get(at..end)?, end))) {
        Some(found) => Ok(found),
        None => Err(Malformed { offset: bytes.len(), reason: Reason::Truncated }),
    }
}

/// The head of the value that starts at `at`, and where what follows the head starts.
///
/// # Errors
///
/// [`Malformed`]: the bytes end too early, or begin nothing that a melody takes.
pub fn token(bytes: &[u8], at: usize) -> Result<(Token<'_>, usize), Malformed> {
    let ([marker], next) = fixed::<1>(bytes, at)?;
    let failed = |reason| Err(Malformed { offset: at, reason });
    Ok(match marker {
        0x00..=0x7f => (Token::Unsigned(u64::from(marker)), next),
        0x80..=0x8f => (Token::Map(u32::from(marker & 0x0f)), next),
        0x90..=0x9f => (Token::Array(u32::from(marker & 0x0f)), next),
        0xa0..=0xbf => {
            let (text, next) = run(bytes, next, u64::from(marker & 0x1f))?;
            (Token::String(text), next)
        }
        0xc0 => (Token::Nil, next),
        0xc1 => return failed(Reason::Reserved),
        0xc2 => (Token::Boolean(false), next),
        0xc3 => (Token::Boolean(true), next),
        0xc4..=0xc6 | 0xd9..=0xdb => {
            let (length, next) = match marker {
                0xc4 | 0xd9 => fixed::<1>(bytes, next).map(|(b, next)| (u64::from(b[0]), next))?,
                0xc5 | 0xda => {
                    fixed(bytes, next).map(|(b, next)| (u64::from(u16::from_be_bytes(b)), next))?
                }
                _ => fixed(bytes, next).map(|(b, next)| (u64::from(u32::from_be_bytes(b)), next))?,
            };
            let (content, next) = run(bytes, next, length)?;
            (if marker <= 0xc6 { Token::Binary(content) } else { Token::String(content) }, next)
        }
        0xc7..=0xc9 | 0xd4..=0xd8 => return failed(Reason::ExtensionType),
        0xca => fixed(bytes, next).map(|(b, next)| (Token::Float(f64::from(f32::from_be_bytes(b))), next))?,
        0xcb => fixed(bytes, next).map(|(b, next)| (Token::Float(f64::from_be_bytes(b)), next))?,
        0xcc => fixed::<1>(bytes, next).map(|(b, next)| (Token::Unsigned(u64::from(b[0])), next))?,
        0xcd => fixed(bytes, next).map(|(b, next)| (Token::Unsigned(u16::from_be_bytes(b).into()), next))?,
        0xce => fixed(bytes, next).map(|(b, next)| (Token::Unsigned(u32::from_be_bytes(b).into()), next))?,
        0xcf => fixed(bytes, next).map(|(b, next)| (Token::Unsigned(u64::from_be_bytes(b)), next))?,
        0xd0 => fixed::<1>(bytes, next).map(|(b, next)| (signed(i8::from_be_bytes(b).into()), next))?,
        0xd1 => fixed(bytes, next).map(|(b, next)| (signed(i16::from_be_bytes(b).into()), next))?,
        0xd2 => fixed(bytes, next).map(|(b, next)| (signed(i32::from_be_bytes(b).into()), next))?,
        0xd3 => fixed(bytes, next).map(|(b, next)| (signed(i64::from_be_bytes(b)), next))?,
        0xdc => fixed(bytes, next).map(|(b, next)| (Token::Array(u16::from_be_bytes(b).into()), next))?,
        0xdd => fixed(bytes, next).map(|(b, next)| (Token::Array(u32::from_be_bytes(b)), next))?,
        0xde => fixed(bytes, next).map(|(b, next)| (Token::Map(u16::from_be_bytes(b).into()), next))?,
        0xdf => fixed(bytes, next).map(|(b, next)| (Token::Map(u32::from_be_bytes(b)), next))?,
        0xe0..=0xff => (Token::Negative(i64::from(i8::from_be_bytes([marker]))), next),
    })
}

/// A number of the signed family, which may hold what is not negative.
fn signed(number: i64) -> Token<'static> {
    match u64::try_from(number) {
        Ok(number) => Token::Unsigned(number),
        Err(_) => Token::Negative(number),
    }
}

/// Where the value that starts at `at` ends.
///
/// # Errors
///
/// [`Malformed`], as [`token`].
pub fn skip(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    // Each pending value has at least one byte, so the loop ends with the bytes at the latest; the count
    // grows by less than 2^33 for each byte read and cannot overflow.
    let mut pending: u64 = 1;
    let mut at = at;
    while pending > 0 {
        let (token, next) = token(bytes, at)?;
        pending = pending - 1 + token.values_inside();
        at = next;
    }
    Ok(at)
}

/// Checks that `bytes` are exactly one value that a melody takes.
///
/// # Errors
///
/// [`Malformed`]: see [`Reason`]. The sender's fault.
pub fn validate(bytes: &[u8]) -> Result<(), Malformed> {
    /// What is left of a container: its values, and whether they come as pairs.
    #[derive(Clone, Copy)]
    struct Open {
        left: u64,
        pairs: bool,
    }
    if bytes.len() as u64 > MESSAGE_BYTES_DEFAULT {
        return Err(Malformed { offset: 0, reason: Reason::TooLarge });
    }
    // LIMIT: NESTING_MAX containers are open at once.
    let mut open = [Open { left: 0, pairs: false }; NESTING_MAX];
    let mut depth = 0;
    let mut at = 0;
    loop {
        let (token, next) = token(bytes, at)?;
        let failed = |reason| Err(Malformed { offset: at, reason });
        if let Token::String(text) = token
            && std::str::from_utf8(text).is_err()
        {
            return failed(Reason::NotUtf8);
        }
        let is_container = matches!(token, Token::Array(_) | Token::Map(_));
        if is_container && depth > 0 && open[depth - 1].pairs && open[depth - 1].left.is_multiple_of(2) {
            return failed(Reason::ContainerAsKey);
        }
        if depth > 0 {
            open[depth - 1].left -= 1;
        }
        if token.values_inside() > 0 {
            if depth == NESTING_MAX {
                return failed(Reason::TooDeep);
            }
            open[depth] = Open { left: token.values_inside(), pairs: matches!(token, Token::Map(_)) };
            depth += 1;
        }
        at = next;
        while depth > 0 && open[depth - 1].left == 0 {
            depth -= 1;
        }
        if depth == 0 {
            break;
        }
    }
    if at == bytes.len() { Ok(()) } else { Err(Malformed { offset: at, reason: Reason::TrailingBytes }) }
}

/// One step into a value: a field of a map, or an element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The field with this name.
    Field(String),
    /// The element with this index.
    Index(u32),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field(name) if is_plain_name(name) => write!(f, ".{name}"),
            Self::Field(name) => write!(f, "[{name:?}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// Whether `name` can stand after a dot in a template.
fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Where the value that `key` names lies in the value at `at`; `None` if there is no such field or
/// element. A value that stands under the same name twice: the first.
///
/// # Errors
///
/// [`Malformed`], as [`token`].
pub fn child(bytes: &[u8], at: usize, key: &Key) -> Result<Option<usize>, Malformed> {
    let (head, mut at) = token(bytes, at)?;
    match (head, key) {
        (Token::Array(count), Key::Index(index)) if *index < count => {
            for _ in 0..*index {
                at = skip(bytes, at)?;
            }
            Ok(Some(at))
        }
        (Token::Map(count), Key::Field(name)) => {
            for _ in 0..count {
                let (key, after_key) = token(bytes, at)?;
                if key == Token::String(name.as_bytes()) {
                    return Ok(Some(after_key));
                }
                at = skip(bytes, skip(bytes, at)?)?;
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Appends the head of an array of `count` values, in the shortest form.
pub fn append_array_head(out: &mut Vec<u8>, count: u32) {
    append_head(out, count, 0x90, [0xdc, 0xdd]);
}

/// Appends the head of a map of `count` pairs, in the shortest form.
pub fn append_map_head(out: &mut Vec<u8>, count: u32) {
    append_head(out, count, 0x80, [0xde, 0xdf]);
}

fn append_head(out: &mut Vec<u8>, count: u32, small: u8, markers: [u8; 2]) {
    match (u8::try_from(count), u16::try_from(count)) {
        (Ok(count @ 0..=15), _) => out.push(small | count),
        (_, Ok(count)) => {
            out.push(markers[0]);
            out.extend_from_slice(&count.to_be_bytes());
        }
        _ => {
            out.push(markers[1]);
            out.extend_from_slice(&count.to_be_bytes());
        }
    }
}

/// Appends a string.
///
/// # Errors
///
/// [`Reason::TooLarge`] for more bytes than a message may have.
pub fn append_string(out: &mut Vec<u8>, text: &str) -> Result<(), Malformed> {
    append_content(out, text.as_bytes(), |out, length| rmp::encode::write_str_len(out, length).is_ok())
}

/// Appends binary.
///
/// # Errors
///
/// [`Reason::TooLarge`] for more bytes than a message may have.
pub fn append_binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Malformed> {
    append_content(out, bytes, |out, length| rmp::encode::write_bin_len(out, length).is_ok())
}

fn append_content(
    out: &mut Vec<u8>,
    content: &[u8],
    head: impl FnOnce(&mut Vec<u8>, u32) -> bool,
) -> Result<(), Malformed> {
    let too_large = Malformed { offset: 0, reason: Reason::TooLarge };
    let length = u32::try_from(content.len()).map_err(|_| too_large)?;
    // Writing to memory does not fail; a failure would mean that it is out of memory.
    if u64::from(length) > MESSAGE_BYTES_DEFAULT || !head(out, length) {
        return Err(too_large);
    }
    out.extend_from_slice(content);
    Ok(())
}

/// Appends an integer, in the shortest form.
pub fn append_integer(out: &mut Vec<u8>, number: i64) {
    // Writing to memory does not fail.
    let _ = rmp::encode::write_sint(out, number);
}

/// Appends an integer that is not negative, in the shortest form.
pub fn append_unsigned(out: &mut Vec<u8>, number: u64) {
    // Writing to memory does not fail.
    let _ = rmp::encode::write_uint(out, number);
}

/// Appends a number with a fraction.
pub fn append_float(out: &mut Vec<u8>, number: f64) {
    out.push(0xcb);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends a boolean.
pub fn append_boolean(out: &mut Vec<u8>, boolean: bool) {
    out.push(if boolean { 0xc3 } else { 0xc2 });
}

/// Appends nil.
pub fn append_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason_of(bytes: &[u8]) -> Option<Reason> {
        validate(bytes).err().map(|malformed| malformed.reason)
    }

    #[test]
    fn hostile_bytes_are_refused_with_their_reason() {
        let deep = [vec![0x91; NESTING_MAX + 1], vec![0xc0]].concat();
        let million_deep = vec![0x91; 1_000_000];
        let cases: &[(&str, &[u8], Reason)] = &[
            ("nothing", &[], Reason::Truncated),
            ("string cut", &[0xa3, b'a'], Reason::Truncated),
            ("length cut", &[0xdb, 0xff], Reason::Truncated),
            ("huge array of nothing", &[0xdd, 0xff, 0xff, 0xff, 0xff], Reason::Truncated),
            ("huge map of nothing", &[0xdf, 0xff, 0xff, 0xff, 0xff], Reason::Truncated),
            ("huge binary of nothing", &[0xc6, 0xff, 0xff, 0xff, 0xff, 1], Reason::Truncated),
            ("two values", &[0xc0, 0xc0], Reason::TrailingBytes),
            ("reserved", &[0xc1], Reason::Reserved),
            ("extension", &[0xd4, 1, 2], Reason::ExtensionType),
            ("extension in an array", &[0x91, 0xc7, 0, 1], Reason::ExtensionType),
            ("bad text", &[0xa1, 0xff], Reason::NotUtf8),
            ("array as key", &[0x81, 0x90, 0xc0], Reason::ContainerAsKey),
            ("map as second key", &[0x82, 0x01, 0xc0, 0x80, 0xc0], Reason::ContainerAsKey),
            ("one level too deep", &deep, Reason::TooDeep),
            ("a million levels", &million_deep, Reason::TooDeep),
        ];
        for (name, bytes, reason) in cases {
            assert_eq!(reason_of(bytes), Some(*reason), "{name}");
        }
        assert_eq!(reason_of(&[vec![0x91; NESTING_MAX], vec![0xc0]].concat()), None);
        assert_eq!(skip(&million_deep, 0).unwrap_err().reason, Reason::Truncated);
    }

    #[test]
    fn every_prefix_and_every_flipped_byte_ends_without_a_panic() {
        let value = serde_json::json!({
            "entries": [{"path": "a b", "bytes": 300, "ratio": 1.5, "ok": true, "none": null, "minus": -70000}],
            "long": "x".repeat(300),
        });
        let bytes = rmp_serde::to_vec_named(&value).unwrap();
        assert_eq!(validate(&bytes), Ok(()));
        for end in 0..bytes.len() {
            assert_eq!(reason_of(&bytes[..end]), Some(Reason::Truncated), "prefix of {end}");
        }
        for at in 0..bytes.len() {
            for flipped in 0..=255 {
                let mut bytes = bytes.clone();
                bytes[at] = flipped;
                if validate(&bytes).is_ok() {
                    assert_eq!(skip(&bytes, 0), Ok(bytes.len()));
                }
            }
        }
    }

    #[test]
    fn heads_of_every_width_are_read_as_written() {
        let mut counts = vec![0, 1, 15, 16, 0xffff, 0x1_0000, u32::MAX];
        for count in counts.drain(..) {
            let mut bytes = Vec::new();
            append_array_head(&mut bytes, count);
            assert_eq!(token(&bytes, 0).unwrap(), (Token::Array(count), bytes.len()));
            bytes.clear();
            append_map_head(&mut bytes, count);
            assert_eq!(token(&bytes, 0).unwrap(), (Token::Map(count), bytes.len()));
        }
        for number in [0, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX) + 1, u64::MAX] {
            let mut bytes = Vec::new();
            append_unsigned(&mut bytes, number);
            assert_eq!(token(&bytes, 0).unwrap(), (Token::Unsigned(number), bytes.len()));
        }
        for number in [-1, -32, -33, -128, -129, -32_769, i64::from(i32::MIN) - 1, i64::MIN] {
            let mut bytes = Vec::new();
            append_integer(&mut bytes, number);
            assert_eq!(token(&bytes, 0).unwrap(), (Token::Negative(number), bytes.len()));
        }
        for length in [0, 31, 32, 255, 256, 65_535, 65_536] {
            let text = "t".repeat(length);
            let mut bytes = Vec::new();
            append_string(&mut bytes, &text).unwrap();
            assert_eq!(token(&bytes, 0).unwrap(), (Token::String(text.as_bytes()), bytes.len()));
            bytes.clear();
            append_binary(&mut bytes, text.as_bytes()).unwrap();
            assert_eq!(token(&bytes, 0).unwrap(), (Token::Binary(text.as_bytes()), bytes.len()));
        }
    }

    #[test]
    fn a_child_is_found_by_name_or_index_and_nowhere_else() {
        let bytes = rmp_serde::to_vec_named(&serde_json::json!({"a": [[1, 2], {"b": 7}], "c": 5})).unwrap();
        let find = |path: &[Key]| {
            path.iter()
                .try_fold(0, |at, key| child(&bytes, at, key).unwrap())
                .map(|at| token(&bytes, at).unwrap().0)
        };
        let field = |name: &str| Key::Field(name.into());
        assert_eq!(find(&[field("c")]), Some(Token::Unsigned(5)));
        assert_eq!(find(&[field("a"), Key::Index(1), field("b")]), Some(Token::Unsigned(7)));
        assert_eq!(find(&[field("a"), Key::Index(2)]), None);
        assert_eq!(find(&[field("a"), field("b")]), None);
        assert_eq!(find(&[Key::Index(0)]), None);
        assert_eq!(find(&[field("c"), field("d")]), None);
    }
}
