//! Two connections in memory: everything is driven by hand, byte by byte where it matters.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;

use super::auth::hello_tag;
use super::login::Secret;
use super::*;
use crate::channel::tls::TlsIdentity;
use crate::club::identity::{PeerKeys, SigningKey};
use crate::ids::Sha256;
use crate::wire::directory::DirectoryMessage;
use crate::wire::frame::PIECE_MAX;

mod gzip;

const HERE: IpAddr = IpAddr::V4(core::net::Ipv4Addr::LOCALHOST);

fn peer_keys(seed: u8) -> Arc<PeerKeys> {
    Arc::new(PeerKeys::from_seed(&[seed; 32]))
}

fn signing_key(seed: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[seed; 32]))
}

fn by_key(peer: u8, level: Level) -> Login {
    Login {
        club: RootId(7),
        level,
        method: Method::Key,
        role: Role::Member,
        id: [0x11; 32],
        secret: Secret::LevelKey([0x22; 32]),
        code: None,
        keys: peer_keys(peer),
        run: [peer; 16],
        writer: None,
        writer_public: None,
    }
}

fn by_code(peer: u8, role: Role) -> Login {
    Login {
        method: Method::Code,
        role,
        secret: Secret::Password(b"password".to_vec()),
        code: Some(AccessId([0x11; 32])),
        ..by_key(peer, Level::ReadOnly)
    }
}

/// The logins of one node, and how often one of them was guessed at.
#[derive(Default)]
struct Book {
    logins: Vec<Login>,
    wrong: usize,
}

impl Logins for Book {
    fn find(
        &mut self,
        method: Method,
        _: Role,
        tag: &[u8; 32],
        exporter: &[u8; 32],
        _: IpAddr,
    ) -> Option<Login> {
        self.logins.iter().find(|l| l.method == method && hello_tag(&l.id, exporter) == *tag).cloned()
    }

    fn wrong_proof(&mut self, _: &Login, from: IpAddr) {
        assert_eq!(from, HERE);
        self.wrong += 1;
    }
}

struct Side {
    conn: Connection,
    book: Book,
    events: Vec<ConnEvent>,
    sent: usize,
    rng: Rng,
}

impl Side {
    fn receive(&mut self, now: Now, bytes: &[u8]) {
        self.conn.handle_received(now, bytes, &mut self.book, &mut self.rng);
    }

    fn drain(&mut self) {
        while let Some(event) = self.conn.poll_event() {
            self.events.push(event);
        }
    }

    fn ready(&self) -> &Ready {
        match self.events.first() {
            Some(ConnEvent::Ready(ready)) => ready,
            other => panic!("{other:?}"),
        }
    }

    fn closed(&self) -> Option<&CloseReason> {
        match self.events.last() {
            Some(ConnEvent::Closed(reason)) => Some(reason),
            _ => None,
        }
    }
}

struct Pair {
    client: Side,
    server: Side,
    now: Now,
    /// Bytes are cut at random when set.
    cuts: Option<Rng>,
}

fn config(transport: Transport) -> ConnConfig {
    ConnConfig {
        transport,
        software: "clearskies/0.1.0".into(),
        name: "desk".into(),
        extensions: Arc::new(["a".into(), "b".into()]),
        deflating: Deflating::Always,
        ping_timeout: PING_TIMEOUT_DEFAULT,
    }
}

fn tls() -> Transport {
    Transport::Tls(TlsIdentity::new(&mut Rng::from_seed([9; 32])))
}

impl Pair {
    fn new(transport: Transport, client: Login, server: Vec<Login>) -> Pair {
        let config = config(transport);
        Pair::with(&config, &config, client, server)
    }

    fn with(
        client_config: &ConnConfig,
        server_config: &ConnConfig,
        client: Login,
        server: Vec<Login>,
    ) -> Pair {
        let now = Now { mono: Instant(0), wall: WallTime(1_700_000_000_000_000_000) };
        let (mut a, mut b) = (Rng::from_seed([1; 32]), Rng::from_seed([2; 32]));
        let dialed = Connection::dial(now, HERE, client, client_config, &mut a).unwrap();
        let accepted = Connection::accept(now, HERE, server_config, &mut b).unwrap();
        let side =
            |conn, logins, rng| Side { conn, book: Book { logins, wrong: 0 }, events: vec![], sent: 0, rng };
        Pair { client: side(dialed, vec![], a), server: side(accepted, server, b), now, cuts: None }
    }

