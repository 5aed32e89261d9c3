//! The replicated database: records, clocks, knowledge and how versions join (protocol §7). Knows nothing of files
//! beyond the shape of a value.

pub mod author;
pub mod canonical;
pub mod check;
pub mod clock;
pub mod codec;
pub mod digest;
pub mod feed;
pub mod knowledge;
pub mod merge;
#[cfg(test)]
mod model_tests;
pub mod record;
#[cfg(test)]
pub(crate) mod testing;
