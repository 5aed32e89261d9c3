//! What the engine asks of its host, and how the host answers.
//!
//! Every [`Output`] with a [`Token`] gets exactly one completion with the same token, also when it failed or was
//! cancelled. Operations on one store are carried out in the order in which they were put out; operations on the
//! disk may run in parallel and complete in any order.

pub mod disk;
pub mod store;

pub use disk::{DiskDone, DiskError, DiskOp};
pub use store::{StoreDone, StoreError, StoreOp};

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::engine::event::Event;
use crate::ids::{ConnId, Token};

/// What a watcher saw at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// Something at or beneath it may have changed, and may go on changing.
    Changed,
    /// Whoever changed it is done with it for now: what was written is closed, or the name came or went by a rename.
    Done,
    /// A directory came there of which only itself is watched: all that lies in it is looked at, whatever is known of
    /// one by its name.
    NewDir,
}

/// One thing that the host should do.
#[derive(Debug)]
pub enum Output {
    /// Open a TCP connection, then call `handle_dialed`, or `handle_dial_failed`.
    Dial {
        /// The engine's name for the connection to be.
        conn: ConnId,
        /// Where to.
        addr: SocketAddr,
    },
    /// Send what `poll_transmit` still gives for this connection (at most a second), then close it. No call follows.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Whether to read from a connection's socket. Writing is wanted whenever `poll_transmit` gives bytes.
    Interest {
        /// The connection.
        conn: ConnId,
        /// False while the engine cannot take more.
        read: bool,
    },
    /// Send a UDP datagram on the LAN-discovery socket. `addr` may be a broadcast or multicast address.
    Datagram {
        /// Where to; the host sends to each interface where it is a broadcast or link-local multicast address.
        addr: SocketAddr,
        /// At most 512 bytes.
        bytes: Vec<u8>,
    },
    /// Work for the disk pool.
    Disk {
        /// Names the completion.
        token: Token,
        /// What to do.
        op: DiskOp,
    },
    /// Work for the store.
    Store {
        /// Names the completion.
        token: Token,
        /// What to do.
        op: StoreOp,
    },
    /// Write [`RunToken::new`](crate::config::RunToken) beside the store, durably, then call `handle_run_named`. The
    /// store has it by then, and nothing is told to anybody before the call.
    NameRun,
    /// News for whoever runs the engine.
    Event(Event),
}

/// The result of one [`Output::Disk`] or [`Output::Store`].
#[derive(Debug)]
pub enum Completion {
    /// From the disk pool.
    Disk(Result<DiskDone, DiskError>),
    /// From the store.
    Store(Result<StoreDone, StoreError>),
}