    /// Carries bytes until both sides are quiet.
    fn run(&mut self) {
        loop {
            let there = Self::carry(&mut self.client, &mut self.server, self.now, &mut self.cuts);
            let back = Self::carry(&mut self.server, &mut self.client, self.now, &mut self.cuts);
            if !there && !back {
                return;
            }
        }
    }

    fn carry(from: &mut Side, to: &mut Side, now: Now, cuts: &mut Option<Rng>) -> bool {
        let mut bytes = Vec::new();
        let any = from.conn.poll_transmit(&mut bytes, 200_000);
        assert_eq!(any, !bytes.is_empty());
        from.sent += bytes.len();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = match cuts {
                Some(rng) => {
                    1 + u16::from_le_bytes(rng.bytes()) as usize % if rest.len() > 9000 { 9000 } else { 60 }
                }
                None => rest.len(),
            };
            let (slice, later) = rest.split_at(length.min(rest.len()));
            to.receive(now, slice);
            to.drain();
            rest = later;
        }
        from.drain();
        any
    }

    fn pass(&mut self, seconds: u64) {
        self.now.mono = self.now.mono.plus(Duration::from_secs(seconds));
        for side in [&mut self.client, &mut self.server] {
            side.conn.handle_timeout(self.now);
            side.drain();
        }
    }

    fn reasons(&self) -> (Option<&CloseReason>, Option<&CloseReason>) {
        (self.client.closed(), self.server.closed())
    }
}

fn ready_pair(transport: Transport) -> Pair {
    let mut pair = Pair::new(transport, by_key(1, Level::ReadWrite), vec![by_key(2, Level::ReadWrite)]);
    pair.run();
    assert!(pair.client.conn.is_ready() && pair.server.conn.is_ready(), "{:?}", pair.reasons());
    pair
}

#[test]
fn both_methods_and_roles_over_both_channels() {
    for transport in [Transport::Plain, tls()] {
        for (client, server) in [
            (by_key(1, Level::Untrusted), by_key(2, Level::Untrusted)),
            (by_key(1, Level::ReadWrite), by_key(2, Level::ReadWrite)),
            (by_code(1, Role::Joiner), by_code(2, Role::Member)),
            (by_code(1, Role::Member), by_code(2, Role::Joiner)),
        ] {
            let other = Login { id: [0x99; 32], ..server.clone() };
            let mut pair = Pair::new(transport.clone(), client.clone(), vec![other, server.clone()]);
            pair.cuts = Some(Rng::from_seed([3; 32]));
            pair.run();
            let (at_client, at_server) = (pair.client.ready(), pair.server.ready());
            assert_eq!(at_client.peer, server.keys.id());
            assert_eq!(at_server.peer, client.keys.id());
            assert_eq!(at_server.peer_public, client.keys.public());
            assert_eq!((at_client.role, at_server.role), (client.role, server.role));
            assert_eq!(at_client.code, client.code);
            assert_eq!((at_client.level, at_client.club), (client.level, RootId(7)));
            assert_eq!(at_client.run, server.run);
            assert_eq!(at_client.remote_time, pair.now.wall);
            assert_eq!(at_client.extensions, ["a", "b"]);
            assert_eq!(at_client.writer, client.level == Level::ReadWrite);
            assert_eq!(at_client.name.is_some(), client.level != Level::Untrusted);
            assert_eq!((pair.client.events.len(), pair.server.events.len()), (1, 1));
            assert_eq!((pair.client.book.wrong, pair.server.book.wrong), (0, 0));
        }
    }
}

#[test]
fn extensions_in_common() {
    let ours = config(Transport::Plain);
    let theirs = ConnConfig { extensions: Arc::new(["b".into(), "c".into()]), ..ours.clone() };
    let logins = vec![by_key(2, Level::ReadWrite)];
    let mut pair = Pair::with(&ours, &theirs, by_key(1, Level::ReadWrite), logins);
    pair.run();
    assert_eq!(pair.client.ready().extensions, ["b"]);
    assert_eq!(pair.server.ready().extensions, ["b"]);
}

