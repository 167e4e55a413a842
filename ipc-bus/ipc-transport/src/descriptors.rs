//! File descriptors beside bytes: one with each frame that brings any. Must not know what they are for.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// LIMIT: descriptors that are taken with one read. The system closes what comes beyond.
const TAKEN_MAX: usize = 2;

/// Writes what can be written now of `bytes`, and with the first of them a descriptor. Never waits.
///
/// # Errors
///
/// [`io::Error`]: nothing was written; the peer takes nothing now, or is gone.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptor: impl AsFd) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("there is no room for a descriptor"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, flags)?)
}

/// Reads bytes, and takes the descriptors that lie beside them. Waits for bytes unless `flags` say otherwise.
///
/// # Errors
///
/// [`io::Error`]: of the system.
pub fn receive(
    socket: impl AsFd,
    room: &mut [u8],
    flags: RecvFlags,
    come: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TAKEN_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let read = recvmsg(socket, &mut [IoSliceMut::new(room)], &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            come.extend(descriptors);
        }
    }
    Ok(read.bytes)
}
