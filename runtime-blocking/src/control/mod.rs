//! The control protocol: one JSON object a line over a Unix socket (protocol §12, `docs/control.md`).

use clearskies_core::engine::command::{Command, CommandError};

pub(crate) mod client;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod server;
pub(crate) mod socket;

/// What the greeting calls the service.
pub(crate) const SERVICE: &str = "ClearSkies Control";
/// The version of the control protocol.
pub(crate) const PROTOCOL: u64 = 1;

/// What a line asks of the engine; none where the daemon answers by itself.
pub(crate) fn request(line: &[u8]) -> Result<Option<Command>, CommandError> {
    request::parse(line).map(|request| match request {
        request::Request::Engine { command, .. } => Some(command),
        _ => None,
    })
}
