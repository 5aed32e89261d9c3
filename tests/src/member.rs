//! A genuine member that says whatever a test wants: it joins with an access code and holds the club's keys, so that
//! nothing but what it says can give it away. It speaks over core's own connection, and has neither folder nor store.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant as Began};

use clearskies_core::channel::Transport;
use clearskies_core::channel::tls::TlsIdentity;
use clearskies_core::club::code::AccessCode;
use clearskies_core::club::cpace::code_prs;
use clearskies_core::club::identity::PeerKeys;
use clearskies_core::club::keys::Club;
use clearskies_core::club::level::Level;
use clearskies_core::connection::login::{Login, Logins, Method, Role, Secret};
use clearskies_core::connection::pack::Deflating;
use clearskies_core::connection::reason::CloseReason;
use clearskies_core::connection::{ConnConfig, ConnEvent, Connection, PING_TIMEOUT_DEFAULT};
use clearskies_core::ids::{PeerId, RootId, Sha256, Uuid};
use clearskies_core::index::author::{self, Author};
use clearskies_core::index::clock::Clock;
use clearskies_core::index::record::{EntryContent, EntryValue, Meta, Record, Value};
use clearskies_core::rng::Rng;
use clearskies_core::time::{Instant, Now, WallTime};
use clearskies_core::wire::database::{DatabaseMessage, write_update};
use clearskies_core::wire::directory::DirectoryMessage;
use clearskies_core::wire::message::Message;

use crate::daemon::{DEADLINE, Node};
use crate::foreign::true_wall_ns;

/// What is read off the socket at once, and what is sealed for it.
const STEP_BYTES: usize = 256 << 10;
/// How long a turn without anything to do waits.
const IDLE: Duration = Duration::from_millis(2);
/// The only club that it is in.
const CLUB: RootId = RootId(1);

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    Sha256::from_slice(digest.as_ref()).expect("a SHA-256 has 32 bytes")
}

/// What a member says first: it asks for all records, and says that it has told all that it knows.
pub fn first_words() -> [Message; 2] {
    let asks = DatabaseMessage::GetUpdates { since: Clock::new(), resume: None };
    [asks, DatabaseMessage::Current { knowledge: Clock::new() }].map(Message::Database)
}

/// The value of a file.
pub fn file(content: &[u8]) -> Value {
    file_of(content.len() as u64, sha256(content))
}

/// The value of a file of which only size and SHA-256 are named.
pub fn file_of(size: u64, sha256: Sha256) -> Value {
    Value::Entry(EntryValue::new(EntryContent::File { size, sha256 }))
}

/// The value of a symbolic link.
pub fn link(target: &str) -> Value {
    Value::Entry(EntryValue::new(EntryContent::Link(target.into())))
}

/// Lets nobody in.
struct Nobody;

impl Logins for Nobody {
    fn find(&mut self, _: Method, _: Role, _: &[u8; 32], _: &[u8; 32], _: std::net::IpAddr) -> Option<Login> {
        None
    }

    fn wrong_proof(&mut self, _: &Login, _: std::net::IpAddr) {}
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    connection: Connection,
    unsent: Vec<u8>,
}

/// The member.
#[derive(Debug)]
pub struct Member {
    keys: Arc<PeerKeys>,
    club: Option<Club>,
    rng: Rng,
    began: Began,
    link: Option<Link>,
    to: String,
    /// Who is at the other end.
    pub peer: Option<PeerId>,
    /// What it authors.
    pub author: Author,
    next_uuid: u64,
    /// What it gives to whoever asks for a content: these bytes, whatever their SHA-256.
    pub contents: BTreeMap<Sha256, Vec<u8>>,
    /// Whether it answers requests for contents at all.
    pub serves: bool,
    /// Bytes of contents that it gave.
    pub served_bytes: u64,
    /// Messages that came, but those that it answers by itself.
    pub heard: Vec<Message>,
    /// Bytes of payloads that came.
    pub payload_bytes: u64,
    /// Why the last connection ended.
    pub closed: Option<CloseReason>,
}

