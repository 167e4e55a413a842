//! `tests/golden/v1` decodes for ever, and what is encoded today is the same bytes.
//!
//! Each file is one message as it goes over the wire: a header and its body, or several where it is split.
//! A file that is missing is written and the test fails once: look at it, keep it, and never change it again.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use ipc_protocol::control::{
    DescriptorGrant, Event, Goodbye, Heartbeat, LogRecord, Metadata, Progress, SegmentSpan,
};
use ipc_protocol::frame::HEADER_BYTES;
use ipc_protocol::handshake::{Hello, MethodEntry, Ready, Welcome};
use ipc_protocol::host_call::ExtensionCall;
use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, Kind, Origin, Retry};
use serde::Serialize;
use serde::de::DeserializeOwned;

const EPOCH: u32 = 7;
const CALL: u64 = 3 << 32 | 5;
const STREAM: u64 = 9;

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name).with_extension("bin")
}

/// A frame whose header is right and whose body is as it is.
fn frame(header: Header, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("the bodies are short");
    [&Header { length, ..header }.encode()[..], body].concat()
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map()).expect("it is encoded");
    bytes
}

/// Compares with the file, and reads the file back.
fn check(name: &str, bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let path = path(name);
    if !path.exists() {
        std::fs::write(&path, bytes).expect("the folder is there");
        panic!("{} did not exist and is written: look at it and run again", path.display());
    }
    let golden = std::fs::read(&path).expect("the file is there");
    assert_eq!(golden, bytes, "{name}: what is encoded is no longer what it was");
    frames(&golden)
}

pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(head).expect("the header is good");
        let (body, rest) = rest.split_at(header.length as usize);
        frames.push((header, body.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a file ends with a frame");
    frames
}

fn bare(kind: Kind, id: u64) -> Header {
    Header::new(kind, EPOCH, id)
}

fn full(kind: Kind, id: u64) -> Header {
    Header { codec: Codec::MessagePack, ..bare(kind, id) }
}

/// A control message of one frame, there and back.
fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, header: Header, value: &T) {
    let frames = check(name, &frame(header, &encode(value)));
    let [(read, body)] = &frames[..] else { panic!("{name} is one frame") };
    assert_eq!(Header { length: 0, ..*read }, header, "{name}");
    assert_eq!(rmp_serde::from_slice::<T>(body).expect("it is decoded"), *value, "{name}");
}

/// A frame without a body, or with one that is the user's.
fn plain(name: &str, header: Header, body: &[u8]) {
    let frames = check(name, &frame(header, body));
    let [(read, read_body)] = &frames[..] else { panic!("{name} is one frame") };
    assert_eq!((Header { length: 0, ..*read }, &read_body[..]), (header, body), "{name}");
}

fn hello() -> Hello {
    let mut hello = Hello::new("greeter", EPOCH, 0x0123_4567_89ab_cdef);
    hello.features = vec!["streams".into()];
    hello.in_flight_max = 16;
    hello.message_bytes_max = 1 << 20;
    hello.config = b"\x81\xa4root\xa1.".to_vec();
    hello
}

fn welcome() -> Welcome {
    let mut greet = MethodEntry::new("greet", 0x1122_3344_5566_7788);
    greet.idempotent = true;
    Welcome::answering(&hello(), 1, "greeter", "1.2.3", vec![greet, MethodEntry::new("count", 2)])
}

fn fault() -> Fault {
    Fault::new(FaultCode::NotFound, "no such file")
}

#[test]
fn handshake_messages_are_as_they_were() {
    message("hello", full(Kind::Hello, 0), &hello());
    let mut asked = Hello::new("greeter", EPOCH, 1);
    asked.features = vec!["host-calls".into()];
    asked.host_methods = vec!["call".into(), "get-state".into()];
    message("hello-host-calls", full(Kind::Hello, 0), &asked);
    message("welcome", full(Kind::Welcome, 0), &welcome());
    message("ready", full(Kind::Ready, 0), &Ready::default());
    message("ready-failed", full(Kind::Ready, 0), &Ready::failed(fault()));
}

#[test]
fn calls_and_their_ends_are_as_they_were() {
    let call = Header { method: 0, aux: 5_000_000, ..full(Kind::Call, CALL) };
    plain("call", call, b"\x81\xa4name\xa5World");
    let mut metadata = Metadata::default();
    metadata.idempotency_key = Some("run-7/step-2".into());
    metadata.priority = -1;
    let metadata = encode(&metadata);
    let length = u32::try_from(metadata.len()).expect("it is short").to_le_bytes();
    plain(
        "call-metadata",
        Header { flags: Flags::METADATA, ..call },
        &[&length[..], &metadata, b"\x81\xa4name\xa5World"].concat(),
    );
    plain("reply", full(Kind::Reply, CALL), b"\xadHello, World!");
    let text = |text: &str| wincode::serialize(text).expect("it is short");
    plain("call-wincode", Header { codec: Codec::Wincode, ..call }, &text("World"));
    let reply = Header { codec: Codec::Wincode, ..full(Kind::Reply, CALL) };
    plain("reply-wincode", reply, &text("Hello, World!"));
    message("fault", full(Kind::Fault, CALL), &fault());
    let busy = Fault::new(FaultCode::Busy, "later").with_origin(Origin::Host).with_retry(Retry::AfterMs(250));
    message("fault-retry-after", Header { aux: 250, ..full(Kind::Fault, CALL) }, &busy);
    plain("cancel", bare(Kind::Cancel, CALL), b"");
    message("progress", full(Kind::Progress, CALL), &Progress::new(3, Some(10), "reading"));
}

