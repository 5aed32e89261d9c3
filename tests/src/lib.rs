//! What several tests share: the project's own sources, a world of engines in virtual time, and real daemons.

pub mod daemon;
pub mod sim;
pub mod sources;
