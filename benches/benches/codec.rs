//! `cargo bench --bench codec`: what a message costs to write and to read in each codec: one of 64 bytes of text
//! and numbers, and one of 64 KiB of numbers.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use ipc_transport::codec::{self, FastBody};
use ipc_transport::payload::encode_into;
use ipc_transport::{Encoded, Message};

/// Three fields, 64 bytes in the fast codec.
#[extension_sdk::message(fast)]
#[derive(Debug, PartialEq)]
struct Entry {
    path: String,
    bytes: u64,
    modified: Option<i64>,
}

#[extension_sdk::message(fast)]
#[derive(Debug, PartialEq)]
struct Samples {
    values: Vec<f64>,
}

fn measure<T: Message + FastBody>(criterion: &mut Criterion, size: &str, value: &T) {
    let (mut named, mut fast) = (Vec::new(), Vec::new());
    // INVARIANT: plain data, far below every limit.
    encode_into(value, &mut named).expect("it is encoded");
    codec::encode(value, &mut fast).expect("it is small");
    let read = Encoded::message_pack(named.clone());

    let mut group = criterion.benchmark_group(format!("codec/message-pack/{size}"));
    writes(&mut group, &mut named, |out| encode_into(value, out).is_ok());
    group.bench_function("read", |bench| bench.iter(|| black_box(&read).decode::<T>().is_ok()));
    group.finish();

    let mut group = criterion.benchmark_group(format!("codec/wincode/{size}"));
    let bytes = fast.clone();
    writes(&mut group, &mut fast, |out| codec::encode(black_box(value), out).is_ok());
    group.bench_function("read", |bench| bench.iter(|| codec::decode::<T>(black_box(&bytes)).is_ok()));
    group.finish();
}

/// Into a vector that has the room, as calls are written.
fn writes(group: &mut BenchmarkGroup<'_, WallTime>, out: &mut Vec<u8>, write: impl Fn(&mut Vec<u8>) -> bool) {
    group.bench_function("write", |bench| {
        bench.iter(|| {
            out.clear();
            write(black_box(out))
        });
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let entry =
        Entry { path: "a/path/of/39/bytes/to/some/file/her.txt".into(), bytes: 4711, modified: Some(5) };
    measure(&mut criterion, "64", &entry);
    let samples = Samples { values: (0..8192_u32).map(|index| f64::from(index) / 7.0).collect() };
    measure(&mut criterion, "64KiB", &samples);
    criterion.final_summary();
}
