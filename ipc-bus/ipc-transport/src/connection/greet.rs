//! The host's side of the handshake, on tokio. Must not know calls.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc_protocol::frame::HEADER_BYTES;
use ipc_protocol::handshake::{FEATURE_RINGS, Hello, Ready, Welcome};
use ipc_protocol::limits::{CONTROL_BYTES_MAX, EARLY_BYTES_MAX, EARLY_FRAMES_MAX};
use ipc_protocol::{Header, Kind};
use tokio::time::{Instant, timeout_at};

use super::socket::Socket;
use super::{PeerEvents, incoming};
use crate::framing::{Frame, FrameBuffer, Violation, append_message};
use crate::handshake::{HandshakeError, check_welcome, decode, ended, next_frame, silent};
use crate::ring::{Halves, Offer, grant};

const PEER: &str = "extension";

/// LIMIT: frames that are handled before other tasks get their turn.
const FRAMES_PER_TURN: u32 = 64;

pub(super) struct Greeted {
    pub(super) socket: Socket,
    pub(super) welcome: Welcome,
    /// What reads the socket on from here.
    pub(super) frames: FrameBuffer,
    /// Where everything but bells goes from here, if both sides want it.
    pub(super) rings: Option<Halves>,
}

pub(super) async fn greet(
    socket: UnixStream,
    hello: &Hello,
    (welcome_timeout, ready_timeout): (Duration, Duration),
    offer: Option<Offer>,
    events: &dyn PeerEvents,
) -> Result<Greeted, HandshakeError> {
    let setup = |source| HandshakeError::Io { peer: PEER, expected: Kind::Welcome, source };
    let socket = Socket::new(socket).map_err(setup)?;
    let mut bytes = Vec::new();
    append_message(&mut bytes, Header::new(Kind::Hello, hello.epoch, 0), hello)
        .map_err(|error| setup(io::Error::other(error)))?;
    if bytes.len() > CONTROL_BYTES_MAX as usize {
        return Err(HandshakeError::Mismatch {
            peer: "host",
            field: "hello, with the configuration,",
            expected: format!("at most {CONTROL_BYTES_MAX} bytes"),
            came: format!("{} bytes", bytes.len()),
        });
    }
    // Nothing but control messages may come before `Ready`: nothing longer is assembled.
    let mut frames = FrameBuffer::new(CONTROL_BYTES_MAX.into());

    let awaited = Awaited::new(Kind::Welcome, welcome_timeout);
    awaited.write(&socket, &frames, &bytes).await?;
    let frame = awaited.read(&socket, &mut frames).await?;
    awaited.check(&frame, hello)?;
    let welcome: Welcome = decode(&frame, PEER, Kind::Welcome)?;
    check_welcome(hello, &welcome)?;
    let offer = offer.filter(|_| welcome.features.iter().any(|feature| feature == FEATURE_RINGS));
    if let Some(offer) = &offer {
        match grant::send(&socket, hello.epoch, offer) {
            // It may have said why before it closed: read on.
            Err(error) if !is_closed(&error) => return Err(setup(error)),
            Ok(()) | Err(_) => {}
        }
    }

    let awaited = Awaited::new(Kind::Ready, ready_timeout);
    let mut early = Early::default();
    loop {
        let frame = awaited.read(&socket, &mut frames).await?;
        if incoming::is_event(frame.header.kind) {
            check_epoch(&frame, hello)?;
            early
                .count(&frame)
                .and_then(|()| incoming::tell(&frame.as_ref(), events))
                .map_err(|violation| awaited.not_protocol(violation))?;
            // Frames that are here already wait for nothing: whoever sends them without end passes no time limit
            // and lets nobody else run, unless both are looked after here.
            awaited.check_time(&frames)?;
            if early.frames.is_multiple_of(FRAMES_PER_TURN) {
                tokio::task::yield_now().await;
            }
            continue;
        }
        awaited.check(&frame, hello)?;
        let ready: Ready = decode(&frame, PEER, Kind::Ready)?;
        return match ready.fault {
            Some(fault) => Err(HandshakeError::Start(fault)),
            None => {
                let rings = offer.filter(|_| ready.rings).map(|offer| offer.halves);
                // Beside rings nothing long comes over the socket.
                if rings.is_none() {
                    frames.set_message_bytes_max(hello.message_bytes_max);
                }
                Ok(Greeted { socket, welcome, frames, rings })
            }
        };
    }
}

