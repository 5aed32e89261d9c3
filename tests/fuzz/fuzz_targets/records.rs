//! cargo-fuzz's door to the target `records`, see `tests/src/fuzz/records.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clearskies_tests::fuzz::records::records(bytes));
