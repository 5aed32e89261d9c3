//! cargo-fuzz's door to the target `names`, see `tests/src/fuzz/names.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clearskies_tests::fuzz::names::names(bytes));
