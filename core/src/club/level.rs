//! Access levels.

/// What a member of a club may do. Ordered: higher levels are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Stores and serves ciphertext.
    Untrusted,
    /// Reads everything, changes nothing.
    ReadOnly,
    /// Reads and changes everything.
    ReadWrite,
}
