//! What several tests share: the project's own sources, a world of engines in virtual time, real daemons, and
//! what stands before them: an engine with a clock of its own, and a member that lies.

pub mod daemon;
pub mod foreign;
pub mod member;
pub mod sim;
pub mod sources;
