//! What is done with a hostile host: the target of the fuzzer, and its corpus replayed. Only in tests and for the
//! fuzzer.
//!
//! ```text
//! one step after the other: frames that the host sends, bytes, reads
//! ```
//!
//! What must hold, whatever the host does: each call that it may make is answered once, and what is known of its answer
//! is right; the extension sends nothing but what the page allows; it ends at the first violation, says so, and without
//! one never before the host does.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipc_protocol::control::{Goodbye, Metadata};
use ipc_protocol::handshake::Hello;
use ipc_protocol::{Codec, Fault, Flags, Header, Kind};
use ipc_transport::framing::{Frame, FrameBuffer, append_frame, append_message};

use super::{Embedding, End, ServeError, serve};
use crate::context::Context;
use crate::definition::Extension;

#[crate::interface]
trait Trial {
    /// Adds.
    fn add(&self, numbers: Vec<u64>) -> Result<u64, Fault>;
    /// Waits until it is cancelled, or a while.
    fn hold(&self, cx: &Context) -> Result<u8, Fault>;
    fn report(&self, cx: &Context) -> Result<(), Fault>;
    async fn later(&self, text: String) -> Result<String, Fault>;
}

const ADD: u32 = 0;
const HOLD: u32 = 1;

#[derive(Default)]
struct Subject;

impl Trial for Subject {
    fn add(&self, numbers: Vec<u64>) -> Result<u64, Fault> {
        Ok(numbers.iter().fold(0, |sum, number| sum.wrapping_add(*number)))
    }

    fn hold(&self, cx: &Context) -> Result<u8, Fault> {
        let deadline = Instant::now() + HOLD_MAX;
        while Instant::now() < deadline {
            cx.check()?;
            thread::park_timeout(Duration::from_micros(100));
        }
        Ok(1)
    }

    fn report(&self, cx: &Context) -> Result<(), Fault> {
        cx.progress(1, Some(2), "half");
        cx.progress(2, Some(2), "all");
        Ok(())
    }

    async fn later(&self, text: String) -> Result<String, Fault> {
        Ok(text)
    }
}

mod exported {
    use super::{Subject, Trial};
    crate::export!(Subject as Trial);
    const _: fn() -> std::process::ExitCode = main;
}

const EPOCH: u32 = 9;

/// LIMIT: steps of one input.
const STEPS_MAX: usize = 100;

/// LIMIT: how long a call is held that nobody cancels.
const HOLD_MAX: Duration = Duration::from_millis(4);

/// LIMIT: calls of one input that are held.
const HELD_MAX: usize = 3;

/// A bound for every wait; none comes near it unless there is a finding.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The least that a host may allow.
const MESSAGE_BYTES_MAX: u64 = 100_000;

/// The target.
///
/// # Panics
///
/// When something does not hold, see the module.
#[cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzzer's package calls it"))]
pub fn serving(mut data: &[u8]) {
    let mut host = Host::open();
    for _ in 0..STEPS_MAX {
        let Some(step) = data.split_off_first() else { break };
        host.step(*step, &mut data);
    }
    host.end();
}

fn byte(data: &mut &[u8]) -> u8 {
    data.split_off_first().copied().unwrap_or(0)
}

fn bytes<'a>(data: &mut &'a [u8], count: u8) -> &'a [u8] {
    let count = usize::from(count).min(data.len());
    data.split_off(..count).unwrap_or_default()
}

struct Host {
    channel: UnixStream,
    server: JoinHandle<Result<End, ServeError>>,
    said: Vec<u8>,
    written: usize,
    heard: FrameBuffer,
    frames: Vec<Frame>,
    has_ended: bool,
    held: usize,
}

