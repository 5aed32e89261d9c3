//! The TCP connections: dialling, reading, writing, closing. Owns the sockets and their readiness; never looks at
//! what they carry.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use clearskies_core::engine::Engine;
use clearskies_core::ids::ConnId;
use clearskies_core::time::{Instant, Now};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// How long a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closed connection may take to send what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes read from one connection before others have their turn.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Bytes asked of the engine at once for one connection.
const STAGE_BYTES: usize = 256 * 1024;
/// Bytes written to one connection before others have their turn.
const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// Staging buffers kept for use again.
const SPARE_BUFFERS_MAX: usize = 4;
/// Mio tokens of connections begin here; smaller ones belong to the rest of the driver.
pub(crate) const FIRST_TOKEN: usize = 1024;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Dialing,
    Open,
    /// The engine is done with it; what is left is still sent.
    Draining,
    /// All was sent and said to be the end; the peer's own end is awaited, so that no reset destroys our last bytes.
    Ended,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    phase: Phase,
    /// Whether the engine takes bytes.
    wanted: bool,
    /// Edges seen and not used up.
    readable: bool,
    writable: bool,
    /// Whether the peer's end was seen, and so a short read is not all.
    read_closed: bool,
    /// Whether it stands in the queue of that name.
    in_reads: bool,
    in_writes: bool,
    /// Bytes of the engine that the socket did not take yet, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    deadline: Option<Instant>,
}

/// What became of writing.
enum Flushed {
    /// Nothing is left.
    Empty,
    /// The socket is full.
    Full,
    /// There is more, and it was others' turn.
    More,
    /// The socket is broken.
    Broken,
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Conns {
    map: HashMap<ConnId, Conn>,
    reads: VecDeque<ConnId>,
    writes: VecDeque<ConnId>,
    /// Those that have more to write and whose turn is over.
    later: Vec<ConnId>,
    read_buffer: Box<[u8]>,
    spare: Vec<Vec<u8>>,
}

impl Conns {
    pub(crate) fn new() -> Conns {
        Conns { read_buffer: vec![0; READ_BYTES_MAX].into_boxed_slice(), ..Conns::default() }
    }

    /// Which connection a mio token of [`FIRST_TOKEN`] or more means.
    pub(crate) fn named(token: Token) -> ConnId {
        ConnId((token.0 - FIRST_TOKEN) as u64)
    }

    /// Begins a dial; on failure the caller tells the engine.
    pub(crate) fn dial(
        &mut self,
        registry: &Registry,
        now: Now,
        conn: ConnId,
        addr: SocketAddr,
    ) -> io::Result<()> {
        let stream = TcpStream::connect(addr)?;
        self.insert(registry, conn, stream, Phase::Dialing, Some(now.mono.plus(DIAL_TIMEOUT)))
    }

    /// Takes an accepted connection, already named by the engine.
    pub(crate) fn accept(&mut self, registry: &Registry, conn: ConnId, stream: TcpStream) -> io::Result<()> {
        self.insert(registry, conn, stream, Phase::Open, None)
    }

    fn insert(
        &mut self,
        registry: &Registry,
        conn: ConnId,
        mut stream: TcpStream,
        phase: Phase,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        let token = usize::try_from(conn.0)
            .ok()
            .and_then(|number| number.checked_add(FIRST_TOKEN))
            .ok_or_else(|| io::Error::other("connection numbers are used up; a restart helps"))?;
        // Not vital: without it small messages may wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        self.map.insert(
            conn,
            Conn {
                stream,
                phase,
                wanted: true,
                readable: false,
                writable: false,
                read_closed: false,
                in_reads: false,
                in_writes: false,
                out: Vec::new(),
                sent: 0,
                deadline,
            },
        );
        Ok(())
    }

    /// Whether something can go on without waiting.
    pub(crate) fn busy(&self) -> bool {
        !self.reads.is_empty() || !self.writes.is_empty() || !self.later.is_empty()
    }

    /// Begins a turn: those that gave way to others in the last one may write again.
    pub(crate) fn begin_turn(&mut self) {
        self.writes.extend(self.later.drain(..));
    }

