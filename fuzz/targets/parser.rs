//! Any bytes as a Dockerfile.
#![no_main]

#[path = "../../frontend/tests/check/mod.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|text: &[u8]| check::check(text));
