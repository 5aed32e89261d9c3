//! The replicated database: records, clocks, knowledge and how versions join (protocol §7). Knows nothing of files
//! beyond the shape of a value.

pub mod clock;
pub mod codec;
pub mod record;
