//! A genuine member of a fuzzed engine's club: bytes choose what it says, and whether it is true. Speaks core's own
//! connection over a simulated channel; what it says waits until somebody carries it over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use clearskies_core::channel::Transport;
use clearskies_core::club::code::AccessCode;
use clearskies_core::club::cpace::code_prs;
use clearskies_core::club::identity::PeerKeys;
use clearskies_core::club::keys::Club;
use clearskies_core::club::level::Level;
use clearskies_core::connection::login::{Login, Logins, Method, Role, Secret};
use clearskies_core::connection::pack::Deflating;
use clearskies_core::connection::reason::CloseReason;
use clearskies_core::connection::{
    ConnConfig, ConnEvent, Connection, EXTENSION_GZIP, EXTENSION_RSYNC, PING_TIMEOUT_DEFAULT,
};
use clearskies_core::files::rsync::{DeltaWriter, Head};
use clearskies_core::ids::{PeerId, RootId, Sha256, Uuid};
use clearskies_core::index::author::{self, Author};
use clearskies_core::index::clock::{Clock, REV_MAX};
use clearskies_core::index::knowledge::Resume;
use clearskies_core::index::record::{EntryContent, EntryValue, Meta, Record, Value};
use clearskies_core::rng::Rng;
use clearskies_core::time::{Now, WallTime};
use clearskies_core::wire::database::{DatabaseMessage, write_update};
use clearskies_core::wire::directory::DirectoryMessage;
use clearskies_core::wire::message::Message;
use clearskies_core::wire::rsync::RsyncMessage;

use super::choices::Choices;
use crate::member::{first_words, sha256};

/// The engine's address, as the liar sees it.
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// Records and requests that it remembers.
const REMEMBERED_MAX: usize = 64;
/// Sizes of its contents: none, small, beyond what is staged as small, and more than one piece.
const SIZES: [usize; 5] = [0, 5, 70_000, 300_000, (1 << 20) + 7];

/// The longest content that it makes up.
const MADE_UP_BYTES_MAX: usize = 2 << 20;
/// Bytes that one of its patches makes, at most.
const PATCH_BYTES: usize = 1 << 20;

/// Keys of its records: names that are there, that are not, and that must not be.
const KEYS: [&str; 24] = [
    "/a",
    "/b",
    "/d",
    "/d/a",
    "/d/b",
    "/d/d",
    "/d/d/a",
    "/link",
    "/link/a",
    "/link/secret",
    "/A",
    "/a.CONFLICT.ABCDEFGH",
    "/a/a",
    "/empty",
    "/.clearskies/share",
    "/.clearskies",
    "/d/.clearskies/x",
    "/../outside/secret",
    "/d/../../outside/secret",
    "//a",
    "/",
    "a",
    "",
    "/d/\u{0}a",
];

/// Targets of its links.
const TARGETS: [&str; 6] = ["a", "/outside", "../outside", "../outside/secret", ".", ""];

/// What a liar is made from where there is but one.
pub const SEED: u8 = 6;

/// What a liar says more of than anybody can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// New files with long names, of contents that it does not give.
    Records,
    /// The same file, again and again with another name.
    Moves,
    /// Knowledge of peers that nobody has heard of.
    Clocks,
    /// Requests for contents that nobody has.
    Requests,
}

/// Bytes of the names that it gives in a flood.
const LONG: usize = 1000;

/// What it is at each start.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    peer: [u8; 32],
    id: [u8; 32],
    key: [u8; 32],
}

/// Lets nobody in.
struct Nobody;

impl Logins for Nobody {
    fn find(&mut self, _: Method, _: Role, _: &[u8; 32], _: &[u8; 32], _: IpAddr) -> Option<Login> {
        None
    }

    fn wrong_proof(&mut self, _: &Login, _: IpAddr) {}
}

