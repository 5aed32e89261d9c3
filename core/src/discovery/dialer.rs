//! The address book of each club, and when to try which address (protocol §11). It opens nothing: the engine dials what
//! [`Dialer::poll_dial`] gives and says how it ended.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::discovery::network::{Networks, is_dialable};
use crate::ids::{PeerId, RootId};
use crate::rng::Rng;
use crate::time::Instant;

/// The most addresses of one proven peer.
pub const ADDRESSES_PER_PEER_MAX: usize = 16;
/// The most proven peers of a club; also the most addresses of which no peer is known yet.
pub const PEERS_PER_CLUB_MAX: usize = 64;
/// The most attempts in a minute for one club at addresses that somebody named and nobody proved or gave us: whoever
/// names them has no more of the network than this.
pub const ATTEMPTS_PER_MINUTE: usize = 10;
/// The most dials in all that have not ended in an authenticated link or a failure.
pub const HALF_OPEN_MAX: usize = 64;
/// The wait after a first failure; it doubles with each further one.
pub const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(5 * 60);
/// A link that lasted so long shows that its address is good.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);
/// A hint from the LAN starts an address anew at most this often: anybody on the network can repeat one.
pub const HINT_GAP: Duration = Duration::from_secs(10);

const MINUTE: Duration = Duration::from_secs(60);
/// Failures after which the wait is about a minute: where somebody answers who is no member, haste is of no use.
const FAILURES_AFTER_REFUSAL: u32 = 7;
/// Failures after which the wait is the longest: where this node answers itself.
const FAILURES_OF_OWN: u32 = 10;
/// Jitter is a number up to this.
const JITTER_MAX: u64 = 1023;
const STORE_VERSION: u8 = 1;
/// Bytes of an address in the store: flags, IPv6 or mapped IPv4, port, peer.
const STORED_LEN: usize = 1 + 16 + 2 + PeerId::LEN;
const FLAG_PEER: u8 = 4;
const REMEMBERED_MAX: usize = (ADDRESSES_PER_PEER_MAX + 1) * PEERS_PER_CLUB_MAX;

/// Who named an address. Later ones are kept rather than earlier ones where there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A datagram on the local network.
    Lan,
    /// A link in an earlier run.
    Remembered,
    /// The link by which the club was joined.
    Invitation,
    /// The user.
    Manual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Dialling,
    Connected { since: Instant },
}

#[derive(Debug)]
struct Entry {
    source: Source,
    /// The peer that was proven there last.
    peer: Option<PeerId>,
    state: State,
    failures: u32,
    /// When it is due, once idle.
    next: Instant,
    /// Its key in the club's queue, while it is in it.
    queued: Option<Instant>,
    last_attempt: Option<Instant>,
    jitter: u64,
}

impl Entry {
    /// Waits longer with each failure, up to twice as long as another that failed as often.
    fn back_off(&mut self, now: Instant, failures: u32) {
        self.state = State::Idle;
        self.failures = failures;
        let doubled =
            BACK_OFF_FIRST.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let half = doubled.min(BACK_OFF_MAX) / 2;
        self.next = now.plus(half + half.saturating_mul(self.jitter as u32) / JITTER_MAX as u32);
    }

    fn is_remembered(&self) -> bool {
        self.peer.is_some() || self.source >= Source::Invitation
    }
}

#[derive(Debug, Default)]
struct ClubBook {
    entries: BTreeMap<SocketAddr, Entry>,
    /// Idle addresses that may be dialled, where a peer was proven or that the user gave, by when they are due.
    known: BTreeSet<(Instant, SocketAddr)>,
    /// As `known`, of the other addresses.
    hinted: BTreeSet<(Instant, SocketAddr)>,
    /// The attempts of the last minute at addresses that were hints.
    attempts: VecDeque<Instant>,
    /// Peers that are connected, and over how many links.
    linked: BTreeMap<PeerId, u32>,
    /// Proven peers by when they were connected last.
    met: BTreeMap<PeerId, Instant>,
}

impl ClubBook {
    /// Puts an address into the queue, or takes it out, as its state asks.
    fn requeue(&mut self, addr: SocketAddr, networks: &Networks) {
        let Some(entry) = self.entries.get_mut(&addr) else {
            return;
        };
        if let Some(at) = entry.queued.take() {
            self.known.remove(&(at, addr));
            self.hinted.remove(&(at, addr));
        }
        let linked = entry.peer.is_some_and(|peer| self.linked.contains_key(&peer));
        let allowed = entry.source >= Source::Invitation || networks.allow_hint(addr);
        if entry.state == State::Idle && !linked && allowed {
            entry.queued = Some(entry.next);
            let queue = if entry.is_remembered() { &mut self.known } else { &mut self.hinted };
            queue.insert((entry.next, addr));
        }
    }

