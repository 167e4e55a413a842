//! The serving side of a socket by hand, in a thread of its own. Must not know what a test wants.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use ipc_protocol::handshake::{FEATURE_RINGS, Hello, MethodEntry, Ready};
use ipc_protocol::{Codec, Fault, Header, Kind};
use ipc_transport::framing::{Frame, FrameBuffer, append_frame, append_message};
use ipc_transport::handshake::accept;
use ipc_transport::ring::Halves;
use ipc_transport::ring::grant::{self, Granted};
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
    /// The rings, once accepted.
    pub rings: Option<Halves>,
    /// Their memory.
    pub granted: Option<Granted>,
    frames: FrameBuffer,
    /// What comes over the socket beside the rings.
    bells: FrameBuffer,
}

impl Peer {
    /// A peer that has not read anything yet.
    #[must_use]
    pub fn new(socket: UnixStream) -> Self {
        let (frames, bells) = (FrameBuffer::new(u64::MAX), FrameBuffer::new(u64::MAX));
        Self { socket, hello: Hello::new("test", 0, 0), rings: None, granted: None, frames, bells }
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
        self.accept_with(&[FEATURE_RINGS], methods.iter().map(|name| MethodEntry::new(*name, 0)).collect());
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
        let mut ready = Ready::default();
        if accepted.is_agreed(FEATURE_RINGS) {
            let granted = grant::receive(&self.socket, &mut accepted.frames, PATIENCE)
                .expect("the host grants the rings that it offered");
            self.rings = Some(granted.map().expect("they can be mapped"));
            self.granted = Some(granted);
            ready.rings = true;
        }
        accepted.ready(&self.socket, &ready).expect("the host reads that it is ready");
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
            if self.rings.is_some() {
                if !self.read_ring() && !self.await_bell() && !self.read_ring() {
                    return None;
                }
                continue;
            }
            if !read_socket(&self.socket, &mut self.frames) {
                return None;
            }
        }
    }

    /// Takes what is in the ring. Returns whether there was something.
    fn read_ring(&mut self) -> bool {
        let Some(Halves { reader, .. }) = &mut self.rings else { return false };
        let mut must_wake = false;
        let read = self.frames.read_from(|room| {
            let read = reader.read(room).map_err(std::io::Error::other)?;
            must_wake = read.must_wake;
            Ok(read.count)
        });
        if must_wake {
            self.ring_the_bell();
        }
        read.expect("the host's words are true") > 0
    }

    /// Sleeps until the host rings, unless something came. Returns whether it is worth to look into the ring.
    fn await_bell(&mut self) -> bool {
        let Some(Halves { reader, .. }) = &mut self.rings else { return false };
        let may_sleep = reader.sleep().expect("the host's words are true");
        let goes_on = !may_sleep || read_socket(&self.socket, &mut self.bells);
        reader.wake();
        while let Some(frame) = self.bells.next_frame().expect("the host keeps the protocol") {
            assert_eq!(frame.header.kind, Kind::Wake, "{frame:?}");
        }
        goes_on
    }

    /// Wakes the host.
    pub fn ring_the_bell(&self) {
        let bell = Header::new(Kind::Wake, self.hello.epoch, 0).encode();
        // Whoever is gone needs no bell.
        let _ = (&self.socket).write_all(&bell);
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
        assert!(self.try_raw(bytes), "the host reads");
    }

    /// As [`Self::raw`]. Returns whether the host was there.
    ///
    /// # Panics
    ///
    /// When the host is there and reads nothing for [`PATIENCE`].
    pub fn try_raw(&mut self, mut bytes: &[u8]) -> bool {
        let Some(Halves { writer, .. }) = &mut self.rings else {
            return (&self.socket).write_all(bytes).is_ok();
        };
        let bell = Header::new(Kind::Wake, self.hello.epoch, 0).encode();
        loop {
            let count = writer.write(bytes).expect("the host's words are true");
            bytes = &bytes[count..];
            // Whoever is gone needs no bell.
            let _ = writer.publish() && (&self.socket).write_all(&bell).is_ok();
            if bytes.is_empty() {
                break;
            }
            while writer.wait_for_room().expect("the host's words are true") {
                if !read_socket(&self.socket, &mut self.bells) {
                    return false;
                }
            }
        }
        writer.stop_waiting();
        true
    }
}

/// Waits for bytes. Returns whether some came: if not, the host is gone.
fn read_socket(socket: &UnixStream, frames: &mut FrameBuffer) -> bool {
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time limit");
    match frames.read_from(|room| (&mut &*socket).read(room)) {
        Ok(count) => count > 0,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
        Err(error) => panic!("the peer waited for a frame: {error}"),
    }
}
