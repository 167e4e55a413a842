//! What a host must make of what a peer says, by the protocol's page. Must not know the connection.
//!
//! The peer may guess ids. Whether a guessed call was sent already depends on who ran first, so nothing is said of
//! what comes after such a message.

use std::collections::{HashMap, HashSet};

use ipc_protocol::control::{Event, Goodbye, Heartbeat, LogRecord, Progress};
use ipc_protocol::{Codec, Fault, Flags, Header, Kind};
use ipc_transport::framing::Frame;
use serde::de::DeserializeOwned;

use super::slow_frames::Heard;

/// What is known of the calls that the peer saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By id: how many bytes the peer had said when it saw the call.
    pub(super) at: HashMap<u64, usize>,
    /// Those that somebody surely waits for, until they are answered.
    pub(super) awaited: HashSet<u64>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It lives on.
    Open,
    /// It ends.
    Violation,
    /// One of both.
    Either,
}

/// The connection after everything that was heard, and the answers that were surely taken: the id, and which message
/// it was.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) answers: HashMap<u64, usize>,
}

/// Judges what the host heard.
pub(super) fn judge(heard: &Heard, epoch: u32, seen: &Seen) -> Judged {
    let mut judged = Judged { verdict: Verdict::Open, answers: HashMap::new() };
    let mut has_left = false;
    for (at, (header, body)) in heard.messages.iter().enumerate() {
        if header.epoch != epoch {
            continue;
        }
        let message = Message { header, body, is_seen: is_seen(heard, at, seen) };
        judged.verdict = match has_left {
            true => Verdict::Violation,
            false => message.verdict(seen, &judged.answers),
        };
        if judged.verdict != Verdict::Open {
            return judged;
        }
        if matches!(header.kind, Kind::Reply | Kind::Fault) {
            judged.answers.insert(header.id, at);
        }
        has_left = header.kind == Kind::Goodbye;
    }
    if heard.violation.is_some() {
        judged.verdict = Verdict::Violation;
    }
    judged
}

/// Whether the peer saw the call of a message before it began to say it: the call was sent then.
fn is_seen(heard: &Heard, at: usize, seen: &Seen) -> bool {
    seen.at.get(&heard.messages[at].0.id).is_some_and(|said| heard.places[at].0 >= *said)
}

/// Whether a connection of few calls may have given this id to one of them.
fn is_guess(id: u64) -> bool {
    let (generation, index) = (id >> 32, id & 0xffff_ffff);
    (1..1000).contains(&generation) && index < 1000
}

struct Message<'a> {
    header: &'a Header,
    body: &'a [u8],
    is_seen: bool,
}

impl Message<'_> {
    fn verdict(&self, seen: &Seen, answers: &HashMap<u64, usize>) -> Verdict {
        let Header { kind, id, .. } = *self.header;
        match kind {
            Kind::Reply | Kind::Fault => {
                if !self.is_plain() || answers.contains_key(&id) {
                    Verdict::Violation
                } else if !self.is_seen {
                    if is_guess(id) { Verdict::Either } else { Verdict::Violation }
                } else if self.is_answer() {
                    Verdict::Open
                } else if seen.awaited.contains(&id) {
                    Verdict::Violation
                } else {
                    // Nobody looks into an answer that nobody waits for.
                    Verdict::Either
                }
            }
            Kind::Log => self.plain::<LogRecord>(),
            Kind::Event => self.plain::<Event>(),
            Kind::Heartbeat => self.plain::<Heartbeat>(),
            Kind::Goodbye => self.plain::<Goodbye>(),
            Kind::Progress => match self.plain::<Progress>() {
                Verdict::Violation if self.is_plain() => match () {
                    // Of what is over, or never was, nothing is heard.
                    () if answers.contains_key(&id) => Verdict::Open,
                    () if self.is_seen => Verdict::Violation,
                    () if is_guess(id) => Verdict::Either,
                    () => Verdict::Open,
                },
                verdict => verdict,
            },
            Kind::Ping
            | Kind::Pong
            | Kind::HostCall
            | Kind::Descriptor
            | Kind::SegmentReturn
            | Kind::StreamCredit
            | Kind::StreamData
            | Kind::StreamEnd
            | Kind::StreamDrop => Verdict::Open,
            Kind::Welcome
            | Kind::Ready
            | Kind::Hello
            | Kind::Call
            | Kind::Cancel
            | Kind::HostReply
            | Kind::HostFault
            | Kind::Drain
            | Kind::Wake => Verdict::Violation,
        }
    }

    fn is_plain(&self) -> bool {
        self.header.flags == Flags::NONE && self.header.descriptors == 0
    }

    fn is_answer(&self) -> bool {
        match self.header.kind {
            Kind::Fault => self.decodes::<Fault>(),
            _ => self.header.codec == Codec::MessagePack,
        }
    }

    fn plain<T: DeserializeOwned>(&self) -> Verdict {
        if self.is_plain() && self.decodes::<T>() { Verdict::Open } else { Verdict::Violation }
    }

    fn decodes<T: DeserializeOwned>(&self) -> bool {
        Frame { header: *self.header, body: self.body.to_vec().into() }.decode::<T>().is_ok()
    }
}
