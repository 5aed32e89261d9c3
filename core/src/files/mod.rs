//! The file layer: keeps a folder and the club's records in step (sync.md). Uses nothing of the layers below that
//! another application could not use.

pub mod archive_name;
pub mod budget;
pub mod conflict;
pub mod fetch;
pub mod fetch_copies;
#[cfg(test)]
mod fetch_rig;
#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
pub(crate) mod fixture;
pub mod large;
pub mod local;
pub mod partial;
pub mod path;
pub mod plan;
pub mod presence;
pub mod reconcile;
pub mod row;
pub mod rsync;
pub mod serve;
pub mod serve_find;
pub mod serve_patches;
#[cfg(test)]
mod serve_tests;
pub mod small;
pub mod sources;
pub mod why;
