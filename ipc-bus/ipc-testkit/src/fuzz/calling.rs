//! A connection and a peer that says anything, while calls are made, dropped and expire.
//!
//! ```text
//! limits (3 bytes) | one step after the other: of the caller, of the peer, of the runtime
//! ```
//!
//! What must hold, whatever they do: each call ends, once; what was not delivered was never seen; what was answered has
//! the answer that was given, and has it for certain if the host surely heard it; the host sends nothing but what the
//! page allows; it ends the peer at the first violation, and without one never.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ipc_protocol::control::{Goodbye, Progress};
use ipc_protocol::handshake::{Hello, MethodEntry, Ready, Welcome};
use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, Kind};
use ipc_transport::connection::{CloseReason, ConnectOptions, Connection, ConnectionStatistics, connect};
use ipc_transport::framing::{append_frame, append_message};
use ipc_transport::{CallError, CallResult, Caller, Cause, Encoded, Payload, Reply, Request};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::calling_model::{Seen, Verdict, judge};
use super::input::Input;
use super::slow_frames::{HEADER, frame_at, hear};
use crate::peer::PATIENCE;

const EPOCH: u32 = 7;

/// LIMIT: steps of one input.
const STEPS_MAX: usize = 100;

/// LIMIT: bytes of all arguments of one input.
const ARGUMENT_BYTES_MAX: usize = 3 << 20;

/// LIMIT: deadlines that one input waits for.
const EXPIRIES_MAX: usize = 2;

/// A deadline that passes while one looks.
const SHORT: Duration = Duration::from_micros(500);

/// The first call's number: it and all that follow are encoded in five bytes.
const FIRST_NUMBER: u32 = 1 << 24;

/// The target.
///
/// # Panics
///
/// When something does not hold, see the module.
pub fn calling(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime is to be had").block_on(async {
        let mut input = Input::new(data);
        let mut trial = Trial::open(&mut input).await;
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            trial.step(&mut input).await;
            trial.check_bounds();
        }
        trial.end().await;
    });
}

struct Call {
    /// The arguments' first bytes say it.
    number: u32,
    bytes: usize,
    expires: bool,
    reply: Option<Reply>,
    outcome: Option<Result<Vec<u8>, CallError>>,
}

struct Trial {
    connection: Option<Connection>,
    message_bytes_max: u64,
    queued_bytes_max: u64,
    calls: Vec<Call>,
    argument_bytes: usize,
    expiries: usize,
    /// This side closed, so that what the peer says need not be heard.
    closed_here: bool,
    /// What was said when the host last was known to have heard all of it.
    settled: usize,
    channel: UnixStream,
    /// Everything that the peer said, and how much of it was written.
    said: Vec<u8>,
    written: usize,
    says_no_more: bool,
    /// Everything that the peer read, and how much of it was looked at.
    read: Vec<u8>,
    looked_at: usize,
    seen: Seen,
    seen_ids: Vec<u64>,
}

impl Call {
    fn end(&mut self, outcome: CallResult) {
        self.outcome = Some(outcome.and_then(|answer| Ok(answer.into_encoded()?.bytes.to_vec())));
        self.reply = None;
    }
}

/// The arguments of a call, or an answer: its number, and as many bytes in all.
fn numbered(number: u32, bytes: usize) -> Vec<u8> {
    let mut body = vec![0xce];
    body.extend(number.to_be_bytes());
    body.resize(bytes.max(5), 0xaa);
    body
}

fn number_of(body: &[u8]) -> Option<u32> {
    let (digits, _) = body.strip_prefix(&[0xce])?.split_first_chunk()?;
    Some(u32::from_be_bytes(*digits))
}

