//! The links that contents are asked of: what was asked on each, how fast it answers, and which peer is not to be
//! asked for which content. Never decides what is wanted, and never touches the disk.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use crate::ids::{ConnId, PeerId, Sha256};
use crate::time::Instant;

/// A piece of a large content; nothing larger is ever asked for at once.
pub const RANGE_BYTES: u64 = 1 << 20;
/// At most this much is asked for and not yet answered on one link.
pub const LINK_BYTES_MAX: u64 = 16 << 20;
/// At most this much is asked for and not yet answered on all links together.
pub const TOTAL_BYTES_MAX: u64 = 32 << 20;
/// At most this many requests are unanswered on one link.
pub const LINK_REQUESTS_MAX: usize = 2048;
/// Small contents leave this much of a link, and of all links, to the large ones.
pub const SMALL_LINK_BYTES_MAX: u64 = 8 << 20;
/// As [`SMALL_LINK_BYTES_MAX`], for all links together.
pub const SMALL_TOTAL_BYTES_MAX: u64 = 16 << 20;
/// A request that is unanswered for so long is asked elsewhere.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A payload may take so long to arrive before its link counts as silent.
pub const PAYLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// What nobody waits for is taken if it comes within this; then it counts as never asked for.
pub const OWED_TIMEOUT: Duration = Duration::from_secs(600);
/// For how long a peer that lied is not asked for that content.
pub const AVOID_FOR: Duration = Duration::from_secs(3 * 3600);
/// At most this many contents of peers are avoided; the oldest go first.
pub const AVOID_MAX: usize = 16_384;

/// What a link may have outstanding before its speed is known.
const WINDOW_START: u64 = 2 << 20;
const WINDOW_MIN: u64 = RANGE_BYTES;
/// One range is asked for while less than the window is outstanding, so the window stays one range below the limit.
const WINDOW_MAX: u64 = LINK_BYTES_MAX - RANGE_BYTES;
/// A link that says nothing for so long, while requests wait there and others wait for room, is asked for nothing more
/// until it answers.
pub const HUSH_AFTER: Duration = Duration::from_secs(8);

/// So many lies are remembered until they are told; any more are not.
pub const LIES_MAX: usize = 64;

/// Answers faster than this let the window grow.
const ANSWER_FAST: Duration = Duration::from_secs(2);
/// Answers slower than this halve it, so that a slow link queues some seconds of data and no more.
const ANSWER_SLOW: Duration = Duration::from_secs(8);

/// A peer broke the protocol; its link is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misbehaved(pub &'static str);

/// Content and first byte of something that was asked for.
pub(super) type Key = (Sha256, u64);

/// A `directory.get` to be sent: where to, what, and which range.
pub type Request = (ConnId, Sha256, (u64, u64));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Somebody waits for it.
    Live,
    /// Nobody waits for it any more; its answer is still owed.
    Dropped,
    /// It took too long; its answer may still come.
    Late,
}

#[derive(Debug)]
struct Asked {
    len: u64,
    whole: bool,
    at: Instant,
    seq: u64,
    claim: Claim,
    /// Whether its bytes count against the link: those of what was refused will hardly come.
    counted: bool,
}

#[derive(Debug)]
struct Incoming {
    key: Key,
    len: u64,
    bytes: Vec<u8>,
    since: Instant,
}

#[derive(Debug)]
struct Link {
    peer: PeerId,
    writer: bool,
    window: u64,
    /// Bytes of everything that counts in `asked`.
    outstanding: u64,
    /// Bytes of whole contents among them.
    small: u64,
    asked: BTreeMap<Key, Asked>,
    /// The live ones, oldest first.
    order: BTreeMap<u64, Key>,
    /// The others, oldest first.
    owed: BTreeMap<u64, Key>,
    /// Refusals per content that were not yet set off against what was asked: a refusal names no range.
    refused: BTreeMap<Sha256, usize>,
    incoming: Option<Incoming>,
    heard: Instant,
    /// It was silent for so long that nothing is asked of it until it answers.
    stalled: bool,
}

impl Link {
    fn hear(&mut self, now: Instant, recovered: &mut bool) {
        self.heard = now;
        *recovered |= mem::take(&mut self.stalled);
    }

    fn has_room(&self, whole: bool) -> bool {
        self.outstanding < self.window
            && self.asked.len() < LINK_REQUESTS_MAX
            && (!whole || self.small + RANGE_BYTES / 4 <= SMALL_LINK_BYTES_MAX)
    }

