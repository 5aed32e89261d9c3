//! The control protocol: one JSON object a line over a Unix socket (protocol §12, `docs/control.md`).

pub(crate) mod client;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod server;
pub(crate) mod socket;

/// What the greeting calls the service.
pub(crate) const SERVICE: &str = "ClearSkies Control";
/// The version of the control protocol.
pub(crate) const PROTOCOL: u64 = 1;
