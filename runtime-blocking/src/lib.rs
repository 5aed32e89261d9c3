//! The blocking runtime: one thread drives the engine with mio, the disk pool and the store thread do the waiting.
//!
//! [`Node`] runs a whole node on a thread of its own, for programs that embed one. [`Driver`] is the loop beneath it,
//! for those that have a thread to give. [`cli`] is the program `clearskies`: its command line and its daemon.
//!
//! Nothing here knows the protocol: what arrives goes to the engine, what the engine asks for is done.

pub mod cli;
mod control;
mod daemon;
mod driver;
mod node;
mod options;
mod utc;

use clearskies_core::engine::command::{Command, CommandError};

pub use driver::Driver;
pub use node::{Answer, Node};
pub use options::{EventSink, Options, StartError};

/// What this software calls itself toward peers and control clients.
pub const SOFTWARE: &str = concat!("clearskies/", env!("CARGO_PKG_VERSION"));

/// Reads one line of the control protocol as the daemon does: the engine's command, or none where the daemon answers
/// by itself. For those who speak the protocol over a line of their own, and for fuzzers.
pub fn read_request(line: &[u8]) -> Result<Option<Command>, CommandError> {
    control::request(line)
}
