//! A connection whose peer asks its host for anything, within calls that it has and has not.
//!
//! ```text
//! one step after the other: of the caller, of the peer, and again
//! ```
//!
//! What must hold, whatever they do: each host call is answered once, and nobody else is; an echo is what was sent; what
//! serves a call that is over is given up; who breaks a rule is ended, and nobody else; nothing runs on when all is over.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ipc_protocol::handshake::{FEATURE_HOST_CALLS, Hello, MethodEntry, Ready, Welcome};
use ipc_protocol::{Codec, Fault, Flags, Header, Kind, Origin};
use ipc_transport::connection::{
    CloseReason, ConnectOptions, Connection, HostCall, HostCallFuture, HostCalls, connect,
};
use ipc_transport::framing::{Frame, FrameBuffer, append_frame, append_message};
use ipc_transport::{CallResult, Caller, Cause, Encoded, Payload, Reply, Request};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::input::Input;
use crate::peer::PATIENCE;

const EPOCH: u32 = 7;

/// LIMIT: steps of one input.
const STEPS_MAX: usize = 60;

/// LIMIT: calls of one input.
const CALLS_MAX: usize = 8;

/// How often others get their turn after everything was heard: more than a host call of [`LATER`] takes.
const TURNS: usize = 20;

const ECHO: u32 = 0;
const HOLD: u32 = 1;
const LATER: u32 = 2;
/// One more than there are.
const NONE: u32 = 3;

/// The target.
///
/// # Panics
///
/// When something does not hold, see the module.
pub fn asking(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime is to be had").block_on(async {
        let mut input = Input::new(data);
        let mut trial = Trial::open().await;
        for _ in 0..STEPS_MAX {
            if input.is_empty() || trial.is_broken {
                break;
            }
            trial.step(&mut input).await;
        }
        trial.end().await;
    });
}

/// The host's methods. Each that runs holds the token.
#[derive(Debug, Default)]
struct Methods {
    token: Arc<()>,
}

impl HostCalls for Methods {
    fn methods(&self) -> Vec<String> {
        ["echo", "hold", "later"].map(str::to_owned).to_vec()
    }

    fn run(&self, call: HostCall) -> HostCallFuture {
        let token = Arc::clone(&self.token);
        Box::pin(async move {
            let _held = token;
            match call.method {
                HOLD => std::future::pending().await,
                LATER => {
                    for _ in 0..TURNS / 4 {
                        yield_now().await;
                    }
                }
                _ => {}
            }
            Ok(Encoded::message_pack(call.arguments).into())
        })
    }
}

/// A host call that was not answered yet.
struct Asked {
    serves: u64,
    method: u32,
    body: Vec<u8>,
}

struct Trial {
    connection: Connection,
    token: Arc<()>,
    replies: Vec<Option<Reply>>,
    channel: UnixStream,
    frames: FrameBuffer,
    /// Calls that the peer has not answered, in the order in which they came.
    owed: Vec<u64>,
    over: Vec<u64>,
    asked: HashMap<u64, Asked>,
    pings: u64,
    pongs: u64,
    /// A rule was broken: the connection must end, and nothing is said of what comes before it does.
    is_broken: bool,
    has_ended: bool,
}

impl Trial {
    async fn open() -> Self {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair is to be had");
        let hello = Hello::new("test", EPOCH, 1);
        let mut welcome = Welcome::answering(&hello, 1, "test", "1", vec![MethodEntry::new("zero", 0)]);
        welcome.features = vec![FEATURE_HOST_CALLS.to_owned()];
        let mut greeting = Vec::new();
        append_message(&mut greeting, Header::new(Kind::Welcome, EPOCH, 0), &welcome).expect("encoded");
        append_message(&mut greeting, Header::new(Kind::Ready, EPOCH, 0), &Ready::default())
            .expect("encoded");
        theirs.write_all(&greeting).expect("there is room");
        theirs.set_nonblocking(true).expect("a socket takes it");
        let methods = Methods::default();
        let token = Arc::clone(&methods.token);
        let mut options = ConnectOptions::new(hello);
        options.offers_rings = false;
        options.host_calls = Some(Arc::new(methods));
        let connection = connect(ours, options, Arc::new(())).await.expect("the peer is good");
        let mut trial = Self {
            connection,
            token,
            replies: Vec::new(),
            channel: theirs,
            frames: FrameBuffer::new(u64::MAX),
            owed: Vec::new(),
            over: Vec::new(),
            asked: HashMap::new(),
            pings: 0,
            pongs: 0,
            is_broken: false,
            has_ended: false,
        };
        trial.settle().await;
        trial
    }

