//! Frames and the little MessagePack that the handshake needs, written from the protocol's document.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

pub(crate) const HEADER_BYTES: usize = 32;

pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const WELCOME: u8 = 2;
    pub(crate) const READY: u8 = 3;
    pub(crate) const CALL: u8 = 4;
    pub(crate) const REPLY: u8 = 5;
    pub(crate) const FAULT: u8 = 6;
    pub(crate) const CANCEL: u8 = 7;
    pub(crate) const PROGRESS: u8 = 8;
    pub(crate) const LOG: u8 = 14;
    pub(crate) const HOST_CALL: u8 = 17;
    pub(crate) const GOODBYE: u8 = 21;
    pub(crate) const HEARTBEAT: u8 = 22;
    pub(crate) const DESCRIPTOR: u8 = 23;
}

const CODEC_NONE: u8 = 0;
const CODEC_MESSAGE_PACK: u8 = 1;
pub(crate) const FLAG_MORE: u8 = 1;

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) epoch: u32,
    pub(crate) method: u32,
    pub(crate) id: u64,
    pub(crate) body: Vec<u8>,
}

/// The bytes of a whole frame.
pub(crate) fn frame(kind: u8, epoch: u32, id: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let codec = if body.is_empty() { CODEC_NONE } else { CODEC_MESSAGE_PACK };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend([kind, codec, 0, 0]);
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(id.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(body);
    bytes
}

/// The next frame, or the end.
pub(crate) fn read_frame(channel: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER_BYTES];
    match channel.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let mut body = vec![0; u32_at(0) as usize];
    channel.read_exact(&mut body)?;
    let id = u64::from(u32_at(16)) | (u64::from(u32_at(20)) << 32);
    Ok(Some(Frame { kind: header[4], flags: header[6], epoch: u32_at(8), method: u32_at(12), id, body }))
}

pub(crate) fn send(mut channel: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    channel.write_all(bytes)
}

/// What of the host's first frame must be said back.
pub(crate) struct Hello {
    pub(crate) extension: String,
    pub(crate) nonce: u64,
    pub(crate) epoch: u32,
}

pub(crate) fn read_hello(frame: &Frame) -> Option<Hello> {
    let mut reader = Reader { bytes: &frame.body };
    let Value::Map(entries) = reader.value()? else { return None };
    let find = |name: &str| entries.iter().find(|(key, _)| *key == Value::Text(name.to_owned()));
    let Value::Text(extension) = &find("extension")?.1 else { return None };
    let Value::Number(nonce) = find("nonce")?.1 else { return None };
    Some(Hello { extension: extension.clone(), nonce, epoch: frame.epoch })
}

#[derive(Debug, PartialEq)]
enum Value {
    Nothing,
    Number(u64),
    Text(String),
    Bytes,
    List,
    Map(Vec<(Value, Value)>),
}

/// Reads as much MessagePack as a host's hello may hold.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Option<usize> {
        usize::try_from(self.number(bytes)?).ok()
    }

    fn value(&mut self) -> Option<Value> {
        let first = self.number(1)?;
        Some(match first {
            0x00..=0x7f => Value::Number(first),
            0x80..=0x8f => self.map((first & 0x0f) as usize)?,
            0x90..=0x9f => self.list((first & 0x0f) as usize)?,
            0xa0..=0xbf => self.text((first & 0x1f) as usize)?,
            0xc0 | 0xc2 | 0xc3 => Value::Nothing,
            0xc4..=0xc6 => {
                let length = self.length(1 << (first - 0xc4))?;
                self.take(length)?;
                Value::Bytes
            }
            0xcc..=0xcf => Value::Number(self.number(1 << (first - 0xcc))?),
            0xd9..=0xdb => {
                let length = self.length(1 << (first - 0xd9))?;
                self.text(length)?
            }
            0xdc | 0xdd => {
                let length = self.length(2 << (first - 0xdc))?;
                self.list(length)?
            }
            0xde | 0xdf => {
                let length = self.length(2 << (first - 0xde))?;
                self.map(length)?
            }
            _ => return None,
        })
    }

    fn text(&mut self, length: usize) -> Option<Value> {
        Some(Value::Text(String::from_utf8_lossy(self.take(length)?).into_owned()))
    }

    fn list(&mut self, length: usize) -> Option<Value> {
        for _ in 0..length {
            self.value()?;
        }
        Some(Value::List)
    }

    fn map(&mut self, length: usize) -> Option<Value> {
        let mut entries = Vec::new();
        for _ in 0..length {
            entries.push((self.value()?, self.value()?));
        }
        Some(Value::Map(entries))
    }
}

/// Writes MessagePack.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn map(mut self, length: u8) -> Self {
        self.0.push(0x80 | length);
        self
    }

    pub(crate) fn list(mut self, length: u8) -> Self {
        self.0.push(0x90 | length);
        self
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.0.push(0xda);
        self.0.extend(length.to_be_bytes());
        self.0.extend(&text.as_bytes()[..length.into()]);
        self
    }

    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.push(0xcf);
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn boolean(mut self, boolean: bool) -> Self {
        self.0.push(if boolean { 0xc3 } else { 0xc2 });
        self
    }
}