/// Records go in batches where both sides speak CBOR, and one by one in JSON where one does not; either is read.
#[test]
fn bodies_are_in_the_encoding_that_was_agreed_on() {
    let cbor = ConnConfig { extensions: Arc::new([EXTENSION_CBOR.into()]), ..config(Transport::Plain) };
    let plain = config(Transport::Plain);
    let record = crate::index::testing::file(&mut crate::index::testing::author(1), "/a", 1);
    let at = Resume { token: [1; 16], arrival: 7 };
    for (client, server, batched) in [(&cbor, &cbor, true), (&cbor, &plain, false), (&plain, &cbor, false)] {
        let logins = vec![by_key(2, Level::ReadWrite)];
        let mut pair = Pair::with(client, server, by_key(1, Level::ReadWrite), logins);
        pair.cuts = Some(Rng::from_seed([3; 32]));
        pair.run();
        pair.client.conn.send_records(&[&record, &record], Some(at));
        pair.server.conn.send_records(&[&record, &record], Some(at));
        pair.run();
        for side in [&pair.client, &pair.server] {
            let said: Vec<_> = side.events[1..]
                .iter()
                .map(|event| match event {
                    ConnEvent::Message(Message::Database(message)) => message.clone(),
                    other => panic!("{other:?}"),
                })
                .collect();
            let update = |at| DatabaseMessage::Update { record: Box::new(record.clone()), at };
            let each = [update(None), update(Some(at))];
            let records = vec![record.clone(), record.clone()];
            let batch = [DatabaseMessage::Updates { records, at: Some(at) }];
            assert_eq!(said, if batched { &batch[..] } else { &each[..] });
        }
    }
}

/// JSON stays allowed where CBOR is, and CBOR that was not agreed on ends the link.
#[test]
fn cbor_only_where_it_was_agreed_on() {
    let cbor = ConnConfig { extensions: Arc::new([EXTENSION_CBOR.into()]), ..config(Transport::Plain) };
    let looking = Message::Database(DatabaseMessage::Looking { looking: true });
    for (agreed, encoding) in
        [(true, Encoding::Json), (true, Encoding::Cbor), (false, Encoding::Json), (false, Encoding::Cbor)]
    {
        let theirs = if agreed { cbor.clone() } else { config(Transport::Plain) };
        let logins = vec![by_key(2, Level::ReadWrite)];
        let mut pair = Pair::with(&cbor, &theirs, by_key(1, Level::ReadWrite), logins);
        pair.run();
        pair.client.conn.inner.queue.encoding = encoding;
        assert!(pair.client.conn.send(&looking));
        pair.run();
        let refused = encoding == Encoding::Cbor && !agreed;
        assert_eq!(matches!(pair.server.closed(), Some(CloseReason::Protocol(_))), refused);
        let heard = matches!(pair.server.events.get(1), Some(ConnEvent::Message(Message::Database(_))));
        assert_eq!(heard, !refused);
    }
}

#[test]
fn payloads_arrive_whole() {
    for transport in [Transport::Plain, tls()] {
        let mut pair = ready_pair(transport);
        pair.cuts = Some(Rng::from_seed([4; 32]));
        let mut expected = vec![];
        for length in [1, RECORD, RECORD + 1, PIECE_MAX, PIECE_MAX + 1, 3 * PIECE_MAX + 5, 0] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
            let message = data(length as u64);
            assert!(pair.client.conn.send_with_payload(&message, bytes.clone()));
            assert!(pair.client.conn.send(&Message::KeysAcknowledgment));
            assert!(pair.server.conn.send_with_payload(&message, bytes.clone()));
            expected.push(bytes);
        }
        assert!(pair.client.conn.queued_bytes() > 5 * PIECE_MAX);
        pair.run();
        assert_eq!(pair.client.conn.queued_bytes(), 0);
        let mut found: Vec<Vec<u8>> = vec![];
        let mut acknowledged = 0;
        for event in &pair.server.events[1..] {
            match event {
                ConnEvent::Message(Message::Directory(_)) => found.push(vec![]),
                ConnEvent::Message(Message::KeysAcknowledgment) => acknowledged += 1,
                ConnEvent::Payload { bytes, .. } => found.last_mut().unwrap().extend_from_slice(bytes),
                other => panic!("{other:?}"),
            }
        }
        assert!(found == expected);
        assert_eq!(acknowledged, expected.len());
        assert_eq!(pair.client.events.len(), 1 + 7 + 7 + 1 + 3);
    }
}

