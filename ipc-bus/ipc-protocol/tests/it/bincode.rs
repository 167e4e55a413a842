//! What codec 2 looks like: the bytes of bincode 1, which wincode writes and reads.
//!
//! `tests/golden/bincode-1.3.3.txt` was written once by bincode 1.3.3 with its default options (integers of fixed
//! width, little-endian; lengths of 64 bits; variants of 32 bits). A line is a name and the bytes of one value. The
//! file never changes; each line is held here against the same value.

use std::collections::BTreeMap;
use std::fmt::Debug;

use wincode::config::DefaultConfig;
use wincode::{ReadError, SchemaReadOwned, SchemaWrite};

const GOLDEN: &str = include_str!("../golden/bincode-1.3.3.txt");

#[derive(Debug, PartialEq, wincode::SchemaRead, wincode::SchemaWrite)]
struct Empty;

#[derive(Debug, PartialEq, wincode::SchemaRead, wincode::SchemaWrite)]
struct Meters(f64);

#[derive(Debug, PartialEq, wincode::SchemaRead, wincode::SchemaWrite)]
struct Point {
    x: i32,
    y: i32,
}

#[derive(Debug, PartialEq, wincode::SchemaRead, wincode::SchemaWrite)]
enum Shape {
    Nothing,
    Circle(Meters),
    Segment(Point, Point),
    Box { corner: Point, width: u16, name: Option<String> },
}

#[derive(Debug, PartialEq, wincode::SchemaRead, wincode::SchemaWrite)]
struct Entry {
    path: Vec<u8>,
    name: String,
    bytes: u64,
    is_folder: bool,
    modified: Option<(i64, u32)>,
    tags: Vec<String>,
}

#[derive(Debug, PartialEq, wincode::SchemaRead, wincode::SchemaWrite)]
struct Listing {
    entries: Vec<Entry>,
    shapes: Vec<Shape>,
    counts: BTreeMap<String, u32>,
    by_id: BTreeMap<u16, Vec<Point>>,
    parent: Option<Box<Entry>>,
}

/// The lines that are not yet held against a value.
struct Golden(BTreeMap<&'static str, Vec<u8>>);

impl Golden {
    fn read() -> Self {
        let byte = |pair: &[u8]| {
            let digits = std::str::from_utf8(pair).expect("the file is ASCII");
            u8::from_str_radix(digits, 16).expect("the bytes are hexadecimal")
        };
        let line = |line: &'static str| {
            let (name, hex) = line.split_once(' ').expect("a name and bytes");
            (name, hex.as_bytes().chunks(2).map(byte).collect())
        };
        let lines: BTreeMap<_, _> = GOLDEN.lines().map(line).collect();
        assert_eq!(lines.len(), GOLDEN.lines().count(), "a name stands there twice");
        Self(lines)
    }

    /// There and back, and nothing that is shorter is taken for it.
    fn holds<T>(&mut self, name: &str, value: T)
    where
        T: SchemaWrite<DefaultConfig, Src = T> + SchemaReadOwned<DefaultConfig, Dst = T> + PartialEq + Debug,
    {
        let bytes = self.0.remove(name).unwrap_or_else(|| panic!("there are no bytes of {name}"));
        assert_eq!(wincode::serialize(&value).expect("it is written"), bytes, "{name} is written otherwise");
        assert_eq!(wincode::deserialize_exact::<T>(&bytes).expect("it is read"), value, "{name}");
        for length in 0..bytes.len() {
            let read = wincode::deserialize_exact::<T>(&bytes[..length]);
            assert!(read.is_err(), "{name}: {length} of its {} bytes are read as {read:?}", bytes.len());
        }
    }
}

fn entry(name: &str, is_folder: bool) -> Entry {
    Entry {
        path: name.as_bytes().to_vec(),
        name: name.into(),
        bytes: 4711,
        is_folder,
        modified: (!is_folder).then_some((-5, 999_999_999)),
        tags: if is_folder { vec!["a".into(), String::new()] } else { vec![] },
    }
}

