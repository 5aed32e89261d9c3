//! The file layer: keeps a folder and the club's records in step (sync.md). Uses nothing of the layers below that
//! another application could not use.

pub mod path;
pub mod row;