const RECORD: usize = crate::channel::RECORD_MAX;

fn data(length: u64) -> Message {
    Message::Directory(DirectoryMessage::Data { sha256: Sha256([1; 32]), range: (0, length) })
}

#[test]
fn wrong_key_and_unknown_id_look_alike() {
    let wrong = Login { secret: Secret::LevelKey([0x23; 32]), ..by_key(1, Level::ReadWrite) };
    let unknown = Login { id: [0x12; 32], ..by_key(1, Level::ReadWrite) };
    let mut sent = vec![];
    for (login, counted) in [(wrong, 1), (unknown, 0)] {
        let mut pair = Pair::new(tls(), login, vec![by_key(2, Level::ReadWrite)]);
        pair.run();
        assert_eq!(pair.reasons(), (Some(&CloseReason::Refused), Some(&CloseReason::WrongProof)));
        assert_eq!(pair.server.book.wrong, counted);
        sent.push(pair.server.sent);
    }
    assert_eq!(sent[0], sent[1]);
}

#[test]
fn wrong_code_is_seen_by_the_member() {
    let guess = |role| Login { secret: Secret::Password(b"passwore".to_vec()), ..by_code(1, role) };
    let mut sent = vec![];
    let unknown = Login { id: [0x12; 32], ..by_code(1, Role::Joiner) };
    for (login, counted) in [(guess(Role::Joiner), 1), (unknown, 0)] {
        let mut pair = Pair::new(tls(), login, vec![by_code(2, Role::Member)]);
        pair.run();
        assert_eq!(pair.reasons(), (Some(&CloseReason::Refused), Some(&CloseReason::WrongProof)));
        assert_eq!((pair.server.book.wrong, pair.client.book.wrong), (counted, 0));
        sent.push(pair.server.sent);
    }
    assert_eq!(sent[0], sent[1]);
    // The joiner accepts the connection: its proof comes first all the same.
    let mut pair = Pair::new(tls(), guess(Role::Member), vec![by_code(2, Role::Joiner)]);
    pair.run();
    assert_eq!(pair.reasons(), (Some(&CloseReason::WrongProof), Some(&CloseReason::Refused)));
    assert_eq!((pair.server.book.wrong, pair.client.book.wrong), (0, 1));
}

#[test]
fn logins_of_the_same_role_or_another_method_do_not_fit() {
    for (client, server) in [
        (by_code(1, Role::Member), by_code(2, Role::Member)),
        (by_code(1, Role::Joiner), by_code(2, Role::Joiner)),
        (by_key(1, Level::ReadOnly), by_code(2, Role::Member)),
        (by_code(1, Role::Joiner), by_key(2, Level::ReadOnly)),
    ] {
        let mut pair = Pair::new(Transport::Plain, client, vec![server]);
        pair.run();
        assert!(!pair.client.conn.is_ready() && !pair.server.conn.is_ready());
        assert!(pair.server.conn.is_closed() || pair.client.conn.is_closed());
    }
}

#[test]
fn loopback_and_copied_home_are_told_apart() {
    for transport in [Transport::Plain, tls()] {
        let login = by_key(1, Level::ReadWrite);
        let mut pair = Pair::new(transport.clone(), login.clone(), vec![login.clone()]);
        pair.run();
        assert_eq!(pair.reasons(), (Some(&CloseReason::Loopback), Some(&CloseReason::Loopback)));
        let copy = Login { run: [77; 16], ..login.clone() };
        let mut pair = Pair::new(transport, login, vec![copy]);
        pair.run();
        let copied = CloseReason::CopiedHome { club: RootId(7), name: Some("desk".into()) };
        assert_eq!(pair.reasons(), (Some(&copied), Some(&copied)));
    }
}

