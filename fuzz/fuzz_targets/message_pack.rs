//! Whatever is to be decoded.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_testkit::fuzz::message_pack(data));