    fn may_ask(&self, key: &Key, len: u64) -> bool {
        match self.asked.get(key) {
            None => true,
            Some(asked) => {
                asked.claim == Claim::Dropped && asked.len == len && !self.refused.contains_key(&key.0)
            }
        }
    }

    /// When it has said nothing for [`HUSH_AFTER`], though requests wait there.
    fn hush_at(&self) -> Option<Instant> {
        let oldest = self.asked.get(self.order.values().next()?)?;
        self.incoming.is_none().then(|| oldest.at.max(self.heard).plus(HUSH_AFTER))
    }

    fn keys_of(&self, sha: &Sha256) -> impl Iterator<Item = (&Key, &Asked)> {
        self.asked.range((*sha, 0)..=(*sha, u64::MAX))
    }
}

/// What [`Sources::pick`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This link.
    Ask(ConnId),
    /// Some link may have it, but none takes a request now.
    Busy,
    /// No link may be asked for it.
    Nobody,
}

/// Who may be asked for a content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Among<'a> {
    pub(super) sha: &'a Sha256,
    /// Its size, as a record says.
    pub(super) size: u64,
    /// Links that said they do not have it.
    pub(super) absent: &'a [ConnId],
    /// If set, this link and no other.
    pub(super) sole: Option<ConnId>,
}

/// Bytes that were asked for, complete.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) sha: Sha256,
    pub(super) start: u64,
    pub(super) peer: PeerId,
    pub(super) bytes: Vec<u8>,
}

/// All links of a share.
#[derive(Debug, Default)]
pub(super) struct Sources {
    links: BTreeMap<ConnId, Link>,
    requests: VecDeque<Request>,
    next_seq: u64,
    /// Bytes of everything live.
    total: u64,
    small_total: u64,
    /// A stalled link has answered.
    recovered: bool,
    /// With the size that was asked for: under one that a record made up, nobody can give what has that SHA-256.
    avoided: BTreeSet<(Sha256, u64, PeerId)>,
    avoid_order: VecDeque<(Instant, (Sha256, u64, PeerId))>,
    lies: VecDeque<(PeerId, Sha256)>,
}

impl Sources {
    pub(super) fn up(&mut self, conn: ConnId, peer: PeerId, writer: bool, now: Instant) {
        let link = Link {
            peer,
            writer,
            window: WINDOW_START,
            outstanding: 0,
            small: 0,
            asked: BTreeMap::new(),
            order: BTreeMap::new(),
            owed: BTreeMap::new(),
            refused: BTreeMap::new(),
            incoming: None,
            heard: now,
            stalled: false,
        };
        self.links.insert(conn, link);
    }

    /// Forgets a link; returns what somebody waited for on it.
    pub(super) fn down(&mut self, conn: ConnId) -> Vec<Key> {
        let Some(mut link) = self.links.remove(&conn) else { return Vec::new() };
        self.requests.retain(|request| request.0 != conn);
        let live: Vec<Key> = link.order.values().copied().collect();
        for key in &live {
            drop_claim(&mut link, &mut self.total, &mut self.small_total, key, Claim::Dropped);
        }
        live
    }

    pub(super) fn is_up(&self, conn: ConnId) -> bool {
        self.links.contains_key(&conn)
    }

    /// Whether any link can be asked for anything.
    pub(super) fn any(&self) -> bool {
        self.links.values().any(|link| !link.stalled)
    }

    /// Whether a link that was silent for long has answered since this was last called.
    pub(super) fn take_recovered(&mut self) -> bool {
        mem::take(&mut self.recovered)
    }

    #[cfg(test)]
    pub(super) fn owes(&self, conn: ConnId, sha: &Sha256) -> bool {
        self.links.get(&conn).is_some_and(|link| link.keys_of(sha).next().is_some())
    }

    pub(super) fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Bytes that somebody waits for.
    pub(super) fn outstanding(&self) -> u64 {
        self.total
    }

    /// Whether any link takes a request now.
    pub(super) fn any_room(&self, whole: bool) -> bool {
        self.total_room(whole) && self.links.values().any(|link| !link.stalled && link.has_room(whole))
    }

    fn total_room(&self, whole: bool) -> bool {
        self.total + RANGE_BYTES <= TOTAL_BYTES_MAX
            && (!whole || self.small_total + RANGE_BYTES / 4 <= SMALL_TOTAL_BYTES_MAX)
    }

