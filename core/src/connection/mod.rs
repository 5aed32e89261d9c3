//! One link to one peer, from the first byte to the last: channel, authentication, opening, keep-alive, closing
//! (protocol §5). Carries messages of all kinds and acts on none but its own; who may log in, and what a message
//! means, others decide.

pub mod auth;
mod intake;
pub mod login;
mod open;
pub mod pack;
pub mod reason;
mod send;
pub mod units;
mod zlib;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use crate::channel::{Channel, ChannelFault, Transport};
use crate::club::level::Level;
use crate::error::Malformed;
use crate::ids::{AccessId, PeerId, RootId};
use crate::index::knowledge::Resume;
use crate::index::record::Record;
use crate::rng::Rng;
use crate::time::{Instant, Now, WallTime};
use crate::wire::compact;
use crate::wire::database::{self, DatabaseMessage};
use crate::wire::frame::{self, LENGTH_MAX, Parser, Piece};
use crate::wire::message::{Encoding, Message};

use auth::{Auth, AuthFault};
use login::{Login, Logins, Method, Role};
use open::{OpenFault, Peer};
use pack::Deflating;
use reason::CloseReason;
use send::SendQueue;
use units::Unpacker;

/// How long a link may take until it is ready (protocol §3).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes the other side may send before TLS is established (protocol §3).
pub const TLS_HANDSHAKE_MAX: usize = 16 * 1024;

/// How many bytes it may send after that, before the link is ready (protocol §3).
pub const UNREADY_MAX: usize = 4 * 1024;

/// The longest greeting or start, in bytes: what [`UNREADY_MAX`] leaves beside the authentication.
const OPENING_MAX: u32 = 3 * 1024 + 512;

// The authentication's messages are of fixed lengths, and a frame's head is short: no counter is needed.
const _: () = assert!(OPENING_MAX as usize + auth::BYTES_MAX + 16 <= UNREADY_MAX);

/// How many bytes of TLS records may carry those [`UNREADY_MAX`] bytes; they may begin a full record of later messages.
const UNREADY_WIRE_MAX: usize = 2 * UNREADY_MAX + 17 * 1024;

/// Above so many bytes in events that were not taken, [`Connection::wants_read`] is false.
pub const EVENT_BYTES_MAX: usize = 4 << 20;

/// What an event counts beside the bytes of its frame: about its size in memory.
const EVENT_COST: usize = 256;

/// The silence that a peer is granted at least, because its own wish is not known before its first ping
/// (protocol §5.6).
pub const PING_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// The longest silence that a peer can ask for.
pub const PING_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The extension by which bodies may be in CBOR (protocol §6).
pub const EXTENSION_CBOR: &str = "cbor";

/// The extension by which what follows the opening is in units, which may be compressed (protocol §6).
pub const EXTENSION_GZIP: &str = "gzip";

/// The extension by which a content may be sent as the difference to an older one (protocol §8).
pub const EXTENSION_RSYNC: &str = "rsync";

/// What is the same for all connections of a node.
#[derive(Clone, Debug)]
pub struct ConnConfig {
    /// How links are protected.
    pub transport: Transport,
    /// What `core.greeting` says of the software.
    pub software: String,
    /// What this computer is called; empty to say nothing.
    pub name: String,
    /// The extensions that this program speaks.
    pub extensions: Arc<[String]>,
    /// When data is compressed for a side that speaks [`EXTENSION_GZIP`] as well.
    pub deflating: Deflating,
    /// After how much silence a link is dropped; a ping goes out after half of it.
    pub ping_timeout: Duration,
}

/// What a connection tells its owner.
#[derive(Debug)]
pub enum ConnEvent {
    /// Both sides have proven what they claim; messages flow.
    Ready(Box<Ready>),
    /// A message came. `core.ping`, `core.error` and the openings never show up here.
    Message(Message),
    /// A piece of the payload of the message before it, which may also be a [`Message::Statement`]. A payload of up to
    /// [`frame::PIECE_MAX`] bytes comes in one piece.
    Payload {
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether it is the last piece.
        last: bool,
    },
    /// The connection is over; nothing follows. What [`Connection::poll_transmit`] still gives is to be sent.
    Closed(CloseReason),
}

