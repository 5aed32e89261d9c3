//! Clubs: keys, access levels and access codes (protocol §2, §3).

pub mod code;
pub mod codebook;
pub mod cpace;
pub mod identity;
pub mod keys;
pub mod level;
pub mod statement;
