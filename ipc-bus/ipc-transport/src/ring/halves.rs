//! A ring's two ends in one process: what it writes to the other side, and what it reads from it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::RING_BYTES;
use super::region::{Region, bytes, create, seal_seals, seal_writing};
use crate::framing::Violation;
use pit_core::byte_ring::{Consumer, Lie, Producer};

/// Bytes of a long message that are shown at once: few enough that both sides are busy with it at the same time, and so
/// many that telling of them costs little.
const PIECE_BYTES: usize = 16 << 10;

/// Both regions, as this side maps them.
#[derive(Debug)]
struct Regions {
    mine: Region,
    theirs: Region,
}

/// Both ends.
#[derive(Debug)]
pub struct Halves {
    /// What this side says.
    pub writer: RingWriter,
    /// What it hears.
    pub reader: RingReader,
}

impl Halves {
    fn new(mine: Region, theirs: Region) -> Self {
        let (producer, consumer) = (Producer::new(mine.capacity()), Consumer::new(theirs.capacity()));
        let regions = Arc::new(Regions { mine, theirs });
        let writer = RingWriter { regions: Arc::clone(&regions), producer, unpublished: 0 };
        Self { writer, reader: RingReader { regions, consumer } }
    }

    /// The extension's side, from what the host has granted: its region, and the extension's own.
    pub(super) fn of_grants(host: &OwnedFd, own: &OwnedFd) -> io::Result<Self> {
        Ok(Self::new(Region::map(own, true)?, Region::map(host, false)?))
    }
}

/// The host's side, with the memory that the extension must be given.
#[derive(Debug)]
pub struct Offer {
    /// The host's ends.
    pub halves: Halves,
    /// The host's region, which the extension can only map for reading.
    pub host: OwnedFd,
    /// The extension's region.
    pub extension: OwnedFd,
}

impl Offer {
    /// Bytes of each region.
    pub const BYTES: u64 = bytes(RING_BYTES);

    /// New rings. The host makes the memory of both, so that it never maps what an extension gives it.
    ///
    /// # Errors
    ///
    /// [`io::Error`]: there is no memory for them. Go on without rings.
    pub fn new() -> io::Result<Self> {
        let (host, extension) =
            (create("symphony-host", RING_BYTES)?, create("symphony-extension", RING_BYTES)?);
        let (mine, theirs) = (Region::map(&host, true)?, Region::map(&extension, false)?);
        seal_writing(host.as_fd())?;
        seal_seals(extension.as_fd())?;
        Ok(Self { halves: Halves::new(mine, theirs), host, extension })
    }
}

fn violation(Lie(what): Lie) -> Violation {
    Violation::Ring { what }
}

/// The writing end.
#[derive(Debug)]
pub struct RingWriter {
    regions: Arc<Regions>,
    producer: Producer,
    /// Bytes that lie behind the tail and were not published yet.
    unpublished: usize,
}

impl RingWriter {
    /// Copies as much of `bytes` as there is room for, behind what was written before; the other side sees it after
    /// [`Self::publish`]. Returns how many bytes it was.
    ///
    /// # Errors
    ///
    /// [`Violation::Ring`]: the other side's words cannot be. End the connection.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let wanted = self.unpublished + bytes.len();
        let room = self.producer.room(self.regions.theirs.control(), wanted).map_err(violation)?;
        let count = bytes.len().min(room - self.unpublished);
        self.regions.mine.write(self.producer.position() + self.unpublished as u64, &bytes[..count]);
        self.unpublished += count;
        Ok(count)
    }

    /// As [`Self::write`], and shows what is long piece by piece, so that the other side copies one piece out while this
    /// side writes the next. The last piece is left to [`Self::publish`]. `must_wake` becomes true where that says so.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn write_by_pieces(&mut self, bytes: &[u8], must_wake: &mut bool) -> Result<usize, Violation> {
        let mut written = 0;
        for piece in bytes.chunks(PIECE_BYTES) {
            if self.unpublished >= PIECE_BYTES {
                *must_wake |= self.publish();
            }
            let count = self.write(piece)?;
            written += count;
            if count < piece.len() {
                break;
            }
        }
        Ok(written)
    }

    /// Whether as many bytes can be written at once.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn has_room(&mut self, count: usize) -> Result<bool, Violation> {
        let wanted = self.unpublished + count;
        Ok(self.producer.room(self.regions.theirs.control(), wanted).map_err(violation)? >= wanted)
    }

    /// Shows the other side what was written. Returns whether it sleeps and must be woken.
    #[must_use = "a reader that sleeps must be woken"]
    pub fn publish(&mut self) -> bool {
        let count = std::mem::take(&mut self.unpublished);
        if count == 0 {
            return false;
        }
        self.producer.publish(self.regions.mine.control(), count);
        self.producer.must_wake(self.regions.theirs.control())
    }

    /// Says that this side waits until the other has read. Returns whether there is no room at all: then the other
    /// side will wake this one.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn wait_for_room(&mut self) -> Result<bool, Violation> {
        let Regions { mine, theirs } = &*self.regions;
        self.producer.wait_for_room(mine.control(), theirs.control()).map_err(violation)
    }

    /// Nobody waits for room any longer.
    pub fn stop_waiting(&mut self) {
        self.producer.stop_waiting(self.regions.mine.control());
    }
}