/// The facts of a link that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The club that it belongs to.
    pub club: RootId,
    /// The level on which it was authenticated, or that its code grants.
    pub level: Level,
    /// How it was authenticated.
    pub method: Method,
    /// Our role in it.
    pub role: Role,
    /// The code that was used.
    pub code: Option<AccessId>,
    /// Who is at the other end, proven.
    pub peer: PeerId,
    /// The key that proved it.
    pub peer_public: [u8; 32],
    /// What the other computer says it is called; never on an untrusted link.
    pub name: Option<String>,
    /// The other side's software, as it says.
    pub software: String,
    /// The other side's run.
    pub run: [u8; 16],
    /// The other side's clock.
    pub remote_time: WallTime,
    /// Whether the peer may write: the link's level is read_write, or it proved that it holds the read_write key.
    pub writer: bool,
    /// The extensions that both sides speak.
    pub extensions: Vec<String>,
}

/// One link to one peer. See the module.
pub struct Connection {
    channel: Channel,
    inner: Inner,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("remote", &self.inner.remote).finish_non_exhaustive()
    }
}

/// All but the channel, so that plaintext can be read in place.
struct Inner {
    is_client: bool,
    remote: IpAddr,
    config: ConnConfig,
    phase: Phase,
    /// The exporter of the channel, once established.
    exporter: [u8; 32],
    parser: Parser,
    /// Takes apart what comes, where it is in units.
    unpacker: Option<Box<Unpacker>>,
    /// Whether units were agreed on and begin behind the keys, which are never in one.
    units_due: bool,
    /// Whether the server ends the link as it takes our start: it may say why, in a frame outside of units.
    refused_in_plain: bool,
    /// What came and is not inflated yet, because too many events wait.
    held: Vec<u8>,
    /// Whether the other side's end came behind it.
    held_end: bool,
    /// Whether pieces of a payload belong to a message of unknown type and are dropped.
    drop_payload: bool,
    queue: SendQueue,
    events: VecDeque<(usize, ConnEvent)>,
    event_bytes: usize,
    /// Bytes off the wire before the link was ready.
    unready_wire: usize,
    level: Level,
    /// A writer proof that could not be checked yet, as the joiner learns the key later.
    unchecked_writer: Option<[u8; 64]>,
    now: Now,
    started: Instant,
    last_received: Instant,
    last_sent: Instant,
    peer_timeout: Duration,
    reading: bool,
    farewell: Farewell,
}

/// How far the closing is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// Nothing is closed.
    None,
    /// What is queued goes out, then the channel's own end.
    Due,
    /// All was said.
    Done,
}

enum Phase {
    /// The channel is being established; the client's login waits.
    Establishing(Option<Box<Login>>),
    /// Who knows the secret? (protocol §5.3)
    Authenticating(Box<Auth>),
    /// Both know it; the other side's greeting or start is to come.
    Opening(Box<Login>),
    Ready,
    Closed,
}

impl Connection {
    /// A connection that this side opened to `to`, to log in as `login` says.
    pub fn dial(
        now: Now,
        to: IpAddr,
        login: Login,
        config: &ConnConfig,
        rng: &mut Rng,
    ) -> Result<Connection, ChannelFault> {
        let channel = config.transport.dial(to, rng)?;
        let phase = Phase::Establishing(Some(Box::new(login)));
        Ok(Connection { channel, inner: Inner::new(now, to, true, phase, config) })
    }

    /// A connection that came in from `from`.
    pub fn accept(
        now: Now,
        from: IpAddr,
        config: &ConnConfig,
        rng: &mut Rng,
    ) -> Result<Connection, ChannelFault> {
        let channel = config.transport.accept(rng)?;
        Ok(Connection { channel, inner: Inner::new(now, from, false, Phase::Establishing(None), config) })
    }

