//! The host's end of a channel: never waits, never raises a signal. Must not know frames.
#![expect(unsafe_code, reason = "tokio cannot see that a registered descriptor stays open; here it does")]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use crate::descriptors;

/// A stream socket that is registered with the runtime for reading only: an edge for writing would wake this
/// side each time the peer reads, which costs as much as an answer does.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<UnixStream>);

/// Tells when a peer reads again that did not. Kept only for as long.
#[derive(Debug)]
pub(super) struct WriteWatch(AsyncFd<UnixStream>);

fn register(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: `UnixStream` owns its descriptor: `as_raw_fd` returns the same open one until it is dropped, and
    // nobody here replaces the stream within the `AsyncFd` or gives its descriptor away.
    let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
    registered.map_err(io::Error::from)
}

impl Socket {
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        register(socket, Interest::READABLE).map(Self)
    }

    /// Writes what can be written now.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(rustix::net::send(self.0.get_ref(), bytes, flags)?)
    }

    /// As [`Self::send`], for bytes in several places.
    pub(super) fn send_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [slice] = slices {
            return self.send(slice);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut none = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(self.0.get_ref(), slices, &mut none, flags)?)
    }

    /// Writes what can be written now, and with the first byte a descriptor.
    pub(super) fn send_granting(&self, bytes: &[u8], descriptor: impl AsFd) -> io::Result<usize> {
        descriptors::send(self.0.get_ref(), bytes, descriptor)
    }

    /// Reads what is there now.
    pub(super) fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(self.0.get_ref(), room, RecvFlags::DONTWAIT)?;
        Ok(count)
    }

    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        self.0.poll_read_ready(cx)
    }

    pub(super) async fn readable(&self) -> io::Result<Readable<'_>> {
        self.0.readable().await
    }

    pub(super) fn watch_writes(&self) -> io::Result<WriteWatch> {
        register(self.0.get_ref().try_clone()?, Interest::WRITABLE).map(WriteWatch)
    }

    /// The peer sees the end after what was written; its own words still come.
    pub(super) fn shut_down_writes(&self) {
        // As below.
        let _ = rustix::net::shutdown(self.0.get_ref(), Shutdown::Write);
    }

    /// What was received can still be read, and then the end.
    pub(super) fn shut_down(&self) {
        // An error means that the peer is gone already.
        let _ = rustix::net::shutdown(self.0.get_ref(), Shutdown::Both);
    }
}

/// Says when nothing more is to be read.
pub(super) type Readable<'a> = AsyncFdReadyGuard<'a, UnixStream>;

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl WriteWatch {
    /// Ready when it is worth a try to write.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx).map_ok(|mut guard| guard.clear_ready())
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.0.writable().await.map(|mut guard| guard.clear_ready())
    }
}
