//! The access codes that this node made: who may still use which, and who guesses (protocol §3). It proves nothing
//! itself; the connection tells it what was proven.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::club::code::{AccessCode, CODE_LEN};
use crate::club::identity::sha256;
use crate::club::level::Level;
use crate::ids::{AccessId, PeerId};
use crate::rng::Rng;
use crate::time::{Instant, WallTime};

/// The most codes of one club (protocol §10).
pub const CODES_MAX: usize = 1000;
/// How long a code is valid unless its maker says otherwise.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(24 * 60 * 60);
/// Wrong proofs for one code from one source that are answered before the code seems unknown to that source.
pub const WRONG_PROOFS_MAX: u32 = 5;
/// How long a code seems unknown to a source at first; each further wrong proof doubles it.
pub const BLOCK_FIRST: Duration = Duration::from_secs(10 * 60);
/// The longest that one wrong proof blocks a source.
pub const BLOCK_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The most pairs of code and source that are counted; beyond it the one heard of least lately is forgotten.
pub const COUNTERS_MAX: usize = 1024;

const STORE_VERSION: u8 = 1;
/// Bytes of a code in the store: the code, level, flags, made, expires, bound peer.
const STORED_CODE_LEN: usize = CODE_LEN + 2 + 8 + 8 + PeerId::LEN;
const FLAG_MULTI: u8 = 1;
const FLAG_EXPIRES: u8 = 2;
const FLAG_BOUND: u8 = 4;

/// SHA-256("clearskies hello" ‖ ID ‖ E): how a hello names a key ID or access ID (protocol §5).
pub fn hello_tag(id: &[u8; 32], exporter: &[u8; 32]) -> [u8; 32] {
    sha256(&[b"clearskies hello", id, exporter])
}

/// How often a code may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// By one joiner; once a joiner has proven its ID, by that one alone.
    Single {
        /// That joiner.
        bound: Option<PeerId>,
    },
    /// By anybody who has it.
    Multi,
}

/// One code that is still good for something.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeEntry {
    code: AccessCode,
    level: Level,
    uses: Uses,
    made: WallTime,
    expires: Option<WallTime>,
}

impl CodeEntry {
    /// The code.
    pub fn code(&self) -> &AccessCode {
        &self.code
    }

    /// The level that it grants.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Who may use it.
    pub fn uses(&self) -> Uses {
        self.uses
    }

    /// When it was made.
    pub fn made(&self) -> WallTime {
        self.made
    }

    /// From when on it is invalid; `None`: never.
    pub fn expires(&self) -> Option<WallTime> {
        self.expires
    }

