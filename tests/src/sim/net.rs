//! The network between simulated machines: byte streams with latency, a line that is busy while it sends, a window,
//! pieces cut at any byte, resets, and partitions in which bytes wait. Decides when what arrives; `world.rs` carries
//! it there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use clearskies_core::ids::ConnId;
use clearskies_core::time::Instant;

use super::rng::Rng;

/// How the network behaves.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// How long a byte is under way, at least.
    pub latency: Duration,
    /// How much longer it may take.
    pub jitter: Duration,
    /// Bytes a second of each direction of each connection.
    pub bytes_per_second: u64,
    /// Bytes of a direction that may be on their way or unread.
    pub window_bytes: usize,
    /// The largest piece in which bytes are taken and handed over; pieces are cut at random up to it.
    pub piece_bytes_max: usize,
    /// How many arrivals in a million reset their connection instead.
    pub resets_per_million: u32,
    /// How many datagrams in a thousand are lost.
    pub datagrams_lost_per_mille: u32,
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions {
            latency: Duration::from_millis(5),
            jitter: Duration::from_millis(3),
            bytes_per_second: 20_000_000,
            window_bytes: 256 * 1024,
            piece_bytes_max: 32 * 1024,
            resets_per_million: 0,
            datagrams_lost_per_mille: 0,
        }
    }
}

impl Conditions {
    /// A line that is slow, far, and cut now and then.
    pub fn lossy() -> Conditions {
        Conditions {
            latency: Duration::from_millis(40),
            jitter: Duration::from_millis(80),
            bytes_per_second: 2_000_000,
            window_bytes: 64 * 1024,
            piece_bytes_max: 3000,
            resets_per_million: 3000,
            datagrams_lost_per_mille: 300,
        }
    }
}

/// A connection between two machines.
pub type LinkId = u64;

/// What travels.
#[derive(Clone, Debug)]
pub enum Cargo {
    /// Bytes.
    Bytes(Vec<u8>),
    /// The end of the stream.
    End,
}

/// One machine's end of a connection.
#[derive(Debug)]
pub struct End {
    /// The machine.
    pub node: usize,
    /// What its engine calls the connection.
    pub conn: ConnId,
    /// False once its engine is done with the name.
    pub open: bool,
    /// Whether its engine takes bytes.
    pub reading: bool,
    /// Whether its engine may have bytes to send.
    pub writing: bool,
    /// Bytes that arrived and were not taken yet.
    pub inbox: VecDeque<u8>,
    /// Whether the end of the stream follows the inbox.
    pub ended: bool,
    /// What arrives while the two machines cannot reach each other.
    pub held: VecDeque<Cargo>,
    /// Bytes that this end sent and the other's engine has not taken.
    pub unread: usize,
    line_free: Instant,
    last_arrival: Instant,
}

impl End {
    fn new(node: usize, conn: ConnId) -> End {
        End {
            node,
            conn,
            open: true,
            reading: true,
            writing: true,
            inbox: VecDeque::new(),
            ended: false,
            held: VecDeque::new(),
            unread: 0,
            line_free: Instant(0),
            last_arrival: Instant(0),
        }
    }

    /// Takes the first bytes of the inbox.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let (front, back) = self.inbox.as_slices();
        let whole = count.min(front.len());
        let bytes = [&front[..whole], &back[..count - whole]].concat();
        self.inbox.drain(..count);
        bytes
    }
}

/// All connections, and who can reach whom.
#[derive(Debug)]
pub struct Net {
    /// How it behaves from now on.
    pub conditions: Conditions,
    rng: Rng,
    links: BTreeMap<LinkId, [End; 2]>,
    next: LinkId,
    /// Pairs of machines that do not reach each other; the first is the one that sends.
    blocked: BTreeSet<(usize, usize)>,
    /// Bytes of streams that were sent, since the start.
    pub bytes_sent: u64,
}

impl Net {
    /// A network without connections.
    pub fn new(rng: Rng) -> Net {
        Net {
            conditions: Conditions::default(),
            rng,
            links: BTreeMap::new(),
            next: 0,
            blocked: BTreeSet::new(),
            bytes_sent: 0,
        }
    }

    /// Joins two machines; the first has dialled.
    pub fn connect(&mut self, dialer: (usize, ConnId), acceptor: (usize, ConnId)) -> LinkId {
        self.next += 1;
        self.links.insert(self.next, [End::new(dialer.0, dialer.1), End::new(acceptor.0, acceptor.1)]);
        self.next
    }

    /// One end of a connection.
    pub fn end(&mut self, link: LinkId, side: usize) -> Option<&mut End> {
        self.links.get_mut(&link)?.get_mut(side)
    }

    /// Forgets a connection that both ends are done with.
    pub fn sweep(&mut self, link: LinkId) {
        if self.links.get(&link).is_some_and(|ends| ends.iter().all(|end| !end.open)) {
            self.links.remove(&link);
        }
    }

    /// The connections that are there.
    pub fn links(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }

    /// Cuts one direction between two machines.
    pub fn block(&mut self, from: usize, to: usize) {
        self.blocked.insert((from, to));
    }

    /// Mends everything that was cut.
    pub fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    /// Whether bytes get from one machine to another.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to))
    }

    /// Whether two machines can open connections to each other.
    pub fn joined(&self, a: usize, b: usize) -> bool {
        self.reaches(a, b) && self.reaches(b, a)
    }

    /// How long one packet is under way.
    pub fn delay(&mut self) -> Duration {
        let jitter = u64::try_from(self.conditions.jitter.as_nanos()).unwrap_or(u64::MAX);
        self.conditions.latency + Duration::from_nanos(self.rng.below(jitter))
    }

    /// When something that is sent now arrives, on a line that keeps its order.
    pub fn arrival(&mut self, link: LinkId, from_side: usize, now: Instant, len: usize) -> Instant {
        let delay = self.delay();
        let busy_ns = len as u64 * 1_000_000_000 / self.conditions.bytes_per_second.max(1);
        self.bytes_sent += len as u64;
        let Some(end) = self.end(link, from_side) else { return now };
        end.line_free = end.line_free.max(now).plus(Duration::from_nanos(busy_ns));
        end.last_arrival = end.line_free.plus(delay).max(end.last_arrival);
        end.last_arrival
    }

    /// Whether this arrival is a reset instead.
    pub fn resets(&mut self) -> bool {
        self.rng.below(1_000_000) < u64::from(self.conditions.resets_per_million)
    }

    /// Whether this datagram is lost.
    pub fn loses_datagram(&mut self) -> bool {
        self.rng.per_mille(self.conditions.datagrams_lost_per_mille)
    }

    /// How many of `len` bytes go in one piece: one at least.
    pub fn piece(&mut self, len: usize) -> usize {
        let max = len.min(self.conditions.piece_bytes_max).max(1) as u64;
        // Mostly whole, and often enough cut anywhere, or into tiny pieces.
        let max = match self.rng.below(16) {
            0 => max.min(16),
            1..=3 => max,
            _ => return usize::try_from(max).unwrap_or(1),
        };
        usize::try_from(1 + self.rng.below(max)).unwrap_or(1)
    }
}
