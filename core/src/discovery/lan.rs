//! Discovery on the local network by datagrams (protocol §11): who announces what and when, and which datagrams name a
//! peer that is worth a dial. An ID or peer ID never appears in one; only its source address is ever dialled.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use data_encoding::HEXLOWER;
use serde::Deserialize;

use crate::club::identity::{sha256, sha256_prefix};
use crate::discovery::network::Networks;
use crate::ids::{PeerId, RootId};
use crate::time::{Instant, NANOS_PER_SECOND, Now, WallTime};
use crate::wire::keys::Object;

/// The port that every node listens on.
pub const LAN_PORT: u16 = 60106;
/// Where announcements go on IPv4.
pub const BROADCAST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), LAN_PORT);
/// Where announcements go on IPv6: all nodes of the link.
pub const MULTICAST: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1)), LAN_PORT);
/// The longest datagram.
pub const DATAGRAM_BYTES_MAX: usize = 512;
/// The most IDs that are announced; those beyond are not.
pub const LAN_IDS_MAX: usize = 512;
/// The most announcements in answer to strangers in one second.
pub const ANSWERS_PER_SECOND: usize = 10;
/// The most strangers that are remembered; beyond it the one heard first is forgotten.
pub const STRANGERS_MAX: usize = 1024;
/// The time between announcements at first; it doubles while nothing changes.
pub const INTERVAL_FIRST: Duration = Duration::from_secs(60);
/// The longest time between announcements.
pub const INTERVAL_MAX: Duration = Duration::from_secs(10 * 60);

const NAME: &str = "ClearSkiesBroadcast";
const VERSION: u64 = 1;
const DAY_NANOS: i64 = 24 * 60 * 60 * NANOS_PER_SECOND;
/// Within this of midnight the neighbouring day's ids are announced too.
const NEIGHBOUR_NANOS: i64 = 2 * 60 * 60 * NANOS_PER_SECOND;

/// An ID of one day, as strangers see it.
pub type RendezvousId = [u8; 32];
/// A peer under an ID of one day, as strangers see it.
pub type RendezvousPeer = [u8; 16];

/// UTC days since 1970; a clock outside what fits counts as the nearest day that does.
pub fn day(wall: WallTime) -> u32 {
    u32::try_from(wall.0.max(0) / DAY_NANOS).unwrap_or(u32::MAX)
}

/// Today and, within two hours of midnight, the neighbouring day.
pub fn announced_days(wall: WallTime) -> (u32, Option<u32>) {
    let today = day(wall);
    let of_day = wall.0.max(0) % DAY_NANOS;
    let neighbour = if of_day < NEIGHBOUR_NANOS {
        today.checked_sub(1)
    } else if of_day >= DAY_NANOS - NEIGHBOUR_NANOS {
        today.checked_add(1)
    } else {
        None
    };
    (today, neighbour)
}

/// SHA-256("clearskies rendezvous" ‖ ID ‖ day).
pub fn rendezvous_id(id: &[u8; 32], day: u32) -> RendezvousId {
    sha256(&[b"clearskies rendezvous", id, &day.to_be_bytes()])
}

/// First 16 bytes of SHA-256("clearskies rendezvous peer" ‖ ID ‖ peer ID ‖ day).
pub fn rendezvous_peer(id: &[u8; 32], peer: PeerId, day: u32) -> RendezvousPeer {
    sha256_prefix(&[b"clearskies rendezvous peer", id, &peer.0, &day.to_be_bytes()])
}

/// One announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The ID of the day.
    pub id: RendezvousId,
    /// The announcing peer under it.
    pub peer: RendezvousPeer,
    /// The TCP port that it listens on.
    pub port: u16,
}

#[derive(Deserialize)]
struct RawAnnouncement<'a> {
    #[serde(borrow)]
    name: &'a str,
    version: u64,
    id: &'a str,
    peer: &'a str,
    myport: u16,
}