    /// Whether any connection still has bytes to send before it may go.
    pub(crate) fn closing(&self) -> bool {
        self.map.values().any(|conn| matches!(conn.phase, Phase::Draining | Phase::Ended))
    }

    /// When [`Conns::expire`] should be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.map.values().filter_map(|conn| conn.deadline).min()
    }

    /// Ends dials and closings that took too long.
    pub(crate) fn expire(&mut self, engine: &mut Engine, now: Now) {
        let late = |conn: &Conn| conn.deadline.is_some_and(|at| at <= now.mono);
        let late: Vec<ConnId> = self.map.iter().filter(|(_, conn)| late(conn)).map(|(id, _)| *id).collect();
        for id in late {
            self.broken(engine, now, id);
        }
    }

    /// A socket's readiness changed.
    pub(crate) fn ready(&mut self, engine: &mut Engine, now: Now, id: ConnId, event: &mio::event::Event) {
        let Some(conn) = self.map.get_mut(&id) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            conn.readable = true;
        }
        conn.read_closed |= event.is_read_closed();
        if event.is_writable() {
            conn.writable = true;
        }
        if conn.phase == Phase::Dialing {
            match dialed(&conn.stream) {
                Ok(true) => {
                    conn.phase = Phase::Open;
                    conn.deadline = None;
                    engine.handle_dialed(now, id);
                }
                Ok(false) => return,
                Err(error) => {
                    log::debug!("a dial failed: {error}");
                    return self.broken(engine, now, id);
                }
            }
        } else if event.is_error()
            && let Ok(Some(error)) = conn.stream.take_error()
        {
            log::debug!("a connection failed: {error}");
            return self.broken(engine, now, id);
        }
        self.queue_read(id);
        self.queue_write(id);
    }

    /// The engine takes bytes of this connection, or does not.
    pub(crate) fn want(&mut self, id: ConnId, read: bool) {
        if let Some(conn) = self.map.get_mut(&id) {
            conn.wanted = read;
            self.queue_read(id);
        }
    }

    /// The engine may have bytes for this connection.
    pub(crate) fn queue_write(&mut self, id: ConnId) {
        if let Some(conn) = self.map.get_mut(&id)
            && conn.writable
            && !conn.in_writes
            && matches!(conn.phase, Phase::Open | Phase::Draining)
        {
            conn.in_writes = true;
            self.writes.push_back(id);
        }
    }

    fn queue_read(&mut self, id: ConnId) {
        if let Some(conn) = self.map.get_mut(&id)
            && conn.readable
            && !conn.in_reads
            && (conn.wanted || conn.phase == Phase::Ended)
            && matches!(conn.phase, Phase::Open | Phase::Ended)
        {
            conn.in_reads = true;
            self.reads.push_back(id);
        }
    }

    /// The engine is done with this connection: sends what is left, then closes it.
    pub(crate) fn close(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.map.get_mut(&id) else { return };
        match conn.phase {
            Phase::Dialing => self.forget(id),
            Phase::Open => {
                conn.phase = Phase::Draining;
                conn.deadline = Some(now.mono.plus(CLOSE_TIMEOUT));
                self.queue_write(id);
            }
            Phase::Draining | Phase::Ended => {}
        }
    }

    /// How many connections wait to be read.
    pub(crate) fn reads_waiting(&self) -> usize {
        self.reads.len()
    }

    /// Reads once from the connection whose turn it is.
    pub(crate) fn read_next(&mut self, engine: &mut Engine, now: Now) {
        let Some(id) = self.reads.pop_front() else { return };
        let Some(conn) = self.map.get_mut(&id) else { return };
        conn.in_reads = false;
        // Interest may have ended, and the connection been closed, since it was queued.
        if conn.phase != Phase::Ended && !(conn.phase == Phase::Open && conn.wanted) {
            return;
        }
        match conn.stream.read(&mut self.read_buffer) {
            Ok(0) => self.broken(engine, now, id),
            Ok(n) => {
                // A short read has emptied the socket: whatever comes later is an edge of its own.
                if n < self.read_buffer.len() && !conn.read_closed {
                    conn.readable = false;
                }
                if conn.phase == Phase::Open {
                    engine.handle_received(now, id, &self.read_buffer[..n]);
                }
                self.queue_read(id);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => conn.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => self.queue_read(id),
            Err(error) => {
                log::debug!("a connection failed: {error}");
                self.broken(engine, now, id);
            }
        }
    }

    /// Writes to the connection whose turn it is; false if there is none.
    pub(crate) fn write_next(&mut self, engine: &mut Engine, now: Now) -> bool {
        let Some(id) = self.writes.pop_front() else { return false };
        let Some(conn) = self.map.get_mut(&id) else { return true };
        conn.in_writes = false;
        match conn.flush(engine, now, id, &mut self.spare) {
            Flushed::Empty => self.end_if_draining(id),
            Flushed::Full => {}
            Flushed::More => {
                conn.in_writes = true;
                self.later.push(id);
            }
            Flushed::Broken => {
                self.last_words(engine, now, id);
                self.broken(engine, now, id);
            }
        }
        true
    }

    /// A peer may have said why before it closed: what it sent is handed on once more.
    fn last_words(&mut self, engine: &mut Engine, now: Now, id: ConnId) {
        if let Some(conn) = self.map.get_mut(&id)
            && conn.phase == Phase::Open
            && let Ok(n @ 1..) = conn.stream.read(&mut self.read_buffer)
        {
            engine.handle_received(now, id, &self.read_buffer[..n]);
        }
    }

    fn end_if_draining(&mut self, id: ConnId) {
        let Some(conn) = self.map.get_mut(&id) else { return };
        if conn.phase != Phase::Draining {
            return;
        }
        conn.phase = Phase::Ended;
        match conn.stream.shutdown(Shutdown::Write) {
            Ok(()) => {
                // What the peer still sends is read and dropped, up to the deadline.
                conn.readable = true;
                self.queue_read(id);
            }
            Err(_) => self.forget(id),
        }
    }

    /// The connection is gone; tells the engine unless it is done with it.
    fn broken(&mut self, engine: &mut Engine, now: Now, id: ConnId) {
        let Some(phase) = self.map.get(&id).map(|conn| conn.phase) else { return };
        self.forget(id);
        match phase {
            Phase::Dialing => engine.handle_dial_failed(now, id),
            Phase::Open => engine.handle_closed(now, id),
            Phase::Draining | Phase::Ended => {}
        }
    }

    /// Drops the socket, which also takes it out of the poll.
    fn forget(&mut self, id: ConnId) {
        if let Some(conn) = self.map.remove(&id) {
            keep(&mut self.spare, conn.out);
        }
    }
}

