//! Any bytes into the frame decoder. `cargo +nightly fuzz run frame_decode`
#![no_main]

#[path = "../../adapter-core/tests/wire_support/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    check::check(input);
});