#[test]
fn a_message_in_two_frames_is_as_it_was() {
    let header = full(Kind::Reply, CALL);
    let bytes =
        [frame(Header { flags: Flags::MORE, ..header }, b"\xadHello,"), frame(header, b" World!")].concat();
    let frames = check("reply-two-frames", &bytes);
    let bodies: Vec<_> = frames.iter().map(|(header, body)| (header.flags, &body[..])).collect();
    assert_eq!(bodies, [(Flags::MORE, &b"\xadHello,"[..]), (Flags::NONE, b" World!")]);
}

#[test]
fn streams_are_as_they_were() {
    plain("stream-data", full(Kind::StreamData, STREAM), b"\xa4line");
    plain("stream-credit", Header { aux: 65_536, ..bare(Kind::StreamCredit, STREAM) }, b"");
    plain("stream-end", bare(Kind::StreamEnd, STREAM), b"");
    message("stream-end-fault", full(Kind::StreamEnd, STREAM), &fault());
    plain("stream-drop", bare(Kind::StreamDrop, STREAM), b"");
}

#[test]
fn what_is_said_beside_calls_is_as_it_was() {
    message("event", full(Kind::Event, 0), &Event::new("file-changed", b"\xa1a".to_vec()));
    message("log", full(Kind::Log, 0), &LogRecord::new(3, "greeter::serve", "listening port=80"));
    plain("ping", bare(Kind::Ping, 77), b"");
    plain("pong", bare(Kind::Pong, 77), b"");
    plain("drain", bare(Kind::Drain, 0), b"");
    message("goodbye", full(Kind::Goodbye, 0), &Goodbye::new("reload"));
    message("heartbeat", full(Kind::Heartbeat, 0), &Heartbeat::new(2, 1500));
}

#[test]
fn host_calls_are_as_they_were() {
    plain("host-call", Header { method: 1, aux: CALL, ..full(Kind::HostCall, 4) }, b"\x80");
    message(
        "host-call-extension",
        Header { method: 0, aux: CALL, ..full(Kind::HostCall, 5) },
        &ExtensionCall::new("greeter", "greet", b"\x81\xa4name\xa5World".to_vec()),
    );
    plain("host-reply", full(Kind::HostReply, 4), b"\xc0");
    message(
        "host-fault",
        full(Kind::HostFault, 4),
        &Fault::new(FaultCode::Unsupported, "this host does not support host calls yet")
            .with_origin(Origin::Host),
    );
}

#[test]
fn descriptors_and_segments_are_as_they_were() {
    let header = Header { descriptors: 1, ..full(Kind::Descriptor, CALL) };
    message("descriptor", header, &DescriptorGrant::new("artifact", 0, 4711));
    let header = Header { descriptors: 1, aux: 1, ..full(Kind::Descriptor, 6) };
    message("descriptor-host-call", header, &DescriptorGrant::new("artifact", 0, 4711));
    let header = Header { flags: Flags::SEGMENT, ..full(Kind::Reply, CALL) };
    message("reply-segment", header, &SegmentSpan::new(1, 4096, 1_000_000));
    plain("segment-return", Header { aux: 1, ..bare(Kind::SegmentReturn, 0) }, b"");
    plain("wake", bare(Kind::Wake, 0), b"");
}

#[test]
fn fields_and_features_of_later_versions_are_passed_over() {
    // As a host of a later version may write it: fields that this one does not know, in another order.
    let later = rmp_serde::from_slice::<Hello>(
        b"\x88\xa7version\xa11\xa5nonce\x05\xa5epoch\x07\xa9extension\xa7greeter\xa8features\x91\xa5later\
          \xa8versions\x92\x01\x02\xadin_flight_max\x01\xb1message_bytes_max\x09",
    );
    let later = later.expect("unknown fields are ignored, and a configuration need not be there");
    assert_eq!((later.versions, later.features), (vec![1, 2], vec!["later".to_owned()]));
    let fault = rmp_serde::from_slice::<Fault>(
        b"\x84\xa4code\xcd\x03\xe7\xa6origin\xa6planet\xa5retry\xa5never\xa7message\xa1m",
    );
    let fault = fault.expect("unknown codes and origins are kept as unknown");
    assert_eq!((fault.code, fault.origin), (FaultCode::Other(999), Origin::Unknown));
}

#[test]
fn every_kind_has_a_golden_file() {
    let folder = path("x").parent().expect("files lie in a folder").to_owned();
    let mut seen = std::collections::HashSet::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let bytes =
            std::fs::read(entry.expect("the folder can be read").path()).expect("the file can be read");
        seen.extend(frames(&bytes).into_iter().map(|(header, _)| header.kind));
    }
    for kind in Kind::ALL {
        assert!(seen.contains(kind), "no golden file shows a {kind:?} frame");
    }
}