    /// Takes bytes off the wire, all of them. `logins` knows whom this node lets in.
    pub fn handle_received(&mut self, now: Now, bytes: &[u8], logins: &mut dyn Logins, rng: &mut Rng) {
        let Connection { channel, inner } = self;
        inner.now = now;
        inner.last_received = now.mono;
        let mut input = bytes;
        while !input.is_empty() && !inner.is_closed() {
            let before = input.len();
            let fed = channel.feed(&mut input);
            let established = channel.exporter();
            inner.count_wire(before - input.len(), established.is_some());
            if let Err(fault) = fed {
                inner.end(CloseReason::Channel(fault.0));
            }
            if let Some(exporter) = established {
                inner.established(exporter, rng);
            }
            loop {
                let plaintext = channel.plaintext();
                let length = plaintext.len();
                if length == 0 || inner.is_closed() {
                    break;
                }
                inner.take(plaintext, logins, rng);
                channel.consume(length);
            }
            if channel.is_ended() {
                inner.ended();
            }
        }
    }

    /// The socket took less than [`Connection::poll_transmit`] gave.
    pub fn handle_full(&mut self, now: Now) {
        self.inner.now = now;
        self.inner.queue.full(now.mono);
    }

    /// The next thing to tell the owner.
    pub fn poll_event(&mut self) -> Option<ConnEvent> {
        if self.inner.events.is_empty() {
            self.inner.take_held();
        }
        let (cost, event) = self.inner.events.pop_front()?;
        self.inner.event_bytes -= cost;
        Some(event)
    }

    /// Whether more should be read off the wire: false while too much waits in [`Connection::poll_event`].
    pub fn wants_read(&self) -> bool {
        self.inner.event_bytes < EVENT_BYTES_MAX && !self.is_holding()
    }

    /// Whether [`Connection::poll_event`] has more to give than it says yet, in units that were not inflated.
    pub fn is_holding(&self) -> bool {
        self.inner.is_holding()
    }

    /// Tells whether the owner reads this link at all. While it does not, the peer's silence proves nothing.
    pub fn set_reading(&mut self, now: Now, reading: bool) {
        self.inner.reading = reading;
        self.inner.last_received = now.mono;
    }

    /// Queues a message without a payload; false if the link is not ready, or the message needs a payload.
    pub fn send(&mut self, message: &Message) -> bool {
        if !self.is_ready() || message.has_payload() {
            return false;
        }
        if let Message::Statement { body, signature, .. } = message {
            return self.send_statement(body, signature);
        }
        self.inner.queue.message(message);
        if matches!(message, Message::Keys(_) | Message::KeysAcknowledgment) {
            self.inner.keys_went();
        }
        true
    }

    /// Queues a message without a payload whose body `write` appends; false if the link is not ready.
    pub fn send_body(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if !self.is_ready() {
            return false;
        }
        self.inner.queue.body(write);
        true
    }

    /// Queues records, of which the last stands at `at` in this side's store; false if the link is not ready.
    pub fn send_records(&mut self, records: &[&Record], at: Option<Resume>) -> bool {
        let batches = self.inner.queue.encoding == Encoding::Cbor;
        let mut rest = records;
        while let Some((first, others)) = rest.split_first() {
            let mut count = 1;
            let queued = self.send_body(|body| {
                if batches {
                    count = compact::write_updates(rest, at, body);
                } else {
                    database::write_update(first, at.filter(|_| others.is_empty()), body);
                }
            });
            if !queued {
                return false;
            }
            rest = &rest[count..];
        }
        self.is_ready()
    }

    /// Queues a message with its payload, which is kept as it is until it is sealed; false if the link is not ready, or
    /// the message has none.
    pub fn send_with_payload(&mut self, message: &Message, payload: Vec<u8>) -> bool {
        if !self.is_ready() || !message.has_payload() {
            return false;
        }
        self.inner.queue.message_with_payload(message, payload);
        true
    }

    /// Queues a signed body, verbatim; false if the link is not ready.
    pub fn send_statement(&mut self, body: &[u8], signature: &[u8; 64]) -> bool {
        if !self.is_ready() {
            return false;
        }
        self.inner.queue.frames(|out| frame::write_statement(body, signature, out));
        true
    }

    /// Bytes of messages and payloads that were not sealed yet.
    pub fn queued_bytes(&self) -> usize {
        self.inner.queue.bytes()
    }