    /// Whether this link may be asked for it, busy or not.
    pub(super) fn may_ask(&self, conn: ConnId, among: &Among<'_>) -> bool {
        self.links.get(&conn).is_some_and(|link| self.eligible(conn, link, among))
    }

    /// Whether any link may be asked for it, busy or not.
    pub(super) fn any_may_be_asked(&self, among: &Among<'_>) -> bool {
        self.links.iter().any(|(&conn, link)| self.eligible(conn, link, among))
    }

    /// A link said something that is not kept account of here.
    pub(super) fn heard(&mut self, conn: ConnId, now: Instant) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.hear(now, &mut self.recovered);
        }
    }

    fn eligible(&self, conn: ConnId, link: &Link, among: &Among<'_>) -> bool {
        !link.stalled
            && among.sole.is_none_or(|sole| sole == conn)
            && !among.absent.contains(&conn)
            && !self.is_avoided(*among.sha, among.size, link.peer)
    }

    pub(super) fn is_avoided(&self, sha: Sha256, size: u64, peer: PeerId) -> bool {
        self.avoided.contains(&(sha, size, peer))
    }

    /// The link that is least busy for its speed.
    pub(super) fn pick(&self, among: &Among<'_>, (start, len): (u64, u64), whole: bool) -> Choice {
        let mut choice = Choice::Nobody;
        let mut least = u64::MAX;
        let room = self.total_room(whole);
        for (&conn, link) in &self.links {
            if !self.eligible(conn, link, among) {
                continue;
            }
            if choice == Choice::Nobody {
                choice = Choice::Busy;
            }
            // Windows are at least a range and at most 16 MiB, so neither the product nor the quotient can go wrong.
            let load = link.outstanding * 1024 / link.window;
            if room && load < least && link.has_room(whole) && link.may_ask(&(*among.sha, start), len) {
                least = load;
                choice = Choice::Ask(conn);
            }
        }
        choice
    }

    /// Whether a link other than `conn` may be asked.
    pub(super) fn has_other(&self, conn: ConnId, among: &Among<'_>) -> bool {
        self.links.iter().any(|(&other, link)| other != conn && self.eligible(other, link, among))
    }

    /// The link that alone is to give a content of which a mixture was wrong: writers first, then the fastest.
    pub(super) fn pick_sole(&self, among: &Among<'_>) -> Option<ConnId> {
        let eligible = self.links.iter().filter(|&(&conn, link)| self.eligible(conn, link, among));
        eligible.max_by_key(|(_, link)| (link.writer, link.window)).map(|(&conn, _)| conn)
    }

    /// An idle link that is faster than `slow`, for asking again what `slow` still owes.
    pub(super) fn pick_faster(
        &self,
        slow: ConnId,
        among: &Among<'_>,
        (start, len): (u64, u64),
    ) -> Option<ConnId> {
        let window = self.links.get(&slow).map_or(0, |link| link.window);
        let idle = self.links.iter().filter(|&(&conn, link)| {
            conn != slow
                && link.window > window
                && link.outstanding < 4 * RANGE_BYTES
                && link.has_room(false)
                && link.may_ask(&(*among.sha, start), len)
                && self.eligible(conn, link, among)
        });
        let fastest = idle.max_by_key(|(_, link)| link.window).map(|(&conn, _)| conn);
        fastest.filter(|_| self.total_room(false))
    }

    /// Asks a link that [`Sources::pick`] named.
    pub(super) fn ask(&mut self, conn: ConnId, key: Key, len: u64, whole: bool, now: Instant) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        self.next_seq += 1;
        let asked = Asked { len, whole, at: now, seq: self.next_seq, claim: Claim::Live, counted: true };
        // What is owed already need not be asked for again.
        discount(link, &key);
        if let Some(old) = link.asked.insert(key, asked) {
            link.owed.remove(&old.seq);
        } else {
            // Of a whole as well: what a record says of its size may be a lie, and who has that content is no liar.
            self.requests.push_back((conn, key.0, (key.1, len)));
        }
        link.order.insert(self.next_seq, key);
        link.outstanding += len;
        self.total += len;
        if whole {
            link.small += len;
            self.small_total += len;
        }
    }

    /// Nobody waits for this one any more.
    pub(super) fn drop_key(&mut self, conn: ConnId, key: &Key) {
        if let Some(link) = self.links.get_mut(&conn) {
            drop_claim(link, &mut self.total, &mut self.small_total, key, Claim::Dropped);
        }
    }

    /// Nobody waits for this content any more.
    pub(super) fn drop_content(&mut self, sha: &Sha256) {
        for link in self.links.values_mut() {
            let keys: Vec<Key> = link.keys_of(sha).map(|(key, _)| *key).collect();
            for key in &keys {
                drop_claim(link, &mut self.total, &mut self.small_total, key, Claim::Dropped);
            }
        }
    }

    /// The head of a `directory.data`.
    pub(super) fn data_start(
        &mut self,
        conn: ConnId,
        sha: Sha256,
        (start, len): (u64, u64),
        now: Instant,
    ) -> Result<(), Misbehaved> {
        let link = self.links.get_mut(&conn).ok_or(Misbehaved("data before anything was asked"))?;
        if link.incoming.is_some() {
            return Err(Misbehaved("data within data"));
        }
        let asked = link.asked.get(&(sha, start)).ok_or(Misbehaved("data that was not asked for"))?;
        if asked.len != len {
            return Err(Misbehaved("data of another length than was asked for"));
        }
        link.hear(now, &mut self.recovered);
        link.incoming = Some(Incoming { key: (sha, start), len, bytes: Vec::new(), since: now });
        Ok(())
    }

    /// A piece of the payload that follows; returns the whole once it is there.
    pub(super) fn payload(
        &mut self,
        conn: ConnId,
        bytes: Vec<u8>,
        last: bool,
        now: Instant,
    ) -> Result<Option<Arrived>, Misbehaved> {
        let link = self.links.get_mut(&conn).ok_or(Misbehaved("a payload before anything was asked"))?;
        link.hear(now, &mut self.recovered);
        let incoming = link.incoming.as_mut().ok_or(Misbehaved("a payload without its data"))?;
        if (incoming.bytes.len() as u64).saturating_add(bytes.len() as u64) > incoming.len {
            return Err(Misbehaved("a payload longer than was asked for"));
        }
        if incoming.bytes.is_empty() && last {
            incoming.bytes = bytes;
        } else {
            // Its whole length at once (what was asked for, 1 MiB at most): growing would copy it again and again.
            incoming.bytes.reserve_exact(incoming.len as usize - incoming.bytes.len());
            incoming.bytes.extend_from_slice(&bytes);
        }
        if !last {
            return Ok(None);
        }
        if (incoming.bytes.len() as u64) < incoming.len {
            return Err(Misbehaved("a payload shorter than was asked for"));
        }
        let peer = link.peer;
        let Some(Incoming { key, bytes, .. }) = link.incoming.take() else { return Ok(None) };
        if let Some(at) = settle(link, &mut self.total, &mut self.small_total, &key) {
            adapt(link, now.since(at), bytes.len() as u64);
        }
        clear_refused(link, &mut self.total, &mut self.small_total, &key.0);
        Ok(Some(Arrived { sha: key.0, start: key.1, peer, bytes }))
    }

    /// A link refused a content. Returns the first bytes of what somebody waited for there.
    pub(super) fn refuse(&mut self, conn: ConnId, sha: &Sha256, now: Instant) -> Vec<u64> {
        let Some(link) = self.links.get_mut(&conn) else { return Vec::new() };
        let keys: Vec<(Key, bool)> =
            link.keys_of(sha).map(|(key, asked)| (*key, asked.claim == Claim::Live)).collect();
        if keys.is_empty() {
            return Vec::new();
        }
        link.hear(now, &mut self.recovered);
        *link.refused.entry(*sha).or_default() += 1;
        for (key, _) in &keys {
            drop_claim(link, &mut self.total, &mut self.small_total, key, Claim::Dropped);
            discount(link, key);
        }
        clear_refused(link, &mut self.total, &mut self.small_total, sha);
        keys.into_iter().filter(|(_, live)| *live).map(|(key, _)| key.1).collect()
    }

    /// What this peer alone gave is not that content: it is not asked for it again, and the user is to be told.
    pub(super) fn blame(&mut self, sha: Sha256, size: u64, peer: PeerId, now: Instant) {
        if !self.is_avoided(sha, size, peer) && self.lies.len() < LIES_MAX {
            self.lies.push_back((peer, sha));
        }
        self.avoid(sha, size, peer, now);
    }

    pub(super) fn poll_lie(&mut self) -> Option<(PeerId, Sha256)> {
        self.lies.pop_front()
    }

    /// Does not ask this peer for this content in this size for [`AVOID_FOR`].
    pub(super) fn avoid(&mut self, sha: Sha256, size: u64, peer: PeerId, now: Instant) {
        if !self.avoided.insert((sha, size, peer)) {
            return;
        }
        self.avoid_order.push_back((now.plus(AVOID_FOR), (sha, size, peer)));
        if self.avoid_order.len() > AVOID_MAX
            && let Some((_, oldest)) = self.avoid_order.pop_front()
        {
            self.avoided.remove(&oldest);
        }
    }

    /// Forgets what was owed for too long. A link that was silent and now owes nothing gets another chance.
    pub(super) fn expire(&mut self, now: Instant) {
        for link in self.links.values_mut() {
            while let Some(&key) = link.owed.values().next()
                && link.asked.get(&key).is_none_or(|asked| asked.at.plus(OWED_TIMEOUT) <= now)
                && link.incoming.as_ref().is_none_or(|incoming| incoming.key != key)
            {
                settle(link, &mut self.total, &mut self.small_total, &key);
                clear_refused(link, &mut self.total, &mut self.small_total, &key.0);
            }
            if link.stalled && link.asked.is_empty() {
                link.hear(now, &mut self.recovered);
            }
        }
    }

    /// When [`Sources::expire`] has something to do.
    pub(super) fn poll_expiry(&self) -> Option<Instant> {
        let incoming =
            |link: &Link, key: &Key| link.incoming.as_ref().is_some_and(|incoming| incoming.key == *key);
        let oldest = self.links.values().filter_map(|link| {
            let key = link.owed.values().next()?;
            if incoming(link, key) { None } else { link.asked.get(key) }
        });
        oldest.map(|asked| asked.at.plus(OWED_TIMEOUT)).min()
    }

    /// Forgives what is old enough.
    pub(super) fn forgive(&mut self, now: Instant) {
        while let Some((until, avoided)) = self.avoid_order.front()
            && *until <= now
        {
            self.avoided.remove(avoided);
            self.avoid_order.pop_front();
        }
    }

    /// Live requests that are older than [`REQUEST_TIMEOUT`].
    pub(super) fn overdue(&self, now: Instant) -> Vec<(ConnId, Key)> {
        let mut overdue = Vec::new();
        for (&conn, link) in &self.links {
            let old = link.order.values().take_while(|key| {
                link.asked.get(key).is_none_or(|asked| asked.at.plus(REQUEST_TIMEOUT) <= now)
            });
            overdue.extend(old.map(|key| (conn, *key)));
        }
        overdue
    }

    /// The live requests of links that have said nothing for [`HUSH_AFTER`]; these are stalled from now on.
    pub(super) fn hush(&mut self, now: Instant) -> Vec<(ConnId, Key)> {
        let mut hushed = Vec::new();
        for (&conn, link) in &mut self.links {
            if link.hush_at().is_some_and(|at| at <= now) {
                link.stalled = true;
                hushed.extend(link.order.values().map(|key| (conn, *key)));
            }
        }
        hushed
    }

    /// When [`Sources::hush`] has something to do.
    pub(super) fn poll_hush(&self) -> Option<Instant> {
        self.links.values().filter_map(Link::hush_at).min()
    }

    /// Whether nothing came from this link for so long that there is no point in waiting for it.
    pub(super) fn is_silent(&self, conn: ConnId, now: Instant) -> bool {
        self.links.get(&conn).is_none_or(|link| match &link.incoming {
            Some(incoming) => incoming.since.plus(PAYLOAD_TIMEOUT) <= now,
            None => link.heard.plus(REQUEST_TIMEOUT) <= now,
        })
    }

    /// Gives up waiting for a request; its answer is welcome if it comes.
    pub(super) fn give_up(&mut self, conn: ConnId, key: &Key, now: Instant) {
        let silent = self.is_silent(conn, now);
        if let Some(link) = self.links.get_mut(&conn) {
            link.stalled |= silent;
            drop_claim(link, &mut self.total, &mut self.small_total, key, Claim::Late);
        }
    }

    /// Waits for a request as if it had been made now.
    pub(super) fn wait_on(&mut self, conn: ConnId, key: &Key, now: Instant) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(asked) = link.asked.get_mut(key) else { return };
        if asked.claim == Claim::Live {
            self.next_seq += 1;
            link.order.remove(&asked.seq);
            link.order.insert(self.next_seq, *key);
            asked.seq = self.next_seq;
            asked.at = now;
        }
    }

    /// When the next request is overdue.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let oldest = self.links.values().filter_map(|link| link.asked.get(link.order.values().next()?));
        oldest.map(|asked| asked.at.plus(REQUEST_TIMEOUT)).min()
    }
}