impl Host {
    fn open() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair is to be had");
        ours.set_nonblocking(true).expect("a socket takes it");
        let server = thread::spawn(|| serve(theirs, Subject::definition(), Embedding::Process, |_| {}));
        let mut hello = Hello::new(env!("CARGO_PKG_NAME"), EPOCH, 1);
        hello.message_bytes_max = MESSAGE_BYTES_MAX;
        let mut said = Vec::new();
        append_message(&mut said, Header::new(Kind::Hello, EPOCH, 0), &hello).expect("encoded");
        Self {
            channel: ours,
            server,
            said,
            written: 0,
            heard: FrameBuffer::new(u64::MAX),
            frames: Vec::new(),
            has_ended: false,
            held: 0,
        }
    }

    fn step(&mut self, step: u8, data: &mut &[u8]) {
        match step % 16 {
            0..=6 => self.call(data),
            7 => {
                let cancel = Header::new(Kind::Cancel, EPOCH, (byte(data) & 0x0f).into());
                append_frame(&mut self.said, cancel, &[]);
            }
            8 => append_frame(&mut self.said, Header::new(Kind::Ping, EPOCH, byte(data).into()), &[]),
            9 => self.anything(data),
            10 => {
                let count = byte(data);
                self.said.extend(bytes(data, count));
            }
            11 => {
                // No descriptor travels; it is only spoken of.
                let grant = Header::new(Kind::Descriptor, EPOCH, (byte(data) & 0x0f).into());
                append_frame(&mut self.said, grant, &[]);
            }
            12 | 13 => {
                self.write();
                thread::yield_now();
                self.read();
            }
            14 => self.settle(),
            _ if byte(data) < 0x40 => append_frame(&mut self.said, Header::new(Kind::Drain, EPOCH, 0), &[]),
            _ => self.write(),
        }
    }

    fn call(&mut self, data: &mut &[u8]) {
        let (what, id, how) = (byte(data), byte(data), byte(data));
        let mut header = Header::new(Kind::Call, EPOCH, id.into());
        header.codec = Codec::MessagePack;
        header.method = (what & 7).into();
        if header.method == HOLD {
            self.held += 1;
            if self.held > HELD_MAX {
                header.method = ADD;
            }
        }
        let mut body = Vec::new();
        match what >> 3 & 7 {
            0 => body.extend(bytes(data, what & 0x3f)),
            1 => {}
            2 => body.resize(50_000 + usize::from(id) * 200, 0xc0),
            3 => body.extend(b"\x81\xa4text\xa1x"),
            // Numbers whose sum is the id.
            _ => body.extend([b"\x81\xa7numbers\x91\xcc".as_slice(), &[id]].concat()),
        }
        match how {
            0 => header.epoch += 1,
            1 => header.codec = Codec::Wincode,
            2 => header.flags = Flags::from_wire(byte(data) & 7).unwrap_or_default(),
            3 => header.descriptors = byte(data) & 0x0f,
            4 => header.aux = byte(data).into(),
            5 => header.aux = u64::MAX,
            6 => {
                header.flags = Flags::METADATA;
                let mut metadata = rmp_serde::to_vec_named(&Metadata::default()).expect("encoded");
                metadata.extend(bytes(data, what & 3));
                let length =
                    u32::try_from(metadata.len()).expect("it is short") + u32::from(byte(data) / 0xf0);
                body = [&length.to_le_bytes()[..], &metadata, &body].concat();
            }
            _ => {}
        }
        append_frame(&mut self.said, header, &body);
    }

    fn anything(&mut self, data: &mut &[u8]) {
        let kind = Kind::ALL[usize::from(byte(data)) % Kind::ALL.len()];
        let mut header = Header::new(kind, EPOCH, byte(data).into());
        let length = byte(data) & 0x3f;
        let body = bytes(data, length);
        header.codec = if body.is_empty() { Codec::None } else { Codec::MessagePack };
        append_frame(&mut self.said, header, body);
    }

    fn write(&mut self) {
        while self.written < self.said.len() {
            match self.channel.write(&self.said[self.written..]) {
                Ok(count) => self.written += count,
                // It does not read for now, or has left.
                Err(_) => return,
            }
        }
    }

    fn read(&mut self) {
        while !self.has_ended {
            while let Some(frame) = self.heard.next_frame().expect("an extension sends frames") {
                self.frames.push(frame);
            }
            let channel = &mut self.channel;
            match self.heard.read_from(|room| channel.read(room)) {
                Ok(0) => self.has_ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // What it did not read makes its end a reset.
                Err(_) => self.has_ended = true,
            }
        }
    }

    /// Until everything is said and answered, or the extension has left.
    fn settle(&mut self) {
        let deadline = Instant::now() + WAIT_MAX;
        while !self.has_ended {
            self.write();
            self.read();
            let judged = judge(&self.said[..self.written]);
            let owed =
                judged.answers.iter().filter(|(id, owed)| self.answers(**id).count() < owed.count).count();
            let pongs = self.frames.iter().filter(|frame| frame.header.kind == Kind::Pong).count();
            if judged.ending == Ending::WithHost && owed == 0 && pongs == judged.pings.len() {
                return;
            }
            if judged.ending == Ending::Either && self.written == self.said.len() {
                return;
            }
            assert!(Instant::now() < deadline, "{judged:?}, and {owed} calls are not answered");
            thread::park_timeout(Duration::from_micros(50));
        }
    }

    fn answers(&self, id: u64) -> impl Iterator<Item = &Frame> {
        let is_answer = |frame: &Frame| matches!(frame.header.kind, Kind::Reply | Kind::Fault);
        self.frames.iter().filter(move |frame| is_answer(frame) && frame.header.id == id)
    }

    fn end(mut self) {
        self.settle();
        let judged = judge(&self.said[..self.written]);
        if judged.ending == Ending::WithHost {
            assert!(!self.has_ended, "it left, and nobody had told it to");
        }
        let _ = self.channel.shutdown(Shutdown::Write);
        let deadline = Instant::now() + WAIT_MAX;
        while !(self.has_ended && self.server.is_finished()) {
            assert!(Instant::now() < deadline, "it does not end");
            self.read();
            thread::park_timeout(Duration::from_micros(50));
        }
        self.check_frames(&judged);
        let reason = self.frames.last().filter(|frame| frame.header.kind == Kind::Goodbye);
        let reason = reason.map(|frame| frame.decode::<Goodbye>().expect("a goodbye").reason);
        let ended = self.server.join().expect("it does not panic");
        match (judged.ending, &ended) {
            (Ending::WithHost | Ending::Either, Ok(End::HostGone)) => {}
            (Ending::Either, Ok(End::Drained)) => {}
            (Ending::Violation | Ending::Either, Err(ServeError::Violation(_))) => {
                // A host that has closed its end is told all the same; only one that resets is not.
                let is_told =
                    reason.as_deref().is_some_and(|it| it.starts_with("the host broke the protocol"));
                assert!(is_told, "{reason:?}");
            }
            (ending, ended) => panic!("{ending:?} by what was said, and the extension: {ended:?}"),
        }
    }

    fn check_frames(&self, judged: &Judged) {
        let mut pings = judged.pings.iter();
        for (at, frame) in self.frames.iter().enumerate() {
            let Header { kind, id, epoch, .. } = frame.header;
            assert_eq!(epoch, EPOCH);
            match kind {
                Kind::Welcome => assert_eq!(at, 0),
                Kind::Ready => assert_eq!(at, 1),
                Kind::Pong if judged.ending != Ending::Either => assert_eq!(pings.next(), Some(&id)),
                Kind::Goodbye => assert_eq!(at, self.frames.len() - 1),
                Kind::Reply | Kind::Fault => {
                    let count = self.answers(id).count();
                    let owed = judged.answers.get(&id).map_or(0, |owed| owed.count);
                    assert!(count <= owed || judged.ending == Ending::Either, "{count} answers to call {id}");
                }
                Kind::Pong
                | Kind::Progress
                | Kind::Log
                | Kind::Heartbeat
                | Kind::StreamDrop
                | Kind::StreamEnd => {}
                kind => panic!("an extension sends no {kind:?}"),
            }
        }
        for (id, owed) in judged.answers.iter().filter(|(_, owed)| owed.count == 1) {
            if let (Some(frame), Some(sum)) = (self.answers(*id).next(), owed.sum) {
                let found: Option<u64> = rmp_serde::from_slice(&frame.body).ok();
                assert_eq!((frame.header.kind, found), (Kind::Reply, Some(sum)), "{frame:?}");
            }
        }
    }
}