/// The member.
#[derive(Debug)]
pub struct Liar {
    seed: u8,
    connection: Connection,
    transport: Transport,
    rng: Rng,
    author: Author,
    next_uuid: u64,
    /// Records of others and its own, as it last heard or said them.
    records: Vec<Record>,
    /// Contents of which it said that there are.
    pub announced: BTreeSet<Sha256>,
    /// The keys that the records which it said had, before and after.
    pub keys_said: BTreeSet<String>,
    /// The records that it said.
    pub uuids_said: BTreeSet<Uuid>,
    /// Files of its own that are right in form, and how many of them it has told over this connection.
    told: Vec<Record>,
    told_here: usize,
    contents: BTreeMap<Sha256, Vec<u8>>,
    /// What it was asked for and did not give.
    asked: Vec<(Sha256, Option<(u64, u64)>)>,
    /// What it was sent signatures for and did not give patches of, and from where on.
    signed: Vec<(Sha256, u64)>,
    /// The other end, once proven.
    pub peer: Option<PeerId>,
    /// The club's keys, once they came.
    pub club: Option<Club>,
    /// Why the connection ended.
    pub closed: Option<CloseReason>,
}

impl Liar {
    /// Calls with a code, to join; `seed` tells liars of one club from each other.
    pub fn join(now: Now, code: &AccessCode, transport: Transport, seed: u8) -> Liar {
        let id = code.access_id();
        let secret = Secret::Password(code_prs(&code.password()).to_vec());
        let login = Login { code: Some(id), ..login([seed; 32], Method::Code, Role::Joiner, id.0, secret) };
        Liar { seed, ..Liar::call(now, login, 0, transport, seed) }
    }

    /// What a later call takes.
    pub fn keys(&self) -> Option<Keys> {
        let club = self.club.as_ref()?;
        let id = club.key_id(Level::ReadWrite)?.0;
        Some(Keys { peer: [self.seed; 32], id, key: *club.level_key(Level::ReadWrite)? })
    }

    /// Calls as the member that it is; `rev` is the last revision that it used.
    pub fn connect(now: Now, keys: &Keys, rev: u64, transport: Transport) -> Liar {
        let secret = Secret::LevelKey(keys.key);
        let login = login(keys.peer, Method::Key, Role::Member, keys.id, secret);
        Liar::call(now, login, rev, transport, keys.peer[0])
    }

    fn call(now: Now, login: Login, rev: u64, transport: Transport, seed: u8) -> Liar {
        // Of several some compress what they say: a few bytes then are many.
        let gzip = (seed % 2 != SEED % 2).then(|| EXTENSION_GZIP.into());
        let extensions = [EXTENSION_RSYNC.into()].into_iter().chain(gzip).collect();
        let config = ConnConfig {
            transport: transport.clone(),
            software: "hand-made/0".into(),
            name: "liar".into(),
            extensions,
            deflating: Deflating::Always,
            ping_timeout: PING_TIMEOUT_DEFAULT,
        };
        let mut rng = Rng::from_seed([8; 32]);
        let author = Author { peer: login.keys.id(), rev, wall: now.wall };
        let connection = Connection::dial(now, THERE, login, &config, &mut rng);
        Liar {
            seed: SEED,
            connection: connection.expect("a simulated channel always opens"),
            transport,
            rng,
            author,
            next_uuid: 0,
            records: Vec::new(),
            announced: BTreeSet::new(),
            keys_said: BTreeSet::new(),
            uuids_said: BTreeSet::new(),
            told: Vec::new(),
            told_here: 0,
            contents: BTreeMap::new(),
            asked: Vec::new(),
            signed: Vec::new(),
            peer: None,
            club: None,
            closed: None,
        }
    }

    /// Goes on in another connection with what this one knew.
    pub fn again(&mut self, now: Now, keys: &Keys) {
        let new = Liar::connect(now, keys, self.author.rev, self.transport.clone());
        self.connection = new.connection;
        self.asked.clear();
        self.told_here = 0;
        self.closed = None;
    }

    /// The last revision that it used.
    pub fn rev(&self) -> u64 {
        self.author.rev
    }

    /// How many requests for contents it has not answered.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// What it has to send, about so much.
    pub fn transmit(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        self.connection.poll_transmit(out, limit)
    }

    /// Takes bytes that came to it.
    pub fn receive(&mut self, now: Now, bytes: &[u8]) {
        self.connection.handle_received(now, bytes, &mut Nobody, &mut self.rng);
        while let Some(event) = self.connection.poll_event() {
            match event {
                ConnEvent::Ready(ready) => {
                    self.peer = Some(ready.peer);
                    if ready.method == Method::Key {
                        self.opened();
                    }
                }
                ConnEvent::Message(message) => self.hear(message),
                ConnEvent::Payload { .. } => {}
                ConnEvent::Closed(reason) => self.closed = Some(reason),
            }
        }
    }

