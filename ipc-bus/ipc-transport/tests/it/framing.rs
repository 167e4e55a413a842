//! Any message survives any cutting into reads; nothing else is taken for a message.

use std::io::Read as _;

use ipc_protocol::frame::HEADER_BYTES;
use ipc_protocol::limits::{FRAME_BODY_BYTES_MAX, NESTING_MAX, PARTIAL_MESSAGES_MAX};
use ipc_protocol::{Codec, Flags, Header, HeaderError, Kind};
use ipc_transport::framing::{Body, Frame, FrameBuffer, Violation, append_frame, append_message};
use ipc_transport::scan::scan;
use proptest::prelude::*;

/// Feeds `wire` in reads of at most `step` bytes.
fn read_all(frames: &mut FrameBuffer, mut wire: &[u8], step: usize) -> Result<Vec<Frame>, Violation> {
    let mut messages = Vec::new();
    loop {
        while let Some(frame) = frames.next_frame()? {
            messages.push(frame);
        }
        let read = frames.read_from(|room| {
            assert!(room.len() >= HEADER_BYTES, "there is always room for a header");
            let count = wire.len().min(step).min(room.len());
            room[..count].copy_from_slice(&wire[..count]);
            wire = &wire[count..];
            Ok(count)
        });
        if read.expect("a slice can be read") == 0 {
            return Ok(messages);
        }
    }
}

fn payload(kind: Kind, id: u64) -> Header {
    Header { codec: Codec::MessagePack, ..Header::new(kind, 1, id) }
}

fn wire(messages: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut wire = Vec::new();
    for (header, body) in messages {
        append_frame(&mut wire, *header, body);
    }
    wire
}

#[test]
fn messages_of_every_size_pass_in_reads_of_every_size() {
    let frame_max = FRAME_BODY_BYTES_MAX as usize;
    let sizes =
        [0, 1, 31, 32, 32 << 10, (32 << 10) - 31, 64 << 10, frame_max, frame_max + 1, 3 * frame_max + 5];
    let messages: Vec<_> = (0..)
        .zip(sizes)
        .map(|(id, size)| (payload(Kind::Reply, id), (0..=252).cycle().take(size).collect()))
        .collect();
    let wire = wire(&messages);
    for step in [1009, 4096, 65_536, usize::MAX] {
        let read = read_all(&mut FrameBuffer::new(u64::MAX), &wire, step).expect("the frames are good");
        assert_eq!(read.len(), messages.len());
        for (frame, (header, body)) in read.iter().zip(&messages) {
            let length = u32::try_from(body.len()).expect("the bodies are short");
            assert_eq!(frame.header, Header { length, ..*header });
            assert!(frame.body == body[..], "a body of {length} bytes in reads of {step}");
        }
    }
}

#[test]
fn small_bodies_are_lent_from_the_buffer() {
    let wire = wire(&[(payload(Kind::Call, 1), vec![7; 64])]);
    let mut frames = FrameBuffer::new(u64::MAX);
    let mut rest = &wire[..];
    frames.read_from(|room| std::io::Read::read(&mut rest, room)).expect("a slice can be read");
    let frame = frames.next_frame_ref().expect("the frame is good").expect("the frame is whole");
    assert!(matches!(frame.body, Body::Borrowed(body) if body == [7; 64]));
}

#[test]
fn frames_of_different_messages_may_alternate() {
    let part = |id, more, body: &[u8]| {
        let flags = if more { Flags::MORE } else { Flags::NONE };
        let length = u32::try_from(body.len()).expect("the bodies are short");
        [&Header { length, flags, ..payload(Kind::Reply, id) }.encode()[..], body].concat()
    };
    let wire = [
        part(1, true, b"on"),
        part(2, true, b"tw"),
        part(3, false, b"three"),
        part(1, false, b"e"),
        part(2, false, b""),
    ]
    .concat();
    for step in 1..wire.len() {
        let mut frames = FrameBuffer::new(u64::MAX);
        let read = read_all(&mut frames, &wire, step).expect("the frames are good");
        let read: Vec<_> = read.iter().map(|frame| (frame.header.id, &frame.body[..])).collect();
        assert_eq!(read, [(3, &b"three"[..]), (1, b"one"), (2, b"tw")]);
        assert!(!frames.is_mid_message());
    }
}

