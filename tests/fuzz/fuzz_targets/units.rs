//! cargo-fuzz's door to the target `units`, see `tests/src/fuzz/units.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clearskies_tests::fuzz::units::units(bytes));