    fn opened(&mut self) {
        first_words().iter().for_each(|message| self.say(message));
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Keys(keys) => {
                self.club = Club::import(&keys, keys.access_level, None, &|_| false).ok();
                assert!(self.club.is_some(), "an honest engine's keys are refused");
                self.say(&Message::KeysAcknowledgment);
                self.opened();
            }
            Message::Database(DatabaseMessage::Update { record, .. }) => self.remember(*record),
            Message::Directory(DirectoryMessage::Get { sha256, range })
                if self.asked.len() < REMEMBERED_MAX =>
            {
                self.asked.push((sha256, range));
            }
            Message::Rsync(RsyncMessage::Signature { sha256, start, .. })
                if self.signed.len() < REMEMBERED_MAX =>
            {
                self.signed.push((sha256, start));
            }
            _ => {}
        }
    }

    fn remember(&mut self, record: Record) {
        self.records.retain(|known| known.uuid != record.uuid);
        if self.records.len() == REMEMBERED_MAX {
            self.records.remove(0);
        }
        self.records.push(record);
    }

    fn say(&mut self, message: &Message) {
        self.connection.send(message);
    }

    /// Says one thing that the bytes choose.
    pub fn speak(&mut self, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0..4 => self.say_new(choices),
            4..8 => self.say_changed(choices),
            8 | 9 => self.answer(choices),
            10 => self.say_clock(choices),
            11 => self.say_of_contents(choices),
            12 if choices.below(8) == 0 => {
                let length = choices.below(128);
                let body = choices.take(length).to_vec();
                self.connection.send_body(|out| out.extend_from_slice(&body));
            }
            13 if choices.below(8) == 0 => {
                let length = choices.below(64);
                let body = choices.take(length).to_vec();
                self.connection.send_statement(&body, &[choices.byte(); 64]);
            }
            14 if choices.below(8) == 0 => self.say_of_the_link(choices),
            12..15 => self.answer(choices),
            _ => self.say_word(),
        }
    }

    /// Says something of contents and of files of its own that is right in form, whatever it gives of them.
    pub fn speak_of_contents(&mut self, choices: &mut Choices<'_>) {
        match choices.below(4) {
            0 => self.say_of_contents(choices),
            1 => self.answer(choices),
            2 => self.say_word(),
            _ => self.say_file(choices),
        }
    }

    /// A new file at a place of its own, whose content it has.
    fn say_file(&mut self, choices: &mut Choices<'_>) {
        let key = format!("/from the liar/{}", choices.below(8));
        let content = vec![choices.byte(); *choices.pick(&SIZES)];
        let (size, sha256) = (content.len() as u64, sha256(&content));
        self.announced.insert(sha256);
        self.contents.insert(sha256, content);
        let value = Value::Entry(EntryValue::new(EntryContent::File { size, sha256 }));
        let uuid = self.uuid();
        if let Ok(record) = author::create(&mut self.author, uuid, key, value, Meta::default(), None) {
            self.keys_said.insert(record.key.clone());
            self.uuids_said.insert(record.uuid);
            self.remember(record.clone());
            self.told.push(record);
            self.say_word();
        }
    }

    /// Says so many things of one kind.
    pub fn flood(&mut self, flood: Flood, count: u64) {
        for n in 0..count {
            let digest =
                sha256(&[&self.author.peer.0[..], &self.author.rev.to_be_bytes(), &n.to_be_bytes()].concat());
            match flood {
                Flood::Records | Flood::Moves => {
                    let name = format!("{n:0>20}");
                    let key = [0; LONG / 20].map(|_| name.as_str()).join("/");
                    let value = EntryValue::new(EntryContent::File { size: 1 + n, sha256: digest });
                    let (key, value) = (format!("/flood/{key}"), Value::Entry(value));
                    let uuid = if flood == Flood::Moves { Uuid([9; 16]) } else { self.uuid() };
                    let record = author::create(&mut self.author, uuid, key, value, Meta::default(), None);
                    if let Ok(record) = record {
                        self.connection.send_body(|out| write_update(&record, None, out));
                    }
                }
                Flood::Clocks => {
                    let mut peer = [0; 16];
                    peer.copy_from_slice(&digest.0[..16]);
                    let knowledge = Clock::of(PeerId(peer), 1 + n);
                    self.say(&Message::Database(DatabaseMessage::Knowledge { knowledge }));
                }
                Flood::Requests => {
                    let range = Some((0, 1));
                    self.say(&Message::Directory(DirectoryMessage::Get { sha256: digest, range }));
                }
            }
        }
    }

    fn uuid(&mut self) -> Uuid {
        self.next_uuid += 1;
        let mut uuid = self.author.peer.0;
        uuid[8..].copy_from_slice(&self.next_uuid.to_be_bytes());
        Uuid(uuid)
    }

    /// A file, folder or link that was not there.
    fn say_new(&mut self, choices: &mut Choices<'_>) {
        let key = *choices.pick(&KEYS);
        let value = self.value(choices);
        let uuid = self.uuid();
        let meta = self.meta(choices);
        if let Ok(record) = author::create(&mut self.author, uuid, key.into(), value, meta, None) {
            self.say_record(record, choices);
        }
    }

    /// A change of a record that it knows.
    fn say_changed(&mut self, choices: &mut Choices<'_>) {
        if self.records.is_empty() {
            return;
        }
        let from = choices.pick(&self.records).clone();
        let (act, key) = (choices.below(6), *choices.pick(&KEYS));
        self.keys_said.insert(from.key.clone());
        self.uuids_said.insert(from.uuid);
        let changed = match act {
            0 => author::delete(&mut self.author, &from),
            1 => author::move_to(&mut self.author, &from, key.into()),
            2 => author::touch_empty(&mut self.author, &from),
            3 => {
                let meta = self.meta(choices);
                author::set_meta(&mut self.author, &from, meta)
            }
            _ => {
                let value = self.value(choices);
                author::edit(&mut self.author, &from, value, None)
            }
        };
        if let Ok(record) = changed {
            self.say_record(record, choices);
        }
    }

    fn value(&mut self, choices: &mut Choices<'_>) -> Value {
        match choices.below(8) {
            0 => Value::Entry(EntryValue::new(EntryContent::Dir)),
            1 => Value::Entry(EntryValue::new(EntryContent::Link((*choices.pick(&TARGETS)).into()))),
            2 => Value::Null,
            3 => Value::Json("[1]".into()),
            kind => {
                let content = vec![choices.byte(); *choices.pick(&SIZES)];
                let (mut size, sha256) = (content.len() as u64, sha256(&content));
                self.announced.insert(sha256);
                self.contents.insert(sha256, content);
                // What it says of the size is not always so.
                if kind == 4 {
                    size = size.wrapping_add_signed(i64::from(choices.byte() as i8)).min(1 << 61);
                }
                let mut value = EntryValue::new(EntryContent::File { size, sha256 });
                if kind == 5 {
                    value.mtime = Some(WallTime(i64::from(choices.byte() as i8) << 56));
                }
                if kind == 6 {
                    value.conflict_source = self.records.first().map(|record| record.uuid);
                }
                Value::Entry(value)
            }
        }
    }

    fn meta(&mut self, choices: &mut Choices<'_>) -> Meta {
        match choices.below(4) {
            0 => Meta { unix_mode: Some(choices.short() as u32 & 0o7777), ..Meta::default() },
            1 => Meta { mtime: Some(WallTime(i64::from(choices.byte() as i8) << 56)), ..Meta::default() },
            _ => Meta::default(),
        }
    }

    /// Says a record, as it is or with bookkeeping that is not true.
    fn say_record(&mut self, mut record: Record, choices: &mut Choices<'_>) {
        let other = self.peer.unwrap_or(PeerId([1; 16]));
        match choices.below(32) {
            // It has seen what nobody has done yet.
            0 => record.clock.set(other, record.clock.get(other) + u64::from(choices.byte())),
            1 => record.value_clock.set(other, u64::from(choices.byte())),
            // Another made it.
            2 => {
                let rev = u64::from(choices.byte());
                (record.update.peer, record.update.rev) = (other, rev);
                record.clock.set(other, rev);
            }
            3 => record.update.time = WallTime(i64::from(choices.byte() as i8) << 56),
            4 => (record.update.rev, record.value_change.rev) = (REV_MAX, REV_MAX),
            5 => record.deleted_clock = record.clock.clone(),
            6 => record.value_clock = Clock::new(),
            // A number that it has used for something else.
            7 => self.author.rev = self.author.rev.saturating_sub(1),
            8 => record.uuid = Uuid([choices.byte(); 16]),
            _ => {}
        }
        let at = (choices.below(4) == 0)
            .then(|| Resume { token: [choices.byte(); 16], arrival: choices.short() as u64 });
        self.keys_said.insert(record.key.clone());
        self.uuids_said.insert(record.uuid);
        self.connection.send_body(|out| write_update(&record, at, out));
        self.remember(record);
        if choices.below(2) == 0 {
            self.say_word();
        }
    }

    /// Says that all its own changes so far were told, and tells its files where they were not.
    fn say_word(&mut self) {
        for record in self.told.iter().skip(self.told_here) {
            self.connection.send_body(|out| write_update(record, None, out));
        }
        self.told_here = self.told.len();
        // Of a change that is not made yet it would lie to whoever is to hear of it later.
        if self.author.rev > 0 {
            let knowledge = Clock::of(self.author.peer, self.author.rev);
            self.say(&Message::Database(DatabaseMessage::Knowledge { knowledge }));
        }
    }

    /// Clocks that are not so.
    fn say_clock(&mut self, choices: &mut Choices<'_>) {
        let mut clock = Clock::of(self.author.peer, self.author.rev.max(1));
        let other = self.peer.unwrap_or(PeerId([1; 16]));
        match choices.below(4) {
            0 => clock.set(other, 1 + choices.short() as u64),
            1 => clock.set(PeerId([choices.byte(); 16]), REV_MAX),
            2 => clock = Clock::new(),
            _ => clock.set(self.author.peer, REV_MAX),
        }
        let message = match choices.below(4) {
            0 => DatabaseMessage::Current { knowledge: clock },
            1 => DatabaseMessage::Knowledge { knowledge: clock },
            2 => DatabaseMessage::GetUpdates { since: clock, resume: None },
            _ => {
                let resume = Some(Resume { token: [choices.byte(); 16], arrival: choices.short() as u64 });
                DatabaseMessage::GetUpdates { since: clock, resume }
            }
        };
        self.say(&Message::Database(message));
    }

    /// Answers what it was asked for, in one way or another.
    pub fn answer(&mut self, choices: &mut Choices<'_>) {
        if let Some((sha256, start)) = self.signed.pop() {
            return self.answer_patch(sha256, start, choices);
        }
        if self.asked.is_empty() {
            return;
        }
        let at = choices.below(self.asked.len());
        let (sha256, range) = if choices.below(8) == 0 { self.asked[at] } else { self.asked.remove(at) };
        let made_up;
        let content = match self.contents.get(&sha256) {
            Some(content) => content.as_slice(),
            None => {
                // What it has not got it makes up, as long as it must be.
                made_up = vec![b'?'; self.size_of(&sha256)];
                &made_up
            }
        };
        let (start, length) = range.unwrap_or((0, content.len() as u64));
        let from = usize::try_from(start).unwrap_or(usize::MAX).min(content.len());
        let end = usize::try_from(start.saturating_add(length)).unwrap_or(usize::MAX).min(content.len());
        let mut bytes = content[from..end].to_vec();
        let mut range = (start, length);
        match choices.below(16) {
            0 => return self.say(&Message::Directory(DirectoryMessage::NotPresent { sha256 })),
            1 => {
                let code = "io".into();
                return self.say(&Message::Directory(DirectoryMessage::GetError { sha256, code }));
            }
            2 => bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1),
            3 => bytes.truncate(bytes.len() / 2),
            4 => bytes.push(0),
            5 => range.0 = range.0.wrapping_add(choices.short() as u64) >> 1,
            6 => range.1 = choices.short() as u64,
            7 => bytes.clear(),
            _ => {}
        }
        self.connection
            .send_with_payload(&Message::Directory(DirectoryMessage::Data { sha256, range }), bytes);
    }

    /// Gives a patch, which may make anything or nothing.
    fn answer_patch(&mut self, sha256: Sha256, start: u64, choices: &mut Choices<'_>) {
        let made_up = vec![b'?'; self.size_of(&sha256)];
        let content = self.contents.get(&sha256).unwrap_or(&made_up);
        let from = usize::try_from(start).unwrap_or(usize::MAX).min(content.len());
        let piece = &content[from..content.len().min(from.saturating_add(PATCH_BYTES))];
        let mut range = (start, piece.len() as u64);
        let (act, mut writer) = (choices.below(16), DeltaWriter::default());
        match act {
            0 => writer.copy(u64::from(choices.byte()) << choices.below(50), range.1),
            1 => writer.copy(0, range.1),
            2 => writer.literal(&vec![choices.byte(); piece.len()]),
            _ => writer.literal(piece),
        }
        let mut delta = writer.finish();
        match act {
            3 => delta.truncate(delta.len() / 2),
            4 => delta.push(0),
            5 => range.0 = range.0.wrapping_add(choices.short() as u64) >> 1,
            6 => range.1 = choices.short() as u64,
            7 => delta.iter_mut().take(choices.below(9)).for_each(|byte| *byte ^= 1),
            _ => {}
        }
        if act != 8 {
            self.connection.send_with_payload(&Message::Rsync(RsyncMessage::Patch { sha256, range }), delta);
        }
        if act != 9 {
            self.say(&Message::Rsync(RsyncMessage::End { sha256 }));
        }
    }

    /// How long a content is by the records that it knows.
    fn size_of(&self, wanted: &Sha256) -> usize {
        let size = |record: &Record| match record.content() {
            Some(EntryContent::File { size, sha256 }) if sha256 == wanted => usize::try_from(*size).ok(),
            _ => None,
        };
        self.records.iter().find_map(size).unwrap_or_default().min(MADE_UP_BYTES_MAX)
    }

    /// Says what it has, and asks for what others have.
    fn say_of_contents(&mut self, choices: &mut Choices<'_>) {
        let known: Vec<Sha256> = self.records.iter().filter_map(Record::sha256).collect();
        let sha256 = if known.is_empty() { Sha256([choices.byte(); 32]) } else { *choices.pick(&known) };
        let range = (choices.below(2) == 0)
            .then(|| (u64::from(choices.byte()) << choices.below(50), choices.short() as u64));
        let message = match choices.below(8) {
            0 => DirectoryMessage::GetPresence,
            1 => DirectoryMessage::Present { sha256 },
            2 => DirectoryMessage::NotPresent { sha256 },
            3 => {
                let filter = DirectoryMessage::BloomFilter { k_value: u32::from(choices.byte()) };
                let bits = vec![choices.byte(); choices.short()];
                self.connection.send_with_payload(&Message::Directory(filter), bits);
                return;
            }
            4 => {
                let data = DirectoryMessage::Data { sha256, range: range.unwrap_or((0, 5)) };
                let bytes = vec![choices.byte(); choices.below(9)];
                self.connection.send_with_payload(&Message::Directory(data), bytes);
                return;
            }
            5 => {
                let start = range.map_or(0, |(start, _)| start);
                let (old_sha256, block) = (Sha256([choices.byte(); 32]), choices.short() as u32);
                let message = RsyncMessage::Signature { sha256, old_sha256, start };
                let mut signature = Head { block, hash: 8 }.encode().to_vec();
                signature.resize(signature.len() + 12 * choices.below(9), choices.byte());
                self.connection.send_with_payload(&Message::Rsync(message), signature);
                return;
            }
            6 => return self.say(&Message::Rsync(RsyncMessage::End { sha256 })),
            _ => DirectoryMessage::Get { sha256, range },
        };
        self.say(&Message::Directory(message));
    }

    fn say_of_the_link(&mut self, choices: &mut Choices<'_>) {
        match choices.below(4) {
            0 => self.say(&Message::Ping { timeout: choices.short() as u64 }),
            1 => self.say(&Message::KeysAcknowledgment),
            2 => {
                if let Some(keys) = self.club.as_ref().and_then(|club| club.export(Level::ReadWrite, "")) {
                    self.say(&Message::Keys(Box::new(keys)));
                }
            }
            _ => self.connection.close("bye", "because"),
        }
    }
}

fn login(peer: [u8; 32], method: Method, role: Role, id: [u8; 32], secret: Secret) -> Login {
    Login {
        club: RootId(1),
        level: Level::ReadWrite,
        method,
        role,
        id,
        secret,
        code: None,
        keys: Arc::new(PeerKeys::from_seed(&peer)),
        run: [7; 16],
        writer: None,
        writer_public: None,
    }
}