#[test]
fn writers_prove_themselves_below_read_write() {
    let (key, other) = (signing_key(5), signing_key(6));
    let reader = Login { writer_public: Some(key.public()), ..by_key(2, Level::ReadOnly) };
    let writer = Login { writer: Some(key.clone()), ..by_key(1, Level::ReadOnly) };
    let mut pair = Pair::new(Transport::Plain, writer.clone(), vec![reader.clone()]);
    pair.run();
    assert!(pair.server.ready().writer && !pair.client.ready().writer);

    let liar = Login { writer: Some(other.clone()), ..writer.clone() };
    let mut pair = Pair::new(Transport::Plain, liar, vec![reader.clone()]);
    pair.run();
    assert_eq!(pair.server.closed(), Some(&CloseReason::Auth("a wrong writer proof")));
    assert!(matches!(pair.client.closed(), Some(CloseReason::ByPeer { code, .. }) if code == "auth"));

    // A joiner learns the key later.
    let member = Login { writer: Some(key.clone()), ..by_code(1, Role::Member) };
    let mut pair = Pair::new(Transport::Plain, member, vec![by_code(2, Role::Joiner)]);
    pair.run();
    assert!(!pair.server.ready().writer);
    let mut again = Pair::new(Transport::Plain, by_code(1, Role::Joiner), vec![by_code(2, Role::Member)]);
    again.run();
    assert!(!again.client.conn.confirm_writer(&key.public()));
    assert!(pair.server.conn.confirm_writer(&key.public()));
    assert!(!pair.server.conn.confirm_writer(&key.public()), "only once");
}

#[test]
fn openings_are_judged() {
    let exporter = [8; 32];
    let config = config(Transport::Plain);
    let now = Now { mono: Instant(0), wall: WallTime(0) };
    let (them, us) = (by_key(1, Level::ReadOnly), by_key(2, Level::ReadOnly));
    let judge = |change: &dyn Fn(&mut crate::wire::core_msgs::Opening), by_client: bool| {
        let mut opening = open::ours(&them, &config, vec![], by_client, &exporter, now);
        change(&mut opening);
        open::judge(opening, &us, &config, false, &exporter).map(|_| ()).map_err(|fault| match fault {
            OpenFault::Protocol(text) | OpenFault::Auth(text) => text,
            OpenFault::Loopback | OpenFault::CopiedHome { .. } => "self",
        })
    };
    assert_eq!(judge(&|_| {}, true), Ok(()));
    assert_eq!(judge(&|_| {}, false), Err("a wrong peer proof"), "a server's proof is none of a client");
    assert_eq!(judge(&|o| o.peer = PeerId([0; 16]), true), Err("a peer ID that is not that of its key"));
    assert_eq!(judge(&|o| o.peer_proof[0] ^= 1, true), Err("a wrong peer proof"));
    assert_eq!(judge(&|o| o.speaks_protocol = false, true), Err("no protocol version in common"));
    let stolen = |o: &mut crate::wire::core_msgs::Opening| {
        o.peer = peer_keys(3).id();
        o.peer_key = peer_keys(3).public();
    };
    assert_eq!(judge(&stolen, true), Err("a wrong peer proof"));
}

#[test]
fn garbage_ends_an_unready_link() {
    for transport in [Transport::Plain, tls()] {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 200], &[0; 64], b"\x16\x03\x01\x00\x05hello"]
        {
            let logins = vec![by_key(2, Level::ReadWrite)];
            let mut pair = Pair::new(transport.clone(), by_key(1, Level::ReadWrite), logins);
            pair.server.receive(pair.now, garbage);
            pair.server.drain();
            if !pair.server.conn.is_closed() {
                pair.pass(10);
            }
            assert!(pair.server.closed().is_some());
            assert_eq!(pair.server.events.len(), 1);
            // Nothing that follows changes anything.
            pair.server.receive(pair.now, garbage);
            assert!(pair.server.conn.poll_event().is_none() && pair.server.conn.poll_timeout().is_none());
        }
    }
}

