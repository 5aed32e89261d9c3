//! A world in memory: machines with disks, stores and clocks, a network between them, and the engines under test.
//! Everything is drawn from one seeded generator and one virtual clock, so the same seed gives the same log, byte
//! for byte. Nothing here touches the real disk, network or time.

pub mod check;
pub mod disk;
pub mod fs;
pub mod generate;
pub mod history;
pub mod ledger;
pub mod net;
pub mod node;
pub mod rng;
pub mod script;
pub mod share;
pub mod shrink;
pub mod signed;
pub mod store;
pub mod trace;
pub mod users;
pub mod world;

pub use disk::SimDisk;
pub use rng::Rng;
pub use store::SimStore;
pub use world::World;