    fn is_valid(&self, now: WallTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl fmt::Debug for CodeEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeEntry")
            .field("level", &self.level)
            .field("uses", &self.uses)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What a new code is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCode {
    /// The level that it grants; never above the club's own here.
    pub level: Level,
    /// Whether more than one peer may use it.
    pub multi_use: bool,
    /// How long it is valid; `None`: for ever.
    pub valid_for: Option<Duration>,
}

/// The codes of one club. Only good ones are kept: a spent, revoked or expired code leaves at once, secret and all.
#[derive(Default)]
pub struct CodeBook {
    codes: BTreeMap<AccessId, CodeEntry>,
    guesses: BTreeMap<(AccessId, IpAddr), Guesses>,
}

/// Wrong proofs for one code from one source.
struct Guesses {
    wrong: u32,
    last: Instant,
    blocked_until: Instant,
}

impl CodeBook {
    /// Makes a code; `None` if there are [`CODES_MAX`].
    pub fn create(&mut self, new: NewCode, now: WallTime, rng: &mut Rng) -> Option<AccessCode> {
        self.expire(now);
        if self.codes.len() >= CODES_MAX {
            return None;
        }
        let code = AccessCode::generate(rng);
        let expires = new.valid_for.map(|after| {
            let nanos = i64::try_from(after.as_nanos()).unwrap_or(i64::MAX);
            WallTime(now.0.saturating_add(nanos))
        });
        let uses = if new.multi_use { Uses::Multi } else { Uses::Single { bound: None } };
        let entry = CodeEntry { code: code.clone(), level: new.level, uses, made: now, expires };
        self.codes.insert(code.access_id(), entry);
        Some(code)
    }

    /// The code that a hello's tag names, unless it is to seem unknown to this source. Every code is compared, so that
    /// the time taken says nothing about which.
    pub fn find(
        &self,
        tag: &[u8; 32],
        exporter: &[u8; 32],
        from: IpAddr,
        mono: Instant,
        wall: WallTime,
    ) -> Option<(AccessId, &CodeEntry)> {
        let mut found = None;
        for (id, entry) in &self.codes {
            if bool::from(hello_tag(&id.0, exporter).ct_eq(tag)) {
                found = Some((*id, entry));
            }
        }
        let (id, entry) = found?;
        let blocked =
            self.guesses.get(&(id, source(from))).is_some_and(|guesses| mono < guesses.blocked_until);
        (entry.is_valid(wall) && !blocked).then_some((id, entry))
    }

    /// The code of this access ID, if it is still good.
    pub fn get(&self, id: &AccessId, now: WallTime) -> Option<&CodeEntry> {
        self.codes.get(id).filter(|entry| entry.is_valid(now))
    }

    /// Every code, for discovery and for lists.
    pub fn iter(&self) -> impl Iterator<Item = (&AccessId, &CodeEntry)> {
        self.codes.iter()
    }

    /// Counts a wrong proof. After [`WRONG_PROOFS_MAX`] the code seems unknown to this source for a while.
    pub fn wrong_proof(&mut self, id: &AccessId, from: IpAddr, now: Instant) {
        if !self.codes.contains_key(id) {
            return;
        }
        let key = (*id, source(from));
        if !self.guesses.contains_key(&key) && self.guesses.len() >= COUNTERS_MAX {
            self.forget_one_counter(now);
        }
        let guesses = self.guesses.entry(key).or_insert(Guesses { wrong: 0, last: now, blocked_until: now });
        guesses.wrong = guesses.wrong.saturating_add(1);
        guesses.last = now;
        if let Some(doublings) = guesses.wrong.checked_sub(WRONG_PROOFS_MAX) {
            let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
            guesses.blocked_until = now.plus(BLOCK_FIRST.saturating_mul(factor).min(BLOCK_MAX));
        }
    }

    /// The source knew the code after all: its count starts again.
    pub fn right_proof(&mut self, id: &AccessId, from: IpAddr) {
        self.guesses.remove(&(*id, source(from)));
    }

    /// Drops the counter that matters least: one that blocks nobody, then the one that was touched longest ago.
    fn forget_one_counter(&mut self, now: Instant) {
        let least =
            self.guesses.iter().min_by_key(|(_, guesses)| (now < guesses.blocked_until, guesses.last));
        if let Some(key) = least.map(|(key, _)| *key) {
            self.guesses.remove(&key);
        }
    }

    /// Whether this peer may be given the keys for this code.
    pub fn may_join(&self, id: &AccessId, peer: PeerId, now: WallTime) -> bool {
        self.get(id, now).is_some_and(|entry| match entry.uses {
            Uses::Single { bound } => bound.is_none_or(|bound| bound == peer),
            Uses::Multi => true,
        })
    }

    /// Binds a single-use code to the joiner that proved this ID, to be stored before the keys are sent. False if the
    /// code is gone or another's.
    pub fn bind(&mut self, id: &AccessId, peer: PeerId) -> bool {
        match self.codes.get_mut(id).map(|entry| &mut entry.uses) {
            None => false,
            Some(Uses::Multi) => true,
            Some(Uses::Single { bound }) => *bound.get_or_insert(peer) == peer,
        }
    }

    /// The joiner that a code is bound to wants no keys for it: it is as good as before. True if the store is to be
    /// changed.
    pub fn unbind(&mut self, id: &AccessId, peer: PeerId) -> bool {
        match self.codes.get_mut(id).map(|entry| &mut entry.uses) {
            Some(Uses::Single { bound }) if *bound == Some(peer) => bound.take().is_some(),
            _ => false,
        }
    }

    /// The joiner has stored its keys: a single-use code is done with. True if the store is to be changed.
    pub fn spend(&mut self, id: &AccessId) -> bool {
        let single = self.codes.get(id).is_some_and(|entry| matches!(entry.uses, Uses::Single { .. }));
        single && self.revoke(id)
    }

    /// A peer that a code is bound to came back with the club's key: it has stored it, though its word was lost.
    /// True if the store is to be changed.
    pub fn spend_bound(&mut self, peer: PeerId) -> bool {
        self.drop_codes(|entry| entry.uses == Uses::Single { bound: Some(peer) })
    }

    /// Takes a code back. True if the store is to be changed.
    pub fn revoke(&mut self, id: &AccessId) -> bool {
        self.guesses.retain(|(of, _), _| of != id);
        self.codes.remove(id).is_some()
    }

    /// Drops what has expired. True if the store is to be changed.
    pub fn expire(&mut self, now: WallTime) -> bool {
        self.drop_codes(|entry| !entry.is_valid(now))
    }

    fn drop_codes(&mut self, done: impl Fn(&CodeEntry) -> bool) -> bool {
        let before = self.codes.len();
        self.codes.retain(|_, entry| !done(entry));
        let CodeBook { codes, guesses } = self;
        guesses.retain(|(of, _), _| codes.contains_key(of));
        self.codes.len() != before
    }

    /// The form that the store keeps: a version, then each code in a fixed length. The counters are not in it: a guess
    /// at 2^64 gains nothing from a restart.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(1 + self.codes.len() * STORED_CODE_LEN));
        out.push(STORE_VERSION);
        for entry in self.codes.values() {
            let (multi, bound) = match entry.uses {
                Uses::Single { bound } => (0, bound),
                Uses::Multi => (FLAG_MULTI, None),
            };
            let expires = entry.expires.map_or(0, |_| FLAG_EXPIRES);
            out.extend_from_slice(entry.code.bytes());
            out.push(entry.level.number());
            out.push(multi | expires | bound.map_or(0, |_| FLAG_BOUND));
            out.extend_from_slice(&entry.made.0.to_le_bytes());
            out.extend_from_slice(&entry.expires.unwrap_or_default().0.to_le_bytes());
            out.extend_from_slice(&bound.map_or([0; PeerId::LEN], |peer| peer.0));
        }
        out
    }

    /// Reads what [`CodeBook::encode`] wrote; `None` if it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<CodeBook> {
        let (version, rest) = bytes.split_first()?;
        let stored = rest.chunks_exact(STORED_CODE_LEN);
        if *version != STORE_VERSION || !stored.remainder().is_empty() || stored.len() > CODES_MAX {
            return None;
        }
        let mut book = CodeBook::default();
        for bytes in stored {
            let entry = decode_entry(bytes)?;
            book.codes.insert(entry.code.access_id(), entry);
        }
        Some(book)
    }
}