impl Trial {
    async fn open(input: &mut Input<'_>) -> Self {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair is to be had");
        theirs.set_nonblocking(true).expect("a socket takes it");
        let mut hello = Hello::new("test", EPOCH, 1);
        hello.message_bytes_max = input.pick(&[100_000, 1 << 20, 256 << 20, 10]);
        let methods = vec![MethodEntry::new("zero", 0), MethodEntry::new("one", 0)];
        let welcome = Welcome::answering(&hello, 1, "test", "1", methods);
        let mut greeting = Vec::new();
        append_message(&mut greeting, Header::new(Kind::Welcome, EPOCH, 0), &welcome).expect("encoded");
        append_message(&mut greeting, Header::new(Kind::Ready, EPOCH, 0), &Ready::default())
            .expect("encoded");
        theirs.write_all(&greeting).expect("there is room");
        let message_bytes_max = hello.message_bytes_max;
        let mut options = ConnectOptions::new(hello);
        options.in_flight_max = input.pick(&[1, 2, 3, 64]);
        options.queued_bytes_max = input.pick(&[0, 100, 5000, 1 << 20]);
        let queued_bytes_max = options.queued_bytes_max;
        let connection = connect(ours, options, Arc::new(())).await.expect("the peer does its part");
        let mut trial = Self {
            connection: Some(connection),
            message_bytes_max,
            queued_bytes_max,
            calls: Vec::new(),
            argument_bytes: 0,
            expiries: 0,
            closed_here: false,
            settled: 0,
            channel: theirs,
            said: Vec::new(),
            written: 0,
            says_no_more: false,
            read: Vec::new(),
            looked_at: 0,
            seen: Seen::default(),
            seen_ids: Vec::new(),
        };
        trial.hear();
        trial
    }

