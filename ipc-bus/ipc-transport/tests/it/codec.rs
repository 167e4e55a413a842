//! The fast codec on its own: what its bytes mean, and that no bytes make it reserve what did not come.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use ipc_protocol::Codec;
use ipc_transport::codec::{
    self, Fast, FastBody, FastError, FastSlot, SEQUENCE_BYTES_MAX, WalkError, fixed_sum,
};
use ipc_transport::payload::encode_slot;
use ipc_transport::{Encoded, NotFast, Payload, TypedSlot};
use proptest::prelude::*;

fn encoded<T: FastBody>(value: &T) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    codec::encode(value, &mut bytes).expect("it is small");
    assert!(bytes.starts_with(b"before"));
    bytes.split_off(6)
}

fn layout<T: FastBody>() -> String {
    let mut text = String::new();
    T::layout(&mut text);
    text
}

/// One of many kinds.
type Value = ((bool, char, String, Option<i64>, f32), BTreeMap<u16, Vec<[u8; 3]>>, Box<u32>);

/// What `f` had allocated at one time, at most.
fn peak_bytes(f: impl FnOnce()) -> u64 {
    allocation_counter::measure(f).bytes_max
}

#[test]
fn a_layout_reads_as_the_document_says() {
    type Points = Vec<(f64, [u16; 3])>;
    assert_eq!(layout::<(bool, char, String, Points)>(), "(bool,char,string,[(f64,[u16;3],)],)");
    assert_eq!(layout::<BTreeMap<i8, Option<Option<u64>>>>(), "{i8=??u64}");
    assert_eq!(layout::<HashMap<i8, Option<Option<u64>>>>(), "{i8=??u64}");
    assert_eq!(layout::<Box<Vec<u8>>>(), "[u8]");
    assert_eq!(layout::<()>(), "()");
}

#[test]
fn what_takes_always_as_many_bytes_is_known_to() {
    fn holds<T: Fast + FastBody>(value: &T, fixed: Option<usize>) {
        assert_eq!(T::FIXED, fixed, "{}", layout::<T>());
        assert!(fixed.is_none_or(|size| encoded(value).len() == size), "{}", layout::<T>());
    }
    holds(&(1_u8, 2_i16, [3_u32; 5], 4_f64), Some(31));
    holds(&(1_usize, -1_isize, true, 2.5_f32), Some(21));
    holds(&(1_i8, 2_u16, 3_i32, 4_i64, 5_u64), Some(23));
    holds(&Box::new([[1_u8; 2]; 3]), Some(6));
    holds(&'x', None);
    holds(&(1_u8, String::new()), None);
    holds(&Some(1_u8), None);
    assert_eq!(fixed_sum(&[]), Some(0));
    assert_eq!(<Vec<(u8, Option<HashMap<u8, [Box<char>; 2]>>)>>::DEPTH, 6);
}

#[test]
fn every_shorter_and_every_longer_body_is_refused() {
    fn holds<T: FastBody + PartialEq + Debug>(value: &T) {
        let mut bytes = encoded(value);
        assert_eq!(codec::decode::<T>(&bytes).expect("it is read"), *value);
        for length in 0..bytes.len() {
            let read = codec::decode::<T>(&bytes[..length]);
            assert!(matches!(read, Err(FastError::Walk(WalkError::CutOff { .. }))), "{length}: {read:?}");
        }
        bytes.push(0);
        let read = codec::decode::<T>(&bytes);
        assert!(matches!(read, Err(FastError::Walk(WalkError::Extra { extra: 1 }))), "{read:?}");
    }
    holds(&());
    holds(&(true, 'a', '\u{e4}', '\u{20ac}', '\u{1f600}'));
    holds(&(String::from("text"), vec![String::from("a"), String::new()]));
    holds(&vec![vec![1_u16], vec![], vec![2, 3]]);
    holds(&BTreeMap::from([(1_u8, Some(1.5_f64)), (2, None)]));
    holds(&HashMap::from([(String::from("k"), [7_i64; 4])]));
    holds(&(Box::new(5_u32), Some(Some(Some(6_u8)))));
}

#[test]
fn what_has_the_right_length_and_no_meaning_is_refused() {
    fn refused<T: FastBody + Debug>(bytes: &[u8]) {
        let read = codec::decode::<T>(bytes);
        assert!(matches!(read, Err(FastError::Value(_))), "{}: {read:?}", layout::<T>());
    }
    refused::<bool>(&[2]);
    refused::<Vec<bool>>(&[1, 0, 0, 0, 0, 0, 0, 0, 7]);
    refused::<String>(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff]);
    for character in [&[0x80][..], &[0xc3, 0x28], &[0xed, 0xa0, 0x80], &[0xf8, 0x88, 0x80, 0x80]] {
        refused::<char>(character);
    }
    let neither = codec::decode::<Option<u8>>(&[2, 0]);
    assert!(matches!(neither, Err(FastError::Walk(WalkError::Variant { tag: 2, at: 1 }))), "{neither:?}");
}