impl Announcement {
    /// Reads a datagram; `None` for anything that is not exactly of this form.
    pub fn parse(bytes: &[u8]) -> Option<Announcement> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return None;
        }
        let Object(raw): Object<RawAnnouncement<'_>> = serde_json::from_slice(bytes).ok()?;
        if raw.name != NAME || raw.version != VERSION || raw.myport == 0 {
            return None;
        }
        let id = HEXLOWER.decode(raw.id.as_bytes()).ok()?.try_into().ok()?;
        let peer = HEXLOWER.decode(raw.peer.as_bytes()).ok()?.try_into().ok()?;
        Some(Announcement { id, peer, port: raw.myport })
    }

    /// The datagram.
    pub fn to_bytes(&self) -> Vec<u8> {
        alloc::format!(
            "{{\"name\":\"{NAME}\",\"version\":{VERSION},\"id\":\"{}\",\"peer\":\"{}\",\"myport\":{}}}",
            HEXLOWER.encode(&self.id),
            HEXLOWER.encode(&self.peer),
            self.port
        )
        .into_bytes()
    }
}

/// An ID that this node looks for peers with: a key ID or an access ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LanId {
    /// The club.
    pub club: RootId,
    /// The ID.
    pub id: [u8; 32],
    /// This node's peer ID in that club.
    pub peer: PeerId,
}

impl fmt::Debug for LanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LanId({:?}, ..)", self.club)
    }
}

/// A peer that announced one of our IDs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LanHint {
    /// The club.
    pub club: RootId,
    /// The ID that both have.
    pub id: [u8; 32],
    /// Where to dial: the datagram's source with the announced port.
    pub addr: SocketAddr,
    /// The peer's name for the day.
    pub peer: RendezvousPeer,
}

impl fmt::Debug for LanHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LanHint({:?}, {})", self.club, self.addr)
    }
}

/// The state of LAN discovery.
pub struct Lan {
    port: u16,
    networks: Networks,
    ids: Vec<LanId>,
    /// The rendezvous ids of the days around `table_day`, with our own names under them.
    table: BTreeMap<RendezvousId, (usize, RendezvousPeer)>,
    table_day: u32,
    /// Who was heard, and when first.
    strangers: BTreeMap<(RendezvousPeer, IpAddr), Instant>,
    /// Places in `ids` that are to be announced.
    pending: BTreeSet<usize>,
    /// Datagrams that are made, the next one last.
    ready: Vec<(SocketAddr, Vec<u8>)>,
    answers: AnswerLimit,
    interval: Duration,
    next: Option<Instant>,
}

/// How many strangers were answered in the running second.
#[derive(Default)]
struct AnswerLimit {
    since: Instant,
    count: usize,
}

impl AnswerLimit {
    fn take(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = AnswerLimit { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= ANSWERS_PER_SECOND
    }
}

impl Lan {
    /// Starts with no ID and no network. `port` is where this node listens for connections; 0 if it does not.
    pub fn new(port: u16) -> Lan {
        Lan {
            port,
            networks: Networks::default(),
            ids: Vec::new(),
            table: BTreeMap::new(),
            table_day: 0,
            strangers: BTreeMap::new(),
            pending: BTreeSet::new(),
            ready: Vec::new(),
            answers: AnswerLimit::default(),
            interval: INTERVAL_FIRST,
            next: None,
        }
    }

    /// Sets the IDs to announce and to listen for; new ones are announced at once. At most [`LAN_IDS_MAX`].
    pub fn set_ids(&mut self, now: Now, ids: impl IntoIterator<Item = LanId>) {
        let mut ids: Vec<LanId> = ids.into_iter().take(LAN_IDS_MAX).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids == self.ids {
            return;
        }
        let old = core::mem::replace(&mut self.ids, ids);
        let waited: Vec<LanId> = self.pending.iter().filter_map(|place| old.get(*place)).copied().collect();
        let fresh = |id: &LanId| old.binary_search(id).is_err() || waited.contains(id);
        self.pending = (0..self.ids.len()).filter(|place| fresh(&self.ids[*place])).collect();
        self.build_table(now.wall);
        self.begin_again(now.mono);
    }

    /// Sets the networks that this machine is in; everything is announced at once where they changed.
    pub fn set_networks(&mut self, now: Now, networks: Networks) {
        if networks == self.networks {
            return;
        }
        self.networks = networks;
        self.strangers.clear();
        self.pending = (0..self.ids.len()).collect();
        self.begin_again(now.mono);
    }

    fn begin_again(&mut self, now: Instant) {
        self.interval = INTERVAL_FIRST;
        self.next = (!self.ids.is_empty()).then(|| now.plus(INTERVAL_FIRST));
    }

