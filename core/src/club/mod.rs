//! Clubs: keys, access levels and access codes (protocol §2, §3).

pub mod code;
pub mod level;