    async fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 24 {
            0..=5 => self.call(input),
            6 => {
                if let Some(place) = self.any_live(input) {
                    self.calls[place].reply = None;
                }
            }
            7 => {
                if let Some(place) = self.any_live(input) {
                    self.look(place);
                }
            }
            8 => self.wait_for_a_deadline().await,
            9..=13 => {
                self.hear();
                self.say(input);
                let count = if input.byte() < 0xc0 { usize::MAX } else { input.u16().into() };
                self.write(count);
            }
            14 => {
                let count = input.byte().into();
                let bytes = input.bytes(count).to_vec();
                self.push(&bytes);
                self.write(usize::MAX);
            }
            15 => self.write(usize::MAX),
            16 => drop(self.hear()),
            17 | 18 => {
                for _ in 0..input.byte() % 4 {
                    yield_now().await;
                }
            }
            19 | 20 => self.settle().await,
            21 => self.end_something(input),
            22 => {
                self.hear();
                self.write(usize::MAX);
                yield_now().await;
            }
            _ => {
                let how = if input.byte() < 0xc0 { Shutdown::Write } else { Shutdown::Both };
                self.write(usize::MAX);
                // It fails where the host has left.
                let _ = self.channel.shutdown(how);
                self.says_no_more = true;
                self.said.truncate(self.written);
            }
        }
    }

    // ---- the caller ------------------------------------------------------------------------------------

    fn call(&mut self, input: &mut Input<'_>) {
        let number = FIRST_NUMBER + u32::try_from(self.calls.len()).expect("there are few steps");
        let how = input.byte();
        let bytes = match how & 7 {
            0 => 5,
            1 => usize::from(input.byte()).max(5),
            2 => 5000,
            3 => (16 << 10) + 1,
            4 => 70_000,
            5 => 300_000,
            6 => 1 << 20,
            _ => 100,
        };
        if self.argument_bytes + bytes > ARGUMENT_BYTES_MAX {
            return;
        }
        let Some(connection) = &self.connection else { return };
        self.argument_bytes += bytes;
        let (timeout, expires) = match how >> 3 & 7 {
            0 => (Duration::ZERO, true),
            1 => (SHORT, true),
            _ => (PATIENCE * 100, false),
        };
        let codec = if how == 0xff { Codec::Wincode } else { Codec::MessagePack };
        let method = if how >> 6 & 1 == 0 { "zero" } else { "one" };
        let (mut typed, encoded) = (Some(number), numbered(number, bytes));
        let payload = match how & 0x87 {
            0x80 => Payload::Typed(&mut typed),
            _ => Payload::Encoded(Encoded { codec, bytes: encoded.into() }),
        };
        let mut request = Request::new(method, payload, timeout);
        if how & 0xc0 == 0xc0 {
            request = request.or_reject();
        }
        let reply = Some(connection.call(request));
        self.calls.push(Call { number, bytes, expires, reply, outcome: None });
    }

    fn any_live(&self, input: &mut Input<'_>) -> Option<usize> {
        let live: Vec<_> = (0..self.calls.len()).filter(|&place| self.calls[place].reply.is_some()).collect();
        let at = usize::from(input.byte());
        (!live.is_empty()).then(|| live[at % live.len()])
    }

    /// Takes an outcome that is there.
    fn look(&mut self, place: usize) {
        if let Some(outcome) = self.calls[place].reply.as_mut().and_then(at_once) {
            self.calls[place].end(outcome);
        }
    }

    /// Waits for an outcome.
    async fn wait(&mut self, place: usize) {
        let call = &mut self.calls[place];
        if let Some(reply) = &mut call.reply {
            let outcome = timeout(PATIENCE, reply).await.expect("a call has no outcome");
            call.end(outcome);
        }
    }

    async fn wait_for_a_deadline(&mut self) {
        let expires = |call: &Call| call.expires && call.reply.is_some();
        if let Some(place) = self.calls.iter().position(expires)
            && self.expiries < EXPIRIES_MAX
        {
            self.expiries += 1;
            self.wait(place).await;
        }
    }

    fn end_something(&mut self, input: &mut Input<'_>) {
        let Some(connection) = &self.connection else { return };
        match input.byte() % 8 {
            0..=2 => connection.drain(),
            3 | 4 => connection.goodbye("enough"),
            5 => {
                connection.fail_all(Cause::Died("so it was said".to_owned()));
                self.closed_here = true;
            }
            6 => {
                connection.close("enough");
                self.closed_here = true;
            }
            _ => {
                self.connection = None;
                self.closed_here = true;
            }
        }
    }

    // ---- the peer --------------------------------------------------------------------------------------

    fn push(&mut self, bytes: &[u8]) {
        if !self.says_no_more {
            self.said.extend(bytes);
        }
    }

    fn write(&mut self, count: usize) {
        let mut left = count;
        while self.written < self.said.len() && left > 0 && !self.says_no_more {
            let rest = &self.said[self.written..];
            match self.channel.write(&rest[..rest.len().min(left)]) {
                Ok(count) => {
                    self.written += count;
                    left -= count;
                }
                // The host does not read for now, or has left.
                Err(_) => return,
            }
        }
    }

    /// Reads what there is. Returns whether the channel ended.
    fn hear(&mut self) -> bool {
        let mut room = [0; 16 << 10];
        let has_ended = loop {
            match self.channel.read(&mut room) {
                Ok(0) => break true,
                Ok(count) => self.read.extend(&room[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
        };
        while let Some(frame) = frame_at(&self.read, self.looked_at).filter(|frame| frame.is_whole) {
            if frame.header.kind == Kind::Call {
                self.seen.at.entry(frame.header.id).or_insert(self.said.len());
                self.seen_ids.push(frame.header.id);
            }
            self.looked_at += HEADER + frame.body.len();
        }
        has_ended
    }

    fn any_id(&self, input: &mut Input<'_>) -> u64 {
        let choice = input.byte();
        match choice {
            0..0xa0 if !self.seen_ids.is_empty() => {
                // Most often one of the last.
                let back = usize::from(choice) % self.seen_ids.len();
                self.seen_ids[self.seen_ids.len() - 1 - back]
            }
            0..0xd0 => u64::from(1 + (choice >> 3 & 1)) << 32 | u64::from(choice & 7),
            0xd0..0xe8 => u64::from(input.u16()),
            _ => u64::from(input.u16()) << 48 | u64::from(input.u16()),
        }
    }

    /// One message, most often a good one.
    fn say(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let id = self.any_id(input);
        let header = |kind| Header { codec: Codec::MessagePack, ..Header::new(kind, EPOCH, id) };
        let mut bytes = Vec::new();
        match what {
            0..0x70 => {
                let length = [5, 100, 40_000, 110_000, 1_100_000][usize::from(input.byte()) % 5];
                let number = u32::try_from(self.said.len()).expect("little is said");
                append_frame(&mut bytes, header(Kind::Reply), &numbered(number, length));
            }
            0x70..0x90 => {
                let code = input.pick(FaultCode::ALL);
                let fault = Fault::new(code, "no");
                append_message(&mut bytes, header(Kind::Fault), &fault).expect("encoded");
            }
            0x90..0xa0 => {
                let progress = Progress::new(input.u64(), None, "so far");
                append_message(&mut bytes, header(Kind::Progress), &progress).expect("encoded");
            }
            0xa0..0xa4 => {
                append_message(&mut bytes, header(Kind::Goodbye), &Goodbye::new("done")).expect("encoded");
            }
            0xa4..0xb0 => append_frame(&mut bytes, Header::new(Kind::Ping, EPOCH, id), &[]),
            _ => {
                let mut header = header(input.pick(Kind::ALL));
                match input.byte() {
                    0..0x10 => header.epoch = EPOCH + 1,
                    0x10..0x20 => header.codec = Codec::Wincode,
                    0x20..0x30 => header.flags = Flags::from_wire(input.byte() & 7).unwrap_or_default(),
                    0x30..0x38 => header.descriptors = input.byte() & 0x0f,
                    _ => {}
                }
                header.aux = input.byte().into();
                let length = usize::from(input.byte() & 0x3f);
                append_frame(&mut bytes, header, input.bytes(length));
            }
        }
        self.push(&bytes);
    }

    // ---- what must hold --------------------------------------------------------------------------------

    /// Waits until the host has heard all that was written, or ended the connection.
    async fn settle(&mut self) {
        let Some(connection) = self.connection.clone() else { return };
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.write(usize::MAX);
            let is_over = at_once(&mut pin!(connection.closed())).is_some();
            let is_said = self.written == self.said.len() || self.says_no_more;
            if is_over || (is_said && connection.statistics().bytes_read == self.written as u64) {
                break;
            }
            assert!(Instant::now() < deadline, "the host does not read");
            yield_now().await;
        }
        if !self.closed_here {
            self.settled = self.written;
        }
    }

    fn check_bounds(&self) {
        let Some(connection) = &self.connection else { return };
        let queued = connection.statistics().bytes_queued;
        // One message may be longer; and answers, cancels and the last words of this side.
        let limit = self.queued_bytes_max.max((1 << 20) + HEADER as u64) + (256 << 10) + 10_000;
        assert!(queued <= limit, "{queued} bytes are queued, above {limit}");
    }

    async fn end(mut self) {
        self.settle().await;
        // What is left, a host that has left did not take.
        self.said.truncate(self.written);
        let reason = match &self.connection {
            Some(connection) if !self.closed_here => at_once(&mut pin!(connection.closed())),
            _ => None,
        };
        // A call whose caller left, or may have, is not surely awaited.
        let may_be_over = |call: &Call| call.expires || (call.reply.is_none() && call.outcome.is_none());
        let (settled, decided) = (self.settled, !self.closed_here);
        // Now the peer ends, and with it everything.
        let _ = self.channel.shutdown(Shutdown::Write);
        if let Some(connection) = &self.connection {
            connection.fail_all(Cause::Died("the trial is over".to_owned()));
        }
        let gone: Vec<bool> = self.calls.iter().map(may_be_over).collect();
        for place in 0..self.calls.len() {
            self.wait(place).await;
        }
        if let Some(connection) = self.connection.take() {
            timeout(PATIENCE, connection.idle()).await.expect("nobody waits for an outcome");
            timeout(PATIENCE, connection.closed()).await.expect("it is closed");
            let deadline = Instant::now() + PATIENCE;
            let owed = |it: &ConnectionStatistics| (it.in_flight, it.unanswered, it.waiting) != (0, 0, 0);
            while owed(&connection.statistics()) {
                assert!(Instant::now() < deadline, "{:?} at the end", connection.statistics());
                yield_now().await;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.hear() {
            assert!(Instant::now() < deadline, "the host does not let go of the channel");
            yield_now().await;
        }
        let calls = self.check_sent(&gone);
        for (call, is_gone) in self.calls.iter().zip(&gone) {
            if let Some(sent) = calls.iter().find(|sent| sent.number == call.number)
                && !is_gone
            {
                self.seen.awaited.insert(sent.id);
            }
        }

        let heard = hear(&self.said, self.message_bytes_max, |_| true);
        let judged = judge(&heard, EPOCH, &self.seen);
        if decided {
            match (&reason, judged.verdict) {
                (Some(CloseReason::Violation(_)), Verdict::Violation | Verdict::Either)
                | (None, Verdict::Open | Verdict::Either) => {}
                (Some(CloseReason::Eof), Verdict::Open | Verdict::Either) if self.says_no_more => {}
                (reason, verdict) => panic!("{verdict:?} by what was said, and the host: {reason:?}"),
            }
        }
        for (call, is_gone) in self.calls.iter().zip(&gone) {
            let Some(outcome) = &call.outcome else { continue };
            let id = calls.iter().find(|sent| sent.number == call.number).map(|sent| sent.id);
            check_outcome(call, outcome, id, &heard.messages);
            let answer =
                id.and_then(|id| judged.answers.get(&id)).filter(|at| heard.places[**at].1 <= settled);
            if let Some(&at) = answer
                && !is_gone
            {
                let is_answered = matches!(outcome, Ok(_) | Err(CallError::Fault(_) | CallError::Cancelled));
                assert!(
                    is_answered,
                    "{:?} was heard, and the call ends with {outcome:?}",
                    heard.messages[at].0
                );
            }
        }
    }

    /// Looks at everything that the host sent. Returns the calls of which the peer saw anything.
    fn check_sent(&self, gone: &[bool]) -> Vec<Sent> {
        let mut calls: Vec<Sent> = Vec::new();
        let mut cancelled = Vec::new();
        let (mut at, mut has_left) = (0, false);
        while let Some(frame) = frame_at(&self.read, at) {
            let Header { kind, id, .. } = frame.header;
            at += HEADER + frame.body.len();
            // What the trial's handshake began with.
            if kind == Kind::Hello && at == HEADER + frame.body.len() {
                continue;
            }
            assert!(!has_left, "{kind:?} after the host's goodbye");
            assert_eq!(frame.header.epoch, EPOCH);
            match kind {
                Kind::Call => {
                    let Some(number) = number_of(frame.body) else { continue };
                    let place = (number - FIRST_NUMBER) as usize;
                    let call = &self.calls[place];
                    assert!(frame.header.length as usize == call.bytes && frame.header.aux > 0);
                    assert_eq!((frame.header.codec, frame.header.flags), (Codec::MessagePack, Flags::NONE));
                    assert!(
                        calls.iter().all(|sent| sent.number < number && sent.id != id),
                        "{calls:?}, {id}"
                    );
                    calls.push(Sent { number, id });
                }
                Kind::Cancel => {
                    let sent = calls.iter().find(|sent| sent.id == id).expect("only calls are cancelled");
                    assert!(gone[(sent.number - FIRST_NUMBER) as usize], "somebody waits for it");
                    assert!(!cancelled.contains(&id), "it was cancelled before");
                    cancelled.push(id);
                }
                Kind::Goodbye => has_left = true,
                Kind::Drain | Kind::Pong | Kind::HostFault | Kind::StreamDrop | Kind::StreamEnd => {}
                kind => panic!("a host sends no {kind:?}"),
            }
        }
        calls
    }
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u32,
    id: u64,
}

fn check_outcome(
    call: &Call,
    outcome: &Result<Vec<u8>, CallError>,
    id: Option<u64>,
    said: &[(Header, Vec<u8>)],
) {
    let is_said = |kind: Kind, is_it: &dyn Fn(&[u8]) -> bool| {
        said.iter().any(|(header, body)| {
            header.kind == kind && header.epoch == EPOCH && id.is_none_or(|id| id == header.id) && is_it(body)
        })
    };
    match outcome {
        Ok(answer) => assert!(is_said(Kind::Reply, &|body| body == answer), "nobody gave this answer"),
        Err(CallError::Fault(_) | CallError::Cancelled) => {
            assert!(is_said(Kind::Fault, &|_| true), "nobody said {outcome:?}");
        }
        Err(CallError::NotDelivered(cause)) => {
            assert_eq!(id, None, "not delivered, and seen: {cause}");
            assert!(*cause != Cause::Deadline || call.expires);
        }
        Err(CallError::Unknown(cause)) => assert!(*cause != Cause::Deadline || call.expires),
        Err(CallError::Rejected { .. }) => assert_eq!(id, None, "rejected, and seen"),
        Err(CallError::Encode(_) | CallError::Decode(_)) => panic!("nothing is coded here: {outcome:?}"),
    }
}

/// What comes of a future that is looked at once.
fn at_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
