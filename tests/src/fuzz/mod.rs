//! Fuzz targets: each takes any bytes, feeds them to a part that reads what strangers say, and fails where a property
//! breaks. `tests/fuzz` calls them under cargo-fuzz; `tests/tests/fuzz_corpora.rs` replays their corpora on any
//! toolchain.

pub mod choices;
pub mod codes;
pub mod control;
pub mod engine;
pub mod frames;
pub mod hello;
pub mod host;
pub mod liar;
pub mod mutate;
pub mod names;
pub mod records;
pub mod seeds;
pub mod units;

/// A target: a name, as that of its corpus, and what is done with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 8] = [
    ("frames", frames::frames),
    ("hello", hello::hello),
    ("codes", codes::codes),
    ("records", records::records),
    ("control", control::control),
    ("names", names::names),
    ("units", units::units),
    ("engine", engine::engine),
];
