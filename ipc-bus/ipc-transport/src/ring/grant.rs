//! How the rings' memory comes to the extension: two descriptors over the socket, before its start.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc_protocol::control::DescriptorGrant;
use ipc_protocol::{Header, Kind};
use rustix::net::RecvFlags;

use super::halves::{Halves, Offer};
use crate::descriptors;
use crate::framing::{FrameBuffer, append_message};

/// `purpose` of the grants.
const PURPOSE: &str = "ring";

/// Which descriptor is which region: the grant's index.
const HOST: u32 = 0;
const EXTENSION: u32 = 1;

/// Sends both descriptors. Never waits: the extension has read everything that came before.
///
/// # Errors
///
/// [`io::Error`]: the extension is gone.
pub fn send(socket: impl AsFd, epoch: u32, offer: &Offer) -> io::Result<()> {
    for (index, memory, writable) in [(HOST, &offer.host, false), (EXTENSION, &offer.extension, true)] {
        let mut grant = DescriptorGrant::new(PURPOSE, index, Offer::BYTES);
        grant.writable = writable;
        let mut bytes = Vec::new();
        let header = Header { descriptors: 1, ..Header::new(Kind::Descriptor, epoch, 0) };
        append_message(&mut bytes, header, &grant).map_err(io::Error::other)?;
        let sent = descriptors::send(&socket, &bytes, memory)?;
        if sent != bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// What an extension was given.
#[derive(Debug)]
pub struct Granted {
    /// The host's region, which can only be mapped for reading.
    pub host: OwnedFd,
    /// The extension's own region.
    pub own: OwnedFd,
}

impl Granted {
    /// Maps both.
    ///
    /// # Errors
    ///
    /// [`io::Error`]: the memory is not what it must be, or cannot be mapped. Go on without rings.
    pub fn map(&self) -> io::Result<Halves> {
        Halves::of_grants(&self.host, &self.own)
    }
}

/// The extension's side: waits for both descriptors. `frames` has nothing unread.
///
/// # Errors
///
/// [`io::Error`]: something else came, or nothing in time.
pub fn receive(socket: &UnixStream, frames: &mut FrameBuffer, timeout: Duration) -> io::Result<Granted> {
    socket.set_read_timeout(Some(timeout))?;
    let granted = receive_both(socket, frames);
    // Whoever goes on without rings waits on this socket for as long as it takes.
    socket.set_read_timeout(None)?;
    granted
}

fn receive_both(socket: &UnixStream, frames: &mut FrameBuffer) -> io::Result<Granted> {
    let mut taken = [None, None];
    let mut come = VecDeque::new();
    while taken.iter().any(Option::is_none) {
        let Some(frame) = frames.next_frame().map_err(io::Error::other)? else {
            match frames.read_from(|room| descriptors::receive(socket, room, RecvFlags::empty(), &mut come)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            continue;
        };
        let unexpected =
            || io::Error::other(format!("{:?} came, where rings were to be granted", frame.header));
        if frame.header.kind != Kind::Descriptor || frame.header.descriptors != 1 {
            return Err(unexpected());
        }
        let descriptor = come.pop_front().ok_or_else(unexpected)?;
        let grant: DescriptorGrant = frame.decode().map_err(io::Error::other)?;
        let place =
            taken.get_mut(grant.index as usize).filter(|place| grant.purpose == PURPOSE && place.is_none());
        *place.ok_or_else(unexpected)? = Some(descriptor);
    }
    match taken {
        [Some(host), Some(own)] => Ok(Granted { host, own }),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn what_was_granted_can_be_used() {
        let (host, extension) = UnixStream::pair().unwrap();
        let offer = Offer::new().unwrap();
        send(&host, 7, &offer).unwrap();
        let mut theirs = receive(&extension, &mut FrameBuffer::new(1 << 20), SOON).unwrap().map().unwrap();
        let mut ours = offer.halves;
        theirs.writer.write(b"hello").unwrap();
        assert!(!theirs.writer.publish());
        let mut room = [0; 5];
        assert_eq!(ours.reader.read(&mut room).unwrap().count, 5);
        assert_eq!(&room, b"hello");
    }

    #[test]
    fn what_is_no_grant_is_refused() {
        let (mut host, extension) = UnixStream::pair().unwrap();
        let frames = &mut FrameBuffer::new(1 << 20);
        // A frame that speaks of a descriptor and brings none.
        let mut bytes = Vec::new();
        let header = Header { descriptors: 1, ..Header::new(Kind::Descriptor, 7, 0) };
        append_message(&mut bytes, header, &DescriptorGrant::new(PURPOSE, 0, 1)).unwrap();
        io::Write::write_all(&mut host, &bytes).unwrap();
        assert!(receive(&extension, frames, SOON).is_err());
        let (host, extension) = UnixStream::pair().unwrap();
        drop(host);
        let error = receive(&extension, &mut FrameBuffer::new(1 << 20), SOON).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