/// Each length of a body in turn is made to say more than is there.
#[test]
fn a_length_that_lies_reserves_nothing() {
    fn lies<T: FastBody + Debug>(value: &T) {
        let honest = encoded(value);
        let mut lengths = 0;
        for at in 0..honest.len().saturating_sub(7) {
            let here = u64::from_le_bytes(honest[at..at + 8].try_into().expect("eight bytes"));
            if here != 3 {
                continue;
            }
            lengths += 1;
            // One more than can be, what wincode would reserve room for, and what no address is large enough for.
            let much =
                [honest.len() as u64, 1 << 20, (SEQUENCE_BYTES_MAX / 32) as u64, u64::MAX / 8, u64::MAX];
            for much in much {
                let mut lying = honest.clone();
                lying[at..at + 8].copy_from_slice(&much.to_le_bytes());
                let peak = peak_bytes(|| {
                    let read = codec::decode::<T>(&lying);
                    assert!(matches!(read, Err(FastError::Walk(WalkError::CutOff { .. }))), "{read:?}");
                });
                assert!(peak <= lying.len() as u64, "{much} at {at} of {}: {peak} bytes", layout::<T>());
            }
        }
        assert!(lengths > 0, "no length of {} was found", layout::<T>());
    }
    let text = || String::from("abc");
    lies(&text());
    lies(&vec![1_u8, 2, 9]);
    lies(&vec![1.5_f64; 3]);
    lies(&vec![text(), text(), text()]);
    lies(&BTreeMap::from([(1_u32, text()), (2, text()), (4, text())]));
    lies(&HashMap::from([(text(), 1.0_f64), (String::new(), 2.0), ("x".into(), 5.0)]));
    lies(&vec![vec![vec![1_u16, 2, 7]; 3]; 3]);
    lies(&(Some(vec![(text(), [1_u8; 4]); 3]), Box::new(vec!['x'; 3])));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Options are one byte there and their whole size here; nothing else grows.
    #[test]
    fn no_bytes_panic_or_take_more_than_they_are_worth(bytes in prop::collection::vec(prop_oneof![3 => 0..4_u8, 1 => any::<u8>()], 0..200)) {
        fn read<T: FastBody>(bytes: &[u8]) -> u64 {
            peak_bytes(|| drop(codec::decode::<T>(bytes)))
        }
        let peaks = [
            read::<Vec<Vec<Vec<u8>>>>(&bytes),
            read::<BTreeMap<char, Option<String>>>(&bytes),
            read::<HashMap<u8, Vec<bool>>>(&bytes),
            read::<(String, Vec<Option<[u16; 2]>>, Box<char>)>(&bytes),
        ];
        prop_assert!(peaks.iter().all(|&peak| peak <= 1024 + 64 * bytes.len() as u64), "{peaks:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn both_codecs_give_the_same_value(
        one in any::<(bool, char, String, Option<i64>, f32)>(),
        map in prop::collection::btree_map(any::<u16>(), prop::collection::vec(any::<[u8; 3]>(), 0..4), 0..4),
    ) {
        let value = (one, map, Box::new(7_u32));
        let named = Encoded::from_value(&value).expect("it is written");
        prop_assert_eq!(&named.decode::<Value>().expect("it is read"), &value);
        prop_assert_eq!(&codec::decode::<Value>(&encoded(&value)).expect("it is read"), &value);
    }
}

#[test]
fn what_does_not_fit_goes_as_message_pack() {
    // Not touched: the system gives zeroes without memory behind them, and the length is looked at first.
    let mut bytes = b"before".to_vec();
    let large = vec![0_u8; SEQUENCE_BYTES_MAX + 1];
    assert_eq!(codec::encode(&(7_u8, large), &mut bytes), Err(NotFast));
    assert_eq!(bytes, b"before");

    // Small numbers take eight bytes each here.
    let mut slot = FastSlot::new(vec![1_u64; 10], 5);
    for (is_fast, bytes_max, codec, length) in [
        (true, 88, Codec::Wincode, 88),
        (true, 87, Codec::MessagePack, 11),
        (false, 88, Codec::MessagePack, 11),
    ] {
        bytes.truncate(6);
        assert_eq!(encode_slot(&slot, is_fast, bytes_max, &mut bytes).expect("it is encoded"), codec);
        assert_eq!(bytes.len() - 6, length);
    }
    assert_eq!(encode_slot(&Some(1_u8), true, 88, &mut bytes).expect("it is encoded"), Codec::MessagePack);
    let payload = Payload::Typed(&mut slot);
    assert_eq!(payload.schema_hash(), 5);
    assert_eq!(payload.into_encoded().expect("it is encoded").codec, Codec::MessagePack);
}

#[test]
fn a_slot_gives_its_value_away_once() {
    let mut slot = FastSlot::new(String::from("text"), 5);
    let detached = slot.detach().expect("it is there");
    assert_eq!(detached.schema_hash(), 5);
    let mut bytes = Vec::new();
    detached.encode_fast(&mut bytes).expect("it is small");
    assert_eq!(codec::decode::<String>(&bytes).expect("it is read"), "text");
    assert!(slot.detach().is_none());
    assert!(slot.encode(&mut bytes).is_err() && slot.encode_fast(&mut bytes).is_err());
    assert!(Some(1_u8).detach().is_none(), "it has one encoding only");
    let mut slot = FastSlot::new(9_u32, 5);
    assert_eq!(Payload::Typed(&mut slot).take::<u32>().expect("it is of this type"), 9);
}
