//! Reading from shared memory: polls for a while, then sleeps on the channel until the host rings.
//!
//! Over the channel nothing comes any longer but bells, what is granted, and its end. This module must not know what frames mean.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bytes::Bytes;
use ipc_protocol::limits::HOST_CALLS_IN_FLIGHT_MAX;
use ipc_protocol::{Header, Kind};
use ipc_transport::descriptors;
use ipc_transport::framing::{FrameBuffer, Violation};
use ipc_transport::ring::{Latency, Patience, RingReader};
use rustix::net::{RecvFlags, recv};

use super::output::Output;

/// Where a reader with rings reads from.
pub(super) struct RingInput {
    ring: RingReader,
    epoch: u32,
    bells: FrameBuffer,
    patience: Patience,
    /// Whether the channel has ended: what is in the ring is the rest.
    has_ended: bool,
    granted: VecDeque<Granted>,
}

/// A frame with a descriptor. Those do not lie in the ring: they come over the channel, before their answer comes through
/// the ring.
pub(super) struct Granted {
    pub(super) header: Header,
    pub(super) body: Bytes,
    pub(super) descriptor: OwnedFd,
}

impl RingInput {
    /// `bells` reads on from where the handshake on the channel ended.
    pub(super) fn new(ring: RingReader, epoch: u32, bells: FrameBuffer, latency: Latency) -> Self {
        Self {
            ring,
            epoch,
            bells,
            patience: Patience::beside_workers(latency),
            has_ended: false,
            granted: VecDeque::new(),
        }
    }

    /// Waits for bytes, and moves them to `frames`. Returns 0 at the end.
    ///
    /// # Errors
    ///
    /// The host broke the protocol.
    pub(super) fn fill(
        &mut self,
        frames: &mut FrameBuffer,
        come: &mut Descriptors,
        output: &Output,
    ) -> Result<usize, Violation> {
        loop {
            let count = self.take(frames, output)?;
            if count > 0 || self.has_ended {
                return Ok(count);
            }
            let ring = &mut self.ring;
            // A lie is found by who reads.
            if self.patience.wait(|| ring.has_bytes().unwrap_or(true)) {
                continue;
            }
            if self.ring.sleep()? {
                let slept_at = Instant::now();
                self.hear(come, output, RecvFlags::empty())?;
                self.patience.slept(slept_at.elapsed());
            }
            self.ring.wake();
        }
    }

    fn take(&mut self, frames: &mut FrameBuffer, output: &Output) -> Result<usize, Violation> {
        let mut lie = None;
        let mut must_wake = false;
        let read = frames.read_from(|room| match self.ring.read(room) {
            Ok(read) => {
                must_wake = read.must_wake;
                Ok(read.count)
            }
            Err(violation) => {
                lie = Some(violation);
                Ok(0)
            }
        });
        if must_wake {
            output.ring_the_bell();
        }
        match lie {
            Some(violation) => Err(violation),
            // Only the closure could have failed.
            None => Ok(read.unwrap_or(0)),
        }
    }

    /// Whatever has been granted until now: what belongs to an answer that came through the ring is there.
    pub(super) fn take_granted(
        &mut self,
        come: &mut Descriptors,
        output: &Output,
    ) -> Result<VecDeque<Granted>, Violation> {
        while !self.has_ended && self.hear(come, output, RecvFlags::DONTWAIT)? {}
        Ok(std::mem::take(&mut self.granted))
    }

    /// Sleeps until the host rings or is gone, or does not sleep. Returns whether something came.
    fn hear(&mut self, come: &mut Descriptors, output: &Output, flags: RecvFlags) -> Result<bool, Violation> {
        match receive(output.channel(), &mut self.bells, come, flags) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // Reset, or whatever else: nothing can come any more.
            Ok(0) | Err(_) => self.has_ended = true,
            Ok(_) => {
                while let Some(frame) = self.bells.next_frame_ref()? {
                    let header = frame.header;
                    let Header { kind, id, epoch, .. } = header;
                    let descriptor = come.take(&header);
                    if epoch != self.epoch || kind == Kind::Wake {
                        continue;
                    }
                    let is_full = self.granted.len() >= HOST_CALLS_IN_FLIGHT_MAX as usize;
                    let Some(descriptor) = descriptor.filter(|_| kind == Kind::Descriptor && !is_full) else {
                        let expected = "everything but Wake and what is granted goes through the ring";
                        return Err(Violation::Unexpected { kind, id, expected });
                    };
                    self.granted.push_back(Granted { header, body: frame.body.into_bytes(), descriptor });
                }
                // It may have rung because it has read.
                output.tell_of_room();
            }
        }
        Ok(!self.has_ended)
    }
}

/// Descriptors that lay beside the bytes that were read, in the order of their frames.
pub(super) struct Descriptors {
    is_agreed: bool,
    come: VecDeque<OwnedFd>,
}

impl Descriptors {
    /// Without `is_agreed` the system closes whatever comes.
    pub(super) fn new(is_agreed: bool) -> Self {
        Self { is_agreed, come: VecDeque::new() }
    }

    /// The one that a frame brings. All others are closed.
    pub(super) fn take(&mut self, header: &Header) -> Option<OwnedFd> {
        let mut brought = self.come.drain(..usize::from(header.descriptors).min(self.come.len()));
        brought.next().filter(|_| header.kind == Kind::Descriptor)
    }
}

/// Reads bytes from the channel; waits for them unless `flags` say otherwise.
pub(super) fn receive(
    channel: &UnixStream,
    frames: &mut FrameBuffer,
    come: &mut Descriptors,
    flags: RecvFlags,
) -> io::Result<usize> {
    loop {
        let read = frames.read_from(|room| match come.is_agreed {
            true => descriptors::receive(channel, room, flags, &mut come.come),
            false => Ok(recv(channel, room, flags).map(|(read, _)| read)?),
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
