//! A connection whose peer asks its host for anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_testkit::fuzz::asking(data));