/// The reading end.
#[derive(Debug)]
pub struct RingReader {
    regions: Arc<Regions>,
    consumer: Consumer,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Bytes that were copied out.
    pub count: usize,
    /// Whether the other side waits for their room, and must be woken.
    pub must_wake: bool,
}

impl RingReader {
    /// Copies bytes out, and gives their room back.
    ///
    /// # Errors
    ///
    /// [`Violation::Ring`]: the other side's words cannot be. End the connection.
    pub fn read(&mut self, room: &mut [u8]) -> Result<Read, Violation> {
        let Regions { mine, theirs } = &*self.regions;
        let used = self.consumer.available(theirs.control()).map_err(violation)?;
        let count = used.min(room.len());
        if count == 0 {
            return Ok(Read { count, must_wake: false });
        }
        theirs.read(self.consumer.position(), &mut room[..count]);
        self.consumer.release(mine.control(), count);
        let must_wake = used >= theirs.capacity() / 2 && self.consumer.must_wake(theirs.control());
        Ok(Read { count, must_wake })
    }

    /// Whether something is there to be read. A look at one word that is most often in this core's cache.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn has_bytes(&mut self) -> Result<bool, Violation> {
        Ok(self.consumer.available(self.regions.theirs.control()).map_err(violation)? > 0)
    }

    /// Says that nobody looks from here on: the other side must wake this one. Returns whether that is so; if not,
    /// something has come meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn sleep(&mut self) -> Result<bool, Violation> {
        let Regions { mine, theirs } = &*self.regions;
        self.consumer.sleep(mine.control(), theirs.control()).map_err(violation)
    }

    /// Somebody looks from here on.
    pub fn wake(&mut self) {
        self.consumer.wake(self.regions.mine.control());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn pair() -> (Halves, Halves) {
        let Offer { halves, host, extension } = Offer::new().unwrap();
        (halves, Halves::of_grants(&host, &extension).unwrap())
    }

    #[test]
    fn bytes_pass_both_ways_however_they_are_cut() {
        let (host, extension) = pair();
        let sends = |mut writer: RingWriter, seed: usize| {
            thread::spawn(move || {
                let bytes: Vec<u8> = (0..=250).cycle().skip(seed).take(3 * RING_BYTES + 77).collect();
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let piece = rest.len().min(1 + rest.len() % 5000);
                    let count = writer.write(&rest[..piece]).unwrap();
                    let _ = writer.publish();
                    rest = &rest[count..];
                    thread::yield_now();
                }
                bytes
            })
        };
        let hears = |mut reader: RingReader| {
            thread::spawn(move || {
                let mut heard = Vec::new();
                let mut room = vec![0; 7000];
                while heard.len() < 3 * RING_BYTES + 77 {
                    let Read { count, .. } = reader.read(&mut room).unwrap();
                    heard.extend_from_slice(&room[..count]);
                    thread::yield_now();
                }
                heard
            })
        };
        let (said, heard) = (sends(host.writer, 0), hears(extension.reader));
        let (answered, understood) = (sends(extension.writer, 9), hears(host.reader));
        assert!(said.join().unwrap() == heard.join().unwrap());
        assert!(answered.join().unwrap() == understood.join().unwrap());
    }

    #[test]
    fn what_is_not_published_is_not_seen() {
        let (mut host, mut extension) = pair();
        assert_eq!(host.writer.write(b"frame").unwrap(), 5);
        assert!(!extension.reader.has_bytes().unwrap());
        assert!(extension.reader.sleep().unwrap());
        assert!(host.writer.publish(), "it sleeps");
        assert!(!host.writer.publish(), "nothing new");
        extension.reader.wake();
        let mut room = [0; 8];
        assert_eq!(extension.reader.read(&mut room).unwrap(), Read { count: 5, must_wake: false });
        assert_eq!(&room[..5], b"frame");
    }

    #[test]
    fn what_is_long_is_shown_piece_by_piece() {
        let (mut host, mut extension) = pair();
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * PIECE_BYTES + 5).collect();
        let mut must_wake = false;
        assert!(extension.reader.sleep().unwrap());
        assert_eq!(host.writer.write_by_pieces(&bytes, &mut must_wake).unwrap(), bytes.len());
        assert!(must_wake, "it sleeps, and there is something");
        let mut room = vec![0; bytes.len()];
        assert_eq!(extension.reader.read(&mut room).unwrap().count, 3 * PIECE_BYTES);
        let _ = host.writer.publish();
        assert_eq!(extension.reader.read(&mut room[3 * PIECE_BYTES..]).unwrap().count, 5);
        assert!(room == bytes);
        let many = vec![7; RING_BYTES + 9];
        assert_eq!(host.writer.write_by_pieces(&many, &mut must_wake).unwrap(), RING_BYTES, "what fits");
    }

    #[test]
    fn a_full_ring_takes_nothing_and_tells_who_waits() {
        let (mut host, mut extension) = pair();
        assert_eq!(host.writer.write(&vec![1; RING_BYTES + 1]).unwrap(), RING_BYTES);
        assert_eq!(host.writer.write(b"x").unwrap(), 0);
        let _ = host.writer.publish();
        assert!(host.writer.wait_for_room().unwrap());
        let mut room = vec![0; 100];
        assert!(extension.reader.read(&mut room).unwrap().must_wake);
        assert!(!extension.reader.read(&mut room).unwrap().must_wake, "once");
        host.writer.stop_waiting();
        assert_eq!(host.writer.write(&vec![2; 300]).unwrap(), 200);
    }
}
