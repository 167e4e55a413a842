//! The peer of every process call: a bare blocking ping-pong over a Unix socket pair, into another process.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The argument with which the bench starts itself as the answering side.
pub const ECHO_ARGUMENT: &str = "--raw-socket-echo";

/// The answering process and the socket to it.
#[derive(Debug)]
pub struct RawSocket {
    socket: UnixStream,
    child: Child,
    message: Vec<u8>,
}

impl RawSocket {
    /// Starts this program once more as the answering side, for messages of `bytes`.
    ///
    /// # Errors
    ///
    /// When no socket pair or process is to be had.
    pub fn start(bytes: usize) -> anyhow::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let child = Command::new(std::env::current_exe()?)
            .args([ECHO_ARGUMENT, &bytes.to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Self { socket, child, message: vec![7; bytes] })
    }

    /// One message there and back.
    ///
    /// # Errors
    ///
    /// When the answering side is gone.
    pub fn round_trip(&mut self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        self.send()?;
        self.receive()?;
        Ok(start.elapsed())
    }

    /// One message there; an answer will come.
    ///
    /// # Errors
    ///
    /// When the answering side is gone.
    #[inline]
    pub fn send(&mut self) -> anyhow::Result<()> {
        Ok(self.socket.write_all(&self.message)?)
    }

    /// One message back.
    ///
    /// # Errors
    ///
    /// When the answering side is gone.
    #[inline]
    pub fn receive(&mut self) -> anyhow::Result<()> {
        Ok(self.socket.read_exact(&mut self.message)?)
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        // The answering side ends at the end of the stream.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// The answering side: returns `None` at once unless this program was started as one.
///
/// # Errors
///
/// When the socket fails in another way than by its end.
pub fn serve_if_asked() -> Option<anyhow::Result<()>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != ECHO_ARGUMENT).skip(1);
    let bytes = arguments.next()?.parse().ok()?;
    Some(serve(bytes))
}

fn serve(bytes: usize) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    let mut socket = UnixStream::from(std::os::fd::AsFd::as_fd(&stdin).try_clone_to_owned()?);
    let mut message = vec![0; bytes];
    while socket.read_exact(&mut message).is_ok() {
        socket.write_all(&message)?;
    }
    Ok(())
}
