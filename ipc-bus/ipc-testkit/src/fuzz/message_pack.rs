//! MessagePack: what is let through to the decoder is one value, no deeper than allowed, which the decoder then
//! reads without a panic and without more memory than it has bytes. What is not let through is no such value.

use std::fmt;

use ipc_protocol::control::{
    DescriptorGrant, Event, Goodbye, Heartbeat, LogRecord, Metadata, Progress, SegmentSpan,
};
use ipc_protocol::handshake::{Hello, Ready, Welcome};
use ipc_protocol::limits::NESTING_MAX;
use ipc_protocol::{Codec, Fault, Header, Kind};
use ipc_transport::framing::Frame;
use ipc_transport::scan::{ScanError, scan};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};

/// The target.
///
/// # Panics
///
/// When the scan and a slow reading differ, or the decoder fails on what the scan let through.
pub fn message_pack(data: &[u8]) {
    let scanned = scan(data);
    match (value(data, 0), scanned) {
        (Some([]), Ok(())) => {}
        (Some(rest), Err(ScanError::Extra { extra })) if rest.len() == extra && extra > 0 => {}
        (None, Err(error)) if !matches!(error, ScanError::Extra { .. }) => check_place(data, error),
        (slow, scanned) => panic!("the scan says {scanned:?}, and left are {slow:02x?}"),
    }
    for decode in CONTROL_MESSAGES {
        decode(data);
    }
    if scanned.is_err() {
        return;
    }
    let decoded = rmp_serde::from_slice::<Anything>(data).expect("one value is decoded");
    assert!(decoded.values <= data.len() as u64 && decoded.bytes <= data.len() as u64, "{decoded:?}");
    assert!(decoded.depth <= NESTING_MAX, "{decoded:?}");
}

/// Reads one value; what follows it. `None`: it is cut off, too deep, or not MessagePack.
fn value(bytes: &[u8], depth: usize) -> Option<&[u8]> {
    let (&marker, rest) = bytes.split_first()?;
    // The number that a marker of one, two or four bytes announces.
    let announced = |size: usize| -> Option<(usize, &[u8])> {
        let (digits, rest) = rest.split_at_checked(size)?;
        let number = digits.iter().fold(0_u64, |number, digit| number * 256 + u64::from(*digit));
        Some((usize::try_from(number).ok()?, rest))
    };
    let after = |rest: Option<(usize, &'_ [u8])>, more: usize| -> Option<&[u8]> {
        let (count, rest) = rest?;
        bytes.get(bytes.len() - rest.len() + count + more..)
    };
    let items = |begun: Option<(usize, &'_ [u8])>, each: usize| -> Option<&[u8]> {
        let (count, rest) = begun?;
        let mut rest = &bytes[bytes.len() - rest.len()..];
        if depth == NESTING_MAX {
            return None;
        }
        for _ in 0..count * each {
            rest = value(rest, depth + 1)?;
        }
        Some(rest)
    };
    let short = |mask: u8| Some((usize::from(marker & mask), rest));
    match marker {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0.. => Some(rest),
        0x80..=0x8f => items(short(0x0f), 2),
        0x90..=0x9f => items(short(0x0f), 1),
        0xa0..=0xbf => after(short(0x1f), 0),
        0xc1 => None,
        0xc4 | 0xd9 => after(announced(1), 0),
        0xc5 | 0xda => after(announced(2), 0),
        0xc6 | 0xdb => after(announced(4), 0),
        0xc7 => after(announced(1), 1),
        0xc8 => after(announced(2), 1),
        0xc9 => after(announced(4), 1),
        0xcc | 0xd0 => rest.get(1..),
        0xcd | 0xd1 => rest.get(2..),
        0xca | 0xce | 0xd2 => rest.get(4..),
        0xcb | 0xcf | 0xd3 => rest.get(8..),
        0xd4 => rest.get(2..),
        0xd5 => rest.get(3..),
        0xd6 => rest.get(5..),
        0xd7 => rest.get(9..),
        0xd8 => rest.get(17..),
        0xdc => items(announced(2), 1),
        0xdd => items(announced(4), 1),
        0xde => items(announced(2), 2),
        0xdf => items(announced(4), 2),
    }
}

/// An error names a place within the bytes.
fn check_place(data: &[u8], error: ScanError) {
    let is_right = match error {
        ScanError::CutOff { at } => at == data.len(),
        ScanError::Reserved { at } => data[at] == 0xc1,
        ScanError::TooDeep { at } => at >= NESTING_MAX && matches!(data[at], 0x80..=0x9f | 0xdc..=0xdf),
        ScanError::Extra { .. } => false,
    };
    assert!(is_right, "{error:?}");
}

/// Whatever they say: a message or an error.
const CONTROL_MESSAGES: [fn(&[u8]); 12] = [
    decode::<Hello>,
    decode::<Welcome>,
    decode::<Ready>,
    decode::<Fault>,
    decode::<Progress>,
    decode::<Event>,
    decode::<LogRecord>,
    decode::<Heartbeat>,
    decode::<Goodbye>,
    decode::<DescriptorGrant>,
    decode::<Metadata>,
    decode::<SegmentSpan>,
];

fn decode<T: DeserializeOwned>(body: &[u8]) {
    let header = Header { codec: Codec::MessagePack, ..Header::new(Kind::Event, 1, 1) };
    let frame = Frame { header, body: body.to_vec().into() };
    let decoded = frame.decode::<T>();
    assert!(decoded.is_err() || scan(body).is_ok(), "it was decoded without a look");
}

/// How much a value holds.
#[derive(Clone, Copy, Debug, Default)]
struct Anything {
    values: u64,
    /// Of strings and binaries.
    bytes: u64,
    depth: usize,
}

impl Anything {
    const ONE: Self = Self { values: 1, bytes: 0, depth: 0 };

    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, ..Self::ONE }
    }

    fn add(&mut self, item: Self) {
        self.values += item.values;
        self.bytes += item.bytes;
        self.depth = self.depth.max(item.depth + 1);
    }
}

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Weigh)
    }
}

struct Weigh;

impl<'de> Visitor<'de> for Weigh {
    type Value = Anything;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Anything, E> {
        Ok(Anything::ONE)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Anything, E> {
        Ok(Anything::ONE)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Anything, E> {
        Ok(Anything::ONE)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Anything, E> {
        Ok(Anything::ONE)
    }

    fn visit_unit<E>(self) -> Result<Anything, E> {
        Ok(Anything::ONE)
    }

    fn visit_str<E>(self, value: &str) -> Result<Anything, E> {
        Ok(Anything::of(value.as_bytes()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Anything, E> {
        Ok(Anything::of(value))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Anything, D::Error> {
        // An extension of MessagePack: its number and its bytes.
        let (_, bytes): (i8, serde_bytes::ByteBuf) = Deserialize::deserialize(deserializer)?;
        Ok(Anything::of(&bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Anything, A::Error> {
        let mut all = Anything { depth: 1, ..Anything::ONE };
        while let Some(item) = items.next_element()? {
            all.add(item);
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Anything, A::Error> {
        let mut all = Anything { depth: 1, ..Anything::ONE };
        while let Some((key, value)) = items.next_entry()? {
            all.add(key);
            all.add(value);
        }
        Ok(all)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Anything, A::Error> {
        Err(de::Error::custom("nobody asked for a variant"))
    }
}
