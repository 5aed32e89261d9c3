//! cargo-fuzz's door to the target `control`, see `tests/src/fuzz/control.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clearskies_tests::fuzz::control::control(bytes));