/// Ends the wait for a request that stays owed.
fn drop_claim(link: &mut Link, total: &mut u64, small_total: &mut u64, key: &Key, to: Claim) {
    let Some(asked) = link.asked.get_mut(key) else { return };
    if asked.claim == Claim::Live {
        asked.claim = to;
        link.order.remove(&asked.seq);
        link.owed.insert(asked.seq, *key);
        *total -= asked.len;
        *small_total -= if asked.whole { asked.len } else { 0 };
    }
}

/// Forgets a request that was answered; returns when it was made.
fn settle(link: &mut Link, total: &mut u64, small_total: &mut u64, key: &Key) -> Option<Instant> {
    drop_claim(link, total, small_total, key, Claim::Dropped);
    discount(link, key);
    let asked = link.asked.remove(key)?;
    link.owed.remove(&asked.seq);
    Some(asked.at)
}

/// Lets a request that stays owed no longer count against its link.
fn discount(link: &mut Link, key: &Key) {
    if let Some(asked) = link.asked.get_mut(key)
        && mem::take(&mut asked.counted)
    {
        link.outstanding -= asked.len;
        link.small -= if asked.whole { asked.len } else { 0 };
    }
}

/// Once every request for a content that is still open was refused, nothing more is owed of it.
fn clear_refused(link: &mut Link, total: &mut u64, small_total: &mut u64, sha: &Sha256) {
    let Some(&refused) = link.refused.get(sha) else { return };
    let keys: Vec<Key> = link.keys_of(sha).map(|(key, _)| *key).collect();
    if keys.len() > refused {
        return;
    }
    link.refused.remove(sha);
    for key in &keys {
        settle(link, total, small_total, key);
    }
}

