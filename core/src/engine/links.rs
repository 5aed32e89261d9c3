//! All connections of the engine: who they are, what they may send, and when they are read.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::connection::Connection;
use crate::engine::outbox::Outbox;
use crate::ids::{AccessId, ConnId, PeerId, RootId};
use crate::index::knowledge::Resume;
use crate::index::record::Record;
use crate::io::Output;
use crate::share::clock::ClockSample;
use crate::time::Instant;
use crate::wire::message::Message;

/// Bytes that may wait for one link's socket before nothing more is read from disk for it.
pub const SEND_QUEUE_BYTES: usize = 4 << 20;

/// Connections whose last words are kept, and how long these may be, in bytes; more is not said.
const LEAVING_MAX: usize = 64;
const LAST_WORDS_BYTES_MAX: usize = 64 << 10;

/// How far a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Dialled, not connected yet.
    Dialing,
    /// Being authenticated.
    Opening,
    /// A joiner waits for the keys.
    AwaitingKeys,
    /// A member binds the code to the joiner, before it sends the keys.
    Binding(AccessId),
    /// A member waits for the joiner to have stored the keys.
    AwaitingAcknowledgment(AccessId),
    /// Open for the club's messages.
    Open,
    /// Closed by us; the host was told.
    Closing,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Its protocol; none while it is dialled.
    pub connection: Option<Connection>,
    /// The other end.
    pub addr: SocketAddr,
    /// Whether we opened it.
    pub dialed: bool,
    /// The club, once known.
    pub club: Option<RootId>,
    /// The proven peer, once known.
    pub peer: Option<PeerId>,
    /// Tells two runs under the peer's identity apart, once known.
    pub run: Option<[u8; 16]>,
    /// What the peer calls its computer, if it says so.
    pub name: Option<String>,
    /// Whether the peer is a member, and not one who may only want to become one.
    pub member: bool,
    /// What the peer's clock said, once it introduced itself.
    pub clock: Option<ClockSample>,
    /// Whether it takes signatures and gives patches.
    pub rsync: bool,
    /// How far it got.
    pub stage: Stage,
    /// What the host was last told about reading.
    pub reading: bool,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// When it was born.
    pub since: Instant,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Links {
    /// By number.
    pub all: BTreeMap<ConnId, Link>,
    next: u64,
    writable: BTreeSet<ConnId>,
    /// Connections to be closed, once what they still say was sent.
    closing: Vec<ConnId>,
    /// Connections that are done with but for their last words, which the host still fetches.
    leaving: BTreeMap<ConnId, Connection>,
}

impl Links {
    /// A number for a new connection.
    pub fn new_id(&mut self) -> ConnId {
        self.next += 1;
        ConnId(self.next)
    }

    /// Sends a message.
    pub fn send(&mut self, conn: ConnId, message: &Message) {
        if let Some(connection) = self.connection(conn) {
            connection.send(message);
            self.writable.insert(conn);
        }
    }

    /// Sends records, of which the last stands at `at` in this side's store.
    pub fn send_records(&mut self, conn: ConnId, records: &[&Record], at: Option<Resume>) {
        if let Some(connection) = self.connection(conn) {
            connection.send_records(records, at);
            self.writable.insert(conn);
        }
    }

    /// Sends a message with a payload.
    pub fn send_with_payload(&mut self, conn: ConnId, message: &Message, payload: Vec<u8>) {
        if let Some(connection) = self.connection(conn) {
            connection.send_with_payload(message, payload);
            self.writable.insert(conn);
        }
    }

    /// Says why, then closes.
    pub fn close(&mut self, conn: ConnId, code: &'static str, why: &str) {
        let Some(link) = self.all.get_mut(&conn) else { return };
        if link.stage == Stage::Closing {
            return;
        }
        if let Some(connection) = &mut link.connection {
            connection.close(code, why);
        }
        link.stage = Stage::Closing;
        self.writable.insert(conn);
        self.closing.push(conn);
    }

    /// A connection ended by itself.
    pub fn ended(&mut self, conn: ConnId) {
        if let Some(link) = self.all.get_mut(&conn)
            && link.stage != Stage::Closing
        {
            link.stage = Stage::Closing;
            self.closing.push(conn);
        }
    }

    /// Tells the host to close what was closed.
    pub fn put_out_closes(&mut self, out: &mut Outbox) -> Vec<ConnId> {
        let closing = core::mem::take(&mut self.closing);
        for &conn in &closing {
            out.push(Output::Close { conn });
        }
        closing
    }

    /// Keeps what a connection that was closed still says; its link is to be forgotten then.
    pub fn leave(&mut self, conn: ConnId) {
        let connection = self.all.get_mut(&conn).and_then(|link| link.connection.take());
        let Some(connection) = connection.filter(|it| it.queued_bytes() <= LAST_WORDS_BYTES_MAX) else {
            return;
        };
        if self.leaving.len() == LEAVING_MAX {
            self.leaving.pop_first();
        }
        self.leaving.insert(conn, connection);
    }

    /// The last words of a connection that was closed; whether there were any.
    pub fn last_words(&mut self, conn: ConnId, out: &mut Vec<u8>, limit: usize) -> bool {
        let said = self.leaving.get_mut(&conn).is_some_and(|connection| connection.poll_transmit(out, limit));
        if !said {
            self.leaving.remove(&conn);
        }
        said
    }

    /// The host is done with a connection.
    pub fn left(&mut self, conn: ConnId) {
        self.leaving.remove(&conn);
    }

    /// Bytes that wait for a link's socket.
    pub fn queued_bytes(&self, conn: ConnId) -> usize {
        let connection = self.all.get(&conn).and_then(|link| link.connection.as_ref());
        connection.map_or(usize::MAX, Connection::queued_bytes)
    }

    /// Notes that a link may have bytes to send.
    pub fn mark_writable(&mut self, conn: ConnId) {
        self.writable.insert(conn);
    }

    /// Takes one link that may have bytes to send.
    pub fn pop_writable(&mut self) -> Option<ConnId> {
        self.writable.pop_first()
    }

    fn connection(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let link = self.all.get_mut(&conn)?;
        if link.stage == Stage::Closing { None } else { link.connection.as_mut() }
    }
}
