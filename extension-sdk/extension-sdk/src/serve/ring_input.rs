//! Reading from shared memory: polls for a while, then sleeps on the channel until the host rings.
//!
//! Over the channel nothing comes any longer but bells and its end. This module must not know what frames mean.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use ipc_protocol::{Header, Kind};
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
}

impl RingInput {
    /// `bells` reads on from where the handshake on the channel ended.
    pub(super) fn new(ring: RingReader, epoch: u32, bells: FrameBuffer, latency: Latency) -> Self {
        Self { ring, epoch, bells, patience: Patience::new(latency), has_ended: false }
    }

    /// Waits for bytes, and moves them to `frames`. Returns 0 at the end.
    ///
    /// # Errors
    ///
    /// The host broke the protocol.
    pub(super) fn fill(&mut self, frames: &mut FrameBuffer, output: &Output) -> Result<usize, Violation> {
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
                self.hear(output)?;
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

    /// Sleeps until the host rings or is gone.
    fn hear(&mut self, output: &Output) -> Result<(), Violation> {
        match receive(output.channel(), &mut self.bells) {
            // Reset, or whatever else: nothing can come any more.
            Ok(0) | Err(_) => self.has_ended = true,
            Ok(_) => {
                while let Some(frame) = self.bells.next_frame_ref()? {
                    let Header { kind, id, epoch, .. } = frame.header;
                    if epoch == self.epoch && kind != Kind::Wake {
                        let expected = "everything but Wake goes through the ring";
                        return Err(Violation::Unexpected { kind, id, expected });
                    }
                }
                // It may have rung because it has read.
                output.tell_of_room();
            }
        }
        Ok(())
    }
}

/// Waits for bytes from the channel.
pub(super) fn receive(channel: &UnixStream, frames: &mut FrameBuffer) -> io::Result<usize> {
    loop {
        let read =
            frames.read_from(|room| Ok(recv(channel, room, RecvFlags::empty()).map(|(read, _)| read)?));
        match read {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
