//! The engine: routes inputs to clubs, connections and shares, and collects what they want done.

pub mod command;
pub mod event;
pub mod outbox;

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::config::Config;
use crate::engine::command::Command;
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::ids::{CommandId, ConnId, RootId, Token};
use crate::io::{Completion, Output};
use crate::time::{Instant, Now};

/// The engine of one process: all shares, all connections.
///
/// Hosts may call anything in any order. Before sleeping they drain [`Engine::poll_output`], flush writable sockets
/// with [`Engine::poll_transmit`], and re-read [`Engine::poll_timeout`].
#[derive(Debug)]
pub struct Engine {
    out: Outbox,
}

impl Engine {
    /// Makes an engine. `seed` is 32 bytes of the system's generator, drawn at each start.
    pub fn new(_config: Config, _seed: [u8; 32], _now: Now) -> Engine {
        Engine { out: Outbox::default() }
    }

    /// A connection was accepted; the engine names it, or refuses it (then the host closes the socket).
    pub fn handle_accepted(&mut self, _now: Now, _from: SocketAddr) -> Option<ConnId> {
        None
    }

    /// A dial that the engine asked for succeeded.
    pub fn handle_dialed(&mut self, _now: Now, _conn: ConnId) {}

    /// A dial that the engine asked for failed; the connection's name is done with.
    pub fn handle_dial_failed(&mut self, _now: Now, _conn: ConnId) {}

    /// The connection is gone, by whatever cause; its name is done with.
    pub fn handle_closed(&mut self, _now: Now, _conn: ConnId) {}

    /// Bytes came off the wire. All of them are taken.
    pub fn handle_received(&mut self, _now: Now, _conn: ConnId, _bytes: &[u8]) {}

    /// A datagram came in on the LAN-discovery socket.
    pub fn handle_datagram(&mut self, _now: Now, _from: SocketAddr, _bytes: &[u8]) {}

    /// An output with a token ended.
    pub fn handle_completion(&mut self, _now: Now, _token: Token, _completion: Completion) {}

    /// Something at or beneath `path` may have changed; a hint too many is harmless.
    pub fn handle_fs_event(&mut self, _now: Now, _root: RootId, _path: &RelPath) {}

    /// Hints of this root were lost: all of it is looked through.
    pub fn handle_fs_overflow(&mut self, _now: Now, _root: RootId) {}

    /// The addresses of this machine's interfaces with their prefix lengths, at start and whenever they changed.
    pub fn handle_interfaces(&mut self, _now: Now, _addrs: &[(core::net::IpAddr, u8)]) {}

    /// Time has passed; early calls do nothing.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// Takes a request of the user; its outcome is an event with the id that this returns.
    pub fn handle_command(&mut self, _now: Now, _command: Command) -> CommandId {
        CommandId(0)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// Appends at most about `limit` bytes for this connection's socket to `out`; returns whether it appended any.
    /// To be called whenever the socket can take bytes, until it returns false; then again after any other call.
    pub fn poll_transmit(&mut self, _now: Now, _conn: ConnId, _out: &mut Vec<u8>, _limit: usize) -> bool {
        false
    }

    /// The connections that may have bytes to send since the last call; each is named once.
    pub fn poll_writable(&mut self) -> Option<ConnId> {
        None
    }

    /// When [`Engine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }
}
