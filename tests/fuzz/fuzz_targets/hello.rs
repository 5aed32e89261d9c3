//! cargo-fuzz's door to the target `hello`, see `tests/src/fuzz/hello.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clearskies_tests::fuzz::hello::hello(bytes));