impl Conn {
    fn flush(&mut self, engine: &mut Engine, now: Now, id: ConnId, spare: &mut Vec<Vec<u8>>) -> Flushed {
        let mut written = 0;
        while self.writable {
            if self.sent == self.out.len() {
                if self.out.capacity() == 0 {
                    self.out = spare.pop().unwrap_or_default();
                }
                self.out.clear();
                self.sent = 0;
                if !engine.poll_transmit(now, id, &mut self.out, STAGE_BYTES) || self.out.is_empty() {
                    keep(spare, std::mem::take(&mut self.out));
                    return Flushed::Empty;
                }
            }
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Flushed::Broken,
                Ok(n) => {
                    self.sent += n;
                    written += n;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    engine.handle_full(now, id);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug!("a connection failed: {error}");
                    return Flushed::Broken;
                }
            }
            if written >= WRITE_BYTES_MAX {
                return Flushed::More;
            }
        }
        Flushed::Full
    }
}

/// Keeps an empty buffer for use again, unless there are enough or it grew beyond its purpose.
fn keep(spare: &mut Vec<Vec<u8>>, mut buffer: Vec<u8>) {
    if spare.len() < SPARE_BUFFERS_MAX && (1..=2 * STAGE_BYTES).contains(&buffer.capacity()) {
        buffer.clear();
        spare.push(buffer);
    }
}

/// Whether a dial has succeeded; false if it still goes on.
fn dialed(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