impl Member {
    /// Joins a node's share with a code.
    pub fn join(code: &str, to: &Node) -> Member {
        let code = AccessCode::parse(code).expect("a node prints right codes");
        let mut rng = Rng::from_seed(std::array::from_fn(|at| code.access_id().0[at] ^ 0x5a));
        let keys = Arc::new(PeerKeys::generate(&mut rng));
        let author = Author { peer: keys.id(), rev: 0, wall: WallTime(true_wall_ns()) };
        let mut member = Member {
            keys,
            club: None,
            rng,
            began: Began::now(),
            link: None,
            to: to.addr(),
            peer: None,
            author,
            next_uuid: 0,
            contents: BTreeMap::new(),
            serves: true,
            served_bytes: 0,
            heard: Vec::new(),
            payload_bytes: 0,
            closed: None,
        };
        let id = code.access_id();
        let secret = Secret::Password(code_prs(&code.password()).to_vec());
        let login = member.login(Method::Code, Role::Joiner, id.0, secret);
        member.dial(Login { code: Some(id), ..login });
        member.until("it is let in", |member| member.is_subscribed());
        member
    }

    /// Connects anew, as the member that it is.
    pub fn connect(&mut self) {
        let club = self.club.as_ref().expect("it has joined");
        let id = club.key_id(Level::ReadWrite).expect("it has the keys of its level");
        let key = *club.level_key(Level::ReadWrite).expect("it has the keys of its level");
        let login = self.login(Method::Key, Role::Member, id.0, Secret::LevelKey(key));
        self.heard.clear();
        self.dial(login);
        self.until("it is let in again", |member| member.is_subscribed());
    }

    /// Leaves without a word.
    pub fn hang_up(&mut self) {
        self.link = None;
    }

    fn login(&self, method: Method, role: Role, id: [u8; 32], secret: Secret) -> Login {
        Login {
            club: CLUB,
            level: Level::ReadWrite,
            method,
            role,
            id,
            secret,
            code: None,
            keys: self.keys.clone(),
            run: [7; 16],
            writer: None,
            writer_public: None,
        }
    }

    fn dial(&mut self, login: Login) {
        let stream = TcpStream::connect(&self.to).expect("the daemon listens");
        stream.set_nonblocking(true).expect("a socket can be set so");
        let config = ConnConfig {
            transport: Transport::Tls(TlsIdentity::new(&mut self.rng)),
            software: "hand-made/0".into(),
            name: "liar".into(),
            extensions: Arc::new([]),
            deflating: Deflating::default(),
            ping_timeout: PING_TIMEOUT_DEFAULT,
        };
        let ip = stream.peer_addr().expect("it is connected").ip();
        let connection = Connection::dial(self.now(), ip, login, &config, &mut self.rng).expect("TLS begins");
        self.closed = None;
        self.link = Some(Link { stream, connection, unsent: Vec::new() });
    }

    fn now(&self) -> Now {
        let passed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { mono: Instant(1 + passed), wall: WallTime(true_wall_ns()) }
    }

    /// The address that the other side sees.
    pub fn addr(&self) -> String {
        let link = self.link.as_ref().expect("it is connected");
        link.stream.local_addr().expect("it is connected").to_string()
    }

    /// Whether the other side asked for our records: from then on it hears us.
    fn is_subscribed(&self) -> bool {
        let asks =
            |message: &Message| matches!(message, Message::Database(DatabaseMessage::GetUpdates { .. }));
        self.heard.iter().any(asks)
    }

