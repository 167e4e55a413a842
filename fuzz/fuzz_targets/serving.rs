//! An extension that serves, whatever its host says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| extension_sdk::serving(data));