#[test]
fn a_cut_off_stream_is_mid_message_at_every_byte() {
    let wire = wire(&[(payload(Kind::Reply, 1), vec![1; 40])]);
    for length in 0..wire.len() {
        let mut frames = FrameBuffer::new(u64::MAX);
        assert_eq!(read_all(&mut frames, &wire[..length], usize::MAX), Ok(vec![]));
        assert_eq!(frames.is_mid_message(), length > 0);
    }
}

#[test]
fn a_length_above_the_limit_is_refused_by_its_header_alone() {
    let header = |kind, length| Header { length, ..payload(kind, 1) }.encode();
    let refused = |bytes: &[u8], max| {
        let mut frames = FrameBuffer::new(max);
        let violation = read_all(&mut frames, bytes, usize::MAX).expect_err("the length is above the limit");
        assert_eq!(frames.next_frame(), Err(violation.clone()), "the first violation stays");
        violation
    };
    let oversize = header(Kind::Call, FRAME_BODY_BYTES_MAX + 1);
    assert!(matches!(refused(&oversize, u64::MAX), Violation::Header(HeaderError::Length { .. })));
    let control = header(Kind::Log, FRAME_BODY_BYTES_MAX);
    assert!(matches!(refused(&control, u64::MAX), Violation::Header(HeaderError::Length { .. })));
    for length in [101, 50_000, 1 << 20] {
        let violation = refused(&header(Kind::Call, length), 100);
        assert!(matches!(violation, Violation::MessageTooLarge { limit: 100, .. }), "{violation:?}");
    }
    let mut parts = Vec::new();
    for _ in 0..3 {
        parts.extend(Header { flags: Flags::MORE, length: 40, ..payload(Kind::Call, 1) }.encode());
        parts.extend([0; 40]);
    }
    assert!(matches!(refused(&parts, 100), Violation::MessageTooLarge { id: 1, .. }));
}

#[test]
fn half_received_messages_are_counted() {
    let begun = |id| {
        [&Header { flags: Flags::MORE, length: 1, ..payload(Kind::Reply, id) }.encode()[..], b"x"].concat()
    };
    let mut wire: Vec<u8> = (0..PARTIAL_MESSAGES_MAX as u64).flat_map(begun).collect();
    assert_eq!(read_all(&mut FrameBuffer::new(u64::MAX), &wire, usize::MAX), Ok(vec![]));
    wire.extend(begun(1_000_000));
    assert_eq!(read_all(&mut FrameBuffer::new(u64::MAX), &wire, usize::MAX), Err(Violation::PartialMessages));
}

#[test]
fn frames_that_contradict_themselves_are_refused() {
    let more = Header { flags: Flags::MORE, length: 1, ..payload(Kind::Reply, 1) };
    let cases: &[&[Header]] = &[
        &[Header { codec: Codec::None, length: 1, ..more }],
        &[Header { length: 0, ..more }],
        &[Header { kind: Kind::Log, ..more }],
        &[more, Header { epoch: 9, ..more }],
        &[more, Header { codec: Codec::Wincode, ..more }],
        &[more, Header { flags: Flags::METADATA, ..more }],
        &[more, Header { descriptors: 1, ..more }],
    ];
    for headers in cases {
        let wire: Vec<u8> = headers
            .iter()
            .flat_map(|header| [&header.encode()[..], &vec![b'x'; header.length as usize]].concat())
            .collect();
        let read = read_all(&mut FrameBuffer::new(u64::MAX), &wire, usize::MAX);
        assert!(matches!(read, Err(Violation::Frame { .. })), "{headers:?}: {read:?}");
    }
}

#[test]
fn a_control_message_that_nests_without_end_is_refused_before_it_is_decoded() {
    for body in [vec![0x91; 200_000], b"\x81\xa1a".repeat(80_000), vec![0x91; NESTING_MAX + 1]] {
        let frame = Frame { header: payload(Kind::Fault, 1), body: body.into() };
        let decoded = frame.decode::<ipc_protocol::Fault>();
        assert!(matches!(decoded, Err(Violation::Body { kind: Kind::Fault, .. })), "{decoded:?}");
    }
}