    fn requeue_peer(&mut self, peer: PeerId, networks: &Networks) {
        let theirs = self.entries.iter().filter(|(_, entry)| entry.peer == Some(peer));
        let theirs: Vec<SocketAddr> = theirs.map(|(addr, _)| *addr).collect();
        theirs.into_iter().for_each(|addr| self.requeue(addr, networks));
    }

    fn remove(&mut self, addr: SocketAddr) -> Option<Entry> {
        let entry = self.entries.remove(&addr)?;
        if let Some(at) = entry.queued {
            self.known.remove(&(at, addr));
            self.hinted.remove(&(at, addr));
        }
        Some(entry)
    }

    /// When the next attempt may be made and where, if any address waits for one.
    fn due(&self) -> Option<(Instant, SocketAddr)> {
        let window = self.attempts.len().checked_sub(ATTEMPTS_PER_MINUTE);
        let free = window.and_then(|place| self.attempts.get(place)).map(|attempt| attempt.plus(MINUTE));
        let hinted = self.hinted.first().map(|(at, addr)| ((*at).max(free.unwrap_or_default()), *addr));
        self.known.first().copied().into_iter().chain(hinted).min()
    }

    /// Makes room among the addresses of `peer` (`None`: of peers unknown). False if all that are there matter more
    /// than one from `source`.
    fn make_room(&mut self, peer: Option<PeerId>, limit: usize, source: Source) -> bool {
        let group = self.entries.iter().filter(|(_, entry)| entry.peer == peer);
        if group.clone().count() < limit {
            return true;
        }
        let idle = group.filter(|(_, entry)| entry.state == State::Idle && entry.source <= source);
        let least = idle.min_by_key(|(_, entry)| (entry.source, u32::MAX - entry.failures));
        let least = least.map(|(addr, _)| *addr);
        least.is_some_and(|addr| self.remove(addr).is_some())
    }

    /// Forgets the peer that was not met for the longest time, where there are too many. What the user gave stays.
    fn keep_peers_bounded(&mut self) {
        while self.met.len() > PEERS_PER_CLUB_MAX {
            let away = self.met.iter().filter(|(peer, _)| !self.linked.contains_key(peer));
            let Some((oldest, _)) = away.min_by_key(|(_, met)| **met) else {
                return;
            };
            let oldest = *oldest;
            self.met.remove(&oldest);
            let gone = self.entries.iter().filter(|(_, entry)| entry.peer == Some(oldest));
            let gone: Vec<SocketAddr> =
                gone.filter(|(_, entry)| entry.state == State::Idle).map(|(addr, _)| *addr).collect();
            for addr in gone {
                self.remove(addr);
            }
        }
    }
}

/// All address books.
#[derive(Debug, Default)]
pub struct Dialer {
    clubs: BTreeMap<RootId, ClubBook>,
    networks: Networks,
    half_open: usize,
    /// Clubs whose remembered addresses changed.
    changed: BTreeSet<RootId>,
    /// Clubs whose addresses could not be stored, and when that is tried again.
    unstored: BTreeMap<RootId, Instant>,
}

impl Dialer {
    /// Adds an address, or starts a known one anew. False if it is of no use or there is no room. Addresses from the
    /// LAN and remembered ones are dialled only where the networks allow it (see [`Dialer::set_networks`]).
    pub fn add(&mut self, club: RootId, addr: SocketAddr, source: Source, now: Instant) -> bool {
        let addr = canonical(addr);
        if !is_dialable(addr) || (source == Source::Lan && !self.networks.allow_hint(addr)) {
            return false;
        }
        let book = self.clubs.entry(club).or_default();
        if let Some(entry) = book.entries.get_mut(&addr) {
            if source > entry.source {
                entry.source = source;
                self.changed.insert(club);
            }
            let next = match (source, entry.last_attempt) {
                (Source::Remembered, _) => None,
                (Source::Lan, Some(last)) if now < last.plus(HINT_GAP) => None,
                (Source::Lan, _) => Some(now),
                // The user waits: before all others that are due.
                (Source::Invitation | Source::Manual, _) => Some(Instant::default()),
            };
            if let (State::Idle, Some(next)) = (entry.state, next) {
                entry.failures = 0;
                entry.next = next.min(entry.next);
            }
            book.requeue(addr, &self.networks);
            return true;
        }
        if !book.make_room(None, PEERS_PER_CLUB_MAX, source) {
            return false;
        }
        let next = if source >= Source::Invitation { Instant::default() } else { now };
        let entry = Entry {
            source,
            peer: None,
            state: State::Idle,
            failures: 0,
            next,
            queued: None,
            last_attempt: None,
            jitter: 0,
        };
        if entry.is_remembered() {
            self.changed.insert(club);
        }
        book.entries.insert(addr, entry);
        book.requeue(addr, &self.networks);
        true
    }