/// How the extension ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// When the host does.
    WithHost,
    /// With a violation.
    Violation,
    /// Who ran first decides: a drain may be over, a call whose id is used again may be answered.
    Either,
}

#[derive(Debug, Default)]
struct Owed {
    count: usize,
    /// What the answer must be, where it is known.
    sum: Option<u64>,
}

#[derive(Debug)]
struct Judged {
    ending: Ending,
    answers: HashMap<u64, Owed>,
    pings: Vec<u64>,
}

/// What an extension must make of what a host said.
fn judge(mut said: &[u8]) -> Judged {
    let mut judged = Judged { ending: Ending::WithHost, answers: HashMap::new(), pings: Vec::new() };
    let mut frames = FrameBuffer::new(u64::MAX);
    let mut is_greeted = false;
    let mut with_descriptors = Vec::new();
    loop {
        let frame = match frames.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                let read = frames.read_from(|room| said.read(room)).expect("a slice is read");
                if read == 0 {
                    return judged;
                }
                continue;
            }
            Err(_) => {
                judged.ending = Ending::Violation;
                return judged;
            }
        };
        if !std::mem::replace(&mut is_greeted, true) {
            frames.set_message_bytes_max(MESSAGE_BYTES_MAX);
            continue;
        }
        let Header { kind, id, .. } = frame.header;
        if frame.header.epoch != EPOCH {
            continue;
        }
        let ending = match kind {
            Kind::Call => judged.call(&frame, &with_descriptors),
            Kind::Ping => {
                judged.pings.push(id);
                Ending::WithHost
            }
            Kind::Drain => Ending::Either,
            Kind::Cancel => {
                // A sum is not known any more: it may be given up.
                if let Some(owed) = judged.answers.get_mut(&id) {
                    owed.sum = None;
                }
                Ending::WithHost
            }
            Kind::Descriptor => {
                with_descriptors.push(id);
                Ending::WithHost
            }
            Kind::Goodbye
            | Kind::StreamData
            | Kind::StreamCredit
            | Kind::StreamEnd
            | Kind::StreamDrop
            | Kind::HostReply
            | Kind::HostFault
            | Kind::SegmentReturn => Ending::WithHost,
            _ => Ending::Violation,
        };
        if ending != Ending::WithHost {
            judged.ending = ending;
            return judged;
        }
    }
}

