//! What operations are called, and what they are about.

use clearskies_core::ids::{RootId, TempId};
use clearskies_core::io::disk::{DiskOp, StageContent};

/// An operation's name, for logs and faults.
pub fn op_name(op: &DiskOp) -> &'static str {
    match op {
        DiskOp::OpenRoot { .. } => "open_root",
        DiskOp::CloseRoot { .. } => "close_root",
        DiskOp::WriteMarker { .. } => "write_marker",
        DiskOp::RemoveMarker { .. } => "remove_marker",
        DiskOp::CheckRoot { .. } => "check_root",
        DiskOp::Walk { .. } => "walk",
        DiskOp::EndWalk { .. } => "end_walk",
        DiskOp::Stat { .. } => "stat",
        DiskOp::Hash { .. } => "hash",
        DiskOp::Read { .. } => "read",
        DiskOp::Sign { .. } => "sign",
        DiskOp::Delta { .. } => "delta",
        DiskOp::Stage { .. } => "stage",
        DiskOp::OpenTemp { .. } => "open_temp",
        DiskOp::WriteTemp { .. } => "write_temp",
        DiskOp::PatchTemp { .. } => "patch_temp",
        DiskOp::FlushTemp { .. } => "flush_temp",
        DiskOp::FinishTemp { .. } => "finish_temp",
        DiskOp::RemoveTemps { .. } => "remove_temps",
        DiskOp::SweepTemps { .. } => "sweep_temps",
        DiskOp::Flush { .. } => "flush",
        DiskOp::Install { .. } => "install",
        DiskOp::MakeDirs { .. } => "make_dirs",
        DiskOp::Rename { .. } => "rename",
        DiskOp::Remove { .. } => "remove",
        DiskOp::SetMeta { .. } => "set_meta",
        DiskOp::ListArchive { .. } => "list_archive",
        DiskOp::RestoreArchived { .. } => "restore",
        DiskOp::CheckArchived { .. } => "check_archived",
        DiskOp::TakeArchived { .. } => "take_archived",
        DiskOp::PruneArchive { .. } => "prune",
        DiskOp::Space { .. } => "space",
    }
}

/// Whether an operation may change what users see, or write content.
pub fn changes_files(op: &DiskOp) -> bool {
    matches!(
        op,
        DiskOp::Stage { .. }
            | DiskOp::WriteTemp { .. }
            | DiskOp::PatchTemp { .. }
            | DiskOp::Install { .. }
            | DiskOp::MakeDirs { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Remove { .. }
            | DiskOp::SetMeta { .. }
            | DiskOp::RestoreArchived { .. }
            | DiskOp::TakeArchived { .. }
            | DiskOp::WriteMarker { .. }
    )
}

/// Bytes of contents that an operation carries.
pub fn carried_bytes(op: &DiskOp) -> usize {
    let length = |content: &StageContent| match content {
        StageContent::File(bytes) => bytes.len(),
        StageContent::Link(_) | StageContent::Copy { .. } => 0,
    };
    match op {
        DiskOp::Stage { files, .. } => files.iter().map(|file| length(&file.content)).sum(),
        DiskOp::WriteTemp { data, .. } | DiskOp::PatchTemp { delta: data, .. } => data.0.len(),
        _ => 0,
    }
}

/// The temp whose writes must stay in order.
pub fn temp_of(op: &DiskOp) -> Option<TempId> {
    match op {
        DiskOp::OpenTemp { temp, .. }
        | DiskOp::WriteTemp { temp, .. }
        | DiskOp::PatchTemp { temp, .. }
        | DiskOp::FinishTemp { temp, .. } => Some(*temp),
        _ => None,
    }
}

/// The root that an operation is about.
pub fn root_of(op: &DiskOp) -> RootId {
    match op {
        DiskOp::OpenRoot { root, .. }
        | DiskOp::CloseRoot { root }
        | DiskOp::WriteMarker { root, .. }
        | DiskOp::RemoveMarker { root }
        | DiskOp::CheckRoot { root }
        | DiskOp::Walk { root, .. }
        | DiskOp::EndWalk { root, .. }
        | DiskOp::Stat { root, .. }
        | DiskOp::Hash { root, .. }
        | DiskOp::Read { root, .. }
        | DiskOp::Sign { root, .. }
        | DiskOp::Delta { root, .. }
        | DiskOp::Stage { root, .. }
        | DiskOp::OpenTemp { root, .. }
        | DiskOp::WriteTemp { root, .. }
        | DiskOp::PatchTemp { root, .. }
        | DiskOp::FlushTemp { root, .. }
        | DiskOp::FinishTemp { root, .. }
        | DiskOp::RemoveTemps { root, .. }
        | DiskOp::SweepTemps { root, .. }
        | DiskOp::Flush { root }
        | DiskOp::Install { root, .. }
        | DiskOp::MakeDirs { root, .. }
        | DiskOp::Rename { root, .. }
        | DiskOp::Remove { root, .. }
        | DiskOp::SetMeta { root, .. }
        | DiskOp::ListArchive { root, .. }
        | DiskOp::RestoreArchived { root, .. }
        | DiskOp::CheckArchived { root, .. }
        | DiskOp::TakeArchived { root, .. }
        | DiskOp::PruneArchive { root, .. }
        | DiskOp::Space { root } => *root,
    }
}