    /// Appends about `limit` bytes to be sent, at most one record more, to `out`; returns whether it appended any.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        let Connection { channel, inner } = self;
        let start = out.len();
        channel.flush(out);
        if channel.exporter().is_some() {
            let room = limit.saturating_sub(out.len() - start);
            if let Err(fault) = inner.queue.seal(channel, out, room, inner.now.mono) {
                inner.end(CloseReason::Channel(fault.0));
                inner.queue.clear();
            }
        }
        if inner.farewell == Farewell::Due && (inner.queue.bytes() == 0 || channel.exporter().is_none()) {
            inner.farewell = Farewell::Done;
            channel.close();
            channel.flush(out);
        }
        if out.len() > start {
            inner.last_sent = inner.now.mono;
        }
        out.len() > start
    }

    /// When [`Connection::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let inner = &self.inner;
        match inner.phase {
            Phase::Closed => None,
            Phase::Ready => [inner.silence_deadline(), inner.ping_deadline()].into_iter().flatten().min(),
            _ => Some(inner.started.plus(HANDSHAKE_TIMEOUT)),
        }
    }

    /// Time has passed; early calls do nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        let inner = &mut self.inner;
        inner.now = now;
        match inner.phase {
            Phase::Closed => {}
            Phase::Ready => {
                if inner.silence_deadline().is_some_and(|at| now.mono >= at) {
                    inner.end(CloseReason::Silence);
                } else if inner.ping_deadline().is_some_and(|at| now.mono >= at) {
                    inner.ping();
                }
            }
            _ if now.mono >= inner.started.plus(HANDSHAKE_TIMEOUT) => {
                inner.end(CloseReason::HandshakeTimeout)
            }
            _ => {}
        }
    }

    /// Closes the link on purpose; `code` is a word of protocol §5.7. Messages that were queued but not begun are
    /// dropped.
    pub fn close(&mut self, code: &str, message: &str) {
        self.inner.end_saying(
            code,
            message,
            CloseReason::ByUs { code: code.into(), message: message.into() },
        );
    }

    /// Whether messages flow.
    pub fn is_ready(&self) -> bool {
        matches!(self.inner.phase, Phase::Ready)
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Whether the other side was shown a proof and has not answered with its own: if the link ends now, it did not
    /// accept ours.
    pub fn is_awaiting_proof(&self) -> bool {
        self.inner.is_awaiting_proof()
    }

    /// The level of the link; meaningless before it is ready.
    pub fn level(&self) -> Level {
        self.inner.level
    }

    /// Sets the level at which the link goes on, after keys were granted on it.
    pub fn set_level(&mut self, level: Level) {
        self.inner.level = level;
    }

    /// Whether the peer had shown a writer proof that could not be checked, and that `public`, the read_write key that
    /// was learnt since, now confirms.
    pub fn confirm_writer(&mut self, public: &[u8; 32]) -> bool {
        let inner = &mut self.inner;
        let Some(proof) = inner.unchecked_writer.take() else { return false };
        open::verify_writer(public, &proof, !inner.is_client, &inner.exporter)
    }
}

