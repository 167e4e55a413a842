//! Headers and messages there and back, whatever they say; anything else is an error and never a panic.

use ipc_protocol::control::{LogRecord, Progress};
use ipc_protocol::frame::HEADER_BYTES;
use ipc_protocol::handshake::Hello;
use ipc_protocol::limits::{
    CONTROL_BYTES_MAX, FAULT_MESSAGE_BYTES_MAX, FRAME_BODY_BYTES_MAX, FRAME_DESCRIPTORS_MAX,
};
use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, HeaderError, Kind, Origin, Retry};
use proptest::prelude::*;

fn any_header() -> impl Strategy<Value = Header> {
    let kind = proptest::sample::select(Kind::ALL);
    let codec = proptest::sample::select(Codec::ALL);
    let small = (0..=CONTROL_BYTES_MAX, kind, codec, 0_u8..8, 0..=FRAME_DESCRIPTORS_MAX);
    (small, any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(
        |((length, kind, codec, flags, descriptors), epoch, method, id, aux)| {
            let flags = Flags::from_wire(flags).expect("three bits are defined");
            Header { length, kind, codec, flags, descriptors, epoch, method, id, aux }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_header_comes_back(header in any_header()) {
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn any_bytes_are_a_header_that_encodes_to_them_or_an_error(bytes in any::<[u8; HEADER_BYTES]>()) {
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn a_fault_comes_back_with_its_message_held_to_the_limit(
        code in any::<u16>(), message in ".{0,3000}", after_ms in proptest::option::of(any::<u32>()),
    ) {
        let retry = after_ms.map_or(Retry::Now, Retry::AfterMs);
        let fault = Fault::new(FaultCode::from_wire(code), &message).with_retry(retry).with_origin(Origin::Host);
        prop_assert!(fault.message.len() <= FAULT_MESSAGE_BYTES_MAX);
        prop_assert!(message.starts_with(&fault.message));
        let bytes = rmp_serde::to_vec_named(&fault).expect("it is encoded");
        prop_assert!(bytes.len() <= CONTROL_BYTES_MAX as usize);
        prop_assert_eq!(rmp_serde::from_slice::<Fault>(&bytes).expect("it is decoded"), fault);
    }

    #[test]
    fn control_messages_come_back(
        done in any::<u64>(), total in any::<Option<u64>>(), text in ".{0,100}", level in 1_u8..=5,
    ) {
        let progress = Progress::new(done, total, &text);
        let bytes = rmp_serde::to_vec_named(&progress).expect("it is encoded");
        prop_assert_eq!(rmp_serde::from_slice::<Progress>(&bytes).expect("it is decoded"), progress);
        let record = LogRecord::new(level, &text, &text);
        let bytes = rmp_serde::to_vec_named(&record).expect("it is encoded");
        prop_assert_eq!(rmp_serde::from_slice::<LogRecord>(&bytes).expect("it is decoded"), record);
    }

    #[test]
    fn gibberish_is_no_hello(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(rmp_serde::from_slice::<Hello>(&bytes).is_err());
    }
}

#[test]
fn what_version_1_does_not_define_is_refused_by_name() {
    let good = Header::new(Kind::Reply, 1, 1);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.encode();
        bytes[at] = byte;
        Header::decode(&bytes)
    };
    assert_eq!(with(4, 0), Err(HeaderError::Kind(0)));
    assert_eq!(with(4, 26), Err(HeaderError::Kind(26)));
    assert_eq!(with(5, 3), Err(HeaderError::Codec(3)));
    assert_eq!(with(6, 0b1000), Err(HeaderError::Flags(8)));
    assert_eq!(with(7, FRAME_DESCRIPTORS_MAX + 1), Err(HeaderError::Descriptors(17)));
    for kind in Kind::ALL.iter().copied() {
        let limit = if kind.carries_payload() { FRAME_BODY_BYTES_MAX } else { CONTROL_BYTES_MAX };
        let header = |length| Header::decode(&Header { length, kind, ..good }.encode());
        assert!(header(limit).is_ok());
        let length = limit + 1;
        assert_eq!(header(length), Err(HeaderError::Length { kind, length, limit }));
    }
}

#[test]
fn numbers_on_the_wire_are_dense_and_come_back() {
    for (number, kind) in (1..).zip(Kind::ALL) {
        assert_eq!((kind.to_wire(), Kind::from_wire(number)), (number, Some(*kind)));
    }
    for (number, codec) in (0..).zip(Codec::ALL) {
        assert_eq!((codec.to_wire(), Codec::from_wire(number)), (number, Some(*codec)));
    }
    for (number, code) in (1..).zip(FaultCode::ALL) {
        assert_eq!((code.to_wire(), FaultCode::from_wire(number)), (number, *code));
    }
}
