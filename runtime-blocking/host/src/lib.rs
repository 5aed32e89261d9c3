//! What any runtime needs from the machine: files, the store, watching, time, randomness, interfaces.
//!
//! The engine says what it wants in [`clearskies_core::io`]; this crate does it. It decides nothing: no rule of the
//! protocol lives here.

pub mod clock;
pub mod delta;
pub mod disk;
mod durable;
pub mod entropy;
pub mod interfaces;
pub mod lock;
pub mod net;
pub mod run_token;
mod schema;
pub mod store;
pub mod watch;
