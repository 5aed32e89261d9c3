//! What the node knows about one path: the disk, its base, and which records claim it (sync.md, "Three observations").

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::ids::Uuid;
use crate::index::record::{EntryContent, Record};
use crate::io::disk::Stamp;

/// One row of [`Space::Path`](crate::io::store::Space::Path).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRow {
    /// What the disk held when it was last seen or written; `None`: nothing.
    pub disk: Option<DiskState>,
    /// Which version of which record that disk content is.
    pub base: Base,
    /// The live records with this key; the shown one and hidden ones.
    pub live: Vec<Uuid>,
    /// The newest tombstones with this key, newest last; at most [`PathRow::DEAD_MAX`].
    pub dead: Vec<Uuid>,
}

impl PathRow {
    /// How many tombstones a row remembers.
    pub const DEAD_MAX: usize = 4;
}

/// What the disk held at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskState {
    /// Tells this state from another.
    pub stamp: Stamp,
    /// The content.
    pub content: EntryContent,
    /// False while the stamp was too young, when the content was read, to be trusted: then it is hashed again at
    /// the next look.
    pub settled: bool,
}

/// The version that a path's disk content is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// None: never in step, or forgotten.
    #[default]
    None,
    /// The version of this record that the index holds now.
    Index(Uuid),
    /// An earlier version than the index holds; kept whole, because a local change descends from it.
    Older(Box<Record>),
}
