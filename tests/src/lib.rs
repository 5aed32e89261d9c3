//! What several tests share: the project's own sources, a world of engines in virtual time, fuzz targets, real daemons,
//! and what stands before them: an engine with a clock of its own, a member that lies, and scripts played in real time.

pub mod daemon;
pub mod foreign;
pub mod fuzz;
pub mod member;
pub mod real;
pub mod sim;
pub mod sources;