impl Judged {
    fn call(&mut self, frame: &Frame, with_descriptors: &[u64]) -> Ending {
        let Header { id, flags, codec, descriptors, method, aux, .. } = frame.header;
        let is_refused =
            flags.contains(Flags::SEGMENT) || codec == Codec::Wincode || descriptors > 0 || method >= 4;
        let owed = self.answers.entry(id).or_default();
        let mut arguments = &frame.body[..];
        if !is_refused {
            if flags.contains(Flags::METADATA) {
                let rest = arguments.split_first_chunk::<4>().and_then(|(length, rest)| {
                    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
                    rest.get(length..)
                });
                let Some(rest) = rest else { return Ending::Violation };
                arguments = rest;
            }
            if owed.count > 0 {
                return Ending::Either;
            }
        }
        owed.count += 1;
        let is_sum = method == ADD && !is_refused && aux == 0 && !with_descriptors.contains(&id);
        owed.sum = match arguments.strip_prefix(b"\x81\xa7numbers\x91\xcc") {
            Some([number]) if is_sum => Some((*number).into()),
            _ => None,
        };
        Ending::WithHost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_of_serving_holds() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/serving");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            thread::spawn(move || serving(&data)).join().unwrap_or_else(|_| panic!("{}", path.display()));
            files += 1;
        }
        assert!(files > 0, "the corpus of serving is empty");
        // Past the capture of output: the count is part of the result.
        let _ = writeln!(io::stderr(), "corpus of serving: {files} files replayed");
    }
}