#[test]
fn hellos_are_checked_as_they_arrive() {
    let nonce = [&[32][..], &[5; 32]].concat();
    let good = [&b"CSKY\x02\x01\x01"[..], &[0; 64], b"\0\0"].concat();
    for (at, byte) in [(0, b'c'), (4, 1), (5, 0), (5, 3), (6, 0), (6, 2), (6, 3), (72, 1), (71, 1)] {
        let mut pair = Pair::new(Transport::Plain, by_key(1, Level::ReadWrite), vec![]);
        let mut hello = good.clone();
        hello[at] = byte;
        pair.server.receive(pair.now, &nonce);
        pair.server.receive(pair.now, &hello);
        pair.server.drain();
        assert!(matches!(pair.server.closed(), Some(CloseReason::Protocol(_))), "{at} {byte}");
    }
    let mut pair = Pair::new(Transport::Plain, by_key(1, Level::ReadWrite), vec![]);
    pair.server.receive(pair.now, &[&nonce[..], &good].concat());
    assert!(!pair.server.conn.is_closed());
    pair.server.receive(pair.now, &[0; 32]);
    pair.server.drain();
    assert_eq!(pair.server.closed(), Some(&CloseReason::WrongProof));
}

#[test]
fn strangers_get_little_room() {
    let logins = vec![by_key(2, Level::ReadWrite)];
    let mut pair = Pair::new(tls(), by_key(1, Level::ReadWrite), logins);
    // One handshake message of 64,000 bytes, never finished.
    let first = [&b"\x16\x03\x01\x40\x00\x01\x00\xfa\x00"[..], &[0; 0x4000 - 4]].concat();
    pair.server.receive(pair.now, &first[..TLS_HANDSHAKE_MAX]);
    assert!(!pair.server.conn.is_closed());
    pair.server.receive(pair.now, &[0]);
    pair.server.drain();
    assert_eq!(pair.server.closed(), Some(&CloseReason::TooMuch));

    // An opening at its limit and one past it, from a client that has proven itself.
    for (length, closed) in [(OPENING_MAX, false), (OPENING_MAX + 1, true)] {
        let mut pair =
            Pair::new(Transport::Plain, by_key(1, Level::ReadWrite), vec![by_key(2, Level::ReadWrite)]);
        while !matches!(pair.server.conn.inner.phase, Phase::Opening(_)) {
            Pair::carry(&mut pair.client, &mut pair.server, pair.now, &mut None);
            Pair::carry(&mut pair.server, &mut pair.client, pair.now, &mut None);
        }
        pair.server.receive(pair.now, format!("m{length}{{").as_bytes());
        assert_eq!(pair.server.conn.is_closed(), closed);
    }
}

#[test]
fn links_must_be_ready_in_time() {
    let mut pair = Pair::new(tls(), by_key(1, Level::ReadWrite), vec![]);
    assert_eq!(pair.server.conn.poll_timeout(), Some(Instant(0).plus(HANDSHAKE_TIMEOUT)));
    pair.pass(9);
    assert_eq!(pair.reasons(), (None, None));
    pair.pass(1);
    let late = Some(&CloseReason::HandshakeTimeout);
    assert_eq!(pair.reasons(), (late, late));
}

#[test]
fn pings_keep_a_link_and_silence_drops_it() {
    let mut pair = ready_pair(Transport::Plain);
    let (at_client, at_server) = (pair.client.sent, pair.server.sent);
    pair.pass(29);
    pair.run();
    assert_eq!((pair.client.sent, pair.server.sent), (at_client, at_server));
    for _ in 0..10 {
        pair.pass(30);
        pair.run();
    }
    assert!(pair.client.sent > at_client && pair.server.sent > at_server);
    assert_eq!(pair.reasons(), (None, None));
    // The peer's larger timeout counts.
    let asked = "{\"type\":\"core.ping\",\"timeout\":100}";
    pair.client.receive(pair.now, format!("m{}{asked}", asked.len()).as_bytes());
    pair.pass(60);
    let silent = Some(&CloseReason::Silence);
    assert_eq!(pair.reasons(), (None, silent));
    pair.pass(39);
    assert_eq!(pair.client.closed(), None);
    pair.pass(1);
    assert_eq!(pair.client.closed(), silent);
}

#[test]
fn silence_counts_only_while_reading() {
    let mut pair = ready_pair(Transport::Plain);
    pair.client.conn.set_reading(pair.now, false);
    pair.pass(1000);
    assert_eq!(pair.client.closed(), None);
    pair.client.conn.set_reading(pair.now, true);
    pair.pass(59);
    assert_eq!(pair.client.closed(), None);
    pair.pass(1);
    assert_eq!(pair.client.closed(), Some(&CloseReason::Silence));
}