    /// The next address to dial. The caller then says exactly one of [`Dialer::connected`], [`Dialer::failed`],
    /// [`Dialer::refused_auth`], [`Dialer::reached_self`] and [`Dialer::forget`].
    pub fn poll_dial(&mut self, now: Instant, rng: &mut Rng) -> Option<(RootId, SocketAddr)> {
        if self.half_open >= HALF_OPEN_MAX {
            return None;
        }
        let next = self.clubs.iter().filter_map(|(club, book)| Some((book.due()?, *club)));
        let ((due, addr), club) = next.min_by_key(|((due, _), club)| (*due, *club))?;
        if due > now {
            return None;
        }
        let book = self.clubs.get_mut(&club)?;
        let entry = book.entries.get_mut(&addr)?;
        entry.state = State::Dialling;
        entry.last_attempt = Some(now);
        entry.jitter = rng.below(JITTER_MAX + 1);
        if !entry.is_remembered() {
            book.attempts.push_back(now);
            if book.attempts.len() > ATTEMPTS_PER_MINUTE {
                book.attempts.pop_front();
            }
        }
        book.requeue(addr, &self.networks);
        self.half_open += 1;
        Some((club, addr))
    }

    /// When [`Dialer::poll_dial`] or [`Dialer::poll_changed`] will give something; `None` while it waits for other
    /// dials to end, or for ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.half_open >= HALF_OPEN_MAX {
            return None;
        }
        self.clubs
            .values()
            .filter_map(ClubBook::due)
            .map(|(due, _)| due)
            .chain(self.unstored.values().copied())
            .min()
    }

    /// A dial ended in an authenticated link with `peer`. It is not dialled again while a link with it lasts.
    pub fn connected(&mut self, club: RootId, addr: SocketAddr, peer: PeerId, now: Instant) {
        let addr = canonical(addr);
        let Some(book) = self.clubs.get_mut(&club) else {
            return;
        };
        if let Some(entry) = book.entries.get(&addr) {
            let (source, old, state) = (entry.source, entry.peer, entry.state);
            self.half_open -= usize::from(state == State::Dialling);
            if old != Some(peer) {
                // Its group has room for it, or something less useful goes; a link is the best of reasons.
                book.make_room(Some(peer), ADDRESSES_PER_PEER_MAX, source.max(Source::Remembered));
                self.changed.insert(club);
            }
        }
        if let Some(entry) = book.entries.get_mut(&addr) {
            entry.peer = Some(peer);
            entry.state = State::Connected { since: now };
        }
        self.link(club, peer, now);
    }

    /// A peer came to us and is authenticated.
    pub fn accepted(&mut self, club: RootId, peer: PeerId, now: Instant) {
        self.clubs.entry(club).or_default();
        self.link(club, peer, now);
    }

    fn link(&mut self, club: RootId, peer: PeerId, now: Instant) {
        let Some(book) = self.clubs.get_mut(&club) else {
            return;
        };
        *book.linked.entry(peer).or_default() += 1;
        if book.entries.values().any(|entry| entry.peer == Some(peer)) {
            book.met.insert(peer, now);
        }
        book.keep_peers_bounded();
        book.requeue_peer(peer, &self.networks);
    }

    /// A link with `peer` is gone. `addr` is where we dialled it; `None` if it came to us.
    pub fn closed(&mut self, club: RootId, addr: Option<SocketAddr>, peer: PeerId, now: Instant) {
        let Some(book) = self.clubs.get_mut(&club) else {
            return;
        };
        if let Some(entry) = addr.and_then(|addr| book.entries.get_mut(&canonical(addr)))
            && let State::Connected { since } = entry.state
        {
            let stable = now.since(since) >= STABLE_AFTER;
            let failures = if stable { 0 } else { entry.failures.saturating_add(1) };
            entry.back_off(now, failures);
        }
        if let Some(links) = book.linked.get_mut(&peer) {
            *links -= 1;
            if *links == 0 {
                book.linked.remove(&peer);
            }
        }
        book.requeue_peer(peer, &self.networks);
    }

    /// Whoever was proven at an address is no member after all: the address is nobody's again.
    pub fn disown(&mut self, club: RootId, addr: SocketAddr, peer: PeerId) {
        let addr = canonical(addr);
        let Some(book) = self.clubs.get_mut(&club) else {
            return;
        };
        let Some(entry) = book.entries.get_mut(&addr).filter(|entry| entry.peer == Some(peer)) else {
            return;
        };
        entry.peer = None;
        if book.entries.values().all(|entry| entry.peer != Some(peer)) {
            book.met.remove(&peer);
        }
        self.changed.insert(club);
        book.requeue(addr, &self.networks);
    }

    /// A dial failed, or its connection ended before it was authenticated.
    pub fn failed(&mut self, club: RootId, addr: SocketAddr, now: Instant) {
        self.end_dial(club, addr, now, 0);
    }

    /// Somebody answered a dial and is no member, or does not take us for one.
    pub fn refused_auth(&mut self, club: RootId, addr: SocketAddr, now: Instant) {
        self.end_dial(club, addr, now, FAILURES_AFTER_REFUSAL);
    }

    fn end_dial(&mut self, club: RootId, addr: SocketAddr, now: Instant, failures_min: u32) {
        let addr = canonical(addr);
        let Some(book) = self.clubs.get_mut(&club) else {
            return;
        };
        let Some(entry) = book.entries.get_mut(&addr).filter(|entry| entry.state == State::Dialling) else {
            return;
        };
        self.half_open -= 1;
        let failures = entry.failures.saturating_add(1).max(failures_min);
        entry.back_off(now, failures);
        book.requeue(addr, &self.networks);
    }

    /// A dial reached this very node. An address where a peer was is kept: it is ours only for now, and perhaps the
    /// only one by which that peer is ever found again.
    pub fn reached_self(&mut self, club: RootId, addr: SocketAddr, now: Instant) {
        let book = self.clubs.get(&club);
        let entry = book.and_then(|book| book.entries.get(&canonical(addr)));
        if entry.is_some_and(Entry::is_remembered) {
            self.end_dial(club, addr, now, FAILURES_OF_OWN);
        } else {
            self.forget(club, addr);
        }
    }

    /// Drops an address, in whatever state: the user took it back, or it turned out to be our own.
    pub fn forget(&mut self, club: RootId, addr: SocketAddr) {
        let removed = self.clubs.get_mut(&club).and_then(|book| book.remove(canonical(addr)));
        if let Some(entry) = removed {
            self.half_open -= usize::from(entry.state == State::Dialling);
            self.changed.insert(club);
        }
    }

    /// Drops a club; how its dials end need not be told.
    pub fn remove(&mut self, club: RootId) {
        if let Some(book) = self.clubs.remove(&club) {
            let dialling = book.entries.values().filter(|entry| entry.state == State::Dialling);
            self.half_open -= dialling.count();
        }
        self.changed.remove(&club);
        self.unstored.remove(&club);
    }

    /// Starts every address anew: the network changed, or the user resumed.
    pub fn reset(&mut self, now: Instant) {
        for book in self.clubs.values_mut() {
            let addrs: Vec<SocketAddr> = book.entries.keys().copied().collect();
            for addr in addrs {
                if let Some(entry) = book.entries.get_mut(&addr).filter(|entry| entry.state == State::Idle) {
                    entry.failures = 0;
                    entry.next = entry.next.min(now);
                }
                book.requeue(addr, &self.networks);
            }
        }
    }

    /// Sets the networks that this machine is in. Until the first call no private address is dialled but those that the
    /// user or a link named.
    pub fn set_networks(&mut self, networks: Networks, now: Instant) {
        if networks != self.networks {
            self.networks = networks;
            self.reset(now);
        }
    }

    /// Whether a link with `peer` lasts.
    pub fn is_connected(&self, club: RootId, peer: PeerId) -> bool {
        self.clubs.get(&club).is_some_and(|book| book.linked.contains_key(&peer))
    }

    /// Every address of a club with who named it and the peer that was proven there.
    pub fn addresses(&self, club: RootId) -> impl Iterator<Item = (SocketAddr, Source, Option<PeerId>)> {
        let entries = self.clubs.get(&club).into_iter().flat_map(|book| &book.entries);
        entries.map(|(addr, entry)| (*addr, entry.source, entry.peer))
    }

    /// Dials that have not ended.
    pub fn half_open(&self) -> usize {
        self.half_open
    }

    /// A club whose remembered addresses are to be stored again.
    pub fn poll_changed(&mut self, now: Instant) -> Option<RootId> {
        let due = self.unstored.iter().find(|(_, at)| **at <= now).map(|(club, _)| *club);
        let club = self.changed.pop_first().or(due)?;
        self.unstored.remove(&club);
        Some(club)
    }

    /// A club's addresses could not be stored: they are to be stored again at this time, if not before.
    pub fn not_stored(&mut self, club: RootId, again_at: Instant) {
        self.unstored.insert(club, again_at);
    }

    /// What the store keeps of a club: addresses that the user or a link named, and those where a peer was proven. One
    /// inside this machine that nobody named is found anew: the next run may be on another machine.
    pub fn encode(&self, club: RootId) -> Vec<u8> {
        let mut out = Vec::from([STORE_VERSION]);
        let entries = self.clubs.get(&club).into_iter().flat_map(|book| &book.entries);
        let lasting = |addr: &SocketAddr, entry: &Entry| {
            !is_scoped(addr) && (entry.source >= Source::Invitation || !addr.ip().is_loopback())
        };
        for (addr, entry) in entries.filter(|(addr, entry)| entry.is_remembered() && lasting(addr, entry)) {
            let ip = match addr.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let source = match entry.source {
                Source::Lan | Source::Remembered => 0,
                Source::Invitation => 1,
                Source::Manual => 2,
            };
            out.push(source | entry.peer.map_or(0, |_| FLAG_PEER));
            out.extend_from_slice(&ip.octets());
            out.extend_from_slice(&addr.port().to_be_bytes());
            out.extend_from_slice(&entry.peer.map_or([0; PeerId::LEN], |peer| peer.0));
        }
        out
    }

    /// Adds what [`Dialer::encode`] wrote; false, and nothing added, if it is damaged.
    pub fn decode(&mut self, club: RootId, bytes: &[u8], now: Instant) -> bool {
        let Some((&STORE_VERSION, rest)) = bytes.split_first() else {
            return false;
        };
        let stored = rest.chunks_exact(STORED_LEN);
        if !stored.remainder().is_empty() || stored.len() > REMEMBERED_MAX {
            return false;
        }
        let Some(entries) = stored.map(decode_entry).collect::<Option<Vec<_>>>() else {
            return false;
        };
        for (addr, source, peer) in entries {
            self.restore(club, addr, source, peer, now);
        }
        self.changed.remove(&club);
        true
    }

    fn restore(
        &mut self,
        club: RootId,
        addr: SocketAddr,
        source: Source,
        peer: Option<PeerId>,
        now: Instant,
    ) {
        let addr = canonical(addr);
        if !self.add(club, addr, source, now) {
            return;
        }
        let (Some(peer), Some(book)) = (peer, self.clubs.get_mut(&club)) else {
            return;
        };
        if !book.make_room(Some(peer), ADDRESSES_PER_PEER_MAX, source) {
            return;
        }
        if let Some(entry) = book.entries.get_mut(&addr) {
            entry.peer = Some(peer);
            book.met.entry(peer).or_default();
        }
        book.requeue(addr, &self.networks);
        book.keep_peers_bounded();
    }
}

fn decode_entry(bytes: &[u8]) -> Option<(SocketAddr, Source, Option<PeerId>)> {
    let (flags, rest) = bytes.split_first()?;
    let (ip, rest) = rest.split_first_chunk::<16>()?;
    let (port, peer) = rest.split_first_chunk::<2>()?;
    let source = match flags & !FLAG_PEER {
        0 => Source::Remembered,
        1 => Source::Invitation,
        2 => Source::Manual,
        _ => return None,
    };
    let addr = SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port));
    let peer = PeerId::from_slice(peer)?;
    Some((addr, source, (flags & FLAG_PEER != 0).then_some(peer)))
}

/// One form for each address: no mapped IPv4, no flow label.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match (addr, addr.ip().to_canonical()) {
        (SocketAddr::V6(mut v6), IpAddr::V6(_)) => {
            v6.set_flowinfo(0);
            SocketAddr::V6(v6)
        }
        (_, ip) => SocketAddr::new(ip, addr.port()),
    }
}

/// Whether an address means something only until the interfaces are numbered anew.
fn is_scoped(addr: &SocketAddr) -> bool {
    matches!(addr, SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.ip().is_unicast_link_local())
}

#[cfg(test)]
mod tests;