fn any_header() -> impl Strategy<Value = Header> {
    let kind = proptest::sample::select(Kind::ALL)
        .prop_filter("payloads may be long", |kind| kind.carries_payload());
    (kind, any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>(), 0_u8..=16).prop_map(
        |(kind, epoch, method, id, aux, descriptors)| Header {
            method,
            aux,
            descriptors,
            codec: Codec::MessagePack,
            ..Header::new(kind, epoch, id)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn what_is_appended_is_read(
        messages in prop::collection::vec((any_header(), 0..100_000_usize, any::<u8>()), 1..6),
        step in 1..200_000_usize,
    ) {
        let messages: Vec<_> =
            messages.into_iter().map(|(header, size, byte)| (header, vec![byte; size])).collect();
        let read = read_all(&mut FrameBuffer::new(u64::MAX), &wire(&messages), step);
        let read = read.map_err(|violation| TestCaseError::fail(violation.to_string()))?;
        prop_assert_eq!(read.len(), messages.len());
        for (frame, (header, body)) in read.iter().zip(&messages) {
            prop_assert_eq!(frame.header, Header { length: u32::try_from(body.len()).unwrap(), ..*header });
            prop_assert!(frame.body == body[..]);
        }
    }

    #[test]
    fn a_flipped_byte_is_refused_or_another_message(at in 0..HEADER_BYTES, to in any::<u8>()) {
        let mut wire = wire(&[(payload(Kind::Reply, 1), vec![0xc0; 40]), (payload(Kind::Reply, 2), vec![0xc0])]);
        wire[at] = to;
        let _ = read_all(&mut FrameBuffer::new(1 << 20), &wire, usize::MAX);
    }

    #[test]
    fn the_scan_never_panics_and_agrees_with_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let decoded: Result<serde::de::IgnoredAny, _> = rmp_serde::from_slice(&bytes);
        if scan(&bytes).is_ok() {
            prop_assert!(decoded.is_ok(), "{:02x?} scans, but {:?}", bytes, decoded.err());
        }
    }

    #[test]
    fn every_encoded_value_scans_and_no_part_of_it_does(
        value in prop::collection::btree_map(".{0,8}", prop::collection::vec(any::<Option<i64>>(), 0..20), 0..20),
    ) {
        let mut bytes = Vec::new();
        append_message(&mut bytes, payload(Kind::Reply, 1), &value).unwrap();
        let body = &bytes[HEADER_BYTES..];
        prop_assert_eq!(scan(body), Ok(()));
        prop_assert!(scan(&body[..body.len() - 1]).is_err());
    }
}

#[test]
fn a_long_message_that_nobody_wants_is_skipped_and_counted() {
    let length = (FRAME_BODY_BYTES_MAX as usize) * 2 + 5;
    let header = |id| Header { codec: Codec::MessagePack, ..Header::new(Kind::Reply, 1, id) };
    let mut wire = Vec::new();
    append_frame(&mut wire, header(1), &vec![7; length]);
    append_frame(&mut wire, header(2), b"small");
    append_frame(&mut wire, header(3), &vec![8; length]);
    let mut wire = wire.as_slice();
    let mut frames = FrameBuffer::new(length as u64);
    let mut asked = Vec::new();
    let mut came = Vec::new();
    while frames.read_from(|room| wire.read(room)).expect("a slice is read") > 0 {
        while let Some(frame) = frames
            .next_frame_ref_if(|header| {
                asked.push(header.id);
                header.id == 3
            })
            .expect("all is well")
        {
            came.push((frame.header.id, frame.header.length as usize, frame.body.as_slice().len()));
        }
    }
    assert_eq!(asked, [1, 3], "once per message that is assembled");
    assert_eq!(came, [(1, length, 0), (2, 5, 5), (3, length, length)]);

    // It is held to the limit all the same.
    let mut wire = Vec::new();
    append_frame(&mut wire, header(1), &vec![7; length + 1]);
    let mut wire = wire.as_slice();
    let violation = loop {
        frames.read_from(|room| wire.read(room)).expect("a slice is read");
        if let Err(violation) = frames.next_frame_ref_if(|_| false) {
            break violation;
        }
    };
    assert!(matches!(violation, Violation::MessageTooLarge { .. }), "{violation}");
}
