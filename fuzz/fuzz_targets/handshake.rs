//! Whatever the other side of a handshake says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_testkit::fuzz::handshake(data));
