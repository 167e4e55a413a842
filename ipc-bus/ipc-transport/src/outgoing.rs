//! The bytes that wait to be written to one peer, in order, and which of them the peer may have seen.
//!
//! Small messages are appended to one vector, so that many go out with one system call; a large body is kept
//! as the caller's own bytes and never copied. This module must not know sockets or calls. Positions count
//! bytes since the connection began:
//!
//! ```text
//! 0 ........... written ........... taken ........... end
//!   seen by        at the writer:       here: surely
//!   the peer       in doubt             not seen
//! ```

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use ipc_protocol::Header;

use crate::framing::{append_frame, split_frames};

/// LIMIT: the longest body that is copied behind its header; a longer one is queued as it is.
const COPIED_BODY_BYTES_MAX: usize = 16 << 10;

/// LIMIT: capacity of an emptied vector that is kept for the next bytes.
const SPARE_BYTES_MAX: usize = 256 << 10;

/// LIMIT: pieces handed to one system call.
pub(crate) const SLICES_MAX: usize = 64;

/// LIMIT: descriptors that wait to be written: each counts against this process's own.
const GRANTING_MAX: usize = 64;

/// A body on its way into the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum QueuedBody<'a> {
    /// Borrowed: copied into the queue.
    Borrowed(&'a [u8]),
    /// Owned: shared if it is large.
    Shared(&'a Bytes),
}

impl QueuedBody<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(slice) => slice,
            Self::Shared(bytes) => bytes,
        }
    }

    pub(crate) fn to_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(slice) => Bytes::copy_from_slice(slice),
            Self::Shared(bytes) => bytes.clone(),
        }
    }
}

#[derive(Debug)]
enum Chunk {
    Small(Vec<u8>),
    Large(Bytes),
    /// Goes out on its own, with the descriptor beside its first byte.
    Granting(Vec<u8>, OwnedFd),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Small(bytes) | Self::Granting(bytes, _) => bytes,
            Self::Large(bytes) => bytes,
        }
    }
}

