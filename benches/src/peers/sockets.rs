//! Bare Unix sockets, the ground under every other one: blocking, spinning, and many messages at once.
//!
//! Blocking is the bench's own ping-pong (`raw_socket`); with many in flight it takes a write and a read for each
//! message. Hot is the same with receives that do not block, on both sides. Coalesced writes what may be in flight with
//! one write, and answers whatever a read brings: no protocol could be cheaper, since nothing is told apart.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::server::{self, Server};
use super::{Call, InFlight, OneByOne, SPINS_MAX};
use crate::raw_socket::RawSocket;

/// Peers' names for their answering sides.
pub(super) const HOT: &str = "raw-socket-hot";
pub(super) const COALESCED: &str = "raw-socket-coalesced";

/// Bytes that a coalescing answering side takes at once.
const TAKEN_MAX: usize = 64 * 1024;

impl Call for RawSocket {
    fn call(&mut self) -> anyhow::Result<()> {
        self.round_trip().map(drop)
    }
}

impl InFlight for RawSocket {
    fn rate(&mut self, in_flight: usize, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<f64>> {
        async move {
            for _ in 0..in_flight {
                self.send()?;
            }
            let (begun, mut answered) = (Instant::now(), 0_u32);
            while begun.elapsed() < time {
                self.receive()?;
                self.send()?;
                answered += 1;
            }
            let rate = f64::from(answered) / begun.elapsed().as_secs_f64();
            for _ in 0..in_flight {
                self.receive()?;
            }
            Ok(rate)
        }
        .boxed_local()
    }
}

/// Calls with a pause before each, as from a caller who has other things to do. The pause does not count.
#[derive(Debug)]
pub(super) struct WithGap {
    pub(super) socket: RawSocket,
    pub(super) gap: Duration,
}

impl OneByOne for WithGap {
    fn one_by_one(&mut self, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<Vec<Duration>>> {
        async move {
            let (begun, mut times) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                std::thread::sleep(self.gap);
                times.push(self.socket.round_trip()?);
            }
            Ok(times)
        }
        .boxed_local()
    }
}

/// Both sides spin.
#[derive(Debug)]
pub(super) struct Hot {
    server: Server,
    socket: UnixStream,
    message: Vec<u8>,
}

impl Hot {
    pub(super) fn start(bytes: usize, core: usize) -> anyhow::Result<Self> {
        let (server, socket) = Server::start(HOT, core, &[bytes.to_string()])?;
        server.hold()?;
        socket.set_nonblocking(true)?;
        Ok(Self { server, socket, message: vec![7; bytes] })
    }
}

impl OneByOne for Hot {
    fn one_by_one(&mut self, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<Vec<Duration>>> {
        async move {
            let _awake = self.server.awake()?;
            let (begun, mut times) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                let start = Instant::now();
                spin_write(&mut self.socket, &self.message)?;
                anyhow::ensure!(spin_read(&mut self.socket, &mut self.message)?, "the answering side ended");
                times.push(start.elapsed());
            }
            Ok(times)
        }
        .boxed_local()
    }
}

pub(super) fn serve_hot(arguments: &[String]) -> anyhow::Result<()> {
    let bytes = arguments.first().context("no length is named")?.parse()?;
    let mut socket = UnixStream::from(server::stdin()?);
    socket.set_nonblocking(true)?;
    let mut message = vec![0; bytes];
    while spin_read(&mut socket, &mut message)? {
        spin_write(&mut socket, &message)?;
    }
    Ok(())
}

/// Reads all of `message`; `false` at the end of the stream.
fn spin_read(socket: &mut UnixStream, message: &mut [u8]) -> anyhow::Result<bool> {
    let mut read = 0;
    for _ in 0..SPINS_MAX {
        match socket.read(&mut message[read..]) {
            Ok(0) => return Ok(false),
            Ok(more) => read += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error.into()),
        }
        if read == message.len() {
            return Ok(true);
        }
    }
    anyhow::bail!("nothing came in {SPINS_MAX} spins")
}

fn spin_write(socket: &mut UnixStream, message: &[u8]) -> anyhow::Result<()> {
    let mut written = 0;
    for _ in 0..SPINS_MAX {
        match socket.write(&message[written..]) {
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error.into()),
        }
        if written == message.len() {
            return Ok(());
        }
    }
    anyhow::bail!("nothing went in {SPINS_MAX} spins")
}

/// All that may be in flight with one write.
#[derive(Debug)]
pub(super) struct Coalesced {
    // Before the server: it ends at the end of the stream.
    socket: UnixStream,
    _server: Server,
    bytes: usize,
}

impl Coalesced {
    pub(super) fn start(bytes: usize, core: usize) -> anyhow::Result<Self> {
        let (server, socket) = Server::start(COALESCED, core, &[])?;
        Ok(Self { socket, _server: server, bytes })
    }
}

impl InFlight for Coalesced {
    fn rate(&mut self, in_flight: usize, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<f64>> {
        async move {
            // Half of what may be in flight is written while the other half is answered.
            let half = in_flight / 2;
            let mut messages = vec![7; half * self.bytes];
            self.socket.write_all(&messages)?;
            let (begun, mut halves) = (Instant::now(), 0_u32);
            while begun.elapsed() < time {
                self.socket.write_all(&messages)?;
                self.socket.read_exact(&mut messages)?;
                halves += 1;
            }
            let rate = f64::from(halves) * f64::from(u32::try_from(half)?) / begun.elapsed().as_secs_f64();
            self.socket.read_exact(&mut messages)?;
            Ok(rate)
        }
        .boxed_local()
    }
}

pub(super) fn serve_coalesced() -> anyhow::Result<()> {
    let mut socket = UnixStream::from(server::stdin()?);
    let mut taken = vec![0; TAKEN_MAX];
    loop {
        match socket.read(&mut taken)? {
            0 => return Ok(()),
            bytes => socket.write_all(&taken[..bytes])?,
        }
    }
}