    /// Time has passed; early calls do nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.next.is_some_and(|next| next <= now.mono) {
            self.pending = (0..self.ids.len()).collect();
            self.interval = (self.interval * 2).min(INTERVAL_MAX);
            self.next = Some(now.mono.plus(self.interval));
        }
    }

    /// When [`Lan::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Takes a datagram. Gives a hint if a member of one of our clubs sent it from an attached network.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) -> Option<LanHint> {
        if !self.networks.contain(from.ip()) {
            return None;
        }
        let heard = Announcement::parse(bytes)?;
        self.keep_table(now.wall);
        let (place, own) = *self.table.get(&heard.id)?;
        let addr = self.dialled_at(from, heard.port);
        if heard.peer == own || !self.networks.allow_hint(addr) {
            return None;
        }
        if self.meet(heard.peer, addr.ip(), now.mono) && self.answers.take(now.mono) {
            self.pending.insert(place);
        }
        let LanId { club, id, .. } = *self.ids.get(place)?;
        Some(LanHint { club, id, addr, peer: heard.peer })
    }

    /// Where the sender of a datagram is dialled. One on this machine is heard on every network that it has; the way
    /// inside is one for all of them, and no change of networks cuts it.
    fn dialled_at(&self, from: SocketAddr, port: u16) -> SocketAddr {
        if self.networks.is_here(from.ip()) {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
        } else {
            with_port(from, port)
        }
    }

    /// Whether this is a stranger's first datagram.
    fn meet(&mut self, peer: RendezvousPeer, ip: IpAddr, now: Instant) -> bool {
        if self.strangers.contains_key(&(peer, ip)) {
            return false;
        }
        if self.strangers.len() >= STRANGERS_MAX {
            let first = self.strangers.iter().min_by_key(|(_, heard)| **heard).map(|(key, _)| *key);
            first.and_then(|key| self.strangers.remove(&key));
        }
        self.strangers.insert((peer, ip), now);
        true
    }

    /// The next datagram to send.
    pub fn poll_datagram(&mut self, now: Now) -> Option<(SocketAddr, Vec<u8>)> {
        while self.ready.is_empty() {
            let place = self.pending.pop_first()?;
            self.announce(place, now.wall);
        }
        self.ready.pop()
    }

    fn announce(&mut self, place: usize, wall: WallTime) {
        let Some(LanId { id, peer, .. }) = self.ids.get(place).copied() else {
            return;
        };
        // Who does not listen cannot be dialled, and only listens to the others.
        if self.port == 0 {
            return;
        }
        let (today, neighbour) = announced_days(wall);
        for day in neighbour.into_iter().chain([today]) {
            let announcement = Announcement {
                id: rendezvous_id(&id, day),
                peer: rendezvous_peer(&id, peer, day),
                port: self.port,
            };
            let bytes = announcement.to_bytes();
            if self.networks.have_v6() {
                self.ready.push((MULTICAST, bytes.clone()));
            }
            if self.networks.have_v4() {
                self.ready.push((BROADCAST, bytes));
            }
        }
    }

    fn keep_table(&mut self, wall: WallTime) {
        if day(wall) != self.table_day {
            self.build_table(wall);
        }
    }

    /// Makes the table for today and both neighbours, so that a clock that is some hours off still finds us.
    fn build_table(&mut self, wall: WallTime) {
        self.table.clear();
        self.table_day = day(wall);
        for (place, LanId { id, peer, .. }) in self.ids.iter().enumerate() {
            for day in self.table_day.saturating_sub(1)..=self.table_day.saturating_add(1) {
                self.table.insert(rendezvous_id(id, day), (place, rendezvous_peer(id, *peer, day)));
            }
        }
    }
}

impl fmt::Debug for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lan({} ids, {} strangers)", self.ids.len(), self.strangers.len())
    }
}