#[test]
fn closing_finishes_the_frame_that_has_begun() {
    for transport in [Transport::Plain, tls()] {
        let mut pair = ready_pair(transport);
        for _ in 0..3 {
            pair.client.conn.send_with_payload(&data(50_000), vec![6; 50_000]);
        }
        let mut begun = Vec::new();
        assert!(pair.client.conn.poll_transmit(&mut begun, 20_000));
        assert!(begun.len() < 20_000 + RECORD + 100);
        pair.server.receive(pair.now, &begun);
        pair.client.conn.close("shutdown", "the node ends");
        assert!(!pair.client.conn.send(&Message::KeysAcknowledgment));
        pair.run();
        let told = CloseReason::ByPeer { code: "shutdown".into(), message: "the node ends".into() };
        assert_eq!(pair.server.closed(), Some(&told));
        assert!(matches!(pair.client.closed(), Some(CloseReason::ByUs { .. })));
        let payloads = pair.server.events.iter().filter(|e| matches!(e, ConnEvent::Payload { .. })).count();
        assert_eq!(payloads, 1);
    }
}

#[test]
fn who_dialed_is_known_before_it_closes() {
    for transport in [Transport::Plain, tls()] {
        let mut pair = Pair::new(transport, by_key(1, Level::ReadWrite), vec![by_key(2, Level::ReadWrite)]);
        let mut busy = true;
        while busy {
            busy = Pair::carry(&mut pair.client, &mut pair.server, pair.now, &mut None);
            busy |= Pair::carry(&mut pair.server, &mut pair.client, pair.now, &mut None);
            if pair.client.conn.is_ready() {
                pair.client.conn.close("shutdown", "the node ends");
            }
        }
        let told = CloseReason::ByPeer { code: "shutdown".into(), message: "the node ends".into() };
        assert!(matches!(pair.server.events[..], [ConnEvent::Ready(_), ConnEvent::Closed(_)]));
        assert_eq!(pair.server.closed(), Some(&told));
    }
}

#[test]
fn faults_are_told_and_logged() {
    let openings = ["core.greeting", "core.start"].map(|name| format!("{{\"type\":\"{name}\"}}"));
    for body in
        [&openings[0], &openings[1], "{\"type\":\"core.ping\"}", "{\"a\":1,\"a\":2,\"type\":\"x\"}", "{]"]
    {
        let mut pair = ready_pair(Transport::Plain);
        pair.server.receive(pair.now, format!("m{}{body}m15{{\"type\":\"late\"}}", body.len()).as_bytes());
        pair.run();
        assert!(matches!(pair.server.closed(), Some(CloseReason::Protocol(_))), "{body}");
        assert!(matches!(pair.client.closed(), Some(CloseReason::ByPeer { code, .. }) if code == "protocol"));
        assert_eq!(pair.server.events.len(), 2);
    }
}

#[test]
fn payloads_of_unknown_messages_are_dropped() {
    let mut pair = ready_pair(Transport::Plain);
    pair.server.receive(pair.now, b"!17{\"type\":\".x.y.z\"}3\nabc0\nm12{\"type\":\"u\"}");
    pair.server.drain();
    assert!(
        matches!(&pair.server.events[1..], [
            ConnEvent::Message(Message::Unknown { type_name }),
            ConnEvent::Message(Message::Unknown { .. }),
        ] if type_name == ".x.y.z"),
        "{:?}",
        pair.server.events
    );
}

#[test]
fn statements_pass_verbatim() {
    let mut pair = ready_pair(tls());
    assert!(pair.client.conn.send_statement(b"{ \"type\":\"database.head\"}", &[3; 64]));
    pair.run();
    assert!(
        matches!(&pair.server.events[1], ConnEvent::Message(Message::Statement { type_name, body, signature })
            if type_name == "database.head" && body == b"{ \"type\":\"database.head\"}" && *signature == [3; 64])
    );
}

#[test]
fn reading_stops_while_events_pile_up() {
    let mut pair = ready_pair(Transport::Plain);
    let mut frame = Vec::new();
    crate::wire::frame::write_frame(b"{\"type\":\"x\"}", false, &mut frame);
    let each = frame.len() - 3 + EVENT_COST;
    let fits = (EVENT_BYTES_MAX - 1) / each;
    for _ in 0..fits {
        pair.server.receive(pair.now, &frame);
    }
    assert!(pair.server.conn.wants_read());
    pair.server.receive(pair.now, &frame);
    assert!(!pair.server.conn.wants_read());
    pair.server.drain();
    assert!(pair.server.conn.wants_read());
    assert_eq!(pair.server.events.len(), 1 + fits + 1);
}