    /// Lets what is due happen; whether anything did.
    pub fn turn(&mut self) -> bool {
        let sent = self.send_some();
        let now = self.now();
        let Some(link) = &mut self.link else { return false };
        link.connection.handle_timeout(now);
        let mut bytes = vec![0; STEP_BYTES];
        match link.stream.read(&mut bytes) {
            Ok(length) if length > 0 => {
                link.connection.handle_received(now, &bytes[..length], &mut Nobody, &mut self.rng);
                self.take_events();
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => sent,
            _ => {
                self.take_events();
                self.closed.get_or_insert(CloseReason::Ended);
                self.link = None;
                true
            }
        }
    }

    /// Sends what waits, as far as the system takes it, and reads nothing.
    pub fn send_some(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        if link.unsent.is_empty() {
            link.connection.poll_transmit(&mut link.unsent, STEP_BYTES);
        }
        match link.stream.write(&link.unsent) {
            Ok(written) if written > 0 => {
                link.unsent.drain(..written);
                true
            }
            _ => false,
        }
    }

    /// Lets it run until something holds, and fails with `what` if it does not come to hold.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Member) -> bool) {
        let begun = Began::now();
        let mut looked: Option<Began> = None;
        loop {
            let busy = self.turn();
            if looked.is_none_or(|at| at.elapsed() > Duration::from_millis(50)) {
                if holds(self) {
                    return;
                }
                looked = Some(Began::now());
            }
            assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}; {:?}", self.closed);
            if !busy {
                std::thread::sleep(IDLE);
            }
        }
    }

    /// Lets it run until the other side has closed the connection; its word and its sentence.
    pub fn sent_away(&mut self) -> (String, String) {
        self.until("the daemon closes", |member| member.closed.is_some());
        match self.closed.clone() {
            Some(CloseReason::ByPeer { code, message }) => (code, message),
            other => panic!("closed without a word: {other:?}"),
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.link.as_mut().and_then(|link| link.connection.poll_event()) {
            match event {
                ConnEvent::Ready(ready) => {
                    self.peer = Some(ready.peer);
                    if ready.method == Method::Key {
                        self.opened();
                    }
                }
                ConnEvent::Message(message) => self.message(message),
                ConnEvent::Payload { bytes, .. } => self.payload_bytes += bytes.len() as u64,
                ConnEvent::Closed(reason) => {
                    self.closed.get_or_insert(reason);
                }
            }
        }
    }

    fn opened(&mut self) {
        first_words().iter().for_each(|message| self.say(message));
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Keys(keys) => {
                let club = Club::import(&keys, keys.access_level, None, &|_| false)
                    .expect("an honest daemon's keys");
                self.club = Some(club);
                self.say(&Message::KeysAcknowledgment);
                self.opened();
            }
            Message::Directory(DirectoryMessage::Get { sha256, range }) if self.serves => {
                let Some(content) = self.contents.get(&sha256) else {
                    return self.say(&Message::Directory(DirectoryMessage::NotPresent { sha256 }));
                };
                let (start, length) = range.unwrap_or((0, content.len() as u64));
                let bytes = (start..start + length)
                    .map(|at| usize::try_from(at).ok().and_then(|at| content.get(at).copied()).unwrap_or(0));
                let data = DirectoryMessage::Data { sha256, range: (start, length) };
                let bytes = bytes.collect();
                self.served_bytes += length;
                self.connection().send_with_payload(&Message::Directory(data), bytes);
            }
            message => self.heard.push(message),
        }
    }

    fn connection(&mut self) -> &mut Connection {
        &mut self.link.as_mut().expect("it is connected").connection
    }

    /// Says a message.
    pub fn say(&mut self, message: &Message) {
        if let Some(link) = &mut self.link {
            link.connection.send(message);
        }
    }

    /// Says a message with a payload.
    pub fn say_with(&mut self, message: &DirectoryMessage, payload: Vec<u8>) {
        self.connection().send_with_payload(&Message::Directory(message.clone()), payload);
    }

    /// Says these bytes as a message's body, whatever they are.
    pub fn say_body(&mut self, body: &[u8]) {
        self.connection().send_body(|out| out.extend_from_slice(body));
    }

    /// Says a record, whatever it claims.
    pub fn say_record(&mut self, record: &Record) {
        self.connection().send_body(|out| write_update(record, None, out));
    }

    /// Says that all its own changes so far were told.
    pub fn say_knowledge(&mut self) {
        let knowledge = Clock::of(self.author.peer, self.author.rev);
        self.say(&Message::Database(DatabaseMessage::Knowledge { knowledge }));
    }

    /// A new record of its own, right in all but what its key and value may claim.
    pub fn record(&mut self, key: &str, value: Value) -> Record {
        self.next_uuid += 1;
        let mut uuid = self.author.peer.0;
        uuid[8..].copy_from_slice(&self.next_uuid.to_be_bytes());
        let (key, uuid) = (key.into(), Uuid(uuid));
        author::create(&mut self.author, uuid, key, value, Meta::default(), None)
            .expect("a record within limits")
    }

    /// Says a new file, and has its content ready.
    pub fn say_file(&mut self, key: &str, content: &[u8]) {
        self.contents.insert(sha256(content), content.to_vec());
        let record = self.record(key, file(content));
        self.say_record(&record);
        self.say_knowledge();
    }
}