#[test]
fn wincode_writes_and_reads_what_bincode_wrote() {
    let mut golden = Golden::read();
    golden.holds("u8", 200_u8);
    golden.holds("u16", 0x1234_u16);
    golden.holds("u32", 0x1234_5678_u32);
    golden.holds("u64", 0x0123_4567_89ab_cdef_u64);
    golden.holds("u128", 0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128);
    golden.holds("i8", -2_i8);
    golden.holds("i16", -300_i16);
    golden.holds("i32", -70_000_i32);
    golden.holds("i64", i64::MIN);
    golden.holds("i128", -1_i128);
    golden.holds("usize", 513_usize);
    golden.holds("isize", -513_isize);
    golden.holds("f32", 1.5_f32);
    golden.holds("f64", -0.1_f64);
    golden.holds("f64-infinite", f64::INFINITY);
    golden.holds("f64-minus-zero", -0.0_f64);
    // Equal to nothing, itself included: held by its bits.
    let nan = golden.0.remove("f64-nan").expect("it is there");
    assert_eq!(wincode::serialize(&f64::NAN).expect("it is written"), nan);
    assert_eq!(wincode::deserialize::<f64>(&nan).expect("it is read").to_bits(), f64::NAN.to_bits());
    golden.holds("true", true);
    golden.holds("false", false);
    golden.holds("char-1", 'a');
    golden.holds("char-2", '\u{e4}');
    golden.holds("char-3", '\u{20ac}');
    golden.holds("char-4", '\u{1f600}');
    golden.holds("string", "Hello, \u{e4}!".to_owned());
    golden.holds("string-empty", String::new());
    golden.holds("bytes", vec![0_u8, 1, 254, 255]);
    golden.holds("bytes-empty", Vec::<u8>::new());
    golden.holds("numbers", vec![1_u32, 2, 70_000]);
    golden.holds("strings", vec!["a".to_owned(), String::new(), "bc".to_owned()]);
    golden.holds("nested-lists", vec![vec![1_u16], vec![], vec![2, 3]]);
    golden.holds("none", None::<u32>);
    golden.holds("some", Some(5_u16));
    golden.holds("some-none", Some(None::<u8>));
    golden.holds("some-string", Some("x".to_owned()));
    golden.holds("unit", ());
    golden.holds("tuple", (1_u8, "x".to_owned(), true));
    golden.holds("array", [1_u16, 2, 3]);
    golden.holds("struct-empty", Empty);
    golden.holds("struct-tuple", Meters(2.5));
    golden.holds("struct", Point { x: -1, y: 2 });
    golden.holds("enum-unit", Shape::Nothing);
    golden.holds("enum-tuple-1", Shape::Circle(Meters(1.0)));
    golden.holds("enum-tuple-2", Shape::Segment(Point { x: 0, y: 1 }, Point { x: 2, y: 3 }));
    let corner = Point { x: 7, y: 8 };
    golden.holds("enum-struct", Shape::Box { corner, width: 9, name: Some("n".into()) });
    golden.holds("map", BTreeMap::from([("b".to_owned(), 2_u32), ("a".to_owned(), 1)]));
    golden.holds("map-empty", BTreeMap::<u8, u8>::new());
    golden.holds("boxed", Box::new(7_u32));
    let shape = Shape::Box { corner: Point { x: 1, y: 2 }, width: 3, name: None };
    golden.holds(
        "nested",
        Listing {
            entries: vec![entry("file", false), entry("folder", true)],
            shapes: vec![Shape::Nothing, Shape::Circle(Meters(-1.0)), shape],
            counts: BTreeMap::from([("x".into(), 1), ("y".into(), 2)]),
            by_id: BTreeMap::from([(3, vec![Point { x: 3, y: 4 }]), (1, vec![])]),
            parent: Some(Box::new(entry("up", true))),
        },
    );
    assert!(golden.0.is_empty(), "{:?} are held against nothing", golden.0.keys());
}

#[test]
fn what_bincode_refuses_wincode_refuses() {
    let no_bool = wincode::deserialize::<bool>(&[2]);
    assert!(matches!(no_bool, Err(ReadError::InvalidBoolEncoding(2))), "{no_bool:?}");
    assert!(wincode::deserialize::<Option<u8>>(&[2, 0]).is_err(), "an option is 0 or 1");
    assert!(wincode::deserialize::<char>(&[0xff]).is_err());
    assert!(wincode::deserialize::<Shape>(&[4, 0, 0, 0]).is_err(), "there are four variants");
    let no_text = [&2_u64.to_le_bytes()[..], &[0xff, 0xfe]].concat();
    assert!(wincode::deserialize::<String>(&no_text).is_err());
}

/// Where the two differ: bincode 1 by default reads a sequence of any length, as long as its bytes are there.
#[test]
fn a_sequence_above_four_mebibytes_is_refused_in_both_directions() {
    const LIMIT: usize = 4 << 20;
    let bytes = wincode::serialize(&vec![7_u8; LIMIT]).expect("this is the limit");
    assert_eq!(wincode::deserialize::<Vec<u8>>(&bytes).expect("it is read").len(), LIMIT);
    assert!(wincode::serialize(&vec![7_u8; LIMIT + 1]).is_err());
    let longer = [&(LIMIT as u64 + 1).to_le_bytes()[..], &vec![7; LIMIT + 1]].concat();
    assert!(wincode::deserialize::<Vec<u8>>(&longer).is_err());
    // Counted in memory, not on the wire: a string is 24 bytes there, however short.
    assert!(wincode::serialize(&vec![String::new(); LIMIT / 24 + 1]).is_err());
    // And so nothing is reserved for what is only announced.
    assert!(wincode::deserialize::<Vec<u64>>(&u64::MAX.to_le_bytes()).is_err());
}