/// What the writer holds while it writes without the lock.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written already.
    offset: usize,
    spare: Vec<u8>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The next bytes, if a descriptor goes with their first.
    pub(crate) fn granting(&self) -> Option<(&[u8], &OwnedFd)> {
        match self.chunks.front() {
            Some(Chunk::Granting(bytes, descriptor)) if self.offset == 0 => Some((bytes, descriptor)),
            _ => None,
        }
    }

    /// The next bytes, for one system call.
    pub(crate) fn slices<'a, 'b>(&'a self, room: &'b mut [IoSlice<'a>; SLICES_MAX]) -> &'b [IoSlice<'a>] {
        let mut offset = self.offset;
        let mut count = 0;
        let until_granting =
            |(at, chunk): &(usize, &Chunk)| *at == 0 || !matches!(chunk, Chunk::Granting(..));
        let chunks = self.chunks.iter().enumerate().take_while(until_granting);
        for (slice, (_, chunk)) in room.iter_mut().zip(chunks) {
            *slice = IoSlice::new(&chunk.as_slice()[offset..]);
            offset = 0;
            count += 1;
        }
        &room[..count]
    }

    /// Forgets `count` bytes, which were written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.offset += count;
        while let Some(chunk) = self.chunks.front() {
            let length = chunk.as_slice().len();
            if self.offset < length {
                return;
            }
            self.offset -= length;
            if let Some(Chunk::Small(mut bytes)) = self.chunks.pop_front()
                && bytes.capacity() <= SPARE_BYTES_MAX
            {
                bytes.clear();
                self.spare = bytes;
            }
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// INVARIANT: `chunks` and then `tail` are the bytes from `taken` to `end`.
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written already.
    offset: usize,
    tail: Vec<u8>,
    written: u64,
    taken: u64,
    end: u64,
    /// Where the last message ends that brings a descriptor.
    granting_end: u64,
    /// Descriptors in messages of which none was written, since the last time that all were.
    granting: usize,
}

impl Outgoing {
    /// Appends a message in one frame, with a descriptor. Returns whether there was room for one more.
    pub(crate) fn push_granting(&mut self, header: Header, body: &[u8], descriptor: OwnedFd) -> bool {
        if self.written >= self.granting_end {
            self.granting = 0;
        }
        if self.granting == GRANTING_MAX {
            return false;
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(Chunk::Small(std::mem::take(&mut self.tail)));
        }
        let mut bytes = Vec::new();
        append_frame(&mut bytes, header, body);
        self.end += bytes.len() as u64;
        self.granting_end = self.end;
        self.granting += 1;
        self.chunks.push_back(Chunk::Granting(bytes, descriptor));
        true
    }

    /// Bytes that are not written.
    pub(crate) fn queued(&self) -> u64 {
        self.end - self.written
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end == self.written
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Where the bytes begin that the peer cannot have seen.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Appends one message; returns where it begins.
    pub(crate) fn push(&mut self, header: Header, body: QueuedBody<'_>) -> u64 {
        let start = self.end;
        match body {
            QueuedBody::Shared(bytes) if bytes.len() > COPIED_BODY_BYTES_MAX => {
                for (header, part) in split_frames(header, bytes) {
                    self.tail.extend_from_slice(&header);
                    self.chunks.push_back(Chunk::Small(std::mem::take(&mut self.tail)));
                    self.chunks.push_back(Chunk::Large(bytes.slice_ref(part)));
                    self.end += (header.len() + part.len()) as u64;
                }
            }
            body => {
                let before = self.tail.len();
                append_frame(&mut self.tail, header, body.as_slice());
                self.end += (self.tail.len() - before) as u64;
            }
        }
        start
    }

    /// All bytes, if they lie in one piece and the writer holds none.
    pub(crate) fn in_one_piece(&self) -> Option<&[u8]> {
        (self.chunks.is_empty() && self.taken == self.written).then_some(&self.tail)
    }

    /// Accounts for `count` bytes of [`Self::in_one_piece`], which were written.
    pub(crate) fn wrote_piece(&mut self, count: usize) {
        self.written += count as u64;
        self.taken = self.written;
        if count == self.tail.len() {
            self.tail.clear();
        } else if count > 0 {
            self.chunks.push_back(Chunk::Small(std::mem::take(&mut self.tail)));
            self.offset = count;
        }
    }

    /// Gives everything to `sink`, which takes as many bytes of each piece as it says. Returns whether it took
    /// all. The writer must hold none.
    ///
    /// # Errors
    ///
    /// Those of `sink`.
    pub(crate) fn drain_into<E>(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Result<bool, E> {
        while let Some(chunk) = self.chunks.front() {
            let rest = &chunk.as_slice()[self.offset..];
            let count = sink(rest)?;
            let is_whole = count == rest.len();
            self.offset = if is_whole { 0 } else { self.offset + count };
            self.written += count as u64;
            self.taken = self.written;
            if !is_whole {
                return Ok(false);
            }
            self.chunks.pop_front();
        }
        let count = sink(&self.tail)?;
        self.wrote_piece(count);
        Ok(self.is_empty())
    }

    /// Hands everything to the writer. `batch` must be empty.
    pub(crate) fn take(&mut self, batch: &mut Batch) {
        std::mem::swap(&mut self.chunks, &mut batch.chunks);
        batch.offset = std::mem::take(&mut self.offset);
        if !self.tail.is_empty() {
            let tail = std::mem::replace(&mut self.tail, std::mem::take(&mut batch.spare));
            batch.chunks.push_back(Chunk::Small(tail));
        }
        self.taken = self.end;
    }

    /// Accounts for `count` bytes of a batch, which were written.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// Takes the rest of a batch back: the peer does not read, and what is not written can still be withdrawn.
    pub(crate) fn give_back(&mut self, batch: &mut Batch) {
        batch.chunks.append(&mut self.chunks);
        std::mem::swap(&mut self.chunks, &mut batch.chunks);
        self.offset = std::mem::take(&mut batch.offset);
        self.taken = self.written;
    }

    /// Forgets everything that is not written.
    pub(crate) fn discard(&mut self) {
        *self = Self { written: self.written, taken: self.written, end: self.written, ..Self::default() };
    }

    /// Removes messages that nobody has seen. `ranges` are theirs, in order, none before [`Self::taken`].
    pub(crate) fn withdraw(&mut self, ranges: &[(u64, u64)]) {
        let mut chunks = std::mem::take(&mut self.chunks);
        chunks.push_back(Chunk::Small(std::mem::take(&mut self.tail)));
        let mut offset = std::mem::take(&mut self.offset);
        let mut position = self.taken;
        for chunk in chunks {
            let bytes = &chunk.as_slice()[offset..];
            let kept = kept_parts(position, bytes.len() as u64, ranges);
            position += bytes.len() as u64;
            let as_it_is = [(0, bytes.len())];
            match chunk {
                Chunk::Small(bytes) if bytes.is_empty() => {}
                chunk if kept == as_it_is => {
                    // INVARIANT: only the first chunk has an offset, and it stays the first.
                    self.offset += offset;
                    self.chunks.push_back(chunk);
                }
                Chunk::Small(bytes) => {
                    let parts: Vec<&[u8]> =
                        kept.iter().map(|&(from, to)| &bytes[offset + from..offset + to]).collect();
                    if !parts.is_empty() {
                        self.chunks.push_back(Chunk::Small(parts.concat()));
                    }
                }
                // Only calls are withdrawn.
                chunk @ Chunk::Granting(..) => self.chunks.push_back(chunk),
                Chunk::Large(bytes) => {
                    for (from, to) in kept {
                        self.chunks.push_back(Chunk::Large(bytes.slice(offset + from..offset + to)));
                    }
                }
            }
            offset = 0;
        }
        self.end -= ranges.iter().map(|(from, to)| to - from).sum::<u64>();
        self.granting_end = self.granting_end.min(self.end);
    }
}

/// What `ranges` leave of `length` bytes at `position`, relative to it.
fn kept_parts(position: u64, length: u64, ranges: &[(u64, u64)]) -> Vec<(usize, usize)> {
    let relative = |at: u64| usize::try_from(at - position).unwrap_or(usize::MAX);
    let end = position + length;
    let mut kept = Vec::new();
    let mut at = position;
    for &(from, to) in ranges.iter().filter(|&&(from, to)| from < end && to > position) {
        if from > at {
            kept.push((relative(at), relative(from)));
        }
        at = to.min(end);
    }
    if at < end {
        kept.push((relative(at), relative(end)));
    }
    kept
}

#[cfg(test)]
mod tests {
    use ipc_protocol::frame::HEADER_BYTES;
    use ipc_protocol::limits::FRAME_BODY_BYTES_MAX;
    use ipc_protocol::{Codec, Kind};
    use proptest::prelude::*;

    use super::*;

    /// What a writer does in one turn.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Queues a message with a body of this many bytes.
        Push(usize),
        /// Writes this many bytes at once, if they lie in one piece.
        Direct(usize),
        /// Takes everything, writes this many bytes of it, and gives the rest back.
        Write(usize),
        /// Withdraws the messages whose place among those that can be is a multiple of this.
        Withdraw(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..100_usize).prop_map(Step::Push),
            2 => (COPIED_BODY_BYTES_MAX - 2..COPIED_BODY_BYTES_MAX + 3).prop_map(Step::Push),
            1 => Just(Step::Push(FRAME_BODY_BYTES_MAX as usize + 1)),
            1 => (0..200_usize).prop_map(Step::Direct),
            2 => prop_oneof![0..200_usize, 0..100_000_usize, 0..2_000_000_usize].prop_map(Step::Write),
            1 => (1..4_usize).prop_map(Step::Withdraw),
        ]
    }

    /// Sends up to `count` bytes of the batch, as a socket would.
    fn send(batch: &mut Batch, mut count: usize, wire: &mut Vec<u8>) -> usize {
        let mut sent = 0;
        while count > 0 && !batch.is_empty() {
            let mut room = [IoSlice::new(&[]); SLICES_MAX];
            let mut part = 0;
            for slice in batch.slices(&mut room) {
                let taken = slice.len().min(count);
                wire.extend_from_slice(&slice[..taken]);
                part += taken;
                count -= taken;
            }
            batch.advance(part);
            sent += part;
        }
        sent
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

        #[test]
        fn what_is_not_withdrawn_is_written_whole_and_in_order(steps in prop::collection::vec(any_step(), 1..30)) {
            let mut outgoing = Outgoing::default();
            let mut wire = Vec::new();
            // What must be on the wire in the end, with the place of each message.
            let mut expected: Vec<(u64, Vec<u8>)> = Vec::new();
            let mut batch = Batch::default();
            for (step, id) in steps.into_iter().zip(1_u64..) {
                match step {
                    Step::Push(size) => {
                        let header = Header { codec: Codec::MessagePack, ..Header::new(Kind::Call, 1, id) };
                        let body = Bytes::from(vec![id.to_le_bytes()[0]; size]);
                        let queued = if id % 2 == 0 && size < 200 {
                            QueuedBody::Borrowed(&body)
                        } else {
                            QueuedBody::Shared(&body)
                        };
                        let start = outgoing.push(header, queued);
                        let mut bytes = Vec::new();
                        append_frame(&mut bytes, header, &body);
                        prop_assert_eq!(outgoing.end(), start + bytes.len() as u64);
                        prop_assert!(bytes.len() >= HEADER_BYTES);
                        expected.push((start, bytes));
                    }
                    Step::Direct(count) => {
                        if let Some(piece) = outgoing.in_one_piece() {
                            let count = count.min(piece.len());
                            wire.extend_from_slice(&piece[..count]);
                            outgoing.wrote_piece(count);
                        }
                    }
                    Step::Write(count) => {
                        outgoing.take(&mut batch);
                        prop_assert_eq!(outgoing.taken(), outgoing.end());
                        let sent = send(&mut batch, count, &mut wire);
                        outgoing.wrote(sent);
                        outgoing.give_back(&mut batch);
                    }
                    Step::Withdraw(every) => {
                        let taken = outgoing.taken();
                        let mut place = 0;
                        let mut removed = 0;
                        let mut ranges = Vec::new();
                        expected.retain_mut(|(start, bytes)| {
                            place += usize::from(*start >= taken);
                            if *start >= taken && place % every == 0 {
                                ranges.push((*start, *start + bytes.len() as u64));
                                removed += bytes.len() as u64;
                                return false;
                            }
                            *start -= removed;
                            true
                        });
                        outgoing.withdraw(&ranges);
                    }
                }
                let length: usize = expected.iter().map(|(_, bytes)| bytes.len()).sum();
                prop_assert_eq!(outgoing.end(), length as u64);
                prop_assert_eq!(outgoing.written(), wire.len() as u64);
                prop_assert_eq!(outgoing.queued(), (length - wire.len()) as u64);
            }
            outgoing.take(&mut batch);
            send(&mut batch, usize::MAX, &mut wire);
            let expected: Vec<u8> = expected.into_iter().flat_map(|(_, bytes)| bytes).collect();
            prop_assert!(wire == expected, "{} bytes written, {} expected", wire.len(), expected.len());
        }
    }

    #[test]
    fn a_large_body_is_shared_and_not_copied() {
        let body = Bytes::from(vec![1; COPIED_BODY_BYTES_MAX + 1]);
        let mut outgoing = Outgoing::default();
        outgoing.push(
            Header { codec: Codec::MessagePack, ..Header::new(Kind::Call, 1, 1) },
            QueuedBody::Shared(&body),
        );
        let mut batch = Batch::default();
        outgoing.take(&mut batch);
        let mut room = [IoSlice::new(&[]); SLICES_MAX];
        assert_eq!(batch.slices(&mut room)[1].as_ptr(), body.as_ptr());
    }

    fn descriptor() -> OwnedFd {
        std::fs::File::open("Cargo.toml").unwrap().into()
    }

    #[test]
    fn a_message_with_a_descriptor_goes_out_on_its_own_and_in_its_place() {
        let header = |id| Header { codec: Codec::MessagePack, ..Header::new(Kind::Call, 1, id) };
        let mut outgoing = Outgoing::default();
        outgoing.push(header(1), QueuedBody::Borrowed(b"\xc0"));
        assert!(outgoing.push_granting(header(2), b"\xc0", descriptor()));
        assert!(outgoing.push_granting(header(3), b"\xc0", descriptor()));
        outgoing.push(header(4), QueuedBody::Borrowed(b"\xc0"));
        assert!(outgoing.in_one_piece().is_none());
        let mut batch = Batch::default();
        outgoing.take(&mut batch);
        let message = HEADER_BYTES + 1;
        let next = |batch: &Batch| {
            let mut room = [IoSlice::new(&[]); SLICES_MAX];
            let granting = batch.granting().map(|(bytes, _)| bytes.len());
            (granting, batch.slices(&mut room).iter().map(|slice| slice.len()).sum::<usize>())
        };
        assert_eq!(next(&batch), (None, message), "what comes before it goes first");
        batch.advance(message);
        assert_eq!(next(&batch).0, Some(message));
        // It went with the first byte.
        batch.advance(1);
        assert_eq!(next(&batch), (None, message - 1));
        batch.advance(message - 1);
        assert_eq!(next(&batch).0, Some(message));
        batch.advance(message);
        assert_eq!(next(&batch), (None, message));
    }

    #[test]
    fn descriptors_that_wait_are_bounded() {
        let header = Header { codec: Codec::MessagePack, ..Header::new(Kind::Descriptor, 1, 1) };
        let mut outgoing = Outgoing::default();
        for _ in 0..2 {
            let taken =
                (0..1000).take_while(|_| outgoing.push_granting(header, b"\xc0", descriptor())).count();
            assert_eq!(taken, GRANTING_MAX);
            let mut batch = Batch::default();
            outgoing.take(&mut batch);
            outgoing.wrote(GRANTING_MAX * (HEADER_BYTES + 1));
        }
    }
}