impl Inner {
    fn new(now: Now, remote: IpAddr, is_client: bool, phase: Phase, config: &ConnConfig) -> Inner {
        Inner {
            is_client,
            remote,
            config: config.clone(),
            phase,
            exporter: [0; 32],
            parser: Parser::new(OPENING_MAX),
            unpacker: None,
            units_due: false,
            refused_in_plain: false,
            held: Vec::new(),
            held_end: false,
            drop_payload: false,
            queue: SendQueue::default(),
            events: VecDeque::new(),
            event_bytes: 0,
            unready_wire: 0,
            level: Level::Untrusted,
            unchecked_writer: None,
            now,
            started: now.mono,
            last_received: now.mono,
            last_sent: now.mono,
            peer_timeout: PING_TIMEOUT_DEFAULT,
            reading: true,
            farewell: Farewell::None,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    fn is_awaiting_proof(&self) -> bool {
        matches!(&self.phase, Phase::Authenticating(auth) if auth.has_sent_proof())
    }

    fn event(&mut self, bytes: usize, event: ConnEvent) {
        let cost = bytes + EVENT_COST;
        self.event_bytes += cost;
        self.events.push_back((cost, event));
    }

    /// Strangers get little room (protocol §3).
    fn count_wire(&mut self, bytes: usize, established: bool) {
        if matches!(self.phase, Phase::Ready | Phase::Closed) {
            return;
        }
        self.unready_wire += bytes;
        let max = if established { TLS_HANDSHAKE_MAX + UNREADY_WIRE_MAX } else { TLS_HANDSHAKE_MAX };
        if self.unready_wire > max {
            self.end(CloseReason::TooMuch);
        }
    }

    /// The channel stands: the client begins to authenticate.
    fn established(&mut self, exporter: [u8; 32], rng: &mut Rng) {
        let Phase::Establishing(login) = &mut self.phase else { return };
        self.exporter = exporter;
        let auth = match login.take() {
            Some(login) => {
                let (auth, hello) = Auth::client(login, exporter, rng);
                self.queue.frames(|out| out.extend_from_slice(&hello));
                auth
            }
            None => Auth::server(exporter),
        };
        self.phase = Phase::Authenticating(Box::new(auth));
    }

    fn take(&mut self, plaintext: &[u8], logins: &mut dyn Logins, rng: &mut Rng) {
        let mut input = plaintext;
        while !input.is_empty() && !self.is_closed() {
            match &mut self.phase {
                Phase::Authenticating(auth) => {
                    let mut answer = Vec::new();
                    let taken = auth.take(&mut input, self.remote, logins, rng, &mut answer);
                    self.queue.frames(|out| out.extend_from_slice(&answer));
                    match taken {
                        Ok(None) => {}
                        Ok(Some(login)) => self.authenticated(login),
                        Err(AuthFault::Form(fault)) => self.end(CloseReason::Protocol(fault)),
                        Err(AuthFault::WrongProof) => self.end(CloseReason::WrongProof),
                    }
                }
                Phase::Ready if self.unpacker.is_some() => self.take_units(&mut input),
                Phase::Opening(_) | Phase::Ready => self.take_frames(&mut input),
                Phase::Establishing(_) | Phase::Closed => return,
            }
        }
    }

    /// Takes bytes off the front of `input`, at most until one piece is whole.
    fn take_frames(&mut self, input: &mut &[u8]) {
        match self.parser.next(input) {
            Ok(None) => {}
            Ok(Some(piece)) => self.piece(piece),
            Err(fault) => self.malformed(fault),
        }
    }

    /// The proofs are right. The server greets.
    fn authenticated(&mut self, login: Box<Login>) {
        self.level = login.level;
        if !self.is_client {
            let opening = open::ours(
                &login,
                &self.config,
                self.config.extensions.to_vec(),
                false,
                &self.exporter,
                self.now,
            );
            self.queue.message(&Message::Greeting(Box::new(opening)));
        }
        self.phase = Phase::Opening(login);
    }

    fn piece(&mut self, piece: Piece) {
        match piece {
            Piece::Body { body, signature, payload } => {
                let bytes = body.len();
                match Message::read(body, signature, payload) {
                    Ok(message) => self.message(message, bytes, payload),
                    Err(fault) => self.malformed(fault),
                }
            }
            Piece::Payload { .. } if self.drop_payload => {}
            Piece::Payload { bytes, last } => {
                self.event(bytes.len(), ConnEvent::Payload { bytes, last });
            }
        }
    }

    fn message(&mut self, message: Message, bytes: usize, payload: bool) {
        match (&self.phase, message) {
            (_, Message::Error { code, message }) => self.end(CloseReason::ByPeer { code, message }),
            (Phase::Opening(_), Message::Greeting(opening)) if self.is_client => self.opened(*opening),
            (Phase::Opening(_), Message::Start(opening)) if !self.is_client => self.opened(*opening),
            (Phase::Opening(_), _) | (_, Message::Greeting(_) | Message::Start(_)) => {
                self.malformed(Malformed("a message at the wrong moment"));
            }
            (_, Message::Ping { timeout }) => {
                self.peer_timeout = Duration::from_secs(timeout).min(PING_TIMEOUT_MAX);
            }
            (_, message) => {
                if self.refused_in_plain {
                    return self.malformed(Malformed("a frame where units were agreed on"));
                }
                if matches!(message, Message::Keys(_) | Message::KeysAcknowledgment) {
                    self.keys_came();
                }
                self.drop_payload = payload && matches!(message, Message::Unknown { .. });
                let records = match &message {
                    Message::Database(DatabaseMessage::Updates { records, .. }) => records.len(),
                    _ => 0,
                };
                self.event(bytes + records * EVENT_COST, ConnEvent::Message(message));
            }
        }
    }

    /// The other side's opening came: it is judged, and the client answers with its own.
    fn opened(&mut self, opening: crate::wire::core_msgs::Opening) {
        let Phase::Opening(login) = core::mem::replace(&mut self.phase, Phase::Ready) else { return };
        let judged = open::judge(opening, &login, &self.config, self.is_client, &self.exporter);
        // Our start goes out also where we end the link, because the other side has to see what we saw.
        let shown = judged.as_ref().map_or(&[][..], |peer| &peer.ready.extensions);
        if self.is_client && !matches!(judged, Err(OpenFault::Auth(_) | OpenFault::Protocol(_))) {
            let start = open::ours(&login, &self.config, shown.to_vec(), true, &self.exporter, self.now);
            self.queue.message(&Message::Start(Box::new(start)));
            self.queue.keep();
        }
        match judged {
            Ok(Peer { ready, unchecked_writer }) => {
                self.unchecked_writer = unchecked_writer;
                self.parser.set_body_max(LENGTH_MAX);
                if ready.extensions.iter().any(|name| name == EXTENSION_CBOR) {
                    self.parser.allow_cbor();
                    self.queue.encoding = Encoding::Cbor;
                }
                if ready.extensions.iter().any(|name| name == EXTENSION_GZIP) {
                    self.agree_on_units(ready.method);
                }
                self.event(0, ConnEvent::Ready(Box::new(ready)));
            }
            Err(OpenFault::Protocol(fault)) => self.malformed(Malformed(fault)),
            Err(OpenFault::Auth(what)) => self.end_saying("auth", what, CloseReason::Auth(what)),
            Err(OpenFault::Loopback) => self.end(CloseReason::Loopback),
            Err(OpenFault::CopiedHome { name }) => {
                self.end(CloseReason::CopiedHome { club: login.club, name });
            }
        }
    }

    /// The other side said that it sends nothing more.
    fn ended(&mut self) {
        self.held_end = self.is_holding();
        if self.held_end {
            return;
        }
        let refused = self.is_awaiting_proof();
        self.end(if refused { CloseReason::Refused } else { CloseReason::Ended });
    }

    fn malformed(&mut self, fault: Malformed) {
        self.end_saying("protocol", fault.0, CloseReason::Protocol(fault));
    }

    /// Ends the link with a `core.error`, if the other side has proven that it may hear one.
    fn end_saying(&mut self, code: &str, message: &str, reason: CloseReason) {
        if matches!(self.phase, Phase::Opening(_) | Phase::Ready) {
            self.queue.cut();
            self.queue.message(&Message::Error { code: code.into(), message: message.into() });
        }
        self.end(reason);
    }

    fn end(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        self.phase = Phase::Closed;
        self.farewell = Farewell::Due;
        self.event(0, ConnEvent::Closed(reason));
    }

    /// When silence of the peer ends the link: the larger of both timeouts counts (protocol §5.6).
    fn silence_deadline(&self) -> Option<Instant> {
        let bearable = self.config.ping_timeout.max(self.peer_timeout);
        self.reading.then(|| self.last_received.plus(bearable))
    }

    /// When our own silence wants a ping; never while something is queued anyway.
    fn ping_deadline(&self) -> Option<Instant> {
        (self.queue.bytes() == 0).then(|| self.last_sent.plus(self.config.ping_timeout / 2))
    }

    fn ping(&mut self) {
        self.queue.rest();
        if let Some(unpacker) = &mut self.unpacker {
            unpacker.rest();
        }
        self.queue.message(&Message::Ping { timeout: self.config.ping_timeout.as_secs() });
        self.last_sent = self.now.mono;
    }
}

#[cfg(test)]
mod tests;