#[test]
fn sends_need_a_ready_link_and_fitting_payloads() {
    let mut pair =
        Pair::new(Transport::Plain, by_key(1, Level::ReadWrite), vec![by_key(2, Level::ReadWrite)]);
    assert!(!pair.client.conn.send(&Message::KeysAcknowledgment));
    pair.run();
    assert!(!pair.client.conn.send(&data(1)));
    assert!(!pair.client.conn.send_with_payload(&Message::KeysAcknowledgment, vec![1]));
    assert_eq!(pair.client.conn.queued_bytes(), 0);
}

/// What each side says before messages flow, with every identifier replaced by its length.
#[test]
fn transcript_of_the_opening() {
    let login = |peer| Login { writer: Some(signing_key(5)), ..by_key(peer, Level::ReadOnly) };
    let server = Login { writer_public: Some(signing_key(5).public()), ..login(2) };
    let client = Login { writer_public: Some(signing_key(5).public()), ..login(1) };
    let mut pair = Pair::new(Transport::Plain, client, vec![server]);
    let mut lines = vec![];
    for turn in 0..12 {
        let (from, to, name) = match turn % 2 {
            0 => (&mut pair.client, &mut pair.server, "client"),
            _ => (&mut pair.server, &mut pair.client, "server"),
        };
        let mut bytes = Vec::new();
        from.conn.poll_transmit(&mut bytes, usize::MAX);
        to.receive(pair.now, &bytes);
        if let Some(at) = bytes.windows(2).position(|pair| pair == b"{\"") {
            lines.push(format!("{name}: {}", redact(core::str::from_utf8(&bytes[at..]).unwrap())));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

fn redact(text: &str) -> String {
    let parts = text.split('"').map(|part| {
        let is_hex = part.len() >= 32 && part.bytes().all(|b| b.is_ascii_hexdigit());
        if is_hex { format!("<{} bytes>", part.len() / 2) } else { part.to_string() }
    });
    parts.collect::<Vec<_>>().join("\"")
}

#[test]
fn reasons_are_sentences() {
    let reason = CloseReason::ByPeer { code: "limit".into(), message: "a\u{1b}[31m".into() };
    assert_eq!(reason.to_string(), "the other side closed the connection (limit): a\\u{1b}[31m");
}

#[test]
fn an_element_that_is_none_counts_as_a_wrong_proof() {
    let nonce = [&[32][..], &[5; 32]].concat();
    let mut pair = Pair::new(Transport::Plain, by_key(1, Level::ReadWrite), vec![by_code(2, Role::Member)]);
    let mut out = Vec::new();
    pair.server.receive(pair.now, &nonce);
    pair.server.conn.poll_transmit(&mut out, usize::MAX);
    let tag = hello_tag(&[0x11; 32], &pair.server.conn.inner.exporter);
    let hello = [&b"CSKY\x02\x02\x02"[..], &tag, &[0; 32], b"\0\x20", &[0; 32]].concat();
    out.clear();
    pair.server.receive(pair.now, &hello);
    pair.server.conn.poll_transmit(&mut out, usize::MAX);
    assert_eq!(out.len(), 1 + 32 + 2 + 32, "answered like any other");
    pair.server.receive(pair.now, &[0; 32]);
    pair.server.drain();
    assert_eq!(pair.server.closed(), Some(&CloseReason::WrongProof));
    assert_eq!(pair.server.book.wrong, 1);
    // The same from the member's side: a server answers the joiner with no element.
    let login = by_code(1, Role::Joiner);
    let mut pair = Pair::new(Transport::Plain, login, vec![]);
    pair.client.receive(pair.now, &[&nonce[..], &[1], &[0; 32], b"\0\x20", &[0; 32]].concat());
    pair.client.drain();
    assert_eq!(pair.client.closed(), Some(&CloseReason::WrongProof));
    assert_eq!(pair.client.book.wrong, 1);
}
