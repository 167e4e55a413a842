//! The serving side of a socket by hand, in a thread of its own. Must not know what a test wants.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use ipc_protocol::handshake::{Hello, MethodEntry, Ready};
use ipc_protocol::{Codec, Fault, Header, Kind};
use ipc_transport::framing::{Frame, FrameBuffer, append_frame, append_message};
use ipc_transport::handshake::accept;
use serde::Serialize;

/// How long a peer waits for what must come: a bound for tests that would hang otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection, in the hands of a script.
#[derive(Debug)]
pub struct Peer {
    /// The socket, for what no method does.
    pub socket: UnixStream,
    /// The host's hello, once accepted.
    pub hello: Hello,
    frames: FrameBuffer,
}

impl Peer {
    /// A peer that has not read anything yet.
    #[must_use]
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, hello: Hello::new("test", 0, 0), frames: FrameBuffer::new(u64::MAX) }
    }

    /// Starts `script` in a thread; returns the host's end of the socket.
    ///
    /// # Panics
    ///
    /// When the system gives no socket pair.
    pub fn run<T: Send + 'static>(
        script: impl FnOnce(Self) -> T + Send + 'static,
    ) -> (UnixStream, JoinHandle<T>) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair is to be had");
        (ours, std::thread::spawn(move || script(Self::new(theirs))))
    }

    /// The handshake, with these methods.
    ///
    /// # Panics
    ///
    /// When the host does not do its part.
    pub fn accept(&mut self, methods: &[&str]) {
        self.accept_with(&[], methods.iter().map(|name| MethodEntry::new(*name, 0)).collect());
    }

    /// The handshake, with these features and methods.
    ///
    /// # Panics
    ///
    /// When the host does not do its part.
    pub fn accept_with(&mut self, features: &[&str], methods: Vec<MethodEntry>) {
        let mut accepted = accept(&self.socket, "test", PATIENCE).expect("the host says hello");
        accepted.features = features.iter().map(ToString::to_string).collect();
        accepted.welcome(&self.socket, "1.0.0", methods).expect("the host reads the welcome");
        accepted.ready(&self.socket, &Ready::default()).expect("the host reads that it is ready");
        self.hello = accepted.hello;
        self.frames = accepted.frames;
    }

    /// The next frame; `None` at the end of the stream.
    ///
    /// # Panics
    ///
    /// When nothing comes for [`PATIENCE`], or something that is no frame.
    pub fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.next_frame().expect("the host keeps the protocol") {
                return Some(frame);
            }
            self.socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time limit");
            let socket = &self.socket;
            match self.frames.read_from(|room| (&mut &*socket).read(room)) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the peer waited for a frame: {error}"),
            }
        }
    }

    /// The next frame, which must be of this kind.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn expect(&mut self, kind: Kind) -> Frame {
        let frame = self.receive().expect("the host sends another frame");
        assert_eq!(frame.header.kind, kind, "{frame:?}");
        frame
    }

    /// A header of this connection.
    #[must_use]
    pub fn header(&self, kind: Kind, id: u64) -> Header {
        Header { codec: Codec::MessagePack, ..Header::new(kind, self.hello.epoch, id) }
    }

    /// Sends one message.
    ///
    /// # Panics
    ///
    /// When the host is gone.
    pub fn send(&mut self, header: Header, body: &[u8]) {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, header, body);
        self.raw(&bytes);
    }

    /// Sends a control message.
    ///
    /// # Panics
    ///
    /// When the host is gone.
    pub fn say<T: Serialize>(&mut self, kind: Kind, id: u64, message: &T) {
        let mut bytes = Vec::new();
        append_message(&mut bytes, self.header(kind, id), message).expect("the message is encoded");
        self.raw(&bytes);
    }

    /// Answers a call.
    ///
    /// # Panics
    ///
    /// When the host is gone.
    pub fn reply(&mut self, call: &Frame, body: &[u8]) {
        self.send(self.header(Kind::Reply, call.header.id), body);
    }

    /// Fails a call.
    ///
    /// # Panics
    ///
    /// When the host is gone.
    pub fn fault(&mut self, call: &Frame, fault: &Fault) {
        self.say(Kind::Fault, call.header.id, fault);
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    ///
    /// When the host is gone.
    pub fn raw(&mut self, bytes: &[u8]) {
        (&self.socket).write_all(bytes).expect("the host reads");
    }
}
