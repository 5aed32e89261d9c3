//! cargo-fuzz's door to the target `frames`, see `tests/src/fuzz/frames.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clearskies_tests::fuzz::frames::frames(bytes));
