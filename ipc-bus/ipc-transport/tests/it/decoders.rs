//! Whatever bytes come: no decoder panics, and none takes more memory than what came, or was allowed, is worth.

use std::path::Path;

use ipc_protocol::control::{
    DescriptorGrant, Event, Goodbye, Heartbeat, LogRecord, Metadata, Progress, SegmentSpan,
};
use ipc_protocol::frame::HEADER_BYTES;
use ipc_protocol::handshake::{Hello, Ready, Welcome};
use ipc_protocol::limits::FRAME_BODY_BYTES_MAX;
use ipc_protocol::{Codec, Fault, Flags, Header, Kind};
use ipc_transport::framing::{Frame, FrameBuffer, READ_BUFFER_BYTES, Violation};
use proptest::prelude::*;
use serde::de::DeserializeOwned;

/// What `f` had allocated at one time, at most.
fn peak_bytes(f: impl FnOnce()) -> u64 {
    allocation_counter::measure(f).bytes_max
}

/// The most that decoding a control message may take: an empty string is one byte there and 24 here, and a vector
/// grows to twice its content. serde reserves a MiB at most for what a container announces.
fn decoded_bytes_max(length: usize) -> u64 {
    (1 << 20) + 100 * length as u64
}

/// Decodes as one kind of control message.
type Decode = fn(&Frame) -> Option<Violation>;

fn decode<T: DeserializeOwned>(frame: &Frame) -> Option<Violation> {
    frame.decode::<T>().err()
}

/// Every control message, and the kind that it comes with.
const MESSAGES: [(Kind, Decode); 13] = [
    (Kind::Hello, decode::<Hello>),
    (Kind::Welcome, decode::<Welcome>),
    (Kind::Ready, decode::<Ready>),
    (Kind::Fault, decode::<Fault>),
    (Kind::HostFault, decode::<Fault>),
    (Kind::Progress, decode::<Progress>),
    (Kind::Event, decode::<Event>),
    (Kind::Log, decode::<LogRecord>),
    (Kind::Heartbeat, decode::<Heartbeat>),
    (Kind::Goodbye, decode::<Goodbye>),
    (Kind::Descriptor, decode::<DescriptorGrant>),
    // Parts of other frames' bodies.
    (Kind::Call, decode::<Metadata>),
    (Kind::Reply, decode::<SegmentSpan>),
];

fn check_messages(body: &[u8]) {
    for (kind, decode) in MESSAGES {
        let header = Header { codec: Codec::MessagePack, ..Header::new(kind, 1, 1) };
        let frame = Frame { header, body: body.to_vec().into() };
        let peak = peak_bytes(|| drop(decode(&frame)));
        assert!(peak <= decoded_bytes_max(body.len()), "{peak} bytes for {} as {kind:?}", body.len());
    }
}

/// The messages that are kept for ever, as they go over the wire.
fn golden() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ipc-protocol/tests/golden/v1");
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let read = files.map(|file| std::fs::read(file.expect("it is there").path()).expect("it can be read"));
    let golden: Vec<_> = read.collect();
    assert!(golden.len() >= 30);
    golden
}

/// Announces what it likes, and then ends.
fn announcing(marker: u8, length: u32) -> Vec<u8> {
    let mut body = vec![0x81, 0xa8];
    body.extend(b"features");
    body.push(marker);
    body.extend(length.to_be_bytes());
    body
}

#[test]
fn what_a_container_announces_is_not_reserved() {
    // Arrays, maps, strings and bins of four billion.
    for marker in [0xdd, 0xdf, 0xdb, 0xc6] {
        check_messages(&announcing(marker, u32::MAX));
    }
    check_messages(&[0xa0; 200_000]);
    // An array of as many empty strings as fit.
    let mut strings = announcing(0xdd, 250_000);
    strings.resize(strings.len() + 250_000, 0xa0);
    check_messages(&strings);
}

/// Reads everything, in steps, and throws the messages away. Returns the peak of memory.
fn read_all(wire: &[u8], message_bytes_max: u64, step: usize) -> u64 {
    peak_bytes(|| {
        let mut frames = FrameBuffer::new(message_bytes_max);
        let mut rest = wire;
        loop {
            loop {
                match frames.next_frame_ref() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            let read = frames.read_from(|room| {
                let count = rest.len().min(room.len()).min(step);
                room[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                Ok(count)
            });
            if read.expect("a slice can be read") == 0 {
                return;
            }
        }
    })
}

/// The buffer itself, and messages half received: each body up to a quarter and a frame ahead, and once more
/// while it moves to a larger place.
fn framed_bytes_max(message_bytes_max: u64) -> u64 {
    (READ_BUFFER_BYTES as u64) + 3 * message_bytes_max + (64 << 10)
}

/// Frames whose headers are good each on its own, with as much of their bodies as there is.
fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = proptest::sample::select(&[Kind::Reply, Kind::Call, Kind::StreamData, Kind::Log][..]);
    let length = prop_oneof![0..100_u32, 30_000..70_000_u32, 0..=FRAME_BODY_BYTES_MAX];
    let frame =
        (kind, 0..3_u64, any::<bool>(), length, 0..=100_u32).prop_map(|(kind, id, more, length, there)| {
            let flags = if more { Flags::MORE } else { Flags::NONE };
            let header = Header { codec: Codec::MessagePack, flags, length, ..Header::new(kind, 1, id) };
            // Most often the whole body.
            let there = if there < 90 { length } else { length / 100 * (there - 90) };
            let mut bytes = header.encode().to_vec();
            bytes.resize(bytes.len() + there as usize, 0xc0);
            bytes
        });
    prop::collection::vec(frame, 1..12).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_bytes_are_a_message_or_an_error(body in prop::collection::vec(any::<u8>(), 0..2_000)) {
        check_messages(&body);
    }

    #[test]
    fn a_message_with_other_bytes_in_it_is_a_message_or_an_error(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let golden = golden();
        let mut wire = which.get(&golden).clone();
        for (at, byte) in &changes {
            let at = at.index(wire.len());
            wire[at] = *byte;
        }
        // The body with its header, and on its own.
        prop_assert!(read_all(&wire, 1 << 20, usize::MAX) <= framed_bytes_max(1 << 20));
        if wire.len() > HEADER_BYTES {
            check_messages(&wire[HEADER_BYTES..]);
        }
        wire.truncate(cut.index(wire.len()));
        prop_assert!(read_all(&wire, 1 << 20, 7) <= framed_bytes_max(1 << 20));
    }

    #[test]
    fn frames_take_no_more_memory_than_the_connection_allows(
        wire in any_frames(), step in 1..200_000_usize, allowed in 1..3_000_000_u64,
    ) {
        let peak = read_all(&wire, allowed, step);
        prop_assert!(peak <= framed_bytes_max(allowed), "{peak} bytes for {}", wire.len());
    }

    #[test]
    fn any_bytes_take_no_more_memory_than_the_connection_allows(
        bytes in prop::collection::vec(any::<u8>(), 0..2_000), step in 1..500_usize,
    ) {
        prop_assert!(read_all(&bytes, 1 << 20, step) <= framed_bytes_max(1 << 20));
    }
}