    async fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0 => self.call().await,
            1..=3 => self.ask(input).await,
            4 => {
                let id = u64::from(input.byte() % 5);
                self.say(Header { codec: Codec::None, ..header(Kind::Cancel, id) }, &[]);
                // What it was is settled before anything else is said of it.
                self.settle().await;
                assert!(
                    self.is_broken || !self.asked.contains_key(&id),
                    "{id} was given up and not answered"
                );
            }
            5 if !self.owed.is_empty() => {
                let id = self.owed.remove(usize::from(input.byte()) % self.owed.len());
                self.over.push(id);
                self.say(header(Kind::Reply, id), b"\xc0");
            }
            6 if !self.replies.is_empty() => {
                let at = usize::from(input.byte()) % self.replies.len();
                self.replies[at] = None;
            }
            _ => self.settle().await,
        }
    }

    async fn call(&mut self) {
        if self.replies.len() < CALLS_MAX {
            let payload = Payload::Encoded(Encoded::message_pack(vec![0xc0]));
            self.replies.push(Some(self.connection.call(Request::new("zero", payload, PATIENCE))));
            self.settle().await;
        }
    }

    async fn ask(&mut self, input: &mut Input<'_>) {
        let id = u64::from(input.byte() % 5);
        let (kind_of_serves, at) = (input.byte() % 8, usize::from(input.byte()));
        let pick = |ids: &[u64]| (!ids.is_empty()).then(|| ids[at % ids.len()]);
        let serves = match kind_of_serves {
            0 => 0,
            1 => u64::MAX - at as u64,
            2 => pick(&self.over).unwrap_or(0),
            _ => pick(&self.owed).or_else(|| pick(&self.over)).unwrap_or(0),
        };
        let method = u32::from(input.byte()) % (NONE + 1);
        let body = vec![0x07; input.pick(&[0, 1, 5, 3000, 40_000])];
        let tweak = input.byte();
        let codec = match (body.is_empty(), tweak) {
            (true, _) => Codec::None,
            (false, 1) => Codec::Wincode,
            (false, _) => Codec::MessagePack,
        };
        let (flags, descriptors) = match tweak {
            2 => (Flags::METADATA, 0),
            3 => (Flags::SEGMENT, 0),
            4 => (Flags::NONE, 1),
            _ => (Flags::NONE, 0),
        };
        // What is answered already is known then.
        self.settle().await;
        let is_plain = flags == Flags::NONE && descriptors == 0;
        let was_sent = self.owed.contains(&serves) || self.over.contains(&serves);
        self.is_broken |= !is_plain || id == 0 || self.asked.contains_key(&id) || !was_sent;
        self.say(
            Header { codec, flags, descriptors, method, aux: serves, ..header(Kind::HostCall, id) },
            &body,
        );
        if !self.is_broken {
            self.asked.insert(id, Asked { serves, method, body });
        }
    }

    fn say(&mut self, header: Header, body: &[u8]) {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, header, body);
        // Small enough for the socket, which is read before it is written to again; or it is closed.
        match self.channel.write_all(&bytes) {
            Ok(()) => {}
            Err(error) => assert!(error.kind() == ErrorKind::BrokenPipe, "{error}"),
        }
    }

    /// Until the host has acted on everything, and the peer has heard what follows from it.
    async fn settle(&mut self) {
        for _ in 0..2 {
            self.pings += 1;
            self.say(Header { codec: Codec::None, ..header(Kind::Ping, self.pings) }, &[]);
            let heard = async {
                while self.pongs < self.pings && !self.has_ended {
                    self.hear();
                    yield_now().await;
                }
            };
            timeout(PATIENCE, heard).await.expect("the host answers or ends");
            for _ in 0..TURNS {
                yield_now().await;
            }
        }
        self.hear();
        assert!(self.is_broken || !self.has_ended, "the host ended who broke no rule");
        if self.is_broken {
            return;
        }
        for (id, Asked { serves, method, .. }) in &self.asked {
            let may_wait = *method == HOLD && self.owed.contains(serves);
            assert!(may_wait, "host call {id} of method {method} within {serves} is not answered");
        }
    }

    fn hear(&mut self) {
        loop {
            match self.frames.next_frame().expect("the host keeps the protocol") {
                Some(frame) => self.take(&frame),
                None => match self.frames.read_from(|room| self.channel.read(room)) {
                    Ok(0) => return self.has_ended = true,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(_) => return self.has_ended = true,
                },
            }
        }
    }

    fn take(&mut self, frame: &Frame) {
        let Header { kind, id, codec, .. } = frame.header;
        match kind {
            Kind::Hello => {}
            Kind::Call => self.owed.push(id),
            Kind::Pong => self.pongs = id,
            Kind::Cancel => assert!(self.owed.contains(&id) || self.over.contains(&id), "{id} is no call"),
            Kind::HostReply | Kind::HostFault => {
                let asked = self.asked.remove(&id);
                let Some(Asked { serves, method, body }) = asked else {
                    assert!(self.is_broken, "{id} was not asked, or answered before");
                    return;
                };
                if kind == Kind::HostFault {
                    let fault: Fault = frame.decode().expect("it is one");
                    assert_eq!(fault.origin, Origin::Host);
                } else {
                    assert!([ECHO, LATER].contains(&method), "method {method} gives nothing");
                    assert!(frame.body == body, "an echo of host call {id} within {serves} is another");
                    assert_eq!(codec == Codec::None, body.is_empty());
                }
            }
            kind => panic!("the host sent a {kind:?}"),
        }
    }

    async fn end(mut self) {
        if self.is_broken {
            let ended =
                timeout(PATIENCE, self.connection.closed()).await.expect("who breaks a rule is ended");
            let CloseReason::Violation(what) = ended else { panic!("{ended:?}") };
            self.connection.fail_all(Cause::ProtocolViolation(what));
        } else {
            for id in std::mem::take(&mut self.owed) {
                self.over.push(id);
                self.say(header(Kind::Reply, id), b"\xc0");
            }
            self.settle().await;
            assert!(self.asked.is_empty(), "what served a call is over with it");
            self.connection.close("the input is at its end");
        }
        for reply in self.replies.drain(..).flatten() {
            let result: CallResult = timeout(PATIENCE, reply).await.expect("each call ends");
            assert!(self.is_broken || result.is_ok(), "{result:?}");
        }
        let nothing_runs = async {
            // One is the methods' own, which live as long as the connection.
            while Arc::strong_count(&self.token) > 2 {
                yield_now().await;
            }
        };
        timeout(PATIENCE, nothing_runs).await.expect("nothing runs on");
    }
}

fn header(kind: Kind, id: u64) -> Header {
    Header { codec: Codec::MessagePack, ..Header::new(kind, EPOCH, id) }
}

#[cfg(test)]
mod tests {
    /// Numbers that look random and are the same each time (splitmix64).
    fn numbers(seed: u64) -> impl Iterator<Item = u8> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed >> 32).to_le_bytes()[0]
        })
    }

    #[test]
    fn any_input_holds() {
        for seed in 0..200 {
            super::asking(&numbers(seed).take(150).collect::<Vec<_>>());
        }
    }

    /// As above, of a peer that keeps most rules: it gets further.
    #[test]
    fn well_kept_rules_hold() {
        for seed in 1000..1100 {
            let mut numbers = numbers(seed);
            let mut input = vec![0];
            for _ in 0..40 {
                let mut next = || numbers.next().unwrap_or(0);
                match next() % 8 {
                    step @ 1..=3 => input.extend([step, 1 + next() % 4, 3, next(), next() % 4, next(), 0]),
                    step @ (0 | 7) => input.push(step),
                    step => input.extend([step, next()]),
                }
            }
            super::asking(&input);
        }
    }
}