fn adapt(link: &mut Link, took: Duration, len: u64) {
    if took <= ANSWER_FAST {
        link.window = (link.window + len).min(WINDOW_MAX);
    } else if took >= ANSWER_SLOW {
        link.window = (link.window / 2).max(WINDOW_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_avoided_and_no_more() {
        let mut sources = Sources::default();
        let sha = |n: usize| {
            let mut sha = [0; 32];
            sha[..8].copy_from_slice(&n.to_be_bytes());
            Sha256(sha)
        };
        let peer = PeerId([1; 16]);
        (0..AVOID_MAX).for_each(|n| sources.avoid(sha(n), 1, peer, Instant(0)));
        assert!(sources.is_avoided(sha(0), 1, peer));
        sources.avoid(sha(AVOID_MAX), 1, peer, Instant(0));
        assert!(!sources.is_avoided(sha(0), 1, peer) && sources.is_avoided(sha(1), 1, peer));
        sources.forgive(Instant(0).plus(AVOID_FOR));
        assert!(!sources.is_avoided(sha(1), 1, peer));
    }

    #[test]
    fn so_many_lies_are_told_and_no_more() {
        let mut sources = Sources::default();
        let sha = |n: usize| Sha256([u8::try_from(n).unwrap(); 32]);
        let peer = PeerId([1; 16]);
        for lie in (0..=LIES_MAX).chain([0]) {
            sources.blame(sha(lie), 1, peer, Instant(0));
            assert!(sources.is_avoided(sha(lie), 1, peer));
        }
        let told: Vec<_> = core::iter::from_fn(|| sources.poll_lie()).collect();
        assert_eq!(told, (0..LIES_MAX).map(|lie| (peer, sha(lie))).collect::<Vec<_>>());
    }

    #[test]
    fn one_refusal_for_many_requests_blocks_the_link_for_no_one_else() {
        let mut sources = Sources::default();
        let (conn, sha) = (ConnId(1), Sha256([1; 32]));
        sources.up(conn, PeerId([1; 16]), false, Instant(0));
        for piece in 0..2 {
            sources.ask(conn, (sha, piece * RANGE_BYTES), RANGE_BYTES, false, Instant(0));
        }
        assert!(!sources.any_room(false));
        assert_eq!(sources.refuse(conn, &sha, Instant(0)), [0, RANGE_BYTES]);
        assert!(sources.any_room(false));
        assert!(sources.owes(conn, &sha));
        sources.expire(Instant(0).plus(OWED_TIMEOUT));
        assert!(!sources.owes(conn, &sha));
        assert_eq!((sources.total, sources.poll_expiry()), (0, None));
    }
}
