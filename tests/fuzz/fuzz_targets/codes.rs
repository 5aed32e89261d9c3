//! cargo-fuzz's door to the target `codes`, see `tests/src/fuzz/codes.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clearskies_tests::fuzz::codes::codes(bytes));