impl fmt::Debug for CodeBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeBook({} codes)", self.codes.len())
    }
}

fn decode_entry(bytes: &[u8]) -> Option<CodeEntry> {
    let (code, rest) = bytes.split_first_chunk::<CODE_LEN>()?;
    let ([level, flags], rest) = rest.split_first_chunk::<2>()?;
    let (made, rest) = rest.split_first_chunk::<8>()?;
    let (expires, bound) = rest.split_first_chunk::<8>()?;
    let bound = PeerId::from_slice(bound)?;
    if flags & !(FLAG_MULTI | FLAG_EXPIRES | FLAG_BOUND) != 0 {
        return None;
    }
    let uses = match (flags & FLAG_MULTI != 0, flags & FLAG_BOUND != 0) {
        (true, true) => return None,
        (true, false) => Uses::Multi,
        (false, is_bound) => Uses::Single { bound: is_bound.then_some(bound) },
    };
    Some(CodeEntry {
        code: AccessCode::from_bytes(*code),
        level: Level::from_number(*level)?,
        uses,
        made: WallTime(i64::from_le_bytes(*made)),
        expires: (flags & FLAG_EXPIRES != 0).then_some(WallTime(i64::from_le_bytes(*expires))),
    })
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address (protocol §3).
pub fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    const NOW: WallTime = WallTime(1_800_000_000 * crate::time::NANOS_PER_SECOND);
    const E: [u8; 32] = [0xEE; 32];
    const ALICE: PeerId = PeerId([1; 16]);
    const MALLORY: PeerId = PeerId([2; 16]);
    const SINGLE: NewCode =
        NewCode { level: Level::ReadWrite, multi_use: false, valid_for: Some(DEFAULT_VALIDITY) };
    const MULTI: NewCode = NewCode { level: Level::ReadOnly, multi_use: true, valid_for: None };

    fn rng() -> Rng {
        Rng::from_seed([4; 32])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn later(seconds: u64) -> Instant {
        Instant::default().plus(Duration::from_secs(seconds))
    }

    fn seen(book: &CodeBook, id: &AccessId, from: &str, at: Instant) -> bool {
        book.find(&hello_tag(&id.0, &E), &E, ip(from), at, NOW).is_some()
    }

    #[test]
    fn hello_tag_is_known() {
        // By an independent calculation: ID = 00 01 … 1f, E = 32 times ee.
        let id: [u8; 32] = core::array::from_fn(|i| i as u8);
        assert_eq!(
            data_encoding::HEXLOWER.encode(&hello_tag(&id, &E)),
            "d856a4875a0baa56af1d98dd238b3691a90507cbeb64de6b75d9a579e9c986bf"
        );
    }

    #[test]
    fn a_tag_finds_its_code_on_its_channel_only() {
        let mut book = CodeBook::default();
        let id = book.create(SINGLE, NOW, &mut rng()).unwrap().access_id();
        assert!(seen(&book, &id, "192.0.2.1", later(0)));
        assert!(!seen(&book, &AccessId([0; 32]), "192.0.2.1", later(0)));
        let elsewhere = hello_tag(&id.0, &[0xEF; 32]);
        assert!(book.find(&elsewhere, &E, ip("192.0.2.1"), later(0), NOW).is_none());
    }

    #[test]
    fn five_wrong_proofs_hide_the_code_from_one_source() {
        let mut book = CodeBook::default();
        let id = book.create(SINGLE, NOW, &mut rng()).unwrap().access_id();
        for _ in 0..WRONG_PROOFS_MAX - 1 {
            book.wrong_proof(&id, ip("192.0.2.1"), later(0));
        }
        assert!(seen(&book, &id, "192.0.2.1", later(0)));
        book.wrong_proof(&id, ip("192.0.2.1"), later(0));
        assert!(!seen(&book, &id, "192.0.2.1", later(0)));
        assert!(!seen(&book, &id, "::ffff:192.0.2.1", later(599)));
        assert!(seen(&book, &id, "192.0.2.2", later(0)), "the friend is not shut out");
        assert!(seen(&book, &id, "192.0.2.1", later(600)));
        book.wrong_proof(&id, ip("192.0.2.1"), later(600));
        assert!(!seen(&book, &id, "192.0.2.1", later(600 + 1199)), "doubled");
        assert!(seen(&book, &id, "192.0.2.1", later(600 + 1200)));
        book.right_proof(&id, ip("192.0.2.1"));
        book.wrong_proof(&id, ip("192.0.2.1"), later(2000));
        assert!(seen(&book, &id, "192.0.2.1", later(2000)));
        for _ in 0..100 {
            book.wrong_proof(&id, ip("192.0.2.1"), later(2000));
        }
        assert!(!seen(&book, &id, "192.0.2.1", later(2000 + 86399)));
        assert!(seen(&book, &id, "192.0.2.1", later(2000 + 86400)));
    }

    #[test]
    fn ipv6_sources_count_by_their_64() {
        let mut book = CodeBook::default();
        let id = book.create(SINGLE, NOW, &mut rng()).unwrap().access_id();
        for i in 0..WRONG_PROOFS_MAX {
            book.wrong_proof(&id, ip(&format!("2001:db8::{i}")), later(0));
        }
        assert!(!seen(&book, &id, "2001:db8::ffff:1", later(0)));
        assert!(seen(&book, &id, "2001:db8:0:1::1", later(0)));
    }

    #[test]
    fn counters_are_bounded_and_blocks_outlive_noise() {
        let mut book = CodeBook::default();
        let id = book.create(SINGLE, NOW, &mut rng()).unwrap().access_id();
        for _ in 0..WRONG_PROOFS_MAX {
            book.wrong_proof(&id, ip("192.0.2.1"), later(0));
        }
        for i in 0..COUNTERS_MAX as u32 {
            book.wrong_proof(&id, IpAddr::from((0x0A00_0000 + i).to_be_bytes()), later(1));
            assert!(book.guesses.len() <= COUNTERS_MAX);
        }
        assert_eq!(book.guesses.len(), COUNTERS_MAX);
        assert!(!seen(&book, &id, "192.0.2.1", later(1)));
        book.wrong_proof(&AccessId([0; 32]), ip("192.0.2.9"), later(1));
        assert_eq!(book.guesses.len(), COUNTERS_MAX, "unknown codes are not counted");
    }

    #[test]
    fn a_single_use_code_is_bound_then_spent() {
        let mut book = CodeBook::default();
        let id = book.create(SINGLE, NOW, &mut rng()).unwrap().access_id();
        assert!(book.may_join(&id, ALICE, NOW) && book.may_join(&id, MALLORY, NOW));
        assert!(book.bind(&id, ALICE));
        assert!(!book.bind(&id, MALLORY) && !book.may_join(&id, MALLORY, NOW));
        assert!(book.bind(&id, ALICE) && book.may_join(&id, ALICE, NOW), "it may try again");
        assert!(
            !book.unbind(&id, MALLORY) && !book.may_join(&id, MALLORY, NOW),
            "it is not his to give back"
        );
        assert!(book.unbind(&id, ALICE) && book.may_join(&id, MALLORY, NOW));
        assert!(!book.unbind(&id, ALICE) && book.bind(&id, ALICE));
        let mut again = CodeBook::decode(&book.encode()).unwrap();
        assert!(!again.may_join(&id, MALLORY, NOW) && again.may_join(&id, ALICE, NOW));
        assert!(book.spend(&id) && !book.spend(&id));
        assert!(!book.may_join(&id, ALICE, NOW) && !book.bind(&id, ALICE));
        assert!(!seen(&book, &id, "192.0.2.1", later(0)));
        assert!(!again.spend_bound(MALLORY) && again.spend_bound(ALICE));
        assert_eq!(again.iter().count(), 0);
    }

    #[test]
    fn a_multi_use_code_stays_until_revoked() {
        let mut book = CodeBook::default();
        let id = book.create(MULTI, NOW, &mut rng()).unwrap().access_id();
        assert!(book.bind(&id, ALICE) && book.bind(&id, MALLORY));
        assert!(!book.spend(&id) && !book.spend_bound(ALICE));
        assert!(book.may_join(&id, MALLORY, WallTime(i64::MAX)));
        book.wrong_proof(&id, ip("192.0.2.1"), later(0));
        assert!(book.revoke(&id) && !book.revoke(&id));
        assert!(!book.may_join(&id, ALICE, NOW));
        assert!(book.guesses.is_empty());
    }

    #[test]
    fn codes_expire_on_time() {
        let mut book = CodeBook::default();
        let id = book.create(SINGLE, NOW, &mut rng()).unwrap().access_id();
        let end = WallTime(NOW.0 + DEFAULT_VALIDITY.as_nanos() as i64);
        assert!(book.may_join(&id, ALICE, WallTime(end.0 - 1)) && !book.expire(WallTime(end.0 - 1)));
        assert!(!book.may_join(&id, ALICE, end));
        assert!(book.find(&hello_tag(&id.0, &E), &E, ip("::1"), later(0), end).is_none());
        assert!(book.expire(end) && !book.expire(end));
    }

    #[test]
    fn the_number_of_codes_is_bounded() {
        let (mut book, mut rng) = (CodeBook::default(), rng());
        for _ in 0..CODES_MAX {
            assert!(book.create(SINGLE, NOW, &mut rng).is_some());
        }
        assert!(book.create(SINGLE, NOW, &mut rng).is_none());
        let stored = book.encode();
        assert_eq!(CodeBook::decode(&stored).unwrap().codes, book.codes);
        let more = [&stored[..], &stored[1..1 + STORED_CODE_LEN]].concat();
        assert!(CodeBook::decode(&more).is_none());
        assert!(book.create(SINGLE, WallTime(i64::MAX), &mut rng).is_some(), "expired ones make room");
    }

    #[test]
    fn the_stored_form_goes_both_ways_and_damage_is_seen() {
        let (mut book, mut rng) = (CodeBook::default(), rng());
        assert!(CodeBook::decode(&book.encode()).unwrap().codes.is_empty());
        book.create(SINGLE, NOW, &mut rng);
        book.create(MULTI, NOW, &mut rng);
        let bound = book.create(SINGLE, NOW, &mut rng).unwrap();
        book.bind(&bound.access_id(), ALICE);
        let stored = book.encode();
        assert_eq!(CodeBook::decode(&stored).unwrap().codes, book.codes);
        assert!(CodeBook::decode(&[]).is_none());
        assert!(CodeBook::decode(&stored[..stored.len() - 1]).is_none());
        for (at, value) in [(0, 2), (1 + CODE_LEN, 3), (2 + CODE_LEN, 8), (2 + CODE_LEN, 5)] {
            let mut bad = stored.to_vec();
            bad[at] = value;
            assert!(CodeBook::decode(&bad).is_none(), "{at}");
        }
    }

    #[test]
    fn debug_shows_no_code() {
        let mut book = CodeBook::default();
        book.create(MULTI, NOW, &mut rng());
        assert_eq!(format!("{book:?}"), "CodeBook(1 codes)");
        let text = format!("{:?}", book.iter().next().unwrap().1);
        assert!(!text.contains("SYNC") && !text.contains("code"), "{text}");
    }
}