/// What came between `Welcome` and `Ready`.
#[derive(Default)]
struct Early {
    frames: u32,
    bytes: u64,
}

impl Early {
    fn count(&mut self, frame: &Frame) -> Result<(), Violation> {
        self.frames += 1;
        self.bytes += (HEADER_BYTES + frame.body.len()) as u64;
        if self.frames <= EARLY_FRAMES_MAX && self.bytes <= EARLY_BYTES_MAX {
            return Ok(());
        }
        let Header { kind, id, .. } = frame.header;
        Err(Violation::Unexpected { kind, id, expected: "at most 4096 frames and 4 MiB may precede Ready" })
    }
}

/// One step with its time limit.
struct Awaited {
    expected: Kind,
    timeout: Duration,
    deadline: Instant,
}

impl Awaited {
    fn new(expected: Kind, timeout: Duration) -> Self {
        Self { expected, timeout, deadline: Instant::now() + timeout }
    }

    fn io(&self, source: io::Error) -> HandshakeError {
        HandshakeError::Io { peer: PEER, expected: self.expected, source }
    }

    fn not_protocol(&self, violation: Violation) -> HandshakeError {
        HandshakeError::NotProtocol { peer: PEER, expected: self.expected, came: String::new(), violation }
    }

    fn check_time(&self, frames: &FrameBuffer) -> Result<(), HandshakeError> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(silent(frames, PEER, self.expected, self.timeout))
    }

    fn check(&self, frame: &Frame, hello: &Hello) -> Result<(), HandshakeError> {
        let came = frame.header.kind;
        if came != self.expected {
            return Err(HandshakeError::Unexpected { peer: PEER, expected: self.expected, came });
        }
        check_epoch(frame, hello)
    }

    async fn write(
        &self,
        socket: &Socket,
        frames: &FrameBuffer,
        mut bytes: &[u8],
    ) -> Result<(), HandshakeError> {
        let mut writes = None;
        while !bytes.is_empty() {
            match socket.send(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writes = match &mut writes {
                        Some(writes) => writes,
                        None => writes.insert(socket.watch_writes().map_err(|error| self.io(error))?),
                    };
                    match timeout_at(self.deadline, writes.writable()).await {
                        Err(_) => return Err(silent(frames, PEER, self.expected, self.timeout)),
                        Ok(ready) => ready.map_err(|error| self.io(error))?,
                    }
                }
                // It may have said why before it closed: read on.
                Err(error) if is_closed(&error) => return Ok(()),
                Err(error) => return Err(self.io(error)),
            }
        }
        Ok(())
    }

    async fn read(&self, socket: &Socket, frames: &mut FrameBuffer) -> Result<Frame, HandshakeError> {
        loop {
            if let Some(frame) = next_frame(frames, PEER, self.expected)? {
                return Ok(frame);
            }
            let mut guard = match timeout_at(self.deadline, socket.readable()).await {
                Err(_) => return Err(silent(frames, PEER, self.expected, self.timeout)),
                Ok(guard) => guard.map_err(|error| self.io(error))?,
            };
            match frames.read_from(|room| socket.receive(room)) {
                Ok(0) => return Err(ended(frames, PEER, self.expected)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if is_closed(&error) => return Err(ended(frames, PEER, self.expected)),
                Err(error) => return Err(self.io(error)),
            }
        }
    }
}

/// While the epoch is being agreed on, another one is a refusal; frames of another one are dropped only later.
fn check_epoch(frame: &Frame, hello: &Hello) -> Result<(), HandshakeError> {
    if frame.header.epoch == hello.epoch {
        return Ok(());
    }
    Err(HandshakeError::Mismatch {
        peer: PEER,
        field: "epoch",
        expected: hello.epoch.to_string(),
        came: frame.header.epoch.to_string(),
    })
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