/// The source of a datagram with the announced port; keeps the scope of a link-local address.
fn with_port(from: SocketAddr, port: u16) -> SocketAddr {
    match (from, from.ip().to_canonical()) {
        (_, IpAddr::V4(v4)) => SocketAddr::new(IpAddr::V4(v4), port),
        (mut from, IpAddr::V6(_)) => {
            from.set_port(port);
            from
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    const NOON: i64 = 20_000 * DAY_NANOS + DAY_NANOS / 2;
    const ID: [u8; 32] = [0x11; 32];
    const ME: PeerId = PeerId([1; 16]);
    const FRIEND: PeerId = PeerId([2; 16]);

    fn at(seconds: u64) -> Now {
        let wall = WallTime(NOON + seconds as i64 * NANOS_PER_SECOND);
        Now { mono: Instant::default().plus(Duration::from_secs(seconds)), wall }
    }

    fn lan_id(byte: u8) -> LanId {
        LanId { club: RootId(byte.into()), id: [byte; 32], peer: ME }
    }

    fn home() -> Networks {
        Networks::new(&[("192.168.1.5".parse().unwrap(), 24), ("fe80::5".parse().unwrap(), 64)])
    }

    fn lan() -> Lan {
        let mut lan = Lan::new(4000);
        lan.set_networks(at(0), home());
        lan.set_ids(at(0), [lan_id(0x11)]);
        lan
    }

    fn drain(lan: &mut Lan, now: Now) -> Vec<(SocketAddr, Vec<u8>)> {
        core::iter::from_fn(|| lan.poll_datagram(now)).collect()
    }

    fn from_friend(now: Now) -> Vec<u8> {
        let day = day(now.wall);
        Announcement { id: rendezvous_id(&ID, day), peer: rendezvous_peer(&ID, FRIEND, day), port: 4001 }
            .to_bytes()
    }

    #[test]
    fn rendezvous_names_are_known() {
        // By an independent calculation.
        assert_eq!(
            HEXLOWER.encode(&rendezvous_id(&ID, 20_000)),
            "36ebc63a6860557e2fe043aacf51d83b0c11c06249f79f8632f4019a3a2d4ceb"
        );
        assert_eq!(HEXLOWER.encode(&rendezvous_peer(&ID, ME, 20_000)), "c94b0cd32f7d162f35132d66eb51933a");
    }

    #[test]
    fn days_near_midnight() {
        let midnight = 20_000 * DAY_NANOS;
        let two = NEIGHBOUR_NANOS;
        let days = |nanos| announced_days(WallTime(nanos));
        assert_eq!(days(midnight), (20_000, Some(19_999)));
        assert_eq!(days(midnight + two - 1), (20_000, Some(19_999)));
        assert_eq!(days(midnight + two), (20_000, None));
        assert_eq!(days(midnight - two - 1), (19_999, None));
        assert_eq!(days(midnight - two), (19_999, Some(20_000)));
        assert_eq!(days(-5), (0, None));
        assert_eq!(days(i64::MAX).0, day(WallTime(i64::MAX)));
    }

    #[test]
    fn a_datagram_has_one_form() {
        let announcement = Announcement { id: [0xAB; 32], peer: [0xCD; 16], port: 65535 };
        let bytes = announcement.to_bytes();
        assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            format!(
                "{{\"name\":\"ClearSkiesBroadcast\",\"version\":1,\"id\":\"{}\",\"peer\":\"{}\",\"myport\":65535}}",
                "ab".repeat(32),
                "cd".repeat(16)
            )
        );
        assert_eq!(Announcement::parse(text.as_bytes()), Some(announcement));
        for (from, to) in [
            ("Broadcast", "broadcast"),
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":1.0"),
            ("65535", "65536"),
            ("65535", "0"),
            ("65535", "-1"),
            ("65535", "\"1\""),
            ("abab", "ABAB"),
            ("abab", "ab"),
            ("cdcd", "cdcdcd"),
            ("\"version\":1", "\"version\":1,\"version\":1"),
            (",\"myport\":65535", ""),
            ("}", "} x"),
            ("{", "[{"),
        ] {
            let bad = text.replacen(from, to, 1);
            assert_eq!(Announcement::parse(bad.as_bytes()), None, "{bad}");
        }
        let array = format!("[\"{NAME}\",1,\"{}\",\"{}\",1]", "ab".repeat(32), "cd".repeat(16));
        assert!(Announcement::parse(array.as_bytes()).is_none());
        let padded = format!("{text}{}", " ".repeat(DATAGRAM_BYTES_MAX - text.len()));
        assert!(Announcement::parse(padded.as_bytes()).is_some());
        assert!(Announcement::parse(format!("{padded} ").as_bytes()).is_none());
        assert!(Announcement::parse(&[b'['; DATAGRAM_BYTES_MAX]).is_none());
    }

    #[test]
    fn announces_at_start_then_ever_more_rarely() {
        let mut lan = lan();
        let first = drain(&mut lan, at(0));
        assert_eq!(first.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [BROADCAST, MULTICAST]);
        let mut now = 0;
        let mut gaps = Vec::new();
        for _ in 0..6 {
            let next = lan.poll_timeout().unwrap().since(Instant::default()).as_secs();
            gaps.push(next - now);
            now = next;
            lan.handle_timeout(at(now - 1));
            assert!(drain(&mut lan, at(now - 1)).is_empty());
            lan.handle_timeout(at(now));
            assert_eq!(drain(&mut lan, at(now)).len(), 2);
        }
        assert_eq!(gaps, [60, 120, 240, 480, 600, 600]);
        lan.set_ids(at(now), [lan_id(0x11), lan_id(0x12)]);
        assert_eq!(drain(&mut lan, at(now)).len(), 2, "only the new one");
        assert_eq!(lan.poll_timeout(), Some(at(now + 60).mono));
        lan.set_networks(at(now), Networks::new(&[("10.0.0.1".parse().unwrap(), 8)]));
        let sent = drain(&mut lan, at(now));
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|(to, _)| *to == BROADCAST));
        lan.set_ids(at(now), []);
        assert_eq!(lan.poll_timeout(), None);
    }

    #[test]
    fn near_midnight_both_days_are_announced_and_a_skewed_clock_is_found() {
        let midnight = WallTime(20_001 * DAY_NANOS - NANOS_PER_SECOND);
        let now = Now { mono: Instant::default(), wall: midnight };
        let mut lan = lan();
        let ids: BTreeSet<_> =
            drain(&mut lan, now).iter().map(|(_, bytes)| Announcement::parse(bytes).unwrap().id).collect();
        assert_eq!(ids, BTreeSet::from([rendezvous_id(&ID, 20_000), rendezvous_id(&ID, 20_001)]));
        let from = "192.168.1.9:60106".parse().unwrap();
        for (days, found) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let theirs = Now { wall: WallTime(NOON + days * DAY_NANOS), ..at(0) };
            assert_eq!(lan.handle_datagram(at(0), from, &from_friend(theirs)).is_some(), found, "{days}");
        }
        let tomorrow = Now { wall: WallTime(NOON + 5 * DAY_NANOS), ..at(1) };
        assert!(lan.handle_datagram(tomorrow, from, &from_friend(at(0))).is_none());
        assert!(lan.handle_datagram(tomorrow, from, &from_friend(tomorrow)).is_some());
    }

    #[test]
    fn a_friend_is_dialled_at_the_source_address_and_answered_once() {
        let mut lan = lan();
        drain(&mut lan, at(0));
        let from = "192.168.1.9:60106".parse().unwrap();
        let hint = lan.handle_datagram(at(1), from, &from_friend(at(1))).unwrap();
        assert_eq!((hint.club, hint.addr), (RootId(0x11), "192.168.1.9:4001".parse().unwrap()));
        assert_eq!(hint.peer, rendezvous_peer(&ID, FRIEND, 20_000));
        assert_eq!(drain(&mut lan, at(1)).len(), 2);
        assert!(lan.handle_datagram(at(2), from, &from_friend(at(2))).is_some());
        assert!(drain(&mut lan, at(2)).is_empty());
        let scoped = "[fe80::9%3]:60106".parse().unwrap();
        let hint = lan.handle_datagram(at(3), scoped, &from_friend(at(3))).unwrap();
        assert_eq!(hint.addr, "[fe80::9%3]:4001".parse().unwrap());
    }

    #[test]
    fn a_friend_on_this_machine_is_dialled_inside_it() {
        let mut lan = lan();
        let ours = [("127.0.0.1", 8), ("192.168.1.5", 24), ("fe80::5", 64)];
        let ours = ours.map(|(ip, prefix)| (ip.parse().unwrap(), prefix));
        lan.set_networks(at(0), Networks::new(&ours));
        drain(&mut lan, at(0));
        for from in ["127.0.0.1:60106", "192.168.1.5:60106", "[fe80::5%3]:60106"] {
            let hint = lan.handle_datagram(at(1), from.parse().unwrap(), &from_friend(at(1))).unwrap();
            assert_eq!(hint.addr, "127.0.0.1:4001".parse().unwrap(), "{from}");
        }
        assert_eq!(drain(&mut lan, at(1)).len(), 2, "one stranger, one answer");
        // Without a network there is loopback.
        lan.set_networks(at(2), Networks::new(&ours[..1]));
        assert_eq!(drain(&mut lan, at(2)).iter().map(|(to, _)| *to).collect::<Vec<_>>(), [BROADCAST]);
        let from = "127.0.0.1:60106".parse().unwrap();
        assert!(lan.handle_datagram(at(3), from, &from_friend(at(3))).is_some());
        assert!(lan.handle_datagram(at(3), "192.168.1.5:1".parse().unwrap(), &from_friend(at(3))).is_none());
    }

    #[test]
    fn own_foreign_and_strange_datagrams_cause_no_dial() {
        let mut lan = lan();
        let own = drain(&mut lan, at(0)).remove(0).1;
        let near = "192.168.1.9:60106".parse().unwrap();
        assert!(lan.handle_datagram(at(0), near, &own).is_none());
        let other = Announcement { id: [9; 32], peer: [9; 16], port: 1 }.to_bytes();
        assert!(lan.handle_datagram(at(0), near, &other).is_none());
        assert!(lan.handle_datagram(at(0), near, b"{}").is_none());
        for far in ["192.168.2.9:1", "8.8.8.8:1", "127.0.0.1:1", "[::1]:1", "[2001:db8::1]:1"] {
            assert!(lan.handle_datagram(at(0), far.parse().unwrap(), &from_friend(at(0))).is_none(), "{far}");
        }
        assert!(drain(&mut lan, at(0)).is_empty());
        for i in 0..10_000u32 {
            let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0B00_0000 + i * 7)), 60106);
            assert!(lan.handle_datagram(at(0), from, &from_friend(at(0))).is_none());
        }
    }

    #[test]
    fn who_does_not_listen_announces_nothing() {
        let mut lan = Lan::new(0);
        lan.set_networks(at(0), home());
        lan.set_ids(at(0), [lan_id(0x11)]);
        assert!(drain(&mut lan, at(0)).is_empty());
        let from = "192.168.1.9:60106".parse().unwrap();
        assert!(lan.handle_datagram(at(0), from, &from_friend(at(0))).is_some());
    }

    #[test]
    fn answers_and_strangers_are_bounded() {
        let mut lan = lan();
        drain(&mut lan, at(0));
        let from = "192.168.1.9:60106".parse().unwrap();
        let mut answered = 0;
        let mut flood = |lan: &mut Lan, now: Now, count: u32| {
            for _ in 0..count {
                answered += 1u32;
                let mut peer = [0; 16];
                peer[..4].copy_from_slice(&answered.to_be_bytes());
                let bytes = Announcement { id: rendezvous_id(&ID, day(now.wall)), peer, port: 1 }.to_bytes();
                assert!(lan.handle_datagram(now, from, &bytes).is_some());
            }
            let mut sent = 0;
            while lan.poll_datagram(now).is_some() {
                sent += 1;
            }
            sent
        };
        for _ in 0..ANSWERS_PER_SECOND {
            assert_eq!(flood(&mut lan, at(1), 1), 2);
        }
        assert_eq!(flood(&mut lan, at(1), 1), 0);
        assert_eq!(flood(&mut lan, at(2), 1), 2);
        flood(&mut lan, at(3), STRANGERS_MAX as u32 + 5);
        assert_eq!(lan.strangers.len(), STRANGERS_MAX);
        let many = (0..=LAN_IDS_MAX as u32).map(|i| {
            let mut id = lan_id(0);
            id.id[..4].copy_from_slice(&i.to_be_bytes());
            id
        });
        lan.set_ids(at(4), many);
        assert_eq!(lan.ids.len(), LAN_IDS_MAX);
    }

    #[test]
    fn debug_shows_no_id() {
        let text = format!("{:?} {:?}", lan(), lan_id(0x11));
        assert_eq!(text, "Lan(1 ids, 0 strangers) LanId(RootId(17), ..)");
    }
}
