//! The store: a few ordered maps of byte strings, changed by transactions.
//!
//! The engine owns what the bytes mean, their indexes and their order; a host owns making them durable. Operations
//! take effect in the order in which they were put out, so a load sees every commit before it.

use alloc::vec::Vec;

/// One ordered map. Keys are compared as byte strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// Small facts of the node and its clubs: keys, codes, settings, knowledge, addresses.
    Meta = 0,
    /// club ‖ uuid → record.
    Record = 1,
    /// club ‖ arrival number → uuid.
    Arrival = 2,
    /// club ‖ path → what the disk holds, its base, and the uuids of the live records with this key.
    Path = 3,
    /// club ‖ SHA-256 ‖ path → nothing: where on disk a content lies.
    Content = 4,
    /// club ‖ path → nothing: the paths that are not at their index version yet.
    Pending = 5,
    /// club ‖ number → paths and the versions that are being put there together.
    Intent = 6,
    /// club ‖ SHA-256 → the temp file and the ranges of a download that was begun.
    Partial = 7,
}

impl Space {
    /// Every space, in order of its number.
    pub const ALL: [Space; 8] = [
        Space::Meta,
        Space::Record,
        Space::Arrival,
        Space::Path,
        Space::Content,
        Space::Pending,
        Space::Intent,
        Space::Partial,
    ];
}

/// One look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The row with exactly this key, or no row.
    Get {
        /// Where.
        space: Space,
        /// The whole key.
        key: Vec<u8>,
    },
    /// Rows with `start <= key < end`, ascending, at most `limit`.
    Range {
        /// Where.
        space: Space,
        /// The first key that may be in it.
        start: Vec<u8>,
        /// The first key that is beyond it.
        end: Vec<u8>,
        /// At most this many rows.
        limit: u32,
    },
    /// The last row with `start <= key < end`, or no row.
    Last {
        /// Where.
        space: Space,
        /// The first key that may be in it.
        start: Vec<u8>,
        /// The first key that is beyond it.
        end: Vec<u8>,
    },
}

/// One row: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// One change of one row, or of a range of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets or replaces a row.
    Put {
        /// Where.
        space: Space,
        /// The whole key.
        key: Vec<u8>,
        /// The new value.
        value: Vec<u8>,
    },
    /// Removes a row; one that is not there is no error.
    Delete {
        /// Where.
        space: Space,
        /// The whole key.
        key: Vec<u8>,
    },
    /// Removes all rows with `start <= key < end`.
    DeleteRange {
        /// Where.
        space: Space,
        /// The first key to go.
        start: Vec<u8>,
        /// The first key to stay.
        end: Vec<u8>,
    },
}

/// When a commit must be on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Within five seconds; a crash of the machine may lose it together with everything after it, never one
    /// without the other.
    Soon,
    /// Before its completion.
    Now,
}

/// What the engine asks of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Look-ups, answered as one list of rows per query, in their order.
    Load {
        /// The look-ups.
        queries: Vec<Query>,
    },
    /// All of the writes or none, in their order.
    Commit {
        /// The changes.
        writes: Vec<Write>,
        /// When they must be safe.
        durability: Durability,
    },
}

/// How a store operation ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreDone {
    /// The rows of each query of a [`StoreOp::Load`].
    Loaded(Vec<Vec<Row>>),
    /// The commit took effect.
    Committed,
}

/// How a store operation failed; nothing of a failed commit took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The volume is full.
    NoSpace,
    /// The database file is damaged.
    Corrupt,
    /// Anything else; the host has logged the details.
    Io,
}
