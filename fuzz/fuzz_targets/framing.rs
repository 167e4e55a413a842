//! However frames are cut into reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_testkit::fuzz::framing(data));
