//! One file, read once from its first byte to its last.
//!
//! A file that cannot be read is a result, not a failure: the other files of a folder are none the worse.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::time::Duration;

use extension_sdk::{Context, Fault, FaultCode};
use interfaces::{Entry, Row};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::language;

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// Before a call's deadline, so long: what a file did not give by then becomes a row that says so.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// A file with a zero byte among its first bytes, this many, is no text.
const BINARY_LOOK_BYTES: usize = 8 << 10;

/// Measures the file of an entry below `root`.
///
/// # Errors
///
/// [`FaultCode::InvalidArgument`] for a path that leads out of the root; the context's fault, when the call was
/// cancelled or its deadline passed.
pub(crate) fn measure(cx: &Context, root: &[u8], entry: &Entry) -> Result<Row, Fault> {
    let relative = Path::new(OsStr::from_bytes(&entry.path));
    if !relative.components().all(|component| matches!(component, Component::Normal(_))) {
        return Err(Fault::new(
            FaultCode::InvalidArgument,
            format!("`{}` is not a path below the root", entry.path),
        ));
    }
    let path = Path::new(OsStr::from_bytes(root)).join(relative);
    let known = language::of(&entry.path);
    let mut row = Row { path: entry.path.to_string(), ..Row::default() };
    match open(&path).and_then(|file| Contents::read(cx, file)) {
        Ok(contents) => {
            row.bytes = contents.bytes;
            row.lines = contents.lines;
            row.words = contents.words;
            row.blake3 = Some(contents.blake3);
            let unknown = if contents.is_binary { language::BINARY } else { language::OTHER };
            row.language = known.unwrap_or(unknown).to_owned();
        }
        Err(Unread::Stopped(fault)) => return Err(fault),
        Err(Unread::Error(error)) => {
            row.bytes = entry.bytes;
            row.error = Some(error);
            row.language = known.unwrap_or(language::OTHER).to_owned();
        }
    }
    Ok(row)
}

/// Why a file was not read to its end.
enum Unread {
    /// Something is wrong with the file.
    Error(String),
    /// Nobody waits for the result any more.
    Stopped(Fault),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Error(match error.kind() {
            io::ErrorKind::NotFound => "it is no longer there".to_owned(),
            _ => error.to_string(),
        })
    }
}

const NOT_REGULAR: &str = "it is no longer a regular file";

/// Opens a regular file. What took its place since it was listed is neither followed nor waited for.
fn open(path: &Path) -> Result<File, Unread> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // A symbolic link, and a socket.
        Err(Errno::LOOP | Errno::NXIO) => return Err(Unread::Error(NOT_REGULAR.to_owned())),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    if !file.metadata()?.is_file() {
        return Err(Unread::Error(NOT_REGULAR.to_owned()));
    }
    Ok(file)
}

/// What is in a file.
struct Contents {
    bytes: u64,
    lines: u64,
    words: u64,
    is_binary: bool,
    blake3: String,
}

impl Contents {
    fn read(cx: &Context, mut file: File) -> Result<Self, Unread> {
        let patience = cx.remaining();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut hasher = blake3::Hasher::new();
        let mut counts = Counts::default();
        let mut bytes = 0;
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let part = &buffer[..read];
            hasher.update(part);
            counts.add(part);
            bytes += part.len() as u64;
            cx.check().map_err(Unread::Stopped)?;
            // One slow file must not cost the others their report.
            if let (Some(patience), Some(left)) = (patience, cx.remaining())
                && left < ANSWER_TIME.min(patience / 2)
            {
                return Err(Unread::Error(format!("it could not be read to its end within {patience:.0?}")));
            }
        }
        let Counts { newlines, words, is_binary, last, .. } = counts;
        let lines = newlines + u64::from(bytes > 0 && last != b'\n');
        Ok(Self { bytes, lines, words, is_binary, blake3: hasher.finalize().to_hex().to_string() })
    }
}

/// Counts that go on from one part of a file to the next.
struct Counts {
    newlines: u64,
    words: u64,
    is_binary: bool,
    looked_at: usize,
    last: u8,
}

impl Default for Counts {
    fn default() -> Self {
        // Before the first byte there is white space, so that a word may begin there.
        Self { newlines: 0, words: 0, is_binary: false, looked_at: 0, last: b' ' }
    }
}

impl Counts {
    fn add(&mut self, part: &[u8]) {
        let look = &part[..part.len().min(BINARY_LOOK_BYTES - self.looked_at)];
        self.looked_at += look.len();
        self.is_binary |= look.contains(&0);
        let mut was_space = is_space(self.last);
        for &byte in part {
            let is_space = is_space(byte);
            self.newlines += u64::from(byte == b'\n');
            self.words += u64::from(was_space && !is_space);
            was_space = is_space;
        }
        self.last = part.last().copied().unwrap_or(self.last);
    }
}

/// The six white-space bytes of ASCII.
fn is_space(byte: u8) -> bool {
    byte == b' ' || byte.wrapping_sub(b'\t') < 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_words_are_counted_across_parts() {
        let cases: [(&[u8], u64, u64); 8] = [
            (b"", 0, 0),
            (b"\n", 1, 0),
            (b"one", 1, 1),
            (b"one\ntwo", 2, 2),
            (b"one\ntwo\n", 2, 2),
            (b" a\tb\x0bc\x0cd\re ", 1, 5),
            (b"\xff\xfe \xfd", 1, 2),
            (b"a\0b", 1, 1),
        ];
        for (text, lines, words) in cases {
            for cut in 0..=text.len() {
                let mut counts = Counts::default();
                counts.add(&text[..cut]);
                counts.add(&text[cut..]);
                let found = counts.newlines + u64::from(!text.is_empty() && counts.last != b'\n');
                assert_eq!((found, counts.words), (lines, words), "{} at {cut}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn only_the_first_bytes_say_whether_it_is_text() {
        let mut late = vec![b'x'; BINARY_LOOK_BYTES];
        late.push(0);
        let mut counts = Counts::default();
        counts.add(&late[..100]);
        counts.add(&late[100..]);
        assert!(!counts.is_binary);
        let mut counts = Counts::default();
        counts.add(&late[1..]);
        assert!(counts.is_binary);
    }

    #[test]
    fn white_space_is_that_of_ascii() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_space(byte), byte.is_ascii_whitespace() || byte == 0x0b, "{byte:#x}");
        }
    }
}
