//! A connection with calls on it, whatever its peer says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_testkit::fuzz::calling(data));
