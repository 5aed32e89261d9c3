//! What the plan wants done on disk.

use alloc::sync::Arc;

use crate::files::path::RelPath;
use crate::ids::Sha256;
use crate::index::record::Record;
use crate::io::disk::Stamp;

/// Disk work for one path. `version` is the version of the record that the path will hold.
#[derive(Clone, Debug)]
pub enum Task {
    /// Make a directory.
    MakeDir {
        /// Where.
        path: RelPath,
        /// Its record; `None` for one that only lives because of what lies beneath it.
        version: Option<Arc<Record>>,
    },
    /// Put a file or link at a path.
    Bring {
        /// Where.
        path: RelPath,
        /// What.
        version: Arc<Record>,
        /// What lies there now.
        replaces: Option<Stamp>,
        /// A file of the share, or of its archive, with the same content.
        local: Option<(RelPath, Stamp)>,
        /// The content that lies there now, if it is a file.
        old: Option<Sha256>,
    },
    /// Rename what lies at a path.
    Rename {
        /// From here.
        from: RelPath,
        /// To there, where nothing is.
        to: RelPath,
        /// What lies at `from`.
        stamp: Stamp,
        /// What it is.
        version: Arc<Record>,
    },
    /// Take what lies at a path to the archive.
    Remove {
        /// Where.
        path: RelPath,
        /// What lies there.
        stamp: Stamp,
    },
    /// Set permission bits and time.
    SetMeta {
        /// Where.
        path: RelPath,
        /// What lies there.
        stamp: Stamp,
        /// Which version it then is.
        version: Arc<Record>,
        /// Permission bits.
        mode: Option<u32>,
        /// Modification time.
        mtime_ns: Option<i64>,
    },
}

impl Task {
    /// The path that the task works on; of a rename, where it comes from.
    pub fn path(&self) -> &RelPath {
        match self {
            Task::MakeDir { path, .. }
            | Task::Bring { path, .. }
            | Task::Remove { path, .. }
            | Task::SetMeta { path, .. } => path,
            Task::Rename { from, .. } => from,
        }
    }
}
