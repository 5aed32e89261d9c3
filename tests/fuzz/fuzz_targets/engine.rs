//! cargo-fuzz's door to the target `engine`, see `tests/src/fuzz/engine.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clearskies_tests::fuzz::engine::engine(bytes));
